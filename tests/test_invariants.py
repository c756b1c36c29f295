"""What must hold for every log: a few examples in the default run, 200 of each by `make matrix`.

By name: `pytest tests/test_invariants.py --hypothesis-profile whole` (the profile is in conftest.py).
"""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import greysheep as gs
from greysheep.data.splitting import PROTOCOLS, TEST, TRAIN
from greysheep.errors import GreysheepWarning
from greysheep.metrics.ranking import METRICS, hits, per_user
from greysheep.models import create
from greysheep.nn.sparse_rows import SparseRows

WHOLE = settings.get_current_profile_name() == "whole"
invariant = settings(
    max_examples=200 if WHOLE else 2,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not WHOLE,  # the default run is the same every time
)
pytestmark = pytest.mark.filterwarnings("ignore::greysheep.errors.GreysheepWarning")

CLOSED = ("popular", "itemknn", "userknn", "ease", "ease-weighted")
KEYWORDS: dict[str, dict[str, Any]] = {
    "ials": {"factors": 3, "iterations": 2},
    "multvae": {"latent": 2, "epochs": 2},
    "wl": {"latent": 2, "epochs": 2},
    "moe": {"latent": 2, "epochs": 2, "n_experts": 2},
    "lmoe": {"latent": 2, "epochs": 2, "n_experts": 2},
    "tall": {"latent": 2, "epochs": 2, "n_experts": 2, "start_epoch": 0},
    "lft": {"latent": 2, "epochs": 1, "steps": 2},
    "loca": {"latent": 2, "epochs": 1, "n_experts": 2, "local_epochs": 1},
    "ensemble": {"members": "itemknn+ease"},
}
closed = st.sampled_from(CLOSED)
weighted = st.sampled_from((*CLOSED, "ials"))
any_model = st.sampled_from((*CLOSED, *KEYWORDS))
mixture = st.sampled_from(("multvae", "moe", "lmoe", "tall"))


@st.composite
def frames(draw: st.DrawFn, weights: bool = False) -> pl.DataFrame:
    """Logs of 2 to 14 users and 3 to 11 items, of any density, every pair once."""
    n_users, n_items = draw(st.integers(2, 14)), draw(st.integers(3, 11))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cells = rng.random((n_users, n_items)) < draw(st.sampled_from((0.15, 0.4, 0.8)))
    cells[np.arange(n_users), rng.integers(0, n_items, n_users)] = True
    users, items = np.nonzero(cells)
    frame = pl.DataFrame({"user_id": [f"u{u:02d}" for u in users], "item_id": [f"i{i:02d}" for i in items]})
    return frame.with_columns(weight=rng.integers(1, 9, len(users)) / 2) if weights else frame


def fitted(name: str, data: pl.DataFrame | gs.Split, **more: Any) -> Any:
    given = data if isinstance(data, gs.Split) else gs.Interactions.read(data)
    return create(name, **{"progress": False, **KEYWORDS.get(name, {}), **more}).fit(given)


def scores_of(recs: pl.DataFrame) -> dict[tuple[Any, Any], float]:
    return {(user, item): score for user, item, score, _ in recs.rows()}


def assert_close(left: pl.DataFrame, right: pl.DataFrame, scale: float = 1.0) -> None:
    """The same items for everybody with the same scores but for rounding, whatever the order of near ties."""
    a, b = scores_of(left), scores_of(right)
    assert a.keys() == b.keys()
    size = max((abs(score) for score in b.values()), default=1.0)
    for pair, score in a.items():
        assert abs(score - scale * b[pair]) <= 1e-4 * scale * max(size, 1e-6), pair


EVERYTHING: dict[str, Any] = {"k": 99, "exclude_seen": False}


# How a log is written down


@invariant
@given(any_model, frames(), st.integers(0, 99))
def test_row_order_does_not_matter(name: str, frame: pl.DataFrame, seed: int) -> None:
    shuffled = frame.sample(fraction=1, shuffle=True, seed=seed)
    assert fitted(name, shuffled).recommend(k=5).equals(fitted(name, frame).recommend(k=5))


