"""TALL (Pan et al., ECIR 2024): a gated mixture of MultVAE experts with adaptive user weights."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from greysheep.models.autoencoders import paper_settings, search_spaces
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.autoencoders.lmoe import LMoEConfig
from greysheep.models.config import MANY
from greysheep.nn.adaptive_weights import SignalScale


class TALLConfig(LMoEConfig):
    """Settings of TALL, beside those of its experts and their gate."""

    weighting: Literal["none", "loss", "loss-change", "mainstream"] = "loss-change"  # type: ignore[assignment]
    """Signal of the adaptive weights; `none`: equal weights; `mainstream`: WL's fixed weights."""
    start_epoch: int = Field(20, ge=0, le=MANY)
    """Epochs with equal weights first (the paper's gap T; 40 for ML-1M there)."""
    alpha: float = Field(2.0, ge=1e-6, le=1e6)
    """Regularization of the adaptive weights: the larger, the more equal. Its unit is that of the signal: of
    a standardised one, a user whose loss fell by one standard deviation more than the mean user's weighs
    1 / (2 alpha) more, whatever the log."""
    window: int = Field(8, ge=1, le=10_000)
    """Loss changes averaged into the signal."""
    signal_scale: SignalScale = "standardised"
    """Held-out loss as a sum over a user's rows, their mean, or standardised over users."""

    authors: ClassVar[dict[str, Any]] = {**paper_settings.PROGRAM, **paper_settings.ADAPTIVE}


class TALL(MixtureModel):
    """End-to-end adaptive local learning: K experts, a loss-driven gate, per-user adaptive weights.

    Presets `ml-1m`, `yelp` and `cds` hold the paper's settings for those data sets; choose one with
    `TALL(preset="yelp")`, and override what you like.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.TALL(n_experts=3, latent=8, epochs=2, start_epoch=1, seed=0, progress=False).fit(log)
    >>> model.gates.shape
    (60, 3)
    """

    name = "tall"
    Config = TALLConfig
    search_space, search_starts = search_spaces.ADAPTIVE_EXPERTS, search_spaces.ADAPTIVE_STARTS
    presets = paper_settings.TALL
