"""The settings that the local models share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from greysheep.models.autoencoders.config import MultVAEConfig
from greysheep.models.config import MANY


class GlobalConfig(MultVAEConfig):
    """Settings of a model that starts from a global one; those of MultVAE are the global model's."""

    global_model: Literal["multvae", "wl"] = "multvae"
    """Registry name of the global model: `multvae`, or `wl`, which weights niche users more."""


class LocalConfig(GlobalConfig):
    """Settings of a bank of local models."""

    n_experts: int = Field(100, ge=1, le=100_000)
    """K, the number of anchors; each has a local model. At most one per user."""
    warm_start: bool = True
    """Local models begin as copies of the global one; False: with fresh weights."""
    local_epochs: int = Field(30, ge=1, le=MANY)
    """The most epochs of the local models."""
    local_patience: int = Field(3, ge=1, le=MANY)
    """Epochs of the local models without a better objective before training stops."""
    local_learning_rate: float = Field(1e-3, gt=0, le=10)
    """Adam's step size for the local models."""
    local_batch_size: int = Field(512, ge=1, le=MANY)
    """Users per step of a local model."""
