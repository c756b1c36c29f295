"""The groups the reports are made of: users cut in five by mainstream score, or by activity."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from greysheep.errors import DataError, GreysheepWarning
from greysheep.mainstream.jaccard import as_rows, mean_jaccard
from greysheep.mainstream.scores import affordable_sample
from greysheep.system.forks import refuse_forked

GROUPS = ("low", "med-low", "medium", "med-high", "high")
OVERALL = "overall"
"""Everybody, in tables with one row per group."""
ACTIVITY = ("fewest", "few", "medium", "many", "most")
"""Quintiles of users by their number of train rows."""


@dataclass(frozen=True)
class UserGroups:
    """Users in groups, by mainstream taste or somebody's own."""

    names: tuple[str, ...]
    codes: NDArray[np.integer]
    """[U] place of each user's group among the names, -1 = in none."""
    grouping: str
    """`mainstream` or `own`."""

    def of(self, users: NDArray[np.integer]) -> UserGroups:
        """The same groups of some users, [n] codes."""
        return UserGroups(self.names, self.codes[users], self.grouping)

    def named(self) -> pl.Series:
        """[U] name of each user's group, null where she is in none."""
        names = np.array([*self.names, None], dtype=object)
        return pl.Series(names[self.codes], dtype=pl.String)  # -1 is the last place

    def fingerprint(self) -> str:
        """SHA-256 of names and members."""
        text = repr((self.grouping, self.names)).encode()
        return hashlib.sha256(text + self.codes.astype("<i4").tobytes()).hexdigest()


@dataclass(frozen=True)
class Mainstream:
    """Scores of a log's users and the five groups they fall into.

    Attributes:
        scores: [U] float64, the higher the more mainstream.
        groups: [U] int8, 0 = `low` (niche) to 4 = `high`, as in `GROUPS`.
        cuts: [4] lowest score of groups 1 to 4, for users who come later; inf where a group is empty.
        sampled: how many others each user was compared with; 0 = all of them.
        bound: how far a score may be from the exact one: for each user, with probability 95 %, at most this
            far. 0 = exact.
    """

    scores: NDArray[np.float64]
    groups: NDArray[np.int8]
    cuts: NDArray[np.float64]
    sampled: int = 0
    bound: float = 0.0

    @classmethod
    def fit(
        cls,
        rows: sparse.csr_matrix,
        user_ids: pl.Series,
        *,
        threads: int | None = None,
        sample: int | None = None,
        seed: int = 0,
    ) -> Mainstream:
        """Score the users of a log and cut them in five.

        Args:
            rows: [U, I] train rows.
            user_ids: [U] ids, which decide between equal scores.
            threads: see `mainstream_scores`.
            sample: compare each user with so many others; None = with all of them, unless they make more than
                `EXACT_PAIRS` pairs: then with as many as make so many, and a warning says so.
            seed: of the sample.
        """
        rows, automatic = as_rows(rows), sample is None
        if sample is None:
            sample = affordable_sample(rows)
        scores, bounds = mean_jaccard(rows, None, threads, sample, seed)
        if sample is None or sample >= len(scores) - 1:
            return cls.from_scores(scores, user_ids)
        sampled = replace(cls.from_scores(scores, user_ids), sampled=sample, bound=float(bounds.max()))
        if automatic:
            warnings.warn(sampled.describe(), GreysheepWarning, stacklevel=2)
        return sampled

    @property
    def user_groups(self) -> UserGroups:
        """The five groups, niche first."""
        return UserGroups(GROUPS, self.groups, "mainstream")

    def describe(self) -> str:
        """One line on how the scores were made.

        >>> Mainstream.from_scores(np.arange(5.0), pl.Series(range(5))).describe()
        'mainstream scores are exact: each of the 5 users was compared with all others'
        """
        if not self.sampled:
            return (
                f"mainstream scores are exact: each of the {len(self.scores):,} users was compared with all "
                "others"
            )
        return (
            f"mainstream scores are estimates: each of the {len(self.scores):,} users was compared with "
            f"{self.sampled:,} others; a score is within {self.bound:.2g} of the exact one with probability "
            "95 %"
        )

    @classmethod
    def from_scores(cls, scores: NDArray[np.float64], user_ids: pl.Series) -> Mainstream:
        """Cut users in five by any score: order by (score, user_id), then `numpy.array_split`.

        Raises:
            DataError: a score is NaN.

        >>> Mainstream.from_scores(np.array([0.5, 0.1, 0.4, 0.2, 0.3]), pl.Series([1, 2, 3, 4, 5])).groups
        array([4, 0, 3, 1, 2], dtype=int8)
        """
        scores = _numbers(scores)
        groups = _quintiles(scores, user_ids)
        lowest = [scores[groups == group].min(initial=np.inf) for group in range(1, len(GROUPS))]
        return cls(scores, groups, np.array(lowest))

    def assign(self, scores: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return the groups, [n] int8, of new users' scores, [n], by the cut points.

        >>> known = Mainstream.from_scores(np.arange(5.0), pl.Series(range(5)))
        >>> known.assign(np.array([2.5]))
        array([2], dtype=int8)
        """
        return np.searchsorted(self.cuts, _numbers(scores), side="right").astype(np.int8)


def _numbers(scores: Any) -> NDArray[np.float64]:
    try:
        given = np.asarray(scores)
    except (TypeError, ValueError, OverflowError):
        given = np.asarray(None)
    if given.ndim != 1 or given.dtype.kind not in "iuf":
        raise DataError("mainstream scores must be a list of numbers, one a user")
    numbers = given.astype(np.float64)
    if missing := int(np.isnan(numbers).sum()):
        raise DataError(f"{missing} users have no mainstream score (NaN)")
    return numbers


def activity_groups(counts: NDArray[Any], user_ids: pl.Series) -> NDArray[np.int8]:
    """Cut users in five by activity: order by (number of rows, user_id), 0 = fewest rows.

    Args:
        counts: [U] rows of each user.
        user_ids: [U] ids, which decide between equal counts.

    Returns:
        [U] int8 groups.
    """
    return _quintiles(np.asarray(counts), user_ids)


def _quintiles(values: NDArray[Any], user_ids: Any) -> NDArray[np.int8]:
    refuse_forked()
    if not isinstance(user_ids, pl.Series):
        kind = type(user_ids).__name__
        raise DataError(f"user_ids must be a polars Series, as log.user_ids is, not a {kind}")
    if len(values) != len(user_ids):
        raise DataError(f"{len(values)} values for {len(user_ids)} users")
    by_id = user_ids.rank("ordinal").to_numpy()
    groups = np.empty(len(values), dtype=np.int8)
    for group, members in enumerate(np.array_split(np.lexsort((by_id, values)), len(GROUPS))):
        groups[members] = group
    return groups
