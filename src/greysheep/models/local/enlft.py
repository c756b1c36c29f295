"""EnLFT (Zhu and Caverlee, WSDM 2022): global models fine-tuned around anchors, mixed by similarity."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.splitting import Split
from greysheep.errors import DataError
from greysheep.models.autoencoders import search_spaces
from greysheep.models.base import take
from greysheep.models.config import MANY
from greysheep.models.local.base import LocalModel
from greysheep.models.local.config import LocalConfig
from greysheep.models.local.neighbours import Jaccard, greedy_cover, nearest
from greysheep.models.move import Move
from greysheep.nn.bank import ExpertBank


class EnLFTConfig(LocalConfig):
    """Settings of EnLFT."""

    global_model: Literal["multvae", "wl"] = "wl"
    """Registry name of the global model; the authors of TALL ran this method on `wl`, too."""
    threshold: float = Field(0.05, ge=0, lt=1)
    """Jaccard similarity above which a user is an anchor's neighbour."""
    n_neighbours: int = Field(1000, ge=1, le=MANY)
    """The most neighbours of an anchor, the most similar ones."""


class EnLFT(LocalModel):
    """K copies of a trained global model, each fine-tuned on the neighbours of an anchor.

    Neighbours of an anchor: users whose train rows have a Jaccard similarity with hers above `threshold`,
    weighted by it; she herself has weight 1. Anchors are chosen greedily so that the most users are a
    neighbour of one. A user's scores: the mean of the K models' weighted by her similarity to the anchors
    (`user_state`), the plain mean where she has none. Her input rows are compared with the anchors' train
    rows, so the model cannot be saved without rows.

    Simplified against the paper: encoder and decoder are fine-tuned whole, all copies stop at the same epoch,
    the best one of the whole on validation rows, and anchors are chosen by the greedy cover (the paper's
    choice is not documented in this project). When all users are covered, covering starts anew. On ML-1M it
    is no better than its global model (docs/results/local-models.md).

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.models.EnLFT(n_experts=3, latent=8, epochs=2, local_epochs=1, progress=False).fit(log)
    >>> model.user_state.shape
    (60, 3)
    """

    name = "enlft"
    Config = EnLFTConfig
    needs_rows = "it compares everybody with its anchors' rows"
    search_space, search_starts = search_spaces.NEIGHBOUR_EXPERTS, search_spaces.STARTS
    anchors: NDArray[np.int64]
    """[K] codes of the anchors."""
    anchor_rows: csr_matrix
    """[K, I] their train rows."""

    def _choose(self, split: Split, origin: ExpertBank) -> int:
        rows = split.train_rows(gated=False)
        near = Jaccard(rows)

        def covers(users: NDArray[np.int64]) -> NDArray[np.bool_]:
            return np.asarray(near(rows[users]) > self.config.threshold)

        self.anchors = greedy_cover(self.config.n_experts, rows.shape[0], covers)
        self.anchor_rows = rows[self.anchors]
        return len(self.anchors)

    def _user_weights(self, train: csr_matrix) -> NDArray[np.float32]:
        similarity = Jaccard(train)(self.anchor_rows)
        weights = np.zeros(similarity.shape, np.float32)
        for own, line in zip(weights, similarity, strict=True):
            near = nearest(line, self.config.threshold, self.config.n_neighbours)
            own[near] = line[near]
        return weights

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any]:
        similarity = Jaccard(self.anchor_rows)(seen)
        similarity[similarity.sum(1) == 0] = 1
        return np.asarray(similarity / similarity.sum(1, keepdims=True), np.float32)

    def _state(self) -> dict[str, Tensor]:
        return {**super()._state(), "anchors": torch.from_numpy(self.anchors)}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        super()._restore(state, n_items)
        self.anchors = take(state, "anchors", self.bank.n_experts, kind="i")
        if (self.anchors < 0).any() or (self.anchors >= self.log.n_users).any():
            raise ValueError("tensor 'anchors' names users that the model does not have")
        self.anchor_rows = self.known_part(self.split.train_rows(gated=False)[self.anchors])

    def _kept(self, move: Move) -> tuple[dict[str, Any], None]:
        """Without the experts of anchors who are gone; all states are new, as the anchors' rows may be."""
        now = np.full(self.log.n_users, -1)
        old = np.flatnonzero(move.users >= 0)
        now[move.users[old]] = old
        stay = now[self.anchors] >= 0
        if not stay.any():
            raise DataError(f"none of the {len(stay)} anchors of this {self.name} is left: fit it again")
        state = {key: np.asarray(value)[stay] for key, value in self._state().items()}
        return state | {"anchors": now[self.anchors[stay]]}, None
