"""A comparison as plain text, Markdown and one flat table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from greysheep.comparison.record import Record
from greysheep.comparison.tables import groupings_of
from greysheep.data.columns import GROUP
from greysheep.evaluation.beyond_text import beyond_table
from greysheep.evaluation.numbers import number, percent, seconds, short
from greysheep.evaluation.text import aligned, markdown_table
from greysheep.mainstream.groups import OVERALL
from greysheep.metrics.statistics import LEVEL
from greysheep.system.machine import readable

LEFT_OUT = "Groupings left out"
KINDS = {"mainstream": "mainstream group", "own": "group of one's own"}
"""What a grouping is called in titles."""


def text(comparison: Record) -> str:
    """What the command prints: the table, its legend, one verdict per model, what failed or is missing."""
    lines = [title(comparison), ""]
    if comparison.runs:
        lines += aligned([_head(comparison), *_rows(comparison, best="*")])
        lines += ["", legend(comparison, best="*")]
    lines += ["", *(f"{label}: {sentence}" for label, sentence in comparison.verdicts.items())]
    lines += [""] * bool(comparison.notes) + comparison.notes
    if comparison.of_lists:
        for run in comparison.runs:
            lines += ["", f"{run.label}, beside accuracy:", *beyond_table(run)]
    if left_out := comparison.facts.get(LEFT_OUT):
        lines += ["", f"groupings left out: {left_out}"]
    return "\n".join([*lines, *_absent(comparison)]).rstrip()


def title(comparison: Record) -> str:
    """What was measured."""
    seeds = ", ".join(map(str, comparison.seeds))
    many = "s" if len(comparison.seeds) > 1 else ""
    kind = KINDS[comparison.grouping]
    if comparison.of_lists:
        rows = (
            "later rows" if comparison.protocol == "all" else f"test rows of protocol {comparison.protocol}"
        )
        return f"NDCG@{comparison.k} of lists on {rows}: means by {kind}"
    return f"NDCG@{comparison.k}, protocol {comparison.protocol}, seed{many} {seeds}: means by {kind}"


def _head(comparison: Record) -> list[str]:
    if comparison.of_lists:
        return ["lists", *comparison.groups, "mean", "gap", "worst group"]
    return ["model", *comparison.groups, "mean", "gap", "worst group", "seconds", "memory"]


def legend(comparison: Record, best: str) -> str:
    """The legend of the table, in one line."""
    against = ""
    if len(comparison.labels) > 1:
        against = (
            f"; + or - above or below {comparison.reference}, p < .05 in a paired test over users (Holm over "
            f"the table), ! harm: certainly worse by more than {percent(comparison.margin, 1)}"
        )
    low = "low = the users whose taste fewest share; " if comparison.grouping == "mainstream" else ""
    return f"{low}{best} best of its column{against}."


def _rows(comparison: Record, best: str, spread: bool = False) -> list[list[str]]:
    """One row per model: groups niche first, mean, gap, worst group, seconds, memory; or why it failed."""
    lines = {label: numbers(comparison, label) for label in comparison.labels}
    tests = {(row["label"], row[GROUP]): row for row in comparison.tests.to_dicts()}
    columns = (*comparison.groups, OVERALL, "gap")
    seeds = [frozenset(run.seed for run in comparison.runs if run.label == label) for label in lines]
    even = len({mine for mine in seeds if mine}) == 1  # means over other splits are not ranked
    tops = {
        key: _best([line[key] for line in lines.values()] if even else [], lowest=key == "gap")
        for key in columns
    }
    rows = []
    for label, line in lines.items():
        if not line["runs"]:
            why = next((f.message for f in comparison.failures if f.label == label), "not started")
            rows.append([label, why])
            continue
        cells = []
        for key in columns:
            deviation = f" ± {short(line['sd'][key])}" if spread and key in line["sd"] else ""
            cell = short(line[key]) + deviation
            mark = _mark(tests.get((label, key)))
            top = _same(line[key], tops[key]) and len(lines) > 1
            bold = best == "**"
            cell = f"**{cell}**" if top and bold else cell
            cells.append(cell + (f" {mark}" if bold and mark else mark) + (best if top and not bold else ""))
        cost = [seconds(line["seconds"]), readable(line["memory"])]
        rows.append([label, *cells, line["worst"], *([] if comparison.of_lists else cost)])
    return rows


def numbers(comparison: Record, label: str) -> dict[str, Any]:
    """Means of one model over its finished seeds, and what they cost: mean seconds, most memory."""
    mine = comparison.summary.filter(pl.col("label") == label, pl.col("grouping") == comparison.grouping)
    means = {row[GROUP]: number(row["mean"]) for row in mine.iter_rows(named=True)}
    sd = {row[GROUP]: row["sd"] for row in mine.iter_rows(named=True) if row["sd"] is not None}
    known = {group: means[group] for group in comparison.groups if math.isfinite(means.get(group, math.nan))}
    runs = [run for run in comparison.runs if run.label == label]
    return {
        **dict.fromkeys((*comparison.groups, OVERALL), math.nan),
        **means,
        "sd": sd,
        "gap": max(known.values()) - min(known.values()) if known else math.nan,
        "worst": min(known, key=known.__getitem__) if known else "-",
        "seconds": sum(run.train_seconds for run in runs) / len(runs) if runs else math.nan,
        "memory": max((run.peak_memory_bytes for run in runs), default=0),
        "runs": len(runs),
    }


def _best(values: Sequence[float], lowest: bool) -> float:
    known = [value for value in values if math.isfinite(value)]
    return (min if lowest else max)(known, default=math.nan)


def _same(value: float, top: float) -> bool:
    """Whether a value is shown like the best one."""
    return math.isfinite(value) and short(value) == short(top)


def _mark(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return ""
    sign = "+" if number(test["difference"]) > 0 else "-"
    return (sign if number(test["p_holm"]) < LEVEL else "") + ("!" if test["verdict"] == "harm" else "")


def _absent(comparison: Record) -> list[str]:
    """What failed, and what is missing because the time was over."""
    lines = [f"failed: {f.label}, seed {f.seed}: {f.message}" for f in comparison.failures]
    left: dict[str, list[str]] = {}
    for label, seed in comparison.missing:
        left.setdefault(label, []).append(str(seed))
    if left:
        named = "; ".join(f"{label}, seed {', '.join(seeds)}" for label, seeds in left.items())
        lines.append(f"missing: {named}: the same command goes on with them")
    if comparison.runs and lines:
        lines.append("Each mean is over the finished seeds of its model; verdicts use the seeds both have.")
    return ["", *lines] if lines else []


def markdown(comparison: Record) -> str:
    """The page results.md."""
    lines = [f"# {title(comparison)}", ""]
    if comparison.runs:
        rows = [[f"`{row[0]}`", *row[1:]] for row in _rows(comparison, best="**", spread=True)]
        lines += markdown_table(_head(comparison), rows)
        lines += ["", legend(comparison, best="bold:") + " ± standard deviation over seeds.", ""]
        lines += [f"- {note}" for note in comparison.notes] + [""] * bool(comparison.notes)
    if comparison.verdicts:
        lines += [f"## Against `{comparison.reference}`", ""]
        lines += [f"- `{label}` {sentence}" for label, sentence in comparison.verdicts.items()]
        lines += ["", *_tests(comparison), ""]
    for grouping in groupings_of(comparison.runs):
        lines += _grouping(comparison, grouping)
    absent = [line for line in _absent(comparison) if line]
    if absent:
        lines += ["## Not there", "", *(f"- {line}" for line in absent), ""]
    lines += ["## How it was made", "", *(f"- {name}: {value}" for name, value in comparison.facts.items())]
    return "\n".join(lines) + "\n"


def _tests(comparison: Record) -> list[str]:
    """One row per model, one cell per group: relative difference, p after Holm, verdict."""
    head = ["model", *comparison.groups, OVERALL]
    rows = []
    for (label,), mine in comparison.tests.group_by("label", maintain_order=True):
        cells = {
            row[GROUP]: f"{percent(number(row['ratio']), 1, sign=True)}, p {number(row['p_holm']):.2g}, "
            f"{row['verdict']}"
            for row in mine.iter_rows(named=True)
        }
        rows.append([f"`{label}`", *(cells[group] for group in (*comparison.groups, OVERALL))])
    return markdown_table(head, rows) if rows else []


def _grouping(comparison: Record, grouping: str) -> list[str]:
    """Means by one grouping of the users, with the mean numbers of rows per user of each group."""
    mine = comparison.summary.filter(pl.col("grouping") == grouping)
    if mine.is_empty():
        return []
    groups = list(groupings_of(comparison.runs)[grouping][1])
    rows = []
    for (label,), rows_of_label in mine.group_by("label", maintain_order=True):
        means = dict(zip(rows_of_label[GROUP], rows_of_label["mean"], strict=True))
        rows.append([f"`{label}`", *(short(means[group]) for group in groups)])
    first = mine.filter(pl.col("label") == mine["label"][0])
    for name, column in (("train rows a user", "mean_train_rows"), ("test rows a user", "mean_test_rows")):
        by_group = dict(zip(first[GROUP], first[column], strict=True))
        counts = [by_group[group] for group in groups]
        rows.append([name, *("-" if count is None else f"{count:.1f}" for count in counts)])
    return [f"## By {grouping}", "", *markdown_table(["model", *groups], rows), ""]


def flat(comparison: Record) -> pl.DataFrame:
    """One row per model, grouping and group: the summary, and the paired test where there is one."""
    tests = comparison.tests.drop("n_users", "mean").with_columns(grouping=pl.lit(comparison.grouping))
    return comparison.summary.join(tests, on=["label", "grouping", GROUP], how="left", maintain_order="left")
