"""Weights of an ensemble: forward selection with replacement, as far as held-out users bear it out.

Caruana et al., "Ensemble selection from libraries of models" (ICML 2004). Models are added one by one, again
and again, each time the one with which the lists are best. With few validation rows that overfits. So it
starts from the mean of the best few models, and how many they are and how many steps follow is chosen by
cross-validation over users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.mainstream.groups import UserGroups
from greysheep.metrics.ranking import per_user, top_n
from greysheep.models.lists import mask
from greysheep.models.training.objective import Objective, mean

DEPTH = 30
"""Best items of each model that are looked at: what none of them ranks so high gets into no list of 20."""
FOLDS = 4
"""Parts of the users; each judges what the others chose."""
STEPS = 10
"""Most models added."""
ROWS = 30_000
"""Validation rows that are enough to choose by: those of some users, drawn by the seed."""
STARTS = (1, 2, 3, 4)
"""How many of the best models the mean to start from may hold; beside these, all of them."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """The items that M models would put into the lists of n users, C places each.

    scores: [M, n, C], -inf = no item; of equal ones the first comes first. user, column: [T] where the
    validation items are. n_truth: [n] how many of them she has. groups: [n].
    """

    scores: NDArray[np.float32]
    user: NDArray[np.int64]
    column: NDArray[np.int64]
    n_truth: NDArray[np.int64]
    groups: UserGroups

    @classmethod
    def of(
        cls,
        scores: NDArray[np.float32],
        given: csr_matrix,
        truth: csr_matrix,
        groups: UserGroups,
        place: NDArray[np.int64],
    ) -> Pool:
        """From scores [M, B, I], which are changed in place; of equal scores `place` [I] decides."""
        chosen = truth.toarray() > 0
        for own in scores:
            mask(own, given)
            best = top_n(own, DEPTH)
            kept = best >= 0
            chosen[np.nonzero(kept)[0], best[kept]] = True
        mask(chosen, given)
        order = np.argsort(place)
        count = chosen.sum(axis=1)
        user, item = np.nonzero(chosen[:, order])
        item = order[item]
        at = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
        inside = np.full((len(scores), len(chosen), count.max(initial=0)), -np.inf, np.float32)
        inside[:, user, at] = scores[:, user, item]
        wanted = np.asarray(truth[user, item]).ravel() > 0
        return cls(inside, user[wanted], at[wanted], np.diff(truth.indptr), groups)

    @classmethod
    def together(cls, pools: list[Pool]) -> Pool:
        """Those of several batches of users."""
        places = max(pool.scores.shape[2] for pool in pools)
        wide = [((0, 0), (0, 0), (0, places - pool.scores.shape[2])) for pool in pools]
        before = np.cumsum([0, *(len(pool.n_truth) for pool in pools)])
        return cls(
            np.concatenate(
                [
                    np.pad(pool.scores, width, constant_values=-np.inf)
                    for pool, width in zip(pools, wide, strict=True)
                ],
                axis=1,
            ),
            np.concatenate([pool.user + start for pool, start in zip(pools, before, strict=False)]),
            np.concatenate([pool.column for pool in pools]),
            np.concatenate([pool.n_truth for pool in pools]),
            replace(pools[0].groups, codes=np.concatenate([pool.groups.codes for pool in pools])),
        )

    def some(self, users: NDArray[np.bool_]) -> Pool:
        """Of these users [n] alone."""
        kept = users[self.user]
        return Pool(
            self.scores[:, users],
            (np.cumsum(users) - 1)[self.user[kept]],
            self.column[kept],
            self.n_truth[users],
            self.groups.of(np.flatnonzero(users)),
        )

    def judged(self, scores: NDArray[np.float32], objective: Objective) -> Floats:
        """The objective's metric of each user [n] under these scores [n, C]."""
        own, all_hers = scores[self.user, self.column, None], scores[self.user]
        before = np.arange(scores.shape[1]) < self.column[:, None]
        place = np.where(before, all_hers >= own, all_hers > own).sum(axis=1)
        longest = max(objective.cuts)
        hit = np.zeros((len(scores), longest), dtype=np.bool_)
        listed = place < longest
        hit[self.user[listed], place[listed]] = True
        table = per_user(hit, self.n_truth, objective.cuts, objective.names)
        return np.asarray(np.mean([table[key] for key in objective.keys], axis=0))

    def mixed(self, weights: Floats) -> NDArray[np.float32]:
        """Weighted sum of the scores [n, C]."""
        used = np.flatnonzero(weights)
        return np.asarray(np.tensordot(weights[used].astype(np.float32), self.scores[used], axes=1))


