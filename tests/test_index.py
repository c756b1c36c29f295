"""The compiled index against the model it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import greysheep as gs
from contract import world
from greysheep.cli import run
from greysheep.data.splitting import TEST
from greysheep.errors import ConfigError, DataError, NotFittedError
from greysheep.mainstream.groups import GROUPS
from greysheep.models.autoencoders.index import compile_index, decoders, features, no_worse, right_vectors
from greysheep.models.base import Model
from greysheep.models.recommender import Recommender

KEYWORDS: dict[str, Any] = {
    "latent": 12,
    "epochs": 30,
    "batch_size": 16,
    "learning_rate": 1e-2,
    "progress": False,
}


@pytest.fixture(scope="module")
def model() -> Any:
    split = gs.split(world(96), protocol="strict")
    return gs.TALL(n_experts=3, start_epoch=2, seed=0, **KEYWORDS).fit(split)


def all_scores(model: Any) -> np.ndarray:
    return model._scores(model.rows, model.gates)


def test_features_times_decoders_are_the_mixtures_scores(model: Any) -> None:
    product = features(model, model.rows, model.gates).numpy() @ decoders(model)
    np.testing.assert_allclose(product, all_scores(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_singular_vectors_are_those_of_the_whole_matrix(model: Any, rank: int) -> None:
    found = right_vectors(model, rank, seed=0)
    np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-4)
    scores = model._scores(model.split.input_rows("test"), model.gates).astype(np.float64)
    u, s, vt = np.linalg.svd(scores, full_matrices=False)
    best = np.linalg.norm(scores - (u[:, :rank] * s[:rank]) @ vt[:rank])
    ours = np.linalg.norm(scores - scores @ found @ found.T)
    assert ours <= best * 1.01 + 1e-3 * s[0]


def test_a_full_lengthindex_ranks_as_the_model_does(model: Any) -> None:
    index = compile_index(model, rank=48)
    assert index.length <= 3 * 13
    np.testing.assert_allclose(
        index._scores(model.rows, index.user_vectors), all_scores(model), rtol=1e-3, atol=1e-3
    )
    ours, theirs = index.recommend(k=5), model.recommend(k=5)
    agree = (ours["item_id"] == theirs["item_id"]).mean()
    assert ours.columns == theirs.columns and ours.height == theirs.height and agree > 0.99
    reports = [gs.evaluate(one, model.split) for one in (index, model)]
    assert reports[0].overall["ndcg@20"]["mean"] == pytest.approx(
        reports[1].overall["ndcg@20"]["mean"], abs=1e-3
    )


def test_unseen_people_are_served_from_their_history(model: Any) -> None:
    index = compile_index(model, rank=48)
    history = pl.DataFrame({"user_id": ["new"] * 6, "item_id": [f"0{i:03d}" for i in (0, 4, 8, 12, 16, 20)]})
    ours, theirs = (one.recommend(history=history, k=10) for one in (index, model))
    assert ours["item_id"].to_list()[:5] == theirs["item_id"].to_list()[:5]
    assert all(int(item) % 2 == 0 for item in ours["item_id"].to_list()[:5])  # the taste of even items


def test_an_index_is_a_recommender_of_its_own(model: Any) -> None:
    index = gs.compile_index(model, rank=20)
    assert isinstance(index, Recommender) and not isinstance(index, Model)
    similar = index.similar_items(["0002"], k=3)
    code = model.log.encode_items(["0002"])[0]
    vectors = index.item_vectors.astype(np.float64)
    cosine = vectors @ vectors[code] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[code])
    cosine[code] = -np.inf
    assert similar["similar_item_id"].to_list() == model.log.item_ids[np.argsort(-cosine)[:3]].to_list()
    np.testing.assert_allclose(similar["score"], np.sort(cosine)[::-1][:3], rtol=1e-5)
    assert index.label == "tall (compiled)" and index.fitted is model.fitted


def test_the_lengthis_the_smallest_that_loses_little_on_validation(model: Any) -> None:
    losses = {}
    for rank in (16, 32, 39):
        index = compile_index(model, rank=rank)
        full, compiled = (ndcg_by_group(one, model.split) for one in (model, index))
        assert index.quality["group"].to_list() == list(full) == ["overall", *GROUPS]
        np.testing.assert_allclose(index.quality["full"], list(full.values()))
        np.testing.assert_allclose(index.quality["compiled"], list(compiled.values()))
        np.testing.assert_allclose(index.quality["loss"], [1 - compiled[name] / full[name] for name in full])
        losses[rank] = max(1 - compiled[name] / full[name] for name in full)
    assert losses[16] > 0.001  # else the choice below would say nothing
    for tolerance in (0.0, losses[16] * 0.99, losses[16] * 1.01, 1.0):
        enough = (rank for rank, loss in losses.items() if loss <= tolerance)
        assert compile_index(model, tolerance=tolerance).length == next(enough, 39)


def ndcg_by_group(ranker: Any, split: gs.Split) -> dict[str, float]:
    """NDCG@20 on validation rows, overall and by group, user by user."""
    truth = split.rows("validation")
    lists = ranker.rank(np.arange(split.log.n_users), k=20, stage="validation")
    values = {}
    for user, codes in enumerate(lists):
        if wanted := set(truth[user].indices):
            gain = sum(1 / np.log2(place + 2) for place, code in enumerate(codes) if code in wanted)
            values[user] = gain / sum(1 / np.log2(place + 2) for place in range(len(wanted)))
    groups = [[u for u in values if split.mainstream.groups[u] == code] for code in range(5)]
    members = dict(zip(("overall", *GROUPS), (values, *groups), strict=True))
    return {name: float(np.mean([values[u] for u in users])) for name, users in members.items()}


def test_test_rows_choose_nothing(model: Any) -> None:
    """Test rows moved to other items change neither the length, nor the vectors of items, nor the quality."""
    log, part = model.log, model.split.part
    items = log.items.copy()
    for user in range(log.n_users):
        mine = log.users == user
        own = np.flatnonzero(mine & (part == TEST))
        items[own] = np.setdiff1d(np.arange(log.n_items), log.items[mine])[-len(own) :]
    order = np.lexsort((items, log.users))
    moved = gs.Interactions(log.user_ids, log.item_ids, log.users, items[order])
    other = gs.TALL(n_experts=3, start_epoch=2, seed=0, **KEYWORDS).fit(
        gs.Split(moved, part[order], "strict", 0)
    )
    for tolerance in (0.0, 0.02, 1.0):
        ours, theirs = (compile_index(one, tolerance=tolerance) for one in (model, other))
        assert ours.quality.equals(theirs.quality)
        np.testing.assert_array_equal(ours.item_vectors, theirs.item_vectors)
    assert not np.array_equal(ours.user_vectors, theirs.user_vectors)  # these are of every row


@pytest.mark.parametrize(
    ("full", "compiled", "fine"),
    [({"low": 1.0}, {"low": 0.996}, True), ({"low": 1.0}, {"low": 0.99}, False), ({}, {}, False),
     ({"low": 1.0, "high": 1.0}, {"low": 2.0, "high": 0.9}, False), ({"low": 0.0}, {"low": 0.0}, True),
     ({"low": 0.1}, {"low": 0.0996}, True), ({"low": 0.1}, {"low": 0.099}, False)],  # relative to the model
)  # fmt: skip
def test_no_group_may_lose(full: dict[str, float], compiled: dict[str, float], fine: bool) -> None:
    assert no_worse(full, compiled, 0.005) is fine


def test_export_is_an_inner_product_away_from_the_scores(model: Any, tmp_path: Path) -> None:
    index = compile_index(model, rank=20)
    folder = index.export(tmp_path / "index")
    users, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("users", "items"))
    assert users["user_id"].to_list() == model.log.user_ids.to_list()
    assert items["item_id"].to_list() == model.log.item_ids.to_list()
    product = users["vector"].to_numpy() @ items["vector"].to_numpy().T
    np.testing.assert_allclose(product, index._scores(model.rows, index.user_vectors), rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match="cannot be written"):
        index.export(folder / "users.parquet")
    assert index.export(folder) == folder  # an earlier index is replaced
    saved = model.save(tmp_path / "model")
    before = (saved / "users.parquet").read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "users.parquet").write_text("mine")
    for taken in (saved, tmp_path / "other"):
        with pytest.raises(DataError, match="holds files that are no index"):
            index.export(taken)
    assert (saved / "users.parquet").read_bytes() == before


def test_one_expert_can_be_compiled_and_others_are_refused(tmp_path: Path) -> None:
    log = world(48)
    one = gs.MultVAE(**KEYWORDS).fit(log)
    assert compile_index(one).length <= 13
    with pytest.raises(ConfigError, match="only mixtures"):
        compile_index(gs.EASE().fit(log))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rank=0"):
        compile_index(one, rank=0)
    with pytest.raises(NotFittedError):
        compile_index(gs.MultVAE())
    bare = gs.load(one.save(tmp_path / "m", include_history=False))
    with pytest.raises(DataError, match="saved without its rows"):
        compile_index(bare)  # type: ignore[arg-type]


def test_compiling_twice_gives_the_same(model: Any) -> None:
    a, b = compile_index(model, rank=8), compile_index(model, rank=8)
    assert torch.equal(torch.from_numpy(a.user_vectors), torch.from_numpy(b.user_vectors))


def test_the_command_writes_vectors_and_says_what_each_group_loses(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "model")
    assert run(["compile", str(tmp_path / "model"), "-o", str(tmp_path / "index"), "--rank", "20"]) == 0
    told = capsys.readouterr().out
    assert "med-low" in told and "96 users' and 48 items' vectors of length 20" in told
    assert pl.read_parquet(tmp_path / "index" / "items.parquet").height == 48
    lengths = []
    for tolerance in ("0", "1"):
        given = [
            "compile",
            str(tmp_path / "model"),
            "-o",
            str(tmp_path / tolerance),
            "--tolerance",
            tolerance,
        ]
        assert run(given) == 0
        lengths.append(pl.read_parquet(tmp_path / tolerance / "items.parquet")["vector"].to_numpy().shape[1])
    assert lengths == [compile_index(model, tolerance=0.0).length, 16] and lengths[0] > 16
    gs.EASE().fit(model.split).save(tmp_path / "ease")
    assert run(["compile", str(tmp_path / "ease"), "-o", str(tmp_path / "other")]) == 2
    assert "only mixtures" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
