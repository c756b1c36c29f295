"""The models, known by their names once this package is imported."""

from __future__ import annotations

from greysheep.models.autoencoders.lmoe import LMoE
from greysheep.models.autoencoders.moe import MoE
from greysheep.models.autoencoders.multvae import MultVAE
from greysheep.models.autoencoders.tall import TALL
from greysheep.models.autoencoders.wl import WL
from greysheep.models.base import REGISTRY, Model
from greysheep.models.blend import Blend
from greysheep.models.linear.ease import EASE
from greysheep.models.linear.ease_weighted import WeightedEASE
from greysheep.models.linear.ials import IALS
from greysheep.models.linear.itemknn import ItemKNN
from greysheep.models.linear.popular import Popular
from greysheep.models.local.enlft import EnLFT
from greysheep.models.local.lft import LFT
from greysheep.models.local.loca import LOCA
from greysheep.models.registry import create, load, parse

__all__ = [
    "EASE",
    "IALS",
    "LFT",
    "LOCA",
    "REGISTRY",
    "TALL",
    "WL",
    "Blend",
    "EnLFT",
    "ItemKNN",
    "LMoE",
    "MoE",
    "Model",
    "MultVAE",
    "Popular",
    "WeightedEASE",
    "create",
    "load",
    "parse",
]
