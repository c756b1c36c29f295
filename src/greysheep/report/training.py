"""The sections of a comparison's page that follow training: learning curves, weights, gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import median

from greysheep.evaluation.numbers import DASH, decimal, number
from greysheep.report import html as page
from greysheep.report.lines import Frame
from greysheep.report.single_history import (
    History,
    by_group,
    gate_figures,
    learning_figure,
    peak,
    weight_figures,
)
from greysheep.report.single_view import View
from greysheep.report.view import MAINSTREAM, Compared, average

OPEN = 6  # charts of a kind that stand open; more are a click away
FLAT = 0.99  # of the largest entropy: all experts count nearly the same


def training_sections(compared: Compared) -> list[str]:
    """Validation by group, then weights and gates; an empty text for each that has nothing to show.

    Drawn is the first finished run of each label; tables count all of them.
    """
    drawn = {compared.short[label]: runs[0] for label, runs in compared.runs.items()}
    told: dict[str, History] = {label: run.history for label, run in drawn.items() if run.history}
    if not told:
        return []
    styles = {compared.short[label]: style for label, style in compared.styles.items()}
    view = View(drawn, styles, f"ndcg@{compared.comparison.k}")
    return [_learning(compared, view, told), _weights(compared, view, told), _gates(compared, view, told)]


def _learning(compared: Compared, view: View, told: Mapping[str, History]) -> str:
    # Training always follows NDCG@20, also where lists of another length are reported.
    metric = next((m for m in (view.metric, "ndcg@20") if any(by_group(h, m) for h in told.values())), "")
    found = {label: series for label, history in told.items() if (series := by_group(history, metric))}
    if not found:
        return ""
    values = [v for series in found.values() for line in series.values() for v in line if math.isfinite(v)]
    limits = (0.0, 1.04 * max(values) or 1.0)
    ylabel = f"validation {metric.upper()}"
    drawn = [
        learning_figure(label, series, Frame(ylabel, limits, view.reports[label].best_epoch), n)
        for n, (label, series) in enumerate(found.items())
    ]
    groups = compared.groups(MAINSTREAM)
    rows, later, counted = _peaks(compared, groups, metric)
    answer = f"In {later} of {counted} runs {groups[0]} peaks after {groups[-1]}. " if counted else ""
    lead = (
        f"{answer}{_seed(view, list(found))} Dotted line: the epoch that was kept. The top of a flat curve "
        "is uncertain: read it as a hint."
    )
    head = ["model", *map(escape, groups), "epoch kept", "niche peaks later"]
    table = page.table("Epoch of each group's peak, median over the seeds", head, rows)
    return page.section(
        "Do niche users peak later?",
        page.paragraph(lead),
        _folded(drawn, "learning curves"),
        page.details("The epochs as a table, median over the seeds (earliest to latest)", table),
    )


def _peaks(compared: Compared, groups: Sequence[str], metric: str) -> tuple[list[list[str]], int, int]:
    """A row a label over all its runs; in how many runs the first group peaks after the last, of how many."""
    rows, later, counted = [], 0, 0
    for label, finished in compared.runs.items():
        runs = [(run, series) for run in finished if (series := by_group(run.history, metric))]
        if not runs:
            continue
        peaks = [{group: peak(line) for group, line in series.items()} for _, series in runs]
        both = [each for each in peaks if len(groups) > 1 and {groups[0], groups[-1]} <= set(each)]
        here = sum(each[groups[0]] > each[groups[-1]] for each in both)
        later, counted = later + here, counted + len(both)
        cells = [_range([each[group] for each in peaks if group in each]) for group in groups]
        kept = _range([run.best_epoch for run, _ in runs if run.best_epoch])
        answer = f"{here} of {len(both)} runs" if both else DASH
        rows.append([compared.named(label), *cells, kept, answer])
    return rows, later, counted


def _range(epochs: Sequence[int]) -> str:
    r"""Median of epochs, and from where to where they reach.

    >>> _range([7]), _range([5, 9, 7]), _range([])
    ('7', '7<small>5\u20139</small>', '\u2013')
    """
    if not epochs:
        return DASH
    middle = f"{median(epochs):g}"
    low, high = min(epochs), max(epochs)
    return middle if low == high else f"{middle}<small>{low}{DASH}{high}</small>"


def _weights(compared: Compared, view: View, told: Mapping[str, History]) -> str:
    drawn = weight_figures(told)
    if not drawn:
        return ""
    lead = (
        "Adaptive weights turn training to the users it still helps; until they start, all count 1. "
        f"{_seed(view, list(told))}"
    )
    return page.section("Whom training listens to", page.paragraph(lead), _folded(drawn, "weights"))


def _gates(compared: Compared, view: View, told: Mapping[str, History]) -> str:
    drawn, _ = gate_figures(view, told)
    if not drawn:
        return ""
    rows = []
    for label, runs in compared.runs.items():
        size = number(runs[0].config.get("n_experts"))
        ends = [number(row.get("gate_entropy")) for run in runs for row in run.history[-1:]]
        last = average(ends)
        if not size > 1 or not math.isfinite(last):
            continue
        top = math.log(size)
        flat = "flat: all experts count nearly the same" if last > FLAT * top else "some experts count more"
        rows.append([compared.named(label), f"{size:.0f}", decimal(last), decimal(top), flat])
    lead = (
        "A gate that tells experts apart has an entropy well below the logarithm of their number K. "
        f"{_seed(view, list(told))} The table: the last epoch, mean over the runs."
    )
    table = page.table("Gate entropy", ["model", "experts (K)", "entropy", "log K", "so the gate is"], rows)
    return page.section(
        "What the gate decides", page.paragraph(lead), table if rows else "", _folded(drawn, "gates")
    )


def _folded(drawn: Sequence[str], what: str) -> str:
    """Charts side by side, those past the first few behind a click."""
    rest = drawn[OPEN:]
    more = page.details(f"{len(rest)} more {what}", page.figures(rest)) if rest else ""
    return page.figures(drawn[:OPEN]) + more


def _seed(view: View, labels: Sequence[str]) -> str:
    """Which runs are drawn."""
    seeds = sorted({view.reports[label].seed for label in labels})
    if len(seeds) == 1:
        return f"Drawn: the run of seed {seeds[0]}."
    return f"Drawn: the first finished run of each model (seeds {', '.join(map(str, seeds))})."
