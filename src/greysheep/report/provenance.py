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
from greysheep.report.sentences import sentence
from greysheep.report.view import MAINSTREAM, View


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
    lead = sentence("missing")
    table = Table("Runs without a result", ["model", "seed", "what happened"], rows, messages=True)
    return Section("Runs without a result", [Text(lead), table])


def provenance_section(view: View, facts: Mapping[str, str]) -> Section:
    """Facts, protocol, seeds, statistics, what they cannot tell, and the settings of each model."""
    comparison = view.comparison
    facts = {**(comparison.facts if comparison is not None else {}), **facts}
    seeds = ", ".join(map(str, view.seeds))
    users = {view.size(view.main, OVERALL)}
    if comparison is None:
        users = {number(view.means[label, view.main, OVERALL][N_USERS]) for label in view.labels}
    known = " or ".join(f"{size:,.0f}" for size in sorted(users) if size > 0)
    counted = f", for the {known} users with test rows" if known else ""
    pairs = [*((str(term), str(text)) for term, text in facts.items())]
    if view.of_lists and comparison is not None and comparison.protocol == "all":
        pairs.append(("What is found", sentence("later_rows")))
    else:
        pairs.append(("Protocol", _protocols(view)))
    if view.of_lists:
        pairs += [("Seed", f"{seeds}, of the split")] if comparison and comparison.protocol != "all" else []
    elif comparison is None:
        pairs.append(("Seed", seeds))
    else:
        pairs += [("Seeds", f"{seeds}; a seed drives both the split and the training"), _runs(comparison)]
    pairs += [
        ("Measured", f"{view.shown} of lists of {view.k}{counted}"),
        ("Groups", _groups(view)),
        ("Intervals", sentence("intervals", seeds=comparison is not None and not view.of_lists)),
    ]
    if comparison is not None and view.tests:
        values = {
            "reference": view.reference,
            "count": len(view.tests),
            "margin": percent(view.margin),
            "lists": view.of_lists,
        }
        pairs += [
            ("Tests", sentence("tests", **values)),
            ("What p values say", sentence("limits_of_lists" if view.of_lists else "limits")),
        ]
    if view.main == MAINSTREAM:
        pairs.append(("Caveat", sentence("caveat")))
    if "Versions" not in facts:
        pairs.append(("Versions", _versions()))
    settings = [
        Settings(label, json.dumps(runs[0].config, default=str, sort_keys=True))
        for label, runs in view.runs.items()
    ]
    more = [Details("Settings of each model", settings)] if settings and not view.of_lists else []
    return Section("How it was made", [Definitions(pairs), *more])


def _protocols(view: View) -> str:
    names = {run.protocol for runs in view.runs.values() for run in runs}
    if view.comparison is not None:
        names = {view.comparison.protocol}
    return "\n".join(sentence("protocol", name=name) for name in sorted(names))


def _runs(comparison: Comparison) -> tuple[str, str]:
    done, failed = len(comparison.runs), len(comparison.failures)
    return "Runs", f"{done} finished, each in a process of its own; {failed} failed"


def _groups(view: View) -> str:
    """How the users were put in groups."""
    if view.main != MAINSTREAM:
        return sentence("own_groups", names=view.groups(view.main))
    runs = [run for runs in view.runs.values() for run in runs]
    bounds: dict[int, float] = {}
    for run in runs:
        sample = run.mainstream_sample
        bounds[sample] = max(run.mainstream_bound, bounds.get(sample, 0.0))
    samples = [(sample, bound) for sample, bound in sorted(bounds.items()) if sample]
    return sentence("groups", samples=samples, seeds=view.comparison is not None and not view.of_lists)


def _versions() -> str:
    """Versions of what the numbers depend on, without importing any of it."""
    versions = [f"Python {platform.python_version()}"]
    for package in ("greysheep", "torch", "numpy", "scipy", "polars"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue  # run from a source tree
    return f"{', '.join(versions)}, {sys.platform} {platform.machine()}"
