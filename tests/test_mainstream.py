"""Mainstream scores and groups against a double loop, and on real logs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from greysheep import mainstream
from greysheep.errors import DataError, MissingExtraError
from greysheep.interactions import Interactions
from greysheep.mainstream import (
    GROUPS,
    Mainstream,
    activity_groups,
    density_scores,
    distribution_scores,
    mainstream_scores,
)
from greysheep.splitting import split

quick = settings(max_examples=50, deadline=None)
ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / os.environ.get("GREYSHEEP_DATA", "../shared/data")


def random_log(seed, n_users=None, n_items=9):
    rng = np.random.default_rng(seed)
    n_users = int(rng.integers(1, 16)) if n_users is None else n_users
    return sparse.csr_matrix((rng.random((n_users, n_items)) < rng.uniform(0.05, 0.7)).astype(np.float32))


def item_sets(rows):
    return [set(rows[u].indices.tolist()) for u in range(rows.shape[0])]


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 0.0


def oracle(rows):
    sets = item_sets(rows)
    return [
        sum(jaccard(mine, other) for v, other in enumerate(sets) if v != u) / max(1, len(sets) - 1)
        for u, mine in enumerate(sets)
    ]


@quick
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([1, 5, 1000]))
def test_scores_are_the_double_loop_whatever_the_blocks_and_threads(seed, threads, pairs):
    rows = random_log(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mainstream, "_PAIRS_AT_ONCE", pairs)
        scores = mainstream_scores(rows, threads=threads)
    np.testing.assert_allclose(scores, oracle(rows), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(scores, mainstream_scores(rows))


@quick
@given(st.integers(0, 10_000))
def test_new_users_are_compared_with_everybody(seed):
    known, new = random_log(seed), random_log(seed + 1)
    expected = [np.mean([jaccard(a, b) for b in item_sets(known)]) for a in item_sets(new)]
    np.testing.assert_allclose(mainstream_scores(new, known), expected, rtol=1e-12, atol=1e-15)


@quick
@given(st.integers(0, 10_000))
def test_scores_follow_users_and_ignore_the_order_of_items(seed):
    rows = random_log(seed)
    rng = np.random.default_rng(seed)
    users, items = rng.permutation(rows.shape[0]), rng.permutation(rows.shape[1])
    np.testing.assert_allclose(mainstream_scores(rows[users][:, items]), mainstream_scores(rows)[users])


@quick
@given(st.integers(0, 10_000))
def test_same_rows_same_score_to_the_last_bit(seed):
    """Or the order of equal users would be rounding's choice and not their ids'."""
    rows = random_log(seed, n_users=12)
    scores = mainstream_scores(sparse.vstack([rows, rows, rows]).tocsr())
    np.testing.assert_array_equal(scores[:12], scores[12:24])
    np.testing.assert_array_equal(scores[:12], scores[24:])


def test_edges():
    assert mainstream_scores(sparse.csr_matrix((0, 4))).shape == (0,)
    np.testing.assert_array_equal(mainstream_scores(sparse.csr_matrix([[1.0, 1.0]])), [0.0])
    np.testing.assert_array_equal(mainstream_scores(sparse.csr_matrix((3, 4))), [0.0, 0.0, 0.0])
    nobody = sparse.csr_matrix((0, 2))
    np.testing.assert_array_equal(mainstream_scores(sparse.csr_matrix([[1.0, 1.0]]), nobody), [0.0])
    weighted = sparse.csr_matrix([[5.0, 2.0, 0.0], [0.5, 0.0, 1.0]])
    np.testing.assert_allclose(mainstream_scores(weighted), [1 / 3, 1 / 3])
    assert weighted.data.tolist() == [5.0, 2.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="3 items"):
        mainstream_scores(weighted, sparse.csr_matrix((2, 4)))


@quick
@given(st.integers(0, 10_000), st.integers(1, 40), st.booleans())
def test_groups_are_array_split_of_the_order_by_score_and_id(seed, n_users, text):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, n_users) / 7
    ids = rng.permutation(n_users) + 5
    user_ids = pl.Series([f"u{i}" for i in ids] if text else ids)
    found = Mainstream.from_scores(scores, user_ids)
    order = sorted(range(n_users), key=lambda u: (scores[u], user_ids[u]))
    for group, members in enumerate(np.array_split(order, 5)):
        assert set(np.flatnonzero(found.groups == group)) == set(members)
        if group and len(members):
            assert found.cuts[group - 1] == min(scores[members])
    assert found.groups.dtype == np.int8
    assert found.cuts.tolist() == sorted(found.cuts)


@quick
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_assign_gives_known_users_back_their_group(seed, n_users):
    scores = np.random.default_rng(seed).permutation(n_users) / n_users  # no ties: a tie may straddle a cut
    found = Mainstream.from_scores(scores, pl.Series(range(n_users)))
    np.testing.assert_array_equal(found.assign(scores), found.groups)
    assert found.assign(np.array([-1.0])).tolist() == [0]
    assert found.assign(np.array([np.inf])).tolist() == [4]


def test_fit_scores_then_cuts():
    rows = random_log(5, n_users=20)
    found = Mainstream.fit(rows, pl.Series(range(20)))
    np.testing.assert_array_equal(found.scores, mainstream_scores(rows))
    assert np.bincount(found.groups).tolist() == [4] * len(GROUPS)
    with pytest.raises(DataError, match="1 users have no"):
        Mainstream.from_scores(np.array([0.0, np.nan]), pl.Series([1, 2]))
    with pytest.raises(ValueError, match="2 values for 1 users"):
        Mainstream.from_scores(np.zeros(2), pl.Series([1]))


def test_of_split_reads_train_rows_and_computes_once(monkeypatch):
    users = np.repeat(np.arange(8), 6)
    items = np.random.default_rng(0).permuted(np.tile(np.arange(12), (8, 1)), axis=1)[:, :6].ravel()
    log = Interactions.read(pl.DataFrame({"user_id": users, "item_id": items}))
    parts = split(log, "paper", seed=1)
    found = Mainstream.of_split(parts)
    np.testing.assert_array_equal(found.scores, mainstream_scores(parts.rows("train")))
    assert not np.array_equal(found.scores, mainstream_scores(log.matrix()))
    monkeypatch.setattr(Mainstream, "fit", None)
    assert Mainstream.of_split(parts) is found


def test_activity_groups_break_ties_by_id():
    groups = activity_groups(np.array([3, 1, 3, 2, 9]), pl.Series(["b", "z", "a", "y", "x"]))
    assert groups.tolist() == [3, 0, 2, 1, 4]


def test_density_and_distribution_find_the_lonely_user():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    crowd = np.zeros((60, 40))
    crowd[:, :20] = rng.random((60, 20)) < 0.6
    crowd[7] = 0
    crowd[7, 20:] = 1
    rows = sparse.csr_matrix(crowd)
    density, distribution = density_scores(rows), distribution_scores(rows)
    assert density.argmin() == distribution.argmin() == 7
    mean = crowd.mean(axis=0)
    expected = crowd @ mean / (np.linalg.norm(crowd, axis=1) * np.linalg.norm(mean))
    np.testing.assert_allclose(distribution, expected)
    assert distribution_scores(sparse.csr_matrix((2, 3))).tolist() == [0.0, 0.0]
    with pytest.raises(DataError, match="at least 3 users"):
        density_scores(sparse.csr_matrix([[1.0, 0.0]]))


@pytest.mark.parametrize("shape", [(300, 280), (100, 30)])
def test_density_is_the_local_outlier_factor_of_the_svd(shape):
    neighbors = pytest.importorskip("sklearn.neighbors")
    rows = random_log(3, *shape)
    left, values, _ = np.linalg.svd(rows.toarray().astype(float), full_matrices=False)
    factor = neighbors.LocalOutlierFactor(n_neighbors=20).fit((left * values)[:, :64])
    np.testing.assert_allclose(density_scores(rows, seed=1), factor.negative_outlier_factor_, rtol=1e-5)


def test_density_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.neighbors", None)
    with pytest.raises(MissingExtraError, match=r"pip install greysheep\[baselines\]"):
        density_scores(random_log(1, n_users=8))


def real_log(name):
    path = DATA / name / "interactions.parquet"
    if not path.exists():
        pytest.skip(f"no {name} under GREYSHEEP_DATA")
    pairs = pl.read_parquet(path, columns=["user_id", "item_id"]).unique()
    codes = [pairs[column].rank("dense").to_numpy().astype(np.int64) - 1 for column in pairs.columns]
    return sparse.csr_matrix((np.ones(len(pairs), np.float32), codes))


@pytest.mark.parametrize("name", ["yelp", "ml-1m"])
def test_a_real_log_takes_seconds_and_a_sample_is_exact(name):
    rows = real_log(name)
    start = time.perf_counter()
    scores = mainstream_scores(rows, threads=2)
    assert time.perf_counter() - start < 30  # about 2 s on two idle cores
    sizes = np.diff(rows.indptr)
    for user in (0, rows.shape[0] // 2, rows.shape[0] - 1):
        common = np.asarray(rows @ rows[user].T.toarray()).ravel()
        similar = common / (sizes + sizes[user] - common)
        np.testing.assert_allclose(scores[user], (similar.sum() - 1) / (len(sizes) - 1), rtol=1e-9)


def test_memory_stays_far_below_a_matrix_of_all_pairs():
    """12,000 users who all share an item are 144 million pairs; in a process of its own, for its peak."""
    pytest.importorskip("resource")
    script = """
import resource, sys
import numpy as np
from scipy import sparse
from greysheep.mainstream import mainstream_scores
n = 12_000
rows = sparse.csr_matrix((np.ones(2 * n), np.stack([np.zeros(n), 1 + np.arange(n) % 50], 1).ravel(),
                          np.arange(0, 2 * n + 1, 2)), shape=(n, 51))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scores = mainstream_scores(rows, threads=2)
assert np.allclose(scores, (239 + (n - 240) / 3) / (n - 1))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600  # MiB
