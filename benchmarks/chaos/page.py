"""docs/results/chaos.md from what the other scripts here have written; what is not there is left out.

python benchmarks/chaos/page.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from folders import MOST_MB, MOST_SECONDS

import greysheep as gs

sys.path.insert(0, str(Path(__file__).parents[1]))
from stage import BUILD, RESULTS, write_page


def why(row: dict[str, Any]) -> str:
    """The message without the folder."""
    said = row["said"].partition("incomplete: ")[2] or row["said"]
    return re.sub(r"\S*/h\d+/?", "", said)[:120].replace("|", "/").strip()


def found(name: str) -> Any:
    """What a script has written; None if it has not."""
    file = BUILD / "chaos" / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def killed(kills: dict[str, Any]) -> list[list[str]]:
    """A row of the table of killed commands for each kind."""
    rows = []
    for kind in ("fit", "compare", "tune"):
        own = kills[kind]
        signals = ", ".join(f"{number} {name}" for name, number in own["signals"].items())
        resumed = f"{own['resumed']} of {own['restarts']}" if kind == "fit" else "-"
        equal = [f"{own[name]} of {own['cases']}" for name in ("same", "kept", "clean")]
        rows.append([f"`{kind}`", str(own["cases"]), signals, resumed, *equal])
    return rows


def without_room(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A row of the table of full disks for each command."""
    table = []
    for name in dict.fromkeys(row["command"] for row in rows):
        own = [row for row in rows if row["command"] == name]
        full = [row for row in own if row["code"] != 0]
        table.append([f"`{name}`", str(len(full)), str(sum(not row["faults"] for row in full))])
    return table


def main() -> None:
    """Write the page."""
    facts, kills, disks, cost = found("folders"), found("kills"), found("disks"), found("cost")
    rows = facts["hostile"]
    damage = [
        [word, f"{facts[word]:,}", f"{facts['found'][word]:,}", f"{facts['named'][word]:,}"]
        for word in ("flips", "cuts")
    ]
    write_page(
        RESULTS / "chaos.md",
        version=gs.__version__,
        folders=facts,
        models=", ".join(f"`{text}`" for text in facts["models"]),
        damage=damage,
        refused=sum(row["outcome"] == "refused" for row in rows),
        events=sum(bool(row["events"] or row["code_run"]) for row in rows),
        slowest=max(rows, key=lambda row: row["seconds"]),
        largest=max(rows, key=lambda row: row["mb"]),
        limits=f"{MOST_SECONDS:g} s, {MOST_MB} MB",
        hostile=[[row["case"], f"{row['seconds']:.2f}", f"{row['mb']:.0f}", why(row)] for row in rows],
        kills=kills,
        killed=killed(kills) if kills else [],
        disks=without_room(disks) if disks else [],
        cost=cost,
    )


if __name__ == "__main__":
    main()
