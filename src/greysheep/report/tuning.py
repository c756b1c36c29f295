"""A picture of a search: validation NDCG by trial, then by each setting that was searched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from greysheep.errors import ConfigError
from greysheep.report.canvas import canvas
from greysheep.report.palette import GRID, INK, MODELS, MUTED
from greysheep.system.files import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from greysheep.tuning.result import Tuning

COLUMNS, CELL_WIDTH, CELL_HEIGHT = 3, 220, 190
LOOKS = {"finished": ("o", MODELS[2][0]), "pruned": ("x", MUTED), "stopped": ("s", MODELS[1][0])}


def write_picture(found: Tuning, path: Path) -> Path:
    """Write an .svg or .png; the trials of each state have their own marker, the best one a ring;
    a dashed line shows what the first trial, the defaults, reached.

    Raises:
        ConfigError: another ending.
        MissingExtraError: matplotlib is not installed.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise ConfigError(f"picture {path} ends in {path.suffix or 'nothing'!r}: use .svg or .png")
    first = found.trials.columns.index("message") + 1
    names = ["number", *found.trials.columns[first:]]
    rows = -(-len(names) // COLUMNS)
    measured = found.trials.filter(pl.col("value").is_not_null())
    with canvas(COLUMNS * CELL_WIDTH, rows * CELL_HEIGHT, text_as_paths=True) as figure:
        figure.set_layout_engine("constrained")
        for place, name in enumerate(names):
            axes = figure.add_subplot(rows, COLUMNS, place + 1)
            for mean in measured.filter(pl.col("number") == found.defaults)["mean"]:
                axes.axhline(mean, color=MUTED, linewidth=0.9, linestyle="--")
            _dots(axes, measured.filter(pl.col(name).is_not_null()), name, found.best_trial)
            if name in found.log_scaled:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter("{x:g}")
            axes.set_title("trial" if name == "number" else name, fontsize=11, color=INK, loc="left")
        figure.axes[0].set_ylabel("validation NDCG", fontsize=9, color=MUTED)
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside lower right", fontsize=9, ncols=3
        )
        with new_file(path) as draft:
            figure.savefig(draft, format=kind, dpi=144, facecolor="white")
    return path


def _dots(axes: Axes, trials: pl.DataFrame, name: str, best: int) -> None:
    """One panel: a marker a trial; what is not a number stands at places of its own."""
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
