"""Item-kNN and iALS are held to plain loops in float64, and to implicit and LensKit."""

from __future__ import annotations

import json
import math
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

import greysheep as gs
import oracle
from greysheep.errors import ConfigError, GreysheepWarning, MissingExtraError
from greysheep.models.linear import ials, itemknn, userknn
from greysheep.models.training.progress import Steps

GOLDEN = Path(__file__).with_name("golden") / "itemknn.json"
FloatArray = NDArray[np.float64]


def random_rows(n_users: int, n_items: int, seed: int, most: int = 1) -> FloatArray:
    """Whole weights up to `most`, in which every user and every item occurs."""
    random = np.random.default_rng(seed)
    x = (random.random((n_users, n_items)) < 0.35).astype(float)
    x[np.arange(n_users), np.arange(n_users) % n_items] = 1.0
    x[np.arange(n_items) % n_users, np.arange(n_items)] = 1.0
    return np.asarray(x * random.integers(1, most + 1, x.shape))


def log_of(x: FloatArray) -> gs.Interactions:
    users, items = np.nonzero(x)
    return gs.Interactions.read(pl.DataFrame({"user_id": users, "item_id": items, "weight": x[users, items]}))


# ---- item-kNN


def knn_weights(x: FloatArray, neighbours: int, shrinkage: float) -> FloatArray:
    """One pair of items at a time."""
    n_users, n_items = x.shape
    weights = np.zeros((n_items, n_items))
    length = [math.sqrt(sum(x[u, i] ** 2 for u in range(n_users))) for i in range(n_items)]
    for i in range(n_items):
        found = []
        for j in range(n_items):
            product = sum(x[u, i] * x[u, j] for u in range(n_users))
            if j != i and product > 0:
                found.append((-product / (length[i] * length[j] + shrinkage), j))
        for negative, j in sorted(found)[:neighbours]:
            weights[i, j] = -negative
    return weights


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 9), st.integers(1, 10), st.sampled_from([0, 2.5]), st.integers(0, 99)
)
def test_neighbours_agree(n_users: int, n_items: int, neighbours: int, shrinkage: float, seed: int) -> None:
    x = random_rows(n_users, n_items, seed, most=1 + seed % 3)
    found = itemknn.neighbour_weights(csr_matrix(x), neighbours, shrinkage)
    assert found.dtype == np.float32 and found.has_sorted_indices
    np.testing.assert_allclose(found.toarray(), knn_weights(x, neighbours, shrinkage), atol=1e-6)


def test_equally_similar_items_come_by_code() -> None:
    x = np.ones((3, 6))
    found = itemknn.neighbour_weights(csr_matrix(x), 2).toarray()
    assert [np.flatnonzero(row).tolist() for row in found] == [[1, 2], [0, 2], *[[0, 1]] * 4]


def test_an_item_without_rows_is_nobodys_neighbour() -> None:
    x = random_rows(8, 5, 3)
    x[:, 2] = 0
    found = itemknn.neighbour_weights(csr_matrix(x), 9).toarray()
    assert np.isfinite(found).all() and not found[2].any() and not found[:, 2].any()


