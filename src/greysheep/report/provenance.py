"""The end of a comparison's page: what failed or is missing, and how the numbers were made."""

from __future__ import annotations

import json
from html import escape

from greysheep.evaluation.numbers import number, percent
from greysheep.report import html as page
from greysheep.report.single_made import CAVEAT, PROTOCOLS, versions
from greysheep.report.view import MAINSTREAM, OVERALL, Compared

LIMITS = (
    "They compare the trained models of these seeds on these users: a small p says that users like these "
    "would again tell the two apart. They do not compare methods: how much another split or start would "
    "change is the standard deviation over the seeds (±), and other data are another question."
)


def missing_section(compared: Compared) -> str:
    """Failed runs with their message, and runs that were not started."""
    comparison = compared.comparison
    rows = [[compared.named(f.label), str(f.seed), escape(f.message)] for f in comparison.failures]
    for label in dict.fromkeys(label for label, _ in comparison.missing):
        seeds = ", ".join(str(seed) for other, seed in comparison.missing if other == label)
        rows.append([compared.named(label), seeds, "not started"])
    if not rows:
        return ""
    lead = "The means of a model run over its finished runs only; tests use the seeds that both models have."
    table = page.table("Runs without a result", ["model", "seed", "what happened"], rows)
    return page.section("Runs without a result", page.paragraph(lead), f'<div class="messages">{table}</div>')


def made_section(compared: Compared) -> str:
    """Facts, protocol, seeds, statistics, what they cannot tell, and the settings of each model."""
    comparison = compared.comparison
    users = compared.size(MAINSTREAM, OVERALL)
    counted = f", for the {users:,.0f} users with test rows" if number(users) > 0 else ""
    tests = len(compared.tests)
    pairs = [
        *((str(term), str(text)) for term, text in comparison.facts.items()),
        ("Protocol", PROTOCOLS.get(comparison.protocol, comparison.protocol)),
        ("Seeds", f"{', '.join(map(str, comparison.seeds))}; a seed drives both the split and the training"),
        (
            "Runs",
            f"{len(comparison.runs)} finished, each in a process of its own; "
            f"{len(comparison.failures)} failed",
        ),
        ("Measured", f"{compared.shown} of lists of {comparison.k}{counted}"),
        (
            "Groups",
            "users in order of the mainstream score of their train rows, cut in five equal parts, anew for "
            "each split",
        ),
        (
            "Intervals",
            "of means over seeds: 95 % percentile bootstrap over users, 2,000 draws; a user is drawn with "
            "her values of all seeds in which she is in the group",
        ),
    ]
    if tests:
        pairs += [
            (
                "Tests",
                f"against {compared.reference}: paired sign-flip test on each user's difference, averaged "
                f"over the seeds in which she is in the group; Holm over all {tests} tests; verdicts from a "
                f"paired bootstrap with a margin of {percent(comparison.margin)}",
            ),
            ("What p values say", LIMITS),
        ]
    pairs.append(("Caveat", CAVEAT))
    if "Versions" not in comparison.facts:
        pairs.append(("Versions", versions()))
    settings = "".join(
        f"<p>{escape(label)}<br><code>{escape(_settings(dict(runs[0].config)))}</code></p>"
        for label, runs in compared.runs.items()
    )
    more = page.details("Settings of each model", settings) if settings else ""
    return page.section("How it was made", page.definitions(pairs), more)


def _settings(config: dict[str, object]) -> str:
    return json.dumps(config, default=str, sort_keys=True)
