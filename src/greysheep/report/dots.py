"""The dot plot of means with their intervals, for the page and as a picture of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from greysheep.evaluation.numbers import MINUS, percent
from greysheep.report.canvas import WIDTH, add_axes, canvas, file_of, inline_svg, note
from greysheep.report.palette import BAND, GRID, INK, MUTED, PAPER, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 19
"""Letters of a row's name."""
EDGE = ("axes fraction", "data")


@dataclass(frozen=True)
class Dots:
    """Rows from top to bottom as (name, note), and for each model one (mean, low, high) per row."""

    rows: Sequence[tuple[str, str]]
    values: Mapping[str, Sequence[tuple[float, float, float]]]
    styles: Mapping[str, Style]
    label: str
    limits: tuple[float, float]
    levels: Sequence[tuple[float, bool]] = ()
    """Values to read the dots against, and whether their line is dashed."""
    shares: bool = False
    """Whether the values are shares, which the axis shows as percentages."""

    @property
    def letters(self) -> int:
        """Letters of the longest name of a row, as it is drawn."""
        return max((len(shortened(name)) for name, _ in self.rows), default=0)

    @property
    def height(self) -> float:
        """Pixels that keep the lanes of the models apart."""
        return 50 + len(self.rows) * max(46, 14 * len(self.values) + 12)


def shortened(name: str) -> str:
    """A name that leaves room for its row.

    >>> shortened("customers since 2019, north")
    'customers since 20\u2026'
    """
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def axis_of(bounds: Sequence[float]) -> tuple[float, float]:
    """Range of an axis; it starts at zero unless that left the first third of it empty."""
    finite = [value for value in bounds if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    margin = 0.04 * ((high - low) or 1.0)
    return (0.0 if low < high / 3 else low - margin), high + margin


def dot_plot(dots: Dots, name: str, aria: str) -> Markup:
    """Inline SVG of a dot plot."""
    with canvas(WIDTH, dots.height) as figure:
        _draw(figure, dots, left=max(84, dots.letters * 7 + 20), top=8)
        return inline_svg(figure, name, aria)


def picture(dots: Dots, kind: str, title: str) -> bytes:
    """The dot plot as a file, `svg` or `png`, with title and legend, on white, its text drawn as paths."""
    width = 720
    columns = max(1, min(5, (width - 20) // (48 + 8 * max(map(len, dots.values)))))
    legend = 22 * math.ceil(len(dots.values) / columns)
    height = 52 + legend + dots.height
    with canvas(width, height, text_as_paths=True) as figure:
        _draw(figure, dots, left=max(104, dots.letters * 8 + 20), top=50 + legend)
        figure.text(14 / width, 1 - 16 / height, title, fontsize=14.5, weight="bold", va="top")
        _legend(figure, dots, columns, (4 / width, 1 - 36 / height))
        return file_of(figure, kind)


def _draw(figure: Figure, dots: Dots, *, left: float, top: float) -> None:
    """One band per row and in it one lane per model, the first model on top."""
    axes = add_axes(figure, left=left, right=14, top=top, bottom=42)
    for row, (name, facts) in enumerate(dots.rows):
        if row % 2 == 0:
            axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
        note(
            axes, shortened(name), (0, row), (-8, 7 if facts else 0), EDGE, color=INK, fontsize=12, ha="right"
        )
        note(axes, facts, (0, row), (-8, -8), EDGE, ha="right")
    lanes = len(dots.values)
    for lane, (label, values) in enumerate(dots.values.items()):
        style = dots.styles[label]
        shift = (lane - (lanes - 1) / 2) * 0.8 / max(lanes, 2)
        for row, (mean, low, high) in enumerate(values):
            if not math.isfinite(mean):
                continue
            y = row + shift
            if mean < dots.limits[0]:
                _beyond(axes, y, f"{mean:+.0%}" if dots.shares else f"{mean:.2f}", style)
                continue
            axes.plot([low, high], [y, y], color=style.colour, linewidth=2, solid_capstyle="butt")
            size = 8 if style.marker in "oDs" else 9.5
            axes.plot([mean], [y], style.marker, color=style.colour, ms=size, mec=PAPER, mew=1)
    axes.set_ylim(len(dots.rows) - 0.5, -0.5)
    axes.set_xlim(*dots.limits)
    axes.set_yticks([])
    axes.grid(axis="x", color=GRID, linewidth=0.8, zorder=0.5)
    axes.set_xlabel(dots.label, color=MUTED, labelpad=6)
    for value, dashed in dots.levels:
        axes.axvline(value, color=MUTED, linewidth=1.2, dashes=(4, 3) if dashed else (), zorder=0.8)
    if dots.shares:
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter(lambda share, _: _tick(share))


def _tick(share: float) -> str:
    """A share on an axis.

    >>> _tick(-0.05), _tick(0.025), _tick(0.0)
    ('\N{MINUS SIGN}5 %', '+2.5 %', '0')
    """
    if abs(share) < 1e-9:
        return "0"
    return percent(share, 0 if abs(100 * share - round(100 * share)) < 1e-6 else 1, sign=True)


def _beyond(axes: Axes, y: float, text: str, style: Style) -> None:
    """A value left of the axis, named at its edge."""
    axes.plot([0.012], [y], "<", color=style.colour, ms=6.5, transform=axes.get_yaxis_transform())
    words = text.replace("-", MINUS).replace("%", " %")
    note(axes, words, (0, y), (14, 0), EDGE, fontsize=9.5)


def _legend(figure: Figure, dots: Dots, columns: int, corner: tuple[float, float]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linewidth=2, markersize=7.5)
        for style in (dots.styles[label] for label in dots.values)
    ]
    figure.legend(
        handles, list(dots.values), loc="upper left", bbox_to_anchor=corner, ncols=columns, frameon=False,
        fontsize=12, handlelength=1.6, columnspacing=1.6,
    )  # fmt: skip
