"""Damaged and hostile model folders: all found, the file named; no code of theirs run, little time taken.

    python benchmarks/chaos/folders.py OUT.json [--flips 1000] [--cuts 300] [--seed 0]

Damage: one bit of one file turned, or a file cut short, in folders of five models. Hostile: `hostile.py`, in
a process of their own that watches what Python is asked to do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import hostile

import greysheep as gs
from greysheep.errors import ModelFolderError
from greysheep.models.registry import parse

MODELS = (
    "tall[n_experts=3,latent=8,epochs=3]",
    "ease",
    "lft[latent=8,epochs=3]",
    "ials[factors=8]",
    "ensemble[members=tall[n_experts=3,latent=8,epochs=3]+ease,weights=1+1]",
)
MOST_SECONDS, MOST_MB = 1.0, 200
FORBIDDEN = ("subprocess", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket", "pickle.find_class")


def prepare(good: Path) -> None:
    """Models of a small log."""
    log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    for text in MODELS:
        parse(text, progress=False).fit(log).save(good / text.partition("[")[0])


def damage(good: Path, flips: int, cuts: int, seed: int) -> dict[str, Any]:
    """Turn bits and cut files; how often it was found, and the file named."""
    dice = random.Random(seed)  # nosec B311  # chance, not secrecy
    found, named, missed = Counter[str](), Counter[str](), []
    for number in range(flips + cuts):
        kind = "flips" if number < flips else "cuts"
        folder = good / MODELS[number % len(MODELS)].partition("[")[0]
        sealed = json.loads((folder / "manifest.json").read_text())["files"]
        file = folder / dice.choice(sorted([*sealed, "manifest.json", "manifest.sha256"]))
        before = file.read_bytes()
        place = dice.randrange(max(1, len(before)))
        after = bytearray(before[: place if kind == "cuts" else None])
        if kind == "flips" and before:
            after[place] ^= 1 << dice.randrange(8)
        if bytes(after) == before:  # an empty file cannot be damaged so
            after = bytearray(b"\0")
        file.write_bytes(after)
        try:
            gs.load(folder)
            missed.append(f"{kind} {folder.name}/{file.name} at {place}")
        except ModelFolderError as error:
            found[kind] += 1
            named[kind] += file.name in str(error)
        file.write_bytes(before)
    return {"flips": flips, "cuts": cuts, "found": dict(found), "named": dict(named), "missed": missed}


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def watch(good: Path, places: list[Path]) -> None:
    """In the child: load each folder; a line of JSON for each."""
    for folder in sorted(good.iterdir()):  # whatever loading imports is imported now
        gs.load(folder)
    own = (sys.prefix, sys.base_prefix, "<frozen", str(Path(gs.__file__).parent), "<")
    seen: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            seen.append(event)
        elif event == "exec" and not arguments[0].co_filename.startswith(own):
            seen.append(f"exec {arguments[0].co_filename}")
        elif event == "import" and arguments[0].partition(".")[0] == "evil":
            seen.append(f"import {arguments[0]}")
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            seen.append(f"open {arguments[0]} {arguments[1]}")

    sys.path.insert(0, "")  # a stranger's module in the working folder could be found
    sys.addaudithook(hook)
    for place in places:
        seen.clear()
        rest = resident("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
        seen.clear()
        begun, outcome, said = time.perf_counter(), "accepted", ""
        try:
            gs.load(place)
        except ModelFolderError as error:
            outcome, said = "refused", str(error)
        except BaseException as error:
            outcome, said = "foreign error", repr(error)
        seconds = time.perf_counter() - begun
        grown = resident("VmHWM") - rest
        row = {"outcome": outcome, "seconds": round(seconds, 3), "mb": round(grown, 1), "events": list(seen)}
        print(json.dumps({**row, "said": said}), flush=True)


def strangers(good: Path, desk: Path) -> list[dict[str, Any]]:
    """Every hostile folder, loaded in a child that may take 300 seconds for all."""
    names = list(hostile.CASES)
    places = [hostile.make(case, good, desk / f"h{i}") for i, case in enumerate(names)]
    command = [sys.executable, __file__, "--watch", str(good), *map(str, places)]
    where = {**os.environ, "PYTHONPATH": str(Path(gs.__file__).parents[1])}  # the library that runs here
    child = subprocess.run(  # nosec B603  # this file, in paths of its own
        command, cwd=desk, env=where, capture_output=True, text=True, timeout=300
    )
    lines = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    ran = (desk / hostile.CANARY).exists()
    rows = [{"case": name, "code_run": ran, **row} for name, row in zip(names, lines, strict=False)]
    rows += [{"case": name, "outcome": f"died: {child.stderr[-300:]}"} for name in names[len(lines) :]]
    for row in rows:
        small = row.get("seconds", 99) <= MOST_SECONDS and row.get("mb", 9999) <= MOST_MB
        row["ok"] = row["outcome"] == "refused" and small and not row["events"] and not ran
    return rows


def main() -> None:
    """Damage, hostile folders, their record."""
    if sys.argv[1:2] == ["--watch"]:
        watch(Path(sys.argv[2]), [Path(place) for place in sys.argv[3:]])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    ask = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        good = desk / "good"
        good.mkdir()
        prepare(good)
        rows = strangers(good, desk)
        facts = {
            "seed": ask.seed,
            "models": MODELS,
            **damage(good, ask.flips, ask.cuts, ask.seed),
            "hostile": rows,
        }
    ask.out.parent.mkdir(parents=True, exist_ok=True)
    ask.out.write_text(json.dumps(facts, indent=1) + "\n")
    bad = [row for row in rows if not row["ok"]]
    for row in bad:
        print(json.dumps(row))
    print(
        f"{len(rows) - len(bad)} of {len(rows)} hostile folders refused in time; {facts['found']} found, "
        f"{facts['named']} named; missed: {facts['missed']}"
    )
    done = {"flips": ask.flips, "cuts": ask.cuts}
    if bad or any(facts["named"].get(kind, 0) != number for kind, number in done.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
