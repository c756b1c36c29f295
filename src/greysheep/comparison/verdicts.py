"""The verdict of a comparison on one model, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from greysheep.data.columns import GROUP
from greysheep.evaluation.numbers import number, percent, signed
from greysheep.mainstream.groups import GROUPS, OVERALL
from greysheep.metrics.statistics import LEAST_USERS, LEVEL

FOCUS = GROUPS[0]

# What happens to `low`, and what else there is to say: nothing, groups that are harmed, groups in which harm
# is neither shown nor ruled out.
SENTENCES = {
    ("lifted", "none"): "lifts {low} by {share} and harms no group",
    ("lifted", "harm"): "lifts {low} by {share} at the price of {harmed}",
    ("lifted", "undecided"): "lifts {low} by {share}; harm is undecided in {open}",
    ("same", "none"): "no difference in {low}; harms no group",
    ("same", "harm"): "no difference in {low}, but harms {harmed}",
    ("same", "undecided"): "no difference in {low}; harm is undecided in {open}",
    ("kept", "none"): "no gain shown in {low}; harms no group",
    ("kept", "harm"): "no gain shown in {low}, but harms {harmed}",
    ("kept", "undecided"): "no gain shown in {low}; harm is undecided in {open}",
    ("undecided", "none"): "undecided in {low}: {limit}; harms no other group",
    ("undecided", "harm"): "undecided in {low}: {limit}; harms {harmed}",
    ("undecided", "undecided"): "undecided in {low}: {limit}; so it is in {open}",
    ("lowered", "none"): "lowers {low} by {share}, {within}; harms no other group",
    ("lowered", "harm"): "lowers {low} by {share}, {within}; harms {harmed}",
    ("lowered", "undecided"): "lowers {low} by {share}, {within}; harm is undecided in {open}",
    ("harmed", "none"): "harms {low} ({change}); harms no other group",
    ("harmed", "harm"): "harms {all}",
    ("harmed", "undecided"): "harms {low} ({change}); harm is undecided in {open}",
}


def state(row: Mapping[str, Any], margin: float) -> str:
    """Return what happens to one group: lifted, lowered, harmed, same, kept, undecided.

    Lifted or lowered: the difference is significant after Holm. Harmed: a loss of more than the margin is
    certain, significant after Holm or not. Same: neither a loss nor a gain of the margin is possible. Kept: a
    gain is, a loss is not.
    """
    if row["verdict"] == "harm":
        return "harmed"
    if number(row["p_holm"]) < LEVEL:
        return "lifted" if number(row["difference"]) > 0 else "lowered"
    if row["verdict"] != "no harm":
        return "undecided"
    return "same" if number(row["ratio_high"]) < margin else "kept"


def worst_group(rows: Sequence[Mapping[str, Any]]) -> str:
    """The group that the reference serves worst, by rows of `Comparison.tests` about one model.

    Groups of too few users for a verdict only where there are no others; empty where nobody has test rows.
    """
    groups = [row for row in rows if row[GROUP] != OVERALL and row["n_users"]]
    large = [row for row in groups if row["n_users"] >= LEAST_USERS]
    worst = min(large or groups, key=lambda row: number(row["reference_mean"]), default=None)
    return "" if worst is None else str(worst[GROUP])


def verdict(rows: Sequence[Mapping[str, Any]], margin: float, focus: str = FOCUS) -> str:
    """Return one sentence about a model from its rows of `Comparison.tests`.

    rows: one for `overall` and one for each group, in any order. margin: relative loss that is no harm.
    focus: the group that it is about first.
    """
    by_group = {row[GROUP]: row for row in rows if row["n_users"]}
    if focus not in by_group:
        return f"no verdict: {focus or 'no group'} has {'no ' if focus else ''}users with test rows"
    low = by_group[focus]
    names = dict.fromkeys((*GROUPS, *by_group))
    others = [by_group[group] for group in names if group in by_group and group not in (focus, OVERALL)]
    harmed = [row for row in others if row["verdict"] == "harm"]
    if not harmed and OVERALL in by_group and by_group[OVERALL]["verdict"] == "harm":
        harmed = [by_group[OVERALL]]
    unsure = [row for row in others if row["verdict"] == "undecided"]
    rest = "harm" if harmed else "undecided" if unsure else "none"
    outcome = state(low, margin)
    text = SENTENCES[outcome, rest].format(
        low=focus,
        share=_share(low).lstrip("+\N{MINUS SIGN}"),
        change=_share(low),
        limit=_too_few(low, " are too few to tell") or f"this log can resolve {_resolved(low)}",
        within=f"less than {percent(margin, 1)}"
        if low["verdict"] == "no harm"
        else "perhaps by more than " + percent(margin, 1),
        harmed=_listed([f"{_name(row)} ({_share(row)})" for row in harmed]),
        all=_listed([f"{_name(row)} ({_share(row)})" for row in (low, *harmed)]),
        open=_listed(
            [f"{_name(row)} ({_too_few(row) or f'can resolve {_resolved(row)}'})" for row in unsure]
        ),
    )
    if harmed and unsure:
        text += f"; undecided in {_listed([_name(row) for row in unsure])}"
    return text + _of_the_mean(by_group.get(OVERALL), outcome, harmed)


def _of_the_mean(row: Mapping[str, Any] | None, outcome: str, harmed: Sequence[Mapping[str, Any]]) -> str:
    """A significant change of the overall mean that the sentence about `low` does not imply."""
    if row is None or row in harmed or number(row["p_holm"]) >= LEVEL:
        return ""
    up = number(row["difference"]) > 0
    if up == (outcome == "lifted") and outcome in ("lifted", "lowered", "harmed"):
        return ""
    return f"; {'lifts' if up else 'lowers'} the mean by {_share(row).lstrip('+' + chr(0x2212))}"


def _share(row: Mapping[str, Any]) -> str:
    """The change as a percentage; as a plain difference where the reference is 0."""
    ratio = number(row["ratio"])
    return percent(ratio, 1, sign=True) if math.isfinite(ratio) else signed(number(row["difference"]))


def _too_few(row: Mapping[str, Any], more: str = "") -> str:
    """How many users there are, where they are too few for a verdict; else nothing."""
    n = row["n_users"]
    return (
        "" if n >= LEAST_USERS else f"{n} user{'s' if n > 1 else ''}{more}".replace("1 user are", "1 user is")
    )


def _resolved(row: Mapping[str, Any]) -> str:
    margin = number(row["resolvable_margin"])
    return percent(margin, 1) if math.isfinite(margin) else "nothing"


def _name(row: Mapping[str, Any]) -> str:
    return "the mean" if row[GROUP] == OVERALL else str(row[GROUP])


def _listed(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
