"""The one sentence that a report begins with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from greysheep.evaluation.numbers import percent
from greysheep.report.single_view import View

if TYPE_CHECKING:
    from greysheep.evaluation.report import Report

FIFTHS = {
    "low": "the most niche fifth of users (low)",
    "med-low": "the second most niche fifth of users (med-low)",
    "medium": "the middle fifth of users (medium)",
    "med-high": "the second most mainstream fifth of users (med-high)",
    "high": "the most mainstream fifth of users (high)",
}


def headline(reports: Sequence[Report]) -> str:
    """Who is served worst and by how much, in one plain sentence.

    Of several reports it speaks of the one whose worst group fares best, so that no weak model colours it.

    Raises:
        ConfigError: There is no report, or they were made for lists of different lengths.
    """
    view = View.of(reports)
    means = {name: _finite(view, name) for name in view.reports}
    means = {name: groups for name, groups in means.items() if len(groups) > 1}
    if not means:
        return "No groups can be compared: fewer than two have users with test rows."
    worst = {name: min(groups, key=groups.__getitem__) for name, groups in means.items()}
    lead = max(means, key=lambda name: means[name][worst[name]])
    group, best = worst[lead], max(means[lead], key=means[lead].__getitem__)
    low, high = means[lead][group], means[lead][best]
    if low == high:
        return f"With {lead}, every group of users gets the same {view.shown}, {low:.3f}."
    who, others = (FIFTHS.get(name, f"the group {name}") for name in (group, best))
    gets = f"{view.shown} {low:.3f}, {percent(1 - low / high)} less than the {high:.3f} of {others}"
    if len(means) == 1:
        sentence = f"With {lead}, {who} gets {gets}"
    else:
        count = sum(name == group for name in worst.values())
        how_many = f"all {len(means)}" if count == len(means) else f"{count} of {len(means)}"
        sentence = f"{who} is served worst by {how_many} models: even {lead}, best for them, gives {gets}"
    bounds = view.by_group(lead)
    unsure = ", though the 95 % intervals overlap" if bounds[group][2] >= bounds[best][1] else ""
    return f"{sentence[0].upper()}{sentence[1:]}{unsure}."


def _finite(view: View, name: str) -> dict[str, float]:
    """Mean of each group that has one."""
    return {group: mean for group, (mean, _, _) in view.by_group(name).items() if math.isfinite(mean)}
