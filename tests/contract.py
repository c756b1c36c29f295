"""What every model must do. A model's test class inherits `ModelContract` and names the model."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest

import greysheep as gs
from greysheep.data.splitting import TEST, Split
from greysheep.errors import (
    ConfigError,
    DataError,
    GreysheepWarning,
    ModelFolderError,
    NotFittedError,
    UnknownUserError,
)


def world(n_users: int = 96, n_items: int = 48, seed: int = 0) -> gs.Interactions:
    """Two tastes that share no item: even users take even items, odd users odd ones, 12 rows each.

    Ids are text with leading zeros, so that nothing can take them for codes.
    """
    random = np.random.default_rng(seed)
    pairs = [
        (f"{u:03d}", f"0{i:03d}")
        for u in range(n_users)
        for i in random.choice(np.arange(u % 2, n_items, 2), 12, replace=False)
    ]
    return gs.Interactions.read(pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row"))


def weighted_and_timed() -> gs.Interactions:
    """A small world whose rows weigh 0.5 to 4 and are some hours apart."""
    frame, random = world(24).frame(), np.random.default_rng(3)
    hours = pl.Series(random.permutation(frame.height), dtype=pl.Int64)
    return gs.Interactions.read(
        frame.with_columns(
            weight=pl.Series(random.integers(1, 9, frame.height) / 2),
            timestamp=pl.lit(datetime(2020, 1, 1)) + pl.duration(hours=hours),
        )
    )


def measured(model: Any) -> list[dict[str, Any]]:
    """The history without its seconds."""
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in model.history]


def state_of(model: Any) -> dict[str, np.ndarray]:
    return {key: np.asarray(value).copy() for key, value in model._state().items()}


def assert_same_state(a: Any, b: Any) -> None:
    left, right = state_of(a), state_of(b)
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype, key
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)


def text_of(name: str, own: dict[str, Any]) -> str:
    """A model as a text that `parse` reads."""
    return f"{name}[{','.join(f'{key}={value}' for key, value in own.items())}]"


class ModelContract:
    """Inherit, name `kind`, and give the keywords of a quick fit."""

    kind: ClassVar[Any]
    keywords: ClassVar[dict[str, Any]] = {}
    personal: ClassVar[bool] = True
    """False where everybody gets the same list."""

    @classmethod
    def make(cls, **more: Any) -> Any:
        return cls.kind(**{"seed": 0, "progress": False, **cls.keywords, **more})

    @pytest.fixture(scope="class")
    @classmethod
    def log(cls) -> gs.Interactions:
        return world()

    @pytest.fixture(scope="class")
    @classmethod
    def split(cls, log: gs.Interactions) -> Split:
        return gs.split(log, protocol="strict", seed=0)

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, log: gs.Interactions) -> Any:
        return cls.make().fit(log)

    @pytest.fixture(scope="class")
    @classmethod
    def fitted_on_split(cls, split: Split) -> Any:
        return cls.make().fit(split)

    def test_config_survives_a_round_trip(self) -> None:
        config = self.make().config
        assert self.kind.Config(**config.model_dump()) == config
        assert self.kind.Config.model_validate_json(config.model_dump_json()) == config
        assert all(field.description for field in self.kind.Config.model_fields.values())

    def test_unknown_keyword_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"no setting 'sed'; the nearest one is 'seed'"):
            self.kind(sed=3)

    def test_is_registered(self) -> None:
        from greysheep.models import REGISTRY

        assert REGISTRY[self.kind.name] is self.kind

    def test_contributions_are_of_her_rows(self, fitted: Any, log: gs.Interactions) -> None:
        told = fitted.contributions("001", ["0000", "0001"])
        mine = log.frame().filter(pl.col("user_id") == "001")["item_id"].sort()
        for item in ("0000", "0001"):
            of_item = told.rows.filter(pl.col("item_id") == item)
            assert of_item["history_item_id"].sort().equals(mine, check_names=False)
            assert of_item["contribution"].is_finite().all()
        assert told.exact is fitted.linear
        assert told.voices.is_empty() or told.voices["weight"].sum() == pytest.approx(1, abs=1e-3)

    def test_lists_are_frames_of_ids(self, fitted: Any, log: gs.Interactions) -> None:
        recs = fitted.recommend(["001", "000"], k=5)
        assert recs.columns == ["user_id", "item_id", "score", "rank"]
        assert recs["user_id"].to_list() == ["001"] * 5 + ["000"] * 5
        assert recs["rank"].to_list() == [1, 2, 3, 4, 5] * 2
        assert recs["item_id"].is_in(log.item_ids.implode()).all()
        for _, one in recs.group_by("user_id"):
            assert one["score"].is_sorted(descending=True)
            assert one["item_id"].n_unique() == 5

    def test_everybody_by_default_and_seen_items_stay_out(self, fitted: Any, log: gs.Interactions) -> None:
        recs = fitted.recommend(k=4)
        assert recs["user_id"].unique(maintain_order=True).to_list() == log.user_ids.to_list()
        assert recs.join(log.frame(), on=["user_id", "item_id"]).height == 0
        again = fitted.recommend(k=48, exclude_seen=False)
        assert again.join(log.frame(), on=["user_id", "item_id"]).height == len(log)

    def test_short_lists_where_few_items_are_left(self, fitted: Any) -> None:
        assert fitted.recommend(["000"], k=500).height == 48 - 12

    def test_candidates_and_excluded_items(self, fitted: Any) -> None:
        some = ["0001", "0002", "0003", "0004", "0005", "0006"]
        recs = fitted.recommend(k=6, candidates=some, exclude_items=["0003"], exclude_seen=False)
        for _, one in recs.group_by("user_id"):
            assert set(one["item_id"]) == set(some) - {"0003"}
        with pytest.warns(GreysheepWarning, match="1 of 2 candidates"):
            assert set(fitted.recommend(candidates=["0001", "nope"])["item_id"]) <= {"0001"}
        with pytest.raises(DataError, match="none of the candidates"), pytest.warns(GreysheepWarning):
            fitted.recommend(candidates=["no", "such"])
        with pytest.warns(GreysheepWarning, match="1 of 2 exclude_items are unknown"):
            recs = fitted.recommend(k=6, candidates=some, exclude_items=["0003", "last night"])
        assert not (recs["item_id"] == "0003").any()
        for named in ("candidates", "exclude_items"):
            with pytest.raises(DataError, match=f"{named} holds integers like 1, but the item ids are text"):
                fitted.recommend(**{named: [1, 2]})

    def test_candidates_of_each_user(self, fitted: Any) -> None:
        own = {"000": ["0001", "0002"], "001": ["0003"], "nobody": ["0001"]}
        lists = {"000": {"0001", "0002"}, "001": {"0003"}}
        pairs = [(user, item) for user, items in own.items() for item in items]
        frame = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
        for candidates in (own, frame, frame.to_arrow(), frame.to_pandas(), frame.lazy()):
            recs = fitted.recommend(["001", "000"], candidates=candidates, exclude_seen=False)
            assert {user: set(one["item_id"]) for (user,), one in recs.group_by("user_id")} == lists
        with pytest.warns(GreysheepWarning, match="1 of 2 users have no candidates and get no list"):
            assert set(fitted.recommend(["002", "000"], candidates=own)["user_id"]) <= {"000"}
        everybody = fitted.recommend(candidates=own, exclude_seen=False, on_unknown="skip")
        assert everybody["user_id"].unique(maintain_order=True).to_list() == ["000", "001"]
        with pytest.raises(DataError, match="candidates name no known item for any of the 1 users"):
            fitted.recommend(["005"], candidates=own)
        with pytest.raises(DataError, match="exclude_items holds for everybody"):
            fitted.recommend(exclude_items=own)

    def test_unknown_users(self, fitted: Any) -> None:
        with pytest.raises(
            UnknownUserError,
            match=r"1 of 2 users are unknown, among them nobody.*\(--history\).*\(--on-unknown\)",
        ):
            fitted.recommend(["000", "nobody"])
        assert fitted.recommend(["000", "nobody"], on_unknown="skip")["user_id"].unique().to_list() == ["000"]
        popular = fitted.recommend(["nobody"], k=3, on_unknown="popular")
        counts = fitted.log.frame().group_by("item_id").len().sort("len", "item_id", descending=[True, False])
        assert popular["item_id"].to_list() == counts["item_id"].head(3).to_list()
        with pytest.raises(ConfigError, match="on_unknown"):
            fitted.recommend(["nobody"], on_unknown="guess")

    def test_users_are_a_list_of_ids(self, fitted: Any) -> None:
        for users in ("000", 0, pl.DataFrame({"a": ["000"], "b": [1]}), ["000", 1], [["000"]], {"000": 1}):
            with pytest.raises(DataError, match="users"):
                fitted.recommend(users)
        with pytest.raises(
            DataError, match="users holds integers like 0, but the user ids are text like '000'"
        ):
            fitted.recommend([0], on_unknown="popular")
        first = fitted.recommend(["000"], k=2)
        for users in (pl.DataFrame({"user_id": ["000"]}), {"000"}, np.array(["000"])):
            assert fitted.recommend(users, k=2).equals(first)

    def test_before_fit_it_says_so(self) -> None:
        for call in (self.make().recommend, lambda: self.make().similar_items(["0001"])):
            with pytest.raises(NotFittedError):
                call()
        with pytest.raises(DataError, match="no such log does not exist"):
            self.make().fit("no such log")

    def test_no_users_no_rows(self, fitted: Any) -> None:
        assert fitted.recommend([]).height == 0

    def test_people_unseen_in_training(self, fitted: Any, log: gs.Interactions) -> None:
        twin = log.frame().filter(pl.col("user_id") == "007").with_columns(user_id=pl.lit("new"))
        recs = fitted.recommend(history=twin, k=6)
        assert recs["user_id"].unique().to_list() == ["new"]
        assert not recs["item_id"].is_in(twin["item_id"].implode()).any()
        shuffled = fitted.recommend(history=twin.sample(fraction=1, shuffle=True, seed=1), k=6)
        assert shuffled.equals(recs)
        lone = fitted.recommend(history=twin.head(1), k=6)
        assert lone.height == 6 and lone["score"].is_finite().all()
        strange = pl.concat([twin, pl.DataFrame({"user_id": ["new"], "item_id": ["no such"]})])
        with pytest.warns(GreysheepWarning, match="1 of 13 items in history"):
            assert fitted.recommend(history=strange, k=6).equals(recs)
        nothing = pl.DataFrame({"user_id": ["new"], "item_id": ["no such"]})
        with pytest.raises(UnknownUserError), pytest.warns(GreysheepWarning):
            fitted.recommend(history=nothing)

    def test_a_history_of_unknown_items_is_an_unknown_user(self, fitted: Any) -> None:
        nothing = pl.DataFrame({"user_id": ["000"], "item_id": ["no such"]})
        with pytest.raises(UnknownUserError), pytest.warns(GreysheepWarning):
            fitted.recommend(history=nothing)

    def test_history_replaces_the_rows_of_a_known_user(self, fitted: Any, log: gs.Interactions) -> None:
        if not self.personal:
            pytest.skip("everybody gets the same list")
        other = log.frame().filter(pl.col("user_id") == "007").with_columns(user_id=pl.lit("000"))
        recs = fitted.recommend(["000"], history=other, k=8)
        odd = [int(i) % 2 for i in recs["item_id"]]
        assert np.mean(odd) > 0.5  # 000 is an even user, 007 an odd one

    def test_learns_the_two_tastes(self, fitted: Any) -> None:
        if not self.personal:
            pytest.skip("everybody gets the same list")
        recs = fitted.recommend(k=5)
        right = (recs["user_id"].cast(pl.Int64) - recs["item_id"].cast(pl.Int64)) % 2 == 0
        assert right.mean() > 0.9

    def test_similar_items(self, fitted: Any) -> None:
        found = fitted.similar_items(["0002", "0005"], k=4)
        assert found.columns == ["item_id", "similar_item_id", "score", "rank"]
        assert found["item_id"].to_list() == ["0002"] * 4 + ["0005"] * 4
        assert (found["item_id"] != found["similar_item_id"]).all()
        same = (found["item_id"].cast(pl.Int64) - found["similar_item_id"].cast(pl.Int64)) % 2 == 0
        assert same.mean() >= 0.75
        with pytest.raises(DataError, match="1 unknown items"):
            fitted.similar_items(["0002", "nope"])
        with pytest.raises(DataError, match="items holds integers like 2"):
            fitted.similar_items([2])

    def test_a_second_fit_is_a_fresh_fit(self, log: gs.Interactions, fitted: Any) -> None:
        again = self.make().fit(world(seed=5)).fit(log)
        assert_same_state(again, fitted)
        assert again.recommend(k=5).equals(fitted.recommend(k=5))

    def test_row_order_does_not_matter(self, log: gs.Interactions, fitted: Any) -> None:
        shuffled = gs.Interactions.read(log.frame().sample(fraction=1, shuffle=True, seed=3))
        again = self.make().fit(shuffled)
        assert_same_state(again, fitted)
        np.testing.assert_array_equal(again.user_state, fitted.user_state)
        assert again.recommend(k=7).equals(fitted.recommend(k=7)) and again.config == fitted.config

    def test_saved_and_loaded_it_is_the_same(self, fitted: Any, tmp_path: Path) -> None:
        loaded = gs.load(fitted.save(tmp_path / "model"))
        assert type(loaded) is type(fitted) and loaded.config == fitted.config
        assert loaded.recommend(k=7).equals(fitted.recommend(k=7))
        assert loaded.history == fitted.history and loaded.label == fitted.label
        new = pl.DataFrame({"user_id": ["x"] * 3, "item_id": ["0001", "0003", "0009"]})
        assert loaded.recommend(history=new).equals(fitted.recommend(history=new))
        assert loaded.groups_of(new).equals(fitted.groups_of(new))
        assert not list(tmp_path.rglob("*.pkl")) and not list(tmp_path.glob(".*"))
        fitted.save(tmp_path / "model")  # replaces the earlier one
        odd = fitted.save(tmp_path / "model[gate=x]")  # brackets are a pattern to some readers
        assert gs.load(odd).recommend(k=7).equals(fitted.recommend(k=7))
        other = self.make().fit(world(20, 30)).save(tmp_path / "other")
        (tmp_path / "model" / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
        with pytest.raises(ModelFolderError, match="damaged"):
            gs.load(tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").write_bytes(b"broken")
        with pytest.raises(ModelFolderError, match="damaged"):
            gs.load(tmp_path / "model")

    @pytest.mark.filterwarnings("ignore:.* is binary")
    def test_weights_times_and_precision_survive_saving(self, tmp_path: Path) -> None:
        few = {"epochs": 4} if "epochs" in self.kind.Config.model_fields else {}
        split = gs.split(weighted_and_timed(), protocol="strict", seed=3)
        model = self.make(precision="float64", seed=3, **few).fit(split)
        loaded = gs.load(model.save(tmp_path / "model"))
        assert loaded.log.frame().equals(split.log.frame())
        assert loaded.log.fingerprint() == split.log.fingerprint()
        np.testing.assert_array_equal(loaded.split.part, split.part)
        assert (loaded.split.protocol, loaded.split.seed) == ("strict", 3)
        assert loaded.options.model_dump(include={"seed", "precision"}) == {"seed": 3, "precision": "float64"}
        assert_same_state(loaded, model)
        assert loaded.recommend(k=7).equals(model.recommend(k=7))
        new = split.log.frame().head(24).with_columns(user_id=pl.lit("new") + pl.col("user_id"))
        assert loaded.recommend(history=new, k=7).equals(model.recommend(history=new, k=7))
        assert gs.evaluate(loaded, k=5).overall == gs.evaluate(model, k=5).overall
        manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
        assert manifest["fingerprint"] == split.log.fingerprint()
        best = model.history[model.best_epoch - 1] if model.history else {}
        assert manifest["metrics"] == {key: best[key] for key in ("objective", "ndcg@20") if key in best}

    def test_saved_without_rows(self, fitted: Any, tmp_path: Path) -> None:
        fitted.save(tmp_path / "model", include_history=False)
        assert not (tmp_path / "model" / "interactions.parquet").exists()
        loaded = gs.load(tmp_path / "model")
        with pytest.raises(UnknownUserError, match="saved without its rows"):
            loaded.recommend(["000"])
        new = pl.DataFrame({"user_id": ["x"] * 3, "item_id": ["0001", "0003", "0009"]})
        assert loaded.recommend(history=new, k=5).equals(fitted.recommend(history=new, k=5))
        popular = loaded.recommend(["000"], on_unknown="popular", k=3)
        assert popular["item_id"].equals(fitted.recommend(["?"], on_unknown="popular", k=3)["item_id"])

    def test_test_rows_teach_nothing(self, split: Split, fitted_on_split: Any) -> None:
        """Test rows moved to other items of the same catalogue leave every learned number as it was."""
        log = split.log
        items = log.items.copy()
        free = [np.setdiff1d(np.arange(log.n_items), log.items[log.users == u]) for u in range(log.n_users)]
        for row in np.flatnonzero(split.part == TEST):
            items[row], free[log.users[row]] = free[log.users[row]][0], free[log.users[row]][1:]
        order = np.lexsort((items, log.users))
        moved = gs.Interactions(log.user_ids, log.item_ids, log.users, items[order])
        other = Split(moved, split.part[order], split.protocol, split.seed)
        again = self.make().fit(other)
        assert_same_state(fitted_on_split, again)
        assert again.config == fitted_on_split.config and again.gate_entropy == fitted_on_split.gate_entropy
        assert measured(again) == measured(fitted_on_split) and again.best_epoch == fitted_on_split.best_epoch
        for name in ("user_state", "trained_items"):
            np.testing.assert_array_equal(getattr(again, name), getattr(fitted_on_split, name))
        np.testing.assert_array_equal(again.mainstream.groups, fitted_on_split.mainstream.groups)
        for stage in ("validation", "test"):
            ours, theirs = (one.rank(np.arange(96), k=9, stage=stage) for one in (again, fitted_on_split))
            np.testing.assert_array_equal(ours, theirs)

    def test_evaluates_above_chance(self, split: Split, fitted_on_split: Any) -> None:
        report = gs.evaluate(fitted_on_split, split, k=10)
        # 2 or 3 test rows among about 39 items: a random list of 10 has recall .26
        floor = 0.4 if self.personal else 0.15
        assert floor < report.overall["recall@10"]["mean"] <= 1

    def test_reads_other_id_types(self) -> None:
        frame = world(24).frame()
        big = frame.with_columns(
            user_id=pl.col("user_id").cast(pl.UInt64) + 2**63, item_id=pl.col("item_id").cast(pl.Int16)
        )
        recs = self.make().fit(gs.Interactions.read(big)).recommend([2**63 + 1], k=2)
        assert recs.schema["user_id"] == pl.UInt64 and recs.schema["item_id"] == pl.Int16
        assert recs["user_id"].to_list() == [2**63 + 1] * 2
