"""The result in words: the headline of a page and the line below it."""

from __future__ import annotations

import math

from greysheep.comparison.result import Comparison
from greysheep.evaluation.numbers import duration, number, p_value, percent
from greysheep.mainstream.groups import OVERALL
from greysheep.metrics.statistics import LEVEL
from greysheep.report.view import View, finite

FIFTHS = {
    "low": "the most niche fifth of users (low)",
    "med-low": "the second most niche fifth of users (med-low)",
    "medium": "the middle fifth of users (medium)",
    "med-high": "the second most mainstream fifth of users (med-high)",
    "high": "the most mainstream fifth of users (high)",
}


def _who(view: View) -> str:
    """The users of the group that sentences are about."""
    return FIFTHS.get(view.focus, f"the group {view.focus}")


def headline(view: View) -> str:
    """The one sentence that a page begins with."""
    if view.comparison is None or (view.of_lists and len(view.runs) == 1):
        return _worst_served(view)
    return _best_for_niche(view, view.comparison)


def _worst_served(view: View) -> str:
    """Who is served worst and by how much.

    Among several reports, the one whose worst group fares best is described: a weak model must not decide.
    """
    means = {label: _known(view, label) for label in view.labels}
    means = {label: groups for label, groups in means.items() if len(groups) > 1}
    if not means:
        return "No groups can be compared: fewer than two have users with test rows."
    worst = {label: min(groups, key=groups.__getitem__) for label, groups in means.items()}
    top = max(means, key=lambda label: means[label][worst[label]])
    group, best = worst[top], max(means[top], key=means[top].__getitem__)
    low, high = means[top][group], means[top][best]
    name = view.short[top]
    if low == high:
        return f"With {name}, every group of users gets the same {view.shown}, {low:.3f}."
    who = FIFTHS.get(group, f"the group {group}")
    gets = f"{view.shown} {low:.3f}{_less(view, top, group)}"
    if len(means) == 1:
        sentence = f"With {name}, {who} gets {gets}"
    else:
        count = sum(each == group for each in worst.values())
        how_many = f"all {len(means)}" if count == len(means) else f"{count} of {len(means)}"
        sentence = f"{who} is served worst by {how_many} models: even {name}, best for them, gives {gets}"
    overlap = view.triple(top, view.main, group)[2] >= view.triple(top, view.main, best)[1]
    unsure = ", though the 95 % intervals overlap" if overlap else ""
    return f"{sentence[0].upper()}{sentence[1:]}{unsure}."


def _known(view: View, label: str) -> dict[str, float]:
    """Mean of each group that has one."""
    means = {group: view.mean(label, group) for group in view.groups(view.main)}
    return {group: mean for group, mean in means.items() if math.isfinite(mean)}


def _best_for_niche(view: View, comparison: Comparison) -> str:
    """Which model serves the most niche users best, at what cost, and whether the difference is real."""
    if not view.runs:
        return f"No run finished: {_count(len(comparison.failures), 'failure')}, listed below."
    ranked = view.ranked()
    if not ranked:
        if math.isfinite(view.size(view.main, view.focus, "mean")):
            return f"Runs are missing, those of the reference, {view.against}, too: no model can be ranked."
        return f"Nothing can be said about {_who(view)}: none of them has test rows."
    best, against = ranked[0], view.against
    name = view.short[best]
    gets = f"{view.shown} {view.mean(best, view.focus):.3f}{_after(view, best)}"
    if len(view.runs) == 1:
        return f"With {name}, {_who(view)} gets {gets}{_less(view, best, view.focus)}."
    if best == view.reference:
        nobody = "None of the others" if view.of_lists else "No model"
        first = f"{nobody} serves {_who(view)} better than the reference, {name}: {gets}."
        if len(ranked) == 1:
            return first
        second = ranked[1]
        return (
            f"{first} Next comes {view.short[second]} with {view.mean(second, view.focus):.3f}"
            f"{_verdict(view, second)}"
        )
    first = f"{name} serves {_who(view)} best: {gets}."
    if view.reference not in view.runs:
        return f"{first} The reference, {against}, did not finish, so no difference was tested."
    return f"{first} Against {against}{_verdict(view, best)}"


def lead(view: View) -> list[str]:
    """How much was compared, what comes close for less time, and what is missing: one sentence each.

    Only a comparison has something to say here.
    """
    comparison = view.comparison
    if comparison is None:
        return []
    users = view.size(view.main, OVERALL)
    if view.of_lists:
        rows = comparison.facts.get("Rows to be found", "")
        return [f"{_count(len(view.runs), 'file')} of lists, rows to be found: {rows}."]
    counts = [_count(len(view.runs), "model"), _count(len(comparison.seeds), "seed")]
    counts.append(f"protocol {comparison.protocol}")
    if math.isfinite(users):
        counts.append(f"{users:,.0f} users with test rows")
    sentences = [f"{', '.join(counts)}."]
    if cheaper := _cheaper(view):
        sentences.append(cheaper)
    if len(comparison.seeds) == 1:
        sentences.append("One seed says nothing about how much another split or start would change.")
    gone = [(len(comparison.failures), "failed"), (len(comparison.missing), "not started")]
    if any(count for count, _ in gone):
        what = ", ".join(f"{_count(count, 'run')} {state}" for count, state in gone if count)
        sentences.append(f"Not complete: {what}; the list stands near the end.")
    return sentences


def _after(view: View, label: str) -> str:
    spent = view.seconds(label)
    return f" after {duration(spent)} of training" if math.isfinite(spent) else ""


def _less(view: View, label: str, group: str) -> str:
    """How far a group lies below the best group."""
    means = _known(view, label)
    top = max(means, key=means.__getitem__)
    if not means[top] > means[group]:
        return ", as much as any other group"
    share = percent(1 - means[group] / means[top])
    return f", {share} less than the {means[top]:.3f} of {FIFTHS.get(top, f'the group {top}')}"


def _verdict(view: View, label: str) -> str:
    """The comparison's own verdict on a label, with the p value behind it."""
    verdict = view.comparison.verdicts.get(label, "").rstrip(".") if view.comparison else ""
    p_holm = number(view.tests.get((label, view.focus), {}).get("p_holm"))
    real = ""
    if math.isfinite(p_holm):
        chance = "" if p_holm < LEVEL else ", so it may be chance"
        real = f" ({p_value(p_holm)} after Holm{chance})"
    return f": {verdict}{real}." if verdict else f"{real}."


def _cheaper(view: View) -> str:
    """The fastest model that comes within the margin of the best for half of its time or less."""
    ranked = view.ranked()
    if len(ranked) < 2 or not view.even:
        return ""
    best, margin = ranked[0], view.margin
    top, spent = view.mean(best, view.focus), view.seconds(best)
    near = [
        label
        for label in ranked[1:]
        if view.mean(label, view.focus) >= (1 - margin) * top and view.seconds(label) <= spent / 2
    ]
    if not near or not finite([spent]) or not top > 0:
        return ""
    label = min(near, key=view.seconds)
    short = percent(1 - view.mean(label, view.focus) / top, 1)
    return (
        f"{view.short[label]} comes within {short} of {view.short[best]} for {view.focus} after "
        f"{duration(view.seconds(label))}."
    )


def _count(number_of: int, what: str) -> str:
    return f"{number_of:,} {what}" + ("" if number_of == 1 else "s")
