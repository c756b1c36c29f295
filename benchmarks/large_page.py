"""docs/results/large.md from what `large.py` kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import greysheep as gs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "large.md"
LIMIT = 12e9
STAGES = ("simulate", "split", "mainstream", "fit", "evaluate")
NOTES = [
    "## What was done for it",
    "",
    "- Mainstream scores above 20 thousand million pairs come from a sample, with a bound (docs/method.md).",
    "- Ids are looked up four million at a time, and rows that come in order are not sorted again: reading",
    "  this log peaked at 2.7 GB before.",
    "- `simulate` draws in rounds what took a random number for each of 15 thousand million pairs.",
    "- A saved model writes parts and gates without a Python object a row.",
    "- Weights, gradients, Adam's moments and the best copy of this model take 0.5 GB: nothing is spilled.",
    "",
]
Record = dict[str, Any]


def write(folder: Path) -> Path:
    """Write the page of a folder of results."""
    files = {name: folder / f"{name}.json" for name in STAGES}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    sections = (_head(found), _stages(found), _scores(found), _training(found), NOTES)
    PAGE.write_text("\n".join(line for section in sections for line in section).rstrip() + "\n")
    return PAGE


def _head(found: dict[str, Record]) -> list[str]:
    shape = found["split"]["facts"]
    peak = max(step["peak"] for record in found.values() for step in record["steps"])
    days = sorted({record["day"] for record in found.values()})
    loads = [record["load"] for record in found.values()]
    threads = ", ".join(map(str, sorted({record["threads"] for record in found.values()})))
    verdict = "below" if peak < LIMIT else "above"
    return [
        "# Half a million users",
        "",
        f"{shape['users']:,} simulated users, {shape['items']:,} items, {shape['rows']:,} rows, from nothing "
        f"to a measured model. Highest peak of any stage: {peak / 1e9:.1f} GB ({verdict} the "
        f"{LIMIT / 1e9:.0f} GB asked for).",
        "",
        f"Made by `python benchmarks/large.py`, greysheep {gs.__version__}, {threads} thread(s) of a machine "
        f"that others used at the same time (load average {min(loads):.1f} to {max(loads):.1f} on 2 cores), "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}. Each stage is a fresh process. Seconds are wall "
        "clock; processor seconds count only the time in which the process had a core.",
        "",
    ]


def _stages(found: dict[str, Record]) -> list[str]:
    lines = [
        "| stage | step | seconds | processor seconds | peak memory |",
        "| --- | --- | --: | --: | --: |",
    ]
    for name, record in found.items():
        for number, step in enumerate(record["steps"]):
            cells = [
                "" if number else name,
                step["step"],
                f"{step['seconds']:,.0f}",
                f"{step['cpu_seconds']:,.0f}",
                f"{step['peak'] / 1e9:.2f} GB",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _scores(found: dict[str, Record]) -> list[str]:
    if "mainstream" not in found:
        return []
    facts = found["mainstream"]["facts"]
    low, middle, high = facts["quantiles"]
    text = f"Comparing all users would be {facts['pairs']:.2g} pairs. "
    if facts["sampled"]:
        text += (
            f"Each was compared with {facts['sampled']:,} others: a score is within {facts['bound']:.2g} of "
            "the exact one with probability 95 %. "
        )
    text += f"The scores' 5th, 50th and 95th percentiles are {low:.4f}, {middle:.4f} and {high:.4f}."
    return ["## Mainstream scores", "", text, ""]


def _training(found: dict[str, Record]) -> list[str]:
    if "fit" not in found:
        return []
    facts, n_users = found["fit"]["facts"], found["split"]["facts"]["users"]
    seconds = facts["cpu_seconds"]
    text = (
        f"TALL with 4 experts of 64 dimensions, batches of {facts['batch_size']}, in processor seconds: "
        f"{seconds['epoch']:,.0f} for an epoch"
    )
    if facts["trained_users"] < n_users:
        whole = seconds["epoch"] * n_users / facts["trained_users"]
        text += f" of {facts['trained_users']:,} users ({whole:,.0f} for all of them, in proportion)"
    text += (
        f", {seconds['validation']:,.0f} to validate every user, {seconds['gates']:,.0f} to store every "
        f"user's gate. NDCG@20 on validation rows: {facts['ndcg@20 on validation']:.4f}."
    )
    lines = ["## Training", "", text, ""]
    if "evaluate" in found:
        report = found["evaluate"]["facts"]
        lines += [f"On the test rows of {report['users']:,} users:", "", "```", report["text"], "```", ""]
    return lines
