"""A search as a page and as a picture: validation NDCG by trial, then by each setting that was searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from greysheep.evaluation.numbers import decimal, number, seconds
from greysheep.report.canvas import canvas, file_of, inline_svg, picture_kind
from greysheep.report.html import Definitions, Figure, Section, Table, Text, document
from greysheep.report.palette import GRID, INK, MODELS, MUTED
from greysheep.system.files import write_bytes
from greysheep.tuning.result import Tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

CELL_WIDTH, CELL_HEIGHT = 220, 190
LOOKS = {"finished": ("o", MODELS[2][0]), "pruned": ("x", MUTED), "stopped": ("s", MODELS[1][0])}


def tuning_page(tuning: Tuning, title: str | None) -> str:
    """One self-contained HTML page: the best trial, the picture, the best trials as a table.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with _drawn(tuning, columns=2, text_as_paths=False) as drawing:
        aria = f"Validation NDCG by trial and by each setting that was searched. Best: {tuning}."
        chart = inline_svg(drawing, "trials", aria)
    note = "A ring: the best trial. Dashed: the model with its defaults."
    top = tuning.top().drop("value", "message")
    rows = [
        [_written(name, value, tuning.groups) for name, value in row.items()]
        for row in top.iter_rows(named=True)
    ]
    warning = "The best of many trials on validation rows is partly the luckiest: measure it on test rows."
    provenance = [("Model", tuning.model), ("Objective", tuning.objective), ("Protocol", tuning.protocol),
            ("Seed", str(tuning.seed)), ("Trials", f"{tuning.trials.height}, {tuning.finished} with a value"),
            ("Best settings", tuning.text)]  # fmt: skip
    sections = [
        Section("Trials and settings", [Figure(chart, "Validation NDCG", note)]),
        Section("The best trials", [Text(warning), Table("The best trials", top.columns, rows)]),
        Section("How it was made", [Definitions(provenance)]),
    ]
    best, _, settings = str(tuning).partition("; ")
    headline = f"{best[0].upper()}{best[1:]}."
    return document(title or f"greysheep tune, {tuning.model}", headline, settings, sections)


def write_picture(tuning: Tuning, path: Path | str) -> Path:
    """Write an .svg or .png; the trials of each state have their own marker, the best one a ring;
    a dashed line shows what the first trial, the defaults, reached.

    Raises:
        ConfigError: another ending.
        MissingExtraError: matplotlib is not installed.
    """
    path = Path(path).expanduser()
    kind = picture_kind(path)
    with _drawn(tuning, columns=3, text_as_paths=True) as drawing:
        return write_bytes(path, file_of(drawing, kind))


@contextmanager
def _drawn(tuning: Tuning, *, columns: int, text_as_paths: bool) -> Iterator[Drawing]:
    """The picture: a panel for the order of the trials, and one for each setting."""
    first = tuning.trials.columns.index("message") + 1
    names = ["number", *tuning.trials.columns[first:]]
    rows = -(-len(names) // columns)
    measured = tuning.trials.filter(pl.col("value").is_not_null())
    with canvas(columns * CELL_WIDTH, rows * CELL_HEIGHT, text_as_paths=text_as_paths) as figure:
        figure.set_layout_engine("constrained")
        for place, name in enumerate(names):
            axes = figure.add_subplot(rows, columns, place + 1)
            for mean in measured.filter(pl.col("number") == tuning.defaults)["mean"]:
                axes.axhline(mean, color=MUTED, linewidth=0.9, linestyle="--")
            _dots(axes, measured.filter(pl.col(name).is_not_null()), name, tuning.best_trial)
            if name in tuning.log_scaled:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter("{x:g}")
            axes.set_title("trial" if name == "number" else name, fontsize=11, color=INK, loc="left")
        figure.axes[0].set_ylabel("validation NDCG", fontsize=9, color=MUTED)
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside lower right", fontsize=9, ncols=3
        )
        yield figure


def _written(name: str, value: object, groups: Sequence[str]) -> str:
    """A cell of the table of trials."""
    if name == "mean" or name in groups:
        return decimal(number(value))
    if name == "seconds":
        return seconds(value)
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _dots(axes: Axes, trials: pl.DataFrame, name: str, best: int) -> None:
    """One panel, one marker per trial; options that are not numbers are spread evenly."""
    options = None
    if not trials[name].dtype.is_numeric() or trials[name].dtype == pl.Boolean:
        options = trials[name].cast(pl.String).unique().sort().to_list()
        trials = trials.with_columns(
            pl.col(name).cast(pl.String).replace_strict(options, list(range(len(options))))
        )
    for state, (marker, colour) in LOOKS.items():
        mine = trials.filter(pl.col("state") == state)
        if mine.height:
            axes.scatter(
                _plain(mine, name), _plain(mine, "mean"), s=18, marker=marker, color=colour, label=state
            )
    ring = trials.filter(pl.col("number") == best)
    axes.scatter(_plain(ring, name), _plain(ring, "mean"), s=90, facecolors="none", edgecolors=INK)
    if options is not None:
        axes.set_xticks(range(len(options)), options)
        axes.margins(x=0.3)
    else:
        axes.locator_params(axis="x", nbins=5, integer=trials[name].dtype.is_integer())
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=MUTED)


def _plain(trials: pl.DataFrame, name: str) -> list[Any]:
    return trials[name].to_list()
