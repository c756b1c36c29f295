"""MultVAE (Liang et al., WWW 2018): one expert, everybody weighted alike."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from greysheep.models.autoencoders import search_spaces as vae_space
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.config import ModelConfig
from greysheep.models.training.objective import Objective


class MultVAEConfig(ModelConfig):
    """Settings of MultVAE; TALL adds its own to them."""

    variant: Literal["default", "authors"] = "default"
    """`authors` does as the TALL authors' program does where that differs from the paper's text."""
    latent: int = Field(100, ge=1)
    """D, size of the latent space."""
    epochs: int = Field(200, ge=1)
    """The most epochs."""
    patience: int = Field(15, ge=1)
    """Epochs without a better objective before training stops."""
    objective: str = "mean-ndcg"
    """What early stopping maximises on validation rows: `mean-ndcg` (NDCG@1, 5, 10, 20) or `recall@20`
    and the like; `:low` (any group) or `:worst` behind it asks for that group instead of everybody."""
    batch_size: int = Field(512, ge=1)
    """B, users a step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's step size."""
    l2: float = Field(1e-3, ge=0)
    """Weight decay (coupled, in Adam), before its division by the number of experts."""
    beta: float = Field(0.2, ge=0)
    """Final weight of the KL term."""
    anneal_steps: int = Field(200_000, ge=1)
    """Steps over which the KL weight grows from 0 to `beta`."""
    noise: float = Field(0.01, ge=0)
    """Factor of the latent's random part while training."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of input entries dropped while training."""

    @field_validator("objective")
    @classmethod
    def _can_be_measured(cls, text: str) -> str:
        Objective.parse(text)  # its ConfigError passes through pydantic as it is
        return text


class MultVAE(MixtureModel):
    """Variational autoencoder with multinomial likelihood, in the form TALL's experts have.

    One linear layer each way, input scaled to unit length, no sampling at inference. The KL term is summed
    over the batch beside a mean of cross-entropies, as in TALL; `variant="authors"` takes its mean.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.MultVAE(latent=8, epochs=2, seed=0, progress=False).fit(log)
    >>> model.recommend(log.user_ids[:1], k=3).columns
    ['user_id', 'item_id', 'score', 'rank']
    """

    name = "multvae"
    Config: ClassVar[type[MultVAEConfig]] = MultVAEConfig
    search_space, search_starts = vae_space.ONE_EXPERT, vae_space.STARTS
