"""How mainstream each user is, and the five groups the reports are made of.

The score is the paper's: a user's mean Jaccard similarity with every other user, over train rows. Where the
log is too large for that, it is the mean over a sample of the others, with a bound on the error.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from greysheep.errors import DataError, GreysheepWarning, MissingExtraError
from greysheep.mainstream.jaccard import binary, mean_jaccard

if TYPE_CHECKING:
    from greysheep.data.splitting import Split

GROUPS = ("low", "med-low", "medium", "med-high", "high")

EXACT_PAIRS = 20_000_000_000
"""Sum over items of squared popularity up to which `Mainstream.fit` compares every user with every other: one
to two minutes of one core. ML-1M has 0.8 thousand million."""

LEAST_SAMPLE = 1000
"""Fewest others a user is compared with, however large the log."""

# Size of the space in which the density score looks for neighbours.
_DIMENSIONS = 64


def mainstream_scores(
    rows: sparse.csr_matrix,
    against: sparse.csr_matrix | None = None,
    *,
    threads: int | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return each user's mean Jaccard similarity with all others: 0 to 1, high = mainstream.

    Time grows with the sum over items of squared popularity, memory with U plus the stored rows. With
    `sample`, time falls in proportion; `sampled_scores` also says how far off the means may be.

    Args:
        rows: [U, I], a stored entry = the user has the item (weights are ignored).
        against: [V, I] users to compare with, for people who are not among them: the mean runs over all V.
            Without it the mean runs over the U - 1 others.
        threads: how many to use; None = every core this process may use. The result does not depend on it.
        sample: compare with so many of the others, drawn without replacement; None, or as many as there are,
            = with all of them: exact.
        seed: of the sample.

    Returns:
        [U] means; 0 for a user without rows.

    Raises:
        ValueError: `rows` and `against` have different numbers of items.
        ConfigError: a sample of fewer than 1.

    >>> log = sparse.csr_matrix([[1, 1, 0], [1, 1, 0], [0, 1, 1]])
    >>> mainstream_scores(log).round(3)
    array([0.667, 0.667, 0.333])
    """
    return mean_jaccard(rows, against, threads, sample, seed)[0]


