"""Rows into a fitted model and people out of it, without training."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import greysheep as gs
from contract import weighted_and_timed, world
from greysheep.cli import run
from greysheep.data.joining import joined, without_users
from greysheep.errors import ConfigError, DataError, GreysheepWarning, ModelFolderError
from greysheep.models.move import Upkeep

SMALL = {"latent": 4, "epochs": 2, "progress": False}
SOLVED: dict[str, dict[str, Any]] = {
    "popular": {},
    "itemknn": {},
    "userknn": {},
    "ease": {"regularization": 10.0},
    "ease-weighted": {},
}
KEPT: dict[str, dict[str, Any]] = {
    "ials": {"factors": 4, "progress": False},
    "multvae": SMALL,
    "moe": {"n_experts": 2, **SMALL},
    "tall": {"n_experts": 2, **SMALL},
    "loca": {"n_experts": 2, "local_epochs": 1, **SMALL},
    "ensemble": {
        "members": "ials[factors=4]+multvae[latent=4,epochs=2]",
        "weights": "0.4+0.6",
        "progress": False,
    },
}
RELATIVE: dict[str, dict[str, Any]] = {
    "lft": {"steps": 2, **SMALL},
    "enlft": {"n_experts": 2, "local_epochs": 1, **SMALL},
}
EVERY = SOLVED | KEPT | RELATIVE


def held_back(log: gs.Interactions, seed: int = 0) -> tuple[gs.Interactions, pl.DataFrame]:
    """A log without a tenth of its rows, all of some users' and all of some items' rows; and those."""
    frame, random = log.frame(), np.random.default_rng(seed)
    users = log.user_ids.gather(random.choice(log.n_users, 5, replace=False))
    items = log.item_ids.gather(random.choice(log.n_items, 3, replace=False))
    away = frame["user_id"].is_in(users.implode()) | frame["item_id"].is_in(items.implode())
    away |= pl.Series(random.random(frame.height) < 0.1)
    return gs.Interactions.read(frame.filter(~away)), frame.filter(away)


def ids(recs: pl.DataFrame) -> pl.DataFrame:
    return recs.select("user_id", "item_id", "rank")


def named(folder: Path) -> dict[str, str]:
    """Every file of a folder as text; tables as the text of their values, which parquet packs."""
    return {
        file.name: str(pl.read_parquet(file).rows())
        if file.suffix == ".parquet"
        else file.read_bytes().decode("latin-1")
        for file in folder.iterdir()
    }


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("protocol", ["all", "strict"])
def test_a_closed_form_is_solved_again(name: str, protocol: str):
    log = world()
    old, rest = held_back(log)
    model = gs.models.create(name, **SOLVED[name]).fit(gs.split(old, protocol))
    newer, fresh = gs.update(model, add=rest), gs.models.create(name, **SOLVED[name]).fit(log)
    assert newer.recommend(k=9).equals(fresh.recommend(k=9))
    assert newer.upkeep.kept == () and newer.upkeep.unlearned == 0
    assert newer.log.fingerprint() == log.fingerprint() and model.log.fingerprint() == old.fingerprint()


@pytest.mark.parametrize(
    ("name", "protocol"),
    [*zip(KEPT, ["all", "strict", "paper", "all", "temporal", "strict"], strict=True)],
)
def test_kept_weights_give_the_lists_of_a_history(name: str, protocol: str, tmp_path: Path):
    log = gs.Interactions.read(world().frame().with_columns(timestamp=pl.int_range(pl.len()) * 7 % 101))
    old, rest = held_back(log)
    model = gs.models.create(name, **KEPT[name]).fit(gs.split(old, protocol))
    newer = gs.update(model, add=rest)
    touched = rest["user_id"].unique().sort()
    history = log.frame().filter(pl.col("user_id").is_in(touched.implode()))
    with pytest.warns(GreysheepWarning, match="unknown to the model"):
        asked = model.recommend(touched, history=history, k=9)
    mine = newer.recommend(touched, k=9)
    assert ids(mine).equals(ids(asked))
    np.testing.assert_allclose(mine["score"], asked["score"], rtol=1e-4, atol=1e-5)
    others = [user for user in old.user_ids if user not in set(touched)]
    assert newer.recommend(others, k=9).equals(model.recommend(others, k=9))
    loaded = gs.load(newer.save(tmp_path / "newer"))
    assert loaded.recommend(k=9).equals(newer.recommend(k=9))
    assert gs.update(loaded, add=rest.head(1)).recommend(others[:3]).equals(model.recommend(others[:3]))
    assert newer.upkeep.unlearned == 3 and newer.upkeep.users_added == 5 and newer.upkeep.kept


def test_items_that_came_later_are_stored_and_never_recommended(tmp_path: Path):
    log = world()
    old, rest = held_back(log)
    newer = gs.update(gs.IALS(factors=4, progress=False).fit(old), add=rest)
    late = [item for item in log.item_ids if item not in set(old.item_ids)]
    assert not set(newer.recommend(k=48)["item_id"]) & set(late)
    assert newer.recommend(k=3, candidates=[*late, "0001"])["item_id"].unique().to_list() == ["0001"]
    with pytest.raises(DataError, match="1 of 2 items came after the training"):
        newer.similar_items(["0001", late[0]])
    assert late[0] not in newer.similar_items(["0001"], k=48)["similar_item_id"]
    pages = gs.Ensemble(members="ials[factors=4]+ease", weights="0.5+0.5").fit(old)
    mixed = gs.update(pages, add=rest)
    assert mixed.upkeep.unlearned == 0 and mixed.similar_items([late[0]], k=3).height == 3
    assert set(late) & set(mixed.recommend(k=20)["item_id"])
    assert gs.load(mixed.save(tmp_path / "m")).recommend(k=9).equals(mixed.recommend(k=9))


def test_a_compiled_index_of_an_updated_model(tmp_path: Path):
    old, rest = held_back(world())
    newer = gs.update(gs.TALL(n_experts=2, **SMALL).fit(old), add=rest)
    index = gs.compile_index(newer, rank=14)
    wanted, found = newer.recommend(k=5), index.recommend(k=5)
    np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-3, atol=1e-3)
    index.export(tmp_path / "index")
    assert (
        pl.read_parquet(tmp_path / "index" / "items.parquet")["item_id"].to_list() == old.item_ids.to_list()
    )


@pytest.mark.parametrize("name", EVERY)
def test_who_is_forgotten_is_in_no_file(name: str, tmp_path: Path):
    log = gs.Interactions.read(world().frame().with_columns(user_id="person-" + pl.col("user_id")))
    away = ["person-003", "person-010", "person-077"]
    model = gs.models.create(name, **EVERY[name]).fit(log)
    model.serving_mainstream, model.mainstream  # noqa: B018  # derived data that would be saved
    old = model.save(tmp_path / "old")
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    newer = gs.update(old, forget=away)
    found = named(newer.save(tmp_path / "new"))
    assert not [(file, user) for file, text in found.items() for user in away if user in text]
    assert sum("person-004" in text for text in found.values()) == 2
    assert before == {file.name: file.read_bytes() for file in old.iterdir()}
    loaded = gs.load(tmp_path / "new")
    assert loaded.log.n_users == 93 and not set(away) & set(loaded.recommend(k=1)["user_id"])
    kept = newer.upkeep.kept
    assert bool(kept) == (name not in SOLVED)
    assert ("only a new fit" in str(newer.upkeep)) == bool(kept)
    assert newer.upkeep.users_forgotten == 3 and newer.upkeep.rows_forgotten == 36
    if name in SOLVED:
        rest = log.frame().filter(~pl.col("user_id").is_in(away))
        fresh = gs.models.create(name, **EVERY[name]).fit(rest)
        assert loaded.recommend(k=7).equals(fresh.recommend(k=7))


def test_anchors_can_be_forgotten_but_not_all():
    model = gs.models.EnLFT(n_experts=3, local_epochs=1, **SMALL).fit(world())
    anchors = model.log.user_ids.gather(model.anchors)
    newer = gs.update(model, forget=anchors[:1])
    assert newer.n_experts == 2 and newer.user_state.shape == (95, 2)
    assert newer.log.user_ids.gather(newer.anchors).to_list() == anchors[1:].to_list()
    with pytest.raises(DataError, match="none of the 3 anchors"):
        gs.update(model, forget=anchors)


def test_rows_of_people_to_forget_are_not_added():
    model = gs.EASE(regularization=10.0).fit(world())
    new = pl.DataFrame({"user_id": ["003", "new", "both"], "item_id": ["0001", "0002", "only theirs"]})
    newer = gs.update(model, add=new, forget=["003", "both", "nobody"])
    assert newer.upkeep.rows_refused == 2 and newer.upkeep.not_known == 1 and newer.upkeep.rows_added == 1
    assert "only theirs" not in newer.log.item_ids and set(newer.log.user_ids) & {"003", "both", "new"} == {
        "new"
    }
    nothing = gs.update(model, add=new.filter(pl.col("user_id") == "003"), forget=["003"])
    assert nothing.log.n_users == 95 and nothing.upkeep.rows_added == 0


def test_a_model_without_rows_can_forget_and_nothing_else(tmp_path: Path):
    fitted = gs.TALL(n_experts=2, **SMALL).fit(world())
    bare = fitted.save(tmp_path / "bare", include_history=False)
    newer = gs.update(bare, forget=["003"])
    newer.save(tmp_path / "newer")
    assert "003" not in pl.read_parquet(tmp_path / "newer" / "users.parquet")["user_id"]
    history = world().frame().filter(pl.col("user_id") == "007")
    assert gs.load(tmp_path / "newer").recommend(history=history).equals(fitted.recommend(history=history))
    with pytest.raises(DataError, match="saved without its rows"):
        gs.update(bare, add=history)


def test_what_cannot_be_done_is_said(tmp_path: Path):
    model = gs.Popular().fit(weighted_and_timed())
    with pytest.raises(ConfigError, match="nothing to do"):
        gs.update(model)
    with pytest.raises(DataError, match="all 24 users would go"):
        gs.update(model, forget=model.log.user_ids)
    with pytest.raises(DataError, match=r"has no times.*add a column of times.*time_col \(--time-col\)"):
        gs.update(model, add=pl.DataFrame({"user_id": ["new"], "item_id": ["0001"]}))
    with pytest.raises(DataError, match="the log to add holds integers"):
        gs.update(model, add=pl.DataFrame({"user_id": [1], "item_id": ["0001"], "timestamp": [1]}))
    with pytest.raises(DataError, match="make them of one kind"):
        gs.update(model, add=pl.DataFrame({"user_id": ["new"], "item_id": ["0001"], "timestamp": [1]}))
    with pytest.raises(DataError, match="forget holds integers"):
        gs.update(model, forget=[3])
    with pytest.raises(ModelFolderError, match="no saved model"):
        gs.update(tmp_path, forget=["000"])


def test_integer_ids_stay_as_narrow_as_they_can():
    rows = pl.DataFrame({"user_id": [1, 2], "item_id": [3, 4]})
    log = gs.Interactions.read(rows.cast(pl.Int16))
    assert joined(log, gs.Interactions.read(rows + 1)).user_ids.dtype == pl.Int16
    wide = joined(log, gs.Interactions.read(rows.cast(pl.UInt64) + 2**63))
    assert wide.user_ids.dtype == pl.UInt64 and wide.user_ids.to_list() == [1, 2, 2**63 + 1, 2**63 + 2]
    odd = joined(wide, gs.Interactions.read(rows - 5))
    assert odd.user_ids.to_list() == [-4, -3, *wide.user_ids]


pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=12)


@given(pairs, pairs, st.sets(st.integers(0, 6)))
@settings(max_examples=25, deadline=None)
def test_joining_is_reading_both_and_leaving_out_is_not_reading(one: Any, two: Any, away: set[int]):
    schema = {"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64}
    frames = [pl.DataFrame(rows, schema, orient="row").with_columns(weight=0.5) for rows in (one, two)]
    logs = [gs.Interactions.read(frame) for frame in frames]
    both = gs.Interactions.read(pl.concat(frames))
    assert joined(*logs).fingerprint() == both.fingerprint()
    left = both.frame().filter(~pl.col("user_id").is_in(list(away)))
    if left.height:
        some = without_users(both, np.flatnonzero(both.user_ids.is_in(list(away)).to_numpy()))
        assert some.frame().equals(left) and some.item_ids.equals(both.item_ids)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    old, rest = held_back(world())
    old.frame().write_parquet("log.parquet")
    rest.write_csv("new.csv", quote_style="non_numeric")
    Path("leavers.txt").write_text("001\n005\n")
    fit = "fit log.parquet -o model --model ials --set factors=4"
    assert run(fit.split()) == 0
    assert run(["update", "model", "--add", "new.csv", "--forget", "leavers.txt", "-o", "newer"]) == 0
    said = capsys.readouterr().out
    assert "new users" in said and "forgot 2 users" in said and "3 items are unknown to the weights" in said
    frame = gs.load("newer").log.frame()
    assert set(frame["user_id"]) == set(world().user_ids) - {"001", "005"}
    for line, why in (
        ("update model -o other", "nothing to do"),
        ("update model --add new.csv -o model", "would replace the input"),
        ("update model --add new.csv -o newer", "already holds files"),
        ("update model --add missing.csv -o other", "does not exist"),
        ("update log.parquet --add new.csv -o other", "no saved model"),
    ):
        assert run(line.split()) == 2
        assert why in capsys.readouterr().err
    assert not Path("other").exists()
    assert run(["update", "model", "--forget", "leavers.txt", "-o", "newer", "--overwrite"]) == 0


def test_ids_of_a_text_file_become_those_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    rows = {"user_id": [1, 1, 2], "item_id": ["a1", "b", "b"]}
    gs.Popular().fit(pl.DataFrame(rows)).save("model")
    Path("new.csv").write_text("user_id,item_id\n70000,7\n")
    assert run(["update", "model", "--add", "new.csv", "-o", "newer"]) == 0
    assert gs.load("newer").log.item_ids.to_list() == ["7", "a1", "b"]
    Path("bad.csv").write_text("user_id,item_id\nnew1,b\n3,b\n")
    assert run(["update", "model", "--add", "bad.csv", "-o", "other"]) == 2


def test_nothing_done_is_said_plainly():
    assert Upkeep().lines() == ["added 0 rows: 0 new users, 0 known users with new rows, 0 new items"]
