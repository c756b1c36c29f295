"""LMoE (Pan et al., ECIR 2024): experts with a loss-driven gate, equal user weights."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from greysheep.models.autoencoders import paper_settings, search_spaces
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.autoencoders.config import MultVAEConfig
from greysheep.models.config import MANY


class LMoEConfig(MultVAEConfig):
    """Settings of a mixture of experts, beside those of the experts; TALL adds its own to them."""

    n_experts: int = Field(10, ge=1, le=100_000)
    """K. The paper uses 100; time and memory grow with K."""
    dropout: float = Field(0.4, ge=0, lt=1)
    """Share of input entries dropped while training; experts smooth one another, so less than of one."""
    gate: Literal["loss", "temperature", "uniform", "mlp"] | None = None
    """How experts are mixed for a user: `loss` (published: softmax of 1 / held-out loss), `temperature`
    (softmax of minus the mean held-out loss), `uniform`, or `mlp` (learned from the user's row). None =
    `loss`, but `uniform` with weighting `mainstream`: the rows that a loss-driven gate reads, and nothing is trained
    on, are worth more to the experts (docs/results/defaults.md)."""
    temperature: float = Field(1.0, ge=1e-6, le=1e6)
    """Of gate `temperature`: smaller is sharper."""
    shrinkage: float = Field(5.0, ge=0, le=1e9)
    """Of gate `temperature`: held-out rows at which a user's gate is half uniform."""
    gate_gradient: bool = False
    """Let the gradient flow through a loss-driven gate. `variant="authors"` always does."""
    gate_refresh: Literal["batch", "epoch"] | None = None
    """When a loss-driven gate is computed in training: with every batch, or once per epoch, at validation
    (with every batch where nothing is validated, as in a refit). None = once per epoch, at no loss of quality
    (docs/results/defaults.md), but with every batch where the gradient flows through the gate or
    `active_experts` is set."""
    active_experts: int | None = Field(None, ge=1, le=100_000)
    """m: after `warm_up` a user passes through her m best experts only; None = all."""
    warm_up: int = Field(20, ge=0, le=MANY)
    """Epochs with all experts before `active_experts` are settled for each user."""
    weighting: Literal["none", "mainstream"] = "none"
    """How users weigh in the loss: alike, or `mainstream`, WL's fixed weights on the mixture."""
    power: float = Field(1.0, ge=0, le=10)
    """Of weighting `mainstream`: how steeply a user's weight falls with her mainstream score."""

    authors: ClassVar[dict[str, Any]] = paper_settings.PROGRAM

    @model_validator(mode="after")
    def _a_kept_gate_is_a_constant(self) -> Self:
        if self.gate_refresh == "epoch" and (self.gate_gradient or self.variant == "authors"):
            why = "no gradient flows through a gate that is kept for an epoch"
            raise ValueError(f'{why}: leave gate_refresh out, or set it to "batch"')
        return self


class LMoE(MixtureModel):
    """The paper's ablation of TALL without adaptive weights: K experts and a loss-driven gate.

    `tall[weighting=loss,start_epoch=0]` adds a loss weight, `tall[weighting=loss]` the gap as well, and
    `tall` takes the loss change in its place.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> gs.LMoE(n_experts=3, latent=8, epochs=2, seed=0, progress=False).fit(log).gates.shape
    (60, 3)
    """

    name = "lmoe"
    Config = LMoEConfig
    presets = paper_settings.EXPERTS
    search_space, search_starts = search_spaces.GATED_EXPERTS, search_spaces.GATED_STARTS
