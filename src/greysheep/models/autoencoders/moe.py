"""MoE (the ablation of Pan et al., ECIR 2024): experts with a learned gate, equal user weights."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from greysheep.models.autoencoders import paper_settings, search_spaces
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.autoencoders.config import MultVAEConfig


class MoEConfig(MultVAEConfig):
    """Settings of MoE, beside those of its experts."""

    n_experts: int = Field(10, ge=1, le=100_000)
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
    search_space, search_starts = search_spaces.TRAINING, search_spaces.STARTS
    fixed: ClassVar[dict[str, Any]] = {"gate": "mlp"}