@pytest.mark.parametrize("cells", [1, 40, 97])
def test_blocks_change_nothing(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = csr_matrix(random_rows(30, 20, 1, most=4))
    whole = itemknn.neighbour_weights(x, 5)
    monkeypatch.setattr(itemknn, "BLOCK_CELLS", cells)
    blocks = itemknn.neighbour_weights(x, 5)
    np.testing.assert_array_equal(blocks.toarray(), whole.toarray())


def test_similarities_are_never_dense_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itemknn, "BLOCK_CELLS", 1 << 16)
    random, n_items = np.random.default_rng(0), 3000
    rows = csr_matrix((np.ones(9000), (np.repeat(np.arange(600), 15), random.integers(0, n_items, 9000))))
    tracemalloc.start()
    itemknn.neighbour_weights(rows, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * n_items**2 / 5


def test_neighbours_agree_with_lenskit() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    x = np.zeros((golden["n_users"], golden["n_items"]))
    for user, item in golden["rows"]:
        x[user, item] = 1.0
    for neighbours, which in ((100, "all"), (golden["neighbours"], "few")):
        model = gs.ItemKNN(neighbours=neighbours).fit(log_of(x))
        np.testing.assert_allclose(model.weights.toarray(), golden[f"weights_{which}"], atol=1e-6)
        scores = model._scores(csr_matrix(x, dtype=np.float32), None)
        np.testing.assert_allclose(scores, golden[f"scores_{which}"], atol=1e-5)
        np.testing.assert_array_equal(model._similarity(np.array([3, 1])), model.weights.toarray()[[3, 1]])


@pytest.mark.filterwarnings("ignore:Method expects CSR")
def test_weighted_neighbours_agree_with_implicit() -> None:
    x = random_rows(60, 25, 5) * np.random.default_rng(5).random((60, 25))
    model = gs.ItemKNN(neighbours=6).fit(log_of(x))
    other = CosineRecommender(K=7, num_threads=1)  # counts the item itself
    other.fit(csr_matrix(x), show_progress=False)
    similarity = other.similarity.toarray()
    np.fill_diagonal(similarity, 0.0)
    np.testing.assert_allclose(model.weights.toarray(), similarity, atol=1e-6)
    fed = random_rows(4, 25, 6, most=3)
    scores = model._scores(csr_matrix(fed, dtype=np.float32), None)
    np.testing.assert_allclose(scores, fed @ similarity, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(2, 9),
    st.integers(1, 25),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.integers(0),
)
def test_user_knn_is_the_sum_over_the_nearest(
    n_users: int, n_items: int, neighbours: int, power: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x = random_rows(n_users, n_items, seed) * random.uniform(0.1, 4.0, (n_users, n_items))
    fed = np.vstack([x[:3], (random.random((2, n_items)) < 0.5) * random.uniform(0.1, 4.0, (2, n_items))])
    expected, near = oracle.user_knn_scores(x, neighbours, power, fed)
    assume(not near)  # who is alike but for a rounding error may change places
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(userknn, "BLOCK_CELLS", int(random.integers(1, 60)))
        model = gs.UserKNN(neighbours=neighbours, power=power).fit(log_of(x))
        found = model._scores(csr_matrix(fed, dtype=np.float32), None)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_user_knn_forgets_the_size_of_weights() -> None:
    x = random_rows(30, 12, 3)
    model = gs.UserKNN(neighbours=5).fit(log_of(x))
    fed = csr_matrix(x[:4] * np.array([[1e-30], [1.0], [1e30], [0.0]]), dtype=np.float32)
    expected = model._scores(csr_matrix(x[:4], dtype=np.float32), None)
    expected[3] = 0
    np.testing.assert_allclose(model._scores(fed, None), expected, rtol=1e-5)


# ---- iALS


def solve_vector(row: FloatArray, others: FloatArray, alpha: float, regularization: float) -> FloatArray:
    """argmin over v of sum_i c_i (p_i - v . y_i)^2 + lambda |v|^2, one item at a time."""
    size = others.shape[1]
    left, right = regularization * np.eye(size), np.zeros(size)
    for value, y in zip(row, others, strict=True):
        confidence = alpha * value if value > 0 else 1.0
        left += confidence * np.outer(y, y)
        right += (confidence if value > 0 else 0.0) * y
    return np.linalg.solve(left, right)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 9), st.integers(1, 5), st.floats(0.1, 40), st.floats(0.01, 100),
    st.integers(0, 99),
)  # fmt: skip
def test_folding_in_agrees(
    n_users: int, n_items: int, size: int, alpha: float, regularization: float, seed: int
) -> None:
    x = random_rows(n_users, n_items, seed, most=1 + seed % 4)
    x[0] = 0
    y = np.random.default_rng(seed).normal(size=(n_items, size))
    expected = [solve_vector(row, y, alpha, regularization) for row in x]
    np.testing.assert_allclose(ials.fold_in(csr_matrix(x), y, alpha, regularization), expected, atol=1e-8)


