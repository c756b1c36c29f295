"""The models, and the registry of their names."""

from __future__ import annotations

import difflib
from typing import Any

from greysheep.errors import ConfigError
from greysheep.models.autoencoders.lmoe import LMoE
from greysheep.models.autoencoders.moe import MoE
from greysheep.models.autoencoders.multvae import MultVAE
from greysheep.models.autoencoders.tall import TALL
from greysheep.models.autoencoders.wl import WL
from greysheep.models.base import Model
from greysheep.models.blend import Blend
from greysheep.models.config import read_settings
from greysheep.models.folder import load
from greysheep.models.linear.ease import EASE
from greysheep.models.linear.ease_weighted import WeightedEASE
from greysheep.models.linear.ials import IALS
from greysheep.models.linear.itemknn import ItemKNN
from greysheep.models.linear.popular import Popular
from greysheep.models.local.enlft import EnLFT
from greysheep.models.local.lft import LFT
from greysheep.models.local.loca import LOCA

REGISTRY: dict[str, type[Model]] = {
    model.name: model
    for model in (
        Popular,
        ItemKNN,
        EASE,
        WeightedEASE,
        IALS,
        Blend,
        MultVAE,
        WL,
        LOCA,
        LFT,
        EnLFT,
        MoE,
        LMoE,
        TALL,
    )
}

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


def create(name: str, /, **keywords: Any) -> Model:
    """Make a model by its registry name.

    Raises:
        ConfigError: no such model; the message names the nearest one.

    >>> create("tall", n_experts=4).config.n_experts
    4
    """
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=1, cutoff=0.0)
        raise ConfigError(f"there is no model {name!r}; the nearest is {near[0]!r} of {', '.join(REGISTRY)}")
    return REGISTRY[name](**keywords)


def parse(text: str, /, **keywords: Any) -> Model:
    """Make a model from `name` or `name[key=value,...]`; the text becomes its label.

    >>> parse("tall[gate=uniform,n_experts=4]").label
    'tall[gate=uniform,n_experts=4]'
    """
    name, bracket, rest = text.strip().partition("[")
    if bracket and not rest.endswith("]"):
        raise ConfigError(f"{text!r}: a variant is written name[key=value,...]")
    try:
        own = read_settings(filter(None, rest[:-1].split(",")))
    except ConfigError as error:
        raise ConfigError(f"model {text!r}: {error}") from None
    given = {**keywords, **own}
    for key in ("label", "self"):  # names in `Model.__init__` that are no settings
        if key in given:
            raise ConfigError(f"{name} has no setting {key!r}")
    return create(name, **given, label=text.strip())
