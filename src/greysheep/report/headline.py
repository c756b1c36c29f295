"""What a comparison found, in words: the headline of its page and the line below it."""

from __future__ import annotations

import math

from greysheep.evaluation.numbers import duration, number, p_value, percent
from greysheep.report.single_headline import FIFTHS
from greysheep.report.view import MAINSTREAM, NICHE, OVERALL, SIGNIFICANT, Compared, finite

WHO = FIFTHS[NICHE]


def comparison_headline(compared: Compared) -> str:
    """Which model serves the most niche users best, at what cost, and whether the difference is real."""
    if not compared.runs:
        return f"No run finished: {_count(len(compared.comparison.failures), 'failure')}, listed below."
    ranked = compared.ranked()
    if not ranked:
        if math.isfinite(compared.size(MAINSTREAM, NICHE, "mean")):
            return (
                f"Runs are missing, those of the reference, {compared.against}, too: no model can be ranked."
            )
        return f"Nothing can be said about {WHO}: none of them has test rows."
    best, against = ranked[0], compared.against
    name = compared.short[best]
    gets = f"{compared.shown} {compared.mean(best, NICHE):.3f}{_after(compared, best)}"
    if len(compared.runs) == 1:
        return f"With {name}, {WHO} gets {gets}{_less(compared, best)}."
    if best == compared.reference:
        first = f"No model serves {WHO} better than the reference, {name}: {gets}."
        if len(ranked) == 1:
            return first
        second = ranked[1]
        return (
            f"{first} Next comes {compared.short[second]} with {compared.mean(second, NICHE):.3f}"
            f"{_verdict(compared, second)}"
        )
    first = f"{name} serves {WHO} best: {gets}."
    if compared.reference not in compared.runs:
        return f"{first} The reference, {against}, did not finish, so no difference was tested."
    return f"{first} Against {against}{_verdict(compared, best)}"


def comparison_lead(compared: Compared) -> list[str]:
    """How much was compared, what comes close for less time, and what is missing; one sentence each."""
    comparison = compared.comparison
    users = compared.size(MAINSTREAM, OVERALL)
    told = [_count(len(compared.runs), "model"), _count(len(comparison.seeds), "seed")]
    told.append(f"protocol {comparison.protocol}")
    if math.isfinite(users):
        told.append(f"{users:,.0f} users with test rows")
    found = [f"{', '.join(told)}."]
    if cheaper := _cheaper(compared):
        found.append(cheaper)
    if len(comparison.seeds) == 1:
        found.append("One seed says nothing about how much another split or start would change.")
    gone = [(len(comparison.failures), "failed"), (len(comparison.missing), "not started")]
    if any(count for count, _ in gone):
        what = ", ".join(f"{_count(count, 'run')} {how}" for count, how in gone if count)
        found.append(f"Not complete: {what}; the list stands near the end.")
    return found


def _after(compared: Compared, label: str) -> str:
    spent = compared.seconds(label)
    return f" after {duration(spent)} of training" if math.isfinite(spent) else ""


def _less(compared: Compared, label: str) -> str:
    """How far the niche group lies below the best group."""
    means = {group: compared.mean(label, group) for group in compared.groups(MAINSTREAM)}
    means = {group: mean for group, mean in means.items() if math.isfinite(mean)}
    top = max(means, key=means.__getitem__)
    if top == NICHE or not means[top] > means[NICHE]:
        return ", as much as any other group"
    share = percent(1 - means[NICHE] / means[top])
    return f", {share} less than the {means[top]:.3f} of {FIFTHS.get(top, f'the group {top}')}"


def _verdict(compared: Compared, label: str) -> str:
    """The comparison's own verdict on a label, with the p value behind it."""
    words = compared.comparison.verdicts.get(label, "").rstrip(".")
    p_holm = number(compared.tests.get((label, NICHE), {}).get("p_holm"))
    real = ""
    if math.isfinite(p_holm):
        chance = "" if p_holm < SIGNIFICANT else ", so it may be chance"
        real = f" ({p_value(p_holm)} after Holm{chance})"
    return f": {words}{real}." if words else f"{real}."


def _cheaper(compared: Compared) -> str:
    """The fastest model that comes within the margin of the best for half of its time or less."""
    ranked = compared.ranked()
    if len(ranked) < 2 or not compared.even:
        return ""
    best, margin = ranked[0], compared.comparison.margin
    top, spent = compared.mean(best, NICHE), compared.seconds(best)
    near = [
        label
        for label in ranked[1:]
        if compared.mean(label, NICHE) >= (1 - margin) * top and compared.seconds(label) <= spent / 2
    ]
    if not near or not finite([spent]) or not top > 0:
        return ""
    label = min(near, key=compared.seconds)
    short = percent(1 - compared.mean(label, NICHE) / top, 1)
    return (
        f"{compared.short[label]} comes within {short} of {compared.short[best]} for {NICHE} after "
        f"{duration(compared.seconds(label))}."
    )


def _count(number_of: int, what: str) -> str:
    return f"{number_of:,} {what}" + ("" if number_of == 1 else "s")
