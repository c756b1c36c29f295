"""Quality against training time: one point a model, the front of the best, labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from greysheep.report.canvas import WIDTH, add_axes, canvas, inline_svg
from greysheep.report.label_places import Box, Line, Spot, place
from greysheep.report.palette import GRID, INK, MUTED, PAPER, Style
from greysheep.report.view import parts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = {
    0.01: "0.01 s",
    0.1: "0.1 s",
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3600: "1 h",
    36000: "10 h",
    360000: "100 h",
}
SOONEST = 0.01
"""Seconds below this are drawn here: nobody chooses a model for a hundredth of a second."""
LINE, LETTER, KEY = 12.0, 5.9, 12.0  # pixels of a line of a label, of a letter, of the marker before it
CROWD, MANY = 60.0, 8  # pixels between points, and a number of them, that could be taken for each other
NEAR = 0.75
"""Points below this share of the best mean would squeeze all others: they stand at the lower edge."""
LONGEST, MOST = 24, 4  # letters of a line, lines of a label


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


def scatter(points: Sequence[Point], ylabel: str, name: str, aria: str) -> str:
    """Inline SVG of points over a logarithmic axis of seconds."""
    height = 340 + 16 * max(0, len(points) - 6)
    with canvas(WIDTH, height) as figure:
        axes = add_axes(figure, left=46, right=24, top=30, bottom=42)
        _axes(axes, points, ylabel)
        steps = front(points)
        _front(axes, steps)
        for point in points:
            size = 9 if point.style.marker in "oDs" else 10.5
            x, y = _shown(axes, point)
            axes.plot(
                [x],
                [y],
                point.style.marker,
                color=point.style.colour,
                ms=size,
                mec=PAPER,
                mew=1,
                zorder=4,
                clip_on=False,
            )
        _labels(axes, points, steps)
        return inline_svg(figure, name, aria)


def lines_of(label: str) -> list[str]:
    """A label as the short lines of a chart: the name, then one setting a line.

    >>> lines_of("tall[gate=uniform,weighting=none]")
    ['tall', 'gate=uniform', 'weighting=none']
    """
    name, settings = parts_of(label)
    if len(settings) >= MOST:
        settings = [*settings[: MOST - 2], f"and {len(settings) - MOST + 2} more"]
    cut = [line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in (name, *settings)]
    return [line for line in cut if line.strip()] or ["?"]


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
    made = axes.annotate(ylabel, (0, 1), (-40, 16), "axes fraction", textcoords="offset points")
    made.set(color=MUTED, fontsize=10.5, va="center")


def _front(axes: Axes, steps: Sequence[Point]) -> None:
    """The best mean that any model reaches within a time."""
    times = [max(point.seconds, SOONEST) for point in steps]
    means = [point.mean for point in steps]
    axes.plot(
        [*times, axes.get_xlim()[1]],
        [*means, means[-1]],
        drawstyle="steps-post",
        color=MUTED,
        linewidth=1.2,
        dashes=(4, 3),
        zorder=1.5,
    )


def _labels(axes: Axes, points: Sequence[Point], steps: Sequence[Point]) -> None:
    """Each model's label near its point; a thin line joins them where they are apart."""
    at = [_pixels(axes, point) for point in points]
    # Where points are close to each other, the marker is repeated before the label.
    many = len(points) > MANY
    crowded = [many or sum(math.dist(spot, other) < CROWD for other in at) > 1 for spot in at]
    low = axes.get_ylim()[0]
    far = [[] if point.mean > low else [f"far below: {point.mean:.3f}"] for point in points]
    texts = [lines_of(point.label) + more for point, more in zip(points, far, strict=True)]
    sizes = [
        (LETTER * max(map(len, lines)) + (KEY if close else 0), LINE * len(lines))
        for lines, close in zip(texts, crowded, strict=True)
    ]
    frame = axes.bbox
    area = Box(frame.x0, frame.y0, frame.x1, frame.y1)
    boxes = place(at, sizes, area, _segments([_pixels(axes, point) for point in steps], frame.x1))
    for point, text, spot, close, box in zip(points, texts, at, crowded, boxes, strict=True):
        if box is not None:  # else there is no room left: the legend names it
            _label(axes, point, text, spot, box, close)


def _segments(corners: Sequence[Spot], end: float) -> list[Line]:
    """The straight parts of the front."""
    parts: list[Line] = []
    for (x, y), after in pairwise(corners):
        parts += [((x, y), (after[0], y)), ((after[0], y), after)]
    return [*parts, (corners[-1], (end, corners[-1][1]))]


def _label(axes: Axes, point: Point, text: Sequence[str], spot: Spot, box: Box, close: bool) -> None:
    """One label in its box, flush with the side that faces its point."""
    from matplotlib.transforms import IdentityTransform

    fixed = IdentityTransform()
    near = box.nearest(spot)
    if math.dist(near, spot) > 12:
        joint = axes.plot([spot[0], near[0]], [spot[1], near[1]], transform=fixed)
        joint[0].set(linewidth=0.9, color=point.style.colour, alpha=0.6, zorder=3)
    left = box.x1 > spot[0]
    edge, inward = (box.x0, 1) if left else (box.x1, -1)
    if close:
        sign = axes.plot([edge + inward * KEY / 2], [box.y1 - LINE / 2], point.style.marker, transform=fixed)
        sign[0].set(color=point.style.colour, markersize=6, markeredgewidth=0, zorder=5)
        edge += inward * KEY
    for n, words in enumerate(text):
        made = axes.annotate(words, (edge, box.y1 - LINE * (n + 0.5)), xycoords="figure pixels")
        made.set(va="center", ha="left" if left else "right", zorder=5)
        made.set(fontsize=10.5 if n == 0 else 9.5, color=INK if n == 0 else MUTED)


def _pixels(axes: Axes, point: Point) -> Spot:
    x, y = axes.transData.transform(_shown(axes, point))
    return float(x), float(y)


def _shown(axes: Axes, point: Point) -> Spot:
    """Where a point stands: far below the others at the lower edge, within a hundredth of a second there."""
    low, high = axes.get_ylim()
    return max(point.seconds, SOONEST), max(point.mean, low + 0.04 * (high - low))
