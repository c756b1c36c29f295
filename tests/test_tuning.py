"""The search for settings: what it may read, in what order it tries, what it keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import greysheep as gs
from contract import assert_same_state, world
from greysheep.cli import run
from greysheep.data.splitting import TEST, Split
from greysheep.errors import ConfigError, DataError, GreysheepWarning, MissingExtraError
from greysheep.mainstream.groups import GROUPS
from greysheep.models import EASE, REGISTRY, MultVAE, WeightedEASE, create, parse
from greysheep.models.autoencoders.trainer import MixtureTrainer
from greysheep.models.search_space import Choice, Real, Whole
from greysheep.tuning import search
from greysheep.tuning.plan import Plan, TuneRequest
from greysheep.tuning.score import Score, blind
from greysheep.tuning.study import Notebook, Record, State, open_notebook
from test_report import Page

SMALL = {"latent": 8, "batch_size": 16, "learning_rate": 1e-2}
QUIET: dict[str, Any] = {"progress": False}
TUNABLE = [name for name, kind in REGISTRY.items() if kind.search_space]


def check(model: str, **more: Any) -> Plan:
    """What a request comes to; making it checks it."""
    return TuneRequest(model=model, **more).plan


def same_trials(a: pl.DataFrame, b: pl.DataFrame) -> None:
    """Equal but for the clock, and for the numbers that trials cut short have taken."""
    kept = [frame.filter(pl.col("state") != "stopped").drop("seconds", "number") for frame in (a, b)]
    assert kept[0].rows() == kept[1].rows() and kept[0].columns == kept[1].columns


# ---------------------------------------------------------------- the hook in training


def test_a_watch_ends_training_with_the_best_weights() -> None:
    log = world(48)
    rows: list[dict[str, Any]] = []

    def after_three(row: dict[str, Any]) -> bool:
        rows.append(row)
        return len(rows) == 3

    watched = gs.MultVAE(epochs=8, **SMALL, **QUIET)
    watched.watch = after_three
    watched.fit(log)
    assert watched.epochs == 3 and rows == watched.history and not watched.interrupted
    assert_same_state(watched, gs.MultVAE(epochs=3, **SMALL, **QUIET).fit(log))


def test_a_watch_is_not_asked_after_the_last_epoch_nor_while_refitting() -> None:
    model = gs.MultVAE(epochs=4, **SMALL, **QUIET)
    asked: list[int] = []
    model.watch = lambda row: bool(asked.append(row["epoch"]))
    model.fit(world(48), refit=True)
    assert asked == [1, 2, 3]
    assert model.epochs == 4


# ---------------------------------------------------------------- spaces


def test_what_can_be_tuned() -> None:
    assert {"ease", "ease-weighted", "multvae", "tall"} <= set(TUNABLE)


@pytest.mark.parametrize("name", TUNABLE)
def test_spaces_hold_the_defaults_and_only_real_settings(name: str) -> None:
    kind, defaults = REGISTRY[name], dict(create(name).config)
    known: set[str] = set(defaults) - set(kind.search_space)
    for key, way in kind.search_space.items():
        assert key in defaults
        assert way.when is None or way.when[0] in known, f"{key}: its condition stands behind it"
        assert way.holds(defaults[key]), f"{key}={defaults[key]} cannot be suggested"
        known.add(key)
    for start in kind.search_starts:
        settings = {**defaults, **start}
        assert any(defaults[key] != value for key, value in start.items())
        for key, value in start.items():
            assert kind.search_space[key].holds(value) and kind.search_space[key].applies(settings)


@pytest.mark.parametrize("name", TUNABLE)
def test_whatever_is_suggested_can_be_made_and_written(name: str) -> None:
    optuna = pytest.importorskip("optuna")
    made = check(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(15):
        chosen = made.suggest(study.ask())
        model = made.create(chosen, False)
        assert chosen.items() <= dict(model.config).items()
        assert all(made.dimensions[key].holds(value) for key, value in chosen.items())
        assert parse(made.text(chosen)).config == model.config
        assert yaml.safe_load(yaml.safe_dump(made.differences(chosen))) == made.differences(chosen)


def test_conditional_settings_are_asked_for_where_they_matter() -> None:
    made = check("tall")
    assert "temperature" in made.complete({"gate": "temperature"})
    assert "temperature" not in made.complete({})
    assert not {"alpha", "start_epoch", "signal_scale"} & made.complete({"weighting": "none"}).keys()
    assert "temperature" not in check("tall[gate=loss]").complete({})
    assert "temperature" in check("tall[gate=temperature]").complete({})


def test_values_are_short_and_inside() -> None:
    optuna = pytest.importorskip("optuna")
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    value = Real(0.02, 2.0, log=True).suggest(trial, "a")
    assert 0.02 <= value <= 2.0 and float(f"{value:.3g}") == value
    assert Whole(0, 60, step=10).holds(40) and not Whole(0, 60, step=10).holds(45)
    assert not Choice(("a", "b")).holds("c")


# ---------------------------------------------------------------- what is maximised


def slow_score(model: Any, split: Split) -> tuple[float, dict[str, float]]:
    """NDCG by loops over users, cuts and places."""
    groups = split.mainstream.groups
    seen, truth = split.input_rows("validation").toarray(), split.rows("validation").toarray()
    state = model.user_state
    scores = model._scores(split.input_rows("validation", weighted=not model.binary), state)
    found: dict[int, float] = {}
    for user in range(split.log.n_users):
        wanted = set(np.flatnonzero(truth[user]))
        if not wanted:
            continue
        order = [i for i in np.argsort(-scores[user], kind="stable") if not seen[user, i]]
        values = []
        for cut in (1, 5, 10, 20):
            gain = sum(1 / np.log2(place + 2) for place, item in enumerate(order[:cut]) if item in wanted)
            ideal = sum(1 / np.log2(place + 2) for place in range(min(cut, len(wanted))))
            values.append(gain / ideal)
        found[user] = float(np.mean(values))
    means = {
        group: float(np.mean([value for user, value in found.items() if groups[user] == code] or [np.nan]))
        for code, group in enumerate(GROUPS)
    }
    return float(np.mean(list(found.values()))), means


@pytest.mark.parametrize("protocol", ["strict", "paper"])
@pytest.mark.parametrize(
    "model",
    [
        EASE(regularization=5.0),
        MultVAE(epochs=3, precision="float64", **SMALL, **QUIET),
        gs.TALL(n_experts=2, gate="temperature", epochs=3, precision="float64", **SMALL, **QUIET),
    ],
    ids=lambda model: model.name,
)
def test_scores_are_those_of_plain_loops_and_of_the_history(model: Any, protocol: str) -> None:
    split = blind(gs.split(world(60), protocol))
    score = Score.of_model(model.fit(split))
    mean, groups = slow_score(model, split)
    assert score.mean == pytest.approx(mean, abs=1e-12) and score.groups == pytest.approx(groups, abs=1e-12)
    if model.history:
        row = model.history[model.best_epoch - 1]
        told = Score.of_epoch(row)
        assert told.mean == pytest.approx(row["objective"]) == pytest.approx(score.mean)
        assert told.groups == pytest.approx(score.groups)


def score_of(*means: float) -> Score:
    return Score(float(np.nanmean(means)), dict(zip(GROUPS, means, strict=True)))


def test_the_value_of_each_objective() -> None:
    reference = score_of(0.2, 0.2, 0.2, 0.2, 0.4)
    gains = score_of(0.196, 0.3, 0.3, 0.3, 0.4)  # low loses just 2 %
    harms = score_of(0.15, 0.9, 0.9, 0.9, 0.9)
    assert gains.value("mean", None, 0.02) == gains.mean
    assert harms.value("worst", None, 0.02) == 0.15
    assert gains.value("no-harm", reference, 0.0200001) == gains.mean
    assert harms.value("no-harm", reference, 0.02) == pytest.approx(-(0.25 - 0.02))
    empty = score_of(0.2, np.nan, 0.2, 0.2, 0.4)
    assert empty.worst() == 0.2 and empty.value("no-harm", reference, 0.0) == empty.mean
    nothing = score_of(0.0, 0.0, 0.0, 0.0, 0.0)
    assert score_of(0.1, 0.0, 0.0, 0.0, 0.0).value("no-harm", nothing, 0.0) == pytest.approx(0.02)


GROUP_MEANS = st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5)


@given(GROUP_MEANS, GROUP_MEANS, GROUP_MEANS, st.floats(0, 0.5))
@settings(max_examples=50, deadline=None)
def test_harm_ranks_below_no_harm_and_less_harm_above_more(
    first: list[float], second: list[float], bar: list[float], margin: float
) -> None:
    reference = score_of(*bar)
    excess = [max((b - m) / b for m, b in zip(means, bar, strict=True)) - margin for means in (first, second)]
    values = [score_of(*means).value("no-harm", reference, margin) for means in (first, second)]
    if excess[0] <= 0 < excess[1]:
        assert values[0] > values[1]
    if excess[0] > excess[1] > 0:
        assert values[0] < values[1]


# ---------------------------------------------------------------- honesty


def test_test_rows_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    given_to: list[Split] = []
    fit = EASE._fit
    monkeypatch.setattr(EASE, "_fit", lambda self, split: (given_to.append(split), fit(self, split))[1])
    split = gs.split(world(), "strict")
    gs.tune("ease", split, trials=2, **QUIET)
    for seen in given_to:
        assert not (seen.part == TEST).any() and len(seen.log) == int((split.part != TEST).sum())
        for part in ("train", "gate", "validation"):
            assert (seen.rows(part) != split.rows(part)).nnz == 0
    assert len(given_to) == 2


@pytest.mark.parametrize("protocol", ["strict", "paper", "temporal"])
@pytest.mark.parametrize("objective", ["mean", "worst"])
def test_other_test_rows_change_nothing(protocol: str, objective: str) -> None:
    frame = world(60).frame().with_columns(timestamp=pl.int_range(pl.len()))
    split = gs.split(gs.Interactions.read(frame), protocol)
    other = planted(split)
    assert (split.rows("test") != other.rows("test")).nnz > 50
    for model, more in (("ease-weighted", {}), ("multvae", {**SMALL, "epochs": 4})):
        common: dict[str, Any] = {"trials": 4, "objective": objective, "fixed": more, **QUIET}
        a, b = gs.tune(model, split, **common), gs.tune(model, other, **common)
        same_trials(a.trials, b.trials)
        assert a.text == b.text


def planted(split: Split) -> Split:
    """The same split with every test row on an item that its user does not have."""
    log, rows = split.log, split.log.matrix().toarray() > 0
    test = np.flatnonzero(split.part == TEST)
    items = log.items.copy()
    for row in test:
        free = np.flatnonzero(~rows[log.users[row]])
        items[row] = free[-1]
        rows[log.users[row], free[-1]] = True
    order = np.lexsort((items, log.users))
    times = None if log.times is None else log.times.gather(order)
    moved = gs.Interactions(log.user_ids, log.item_ids, log.users[order], items[order], None, times)
    return Split(moved, split.part[order], split.protocol, split.seed)


def test_the_first_trial_is_the_defaults_and_the_best_is_no_worse() -> None:
    log = world()
    found = gs.tune("ease-weighted", log, trials=12, seed=3, **QUIET)
    first = found.trials.row(0, named=True)
    assert {key: first[key] for key in WeightedEASE.search_space} == {
        key: getattr(WeightedEASE().config, key) for key in WeightedEASE.search_space
    }
    split = blind(gs.split(log, "strict", seed=3))
    assert first["value"] == pytest.approx(slow_score(WeightedEASE().fit(split), split)[0])
    assert found.best_value == found.trials["value"].max() > first["value"]
    again = parse(found.text).fit(split)
    assert slow_score(again, split)[0] == pytest.approx(found.best_value)
    assert again.config == WeightedEASE(**found.best).config
    assert found.top(3)["value"].to_list()[:3] == sorted(found.trials["value"], reverse=True)[:3]
    assert found.top(3)["number"].to_list()[-1] == 0


def test_first_guesses_come_next_and_respect_what_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = ({"regularization": 30.0}, {"user_power": 0.0}, {"item_power": 0.0})
    monkeypatch.setattr(WeightedEASE, "search_starts", starts)
    found = gs.tune("ease-weighted[user_power=1]", world(), trials=3, **QUIET)
    assert "user_power" not in found.trials.columns and found.best["user_power"] == 1.0
    assert found.trials["regularization"].to_list() == [12.0, 30.0, 12.0]
    assert found.trials["item_power"].to_list() == [0.16, 0.16, 0.0]


def test_under_paper_no_gate_is_chosen() -> None:
    split = gs.split(world(48), "paper")
    with pytest.warns(GreysheepWarning, match="gate, temperature not searched"):
        found = gs.tune("tall[n_experts=2]", split, trials=1, epochs=1, fixed=SMALL, **QUIET)
    assert "gate" not in found.trials.columns and "alpha" in found.trials.columns


def test_worst_is_the_early_stopping_objective_too() -> None:
    found = gs.tune("multvae", world(48), trials=1, epochs=3, fixed=SMALL, objective="worst", **QUIET)
    row = found.trials.row(0, named=True)
    assert found.best["objective"] == "mean-ndcg:worst"
    assert found.best_value == min(row[group] for group in GROUPS if row[group] is not None)


# ---------------------------------------------------------------- no harm


def test_no_harm_fits_its_reference_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = gs.split(world(120), "strict")
    common: dict[str, Any] = {"objective": "no-harm", "storage": tmp_path / "s", "margin": 0.05, **QUIET}
    found = gs.tune("ease", split, trials=2, **common)
    seen = blind(split)
    mean, groups = slow_score(EASE().fit(seen), seen)
    assert found.reference == pytest.approx({"mean": mean, **groups})
    assert found.trials["value"][0] == pytest.approx(mean)  # the defaults do not harm against themselves
    fits: list[Any] = []
    fit = EASE._fit
    monkeypatch.setattr(EASE, "_fit", lambda self, split: (fits.append(1), fit(self, split))[1])
    more = gs.tune("ease", split, trials=4, **common)
    assert len(fits) == 2 and more.reference == found.reference
    for row in more.trials.iter_rows(named=True):
        loss = max((groups[g] - row[g]) / groups[g] for g in GROUPS)
        assert row["value"] == pytest.approx(row["mean"] if loss <= 0.05 else 0.05 - loss)


def test_no_harm_says_when_every_trial_harms() -> None:
    common: dict[str, Any] = {"objective": "no-harm", "reference": "ease[regularization=5]", **QUIET}
    with pytest.warns(GreysheepWarning, match="no trial keeps every group within 0"):
        found = gs.tune(
            "multvae",
            world(48),
            trials=2,
            epochs=1,
            margin=0.0,
            fixed={"latent": 2, "dropout": 0.9},
            **common,
        )
    assert found.best_value < 0 and "every trial harms" in str(found)
    assert check("multvae", objective="no-harm").reference == "multvae"
    assert check("tall", objective="no-harm").reference == "multvae"


# ---------------------------------------------------------------- going on


def test_going_on_is_the_same_as_not_stopping(tmp_path: Path) -> None:
    log = world(60)
    for model, more in (("ease-weighted", {}), ("multvae", {**SMALL, "epochs": 3})):
        common: dict[str, Any] = {"fixed": more, **QUIET}
        whole = gs.tune(model, log, trials=11, **common)
        file = tmp_path / model
        first = gs.tune(model, log, trials=3, storage=file, **common)
        rest = gs.tune(model, log, trials=11, storage=file, **common)
        same_trials(rest.trials, whole.trials)
        same_trials(rest.trials.head(3), first.trials)
        same_trials(gs.tune(model, log, trials=5, storage=file, **common).trials, whole.trials)
        other = gs.tune(model, log, trials=4, seed=1, **common)
        assert other.trials["value"].to_list() != whole.trials["value"].to_list()[:4]


@pytest.mark.parametrize(
    ("kind", "method", "at", "measured"),
    [
        (WeightedEASE, "_fit", 3, 2),  # in the third trial, which then has no figure
        (search.Watch, "__call__", 7, 3),  # just after its first epoch
        (MixtureTrainer, "train_epoch", 10, 3),  # in its second epoch: training itself ends in order
    ],
)
def test_ctrl_c_keeps_what_is_finished_and_goes_on(
    kind: Any, method: str, at: int, measured: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "ease-weighted" if kind is WeightedEASE else "multvae"
    common: dict[str, Any] = {"fixed": {**SMALL, "epochs": 4} if model == "multvae" else {}, **QUIET}
    log, inner, calls = world(60), getattr(kind, method), list[int]()
    whole = gs.tune(model, log, trials=6, **common)

    def interrupt(self: Any, *given: Any) -> Any:
        done = inner(self, *given)
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(kind, method, interrupt)
    cut = gs.tune(model, log, trials=6, storage=tmp_path / "s", **common)
    assert cut.interrupted and cut.trials["state"].to_list() == ["finished", "finished", "stopped"]
    assert cut.finished == measured and cut.best_value == cut.trials["value"].max()
    assert cut.trials["epochs"][2] == measured - 2
    rest = gs.tune(model, log, trials=6, storage=tmp_path / "s", **common)
    assert not rest.interrupted and rest.trials.height == 7
    same_trials(rest.trials, whole.trials)


def test_ctrl_c_before_anything_was_measured_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EASE, "_fit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gs.tune("ease", world(48), trials=2, **QUIET)


def test_a_killed_trial_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, file = world(60), tmp_path / "s"
    whole = gs.tune("ease-weighted", log, trials=4, **QUIET)
    write = Notebook.write

    def killed(self: Notebook, trial: Any, record: Record) -> None:
        if trial.number == 2:
            raise SystemExit
        write(self, trial, record)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Notebook, "write", killed)
        gs.tune("ease-weighted", log, trials=4, storage=file, **QUIET)
    rest = gs.tune("ease-weighted", log, trials=4, storage=file, **QUIET)
    same_trials(rest.trials, whole.trials)
    assert rest.trials["message"].to_list()[2] == "the process ended before the trial did"


# ---------------------------------------------------------------- time, failures, pruning


def test_time_ends_a_trial_between_epochs_and_it_is_run_again_in_full(tmp_path: Path) -> None:
    common: dict[str, Any] = {"fixed": SMALL, "epochs": 5, "storage": tmp_path / "s", **QUIET}
    cut = gs.tune("multvae", world(48), minutes=1e-6, **common)
    row = cut.trials.row(0, named=True)
    assert cut.trials.height == 1 and row["state"] == "stopped" and row["epochs"] == 1
    one = gs.MultVAE(epochs=1, **SMALL, **QUIET).fit(blind(gs.split(world(48))))
    assert cut.best_value == pytest.approx(Score.of_model(one).mean) and not cut.interrupted
    rest = gs.tune("multvae", world(48), trials=2, minutes=None, **common)
    assert rest.trials["state"].to_list() == ["stopped", "finished", "finished"]
    assert rest.trials["epochs"].to_list() == [1, 5, 5]
    assert rest.trials["weight_decay"][0] == rest.trials["weight_decay"][1] != rest.trials["weight_decay"][2]


def test_a_closed_form_is_not_begun_when_it_would_not_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(search.time, "perf_counter", lambda: clock[0])
    fit = EASE._fit

    def slow(self: Any, split: Split) -> None:
        clock[0] += 25
        fit(self, split)

    monkeypatch.setattr(EASE, "_fit", slow)
    assert gs.tune("ease", world(48), minutes=1, **QUIET).trials.height == 2
    assert gs.tune("ease", world(48), minutes=0.1, **QUIET).trials.height == 1


def test_a_trial_that_fails_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = EASE._fit

    def moody(self: Any, split: Split) -> None:
        if self.config.regularization < 300:
            raise MemoryError("no room for it")
        fit(self, split)

    monkeypatch.setattr(EASE, "_fit", moody)
    found = gs.tune("ease", world(48), trials=8, **QUIET)
    failed = found.trials.filter(pl.col("state") == "failed")
    assert 0 < failed.height < 8 and found.trials.height == 8
    assert set(failed["message"]) == {"MemoryError: no room for it"} and failed["value"].null_count() == len(
        failed
    )
    assert (failed["regularization"] < 300).all() and found.best_value > 0


def test_all_failing_is_one_clear_error() -> None:
    with pytest.raises(
        ConfigError, match=r"^all 10 trials of multvae failed, the first one with: .*diverged"
    ):
        fixed = {"learning_rate": 10, "batch_size": 1}
        gs.tune("multvae", world(48), trials=30, fixed=fixed, epochs=3, **QUIET)


def test_a_hopeless_trial_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = {"learning_rate": 3e-4}
    monkeypatch.setattr(MultVAE, "search_space", {"learning_rate": Real(3e-4, 1e-2, log=True)})
    monkeypatch.setattr(
        MultVAE, "search_starts", ({"learning_rate": 9e-3}, {"learning_rate": 8e-3}, hopeless)
    )
    found = gs.tune("multvae", world(60), trials=4, epochs=25, fixed={"latent": 8, "batch_size": 8}, **QUIET)
    assert found.trials["state"].to_list()[1:3] == ["finished", "finished"]
    last = found.trials.row(3, named=True)
    assert last["state"] == "pruned" and last["epochs"] == search.PRUNE_AFTER + 1
    assert last["value"] < found.best_value


def test_a_warning_is_passed_on_once(recwarn: pytest.WarningsRecorder) -> None:
    log = gs.Interactions.read(world(48).frame().with_columns(weight=pl.lit(2.0)))
    gs.tune("multvae", log, trials=3, epochs=1, fixed=SMALL, **QUIET)
    assert len([w for w in recwarn if "is binary" in str(w.message)]) == 1


def test_a_line_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    gs.tune("ease", world(48), trials=2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("trial 0: validation ") and lines[0].endswith("defaults")
    assert "regularization=" in lines[1]
    gs.tune("ease", world(48), trials=2, **QUIET)
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- what is refused

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": "popular"}, "nothing to tune in popular: it has no settings"),
    ({"model": "ease[regularization=3]"}, "every setting that could be searched is fixed"),
    ({"model": "esae"}, "no model 'esae'; the nearest is 'ease'"),
    ({"objective": "best"}, "objective 'best' of tune is none of mean, worst, no-harm"),
    ({"protocol": "all"}, "validation rows that no model trains on"),
    ({"protocol": "odd"}, "no protocol 'odd'"),
    ({"trials": 0}, "trials=0 is not a whole number"),
    ({"trials": None, "minutes": None}, "give trials, minutes or both"),
    ({"minutes": -1}, "minutes=-1 is not a time above 0"),
    ({"margin": 1.5}, "margin=1.5"),
    ({"reference": "ease"}, "belongs to objective 'no-harm'"),
    ({"objective": "no-harm", "reference": "esae"}, "no model 'esae'"),
    ({"fixed": {"seed": 3}}, "setting 'seed' cannot be fixed"),
    ({"model": "multvae[objective=ndcg@5]"}, "setting 'objective' cannot be fixed"),
    ({"fixed": {"regularisation": 3}}, "the nearest one is 'regularization'"),
    ({"epochs": 5}, "ease has no setting 'epochs'"),
    ({"fixed": {"regularization": -3}}, "regularization=-3 is not possible"),
]


@pytest.mark.parametrize(("more", "message"), REFUSED)
def test_what_cannot_be_is_refused_before_the_data(more: dict[str, Any], message: str) -> None:
    keywords: dict[str, Any] = {"model": "ease", "trials": 1, **more}
    with pytest.raises(ConfigError, match=message) as caught:
        check(keywords.pop("model"), **keywords)
    assert "\n" not in str(caught.value)


def test_data_that_cannot_be_tuned_on() -> None:
    with pytest.raises(DataError, match="give a path"):
        gs.tune("ease", 7, trials=1, **QUIET)
    log = gs.Interactions.read(pl.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "b", "c"]}))
    with pytest.raises(DataError, match="no validation rows of 3 rows"):
        gs.tune("ease", log, trials=1, **QUIET)
    with pytest.raises(ConfigError, match="under protocol 'all'"):
        gs.tune("ease", gs.split(world(48), "all"), trials=1, **QUIET)


def test_optuna_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greysheep.tuning.plan.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install greysheep\[tune\]"):
        gs.tune("ease", world(48), trials=1, **QUIET)


def test_a_file_of_another_search_is_refused(tmp_path: Path) -> None:
    file, log = tmp_path / "s", world(48)
    gs.tune("ease", log, trials=1, storage=file, **QUIET)
    before = file.read_bytes()
    for keywords, message in (
        ({"seed": 1}, "seed 0, not 1"),
        ({"objective": "worst"}, "objective mean, not worst"),
        ({"protocol": "paper"}, "protocol strict, not paper"),
        ({"fixed": {"precision": "float64"}}, "fixed settings"),
    ):
        with pytest.raises(ConfigError, match=f"holds a search of .*{message}"):
            gs.tune("ease", log, trials=1, storage=file, **QUIET, **keywords)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="model ease, not ease-weighted"):
        gs.tune("ease-weighted", log, trials=1, storage=file, **QUIET)
    with pytest.raises(ConfigError, match="another log"):
        gs.tune("ease", world(50), trials=1, storage=file, **QUIET)
    assert file.read_bytes() == before
    assert gs.tune("ease", log, trials=1, storage=file, fixed={"threads": 1}, **QUIET).trials.height == 1
    deep = tmp_path / "not" / "there" / "s"
    assert gs.tune("ease", log, trials=1, storage=deep, **QUIET).trials.height == 1
    assert deep.is_file()
    with pytest.raises(ConfigError, match=r"cannot be written: (Not a directory|File exists)"):
        gs.tune("ease", log, trials=1, storage=deep / "s", **QUIET)
    file.write_text("not a study\n")
    with pytest.raises(ConfigError, match="cannot be read as a study"):
        gs.tune("ease", log, trials=1, storage=file, **QUIET)


def test_two_searches_do_not_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, log = tmp_path / "s", world(48)
    fit = EASE._fit

    def nested(self: Any, split: Split) -> None:
        with pytest.raises(ConfigError, match="is in use: another process tunes there"):
            gs.tune("ease", log, trials=1, storage=file, **QUIET)
        fit(self, split)

    monkeypatch.setattr(EASE, "_fit", nested)
    assert gs.tune("ease", log, trials=1, storage=file, **QUIET).finished == 1


# ---------------------------------------------------------------- the command


@pytest.fixture
def log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    world(60).frame().write_csv("log.csv")
    return Path("log.csv")


def test_the_command(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["tune", "log.csv", "-o", "out", "--model", "ease-weighted", "--set", "item_power=0.5"]
    assert run([*line, "--trials", "4"]) == 0
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 4 and "user_power" in shown.out and "ease-weighted[" in shown.out
    assert {path.name for path in Path("out").iterdir()} >= {"study.journal", "best.yaml", "trials.csv"}
    trials = pl.read_csv("out/trials.csv")
    assert trials["state"].to_list() == ["finished"] * 4
    picture = Path("out/trials.svg").read_text(encoding="utf-8")
    assert picture.startswith("<?xml") and picture.count("<use") >= 12
    assert run(["fit", "log.csv", "-o", "model", "--config", "out/best.yaml", "--protocol", "strict"]) == 0
    model = gs.load("model")
    assert model.name == "ease-weighted" and model.config.item_power == 0.5
    assert slow_score(model, model.split)[0] == pytest.approx(trials["value"].max())
    capsys.readouterr()
    assert run([*line, "--trials", "6"]) == 0  # goes on
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert pl.read_csv("out/trials.csv").height == 6
    for wrong, message in (
        (["tune", "log.csv", "-o", "out", "--model", "ease", "--trials", "1"], "not ease"),
        (["tune", "log.csv", "-o", ".", "--trials", "1"], "would replace the input log.csv"),
        (["tune", "none.csv", "-o", "new", "--set", "alpha=x"], "alpha='x' is not possible"),
        (["tune", "none.csv", "-o", "new", "--model", "ease"], "none.csv"),
    ):
        assert run(wrong) == 2
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1 and message in error[0]
    assert not Path("new").exists()


INTERRUPTED = """
import sys
from greysheep.cli import run
from greysheep.models import EASE
fit, fits = EASE._fit, []
def interrupt(self, split):
    fits.append(1)
    if len(fits) == 3:
        raise KeyboardInterrupt
    fit(self, split)
