"""The two tables of a comparison: means by group with intervals, and paired tests with verdicts.

Rows are grouped in their order (`maintain_order`): else threads sum them as they come, and the same runs give
means that differ in their last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from greysheep.data.columns import GROUP, USER
from greysheep.errors import DataError
from greysheep.evaluation.report import MAINSTREAM_GROUP, N_USERS, TRAIN_ROWS, Report, compared
from greysheep.mainstream.groups import ACTIVITY, GROUPS, OVERALL
from greysheep.metrics.statistics import bootstrap_means, holm, interval

TEST_ROWS = "mean_test_rows"
GROUPINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mainstream": (GROUP, GROUPS),
    "activity": ("activity", ACTIVITY),
    "density": ("density", GROUPS),
    "distribution": ("distribution", GROUPS),
}
"""Grouping -> (its column in a report's values per user, its groups), without groups of one's own."""


def groupings_of(runs: Sequence[Report]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The groupings that runs may have, the one that is tested first."""
    own = next((run for run in runs if run.grouping == "own"), None)
    if own is None:
        return GROUPINGS
    return {"own": (GROUP, tuple(own.groups)), **GROUPINGS, "mainstream": (MAINSTREAM_GROUP, GROUPS)}


_NUMBERS = (TRAIN_ROWS, TEST_ROWS, "mean", "sd", "ci_low", "ci_high")
SUMMARY = {
    "label": pl.String, "grouping": pl.String, GROUP: pl.String, N_USERS: pl.Int64,
    **dict.fromkeys(_NUMBERS, pl.Float64),
}  # fmt: skip
TESTS = {
    "label": pl.String, "reference": pl.String, GROUP: pl.String, N_USERS: pl.Int64,
    **dict.fromkeys(
        ("mean", "reference_mean", "difference", "difference_sd", "ratio", "p_value", "p_holm", "ratio_low",
         "ratio_high"), pl.Float64),
    "verdict": pl.String, "resolvable_margin": pl.Float64,
}  # fmt: skip


def measured(runs: Sequence[Report], metric: str) -> pl.DataFrame:
    """Return one row per run and user with test rows: label, seed, user_id, n_train, n_test, value, groups.

    Raises:
        DataError: a report has no values per user.
    """
    parts, groupings = [], groupings_of(runs)
    for run in runs:
        if metric not in run.per_user.columns:
            raise DataError(f"the run {run.label}, seed {run.seed}, has no values of {metric} per user")
        known = [column for column, _ in groupings.values() if column in run.per_user.columns]
        rows = run.per_user.filter(pl.col("n_test") > 0)
        parts.append(
            rows.select(
                pl.lit(run.label).alias("label"),
                pl.lit(run.seed, pl.UInt64).alias("seed"), USER, "n_train", "n_test",
                pl.col(metric).alias("value"), *known,
            )
        )  # fmt: skip
    # A grouping that one of the runs lacks is left out.
    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    return pl.concat([part.select(shared) for part in parts])


def summarise(runs: Sequence[Report], metric: str, *, draws: int = 2000) -> pl.DataFrame:
    """Return the table `Comparison.summary`."""
    if not runs:
        return pl.DataFrame(schema=SUMMARY)
    values = measured(runs, metric)
    labels = values["label"].unique(maintain_order=True).to_list()
    cells: dict[tuple[str, str, str], dict[str, Any]] = {}
    all_users = _cells(values, draws)
    for grouping, (column, groups) in groupings_of(runs).items():
        if column in values.columns:
            for group in (OVERALL, *groups):
                by_label = (
                    all_users if group == OVERALL else _cells(values.filter(pl.col(column) == group), draws)
                )
                cells |= {(label, grouping, group): by_label.get(label, _EMPTY) for label in labels}
    names = ("label", "grouping", GROUP)
    order = sorted(cells, key=lambda key: labels.index(key[0]))
    rows = [dict(zip(names, key, strict=True)) | cells[key] for key in order]
    return pl.DataFrame(rows, schema=SUMMARY).fill_nan(None)


_EMPTY: dict[str, Any] = {N_USERS: 0, **dict.fromkeys(_NUMBERS)}


def _cells(part: pl.DataFrame, draws: int) -> dict[str, dict[str, Any]]:
    """Return, for each label, means over seeds of the seeds' means, and the interval over users."""
    columns = ("value", "n_train", "n_test")
    by_seed = part.group_by("label", "seed", maintain_order=True).agg(pl.col(columns).mean()).sort("seed")
    over = by_seed.group_by("label", maintain_order=True).agg(
        pl.col("n_train").mean().alias(TRAIN_ROWS),
        pl.col("n_test").mean().alias(TEST_ROWS),
        pl.col("value").mean().alias("mean"),
        pl.col("value").std().alias("sd"),
    )
    intervals = _intervals(part, draws)
    return {row["label"]: row | intervals[row["label"]] for row in over.to_dicts()}


def _intervals(part: pl.DataFrame, draws: int) -> dict[str, dict[str, Any]]:
    """Return n_users, ci_low and ci_high of each label; labels with the same users share the resamples.

    The mean over seeds of the seeds' means is sum a_u / sum w_u over users, with w_u the sum of 1 / n_s over
    the seeds s in which she is in the group (n_s users then) and a_u the sum of her values / n_s: so the
    interval is that of the mean beside it, whoever changes her group from split to split.
    """
    share = (1 / pl.len().over("label", "seed")).alias("w")
    sums = ((pl.col("value") * pl.col("w")).sum().alias("a"), pl.col("w").sum())
    users = part.with_columns(share).group_by(USER, "label", maintain_order=True).agg(sums)
    wide = users.pivot(on="label", index=USER, values=["a", "w"]).sort(USER).drop(USER)
    by_users: dict[bytes, list[str]] = {}
    for label in part["label"].unique(maintain_order=True):
        by_users.setdefault(wide[f"a_{label}"].is_not_null().to_numpy().tobytes(), []).append(label)
    intervals: dict[str, dict[str, Any]] = {}
    for labels in by_users.values():
        columns = [f"{kind}_{label}" for kind in "aw" for label in labels]
        values = wide.select(columns).drop_nulls().to_numpy()
        drawn = bootstrap_means(values, draws=draws)
        bounds = zip(*interval(drawn[:, : len(labels)] / drawn[:, len(labels) :]), strict=True)
        for label, (low, high) in zip(labels, bounds, strict=True):
            intervals[label] = {N_USERS: len(values), "ci_low": float(low), "ci_high": float(high)}
    return intervals


def paired_tests(
    runs: Sequence[Report], metric: str, reference: str, margin: float, *, draws: int = 2000
) -> pl.DataFrame:
    """Return the table `Comparison.tests`; a model without a seed in common with the reference has no row.

    Raises:
        DataError: two runs of one seed were not measured on the same test rows.
    """
    rows: list[dict[str, Any]] = []
    if any(run.label == reference for run in runs):
        values, tested = measured(runs, metric), next(iter(groupings_of(runs).values()))[1]
        theirs = values.filter(pl.col("label") == reference)
        for (label,), mine in values.group_by("label", maintain_order=True):
            if label != reference and set(mine["seed"]) & set(theirs["seed"]):
                pairs = _paired(mine, theirs)
                names = {"label": label, "reference": reference}
                rows += [
                    {**names, GROUP: group, **_test(pairs, group, margin, draws)}
                    for group in (OVERALL, *tested)
                ]
    frame = pl.DataFrame(rows, schema=TESTS)
    return frame.with_columns(pl.Series("p_holm", holm(frame["p_value"].to_list()))).fill_nan(None)


def _paired(mine: pl.DataFrame, theirs: pl.DataFrame) -> pl.DataFrame:
    """Return seed, user_id, group, mine, theirs over the seeds that both have."""
    shared = sorted(set(mine["seed"]) & set(theirs["seed"]))
    a, b = (one.filter(pl.col("seed").is_in(shared)).sort("seed", USER) for one in (mine, theirs))
    same = ["seed", USER, "n_test", GROUP]
    if a[USER].dtype != b[USER].dtype or not a.select(same).equals(b.select(same)):
        names = f"{mine['label'][0]} and {theirs['label'][0]}"
        raise DataError(f"{names} were not measured on the same test rows: compare them anew")
    return a.select("seed", USER, GROUP, pl.col("value").alias("mine"), b["value"].alias("theirs"))


def _test(pairs: pl.DataFrame, group: str, margin: float, draws: int) -> Mapping[str, Any]:
    """One row of the tests: a user's value is her mean over the seeds in which she is in the group."""
    pairs = pairs if group == OVERALL else pairs.filter(pl.col(GROUP) == group)
    users = pairs.group_by(USER, maintain_order=True).agg(pl.col("mine", "theirs").mean()).sort(USER)
    by_seed = pairs.group_by("seed", maintain_order=True)
    seeds = by_seed.agg((pl.col("mine") - pl.col("theirs")).mean().alias("difference"))
    row = compared(users["mine"].to_numpy(), users["theirs"].to_numpy(), margin, draws)
    row["reference_mean"] = row.pop("reference")
    return {N_USERS: users.height, "difference_sd": seeds.sort("difference")["difference"].std(), **row}
