"""docs/results/chaos.md from what `folders.py` and `kills.py` have written.

python benchmarks/chaos/page.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from folders import MODELS, MOST_MB, MOST_SECONDS

import greysheep as gs

sys.path.insert(0, str(Path(__file__).parents[1]))
from stage import BUILD, RESULTS, write_page


def why(row: dict[str, Any]) -> str:
    """The message without the folder."""
    said = row["said"].partition("incomplete: ")[2] or row["said"]
    return re.sub(r"\S*/h\d+/?", "", said)[:120].replace("|", "/").strip()


def main() -> None:
    """Write the page."""
    facts = json.loads((BUILD / "chaos" / "folders.json").read_text())
    killed = BUILD / "chaos" / "kills.json"
    kills = json.loads(killed.read_text()) if killed.is_file() else None
    rows = facts["hostile"]
    damage = [
        [word, f"{facts[word]:,}", f"{facts['found'][word]:,}", f"{facts['named'][word]:,}"]
        for word in ("flips", "cuts")
    ]
    write_page(
        RESULTS / "chaos.md",
        version=gs.__version__,
        folders=facts,
        models=", ".join(f"`{text}`" for text in MODELS),
        damage=damage,
        refused=sum(row["outcome"] == "refused" for row in rows),
        events=sum(bool(row["events"] or row["code_run"]) for row in rows),
        slowest=max(rows, key=lambda row: row["seconds"]),
        largest=max(rows, key=lambda row: row["mb"]),
        limits=f"{MOST_SECONDS:g} s, {MOST_MB} MB",
        hostile=[[row["case"], f"{row['seconds']:.2f}", f"{row['mb']:.0f}", why(row)] for row in rows],
        kills=kills,
        signals=", ".join(f"{number} {name}" for name, number in kills["signals"].items()) if kills else "",
    )


if __name__ == "__main__":
    main()
