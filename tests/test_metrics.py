"""Metrics against a plain loop, against ranx 0.3.21, and by their properties."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from greysheep.errors import ConfigError, DataError
from greysheep.metrics.ranking import METRICS, hits, per_user, top_n

quick = settings(max_examples=50, deadline=None)


def oracle_top_n(scores, n):
    lists = []
    for row in scores:
        kept = [code for code in range(len(row)) if row[code] > -math.inf]
        kept.sort(key=lambda code: (-row[code], code))
        kept = kept[:n]
        lists.append(kept + [-1] * (min(n, len(row)) - len(kept)))
    return np.array(lists, dtype=np.int64).reshape(len(scores), min(n, scores.shape[1]))


def oracle(ranked, relevant, k):
    """One user, straight from the definitions."""
    if not relevant:
        return dict.fromkeys(METRICS, math.nan)
    found = [code in relevant for code in ranked[:k]]
    dcg = sum(1 / math.log2(place + 2) for place, hit in enumerate(found) if hit)
    idcg = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
    first = next((1 / (place + 1) for place, hit in enumerate(found) if hit), 0.0)
    precisions = [sum(found[: place + 1]) / (place + 1) for place, hit in enumerate(found) if hit]
    return {
        "ndcg": dcg / idcg,
        "recall": sum(found) / len(relevant),
        "precision": sum(found) / k,
        "hit_rate": float(any(found)),
        "mrr": first,
        "map": sum(precisions) / len(relevant),
    }


def random_case(seed, n_users=7, n_items=12, n=8, density=0.3):
    rng = np.random.default_rng(seed)
    truth = sparse.csr_matrix((rng.random((n_users, n_items)) < density).astype(np.float32))
    ranked = np.stack([rng.permutation(n_items)[:n] for _ in range(n_users)])
    short = rng.integers(0, n + 1, n_users)
    ranked[np.arange(n)[None, :] >= short[:, None]] = -1
    return ranked, truth


def metrics_of(ranked, truth, k, metrics=METRICS):
    return per_user(hits(ranked, truth), np.diff(truth.indptr), k, metrics)


@quick
@given(st.integers(0, 10_000), st.integers(1, 15), st.integers(1, 12))
def test_per_user_is_the_loop(seed, k, n):
    ranked, truth = random_case(seed, n=n)
    values = metrics_of(ranked, truth, (k, 3))
    for cut in (k, 3):
        for user in range(len(ranked)):
            relevant = set(truth[user].indices.tolist())
            expected = oracle([c for c in ranked[user] if c >= 0], relevant, cut)
            for name in METRICS:
                np.testing.assert_allclose(values[f"{name}@{cut}"][user], expected[name], rtol=1e-12)


@quick
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 14), st.sampled_from(["f4", "f8"]))
def test_top_n_is_a_full_sort_ties_and_exclusions_included(seed, n_items, n, dtype):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-2, 3, (6, n_items)).astype(dtype)
    scores[rng.random(scores.shape) < rng.random()] = -np.inf
    before = scores.copy()
    best = top_n(scores, n)
    assert best.dtype == np.int64
    np.testing.assert_array_equal(best, oracle_top_n(scores, n))
    np.testing.assert_array_equal(scores, before)


def test_top_n_over_several_blocks(monkeypatch):
    monkeypatch.setattr("greysheep.metrics.ranking._BLOCK_CELLS", 100)
    scores = np.random.default_rng(0).integers(0, 9, (23, 40)).astype(np.float32)
    np.testing.assert_array_equal(top_n(scores, 5), oracle_top_n(scores, 5))


def test_top_n_of_wide_rows_with_and_without_ties():
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((9, 3001)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[1] = np.round(scores[1])
    scores[2, rng.random(3001) < 0.999] = -np.inf
    scores[3] = 0.0
    scores[4] = -np.inf
    scores[5] = np.arange(3001)
    scores[6] = -np.arange(3001)
    for n in (1, 20, 374, 2000):
        np.testing.assert_array_equal(top_n(scores, n), oracle_top_n(scores, n))


def test_top_n_edges():
    assert top_n(np.zeros((0, 4), np.float32), 3).shape == (0, 3)
    assert top_n(np.zeros((2, 0), np.float32), 3).shape == (2, 0)
    np.testing.assert_array_equal(top_n(np.zeros((1, 3), np.int64), 2), [[0, 1]])
    np.testing.assert_array_equal(top_n(np.array([[np.inf, 1.0]]), 1), [[0]])
    for place in (0, 17, 1000):
        broken = np.arange(1001.0)[None, :].copy()
        broken[0, place] = np.nan
        with pytest.raises(DataError, match="NaN"):
            top_n(broken, 3)
    with pytest.raises(ConfigError, match="at least 1"):
        top_n(np.zeros((1, 3)), 0)
    with pytest.raises(ValueError, match="matrix"):
        top_n(np.zeros(3), 1)


def test_padding_does_not_hit_the_previous_users_last_item():
    truth = sparse.csr_matrix(np.array([[0, 0, 1.0], [1.0, 0, 0]]))
    np.testing.assert_array_equal(hits(np.array([[-1, 2], [-1, 0]]), truth), [[False, True], [False, True]])


def test_hits_reads_unsorted_truth_and_checks_shapes():
    truth = sparse.csr_matrix((np.ones(2), np.array([2, 0]), np.array([0, 2])), shape=(1, 3))
    assert not truth.has_sorted_indices
    np.testing.assert_array_equal(hits(np.array([[0, 1, 2]]), truth), [[True, False, True]])
    with pytest.raises(ValueError, match="one list per row"):
        hits(np.array([[0], [1]]), truth)
    with pytest.raises(ValueError, match="code 3"):
        hits(np.array([[3]]), truth)
    assert hits(np.zeros((1, 0), np.int64), truth).shape == (1, 0)


@quick
@given(st.integers(0, 10_000))
def test_values_lie_between_0_and_1_and_grow_where_they_must(seed):
    ranked, truth = random_case(seed, n=10)
    cuts = (1, 2, 5, 10)
    values = metrics_of(ranked, truth, cuts)
    for name, column in values.items():
        known = column[~np.isnan(column)]
        assert ((known >= 0) & (known <= 1)).all(), name
    np.testing.assert_array_equal(np.isnan(values["ndcg@1"]), np.diff(truth.indptr) == 0)
    for name in ("recall", "hit_rate", "mrr", "map"):
        for small, large in itertools.pairwise(cuts):
            assert not (values[f"{name}@{large}"] < values[f"{name}@{small}"]).any(), name


@quick
@given(st.integers(0, 10_000))
def test_each_user_stands_alone(seed):
    ranked, truth = random_case(seed)
    order = np.random.default_rng(seed + 1).permutation(len(ranked))
    straight = metrics_of(ranked, truth, (1, 5))
    shuffled = metrics_of(ranked[order], truth[order], (1, 5))
    for name, column in straight.items():
        np.testing.assert_array_equal(column[order], shuffled[name])


@quick
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_a_perfect_list_is_exactly_1(seed, k):
    _, truth = random_case(seed, density=0.5)
    scores = np.asarray(truth.todense())
    values = metrics_of(top_n(scores, 12), truth, k)
    n_relevant = np.diff(truth.indptr)
    some = n_relevant > 0
    for name in ("ndcg", "hit_rate", "mrr"):
        assert (values[f"{name}@{k}"][some] == 1.0).all()
    reach = np.minimum(n_relevant, k)[some]
    np.testing.assert_allclose(values[f"recall@{k}"][some], reach / n_relevant[some])
    np.testing.assert_allclose(values[f"map@{k}"][some], reach / n_relevant[some])
    np.testing.assert_allclose(values[f"precision@{k}"][some], reach / k)


def test_a_better_place_is_worth_more():
    truth = sparse.csr_matrix(np.array([[1.0, 0, 0, 0]]))
    ndcg = [metrics_of(np.roll([[0, 1, 2, 3]], shift), truth, 4, ["ndcg"])["ndcg@4"][0] for shift in range(4)]
    np.testing.assert_allclose(ndcg, [1, 1 / math.log2(3), 0.5, 1 / math.log2(5)])
    assert list(metrics_of(np.array([[0, 1]]), truth, 2, ["ndcg"])) == ["ndcg@2"]


def test_wrong_arguments():
    truth = sparse.csr_matrix(np.array([[1.0, 0]]))
    with pytest.raises(ConfigError, match="unknown metric 'ndgc'"):
        metrics_of(np.array([[0]]), truth, 1, ["ndgc"])
    for k in (0, True, 2.5):
        with pytest.raises((ConfigError, TypeError)):
            metrics_of(np.array([[0]]), truth, k)
    np.testing.assert_array_equal(metrics_of(np.zeros((1, 0), np.int64), truth, 3)["mrr@3"], [0.0])


def test_ranx_agrees(monkeypatch):
    """The package whose definitions these are, run as plain Python: compiling it takes half a minute."""
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    ranx = pytest.importorskip("ranx")
    ranked, truth = random_case(3, n_users=12, n_items=15, n=10)
    keep = (np.diff(truth.indptr) > 0) & (ranked[:, 0] >= 0)  # ranx knows no empty truth or list
    ranked, truth = ranked[keep], truth[keep]
    assert len(ranked) >= 6
    qrels = ranx.Qrels({f"u{u}": {f"i{i}": 1 for i in truth[u].indices} for u in range(len(ranked))})
    run = ranx.Run(
        {
            f"u{u}": {f"i{i}": float(99 - place) for place, i in enumerate(ranked[u]) if i >= 0}
            for u in range(len(ranked))
        }
    )
    ks = (1, 5, 10)
    names = [f"{name}@{k}" for name in METRICS for k in ks]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranx.evaluate(qrels, run, names)
    values = metrics_of(ranked, truth, ks)
    for name in names:
        theirs = [run.scores[name][f"u{u}"] for u in range(len(ranked))]
        np.testing.assert_allclose(values[name], theirs, rtol=1e-12, err_msg=name)
