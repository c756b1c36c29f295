"""How mainstream each user is.

The score is the paper's: a user's mean Jaccard similarity with every other user, over train rows. Where the
log is too large for that, it is the mean over a sample of the others, with a bound on the error.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from greysheep.errors import DataError, MissingExtraError, warn
from greysheep.mainstream.jaccard import binary, mean_jaccard

EXACT_PAIRS = 20_000_000_000
"""Sum over items of squared popularity up to which `Mainstream.fit` compares every user with every other: one
to two minutes of one core. ML-1M has 0.8 thousand million."""

LEAST_SAMPLE = 1000
"""Fewest others a user is compared with, however large the log."""

# Size of the space in which the density score looks for neighbours.
_DIMENSIONS = 64
_NO_DENSITY = -1e7
"""A factor below it is made by neighbours without any distance between them."""


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
        DataError: `rows` is no sparse matrix, or `against` has another number of items.
        ConfigError: a number out of range.

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
    (All users are compared with the same sample; those outside it with one user more than requested.)

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
    from scipy.sparse.linalg import svds  # here, as nothing else needs a solver

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
    neighbours = min(20, n_users - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate values", UserWarning)  # said below in words of ours
        factor = LocalOutlierFactor(n_neighbors=neighbours).fit(left * values)
    if factor.negative_outlier_factor_.min() < _NO_DENSITY:
        warn(
            f"at least {neighbours} users cannot be told apart, as those with few rows or the same ones: "
            "groups by density mean little on this log; --min-user-items (min_user_items) leaves out users "
            "with few rows",
            3,
        )
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
