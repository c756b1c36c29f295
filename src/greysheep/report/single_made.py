"""The section of a page that says how its numbers were made."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from greysheep.report import html as page
from greysheep.report.single_view import View

if TYPE_CHECKING:
    from greysheep.evaluation.report import Report

PROTOCOLS = {
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


def made_section(view: View, facts: Mapping[str, str]) -> str:
    """Protocol, seed, settings, versions, and what the numbers cannot tell."""
    reports = list(view.reports.values())
    users = sorted({int(report.overall.get("n_users", 0)) for report in reports})
    counted = " or ".join(f"{count:,}" for count in users)
    pairs = [
        *facts.items(),
        ("Protocol", "\n".join(PROTOCOLS.get(name, name) for name in sorted({r.protocol for r in reports}))),
        ("Seed", ", ".join(map(str, sorted({report.seed for report in reports})))),
        ("Measured", f"{view.shown} of lists of {reports[0].k}, for the {counted} users with test rows"),
        ("Groups", "\n".join(dict.fromkeys(map(groups_made, reports)))),
        ("Intervals", "95 % percentile bootstrap, 2,000 draws, users resampled within their group"),
        ("Caveat", CAVEAT),
        ("Versions", versions()),
    ]
    settings = [
        (name, json.dumps(dict(r.config), default=str, sort_keys=True)) for name, r in view.reports.items()
    ]
    text = "".join(f"<p>{escape(name)}<br><code>{escape(config)}</code></p>" for name, config in settings)
    return page.section(
        "How it was made", page.definitions(pairs), page.details("Settings of each model", text)
    )


def groups_made(report: Report) -> str:
    """How the users were put in groups."""
    text = "users in order of the mainstream score of their train rows, cut in five equal parts"
    if not report.mainstream_sample:
        return text
    return (
        f"{text}; each user was compared with {report.mainstream_sample:,} others, which puts her score "
        f"within {report.mainstream_bound:.2g} of the exact one with probability 95 %"
    )


def versions() -> str:
    """Versions of what the numbers depend on, without importing any of it."""
    found = [f"Python {platform.python_version()}"]
    for package in ("greysheep", "torch", "numpy", "scipy", "polars"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue  # run from a source tree
    return f"{', '.join(found)}, {sys.platform} {platform.machine()}"
