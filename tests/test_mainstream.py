"""Mainstream scores and groups against a double loop, and on real logs."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import greysheep as gs
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import split
from greysheep.errors import ConfigError, DataError, GreysheepWarning, MissingExtraError
from greysheep.mainstream import scores as mainstream
from greysheep.mainstream import similarities
from greysheep.mainstream.groups import GROUPS, Mainstream, activity_groups
from greysheep.mainstream.scores import density_scores, distribution_scores, mainstream_scores, sampled_scores
from greysheep.report.pages import html as report_html

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


FORMS = {"dense": {"_CELL": 0}, "sparse": {"_CELL": 10**9}, "all dense": {"_CELL": 0, "_GAIN": 10**9}}
"""How the common items are counted: some items by dense products, none, or all."""


@quick
@given(
    st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([1, 5, 1000]), st.sampled_from(sorted(FORMS))
)
def test_scores_are_the_double_loop_whatever_the_blocks_and_threads(seed, threads, pairs, form):
    rows = random_log(seed, n_users=seed % 40 + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarities, "_PAIRS_AT_ONCE", pairs)
        patch.setattr(similarities, "_CELLS", 7 * pairs)
        for constant, value in FORMS[form].items():
            patch.setattr(similarities, constant, value)
        scores = mainstream_scores(rows, threads=threads)
    np.testing.assert_allclose(scores, oracle(rows), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(scores, mainstream_scores(rows))


@pytest.mark.parametrize("cells", [0, 40, 100])
def test_the_matrix_of_dense_products_has_a_limit(cells, monkeypatch):
    rows = random_log(3, n_users=20)
    scores = mainstream_scores(rows)
    for constant, value in {"_DENSE_CELLS": cells, "_CELL": 0, "_GAIN": 10**9}.items():
        monkeypatch.setattr(similarities, constant, value)
    often = similarities._often(rows, rows)
    kept = cells // (2 * 20)
    popularity = np.diff(rows.tocsc().indptr)
    assert often.sum() == kept and popularity[often].sum() == sum(sorted(popularity)[9 - kept :])
    np.testing.assert_array_equal(mainstream_scores(rows), scores)


def test_dense_products_are_for_dense_logs_only():
    dense = random_log(1, n_users=200)
    assert similarities._often(dense, dense) is not None
    alone = sparse.eye_array(200, format="csr", dtype=np.float32)
    assert similarities._often(alone, alone) is None


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
    np.testing.assert_array_equal(mainstream_scores(rows[users][:, items]), mainstream_scores(rows)[users])


@quick
@given(st.integers(0, 10_000))
def test_same_rows_same_score_to_the_last_bit(seed):
    """Or the order of equal users would be rounding's choice and not their ids'."""
    rows = random_log(seed, n_users=12)
    scores = mainstream_scores(sparse.vstack([rows, rows, rows]).tocsr())
    np.testing.assert_array_equal(scores[:12], scores[12:24])
    np.testing.assert_array_equal(scores[:12], scores[24:])


def sample_oracle(rows, sample, seed, against=None):
    """Means over the drawn others and their bounds, one user and one pair at a time."""
    mine = item_sets(rows)
    theirs = mine if against is None else item_sets(against)
    others = len(theirs) - (against is None)
    size = sample + (against is None)
    chosen = np.random.default_rng(seed).choice(len(theirs), size, replace=False).tolist()
    means, bounds = [], []
    for u, items in enumerate(mine):
        met = [jaccard(items, theirs[v]) for v in chosen if against is not None or v != u]
        n = len(met)
        left = 1 - (n - 1) / others if n <= others / 2 else (1 - n / others) * (1 + 1 / n)
        spread = math.sqrt(sum((a - b) ** 2 for a in met for b in met) / (2 * n * n))
        kappa = 7 / 3 + 3 / math.sqrt(2)
        by_spread = spread * math.sqrt(2 * left * math.log(250) / n) + kappa * math.log(250) / n
        means.append(sum(met) / n)
        bounds.append(min(math.sqrt(left * math.log(200) / (2 * n)), by_spread))
    return means, bounds


@quick
@given(st.integers(0, 10_000), st.integers(1, 60), st.booleans(), st.integers(1, 3))
def test_sampled_scores_are_means_over_the_drawn_others(seed, sample, new_people, threads):
    rows = random_log(seed, n_users=int(np.random.default_rng(seed).integers(sample + 2, 90)), n_items=6)
    against = random_log(seed + 1, n_users=sample + 1 + seed % 7) if new_people else None
    if new_people:
        rows = random_log(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarities, "_PAIRS_AT_ONCE", 40)
        scores, bounds = sampled_scores(rows, sample, against, threads=threads, seed=seed)
    means, wanted = sample_oracle(rows, sample, seed, against)
    np.testing.assert_allclose(scores, means, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(bounds, wanted, rtol=1e-7, atol=1e-12)
    np.testing.assert_array_equal(mainstream_scores(rows, against, sample=sample, seed=seed), scores)


@quick
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_a_sample_of_everybody_else_is_exact(seed, more):
    rows, known = random_log(seed), random_log(seed + 1)
    for against, others in ((None, rows.shape[0] - 1), (known, known.shape[0])):
        scores, bounds = sampled_scores(rows, max(1, others + more), against, seed=seed)
        np.testing.assert_array_equal(scores, mainstream_scores(rows, against))
        assert not bounds.any()


@pytest.mark.parametrize("density", [0.04, 0.5])
@pytest.mark.parametrize("sample", [3, 40, 150, 190])
def test_sampled_scores_are_unbiased_and_within_their_bounds(sample, density):
    """Of 200 users, most with few items in common (skewed similarities) or with many."""
    rows = sparse.csr_matrix(np.random.default_rng(3).random((200, 25)) < density)
    exact, draws = mainstream_scores(rows), 300
    drawn = [sampled_scores(rows, sample, seed=seed) for seed in range(draws)]
    errors = np.array([scores - exact for scores, _ in drawn])
    inside = np.abs(errors) <= np.array([bounds for _, bounds in drawn])
    assert inside.mean(axis=0).min() >= 0.95  # every single user
    standard_error = errors.std(axis=0) / math.sqrt(draws)
    assert (np.abs(errors.mean(axis=0)) <= 5 * standard_error + 1e-15).all()
    # Nobody is compared with herself: at similarity 1 that would lift everybody.
    assert abs(errors.mean()) <= 0.002


def test_bounds_of_a_large_sample_are_the_published_ones():
    """By loops only for a few users: of 1,000 others the bound that reads the spread is the smaller one."""
    rows = random_log(5, n_users=2000, n_items=40)
    scores, bounds = sampled_scores(rows, 1000, seed=4)
    sets = item_sets(rows)
    chosen = np.random.default_rng(4).choice(2000, 1001, replace=False)
    by_spread = 0
    for user in (0, 1, 7, int(chosen[0]), int(chosen[1]), 1999):
        met = np.array([jaccard(sets[user], sets[v]) for v in chosen if v != user])
        n, logarithm = len(met), math.log(10 / 0.04)
        left = (1 - n / 1999) * (1 + 1 / n)
        spread = met.std() * math.sqrt(2 * left * logarithm / n) + (7 / 3 + 3 / math.sqrt(2)) * logarithm / n
        by_range = math.sqrt(left * math.log(2 / 0.01) / (2 * n))
        assert scores[user] == pytest.approx(met.mean())
        assert bounds[user] == pytest.approx(min(spread, by_range), rel=1e-6)
        by_spread += spread < by_range
    assert by_spread >= 3


def test_bounds_shrink_with_the_sample_and_are_of_use():
    rows = random_log(5, n_users=4000, n_items=60)
    widest = [sampled_scores(rows, sample)[1].max() for sample in (100, 1000, 3000, 3990)]
    assert widest == sorted(widest, reverse=True)
    assert widest[1] < 0.05 and widest[3] < 0.005


def test_a_sample_is_refused_below_one():
    with pytest.raises(ConfigError, match="sample=0"):
        mainstream_scores(random_log(1, n_users=4), sample=0)


def test_fit_samples_above_a_limit_and_says_so_in_one_line(monkeypatch, recwarn):
    rows, ids = random_log(5, n_users=300), pl.Series(range(300))
    exact = Mainstream.fit(rows, ids)
    assert (exact.sampled, exact.bound, len(recwarn)) == (0, 0.0, 0)
    pairs = int((np.asarray(rows.sum(axis=0)).ravel() ** 2).sum())
    monkeypatch.setattr(mainstream, "LEAST_SAMPLE", 10)
    monkeypatch.setattr(mainstream, "EXACT_PAIRS", pairs)
    assert Mainstream.fit(rows, ids).sampled == 0
    monkeypatch.setattr(mainstream, "EXACT_PAIRS", pairs // 4)
    with pytest.warns(GreysheepWarning) as said:
        found = Mainstream.fit(rows, ids)
    scores, bounds = sampled_scores(rows, 74)  # a quarter of the users, rounded down
    np.testing.assert_array_equal(found.scores, scores)
    assert (found.sampled, found.bound) == (74, bounds.max())
    np.testing.assert_array_equal(found.groups, Mainstream.from_scores(scores, ids).groups)
    assert [str(one.message) for one in said] == [found.describe()]
    assert "300 users was compared with 74 others" in found.describe() and "\n" not in found.describe()
    monkeypatch.setattr(mainstream, "EXACT_PAIRS", 1)
    with pytest.warns(GreysheepWarning, match="10 others"):
        assert Mainstream.fit(rows, ids).sampled == 10
    monkeypatch.setattr(mainstream, "LEAST_SAMPLE", 299)  # one less than everybody is everybody else
    assert Mainstream.fit(rows, ids).sampled == 0


def test_fit_with_a_sample_asked_for_is_silent(recwarn):
    rows, ids = random_log(5, n_users=300), pl.Series(range(300))
    found = Mainstream.fit(rows, ids, sample=50, seed=2)
    np.testing.assert_array_equal(found.scores, mainstream_scores(rows, sample=50, seed=2))
    assert found.sampled == 50 and 0 < found.bound < 1 and not len(recwarn)
    assert Mainstream.fit(rows, ids, sample=299).sampled == 0


def test_reports_and_saved_models_keep_the_bound(monkeypatch, tmp_path):
    log = gs.simulate(n_users=60, n_items=40, seed=1).log
    monkeypatch.setattr(mainstream, "LEAST_SAMPLE", 20)
    monkeypatch.setattr(mainstream, "EXACT_PAIRS", 1)
    with pytest.warns(GreysheepWarning, match="compared with 20 others"):
        model = gs.Popular().fit(split(log, "strict"))
        report = gs.evaluate(model)
        saved = gs.load(model.save(tmp_path / "model"))
    again = gs.Report.from_dict(report.to_dict())
    for one in (report, again):
        assert (one.mainstream_sample, one.mainstream_bound) == (20, model.mainstream.bound)
    assert "compared with 20 others" in report_html([report])
    assert "compared with 20 others" in model.mainstream.describe()
    kept = saved.serving_mainstream
    assert (kept.sampled, kept.bound) == (20, model.serving_mainstream.bound)
    monkeypatch.undo()
    exact = gs.evaluate(gs.Popular().fit(split(log, "strict")))
    assert "mainstream_sample" not in exact.to_dict() and "compared with" not in report_html([exact])


def test_density_of_users_who_cannot_be_told_apart():
    pytest.importorskip("sklearn")
    rows = np.zeros((60, 12))
    rows[:30, 0] = 1  # more than the 20 neighbours of the score
    rows[30:] = np.random.default_rng(0).random((30, 12)) < 0.5
    with pytest.warns() as told:
        assert np.isfinite(density_scores(sparse.csr_matrix(rows))).all()
    assert [one.category for one in told] == [GreysheepWarning]
    assert "at least 20 users cannot be told apart" in str(told[0].message)
    assert "--min-user-items" in str(told[0].message)


def test_edges():
    assert mainstream_scores(sparse.csr_matrix((0, 4))).shape == (0,)
    np.testing.assert_array_equal(mainstream_scores(sparse.csr_matrix([[1.0, 1.0]])), [0.0])
    np.testing.assert_array_equal(mainstream_scores(sparse.csr_matrix((3, 4))), [0.0, 0.0, 0.0])
    nobody = sparse.csr_matrix((0, 2))
    np.testing.assert_array_equal(mainstream_scores(sparse.csr_matrix([[1.0, 1.0]]), nobody), [0.0])
    weighted = sparse.csr_matrix([[5.0, 2.0, 0.0], [0.5, 0.0, 1.0]])
    np.testing.assert_allclose(mainstream_scores(weighted), [1 / 3, 1 / 3])
    assert weighted.data.tolist() == [5.0, 2.0, 0.5, 1.0]
    with pytest.raises(DataError, match="3 items"):
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
    with pytest.raises(DataError, match="2 values for 1 users"):
        Mainstream.from_scores(np.zeros(2), pl.Series([1]))


def test_a_split_reads_train_rows_and_computes_once(monkeypatch):
    users = np.repeat(np.arange(8), 6)
    items = np.random.default_rng(0).permuted(np.tile(np.arange(12), (8, 1)), axis=1)[:, :6].ravel()
    log = Interactions.read(pl.DataFrame({"user_id": users, "item_id": items}))
    parts = split(log, "paper", seed=1)
    found = parts.mainstream
    np.testing.assert_array_equal(found.scores, mainstream_scores(parts.rows("train")))
    assert not np.array_equal(found.scores, mainstream_scores(log.matrix()))
    monkeypatch.setattr(Mainstream, "fit", None)
    assert parts.mainstream is found
    assert replace(parts).with_mainstream(found).mainstream is found


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
from greysheep.mainstream.scores import mainstream_scores
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
