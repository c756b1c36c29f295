"""What one fit leaves beside the learned tensors: the rows it saw and what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.data.interactions import Interactions
from greysheep.data.splitting import Split
from greysheep.errors import DataError
from greysheep.mainstream.groups import Mainstream
from greysheep.mainstream.jaccard import Crowd
from greysheep.metrics.ranking import tie_order
from greysheep.models.derived import SERVING, TRAIN, kept


@dataclass(eq=False)
class Fitted:
    """The record of one fit. Cached values are computed on first use, or set when a folder is read."""

    split: Split
    """The rows and their parts; without rows where the model was saved without them."""
    weighted: bool = False
    """Whether rows carry their weights."""
    has_history: bool = True
    """False after loading a model that was saved without its rows."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Losses and metrics of each epoch."""
    train_seconds: float = 0.0
    epochs: int = 0
    best_epoch: int = 0
    gate_entropy: float | None = None
    """Mean entropy of what mixes the experts for a user."""
    peak_memory_bytes: int = 0
    interrupted: bool = False
    """Whether Ctrl-C ended the training early."""
    trained_items: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """[I] whether the item had rows to learn from."""
    learned: NDArray[np.int64] | None = None
    """Items that the weights know, ascending; None = all. Others came with `update`, after the training."""
    folder: Path | None = None
    """Where the model was read from: scores that are asked for are kept there."""
    cuts: dict[str, list[float | None] | None] = field(default_factory=dict)
    """Cut points that its manifest holds, by their names there."""
    routes: Any = None
    """[U, K] gates of sparse routing, once training has settled them."""

    @property
    def log(self) -> Interactions:
        """The log behind the split."""
        return self.split.log

    @cached_property
    def rows(self) -> csr_matrix:
        """Every stored row, [U, I]: input and seen items of known users when recommending."""
        return self.split.input_rows("serving", weighted=self.weighted)

    @cached_property
    def crowd(self) -> Crowd:
        """The users whom new people are compared with."""
        return Crowd(self.rows)

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """[I] stored rows of each item."""
        return np.bincount(self.log.items, minlength=self.log.n_items)

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """[I] which of several items with equal scores comes first in lists: that with more stored rows."""
        return tie_order(self.item_counts)

    @cached_property
    def serving_mainstream(self) -> Mainstream:
        """Scores and groups on every stored row: those a new user is compared with.

        Raises:
            DataError: the model was saved without its rows before its groups were known.
        """
        return self._kept(
            SERVING, self.fingerprint, lambda: Mainstream.fit(self.log.matrix(), self.log.user_ids)
        )

    @cached_property
    def mainstream(self) -> Mainstream:
        """Scores and groups on the split's train rows: those of evaluation."""
        return self._kept(TRAIN, self.split.fingerprint(), lambda: self.split.mainstream)

    def _kept(self, name: str, rows: str, make: Callable[[], Mainstream]) -> Mainstream:
        def made() -> Mainstream:
            if not self.has_history:
                raise DataError("the model was saved without its rows: groups are made from them")
            return make()

        return kept(self.folder, name, rows, self.log.user_ids, made)

    @cached_property
    def fingerprint(self) -> str:
        """Of the log."""
        return self.log.fingerprint()

    def known_groups(self) -> dict[str, Mainstream]:
        """Scores that somebody has asked for already, by the names of their files."""
        at_hand = {SERVING: self.__dict__.get("serving_mainstream")}
        at_hand[TRAIN] = self.__dict__.get("mainstream", self.split.__dict__.get("mainstream"))
        return {name: known for name, known in at_hand.items() if known is not None}


def finite(cuts: NDArray[np.float64]) -> list[float | None]:
    """Cut points for JSON, which has no infinity (an empty group)."""
    return [float(cut) if np.isfinite(cut) else None for cut in cuts]
