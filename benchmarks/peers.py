"""greysheep beside other libraries, verb by verb: seconds, memory, and that both did the same work.

    python benchmarks/peers.py --page                        # everything, and into docs/performance.md
    python benchmarks/peers.py --rows ease_fit --rounds 1    # one row, quickly
    python benchmarks/peers.py --small --peers lenskit       # a small simulated log

The others get environments of their own in --envs (5 GB, wheels only, torch as constraints.txt pins it); one
that cannot be installed is said to be missing. Rows are kept in build/peers/rows.json as long as
greysheep's code and the settings are the same: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers_parts import table
from peers_parts.environments import PEERS
from peers_parts.rounds import VERBS, Setup, Verb, measure, prepare
from stage import BUILD, DATA, ROOT, Record, put_section

from greysheep.errors import GreysheepError
from greysheep.system.files import write_text
from greysheep.system.machine import usable_cores

SETTINGS: Record = {
    "k": 20,
    "ease": {"regularization": 500.0},
    "ials": {"factors": 64, "alpha": 4.0, "regularization": 10.0, "iterations": 15},
    "multvae": {
        "latent": 100, "batch_size": 512, "dropout": 0.5, "learning_rate": 1e-3, "epochs": 4,
        "cuts": [1, 5, 10, 20],
    },
}  # fmt: skip
"""Of all sides."""
SECTION = "peers"


def words(text: str) -> list[str]:
    """Comma-separated words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Options, checked."""
    cases = [verb.case for verb in VERBS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=words, default=cases, help=f"of {', '.join(cases)}")
    parser.add_argument(
        "--peers", type=words, default=list(PEERS), help=f"of {', '.join(PEERS)}; '' for none"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every process")
    parser.add_argument("--data", type=Path, default=DATA / "ml-1m", help="folder with interactions.parquet")
    parser.add_argument("--small", action="store_true", help="a simulated log of 300 users instead")
    parser.add_argument("--envs", type=Path, default=BUILD / "peers", help="folder of the environments")
    parser.add_argument("--no-install", action="store_true", help="use the environments that are there")
    parser.add_argument("--kept", type=Path, default=BUILD / "peers", help="folder of inputs and rows.json")
    parser.add_argument("--again", action="store_true", help="also rows that are kept")
    parser.add_argument("--page", action="store_true", help="write the section of docs/performance.md, too")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page is")
    options = parser.parse_args(given)
    for name, known in (("rows", cases), ("peers", list(PEERS))):
        if strange := [word for word in getattr(options, name) if word not in known]:
            parser.error(f"--{name}: there is no {strange[0]!r}; choose among {', '.join(known)}")
    for name in ("rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: a whole number from 1 up")
    if not options.small and not (options.data / "interactions.parquet").exists():
        parser.error(f"--data: {options.data} holds no interactions.parquet; --small does without")
    return options


def fingerprint() -> str:
    """Hash of the code that is measured."""
    digest = hashlib.sha256()
    for folder in ("src/greysheep", "benchmarks/peers_parts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def rows(options: argparse.Namespace) -> list[tuple[Verb, Record]]:
    """The rows asked for: kept ones, and the rest measured now."""
    log = "" if options.small else str((options.data / "interactions.parquet").resolve())
    setup = Setup(log, options.rounds, {**SETTINGS, "threads": options.threads})
    work, file = (
        options.kept / f"work-{'small' if options.small else options.data.name}",
        options.kept / "rows.json",
    )
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    size: Record | None = None
    out = []
    for verb in VERBS:
        if verb.case not in options.rows:
            continue
        peers = [name for name in verb.peers if name in options.peers]
        how = {**asdict(setup), "code": fingerprint(), "peers": peers, "machine": table.machine()}
        if options.again or kept.get(verb.case, {}).get("how") != how:
            size = size or prepare(work, setup)["figure"]
            found = measure(verb, peers, options.envs, work, setup, install=not options.no_install)
            kept[verb.case] = {"how": how, "log": size, **found}
            write_text(file, json.dumps(kept, indent=1) + "\n")
        out.append((verb, kept[verb.case]))
    return out


def main(given: list[str] | None = None) -> None:
    """Measure what is missing, print the table, and write it where it is asked for."""
    options = arguments(given)
    try:
        text = table.section(rows(options))
    except GreysheepError as error:
        sys.exit(f"error: {error}")
    print(text)
    if options.page:
        print(put_section(options.docs / "performance.md", SECTION, text))


if __name__ == "__main__":
    main()
