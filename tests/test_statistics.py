"""Intervals and tests against scipy, plain loops and known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from greysheep.errors import ConfigError
from greysheep.metrics import statistics
from greysheep.metrics.statistics import (
    bootstrap_ci,
    bootstrap_means,
    holm,
    interval,
    no_harm,
    sign_flip_test,
)

quick = settings(max_examples=50, deadline=None)


def test_bootstrap_interval_is_scipys():
    values = np.random.default_rng(0).gamma(0.7, 0.2, 400)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    np.testing.assert_allclose(bootstrap_ci(values, draws=20_000), [theirs.low, theirs.high], rtol=0.005)
    ninety = bootstrap_ci(values, draws=20_000, level=0.9)
    assert theirs.low < ninety[0] < values.mean() < ninety[1] < theirs.high


def test_bootstrap_means_have_the_moments_of_resampled_means():
    values = np.random.default_rng(1).random((50, 3))
    means = bootstrap_means(values, draws=20_000, seed=4)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(means.std(axis=0), values.std(axis=0) / math.sqrt(50), rtol=0.03)
    between = np.corrcoef(means[:, 0], means[:, 1])[0, 1]  # columns share their resamples: so do users
    assert abs(between - np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.03
    np.testing.assert_array_equal(means, bootstrap_means(values, draws=20_000, seed=4))
    assert not np.array_equal(means, bootstrap_means(values, draws=20_000, seed=5))


def test_blocks_hold_all_draws(monkeypatch):
    monkeypatch.setattr(statistics, "_BLOCK", 64)
    values = np.random.default_rng(2).random((10, 1))
    means = bootstrap_means(values, draws=1999)
    assert means.shape == (1999, 1)
    assert (means >= values.min()).all() and (means <= values.max()).all()
    assert len(np.unique(means)) > 1900
    assert sign_flip_test(np.full(40, 0.1), draws=999) == 1 / 1000


def test_bootstrap_edges():
    assert all(map(math.isnan, bootstrap_ci(np.array([]))))
    assert bootstrap_ci(np.array([0.25, np.nan])) == (0.25, 0.25)
    low, high = interval(bootstrap_means(np.zeros((0, 2))))
    assert np.isnan(low).all() and np.isnan(high).all()
    for wrong in ({"level": 1.0}, {"draws": 0}):
        with pytest.raises(ConfigError):
            bootstrap_ci(np.array([1.0]), **wrong)


@quick
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_sign_flips_of_few_users_are_all_patterns(numbers):
    values = np.array(numbers) / 10
    observed = abs(sum(numbers))
    sums = [abs(sum(s * x for s, x in zip(signs, numbers, strict=True)))
            for signs in itertools.product((-1, 1), repeat=len(numbers))]  # fmt: skip
    assert sign_flip_test(values) == sum(s >= observed for s in sums) / len(sums)


def test_sign_flips_are_scipys_permutation_test():
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.02, 0.05):
        values = np.append(rng.normal(shift, 0.1, 60), [0.0] * 10)

        def far(x, axis):
            return np.abs(np.mean(x, axis=axis))

        theirs = stats.permutation_test(
            (values,), far, permutation_type="samples", n_resamples=20_000, vectorized=True, rng=rng,
            alternative="greater",
        ).pvalue  # fmt: skip
        assert sign_flip_test(values, draws=20_000) == pytest.approx(theirs, abs=0.012)


def test_sign_flip_test_keeps_its_level():
    rng = np.random.default_rng(5)
    p_values = [sign_flip_test(rng.standard_t(3, 30), draws=400, seed=i) for i in range(400)]
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.085
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_sign_flip_edges():
    assert math.isnan(sign_flip_test(np.array([np.nan])))
    assert sign_flip_test(np.zeros(100)) == 1.0
    assert sign_flip_test(np.array([0.3, np.nan, 0.3])) == 0.5
    assert sign_flip_test(np.full(100, 0.1), draws=1000) == 1 / 1001
    assert sign_flip_test(-np.full(100, 0.1), draws=1000) == 1 / 1001


def plain_holm(p_values):
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, (len(p_values) - place) * p_values[i])
        adjusted[i] = min(1.0, highest)
    return adjusted


@quick
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_the_textbook_loop(p_values):
    adjusted = holm(p_values)
    np.testing.assert_allclose(adjusted, plain_holm(p_values))
    assert (adjusted >= np.array(p_values) - 1e-15).all()


def test_holm_leaves_nan_out():
    np.testing.assert_allclose(holm([0.01, math.nan, 0.04, None]), [0.02, math.nan, 0.04, math.nan])


def users(n, mean, spread, seed=0):
    return np.clip(np.random.default_rng(seed).normal(mean, spread, n), 0, 1)


def test_verdicts():
    reference = users(3000, 0.3, 0.1)
    assert no_harm(reference * 1.01, reference).verdict == "no harm"
    assert no_harm(reference * 0.99, reference).verdict == "no harm"
    assert no_harm(reference * 0.9, reference).verdict == "harm"
    few = no_harm(users(20, 0.3, 0.1, seed=2), users(20, 0.3, 0.1, seed=1))
    assert few.verdict == "undecided"
    assert few.low < -0.02 < few.high
    assert few.resolvable_margin > 0.02
    # the margin that was called resolvable does decide, where the two are alike
    a, b = users(200, 0.3, 0.1, seed=2), users(200, 0.3, 0.1, seed=2)[::-1]
    small = no_harm(a, b, margin=0.001)
    assert small.verdict == "undecided" and small.ratio == pytest.approx(0, abs=1e-12)
    assert no_harm(a, b, margin=small.resolvable_margin * 1.01).verdict == "no harm"


def test_bounds_are_one_sided_95_percent_of_the_paired_ratio():
    reference = users(150, 0.3, 0.1, seed=1)
    values = np.clip(reference + np.random.default_rng(9).normal(0.01, 0.05, 150), 0, 1)

    def ratio(a, b, axis):
        return a.mean(axis=axis) / b.mean(axis=axis) - 1

    theirs = stats.bootstrap(
        (values, reference), ratio, paired=True, vectorized=True, method="percentile",
        confidence_level=0.9, n_resamples=20_000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    ours = no_harm(values, reference, draws=20_000)
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], atol=5e-4)
    assert ours.ratio == pytest.approx(values.mean() / reference.mean() - 1)


@pytest.mark.parametrize(("n", "enough"), [(1, False), (7, False), (8, True), (40, True)])
def test_few_users_are_no_ground_for_a_verdict(n, enough):
    reference = np.linspace(0.3, 0.5, n)
    assert no_harm(reference * 0.5, reference).verdict == ("harm" if enough else "undecided")
    assert no_harm(reference * 1.5, reference).verdict == ("no harm" if enough else "undecided")
    assert no_harm(reference, reference).verdict == "no harm"  # there is nothing to be unsure of


def test_verdict_edges():
    assert no_harm(np.array([]), np.array([])).verdict == "undecided"
    nothing = no_harm(np.full(9, 0.2), np.zeros(9))
    assert nothing.verdict == "undecided" and math.isnan(nothing.ratio)
    rare = np.zeros(12)
    rare[0] = 1.0  # a third of the resamples miss this user: ratios of 0 / 0 and of x / 0
    assert no_harm(rare, rare) == statistics.Harm(0.0, 0.0, 0.0, "no harm", 0.0)
    other = no_harm(np.roll(rare, 1), rare)
    assert other.verdict == "undecided" and other.low == -1 and other.high == math.inf
    assert no_harm(np.array([0.5, np.nan, 0.5]), np.array([0.5, 0.1, np.nan])).ratio == 0.0
    with pytest.raises(ConfigError, match="margin"):
        no_harm(np.ones(2), np.ones(2), margin=-0.1)
    with pytest.raises(ValueError):
        no_harm(np.ones(2), np.ones(3))
