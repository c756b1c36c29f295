"""The sections of a page that follow training epoch by epoch: learning curves, weights, gates.

Drawn is the first finished run of each label; tables count all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from greysheep.evaluation.numbers import DASH, decimal, number
from greysheep.evaluation.report import Report
from greysheep.report.html import Cell, Content, Details, Figure, Figures, Section, Table, Text
from greysheep.report.lines import Curve, Frame, line_chart
from greysheep.report.palette import GROUP_COLOURS
from greysheep.report.sentences import sentence
from greysheep.report.view import MAINSTREAM, Row, View, average, finite

FLAT = 0.99  # of the largest entropy: all experts count nearly the same
WIDEST = 16  # letters of a label that fits beside its curve

LISTENS, DECIDES = "Whom training listens to", "What the gate decides"

Series = dict[str, list[float]]


def training_sections(view: View) -> list[Section]:
    """Validation by group, weights, gates: a section for each that has something to show."""
    drawn = {label: runs[0] for label, runs in view.runs.items() if runs[0].history}
    weights, gates, ends = _weights(view, drawn), *_gates(view, drawn)
    sections = [_learning(view, drawn)]
    if view.comparison is None:
        leads = [sentence("weights", drawn="")] if weights else []
        leads += [sentence("gates", ends=ends, drawn="")] if gates else []
        both = [Text(" ".join(leads)), Figures([*weights, *gates], "charts")]
        sections += [Section(LISTENS if weights else DECIDES, both) if weights or gates else None]
    else:
        if weights:
            lead = Text(sentence("weights", drawn=_seed(drawn, drawn)))
            sections += [Section(LISTENS, [lead, Figures(weights, "weights")])]
        if gates:
            lead = Text(sentence("gates", ends=(), drawn=_seed(drawn, drawn)))
            sections += [Section(DECIDES, [lead, _gate_table(view), Figures(gates, "gates")])]
    return [section for section in sections if section is not None]


def by_group(history: Sequence[Row], key: str) -> Series:
    """Values of one key by epoch for each group that has any, groups in the order of the history.

    >>> by_group([{"by_group": {"low": {"weight": 1.0}, "high": {}}}], "weight")
    {'low': [1.0]}
    """
    groups = list(history[0].get("by_group", {})) if history else []
    series = {g: [number(row.get("by_group", {}).get(g, {}).get(key)) for row in history] for g in groups}
    return {group: values for group, values in series.items() if any(map(math.isfinite, values))}


def peak(values: Sequence[float]) -> int:
    """Epoch (from 1) of the highest value, the first of equals, NaN left out.

    >>> peak([0.1, float("nan"), 0.3, 0.3])
    3
    """
    return max(range(len(values)), key=lambda n: values[n] if math.isfinite(values[n]) else -math.inf) + 1


def _learning(view: View, drawn: Mapping[str, Report]) -> Section | None:
    """Validation by epoch and group, and in which epoch each group is at its peak."""
    # Training always follows NDCG@20, also where lists of another length are reported.
    metrics = (f"ndcg@{view.k}", "ndcg@20")
    metric = next((m for m in metrics if any(by_group(run.history, m) for run in drawn.values())), "")
    series_of = {label: series for label, run in drawn.items() if (series := by_group(run.history, metric))}
    if not series_of:
        return None
    top = max(finite(value for series in series_of.values() for line in series.values() for value in line))
    figures = [
        _learning_figure(view.short[label], series, metric, 1.04 * top or 1.0, drawn[label].best_epoch, n)
        for n, (label, series) in enumerate(series_of.items())
    ]
    groups = view.groups(view.main)
    head = ["model", *groups, "epoch kept"]
    rows, later, counted = _peaks(view, groups, metric)
    if view.comparison is None:
        answers = [
            _later(view.short[label], series, len(drawn[label].history))
            for label, series in series_of.items()
            if len(series) > 1
        ]
        lead = sentence("peaks_of_reports", answers=answers)
        summary, caption = "The epochs as a table", "Epoch of each group's peak"
        rows = [row[:-1] for row in rows]
    else:
        runs = {"later": later, "counted": counted, "groups": groups}
        lead = sentence("peaks_of_runs", drawn=_seed(drawn, series_of), **runs)
        caption = "Epoch of each group's peak, median over the seeds"
        summary = "The epochs as a table, median over the seeds (earliest to latest)"
        head.append("niche peaks later")
    table = Details(summary, [Table(caption, head, rows)])
    if view.main != MAINSTREAM:
        lead = sentence("peaks_of_own", drawn=_seed(drawn, series_of))
        return Section("When each group is at its peak", [Text(lead), Figures(figures, "learning curves")])
    return Section("Do niche users peak later?", [Text(lead), Figures(figures, "learning curves"), table])


def _learning_figure(name: str, series: Series, metric: str, top: float, kept: int, n: int) -> Figure:
    """Validation by epoch of one model, one curve per group."""
    peaks = {group: peak(line) for group, line in series.items()}
    curves = [
        Curve(f"{group}, {peaks[group]}", line, GROUP_COLOURS[g % 5][0], peaks[group])
        for g, (group, line) in enumerate(series.items())
    ]
    listed = ", ".join(f"{group} {epoch}" for group, epoch in peaks.items())
    frame = Frame(f"validation {metric.upper()}", (0.0, top), kept)
    aria = f"{frame.ylabel} of {name} by epoch. Epoch of each group's peak: {listed}. Kept: {kept}."
    chart = line_chart(curves, frame, f"validation{n}", aria)
    return Figure(chart, name, "Dot and number: the epoch in which a group is at its peak.")


def _later(name: str, series: Series, epochs: int) -> str:
    """Compare the peaks of the most niche and the most mainstream group."""
    (niche, first), *_, (mainstream, last) = ((group, peak(line)) for group, line in series.items())
    answer = "yes" if first > last else "no" if first < last else "no difference"
    return f"{name}: {answer} ({niche} in epoch {first}, {mainstream} in {last}, of {epochs})."


def _peaks(view: View, groups: Sequence[str], metric: str) -> tuple[list[list[Content]], int, int]:
    """One row per label; in how many runs the first group peaks after the last; in how many both peak."""
    rows: list[list[Content]] = []
    later = counted = 0
    for label, finished in view.runs.items():
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
        rows.append([view.named(label), *cells, kept, answer])
    return rows, later, counted


def _range(epochs: Sequence[int]) -> Cell:
    """Median of epochs, and from where to where they reach."""
    if not epochs:
        return Cell(DASH)
    low, high = min(epochs), max(epochs)
    return Cell(f"{median(epochs):g}", notes=[(f"{low}{DASH}{high}", "")] if low < high else [])


def _weights(view: View, drawn: Mapping[str, Report]) -> list[Figure]:
    """One figure for each model with adaptive weights: their mean by group over the epochs."""
    figures = []
    for n, (label, run) in enumerate(drawn.items()):
        series = by_group(run.history, "weight")
        values = finite(value for line in series.values() for value in line)
        if not any(abs(value - 1) > 1e-6 for value in values):
            continue  # no adaptive weights, or training ended before they began
        name = view.short[label]
        curves = [
            Curve(group, line, GROUP_COLOURS[g % 5][0]) for g, (group, line) in enumerate(series.items())
        ]
        ends = ", ".join(f"{group} {decimal(line[-1], 2)}" for group, line in series.items())
        aria = f"Mean training weight of {name} by epoch and group. In the last epoch: {ends}."
        chart = line_chart(curves, Frame("mean weight", level=(1.0, ""), height=260), f"weights{n}", aria)
        note = "Mean over a group's users; dashed: all count the same."
        figures.append(Figure(chart, f"Weights of {name}", note))
    return figures


def _gates(view: View, drawn: Mapping[str, Report]) -> tuple[list[Figure], list[str]]:
    """Gate entropy by epoch below its largest value, log K: one figure per K, one sentence per model."""
    sizes: dict[int, dict[str, list[float]]] = {}
    for label, run in drawn.items():
        line = [number(row.get("gate_entropy")) for row in run.history]
        if (size := int(run.config.get("n_experts", 1))) > 1 and finite(line):
            sizes.setdefault(size, {})[label] = line
    figures, sentences = [], []
    for size, lines in sizes.items():
        top = math.log(size)
        ends = {label: finite(line)[-1] for label, line in lines.items()}
        ends_in_words = [
            f"{view.short[label]} ends at {end:.4f} of {top:.4f}: {_flat(end, top).replace(':', ',')}."
            for label, end in ends.items()
        ]
        figures.append(_gate_figure(view, size, lines, f"Gate entropy by epoch. {' '.join(ends_in_words)}"))
        sentences += ends_in_words
    return figures, sentences


def _gate_table(view: View) -> Table | None:
    """The entropy of each gate in the last epoch, beside the largest that it could have."""
    rows: list[list[Content]] = []
    for label, runs in view.runs.items():
        size = number(runs[0].config.get("n_experts"))
        last = average(number(row.get("gate_entropy")) for run in runs for row in run.history[-1:])
        if size > 1 and math.isfinite(last):
            top = math.log(size)
            rows.append([view.named(label), f"{size:.0f}", decimal(last), decimal(top), _flat(last, top)])
    head = ["model", "experts (K)", "entropy", "log K", "so the gate is"]
    return Table("Gate entropy", head, rows) if rows else None


def _gate_figure(view: View, size: int, lines: Mapping[str, Sequence[float]], aria: str) -> Figure:
    """Entropy by epoch of all gates over as many experts; names that are too long go to a legend."""
    top = math.log(size)
    beside = max(len(view.short[label]) for label in lines) < WIDEST
    curves = [
        Curve(view.short[label] if beside else "", line, view.styles[label].colour)
        for label, line in lines.items()
    ]
    level = (top, f"log {size} = {top:.3f}: all experts count the same")
    frame = Frame("gate entropy", (0, 1.2 * top), level=level, height=260)
    chart = line_chart(curves, frame, f"gate{size}", aria)
    names = [] if beside else [view.name(label) for label in lines]
    return Figure(chart, f"Gate of {size} experts", "Mean entropy over the users, on validation.", names)


def _flat(entropy: float, top: float) -> str:
    """Whether a gate tells experts apart."""
    flat = entropy > FLAT * top
    return "flat: all experts count nearly the same" if flat else "some experts count more"


def _seed(drawn: Mapping[str, Report], labels: Iterable[str]) -> str:
    """Which runs are drawn."""
    seeds = sorted({drawn[label].seed for label in labels})
    if len(seeds) == 1:
        return f"Drawn: the run of seed {seeds[0]}."
    return f"Drawn: the first finished run of each model (seeds {', '.join(map(str, seeds))})."