EASE._fit = interrupt
sys.exit(run(["tune", "log.csv", "-o", "out", "--model", "ease", "--trials", "5"]))
"""


def test_the_command_interrupted(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert done.returncode == 130 and " of 2 measured" in done.stdout
    assert Path("out/best.yaml").is_file() and "Traceback" not in done.stderr
    assert run(["tune", "log.csv", "-o", "out", "--model", "ease", "--trials", "5"]) == 0
    assert (
        pl.read_csv("out/trials.csv")["state"].to_list() == ["finished"] * 2 + ["stopped"] + ["finished"] * 3
    )


def test_the_page_of_a_search(tmp_path: Path) -> None:
    found = gs.tune("ease-weighted", world(60), trials=3, storage=tmp_path / "study.journal", **QUIET)
    page = Page(gs.write_html(found, tmp_path / "trials.html").read_text(encoding="utf-8"))
    assert page.headings == ["Trials and settings", "The best trials", "How it was made"]
    best, settings = str(found).split("; ")
    assert f"{best[0].upper()}{best[1:]}." in page.text and settings in page.text
    assert "greysheep tune, ease-weighted" in page.text
    (table,) = page.tables
    top = found.top()
    assert [row[0].strip() for row in table[1:]] == [str(number) for number in top["number"]]
    means = [row[table[0].index("mean ")].strip() for row in table[1:]]
    assert means == [f"{mean:.4f}" for mean in top["mean"]]
    (chart,) = [attributes for tag, attributes in page.elements if attributes.get("class") == "chart"]
    assert str(found) in str(chart["aria-label"])
    with pytest.raises(ConfigError, match="takes a title, nothing else"):
        gs.write_html(found, tmp_path / "trials.html", reference="ease")


def test_what_a_killed_search_left_does_not_stop_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = world(60)
    gs.tune("ease", log, trials=2, storage="study.journal", **QUIET)
    old = Path("study.journal.lock")
    old.symlink_to("study.journal.gone")  # as Optuna's lock of a relative path: it leads nowhere
    os.utime(old, (0, 0), follow_symlinks=False)
    fresh = Path("study.journal.lock-new.rename")
    fresh.symlink_to("study.journal.gone")
    with Path("study.journal").open("ab") as journal:
        journal.write(b'{"op_code":5,"wor')  # a line that was being written
    more = gs.tune("ease", log, trials=3, storage="study.journal", **QUIET)
    assert more.trials["state"].to_list() == ["finished"] * 3
    assert not old.is_symlink() and fresh.is_symlink()
    assert b'{"op_code":5,"wor\n' not in Path("study.journal").read_bytes()


def test_trials_of_a_killed_process_are_closed_as_their_records_say(tmp_path: Path) -> None:
    place = tmp_path / "study.journal"
    with open_notebook(place, {"log": "a"}, 0) as book:
        states: tuple[State, ...] = ("finished", "pruned", "failed")
        for state in states:
            record = Record(state, {}, value=0.5)
            book.study.ask().set_user_attr("record", record.stored())
        book.begin(book.study.ask(), {"x": 1})
        book.study.ask()  # killed before it began
    with open_notebook(place, {"log": "a"}, 0) as book:
        found = [trial.state.name for trial in book.study.get_trials()]
        assert found == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"] and book.study.best_value == 0.5
        kept = [(record.number, record.state) for record in book.records()]
        assert kept == [(0, "finished"), (1, "pruned"), (2, "failed"), (3, "stopped")]
        assert [record.number for record in book.settled()] == [0, 1, 2]
        again = book.next([])
        assert again.user_attrs == {"again": 3}
        book.write(again, Record("finished", {"x": 1}, value=0.1))
        drawn = []
        for _ in range(2):
            trial = book.next([])
            assert "again" not in trial.user_attrs
            drawn.append(trial.suggest_float("z", 0, 1))
            book.write(trial, Record("failed", {}))
        assert drawn[0] != drawn[1]


def test_a_study_is_of_one_identity_and_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    loud = optuna.logging.get_verbosity()
    with open_notebook(Path("study.journal"), {"log": "a"}, 0) as book:
        monkeypatch.chdir(tmp_path / "below")
        book.begin(book.study.ask(), {})
    assert optuna.logging.get_verbosity() == loud and list(Path().iterdir()) == []
    for identity in ({"log": "b"}, {"log": "a", "protocol": "paper"}):
        with pytest.raises(ConfigError, match="holds a search of"):
            open_notebook(tmp_path / "study.journal", identity, 0).__enter__()
    (tmp_path / "notes.txt").write_text("mine, without an end of line")
    with pytest.raises(ConfigError, match="cannot be read as a study"):
        open_notebook(tmp_path / "notes.txt", {"log": "a"}, 0).__enter__()
    assert (tmp_path / "notes.txt").read_text() == "mine, without an end of line"
    (tmp_path / "torn").write_text('{"op')  # killed with the first line half written
    with open_notebook(tmp_path / "torn", {"log": "a"}, 0) as book:
        assert book.records() == []