def sampled_scores(
    rows: sparse.csr_matrix,
    sample: int,
    against: sparse.csr_matrix | None = None,
    *,
    threads: int | None = None,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means over a sample of the others, and how far each may be from her mean over all of them.

    Each mean is unbiased: nobody is compared with herself, and all her others are drawn with one chance.
    (Everybody is compared with the same users. Who is not among these meets one more than asked for.)

    Arguments and errors are those of `mainstream_scores`.

    Returns:
        [U] means and [U] bounds on their errors; a user's bound holds with probability 95 % over the draw of
        the sample, for any log and any size of sample, and is 0 where the sample is everybody. It is the
        smaller of the Hoeffding-Serfling bound at 1 % and the empirical Bernstein-Serfling bound at 4 %
        (Bardenet and Maillard, Bernoulli 2015), which count in how large a share of the users was drawn.

    >>> log = sparse.csr_matrix(np.eye(400)[:, np.arange(400) // 2 * 2])  # twins
    >>> scores, bounds = sampled_scores(log, sample=300)
    >>> bool((abs(scores - 1 / 399) <= bounds).all()), bool((bounds < 0.07).all())
    (True, True)
    """
    return mean_jaccard(rows, against, threads, sample, seed)


def affordable_sample(rows: sparse.csr_matrix) -> int | None:
    """How many others each user is compared with at `EXACT_PAIRS` pairs in all; None = all of them."""
    popularity = np.bincount(rows.indices, minlength=rows.shape[1]).astype(np.float64)
    pairs = float(popularity @ popularity)
    if pairs <= EXACT_PAIRS:
        return None
    sample = max(LEAST_SAMPLE, int(rows.shape[0] * (EXACT_PAIRS / pairs)))
    return sample if sample < rows.shape[0] - 1 else None


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
        asked = sample
        if sample is None:
            sample = affordable_sample(rows)
        scores, bounds = mean_jaccard(rows, None, threads, sample, seed)
        if sample is None or sample >= len(scores) - 1:
            return cls.from_scores(scores, user_ids)
        found = replace(cls.from_scores(scores, user_ids), sampled=sample, bound=float(bounds.max()))
        if asked is None:
            warnings.warn(found.told(), GreysheepWarning, stacklevel=2)
        return found

    def told(self) -> str:
        """One line on how the scores were made.

        >>> Mainstream.from_scores(np.arange(5.0), pl.Series(range(5))).told()
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
        scores = np.asarray(scores, dtype=np.float64)
        if np.isnan(scores).any():
            raise DataError(f"{int(np.isnan(scores).sum())} users have no mainstream score (NaN)")
        groups = _quintiles(scores, user_ids)
        lowest = [scores[groups == group].min(initial=np.inf) for group in range(1, len(GROUPS))]
        return cls(scores, groups, np.array(lowest))

    @classmethod
    def of_split(cls, split: Split) -> Mainstream:
        """Score the users of a split on its train rows; computed once for each split object."""
        found = _of_split.get(split)
        if found is None:
            found = _of_split[split] = cls.fit(split.rows("train"), split.log.user_ids)
        return found

    def assign(self, scores: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return the groups, [n] int8, of new users' scores, [n], by the cut points.

        >>> known = Mainstream.from_scores(np.arange(5.0), pl.Series(range(5)))
        >>> known.assign(np.array([2.5]))
        array([2], dtype=int8)
        """
        return np.searchsorted(self.cuts, scores, side="right").astype(np.int8)


_of_split: WeakKeyDictionary[Any, Mainstream] = WeakKeyDictionary()  # key: Split


def activity_groups(counts: NDArray[Any], user_ids: pl.Series) -> NDArray[np.int8]:
    """Cut users in five by activity: order by (number of rows, user_id), 0 = fewest rows.

    Args:
        counts: [U] rows of each user.
        user_ids: [U] ids, which decide between equal counts.

    Returns:
        [U] int8 groups.
    """
    return _quintiles(np.asarray(counts), user_ids)


def _quintiles(values: NDArray[Any], user_ids: pl.Series) -> NDArray[np.int8]:
    if len(values) != len(user_ids):
        raise ValueError(f"{len(values)} values for {len(user_ids)} users")
    by_id = user_ids.rank("ordinal").to_numpy()
    groups = np.empty(len(values), dtype=np.int8)
    for group, members in enumerate(np.array_split(np.lexsort((by_id, values)), len(GROUPS))):
        groups[members] = group
    return groups


def density_scores(rows: sparse.csr_matrix, *, seed: int = 0) -> NDArray[np.float64]:
    """Return minus the local outlier factor of each user on 64 SVD dimensions of the binary rows.

    The WSDM 2022 alternative to Jaccard: about -1 within a crowd, far lower for a user who stands alone.

    Args:
        rows: [U, I] train rows.
        seed: start vector of the decomposition.

    Returns:
        [U] scores, the higher the more mainstream.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        DataError: fewer than 3 users.
    """
    try:
        from sklearn.neighbors import LocalOutlierFactor
    except ImportError as error:
        raise MissingExtraError("baselines", "the density score (scikit-learn)") from error
    n_users, n_items = rows.shape
    if n_users < 3:
        raise DataError(f"the density score needs at least 3 users, got {n_users}")
    ones = binary(rows).astype(np.float64)
    if min(n_users, n_items) <= 4 * _DIMENSIONS:  # small enough for the direct method, which needs no seed
        left, values, _ = np.linalg.svd(ones.toarray(), full_matrices=False)
        left, values = left[:, :_DIMENSIONS], values[:_DIMENSIONS]
    else:
        start = np.random.default_rng(seed).standard_normal(min(n_users, n_items))
        left, values, _ = svds(ones, k=_DIMENSIONS, v0=start)
    factor = LocalOutlierFactor(n_neighbors=min(20, n_users - 1)).fit(left * values)
    return np.asarray(factor.negative_outlier_factor_, dtype=np.float64)


def distribution_scores(rows: sparse.csr_matrix) -> NDArray[np.float64]:
    """Return the cosine of each user's binary row with the mean of all rows.

    Args:
        rows: [U, I] train rows.

    Returns:
        [U] cosines, 0 to 1, the higher the more mainstream; 0 for a user without rows.

    >>> distribution_scores(sparse.csr_matrix([[1, 1, 0], [1, 0, 0], [0, 0, 1]])).round(3)
    array([0.866, 0.816, 0.408])
    """
    ones = binary(rows)
    profile = np.bincount(ones.indices, minlength=ones.shape[1]).astype(np.float64)
    norms = np.sqrt(np.diff(ones.indptr)) * np.linalg.norm(profile)
    cosines: NDArray[np.float64] = (ones @ profile) / np.where(norms > 0, norms, 1.0)
    return cosines