@dataclass(frozen=True)
class Selection:
    """What was chosen, and how good it is on users that did not choose it.

    weights: [M], sum 1. start: models in the mean it started from; steps: models added to them.
    value: the objective of the held-out users; alone: [M] that of each model by itself. groups: [G] mean of
    the objective's metric by group, of users that did not choose; alone_groups: [M, G].
    """

    weights: Floats
    start: int
    steps: int
    value: float
    alone: Floats
    groups: Floats
    alone_groups: Floats


def select(pool: Pool, objective: Objective, seed: int = 0) -> Selection:
    """Weights of the models of a pool.

    >>> scores = np.array([[[2, 1], [1, 2]], [[1, 2], [3, 1]], [[1, 2], [1, 2]]], dtype=np.float32)
    >>> groups = UserGroups(("all",), np.zeros(2, int), "own")
    >>> pool = Pool(scores, np.array([0, 1]), np.array([0, 0]), np.array([1, 1]), groups)
    >>> select(pool, Objective.parse("ndcg@1")).weights
    array([0.5, 0.5, 0. ])
    """

    def total(values: Floats, groups: UserGroups) -> float:
        return objective.value(dict.fromkeys(objective.keys, values), groups)

    random, n_models, n_users = np.random.default_rng(seed), len(pool.scores), len(pool.n_truth)
    order = random.permutation(n_users)
    enough = order[: 1 + int(np.searchsorted(np.cumsum(pool.n_truth[order]), ROWS))]
    if len(enough) < n_users:
        pool, n_users = pool.some(np.isin(np.arange(n_users), enough)), len(enough)
    each = [pool.judged(own, objective) for own in pool.scores]
    alone = np.array([total(own, pool.groups) for own in each])
    fold = random.permutation(n_users) % FOLDS
    starts = sorted({start for start in (*STARTS, n_models) if start <= n_models})
    judged = np.zeros((len(starts), STEPS + 1, n_users))
    for number in range(min(FOLDS, n_users)):
        learn, judge = pool.some(fold != number), pool.some(fold == number)
        for start, values in zip(starts, judged, strict=True):
            for step, weights in enumerate(path(learn if n_users > 1 else judge, objective, start)):
                values[step, fold == number] = judge.judged(judge.mixed(weights), objective)
    value = np.array([[total(values, pool.groups) for values in of_start] for of_start in judged])
    # of equal ones the shortest way from the most even start
    best = max(np.ndindex(value.shape), key=lambda at: (round(float(value[at]), 12), -at[1], at[0]))
    start, steps = starts[best[0]], best[1]
    chosen = list(path(pool, objective, start, steps))[-1]
    by_group = [_group_means(own, pool.groups) for own in (judged[best], *each)]
    return Selection(chosen, start, steps, float(value[best]), alone, by_group[0], np.array(by_group[1:]))


def _group_means(values: Floats, groups: UserGroups) -> Floats:
    """Mean [G] of the users of each group."""
    return np.array([mean(values[groups.codes == g]) for g in range(len(groups.names))])


def path(pool: Pool, objective: Objective, start: int, steps: int = STEPS) -> Iterator[Floats]:
    """Weights [M] after 0, 1, ... steps from the mean of the `start` models best on these users."""

    def total(scores: NDArray[np.float32]) -> float:
        values = pool.judged(scores, objective)
        return objective.value(dict.fromkeys(objective.keys, values), pool.groups)

    n_models = len(pool.scores)
    counts = np.zeros(n_models)
    first = sorted(range(n_models), key=lambda model: -total(pool.scores[model]))[:start]
    counts[first] = 1
    yield counts / counts.sum()
    for _ in range(steps):
        scores = pool.mixed(counts)
        best = max(range(n_models), key=lambda model: total(scores + pool.scores[model]))
        counts[best] += 1
        yield counts / counts.sum()