@pytest.mark.parametrize("cells", [1, 50, 1000])
def test_batches_of_folding_change_nothing(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = csr_matrix(random_rows(25, 14, 2)), np.random.default_rng(2).normal(size=(14, 3))
    whole = ials.fold_in(x, y, 4.0, 1.0)
    monkeypatch.setattr(ials, "FOLDING_CELLS", cells)
    np.testing.assert_allclose(ials.fold_in(x, y, 4.0, 1.0), whole, atol=1e-12)
    assert ials.fold_in(x[:0], y, 4.0, 1.0).shape == (0, 3)


def test_folding_in_agrees_with_implicit() -> None:
    x = csr_matrix(random_rows(40, 15, 4, most=3), dtype=np.float32)
    other = AlternatingLeastSquares(factors=6, alpha=4.0, regularization=0.7, random_state=1, num_threads=1)
    other.fit(x, show_progress=False)
    theirs = other.recalculate_user(np.arange(40), x)
    np.testing.assert_allclose(ials.fold_in(x, other.item_factors, 4.0, 0.7), theirs, atol=1e-4)


def scaled(x: FloatArray, power: float) -> FloatArray:
    """Each user's row times her number of items to the power of -q."""
    return np.array([row * max(int((row > 0).sum()), 1) ** -power for row in x])


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_fit_minimises_the_stated_loss(power: float) -> None:
    """At the minimum each item's vector solves its own least squares, given the users' exact vectors."""
    x = random_rows(30, 12, 7, most=2)
    keywords: dict[str, Any] = {"factors": 3, "alpha": 3.0, "regularization": 2.0, "iterations": 400}
    model = gs.IALS(**keywords, user_power=power, precision="float64", progress=False).fit(log_of(x))
    (items,) = model.item_factors
    rows = scaled(x, power)
    users = np.array([solve_vector(row, items, 3.0, 2.0) for row in rows])
    expected = [solve_vector(column, users, 3.0, 2.0) for column in rows.T]
    assert np.abs(items).max() > 0.1
    np.testing.assert_allclose(items, expected, atol=1e-5)


def test_scores_are_summed_over_seeds_and_rows_are_scaled() -> None:
    x, fed = random_rows(30, 12, 8, most=2), random_rows(5, 12, 9)
    model = gs.IALS(factors=3, n_seeds=3, user_power=0.5, regularization=1.0, progress=False).fit(log_of(x))
    assert model.item_factors.shape == (3, 12, 3)
    assert not np.allclose(model.item_factors[0], model.item_factors[1])
    expected = np.zeros(fed.shape)
    for items in model.item_factors.astype(np.float64):
        for u, row in enumerate(scaled(fed, 0.5)):
            expected[u] += items @ solve_vector(row, items, 4.0, 1.0)
    scores = model._scores(csr_matrix(fed, dtype=np.float32), None)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    cosine = np.zeros((12, 12))
    for items in model.item_factors.astype(np.float64):
        for i in range(12):
            for j in range(12):
                length = np.linalg.norm(items[i]) * np.linalg.norm(items[j])
                cosine[i, j] += items[i] @ items[j] / length / 3
    np.testing.assert_allclose(model._similarity(np.arange(12)), cosine, atol=1e-5)


def test_the_seed_decides_and_the_threads_do_not() -> None:
    log = log_of(random_rows(200, 40, 10))

    def factors(**more: Any) -> Any:
        return gs.IALS(factors=8, iterations=3, progress=False, **more).fit(log).item_factors

    once = factors(seed=1, threads=1)
    np.testing.assert_array_equal(once, factors(seed=1, threads=2))
    np.testing.assert_array_equal(once[0], factors(seed=1, n_seeds=2)[0])
    assert not np.allclose(once, factors(seed=2))


# ---- iALS beside its package


def test_fit_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package warns once a process where BLAS has threads of its own."""
    monkeypatch.setattr("implicit.utils._checked_blas_config", False)
    with warnings.catch_warnings(), threadpool_limits(2, "blas"):
        warnings.simplefilter("error")
        gs.IALS(factors=2, progress=False).fit(log_of(random_rows(9, 6, 0)))


def test_without_implicit_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(MissingExtraError, match=r"ials \(implicit\).*pip install greysheep\[baselines\]"):
        gs.IALS(progress=False).fit(log_of(random_rows(9, 6, 0)))


@pytest.mark.filterwarnings("ignore:overflow")
def test_factors_that_are_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greysheep.models.linear.ials.LARGEST_CONFIDENCE", np.inf)
    with pytest.raises(ConfigError, match="larger regularization"):
        gs.IALS(factors=2, progress=False).fit(log_of(random_rows(9, 6, 0) * 3e38))


def test_progress_is_a_line_an_iteration_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    gs.IALS(factors=2, iterations=2, n_seeds=2, progress=True).fit(log_of(random_rows(9, 6, 0)))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ·")[0] for line in lines] == [f"ials: iteration {n} of 4" for n in (1, 2, 3, 4)]
    gs.IALS(factors=2, progress=False).fit(log_of(random_rows(9, 6, 0)))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("at", "kept", "shape"), [(3, "3 of 4 iterations", 1), (6, "1 of 3 seeds", 1)])
def test_interrupted_it_keeps_what_is_done(
    at: int, kept: str, shape: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, step = log_of(random_rows(30, 12, 0)), Steps.step

    def interrupt(self: Steps) -> None:
        step(self)
        if self.finished == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Steps, "step", interrupt)
    keywords: dict[str, Any] = {"factors": 2, "n_seeds": 3, "progress": False}
    with pytest.warns(GreysheepWarning, match=f"interrupted: {kept} are kept"):
        model = gs.IALS(iterations=4, **keywords).fit(log)
    monkeypatch.undo()
    first = gs.IALS(iterations=min(at, 4), **keywords).fit(log).item_factors[:shape]
    np.testing.assert_array_equal(model.item_factors, first)
    assert model.recommend(k=2).height == 60


def test_interrupted_at_once_it_passes_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Steps) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Steps, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gs.IALS(factors=2, progress=False).fit(log_of(random_rows(9, 6, 0)))