@invariant
@given(any_model, frames())
def test_names_do_not_matter(name: str, frame: pl.DataFrame) -> None:
    """Ids of another type and spelling, in the same order."""
    names = {
        "user_id": "Ü-" + pl.col("user_id"),
        "item_id": pl.col("item_id").str.slice(1).cast(pl.Int16) - 300,
    }
    renamed = fitted(name, frame.with_columns(**names)).recommend(k=5)
    assert renamed.equals(fitted(name, frame).recommend(k=5).with_columns(**names))


@invariant
@given(any_model, frames(), st.integers(2, 3))
def test_duplicate_rows_do_not_matter(name: str, frame: pl.DataFrame, times: int) -> None:
    again = pl.concat([frame] * times)
    assert fitted(name, again).recommend(k=5).equals(fitted(name, frame).recommend(k=5))


@invariant
@given(closed, frames(weights=True), st.integers(0, 99))
def test_permuted_items_have_permuted_scores(name: str, frame: pl.DataFrame, seed: int) -> None:
    items = frame["item_id"].unique().sort()
    other = items.sample(fraction=1, shuffle=True, seed=seed)
    moved = frame.with_columns(item_id=pl.col("item_id").replace_strict(items, other))
    expected = fitted(name, frame).recommend(**EVERYTHING)
    expected = expected.with_columns(item_id=pl.col("item_id").replace_strict(items, other))
    assert_close(fitted(name, moved).recommend(**EVERYTHING), expected)


@invariant
@given(st.sampled_from(("multvae", "tall")), frames(weights=True))
def test_binary_models_ignore_weights(name: str, frame: pl.DataFrame) -> None:
    bare = fitted(name, frame.drop("weight")).recommend(k=5)
    assert fitted(name, frame).recommend(k=5).equals(bare)


@invariant
@given(st.sampled_from(("popular", "itemknn", "ease")), frames(weights=True), st.sampled_from((0.25, 8, 1e6)))
def test_weights_times_a_number_are_scores_times_it(name: str, frame: pl.DataFrame, factor: float) -> None:
    """Of EASE where lambda grows by its square."""
    more = [{"regularization": 2.0 * f**2} if name == "ease" else {} for f in (1, factor)]
    once = fitted(name, frame, **more[0]).recommend(**EVERYTHING)
    times = fitted(name, frame.with_columns(pl.col("weight") * factor), **more[1]).recommend(**EVERYTHING)
    assert_close(times, once, factor)


@invariant
@given(st.sampled_from(("itemknn", "ease")), frames(weights=True))
def test_an_island_changes_nothing_elsewhere(name: str, frame: pl.DataFrame) -> None:
    island = frame.with_columns(user_id="x" + pl.col("user_id"), item_id="x" + pl.col("item_id"))
    mine = frame["user_id"].unique().sort()
    both = fitted(name, pl.concat([frame, island])).recommend(mine, **EVERYTHING)
    here = both.filter(~pl.col("item_id").str.starts_with("x"))
    assert_close(here, fitted(name, frame).recommend(mine, **EVERYTHING))
    assert (both.filter(pl.col("item_id").str.starts_with("x"))["score"] == 0).all()


# How lists are asked for


@invariant
@given(any_model, frames(), st.integers(1, 9))
def test_batch_size_does_not_matter(name: str, frame: pl.DataFrame, cells: int) -> None:
    model = fitted(name, frame)
    whole = model.recommend(**EVERYTHING)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("greysheep.models.recommender.SCORING_CELLS", cells * model.log.n_items)
        assert_close(model.recommend(**EVERYTHING), whole)


@invariant
@given(any_model, frames())
def test_threads_do_not_matter(name: str, frame: pl.DataFrame) -> None:
    one, two = (fitted(name, frame, threads=n).recommend(**EVERYTHING) for n in (1, 2))
    assert_close(two, one)


@invariant
@given(any_model, frames(), st.integers(0, 99))
def test_the_order_of_users_does_not_matter(name: str, frame: pl.DataFrame, seed: int) -> None:
    model = fitted(name, frame)
    users = model.log.user_ids.sample(fraction=1, shuffle=True, seed=seed)
    recs = model.recommend(users, **EVERYTHING)
    assert recs["user_id"].unique(maintain_order=True).to_list() == users.to_list()
    assert_close(recs, model.recommend(**EVERYTHING))


