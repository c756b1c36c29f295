"""The sections of a page that follow training epoch by epoch, and what training cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from greysheep.evaluation.numbers import DASH, decimal, number, seconds
from greysheep.report import html as page
from greysheep.report.lines import Curve, Frame, line_chart
from greysheep.report.palette import GROUPS
from greysheep.report.single_view import View

History = Sequence[Mapping[str, Any]]
Series = dict[str, list[float]]


def training_sections(view: View, histories: Mapping[str, History]) -> list[str]:
    """Validation by group, weights and gate, cost; an empty text for each that has nothing to show."""
    return [_validation(view, histories), _weights_and_gate(view, histories), _cost(view)]


def by_group(history: History, key: str) -> Series:
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


def _validation(view: View, histories: Mapping[str, History]) -> str:
    # Training always follows NDCG@20, also where lists of another length are reported.
    metric = next(
        (m for m in (view.metric, "ndcg@20") if any(by_group(h, m) for h in histories.values())), ""
    )
    found = {name: series for name, history in histories.items() if (series := by_group(history, metric))}
    if not found:
        return ""
    values = [value for series in found.values() for line in series.values() for value in line]
    limits = (0.0, 1.04 * max(filter(math.isfinite, values)) or 1.0)
    drawn, rows, answers = [], [], []
    for n, (name, series) in enumerate(found.items()):
        peaks = {group: peak(line) for group, line in series.items()}
        kept = view.reports[name].best_epoch
        drawn.append(learning_figure(name, series, Frame(f"validation {metric.upper()}", limits, kept), n))
        epochs = [str(peaks.get(group, DASH)) for group in view.groups]
        rows.append([escape(name), *epochs, str(kept or DASH)])
        answers.append(_later(name, peaks, len(histories[name])))
    answers.append("One run each, and the top of a flat curve is uncertain: read it as a hint.")
    head = ["model", *map(escape, view.groups), "epoch kept"]
    return page.section(
        "Do niche users peak later?",
        page.paragraph(" ".join(answers)),
        page.figures(drawn),
        page.details("The epochs as a table", page.table("Epoch of each group's peak", head, rows)),
    )


def learning_figure(name: str, series: Series, frame: Frame, n: int) -> str:
    """Validation by epoch of one model, a curve a group."""
    peaks = {group: peak(line) for group, line in series.items()}
    curves = [
        Curve(f"{group}, {peaks[group]}", line, GROUPS[g % 5][0], peaks[group])
        for g, (group, line) in enumerate(series.items())
    ]
    told = ", ".join(f"{group} {epoch}" for group, epoch in peaks.items())
    aria = f"{frame.ylabel} of {name} by epoch. Epoch of each group's peak: {told}. Kept: {frame.kept}."
    chart = line_chart(curves, frame, f"validation{n}", aria)
    return page.figure(chart, name, "Dot and number: the epoch in which a group is at its peak.")


def _later(name: str, peaks: Mapping[str, int], epochs: int) -> str:
    """Compare the peaks of the most niche and the most mainstream group."""
    (niche, first), *_, (mainstream, last) = peaks.items()
    answer = "yes" if first > last else "no" if first < last else "no difference"
    return f"{name}: {answer} ({niche} in epoch {first}, {mainstream} in {last}, of {epochs})."


def _weights_and_gate(view: View, histories: Mapping[str, History]) -> str:
    weights = weight_figures(histories)
    gates, said = gate_figures(view, histories)
    if not weights and not gates:
        return ""
    lead = []
    if weights:
        lead.append(
            "Adaptive weights turn training to the users it still helps; until they start, all count 1."
        )
    if gates:
        lead.append(
            "A gate that tells experts apart has an entropy well below the logarithm of their number."
        )
    return page.section(
        "Whom training listens to" if weights else "What the gate decides",
        page.paragraph(" ".join(lead + said)),
        page.figures(weights + gates),
    )


def weight_figures(histories: Mapping[str, History]) -> list[str]:
    """One figure for each model with adaptive weights: their mean by group over the epochs."""
    drawn = []
    for n, (name, history) in enumerate(histories.items()):
        series = by_group(history, "weight")
        values = [value for line in series.values() for value in line if math.isfinite(value)]
        if not any(abs(value - 1) > 1e-6 for value in values):
            continue  # no adaptive weights, or training ended before they began
        curves = [Curve(group, line, GROUPS[g % 5][0]) for g, (group, line) in enumerate(series.items())]
        ends = ", ".join(f"{group} {decimal(line[-1], 2)}" for group, line in series.items())
        aria = f"Mean training weight of {name} by epoch and group. In the last epoch: {ends}."
        frame = Frame("mean weight", level=(1.0, ""), height=260)
        chart = line_chart(curves, frame, f"weights{n}", aria)
        drawn.append(
            page.figure(chart, f"Weights of {name}", "Mean over a group's users; dashed: all count the same.")
        )
    return drawn


def gate_figures(view: View, histories: Mapping[str, History]) -> tuple[list[str], list[str]]:
    """Gate entropy by epoch below its largest value, log K: one figure for each K, one sentence a model."""
    found = {
        name: [number(row.get("gate_entropy")) for row in history] for name, history in histories.items()
    }
    found = {name: line for name, line in found.items() if any(map(math.isfinite, line))}
    sizes: dict[int, list[str]] = {}
    for name in found:
        sizes.setdefault(int(view.reports[name].config.get("n_experts", 1)), []).append(name)
    drawn, said = [], []
    for experts, names in sizes.items():
        if experts < 2:
            continue
        top = math.log(experts)
        last = {
            name: next(value for value in reversed(found[name]) if math.isfinite(value)) for name in names
        }
        sentences = [_flat(name, value, top) for name, value in last.items()]
        longest = max(map(len, names))
        curves = [
            Curve(name if longest < 16 else "", found[name], view.styles[name].colour) for name in names
        ]
        level = (top, f"log {experts} = {top:.3f}: all experts count the same")
        frame = Frame("gate entropy", (0, 1.2 * top), level=level, height=260)
        chart = line_chart(curves, frame, f"gate{experts}", f"Gate entropy by epoch. {' '.join(sentences)}")
        if longest >= 16:
            chart += page.legend({name: view.styles[name] for name in names})
        drawn.append(
            page.figure(chart, f"Gate of {experts} experts", "Mean entropy over the users, on validation.")
        )
        said += sentences
    return drawn, said


def _flat(name: str, value: float, top: float) -> str:
    verdict = "flat, all experts count nearly the same" if value / top > 0.99 else "some experts count more"
    return f"{name} ends at {value:.4f} of {top:.4f}: {verdict}."


def _cost(view: View) -> str:
    rows = []
    for name, report in view.reports.items():
        memory = number(report.peak_memory_bytes)
        cells = [
            escape(seconds(report.train_seconds)),
            str(report.epochs or DASH),
            str(report.best_epoch or DASH),
            f"{memory / 2**20:,.0f}" if memory > 0 else DASH,
            decimal(number(report.gate_entropy)),
        ]
        rows.append([page.name_with_key(name, view.styles), *cells])
    if all(cell == DASH for row in rows for cell in row[1:]):
        return ""
    head = ["model", "seconds", "epochs", "epoch kept", "peak memory (MiB)", "gate entropy"]
    note = "Peak memory is the highest of the process so far: a model trained after others includes theirs."
    return page.section(
        "What training cost", page.paragraph(note), page.table("Cost of training", head, rows)
    )
