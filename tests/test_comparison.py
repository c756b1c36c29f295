"""The tables of a comparison against plain loops, scipy and statsmodels; sentences case by case; files."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from statsmodels.stats.multitest import multipletests

import greysheep as gs
from greysheep.comparison import tables
from greysheep.comparison.facts import facts
from greysheep.comparison.record import Failure
from greysheep.comparison.request import (
    CompareRequest,
    joined,
    named,
    read_seeds,
    read_texts,
    split_texts,
)
from greysheep.comparison.result import Comparison
from greysheep.comparison.run_folder import Run
from greysheep.comparison.tables import GROUPINGS, paired_tests, summarise
from greysheep.comparison.text import LEFT_OUT, _mark, markdown, title
from greysheep.comparison.verdicts import SENTENCES, state, verdict
from greysheep.errors import ConfigError, DataError
from greysheep.evaluation.numbers import MINUS
from greysheep.mainstream.groups import ACTIVITY, GROUPS

quick = settings(max_examples=50, deadline=None)
U = 60


def report(label: str, seed: int, lift: dict[str, float] | float = 0.0, *, n: int = U, noise: float = 0.05):
    """A report whose values are those of a common truth, plus a lift for each group, plus noise.

    Every sixth user has no test rows; groups differ from seed to seed.
    """
    truth = np.random.default_rng([9, seed])
    group = np.asarray(GROUPS)[truth.permutation(np.arange(n) % 5)]
    activity = np.asarray(ACTIVITY)[truth.permutation(np.arange(n) % 5)]
    base = truth.uniform(0.2, 0.4, n)
    n_test = np.where(np.arange(n) % 6 == 5, 0, truth.integers(1, 9, n))
    own = np.random.default_rng([sum(map(ord, label)), seed])
    by_group = lift if isinstance(lift, dict) else dict.fromkeys(GROUPS, lift)
    values = base + noise * own.standard_normal(n) + [by_group.get(g, 0.0) for g in group]
    frame = pl.DataFrame(
        {
            "user_id": [f"u{i:03}" for i in range(n)], "mainstream": base, "group": group,
            "activity": activity,
            "n_train": truth.integers(5, 50, n), "n_test": n_test,
            "ndcg@20": pl.Series(np.where(n_test > 0, values, math.nan), nan_to_null=True),
            "density": group[::-1], "distribution": np.roll(group, 3),
        }
    )  # fmt: skip
    means = [frame.filter(pl.col("group") == g)["ndcg@20"].mean() for g in GROUPS]
    return gs.Report(
        model=label.partition("[")[0], label=label, config={}, protocol="strict", seed=seed, k=20,
        overall={"n_users": int((n_test > 0).sum()),
                 "ndcg@20": {"mean": frame["ndcg@20"].mean(), "ci_low": 0.0, "ci_high": 1.0}},
        by_group=pl.DataFrame({"group": GROUPS, "n_users": [10] * 5, "mean_train_rows": [9.0] * 5,
                               "ndcg@20": means, "ndcg@20_low": means, "ndcg@20_high": means}),
        by_activity=pl.DataFrame(), per_user=frame, train_seconds=2.0 + seed, peak_memory_bytes=10**9 + seed,
        history=[{"epoch": 1, "loss": 0.5}],
    )  # fmt: skip


def comparison(runs, failures=(), **more: Any) -> Comparison:
    given = {
        "seeds": sorted({r.seed for r in runs} | {f.seed for f in failures}), "protocol": "strict", "k": 20,
        "reference": runs[0].label if runs else "", "margin": 0.02, "facts": {"Log": "made up"},
    }  # fmt: skip
    return Comparison(runs=list(runs), failures=list(failures), **{**given, **more})


def users_of(runs, label, column="group", group=None):
    """{user: [(seed, value)]} of the users with test rows, by plain loops."""
    found = defaultdict(list)
    for run in runs:
        for row in run.per_user.to_dicts():
            if run.label == label and row["n_test"] > 0 and group in (None, row[column]):
                found[row["user_id"]].append((run.seed, row))
    return dict(sorted(found.items()))


RUNS = [
    report("a", 0), report("a", 1), report("a", 2),
    report("b", 0, {"low": 0.08, "high": -0.05}), report("b", 1, {"low": 0.08, "high": -0.05}),
    report("c[x=1,y=2]", 2, 0.01), report("c[x=1,y=2]", 1, 0.01), report("c[x=1,y=2]", 0, 0.01),
]  # fmt: skip


@pytest.fixture(scope="module")
def made():
    return comparison(RUNS)


def test_the_title_names_the_seeds():
    for seeds, words in (((4,), "seed 4:"), ((4, 7), "seeds 4, 7:"), ((0, 1, 2), "seeds 0, 1, 2:")):
        assert words in title(comparison([report("a", seed) for seed in seeds]))


def test_summary_is_the_plain_loop(made):
    columns = {"mainstream": "group", "activity": "activity", "density": "density",
               "distribution": "distribution"}  # fmt: skip
    rows = made.summary.to_dicts()
    wanted = [
        (label, grouping, group)
        for label in ("a", "b", "c[x=1,y=2]")
        for grouping in columns
        for group in ("overall", *(ACTIVITY if grouping == "activity" else GROUPS))
    ]
    assert [(r["label"], r["grouping"], r["group"]) for r in rows] == wanted
    for row in rows:
        group = None if row["group"] == "overall" else row["group"]
        users = users_of(RUNS, row["label"], columns[row["grouping"]], group)
        seeds = defaultdict(list)
        for entries in users.values():
            for seed, one in entries:
                seeds[seed].append((one["ndcg@20"], one["n_train"], one["n_test"]))
        means = [np.mean(seeds[seed], axis=0) for seed in sorted(seeds)]
        assert row["n_users"] == len(users)
        got = [row["mean"], row["mean_train_rows"], row["mean_test_rows"]]
        np.testing.assert_allclose(got, np.mean(means, axis=0))
        assert row["sd"] == pytest.approx(np.std([m[0] for m in means], ddof=1))
        assert row["ci_low"] < row["mean"] < row["ci_high"]


def mean_of_means(sizes):
    """The statistic scipy resamples: a column a seed, NaN = not in the group; sum a / sum w over users."""

    def found(*drawn, axis=-1):
        inside = np.stack([~np.isnan(d) for d in drawn])
        summed = np.where(inside, np.stack(drawn), 0).sum(axis)
        size = np.reshape(sizes, (len(sizes),) + (1,) * (summed.ndim - 1))
        return (summed / size).sum(0) / (inside.sum(axis) / size).sum(0)

    return found


def test_intervals_are_scipys_over_users_drawn_with_all_their_seeds(made):
    for label, group in (("a", "low"), ("b", None)):
        users = list(users_of(RUNS, label, group=group).values())
        sizes = Counter(seed for entries in users for seed, _ in entries)
        values = np.full((len(users), max(sizes) + 1), np.nan)
        for u, entries in enumerate(users):
            for seed, one in entries:
                values[u, seed] = one["ndcg@20"]
        values = values[:, sorted(sizes)]

        statistic = mean_of_means([sizes[s] for s in sorted(sizes)])
        theirs = stats.bootstrap(
            tuple(values.T), statistic, n_resamples=20_000, method="percentile", paired=True,
            rng=np.random.default_rng(1), vectorized=True,
        ).confidence_interval  # fmt: skip
        row = made.summary.row(
            by_predicate=(pl.col("label") == label)
            & (pl.col("grouping") == "mainstream")
            & (pl.col("group") == (group or "overall")),
            named=True,
        )
        np.testing.assert_allclose([row["ci_low"], row["ci_high"]], [theirs.low, theirs.high], atol=0.003)


def paired(label, group, seeds):
    """[n, 2] of each user: her mean under `label` and under a, over the seeds in which she is there."""
    mine, theirs = users_of(RUNS, label, group=group), users_of(RUNS, "a", group=group)
    pairs = {}
    for user in mine:
        a = [one["ndcg@20"] for seed, one in sorted(mine[user], key=lambda e: e[0]) if seed in seeds]
        b = [one["ndcg@20"] for seed, one in theirs[user] if seed in seeds]
        assert len(a) == len(b)
        if a:
            pairs[user] = np.mean(a), np.mean(b)
    return np.array([pairs[user] for user in sorted(pairs)])


def test_paired_tests_are_the_plain_loop_and_scipys(made):
    rows = made.tests.to_dicts()
    assert [(r["label"], r["group"]) for r in rows] == [
        (label, group) for label in ("b", "c[x=1,y=2]") for group in ("overall", *GROUPS)
    ]
    rng = np.random.default_rng(2)

    def far(x, axis):
        return np.abs(np.mean(x, axis=axis))

    def ratio(a, b, axis):
        return a.mean(axis=axis) / b.mean(axis=axis) - 1

    for row in rows:
        seeds = {0, 1} if row["label"] == "b" else {0, 1, 2}  # b has no run with seed 2
        group = None if row["group"] == "overall" else row["group"]
        pair = paired(row["label"], group, seeds)
        difference = pair[:, 0] - pair[:, 1]
        assert (row["reference"], row["n_users"]) == ("a", len(pair))
        np.testing.assert_allclose(
            [row["mean"], row["reference_mean"], row["difference"], row["ratio"]],
            [*pair.mean(0), difference.mean(), pair[:, 0].mean() / pair[:, 1].mean() - 1],
        )
        by_seed = [np.subtract(*paired(row["label"], group, {seed}).T).mean() for seed in seeds]
        assert row["difference_sd"] == pytest.approx(np.std(by_seed, ddof=1))
        test = stats.permutation_test(
            (difference,), far, permutation_type="samples", n_resamples=5_000, vectorized=True, rng=rng,
            alternative="greater",
        )  # fmt: skip
        assert row["p_value"] == pytest.approx(test.pvalue, abs=0.03)
        bounds = stats.bootstrap(
            (pair[:, 0], pair[:, 1]), ratio, paired=True, vectorized=True, method="percentile",
            confidence_level=0.9, n_resamples=5_000, rng=rng,
        ).confidence_interval  # fmt: skip
        np.testing.assert_allclose(
            [row["ratio_low"], row["ratio_high"]], [bounds.low, bounds.high], atol=0.01
        )
        low, high = row["ratio_low"], row["ratio_high"]
        assert row["verdict"] == ("no harm" if low > -0.02 else "harm" if high < -0.02 else "undecided")
        assert row["resolvable_margin"] == pytest.approx(row["ratio"] - low)


def test_holm_is_statsmodels_over_the_whole_table(made):
    theirs = multipletests(made.tests["p_value"].to_numpy(), method="holm")[1]
    np.testing.assert_allclose(made.tests["p_holm"].to_numpy(), theirs)
    assert (made.tests["p_holm"] > made.tests["p_value"]).any()


def test_one_seed_has_no_spread():
    one = comparison([report("a", 3), report("b", 3)])
    assert one.summary["sd"].null_count() == one.summary.height
    assert one.tests["difference_sd"].null_count() == one.tests.height == 6


def test_a_model_is_not_better_than_itself_under_another_name():
    twin = [replace(run, label="twin") for run in RUNS[:3]]
    tests = comparison([*RUNS[:3], *twin]).tests
    assert (tests["difference"] == 0).all() and (tests["p_value"] == 1).all()
    assert (tests["verdict"] == "no harm").all()


def test_runs_of_other_test_rows_are_refused():
    other = report("b", 0)
    other = replace(other, per_user=other.per_user.with_columns(n_test=pl.lit(1, pl.Int64)))
    with pytest.raises(DataError, match="b and a"):
        paired_tests([report("a", 0), other], "ndcg@20", "a", 0.02)
    with pytest.raises(DataError, match="b, seed 0"):
        summarise([report("a", 0), replace(report("b", 0), per_user=pl.DataFrame())], "ndcg@20")


def test_a_grouping_that_one_run_lacks_is_left_out():
    poor = report("b", 1)
    poor = replace(poor, per_user=poor.per_user.drop("density"))
    found = comparison([report("a", 0), report("a", 1), report("b", 0), poor]).summary
    assert found["grouping"].unique(maintain_order=True).to_list() == [
        "mainstream",
        "activity",
        "distribution",
    ]


def test_it_is_told_which_grouping_is_left_out(monkeypatch):
    log = gs.simulate(60, 40).log
    assert LEFT_OUT not in facts(log, set(GROUPINGS), 1, "greysheep compare")
    monkeypatch.setattr("greysheep.comparison.facts.find_spec", lambda name: None)
    told = facts(log, set(GROUPINGS) - {"density"}, 2, "greysheep compare")
    assert told[LEFT_OUT].startswith("density: ") and "greysheep[baselines]" in told[LEFT_OUT]
    found = comparison(RUNS, facts=told)
    assert f"groupings left out: {told[LEFT_OUT]}" in str(found) and told[LEFT_OUT] in found_text(found)


def test_a_group_without_users_has_no_numbers():
    runs = [replace(r, per_user=r.per_user.filter(pl.col("group") != "low")) for r in RUNS[:5]]
    found = comparison(runs)
    rows = found.summary.filter(pl.col("group") == "low", pl.col("grouping") == "mainstream")
    assert (
        rows["n_users"].to_list() == [0, 0] and rows["mean"].null_count() == rows["ci_low"].null_count() == 2
    )
    assert found.tests.filter(pl.col("group") == "low")["p_holm"].to_list() == [None]
    assert found.verdicts["b"].startswith("no verdict: low has no users")
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_seeds_that_only_one_has_are_not_compared():
    found = comparison([report("a", 0), report("b", 1)])
    assert found.tests.height == 0 and found.tests.schema == comparison(RUNS).tests.schema
    assert found.verdicts == {"b": "no verdict: a has no finished run on the same split"}
    assert found.missing == [("a", 1), ("b", 0)]


# Sentences


def row(group: str, ratio=0.0, p=1.0, harm="no harm", high=None, resolve=0.03, n=100) -> dict[str, Any]:
    high = ratio + 0.01 if high is None else high
    return {"group": group, "n_users": n, "difference": ratio * 0.3, "ratio": ratio, "p_holm": p,
            "verdict": harm, "ratio_high": high, "resolvable_margin": resolve}  # fmt: skip


def case(*special: dict[str, Any]) -> list[dict[str, Any]]:
    named = {one["group"]: one for one in special}
    return [named.get(group, row(group)) for group in ("overall", *GROUPS)]


UP, DOWN = row("low", 0.041, 0.001), row("low", -0.012, 0.01)
HARMED, OPEN = row("low", -0.05, 0.2, "harm", -0.03), row("low", 0.01, 0.4, "undecided", 0.05)
BAD, UNSURE = (
    row("high", -0.031, 0.001, "harm", -0.025),
    row("medium", -0.01, 0.5, "undecided", resolve=0.032),
)

CASES = {
    "low up": (case(UP), "lifts low by 4.1 % and harms no group"),
    "low up, high harmed": (case(UP, BAD), "lifts low by 4.1 % at the price of high (-3.1 %)"),
    "low up, two harmed": (
        case(UP, BAD, row("med-high", -0.03, 0.2, "harm")),
        "lifts low by 4.1 % at the price of med-high (-3.0 %) and high (-3.1 %)",
    ),
    "low up, medium unsure": (
        case(UP, UNSURE), "lifts low by 4.1 %; harm is undecided in medium (can resolve 3.2 %)"
    ),
    "low up, one harmed, one unsure": (
        case(UP, BAD, UNSURE), "lifts low by 4.1 % at the price of high (-3.1 %); undecided in medium"
    ),
    "low up, mean up": (case(UP, row("overall", 0.02, 0.001)), "lifts low by 4.1 % and harms no group"),
    "low up, mean down": (
        case(UP, BAD, row("overall", -0.01, 0.01)),
        "lifts low by 4.1 % at the price of high (-3.1 %); lowers the mean by 1.0 %",
    ),
    "low up, only the mean harmed": (
        case(UP, UNSURE, row("overall", -0.03, 0.01, "harm")),
        "lifts low by 4.1 % at the price of the mean (-3.0 %); undecided in medium",
    ),
    "nothing": (case(), "no difference in low; harms no group"),
    "mean up, low same": (
        case(row("overall", 0.02, 0.001)), "no difference in low; harms no group; lifts the mean by 2.0 %"
    ),
    "low same, high harmed": (case(BAD), "no difference in low, but harms high (-3.1 %)"),
    "low same, medium unsure": (
        case(UNSURE), "no difference in low; harm is undecided in medium (can resolve 3.2 %)"
    ),
    "low not significant": (
        case(OPEN), "undecided in low: this log can resolve 3.0 %; harms no other group"
    ),
    "low not harmed, but a lift is possible": (
        case(row("low", 0.015, 0.2, "no harm", 0.04)),
        "no gain shown in low; harms no group",
    ),
    "no gain in low, high harmed": (
        case(row("low", 0.015, 0.2, "no harm", 0.04), BAD),
        "no gain shown in low, but harms high (-3.1 %)",
    ),
    "no gain in low, medium open": (
        case(row("low", 0.015, 0.2, "no harm", 0.04), UNSURE),
        "no gain shown in low; harm is undecided in medium (can resolve 3.2 %)",
    ),
    "all undecided": (
        case(OPEN, UNSURE),
        "undecided in low: this log can resolve 3.0 %; so it is in medium (can resolve 3.2 %)",
    ),
    "low open, high harmed": (
        case(OPEN, BAD), "undecided in low: this log can resolve 3.0 %; harms high (-3.1 %)"
    ),
    "low harmed": (case(HARMED), "harms low (-5.0 %); harms no other group"),
    "low and high harmed": (case(HARMED, BAD), "harms low (-5.0 %) and high (-3.1 %)"),
    "all harmed": (
        case(*(row(group, -0.1, 0.001, "harm") for group in GROUPS)),
        "harms low (-10.0 %), med-low (-10.0 %), medium (-10.0 %), med-high (-10.0 %) and high (-10.0 %)",
    ),
    "low harmed, mean up": (
        case(HARMED, row("overall", 0.02, 0.001)),
        "harms low (-5.0 %); harms no other group; lifts the mean by 2.0 %",
    ),
    "low harmed, medium unsure": (
        case(HARMED, UNSURE), "harms low (-5.0 %); harm is undecided in medium (can resolve 3.2 %)"
    ),
    "low down within the margin": (
        case(DOWN), "lowers low by 1.2 %, less than 2.0 %; harms no other group"
    ),
    "low down, perhaps beyond it": (
        case(row("low", -0.018, 0.01, "undecided"), BAD),
        "lowers low by 1.8 %, perhaps by more than 2.0 %; harms high (-3.1 %)",
    ),
    "low down, medium unsure": (
        case(DOWN, UNSURE),
        "lowers low by 1.2 %, less than 2.0 %; harm is undecided in medium (can resolve 3.2 %)",
    ),
    "reference of zero": (
        case({**row("low", math.nan, 0.01, "undecided"), "difference": 0.1}),
        "lifts low by 0.1000 and harms no group",
    ),
    "nobody in low": (case(row("low", n=0)), "no verdict: low has no users with test rows"),
}  # fmt: skip


def test_a_claim_begins_below_a_p_of_five_percent():
    """Adjusted p values around .05: in the sentence on `low`, on the mean, and as marks of the table."""
    for p, claimed in ((0.049, True), (0.05, False), (0.051, False)):
        for ratio, sign, then, otherwise, of_the_mean in (
            (0.041, "+", "lifted", "kept", "; lifts the mean by 4.1 %"),
            (-0.012, "-", "lowered", "same", "; lowers the mean by 1.2 %"),
        ):
            assert state(row("low", ratio, p), 0.02) == (then if claimed else otherwise)
            assert verdict(case(row("overall", ratio, p)), 0.02).endswith(of_the_mean) == claimed
            assert _mark(row("low", ratio, p)) == (sign if claimed else "")


@pytest.mark.parametrize("name", CASES)
def test_sentences(name: str):
    rows, sentence = CASES[name]
    sentence = sentence.replace("(-", f"({MINUS}")
    assert verdict(rows, 0.02) == sentence
    assert verdict(rows[::-1], 0.02) == sentence


def test_every_sentence_has_a_case():
    found = set()
    for rows, _ in CASES.values():
        low, *others = rows[1:]
        if low["n_users"]:
            verdicts = {one["verdict"] for one in others} | ({"harm"} & {rows[0]["verdict"]})
            rest = "harm" if "harm" in verdicts else "undecided" if "undecided" in verdicts else "none"
            found.add((state(low, 0.02), rest))
    assert found == set(SENTENCES)


any_row = st.builds(
    row, st.just(""), st.floats(-0.5, 0.5), st.floats(0, 1), st.sampled_from(["no harm", "harm", "undecided"])
)


@quick
@given(st.lists(any_row, min_size=6, max_size=6))
def test_a_sentence_names_every_group_that_is_harmed(rows):
    rows = [{**one, "group": group} for one, group in zip(rows, ("overall", *GROUPS), strict=True)]
    text = verdict(rows, 0.02)
    for one in rows[1:]:
        if one["verdict"] == "harm":
            assert one["group"] in text.replace("harms no other group", "")
    assert ("harms no" not in text) or not any(one["verdict"] == "harm" for one in rows[2:])
    assert ("lifts low" in text) == (state(rows[1], 0.02) == "lifted")


def test_verdicts_of_a_lift_at_a_price():
    runs = [report("a", seed, n=900, noise=0.01) for seed in range(3)]
    runs += [report("b", seed, {"low": 0.03, "high": -0.03}, n=900, noise=0.01) for seed in range(3)]
    sentence = comparison(runs).verdicts["b"]
    assert sentence.startswith("lifts low by 10.") or sentence.startswith("lifts low by 9.")
    assert f"at the price of high ({MINUS}" in sentence and "med" not in sentence


# Texts of models and seeds


@quick
@given(
    st.lists(
        st.from_regex(r"[a-z]{1,6}(\[[a-z]=[a-z0-9]{1,3}(,[a-z]=[a-z0-9]{1,3}){0,2}\])?", fullmatch=True)
    )
)
def test_texts_come_apart_as_they_were_put_together(texts):
    assert split_texts(",".join(texts)) == texts
    assert split_texts(" , ".join(texts) + ",") == texts


def test_models_can_stand_in_a_file(tmp_path: Path):
    (tmp_path / "m.yaml").write_text("- ease\n- tall[gate=uniform,n_experts=2]\n")
    found = read_texts([f"@{tmp_path / 'm.yaml'}", "popular,multvae"])
    assert found == ["ease", "tall[gate=uniform,n_experts=2]", "popular", "multvae"]
    (tmp_path / "m.yaml").write_text("linear: ease\nflat gate: tall[gate=uniform]\n")
    assert read_texts([f"@{tmp_path / 'm.yaml'}"]) == ["linear=ease", "flat gate=tall[gate=uniform]"]
    for wrong in ("ease: 1\n", "- 1\n", "a: [", ""):
        (tmp_path / "m.yaml").write_text(wrong)
        with pytest.raises(ConfigError, match=r"m\.yaml"):
            read_texts([f"@{tmp_path / 'm.yaml'}"])
    with pytest.raises(ConfigError, match="No such file"):
        read_texts([f"@{tmp_path / 'none.yaml'}"])


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        (["ease", " ease "], "twice"),
        (["ease", "eese"], "ease"),
        (["tall[n_expert=3]"], "n_experts"),
        (["tall[n_experts=0]"], "n_experts"),
        (["tall[gate=uniform"], "name"),
        (["tall[gate=uniform,seed=3]"], "--seeds"),
        (["a=ease", "a=popular"], "twice"),
        (["ease=popular"], "another model"),
        (["=popular"], "no name"),
        (["a="], "the name of a model is missing"),
        (["a=b=popular"], "no model"),
    ],
)
def test_wrong_models_are_found_at_once(texts, word):
    with pytest.raises(ConfigError, match=word):
        CompareRequest(models=texts)


@quick
@given(st.dictionaries(st.text("abc é-.:/", min_size=1).filter(str.strip), st.just("ease[regularization=9]")))
def test_names_come_apart_as_they_were_put_together(models):
    texts = split_texts(",".join(joined(models)))
    assert [named(text) for text in texts] == [(name.strip(), model) for name, model in models.items()]


@pytest.mark.parametrize("name", ["", " ", "a=b", "a,b", "a[b]", 3])
def test_wrong_names_are_found_at_once(name):
    with pytest.raises(ConfigError, match="no name for a model"):
        joined({name: "ease"})


def test_configs_are_those_of_the_models():
    found = CompareRequest(models=["ease", "tall[gate=uniform,n_experts=2]"]).configs
    assert found["tall[gate=uniform,n_experts=2]"]["gate"] == "uniform" and next(iter(found)) == "ease"
    assert CompareRequest(models=["small = tall[n_experts=2]"]).configs["small"]["n_experts"] == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"models": []}, "at least one model"),
        ({"models": [3]}, "models are texts such as 'ease' or .*, not 3"),
        ({"protocol": "all"}, "protocol paper or strict or .*global-time, not 'all'"),
        ({"reference": "tall"}, "'tall' is none of the models: ease, flat"),
        ({"k": 0}, "compare: k=0 is not possible: input should be greater"),
        ({"k": 2.5}, "k=2.5 is not possible"),
        ({"jobs": True}, "jobs=True is not possible"),
        ({"margin": 1.0}, "margin=1.0 is not possible"),
        ({"max_minutes": float("nan")}, "max_minutes=nan is not possible"),
        ({"kk": 3}, "kk=3 is not possible"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line(more, message):
    with pytest.raises(ConfigError, match=message) as caught:
        CompareRequest(**{"models": ["ease", "flat=tall[gate=uniform]"], **more})
    assert "\n" not in str(caught.value)


def test_a_request_can_be_written_and_read_again():
    request = CompareRequest(models=["ease", "flat=tall[gate=uniform]", "tall[n_experts=2]"], seeds=[4], k=5)
    assert CompareRequest(**json.loads(json.dumps(request.model_dump()))) == request
    assert request.reference == "ease" and request.models["flat"] == "tall[gate=uniform]"
    with pytest.raises(ValidationError, match="frozen"):
        request.k = 6


def test_seeds():
    assert CompareRequest(models="ease", seeds=read_seeds("2")).seeds == [0, 1]
    assert CompareRequest(models="ease", seeds=read_seeds("7,3")).seeds == [7, 3]
    for wrong in (0, -1, [], [1, 1], [-1], [True], [0.5], ["1"]):
        with pytest.raises(ConfigError, match="seeds"):
            CompareRequest(models="ease", seeds=wrong)
    with pytest.raises(ConfigError, match="three"):
        read_seeds("three")


# Files


def test_runs_come_back_as_they_were(tmp_path: Path):
    for one in RUNS:
        Run(one.label, one.seed, tmp_path).write(one, ["careful"], one.config)
    back = Run("c[x=1,y=2]", 1, tmp_path).read({})
    assert back is not None
    assert back.to_dict() == RUNS[6].to_dict() and back.history == RUNS[6].history
    assert back.per_user.equals(RUNS[6].per_user)
    assert Run("a", 0, tmp_path).warnings() == ["careful"]
    assert Run("a", 0, tmp_path).read({"alpha": 1}) is None  # other settings
    assert Run("a", 5, tmp_path).read() is None
    Run("a", 0, tmp_path).file(".json").write_text("{")
    Run("a", 1, tmp_path).file(".parquet").write_text("")
    assert Run("a", 0, tmp_path).read() is None and Run("a", 1, tmp_path).read() is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_no_two_texts_share_a_file(tmp_path: Path):
    texts = ["tall", "Tall", "tall_", "tall[a=1]", "tall[a=1,]", "tall(a=1)", "tall[" + 90 * "a" + "]",
             "tall[" + 91 * "a" + "]", "tall/../x"]  # fmt: skip
    stems = {Run(text, 0, tmp_path).stem.lower() for text in texts}
    assert len(stems) == len(texts) and all("/" not in stem and len(stem) < 90 for stem in stems)


def test_a_comparison_comes_back_as_it_was(tmp_path: Path):
    failures = [Failure("d", 0, "no memory")]
    first = comparison(RUNS, failures, labels=["a", "b", "c[x=1,y=2]", "d"])
    for one in RUNS:
        Run(one.label, one.seed, tmp_path).write(one, [], one.config)
    names = {path.name for path in first.write(tmp_path)}
    assert names >= {"results.json", "results.csv", "results.md"}
    back = Comparison.read(tmp_path)
    assert back.to_dict() == first.to_dict()
    assert (back.failures, back.facts, back.labels) == (failures, first.facts, first.labels)
    assert str(back) == str(first)
    found = json.loads((tmp_path / "results.json").read_text())
    assert [(run["label"], run["seed"]) for run in found["runs"]] == [(run.label, run.seed) for run in RUNS]
    assert found["tests"] == first.tests.to_dicts() and found["missing"] == [["b", 2], ["d", 1], ["d", 2]]
    flat = pl.read_csv(tmp_path / "results.csv")
    assert flat.height == first.summary.height
    assert flat["p_holm"].drop_nulls().to_list() == pytest.approx(first.tests["p_holm"].to_list())
    Run("a", 0, tmp_path).file(".json").unlink()
    with pytest.raises(DataError, match="a, seed 0"):
        Comparison.read(tmp_path)
    with pytest.raises(DataError, match=r"results\.json"):
        Comparison.read(tmp_path / "none")


def test_the_table_marks_what_is_best_and_what_is_certain():
    runs = [report("a", seed, n=600, noise=0.01) for seed in range(2)]
    runs += [report("b", seed, {"low": 0.05, "high": -0.05}, n=600, noise=0.01) for seed in range(2)]
    found = comparison(runs, [Failure("c", 0, "no memory"), Failure("c", 1, "no memory")])
    lines = str(found).splitlines()
    head = next(line for line in lines if line.startswith("model"))
    cells = {line.split()[0]: line.split() for line in lines if line[:2] in ("a ", "b ", "c ")}
    assert head.split() == ["model", *GROUPS, "mean", "gap", "worst", "group", "seconds", "memory"]
    means = found.summary.filter(pl.col("label") == "b", pl.col("grouping") == "mainstream")["mean"].to_list()
    assert cells["b"][1] == f"{means[1]:.4f}"[1:] + "+*" and cells["b"][5] == f"{means[5]:.4f}"[1:] + "-!"
    assert cells["a"][5].endswith("*") and "+" not in "".join(cells["a"])
    assert cells["a"][9:] == ["2.5", "1.0", "GB"]  # mean seconds, most memory
    assert " ".join(cells["c"][1:]) == "no memory"
    gap = max(means[1:]) - min(means[1:])
    assert cells["b"][7].rstrip("*") == f"{gap:.4f}"[1:] and cells["b"][8] == "high"
    assert any(line.startswith("b: lifts low by") for line in lines)
    assert "failed: c, seed 1: no memory" in lines


def test_page_in_markdown_has_every_grouping():
    found = comparison(RUNS, labels=["a", "b", "c[x=1,y=2]", "d"])
    text = found_text(found)
    for word in ("## By mainstream", "## By activity", "## By density", "## By distribution",
                 "test rows a user", "- `b` ", "missing: b, seed 2; d, seed 0, 1, 2", "made up"):  # fmt: skip
        assert word in text, word
    tables = [line for line in text.splitlines() if line.startswith("| `a`")]
    assert tables and all(line.count("|") in (7, 8, 12) for line in tables)


def found_text(found: Comparison) -> str:
    return markdown(found)


def test_nothing_finished_is_told_too():
    empty = comparison([], [Failure("a", 0, "broken")], labels=["a", "b"], seeds=[0], reference="a")
    assert empty.summary.height == empty.tests.height == 0 and empty.missing == [("b", 0)]
    assert "failed: a, seed 0: broken" in str(empty) and "missing: b, seed 0" in str(empty)
    assert json.dumps(empty.to_dict(), allow_nan=False)


def test_sums_of_the_tables_do_not_depend_on_threads():
    """Polars sums the rows of a group as its threads come to them, once in some hundred times another way."""
    groupings = re.findall(r"\.group_by\((.*?)\)", inspect.getsource(tables))
    assert len(groupings) >= 5 and all("maintain_order=True" in one for one in groupings)
