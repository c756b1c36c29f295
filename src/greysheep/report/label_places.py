"""Places for labels beside points, in pixels, so that none covers another label or a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Spot = tuple[float, float]
Line = tuple[Spot, Spot]
RADIUS = 6.0
"""Pixels around a point that stay free."""
LINE_COST, SPOT_COST, LABEL_COST = 30.0, 50.0, 100.0
"""Pixels further away that are better than a line through a label, a joint over a spot or over a label."""


@dataclass(frozen=True)
class Box:
    """A rectangle from (x0, y0) to (x1, y1)."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: Box) -> bool:
        """Whether the insides of two boxes overlap."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def holds(self, other: Box) -> bool:
        """Whether another box lies inside this one."""
        return self.x0 <= other.x0 and other.x1 <= self.x1 and self.y0 <= other.y0 and other.y1 <= self.y1

    def nearest(self, spot: Spot) -> Spot:
        """The place of the box that is nearest to a spot."""
        return min(max(spot[0], self.x0), self.x1), min(max(spot[1], self.y0), self.y1)

    def crosses(self, line: Line) -> bool:
        """Whether a line runs through the box (Liang and Barsky 1984).

        >>> box = Box(0, 0, 2, 1)
        >>> box.crosses(((-1, 0.5), (3, 0.5))), box.crosses(((-1, 2), (3, 2)))
        (True, False)
        """
        (x, y), (to_x, to_y) = line
        if max(x, to_x) <= self.x0 or min(x, to_x) >= self.x1:
            return False  # the usual case, told at once
        first, last = 0.0, 1.0
        for start, move, low, high in ((x, to_x - x, self.x0, self.x1), (y, to_y - y, self.y0, self.y1)):
            if move == 0:
                if not low < start < high:
                    return False
                continue
            enter, leave = sorted(((low - start) / move, (high - start) / move))
            first, last = max(first, enter), min(last, leave)
        return first < last


def place(
    spots: Sequence[Spot], sizes: Sequence[tuple[float, float]], area: Box, lines: Sequence[Line] = ()
) -> list[Box | None]:
    """A box of the given size (width, height) for each spot, inside the area, as near to it as is free.

    Boxes cover neither each other nor a spot. They avoid the lines, and their joints (the straight lines to
    their spots) other boxes and spots, unless that took them far away. None: there is no room.
    """
    points = [Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in spots]
    found: list[Box | None] = [None] * len(spots)
    taken, joints = list[Box](), list[Line]()
    # The crowded ones choose first: what stands alone finds a place later, too.
    for n in sorted(range(len(spots)), key=lambda n: sum(math.dist(spots[n], spot) for spot in spots)):
        others = [*points[:n], *points[n + 1 :]]
        best, least = None, math.inf
        for box in _candidates(spots[n], sizes[n], area):
            far = math.dist(box.nearest(spots[n]), spots[n])
            if far >= least:
                break  # candidates come nearest first
            joint = spots[n], box.nearest(spots[n])
            if any(map(box.meets, (*points, *taken))):
                continue
            cost = far + LINE_COST * sum(map(box.crosses, lines))
            cost += SPOT_COST * sum(other.crosses(joint) for other in others)
            cost += LABEL_COST * sum(other.crosses(joint) for other in taken)
            cost += LABEL_COST * sum(map(box.crosses, joints))
            if cost < least:
                best, least = box, cost
        found[n] = best
        if best is not None:
            taken.append(best)
            joints.append((spots[n], best.nearest(spots[n])))
    return found


def _candidates(spot: Spot, size: tuple[float, float], area: Box) -> list[Box]:
    """Boxes right, left, above and below the spot, and a grid over the area; the nearest first."""
    (x, y), (width, height), gap = spot, size, RADIUS + 2
    corners = [
        (x + gap, y - height / 2),
        (x - gap - width, y - height / 2),
        (x - width / 2, y + gap),
        (x - width / 2, y - gap - height),
        (x + gap / 2, y + gap),
        (x + gap / 2, y - gap - height),
        (x - gap / 2 - width, y + gap),
        (x - gap / 2 - width, y - gap - height),
    ]
    boxes = [Box(left, low, left + width, low + height) for left, low in corners]
    wide, tall = area.x1 - area.x0 - width, area.y1 - area.y0 - height
    boxes += [
        Box(area.x0 + left, area.y0 + low, area.x0 + left + width, area.y0 + low + height)
        for left in range(0, int(wide) + 1, 12)
        for low in range(0, int(tall) + 1, 6)
    ]
    inside = (box for box in boxes if area.holds(box))
    return sorted(inside, key=lambda box: math.dist(box.nearest(spot), spot))
