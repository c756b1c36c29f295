"""EASE, weighted EASE and popularity are held to plain formulas, and EASE to RecTools and LensKit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

import greysheep as gs
import oracle
from greysheep.data.splitting import PARTS
from greysheep.errors import ConfigError, DataError, GreysheepWarning
from greysheep.models.base import Model
from greysheep.models.linear import ease_forms, gram
from greysheep.models.linear.ease_forms import ItemForm, UserForm, smaller_form, solve

GOLDEN = Path(__file__).with_name("golden") / "ease.json"


def item_weights(rows: csr_matrix, regularization: float) -> NDArray[np.float32]:
    found = solve(rows, regularization, "items")
    assert isinstance(found, ItemForm)
    return found.weights


def random_rows(n_users: int, n_items: int, seed: int) -> NDArray[np.float64]:
    """0/1 rows in which every user and every item occurs."""
    x = (np.random.default_rng(seed).random((n_users, n_items)) < 0.3).astype(float)
    x[np.arange(n_users), np.arange(n_users) % n_items] = 1.0
    x[np.arange(n_items) % n_users, np.arange(n_items)] = 1.0
    return x


def fitted_scores(model: Model, x: NDArray[np.float64], fed: NDArray[np.float64]) -> NDArray[Any]:
    """Scores of a model fitted on a log whose stored values are x, for users whose rows are `fed`."""
    users, items = np.nonzero(x)
    frame = pl.DataFrame({"user_id": users, "item_id": items})
    if not np.isin(x, [0.0, 1.0]).all():
        frame = frame.with_columns(weight=pl.Series(x[users, items]))
    model.fit(gs.Interactions.read(frame))
    return model._scores(csr_matrix(fed, dtype=np.float32), None)


def test_ease_agrees_with_rectools_and_lenskit() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    x = np.zeros((golden["n_users"], golden["n_items"]))
    for user, item in golden["rows"]:
        x[user, item] = 1.0
    weights = item_weights(csr_matrix(x), golden["regularisation"])
    np.testing.assert_allclose(weights, golden["weights_rectools"], atol=1e-6)
    np.testing.assert_allclose(weights, golden["weights_lenskit"], atol=1e-6)
    scores = fitted_scores(gs.EASE(regularization=golden["regularisation"]), x, x)
    np.testing.assert_allclose(scores, golden["scores_lenskit"], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.floats(0.1, 100), st.integers(0, 2**31))
def test_item_weights_agree(n_users: int, n_items: int, regularization: float, seed: int) -> None:
    x = random_rows(n_users, n_items, seed)
    expected = oracle.ease_weights(x, regularization)
    np.testing.assert_allclose(item_weights(csr_matrix(x), regularization), expected, atol=1e-6)
    np.testing.assert_allclose(oracle.relaxed_ease_weights(x, regularization, 0.0), expected, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.floats(0.1, 100), st.floats(0, 0.99), st.integers(0, 2**31))
def test_an_item_weighs_no_more_than_relax_on_itself(
    n_users: int, n_items: int, regularization: float, relax: float, seed: int
) -> None:
    x = random_rows(n_users, n_items, seed)
    found = solve(csr_matrix(x), regularization, "items", relax)
    assert isinstance(found, ItemForm) and found.weights.diagonal().max() <= relax + 1e-6
    expected = oracle.relaxed_ease_weights(x, regularization, relax)
    np.testing.assert_allclose(found.weights, expected, atol=1e-6)


def test_item_weights_agree_where_blocks_meet() -> None:
    # The Gram matrix is made and mirrored in blocks.
    x = random_rows(40, 1030, 1)
    np.testing.assert_allclose(item_weights(csr_matrix(x), 2.0), oracle.ease_weights(x, 2.0), atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_scores_agree(seed: int, weighted: bool) -> None:
    x, fed = random_rows(25, 9, seed), random_rows(4, 9, seed + 100)
    if weighted:
        x = x * np.random.default_rng(seed).integers(1, 6, x.shape)
    ease = fitted_scores(gs.EASE(regularization=3.0), x, fed)
    np.testing.assert_allclose(ease, fed @ oracle.ease_weights(x, 3.0), atol=1e-5)
    for relax in (0.0, 0.3, 0.9):
        model = gs.WeightedEASE(regularization=0.7, user_power=0.6, item_power=0.4, relax=relax)
        expected = oracle.weighted_ease_scores(x, 0.7, 0.6, 0.4, relax, rows=fed)
        np.testing.assert_allclose(fitted_scores(model, x, fed), expected, atol=1e-5)
    popular = fitted_scores(gs.Popular(), x, fed)
    np.testing.assert_allclose(popular, oracle.popularity_scores(x, n_users=len(fed)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.02, 0.6), st.integers(1, 200), st.booleans())
def test_gram_is_the_product_whatever_the_blocks(seed: int, share: float, cells: int, single: bool) -> None:
    random = np.random.default_rng(seed)
    x = (random.random((23, 17)) < share) * random.integers(1, 6, (23, 17)).astype(float)
    x[0] = 1.0  # one long row, so that dense and sparse rows meet
    dtype = np.float32 if single else np.float64
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram, "CELLS", cells)
        patch.setattr(gram, "DENSE_GAIN", 2)
        found = gram.gram(csr_matrix(x, dtype=dtype))
        inverse = gram.inverse(csr_matrix(x), 2.0, dtype)
        exact = gram.precise_product(x, found)
    assert found.dtype == dtype and found.flags.f_contiguous
    np.testing.assert_array_equal(np.tril(found), np.tril(x.T @ x))
    assert inverse is not None
    np.testing.assert_array_equal(inverse, inverse.T)
    np.testing.assert_allclose(
        inverse, np.linalg.inv(x.T @ x + 2 * np.eye(17)), atol=1e-5 if single else 1e-12
    )
    np.testing.assert_allclose(exact, x @ found.astype(float))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 40),
    st.floats(0.1, 100),
    st.integers(0, 2**31),
    st.booleans(),
    st.sampled_from([0.0, 0.2, 0.7]),
)
def test_the_form_over_users_gives_the_same_scores(
    n_users: int, n_items: int, regularization: float, seed: int, weighted: bool, relax: float
) -> None:
    x, fed = random_rows(n_users, n_items, seed), random_rows(5, n_items, seed + 1)
    fed[4] = 0
    if weighted:
        x = x * np.random.default_rng(seed).integers(1, 6, x.shape)
    found = solve(csr_matrix(x), regularization, "users", relax)
    assert isinstance(found, UserForm)
    expected = fed @ oracle.relaxed_ease_weights(x, regularization, relax)
    # scores are divided by 1 - q, which falls as lambda does, and rounding errors with it grow
    near = {"atol": 1e-9 * max(1.0, 10 / regularization)}
    for rows in (csr_matrix(fed), csr_matrix(fed, dtype=np.float32)):
        np.testing.assert_allclose(found.scores(rows), expected, **near)
    np.testing.assert_allclose(found.precise_scores(fed), expected, **near)


@pytest.mark.parametrize("form", ["items", "users"])
@pytest.mark.parametrize("regularization", [30.0, 300.0])
def test_float32_is_used_where_it_is_exact_enough(
    form: ease_forms.Form, regularization: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = gs.simulate(n_users=250, n_items=300, rows_per_user=30, seed=2).log
    rows = log.matrix()
    expected = oracle.ease_scores(rows.toarray(), regularization)
    monkeypatch.setattr(ease_forms, "PRECISE", 0)
    made: list[Any] = []
    kind = ItemForm if form == "items" else UserForm
    fit = kind.fit

    def watched(*arguments: Any) -> Any:
        made.append(arguments[-1])
        return fit(*arguments)

    monkeypatch.setattr(kind, "fit", watched)
    scores = solve(rows, regularization, form).scores(rows)
    assert made == [np.float32]
    np.testing.assert_allclose(scores, expected, atol=1e-4 * np.abs(expected).max(axis=1).min())
    # what float32 would lose is done in float64, or refused
    scores = solve(rows, 1e-4, form).scores(rows)
    assert made[1:] == [np.float32, np.float64]
    np.testing.assert_allclose(scores, oracle.ease_scores(rows.toarray(), 1e-4), atol=1e-4)
    with pytest.raises(ConfigError, match="singular with regularization=1e-30"):
        solve(rows, 1e-30, form)


@pytest.mark.parametrize("form", ["items", "users"])
def test_the_estimate_of_the_error_is_the_error(form: ease_forms.Form) -> None:
    """An inverse that is off by a known amount: its scores, and its diagonal alone."""
    rows = gs.simulate(n_users=90, n_items=120, rows_per_user=20, seed=2).log.matrix()
    kind = ItemForm if form == "items" else UserForm
    found = kind.fit(rows, 5.0, 0.0, np.float64)
    assert found is not None
    solution, h = found
    assert ease_forms.score_error(solution, h, rows, 5.0) < 1e-6
    exact = oracle.ease_scores(rows.toarray(), 5.0)
    matrix = solution.weights if isinstance(solution, ItemForm) else solution.inverse
    matrix += 1e-4 * np.random.default_rng(0).standard_normal(matrix.shape)
    error = np.abs(solution.scores(rows) - exact).max(axis=1) / np.abs(exact).max(axis=1)
    assert error.max() > 1e-4
    # never far below; above it where the rows of single items suffer most
    assert 0.3 * error.max() < ease_forms.score_error(solution, h, rows, 5.0) < 6 * error.max()
    solution, h = kind.fit(rows, 5.0, 0.0, np.float64) or (solution, h)
    popular = np.argmax(rows.sum(0))
    h = h.copy()  # the form over users reads it, too
    h[popular] *= 1.01
    assert 0.003 < ease_forms.score_error(solution, h, rows, 5.0) < 0.03


def test_a_matrix_that_is_no_number_is_refused() -> None:
    rows = csr_matrix(np.full((3, 4), 1e38, dtype=np.float32))
    for form in ("items", "users"):
        with pytest.raises(ConfigError, match="singular"):
            solve(rows, 1000.0, form)


def test_which_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert smaller_form(10, 4096) == smaller_form(9000, 9000) == smaller_form(5000, 9000) == "items"
    assert smaller_form(17_052, 35_118) == smaller_form(10, 4097) == "users"
    monkeypatch.setattr(ease_forms, "available_bytes", lambda: 5e8)
    assert smaller_form(7000, 9000) == "items" and smaller_form(7000, 11_000) == "users"
    with pytest.raises(ConfigError, match=r"EASE of 20000 items needs about .* are free"):
        solve(csr_matrix((30_000, 20_000), dtype=np.float32), 1.0)


@pytest.mark.parametrize("kind", [gs.EASE, gs.WeightedEASE])
def test_a_model_over_users_is_the_model_over_items(kind: Any, tmp_path: Path) -> None:
    log = gs.simulate(n_users=40, n_items=60, seed=1).log
    items, users = (kind(form=form).fit(log) for form in ("items", "users"))
    assert isinstance(users.solution, UserForm) and isinstance(items.solution, ItemForm)
    rows = users.log.matrix()
    expected = items._scores(rows, None)
    np.testing.assert_allclose(users._scores(rows, None), expected, atol=1e-6)
    np.testing.assert_allclose(
        users._similarity(np.array([3, 1])), items._similarity(np.array([3, 1])), atol=1e-6
    )
    loaded = gs.load(users.save(tmp_path / "users"))
    assert isinstance(loaded.solution, UserForm)
    np.testing.assert_array_equal(loaded._scores(rows, None), users._scores(rows, None))
    assert loaded.recommend(k=4)["item_id"].equals(items.recommend(k=4)["item_id"])
    for model in (users, loaded):
        with pytest.raises(DataError, match=r"cannot be saved without its rows: it reads .*form=items"):
            model.save(tmp_path / "no rows", include_history=False)
    items.save(tmp_path / "no rows", include_history=False)
    again = kind(form="users").fit(log)
    again.config = again.config.model_copy(update={"form": "items"})
    again.fit(log).save(tmp_path / "no rows", include_history=False)


@pytest.mark.parametrize(("protocol", "learned"), [("paper", "train"), ("strict", "train gate")])
def test_the_rows_a_model_learns_from_have_their_weights(protocol: str, learned: str) -> None:
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((12, 9)) < 0.7)
    frame = pl.DataFrame({"user_id": users, "item_id": items, "weight": rng.integers(1, 9, len(users)) / 2})
    parts = gs.split(gs.Interactions.read(frame), protocol)
    kept = np.isin(parts.part, [PARTS.index(name) for name in learned.split()])
    expected, log = np.zeros((12, 9)), parts.log
    expected[log.users[kept], log.items[kept]] = log.weights[kept]
    np.testing.assert_array_equal(gs.EASE().fit(parts).fit_rows.toarray(), expected)
    with pytest.warns(GreysheepWarning, match="binary"):
        binary = gs.MultVAE(latent=2, epochs=1, progress=False).fit(parts)
    np.testing.assert_array_equal(binary.fit_rows.toarray(), expected > 0)
