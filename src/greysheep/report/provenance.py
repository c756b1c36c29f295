"""The end of a page: what failed or is missing, and how the numbers were made."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from greysheep.comparison.result import Comparison
from greysheep.evaluation.numbers import number, percent
from greysheep.evaluation.report import N_USERS
from greysheep.mainstream.groups import OVERALL
from greysheep.report.html import Content, Definitions, Details, Section, Settings, Table, Text
from greysheep.report.view import MAINSTREAM, View

PROTOCOL_TEXTS = {
    "all": "all: no test rows; of each user's rows 5 % steer the gate and 5 % early stopping.",
    "paper": "paper: 70 % train, 10 % validation, 20 % test in seeded order; gate, adaptive weights and "
    "early stopping all read the validation rows.",
    "strict": "strict: 70 % train, 20 % test in seeded order; the other 10 % are dealt in turn to the gate "
    "and to early stopping, so that nothing is chosen on rows it was scored on.",
    "temporal": "temporal: each user's rows in order of time; the last 20 % are test, the 5 % before them "
    "steer early stopping, the 5 % before those the gate.",
}
CAVEAT = (
    "A user's mainstream score, the mean Jaccard similarity of her items with every other user's, grows with "
    "the number of her rows: a low score means unusual taste, or few rows. The quintiles of activity stand "
    "beside the groups for that reason. Where both show the same gap, activity may explain it."
)
LIMITS = (
    "They compare the trained models of these seeds on these users: a small p says that users like these "
    "would again tell the two apart. They do not compare methods: how much another split or start would "
    "change is the standard deviation over the seeds (±), and other data are another question."
)


def missing_section(view: View) -> Section | None:
    """Failed runs with their message, and runs that were not started."""
    if view.comparison is None:
        return None
    missing = view.comparison.missing
    rows: list[list[Content]] = [
        [view.named(each.label), str(each.seed), each.message] for each in view.comparison.failures
    ]
    for label in dict.fromkeys(label for label, _ in missing):
        seeds = ", ".join(str(seed) for other, seed in missing if other == label)
        rows.append([view.named(label), seeds, "not started"])
    if not rows:
        return None
    lead = "The means of a model run over its finished runs only; tests use the seeds that both models have."
    table = Table("Runs without a result", ["model", "seed", "what happened"], rows, messages=True)
    return Section("Runs without a result", [Text(lead), table])


def made_section(view: View, facts: Mapping[str, str]) -> Section:
    """Facts, protocol, seeds, statistics, what they cannot tell, and the settings of each model."""
    comparison = view.comparison
    facts = {**(comparison.facts if comparison is not None else {}), **facts}
    seeds = ", ".join(map(str, view.seeds))
    users = {view.size(MAINSTREAM, OVERALL)}
    if comparison is None:
        users = {number(view.means[label, MAINSTREAM, OVERALL][N_USERS]) for label in view.labels}
    known = " or ".join(f"{size:,.0f}" for size in sorted(users) if size > 0)
    counted = f", for the {known} users with test rows" if known else ""
    pairs = [*((str(term), str(text)) for term, text in facts.items()), ("Protocol", _protocols(view))]
    if comparison is None:
        pairs.append(("Seed", seeds))
        intervals = "95 % percentile bootstrap, 2,000 draws, users resampled within their group"
    else:
        pairs += [("Seeds", f"{seeds}; a seed drives both the split and the training"), _runs(comparison)]
        intervals = (
            "of means over seeds: 95 % percentile bootstrap over users, 2,000 draws; a user is drawn with "
            "her values of all seeds in which she is in the group"
        )
    pairs += [
        ("Measured", f"{view.shown} of lists of {view.k}{counted}"),
        ("Groups", _groups(view)),
        ("Intervals", intervals),
    ]
    if comparison is not None and view.tests:
        pairs += [("Tests", _tests(view)), ("What p values say", LIMITS)]
    pairs.append(("Caveat", CAVEAT))
    if "Versions" not in facts:
        pairs.append(("Versions", _versions()))
    settings = [Settings(label, _json(runs[0].config)) for label, runs in view.runs.items()]
    more = [Details("Settings of each model", settings)] if settings else []
    return Section("How it was made", [Definitions(pairs), *more])


def _protocols(view: View) -> str:
    names = {run.protocol for runs in view.runs.values() for run in runs}
    if view.comparison is not None:
        names = {view.comparison.protocol}
    return "\n".join(PROTOCOL_TEXTS.get(name, name) for name in sorted(names))


def _runs(comparison: Comparison) -> tuple[str, str]:
    done, failed = len(comparison.runs), len(comparison.failures)
    return "Runs", f"{done} finished, each in a process of its own; {failed} failed"


def _groups(view: View) -> str:
    """How the users were put in groups."""
    text = "users in order of the mainstream score of their train rows, cut in five equal parts"
    if view.comparison is not None:
        text += ", anew for each split"
    runs = [run for runs in view.runs.values() for run in runs]
    for sample in sorted({run.mainstream_sample for run in runs} - {0}):
        bound = max(run.mainstream_bound for run in runs if run.mainstream_sample == sample)
        text += (
            f"; each user was compared with {sample:,} others, which puts her score within {bound:.2g} of "
            "the exact one with probability 95 %"
        )
    return text


def _tests(view: View) -> str:
    return (
        f"against {view.reference}: paired sign-flip test on each user's difference, averaged over the seeds "
        f"in which she is in the group; Holm over all {len(view.tests)} tests; verdicts from a paired "
        f"bootstrap with a margin of {percent(view.margin)}"
    )


def _json(config: Mapping[str, object]) -> str:
    return json.dumps(dict(config), default=str, sort_keys=True)


def _versions() -> str:
    """Versions of what the numbers depend on, without importing any of it."""
    found = [f"Python {platform.python_version()}"]
    for package in ("greysheep", "torch", "numpy", "scipy", "polars"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue  # run from a source tree
    return f"{', '.join(found)}, {sys.platform} {platform.machine()}"
