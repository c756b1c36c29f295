"""Reports as plain text for a terminal or a pipe; nothing is measured here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import polars as pl

from greysheep.data.columns import GROUP
from greysheep.errors import ConfigError
from greysheep.evaluation.numbers import DASH, number, seconds


class _Report(Protocol):
    """What is read here of a `Report`, which prints itself through this file."""

    @property
    def label(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def overall(self) -> dict[str, Any]: ...
    @property
    def by_group(self) -> pl.DataFrame: ...
    @property
    def train_seconds(self) -> float: ...
    def gap(self) -> float: ...
    def ratio(self) -> float: ...


_R = TypeVar("_R", bound=_Report)


def text_table(reports: Sequence[_Report]) -> str:
    """Plain text for a terminal or a pipe: one row per model; groups niche first, mean, gap, ratio, seconds.

    Fits in 80 columns for labels of up to 14 characters. NDCG stands without its leading zero.

    Raises:
        ConfigError: There is no report, or they were made for lists of different lengths.
    """
    shown = by_label(reports)
    groups = [str(group) for group in reports[0].by_group[GROUP]]
    rows = [["model", *groups, "mean", "gap", "ratio", "seconds"]]
    for name, report in shown.items():
        means = dict(zip(map(str, report.by_group[GROUP]), report.by_group[report.metric], strict=True))
        overall = report.overall.get(report.metric)
        mean = overall.get("mean") if isinstance(overall, dict) else None
        values = [*(means.get(group) for group in groups), mean, report.gap()]
        cells = [_plain(number(value), 4) for value in values]
        rows.append([name, *cells, _plain(report.ratio(), 2), _ascii(seconds(report.train_seconds))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths)
    ends = {1, last - 4, last - 3, last - 1}  # a wider gap before groups, mean, gap and seconds
    lines = []
    for first, *rest in rows:
        line = first.ljust(widths[0])
        for n, cell in enumerate(rest, 1):
            line += ("  " if n in ends else " ") + cell.rjust(widths[n])
        lines.append(line)
    return "\n".join(lines)


def by_label(reports: Sequence[_R]) -> dict[str, _R]:
    """Reports that share a table, by unique label in the order given.

    Raises:
        ConfigError: There is no report, or they were made for lists of different lengths.
    """
    lengths = sorted({report.k for report in reports})
    if not lengths:
        raise ConfigError("there is no report to show: give at least one")
    if len(lengths) > 1:
        listed = ", ".join(map(str, lengths))
        raise ConfigError(f"reports of different k ({listed}) cannot share a table: use one k")
    return dict(zip(_labels(reports), reports, strict=True))


def _labels(reports: Sequence[_Report]) -> list[str]:
    """One name a report: its label, with the seed, and a number, where several would share it."""
    shared = Counter(report.label for report in reports)
    names: list[str] = []
    for report in reports:
        name = report.label if shared[report.label] == 1 else f"{report.label}, seed {report.seed}"
        same = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other, numbers to the right; a row of two cells is a model with a message."""
    full = [row for row in rows if len(row) > 2]
    first = max(len(row[0]) for row in rows)
    widths = [max(map(len, column)) for column in list(zip(*full, strict=True))[1:]]
    lines = []
    for row in rows:
        cells = [row[1]] if len(row) == 2 else [c.rjust(w) for c, w in zip(row[1:], widths, strict=True)]
        lines.append("  ".join([row[0].ljust(first), *cells]).replace(DASH, "-").rstrip())
    return lines


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; short rows are filled up."""
    full = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    lines = [list(head), ["---"] * len(head), *full]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _plain(value: float, places: int) -> str:
    """A number without the zero before its point; a hyphen where there is none.

    >>> _plain(0.25, 4), _plain(1.0, 2), _plain(float("nan"), 4)
    ('.2500', '1.00', '-')
    """
    if not math.isfinite(value):
        return "-"
    text = f"{value:.{places}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _ascii(text: str) -> str:
    return text.replace(DASH, "-")
