"""Quality against training time: one point per model, and the front of the best ones.

A legend names the points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from greysheep.report.canvas import WIDTH, add_axes, canvas, inline_svg, note
from greysheep.report.palette import GRID, MUTED, PAPER, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = {
    0.01: "0.01 s", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h",
    36000: "10 h", 360000: "100 h",
}  # fmt: skip
SOONEST = 0.01
"""Shorter times are drawn here: a hundredth of a second decides nothing."""
NEAR = 0.75
"""Points below this share of the best mean stand at the lower edge: they would squeeze all others."""


@dataclass(frozen=True)
class Point:
    """A model: its label, seconds of training, mean, style."""

    label: str
    seconds: float
    mean: float
    style: Style


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other one beats in both time and quality, the fastest first.

    >>> style = Style(0, "o")
    >>> points = [Point("a", 1, 0.2, style), Point("b", 2, 0.1, style), Point("c", 3, 0.3, style)]
    >>> [point.label for point in front(points)]
    ['a', 'c']
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.seconds, -point.mean)):
        if not kept or point.mean > kept[-1].mean:
            kept.append(point)
    return kept


def scatter(points: Sequence[Point], ylabel: str, name: str, aria: str) -> tuple[Markup, list[Point]]:
    """Inline SVG of points over a logarithmic axis of seconds; also those that stand at its lower edge."""
    with canvas(WIDTH, 300) as figure:
        axes = add_axes(figure, left=46, right=24, top=30, bottom=42)
        _axes(axes, points, ylabel)
        low, high = axes.get_ylim()
        _front(axes, front(points))
        for point in points:
            x, y = max(point.seconds, SOONEST), max(point.mean, low + 0.09 * (high - low))
            if point.mean <= low:
                axes.annotate("", (x, low), (x, y), arrowprops={"arrowstyle": "->", "color": MUTED})
            marker = axes.plot([x], [y], point.style.marker, color=point.style.colour)
            size = 9 if point.style.marker in "oDs" else 10.5
            marker[0].set(markersize=size, mec=PAPER, mew=1, zorder=4, clip_on=False)
        return inline_svg(figure, name, aria), [point for point in points if point.mean <= low]


def _axes(axes: Axes, points: Sequence[Point], ylabel: str) -> None:
    """Ranges with room at the edges, ticks in the units of a reader, names."""
    times = [math.log10(max(point.seconds, SOONEST)) for point in points]
    wide = 0.1 * max(max(times) - min(times), 1.0)
    axes.set_xscale("log")
    axes.set_xlim(10 ** (min(times) - wide), 10 ** (max(times) + 2 * wide))
    high = max(point.mean for point in points)
    low = min(point.mean for point in points if point.mean >= NEAR * high)
    tall = 0.14 * max(high - low, 0.05 * abs(high), 1e-4)
    axes.set_ylim(low - 1.5 * tall, high + tall)
    left, right = axes.get_xlim()
    ticks = [tick for tick in TICKS if left <= tick <= right]
    axes.xaxis.set_ticks(ticks, [TICKS[tick] for tick in ticks])
    axes.xaxis.set_ticks([], minor=True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_xlabel("time of training", color=MUTED, labelpad=6)
    note(axes, ylabel, (0, 1), (-40, 16), ("axes fraction", "axes fraction"))


def _front(axes: Axes, steps: Sequence[Point]) -> None:
    """The best mean that any model reaches within a time."""
    times = [max(point.seconds, SOONEST) for point in steps]
    means = [point.mean for point in steps]
    line = axes.plot([*times, axes.get_xlim()[1]], [*means, means[-1]], drawstyle="steps-post")
    line[0].set(color=MUTED, linewidth=1.2, dashes=(4, 3), zorder=1.5)
