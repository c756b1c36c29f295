"""Curves by epoch with their labels at the right end, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from greysheep.report.canvas import WIDTH, add_axes, canvas, inline_svg, note
from greysheep.report.palette import GRID, INK, MUTED, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PATCH = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
"""Paper behind a note, which covers the grid."""

LEADER = {"arrowstyle": "-", "shrinkA": 2, "shrinkB": 5, "relpos": (0, 0.5)}


@dataclass(frozen=True)
class Curve:
    """One line: the label at its right end, values from epoch 1 on, colour, an epoch that carries a dot."""

    label: str
    values: Sequence[float]
    colour: str
    mark: int | None = None


@dataclass(frozen=True)
class Frame:
    """What surrounds the curves: axis name and range, the epoch kept, a level to read them against."""

    ylabel: str
    limits: tuple[float, float] | None = None
    kept: int | None = None
    level: tuple[float, str] | None = None
    height: float = 280


def line_chart(curves: Sequence[Curve], frame: Frame, name: str, aria: str) -> Markup:
    """Inline SVG of curves by epoch."""
    longest = max((len(curve.label) for curve in curves), default=0)
    with canvas(WIDTH, frame.height) as figure:
        axes = add_axes(figure, left=42, right=18 + 6.4 * longest if longest else 14, top=32, bottom=42)
        axes.set_xlim(1, max(2, *(len(curve.values) for curve in curves)))
        for curve in curves:
            epochs = range(1, len(curve.values) + 1)
            axes.plot(epochs, curve.values, color=curve.colour, linewidth=2, clip_on=False)
            if curve.mark is not None:
                top = [curve.values[curve.mark - 1]]
                dot = axes.plot([curve.mark], top, "o", color=curve.colour, ms=8, mec=PAPER, mew=1.5)
                dot[0].set(clip_on=False, zorder=5)
        if frame.limits is not None:
            axes.set_ylim(*frame.limits)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        _surroundings(axes, frame)
        _end_labels(axes, curves, frame.height - 74)
        return inline_svg(figure, name, aria)


def _surroundings(axes: Axes, frame: Frame) -> None:
    """Axis names, the level, the epoch kept."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("epoch", color=MUTED, labelpad=6)
    note(axes, frame.ylabel, (0, 1), (-38, 16), ("axes fraction", "axes fraction"), bbox=PATCH)
    if frame.level is not None:
        value, text = frame.level
        axes.axhline(value, color=MUTED, linewidth=1.2, dashes=(4, 3), zorder=1.5)
        if text:
            note(axes, text, (0, value), (4, 10), ("axes fraction", "data"), bbox=PATCH)
    if frame.kept:
        axes.axvline(frame.kept, color=MUTED, linewidth=1.2, dashes=(1, 2), zorder=1.5)
        side = "right" if frame.kept > 0.9 * axes.get_xlim()[1] else "center"  # clear of the curves' labels
        at = (frame.kept, 1)
        note(axes, f"kept: {frame.kept}", at, (0, 8), ("data", "axes fraction"), ha=side, bbox=PATCH)


def _end_labels(axes: Axes, curves: Sequence[Curve], pixels: float) -> None:
    """Each curve's label right of its last value, a line of text apart, joined to it by a thin line."""
    low, high = axes.get_ylim()
    ends = [_last(curve.values) for curve in curves]
    heights = [(value - low) / (high - low) * pixels for _, value in ends]
    for curve, end, height, place in zip(curves, ends, heights, spread(heights, 14, pixels), strict=True):
        if not curve.label:
            continue
        leader = {**LEADER, "color": curve.colour}
        offset = (16, place - height)
        note(axes, curve.label, end, offset, ("data", "data"), color=INK, fontsize=11, leader=leader)


def _last(values: Sequence[float]) -> tuple[int, float]:
    """Epoch and value of the last finite value."""
    return next((n + 1, values[n]) for n in reversed(range(len(values))) if math.isfinite(values[n]))


def spread(heights: Sequence[float], gap: float, size: float) -> list[float]:
    """Positions near `heights`, in the same order, at least `gap` apart, at most `size`.

    >>> spread([0.0, 1.0, 50.0], 10.0, 100.0)
    [0.0, 10.0, 50.0]
    >>> spread([99.0, 100.0], 10.0, 100.0)
    [90.0, 100.0]
    """
    order = sorted(range(len(heights)), key=lambda n: heights[n])
    moved = list(heights)
    below = -math.inf
    for n in order:
        below = moved[n] = max(heights[n], below + gap)
    above = size + gap
    for n in reversed(order):
        above = moved[n] = min(moved[n], above - gap)
    return moved