@invariant
@given(any_model, frames(), st.integers(1, 12))
def test_a_shorter_list_is_the_beginning_of_a_longer_one(name: str, frame: pl.DataFrame, k: int) -> None:
    model = fitted(name, frame)
    assert model.recommend(k=k).equals(model.recommend(k=99).filter(pl.col("rank") <= k))


def ranked_anew(recs: pl.DataFrame) -> pl.DataFrame:
    return recs.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user_id"))


@invariant
@given(any_model, frames(), st.data())
def test_excluded_items_never_come_and_move_no_other(
    name: str, frame: pl.DataFrame, data: st.DataObject
) -> None:
    model = fitted(name, frame)
    banned = data.draw(st.lists(st.sampled_from(model.log.item_ids.to_list()), min_size=1, unique=True))
    kept = model.recommend(k=99).filter(~pl.col("item_id").is_in(banned))
    assert model.recommend(k=99, exclude_items=banned).equals(ranked_anew(kept))


@invariant
@given(any_model, frames(), st.data())
def test_candidates_are_a_mask(name: str, frame: pl.DataFrame, data: st.DataObject) -> None:
    model = fitted(name, frame)
    trained = model.log.item_ids.filter(pl.Series(model.trained_items)).to_list()
    chosen = data.draw(st.lists(st.sampled_from(trained), min_size=1, unique=True))
    kept = model.recommend(k=99).filter(pl.col("item_id").is_in(chosen))
    assert model.recommend(k=99, candidates=chosen).equals(ranked_anew(kept))


@invariant
@given(any_model, frames())
def test_seen_items_never_come_and_move_no_other(name: str, frame: pl.DataFrame) -> None:
    model = fitted(name, frame)
    unseen = model.recommend(**EVERYTHING).join(
        frame, on=["user_id", "item_id"], how="anti", maintain_order="left"
    )
    assert model.recommend(k=99).equals(ranked_anew(unseen))


@invariant
@given(st.sampled_from((*CLOSED, "ials", "multvae")), frames())
def test_a_history_of_stored_rows_is_the_known_user(name: str, frame: pl.DataFrame) -> None:
    model = fitted(name, frame)
    stored = model.recommend(k=99)
    assert_close(model.recommend(history=frame, k=99), stored)
    renamed = model.recommend(history=frame.with_columns(user_id="new " + pl.col("user_id")), k=99)
    assert_close(renamed.with_columns(pl.col("user_id").str.strip_prefix("new ")), stored)


@invariant
@given(any_model, frames(weights=True))
def test_a_loaded_model_is_the_saved_one(name: str, frame: pl.DataFrame) -> None:
    model = fitted(name, frame)
    with tempfile.TemporaryDirectory() as folder:
        loaded = gs.load(model.save(folder + "/model"))
    assert loaded.recommend(**EVERYTHING).equals(model.recommend(**EVERYTHING))
    assert loaded.log.frame().equals(model.log.frame()) and loaded.config == model.config


# Experts, groups, parts, metrics


@invariant
@given(frames(), st.integers(1, 3))
def test_a_uniform_gate_is_the_mean_of_the_experts(frame: pl.DataFrame, n_experts: int) -> None:
    model = fitted("tall", frame, gate="uniform", weighting="none", n_experts=n_experts)
    rows = SparseRows.from_csr(model.rows, "cpu")
    with torch.no_grad():
        bank = model.net.bank
        each = torch.stack([
            z @ weight + bias
            for z, weight, bias in zip(bank.means(rows), bank.decoder_weight, bank.decoder_bias, strict=True)
        ])  # fmt: skip
    np.testing.assert_allclose(model._scores(model.rows, model.gates), each.mean(0).numpy(), atol=1e-5)


@invariant
@given(mixture, frames())
def test_gates_sum_to_one(name: str, frame: pl.DataFrame) -> None:
    gates = fitted(name, frame).gates
    np.testing.assert_allclose(gates.sum(1), 1, atol=1e-5)
    assert (gates >= 0).all()


