"""LOCA (Choi et al., WSDM 2021): local autoencoders around anchor users, mixed by a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.splitting import Split
from greysheep.models.autoencoders import search_spaces
from greysheep.models.base import take
from greysheep.models.local.base import LocalModel
from greysheep.models.local.config import LocalConfig
from greysheep.models.local.neighbours import greedy_cover
from greysheep.nn.bank import ExpertBank
from greysheep.nn.local_experts import angular_distance, epanechnikov


class LOCAConfig(LocalConfig):
    """Settings of LOCA."""

    warm_start: bool = False
    """Local models begin as copies of the global one; False: with fresh weights, as published."""
    train_bandwidth: float = Field(1.0, gt=0, le=1)
    """Distance from an anchor below which users weigh in its local model; 1 = a right angle."""
    bandwidth: float = Field(0.8, gt=0, le=1)
    """Distance below which an anchor's model scores a user; anchors are chosen to cover within it."""
    global_weight: float = Field(0.5, ge=0, le=1)
    """Share of the global model in the scores of a user within `bandwidth` of an anchor."""


class LOCA(LocalModel):
    """K local models around anchors, each trained on all users weighted by distance to its anchor.

    Distance d = min(1, (2 / pi) arccos(cosine)) of the users' latent means in a trained global model. Anchors
    are chosen greedily to cover the most users within `bandwidth`. An anchor's model weighs a user by the
    kernel .75 (1 - d^2) where d < `train_bandwidth`, else 0. Scores: `global_weight` times those of the
    global model, the rest the mean of the local models' weighted by the kernel where d < `bandwidth`; of a
    user whom no anchor covers, the global model's alone. `user_state` holds these weights, the global model's
    in column 0.

    Simplified against the paper: local models are MultVAEs and are stopped all at the same epoch, the best
    one of the whole on validation rows. When all users are covered and anchors are still wanted, covering
    starts anew. A user's KL term has her weight, too; its annealing goes on from the global model's. On ML-1M
    the best epoch is an early one, and the gain is the mainstream's (docs/results/local-models.md).

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.models.LOCA(n_experts=3, latent=8, epochs=2, local_epochs=1, progress=False).fit(log)
    >>> model.user_state.shape
    (60, 4)
    """

    name = "loca"
    Config = LOCAConfig
    search_space, search_starts = search_spaces.KERNEL_EXPERTS, search_spaces.STARTS
    keeps_global = True
    anchors: Tensor
    """[K, D] the anchors' latent means in the global model."""

    def _choose(self, split: Split, origin: ExpertBank) -> int:
        self.latents = self._latents(split.train_rows(gated=False), origin)

        def covers(users: NDArray[np.int64]) -> NDArray[np.bool_]:
            distance = angular_distance(self.latents[users], self.latents)
            return np.asarray((distance < self.config.bandwidth).cpu())

        chosen = greedy_cover(self.config.n_experts, len(self.latents), covers)
        self.anchors = self.latents[chosen].clone()
        return len(chosen)

    def _user_weights(self, train: csr_matrix) -> NDArray[np.float32]:
        distance = angular_distance(self.anchors, self.latents)
        return epanechnikov(distance, self.config.train_bandwidth).cpu().numpy()

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any]:
        distance = angular_distance(self._latents(seen, self.bank), self.anchors)
        kernel = epanechnikov(distance, self.config.bandwidth).cpu().numpy()
        total = kernel.sum(1, keepdims=True)
        covered = total > 0
        local = np.where(covered, kernel / np.where(covered, total, 1), 0) * (1 - self.config.global_weight)
        return np.concatenate([np.where(covered, self.config.global_weight, 1), local], 1).astype(
            kernel.dtype
        )

    def _state(self) -> dict[str, Tensor]:
        return {**super()._state(), "anchors": self.anchors.cpu()}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        super()._restore(state, n_items)
        anchors = take(state, "anchors", self.bank.n_experts - 1, self.bank.latent)
        self.anchors = torch.from_numpy(anchors).to(self.device, self.dtype)
