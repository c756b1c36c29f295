"""Intervals and tests on values per user: bootstrap, sign flips, Holm, and a verdict on harm.

Plain arrays in, plain numbers out. Everything random takes a seed and is done in blocks, so that 33,000 users
need no more memory than 600.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greysheep.errors import ConfigError

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Significance level of the paired tests."""
# Numbers drawn at once: so many indices of users, and as many counts, stay in cache.
_BLOCK = 1 << 17


def bootstrap_means(values: Floats, *, draws: int = 2000, seed: int | Sequence[int] = 0) -> Floats:
    """Return means of users resampled with replacement.

    Args:
        values: [n, M] one row per user, one column per metric; all columns share each resample of users.
        draws: how many resamples.
        seed: the same seed gives the same resamples.

    Returns:
        [draws, M] means; NaN where n is 0.
    """
    n = len(values)
    if n == 0:
        return np.full((draws, values.shape[1]), math.nan)
    rng = np.random.default_rng(seed)
    means = np.empty((draws, values.shape[1]))
    for block in _blocks(draws, n):
        size = block.stop - block.start
        # How often each user was drawn, then one matrix product for all metrics.
        drawn = rng.integers(0, n, size=(size, n), dtype=np.int32)
        drawn += np.arange(0, size * n, n, dtype=np.int32)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        means[block] = counts @ values / n
    return means


def bootstrap_ci(
    values: Floats, *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over users.

    Args:
        values: [n]; NaN users leave.
        draws: how many resamples.
        level: share of the resampled means between the two bounds.
        seed: of the resamples.

    Returns:
        (low, high); NaN without users.

    Raises:
        ConfigError: a level outside (0, 1), or fewer than one draw.

    >>> low, high = bootstrap_ci(np.array([0.1, 0.4, 0.2, 0.3, 0.5]))
    >>> round(low, 2), round(high, 2)
    (0.18, 0.42)
    """
    if not 0 < level < 1 or draws < 1:
        raise ConfigError(f"an interval needs 0 < level < 1 and draws >= 1, got {level} and {draws}")
    values = np.asarray(values, dtype=np.float64)
    low, high = interval(bootstrap_means(values[~np.isnan(values)][:, None], draws=draws, seed=seed), level)
    return float(low[0]), float(high[0])


def interval(means: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return the lower and upper percentile, [M] each, of resampled means, [draws, M]."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def sign_flip_test(differences: Floats, *, draws: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p value of a paired permutation test on the mean of differences.

    If the two models were alike, each user's difference could as well have the other sign. With few users all
    2^n sign patterns are tried, else `draws` random ones, the observed one counted among them.

    Args:
        differences: [n] one a user, model minus reference; NaN users leave.
        draws: random sign patterns; the p value cannot be below 1 / (draws + 1).
        seed: of the patterns.

    Returns:
        p in (0, 1]; NaN without users.

    >>> sign_flip_test(np.array([0.1, 0.2, 0.3, 0.1]))
    0.125
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[~np.isnan(values)]
    n = len(values)
    if n == 0:
        return math.nan
    # A flipped sum is 2 * (sum of the kept ones) - total; "as extreme" must survive rounding.
    total = float(values.sum())
    extreme = abs(total) - 1e-12 * float(np.abs(values).sum())
    exact = n < 63 and 2**n <= draws
    rng = np.random.default_rng(seed)
    patterns = 2**n if exact else draws
    count = 0
    for block in _blocks(patterns, n):
        if exact:
            numbers = np.arange(block.start, block.stop)[:, None]
            kept: NDArray[Any] = (numbers >> np.arange(n)) & 1
        else:
            size = block.stop - block.start
            packed = np.frombuffer(rng.bytes(size * -(-n // 8)), dtype=np.uint8).reshape(size, -1)
            kept = np.unpackbits(packed, axis=1, count=n)
        count += int((np.abs(2 * (kept @ values) - total) >= extreme).sum())
    return count / patterns if exact else (count + 1) / (patterns + 1)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Return p values adjusted by Holm's step-down method; NaN stays NaN and is not counted.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.array([math.nan if p is None else p for p in p_values], dtype=np.float64)
    adjusted = np.full(len(given), math.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return adjusted


@dataclass(frozen=True)
class Harm:
    """Whether a model serves users worse than a reference by more than a margin.

    Attributes:
        ratio: (mean - mean of the reference) / mean of the reference.
        low: one-sided 95 % lower bound of `ratio`.
        high: one-sided 95 % upper bound.
        verdict: "no harm" where low > -margin, "harm" where high < -margin, else "undecided".
        resolvable_margin: the smallest margin at which two equal models would be judged "no harm" with as
            many users and as much spread as here: the distance from `ratio` to `low`; NaN where the users are
            too few to tell.
    """

    ratio: float
    low: float
    high: float
    verdict: str
    resolvable_margin: float


LEAST_USERS = 8
"""Of two equal models with 1, 3, 5 or 12 users one is called harmful in 47, 15, 8 or 5 % of simulations."""


def no_harm(
    values: Floats, reference: Floats, *, margin: float = 0.02, draws: int = 2000, seed: int = 0
) -> Harm:
    """Judge by a paired bootstrap over users whether `values` lie below `reference` by more than `margin`.

    Args:
        values: [n] a metric of each user, the higher the better; users with NaN in either array leave.
        reference: [n] the same users' values under the reference.
        margin: relative loss that still counts as no harm.
        draws: resamples of users.
        seed: of the resamples.

    Raises:
        ConfigError: a margin below 0, or fewer than one draw.
        ValueError: arrays of different lengths.

    Resamples of a few users say little: of fewer than LEAST_USERS, the verdict is "undecided", and what could
    be resolved is not known, unless all have the same values.

    >>> no_harm(np.full(50, 0.3), np.full(50, 0.3)).verdict
    'no harm'
    """
    if not margin >= 0 or draws < 1:
        raise ConfigError(f"a verdict needs margin >= 0 and draws >= 1, got {margin} and {draws}")
    pair = np.stack([np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)], axis=1)
    pair = pair[~np.isnan(pair).any(axis=1)]
    if not len(pair) or pair[:, 1].mean() == 0:  # nobody, or nothing to be relative to
        return Harm(math.nan, math.nan, math.nan, "undecided", math.nan)
    ratio = float(_relative(pair.mean(axis=0)[None, :])[0])
    drawn = _relative(bootstrap_means(pair, draws=draws, seed=seed))
    # Where a resample has reference 0 the ratio may be infinite, which cannot be interpolated.
    method: Any = "linear" if np.isfinite(drawn).all() else "inverted_cdf"
    low, high = (float(bound) for bound in np.quantile(drawn, [0.05, 0.95], method=method))
    verdict = "no harm" if low > -margin else "harm" if high < -margin else "undecided"
    if len(pair) < LEAST_USERS and (pair[:, 0] != pair[:, 1]).any():
        return Harm(ratio, low, high, "undecided", math.nan)
    return Harm(ratio, low, high, verdict, ratio - low)


def _relative(means: Floats) -> Floats:
    """Return (a - ref) / ref of pairs of means, [draws, 2]; both 0 = no difference, only ref 0 = infinite."""
    difference = means[:, 0] - means[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = difference / means[:, 1]
    return np.where(difference == 0, 0.0, ratio)


def _blocks(total: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))
