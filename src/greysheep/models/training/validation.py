"""Validation: each user's list without her input, its hits, and her metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.data.splitting import Split
from greysheep.metrics.ranking import hits, per_user, tie_order, top_n
from greysheep.models.lists import mask
from greysheep.models.training.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

SCORING_ROWS = 512
"""Users scored at once."""

PerUser = dict[str, NDArray[np.float64]]
"""One value per user for each metric."""


class Validation:
    """The validation rows of a split, and the metrics that an objective (and NDCG@20, for show) needs.

    users: [n] codes of those with validation rows. given: [U, I] their input; truth: [U, I].
    """

    def __init__(self, split: Split, objective: Objective, *, weighted: bool = False):
        self.truth = split.rows("validation")
        self.given = split.input_rows("validation", weighted=weighted)
        self.place = tie_order(np.bincount(self.given.indices, minlength=self.given.shape[1]))
        self.users = np.flatnonzero(np.diff(self.truth.indptr))
        self.names = tuple(dict.fromkeys((*objective.names, "ndcg")))
        self.cuts = tuple(dict.fromkeys((*objective.cuts, 20)))

    def metrics(self, users: NDArray[np.int64], scores: NDArray[np.floating] | Tensor) -> PerUser:
        """Metrics [B] of users [B] by their scores [B, I], which are changed in place."""
        truth = self.truth[users]
        hit = hits(_best(scores, self.given[users], max(self.cuts), self.place), truth)
        return per_user(hit, np.diff(truth.indptr), self.cuts, self.names)

    def put(self, table: PerUser, users: NDArray[np.int64], values: PerUser) -> None:
        """Write values [B] of users [B] into a table of all users, [U] each, NaN = no validation rows."""
        for name, value in values.items():
            table.setdefault(name, np.full(self.truth.shape[0], np.nan))[users] = value

    def everybody(self, measure: Callable[[NDArray[np.int64]], PerUser]) -> PerUser:
        """What `measure` finds of some users [B], for all of them in turn: [U] each, NaN = not measured."""
        table: PerUser = {}
        for start in range(0, len(self.users), SCORING_ROWS):
            users = self.users[start : start + SCORING_ROWS]
            self.put(table, users, measure(users))
        return table


def _best(
    scores: NDArray[np.floating] | Tensor, given: csr_matrix, n: int, place: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Top n of scores [B, I] without the input, as `metrics.top_n`; from a GPU only the lists come.

    There equal scores, which a network hardly has, come in any order.
    """
    if not isinstance(scores, np.ndarray):
        if scores.is_cuda:
            import torch  # here, as an ensemble of closed forms validates without it

            from greysheep.nn.sparse_rows import SparseRows

            scores.view(-1)[SparseRows.from_csr(given, scores.device).flat] = -torch.inf
            values, items = scores.topk(min(n, scores.shape[1]), dim=1)
            items[values == -torch.inf] = -1
            return items.cpu().numpy()
        scores = scores.numpy()
    mask(scores, given)
    return top_n(scores, n, place)