@invariant
@given(closed, frames(), st.sampled_from(("strict", "paper")), st.integers(1, 12))
def test_group_means_recombine_to_the_mean(name: str, frame: pl.DataFrame, protocol: str, k: int) -> None:
    parts = gs.split(gs.Interactions.read(frame), protocol)
    if not (parts.part == TEST).any():
        return
    report = gs.evaluate(fitted(name, parts), k=k, draws=3)
    for table in (report.by_group, report.by_activity):
        sizes = table["n_users"].to_numpy()
        assert sizes.sum() == report.overall["n_users"]
        for metric in METRICS:
            means = table[f"{metric}@{k}"].fill_null(0).fill_nan(0).to_numpy()
            overall = report.overall[f"{metric}@{k}"]["mean"]
            assert np.isclose((means * sizes).sum() / sizes.sum(), overall, atol=1e-12)


@invariant
@given(frames(), st.sampled_from(sorted(PROTOCOLS)), st.integers(0, 2**40))
def test_parts_partition_the_rows(frame: pl.DataFrame, protocol: str, seed: int) -> None:
    log = gs.Interactions.read(frame.with_columns(timestamp=pl.int_range(pl.len()) % 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gs.GreysheepWarning)  # of users whom global-time leaves out
        parts = gs.split(log, protocol, seed=seed)
    assert parts.log is log or protocol == "global-time"
    log = parts.log
    assert sum(parts.rows(name).nnz for name in ("train", "gate", "validation", "test")) == len(log)
    assert (np.bincount(log.users[parts.part == TRAIN], minlength=log.n_users) > 0).all()
    given_then_found = [parts.input_rows("test"), parts.rows("test")]
    assert given_then_found[0].multiply(given_then_found[1]).nnz == 0
    if protocol == "strict":
        paper = gs.split(log, "paper", seed=seed).part
        assert ((paper == TEST) == (parts.part == TEST)).all() and (
            (paper == TRAIN) == (parts.part == TRAIN)
        ).all()


@invariant
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_metrics_lie_between_0_and_1(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    n_items = int(rng.integers(1, 12))
    truth = csr_matrix((rng.random((6, n_items)) < rng.random()).astype(np.float32))
    ranked = np.argsort(rng.random((6, n_items)), axis=1)
    n_relevant = np.diff(truth.indptr)
    values = per_user(hits(ranked, truth), n_relevant, (k, k + 1))
    perfect = np.argsort(-truth.toarray(), axis=1, kind="stable")
    best = per_user(hits(perfect, truth), n_relevant, (k, k + 1))
    for metric in METRICS:
        own, top = values[f"{metric}@{k}"], best[f"{metric}@{k}"]
        assert (np.isnan(own) == (n_relevant == 0)).all()
        assert ((own >= 0) & (own <= 1) & (own <= top + 1e-12))[n_relevant > 0].all()
        if metric != "precision" and metric != "ndcg":  # a longer list finds no fewer
            assert (values[f"{metric}@{k + 1}"] >= own)[n_relevant > 0].all()
    assert (best[f"ndcg@{k}"][n_relevant > 0] == 1).all()


@invariant
@given(frames(), st.integers(0, 99))
def test_mainstream_scores_know_neither_names_nor_order(frame: pl.DataFrame, seed: int) -> None:
    rows = gs.Interactions.read(frame).matrix()
    rng = np.random.default_rng(seed)
    users, items = rng.permutation(rows.shape[0]), rng.permutation(rows.shape[1])
    np.testing.assert_allclose(
        gs.mainstream_scores(rows[users][:, items]), gs.mainstream_scores(rows)[users], atol=1e-12
    )


@invariant
@given(weighted, frames(weights=True))
def test_scores_are_finite_and_equal_ones_go_by_popularity(name: str, frame: pl.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", GreysheepWarning)
        model = fitted(name, frame)
        recs = model.recommend(**EVERYTHING)
    counts = dict(zip(model.log.item_ids, model.item_counts, strict=True))
    keys = [(user, -score, -counts[item], item) for user, item, score, _ in recs.rows()]
    assert recs["score"].is_finite().all() and keys == sorted(keys)
