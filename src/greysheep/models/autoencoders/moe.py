"""MoE (the ablation of Pan et al., ECIR 2024): experts behind a learned gate, everybody weighted alike."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from greysheep.models.autoencoders import paper_settings
from greysheep.models.autoencoders import search_spaces as vae_space
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.autoencoders.config import MultVAEConfig


class MoEConfig(MultVAEConfig):
    """Settings of MoE, beside those of its experts."""

    n_experts: int = Field(10, ge=1)
    """K."""
    dropout: float = Field(0.4, ge=0, lt=1)
    """Share of input entries dropped while training; experts smooth one another, so less than of one."""

    authors: ClassVar[dict[str, Any]] = paper_settings.PROGRAM


class MoE(MixtureModel):
    """K MultVAE experts mixed by an MLP on the user's row, trained together with them.

    The gate's hidden layer is as wide as the latent space.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> gs.MoE(n_experts=3, latent=8, epochs=2, seed=0, progress=False).fit(log).gates.shape
    (60, 3)
    """

    name = "moe"
    Config = MoEConfig
    presets = paper_settings.EXPERTS
    search_space, search_starts = vae_space.TRAINING, vae_space.STARTS
    fixed: ClassVar[dict[str, Any]] = {"gate": "mlp"}
