"""The settings that every autoencoder shares: those of MultVAE, which is a mixture of one expert."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from greysheep.models.autoencoders import paper_settings
from greysheep.models.config import MANY, ModelConfig
from greysheep.models.training.objective import ObjectiveText

LARGEST_BATCH, STEPS_AN_EPOCH = 512, 10
"""Limits of the default batch: at most so many users, and at least so many steps per epoch."""


class MultVAEConfig(ModelConfig):
    """Settings of MultVAE; TALL adds its own to them."""

    variant: Literal["default", "authors"] = "default"
    """`authors` does as the TALL authors' program does where that differs from the paper's text, and takes
    its settings (for ML-1M) for all keys that are not given."""
    latent: int = Field(100, ge=1, le=100_000)
    """D, size of the latent space."""
    epochs: int = Field(200, ge=1, le=MANY)
    """The most epochs."""
    patience: int = Field(15, ge=1, le=MANY)
    """Epochs without a better objective before training stops."""
    objective: ObjectiveText = "mean-ndcg"
    """What early stopping maximises on validation rows: `mean-ndcg` (NDCG@1, 5, 10, 20) or `recall@20`
    and the like; `:low` (any group) or `:worst` behind it asks for that group instead of all users."""
    batch_size: int | None = Field(None, ge=1, le=MANY)
    """B, users per step. None = 512, or fewer so that an epoch has ten steps: with two steps per epoch, early
    stopping would end before a small log is learned."""
    learning_rate: float = Field(2e-3, gt=0, le=10)
    """Adam's step size."""
    weight_decay: float = Field(0.03, ge=0, lt=1)
    """Share of every weight that decays in an epoch, apart from Adam's step (decoupled, Loshchilov & Hutter,
    ICLR 2019): the same on every log, whatever its rows per item and the batch size."""
    l2: float = Field(0.0, ge=0, le=1000)
    """The authors' weight decay, coupled with Adam's step, before its division by the number of experts;
    if not 0, it replaces `weight_decay`. It is added to the gradient of a mean over the batch, so that
    weights of items with few rows decay to 0."""
    beta: float = Field(1.0, ge=0, le=1000)
    """Cap of the KL weight: the most that a user's KL weighs against her cross-entropy (with `kl_reduction`
    "sum" the batch size times as much)."""
    anneal_epochs: float = Field(32.0, ge=0, le=1e9)
    """Epochs in which the KL weight would grow from 0 to 1: in epoch t a user's KL weighs
    min(beta, t / anneal_epochs). 0 = `beta` from the start."""
    anneal_steps: int | None = Field(None, ge=1, le=10**12)
    """The authors' ramp, in place of `anneal_epochs`: after s steps the KL weight is
    min(beta, s / anneal_steps). With the sum of KL a user's own then grows by users / anneal_steps per epoch
    (200,000 steps: .03 on ML-1M, .17 on Yelp): another model on each log."""
    kl_reduction: Literal["mean", "sum"] = "mean"
    """How a batch's KL terms are reduced: mean over users, like the cross-entropy, or the authors' sum."""
    noise: float = Field(0.01, ge=0, le=100)
    """Factor of the latent's random part while training."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of input entries dropped while training."""

    authors: ClassVar[dict[str, Any]] = {**paper_settings.PROGRAM, "kl_reduction": "mean"}
    """What `variant="authors"` takes where a key is not given."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        variant = given.get("variant") if isinstance(given, dict) else None
        if isinstance(variant, str) and variant == "authors":  # an array would compare its elements
            return {**cls.authors, **given}
        return given

    def users_a_step(self, n_users: int) -> int:
        """B of a log with so many users to train on."""
        return self.batch_size or min(LARGEST_BATCH, max(1, n_users // STEPS_AN_EPOCH))

    def adam(
        self, parameters: Iterable[Tensor], learning_rate: float, steps_an_epoch: int, n_experts: int = 1
    ) -> torch.optim.Optimizer:
        """Adam with `l2` (coupled) where it is not 0, else with `weight_decay` (decoupled, per epoch).

        l2 is divided by the number of experts, as an expert's gradient carries the gate's 1 / K; a decoupled
        decay does not meet the gradient.
        """
        if self.l2:
            return torch.optim.Adam(parameters, learning_rate, weight_decay=self.l2 / n_experts, fused=True)
        # AdamW multiplies by 1 - lr * weight_decay at each step
        decay = self.weight_decay / (learning_rate * steps_an_epoch)
        return torch.optim.AdamW(parameters, learning_rate, weight_decay=decay, fused=True)

    def kl_weight(self, step: int, steps_an_epoch: int) -> float:
        """Weight of the KL term after so many steps."""
        if self.anneal_steps is not None:
            return min(self.beta, step / self.anneal_steps)
        ramp = self.anneal_epochs * steps_an_epoch
        return min(self.beta, step / ramp) if ramp else self.beta
