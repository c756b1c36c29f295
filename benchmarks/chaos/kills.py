"""Real processes killed at random moments; what they leave must serve the next one.

    python benchmarks/chaos/kills.py OUT.json [--fits 100] [--saves 40] [--searches 6] [--seed 0]

fit: `greysheep fit` gets SIGKILL (now and then SIGTERM or SIGINT) at a random moment, as a rule while it
trains, and is started again with `--resume`, up to three times, then left alone: its model must be that of a
fit that nobody disturbed, bit by bit.
compare, tune: the same, started again by the same command: what was finished must still be there, and the
results must be those of an undisturbed one, clock and memory aside.
save: a process writes one of two models over the other until SIGKILL; what lies there must be one of the two.
A line a case goes to OUT.jsonl, so that a run that is stopped goes on; OUT.json sums up.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from processes import SIGNALS, Ended, Moment, run, save_until_killed

MODELS = (
    ("multvae", ["latent=16"]),
    ("tall", ["n_experts=3", "latent=8", "start_epoch=3"]),
    ("tall", ["n_experts=3", "latent=8", "active_experts=2", "warm_up=4", "start_epoch=2"]),
    ("loca", ["n_experts=3", "latent=8", "local_epochs=8"]),
)
COMPARE = ["compare", "../log.parquet", "-o", "out", "--seeds", "2", "--models"]
COMPARE += ["popular,ease,itemknn"]
TUNE = ["tune", "../log.parquet", "-o", "out", "--trials", "12", "--threads", "1"]
TUNES = (["--model", "ease-weighted"], ["--model", "multvae", "--set", "latent=8", "--epochs", "4"])
MOST_STARTS = 4


def words(kind: str, case: int) -> list[str]:
    """The command of a case."""
    if kind == "compare":
        return COMPARE
    if kind == "tune":
        return [*TUNE, *TUNES[case % len(TUNES)]]
    name, settings = MODELS[case % len(MODELS)]
    given = [word for one in (*settings, "epochs=25") for word in ("--set", one)]
    return ["fit", "../log.parquet", "-o", "out", "--model", name, "--threads", "1", *given]


def outcome(kind: str, out: Path) -> str:
    """What came of a command, without clock and memory: equal texts are equal results."""
    import polars as pl

    import greysheep as gs

    if kind == "fit":
        lists = gs.load(out).recommend(k=5).write_csv().encode()
        return hashlib.sha256((out / "model.safetensors").read_bytes() + lists).hexdigest()
    if kind == "compare":
        names = [path.name for path in sorted((out / "runs").iterdir())]
        return json.dumps([timeless(json.loads((out / "results.json").read_text())), names])
    settings = [line for line in (out / "best.yaml").read_text().splitlines() if not line.startswith("#")]
    trials = pl.read_csv(out / "trials.csv").filter(pl.col("state") != "stopped").drop("seconds", "number")
    return "\n".join([*settings, trials.write_csv()])


def timeless(value: Any) -> Any:
    """JSON without seconds and bytes."""
    if isinstance(value, list):
        return [timeless(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: timeless(one) for key, one in value.items() if not key.endswith(("_seconds", "_bytes"))}


def finished(kind: str, out: Path) -> dict[str, bytes]:
    """The parts of a comparison that must outlive its process."""
    if kind != "compare":
        return {}
    runs = [path.with_suffix(ending) for path in out.glob("runs/*.json") for ending in (".json", ".parquet")]
    return {path.name: path.read_bytes() for path in runs}


def disturb(kind: str, case: int, seed: int, desk: Path, whole: str, start: float) -> dict[str, Any]:
    """One command, disturbed and started again until it is through."""
    dice = random.Random(f"{seed} {kind} {case}")  # nosec B311  # chance, not secrecy
    lines, pause = {"fit": (20, 0.05), "compare": (10, 0.5), "tune": (6, 0.2)}[kind]
    place = desk / f"{kind}{case}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    ends, kept = list[Ended](), True
    while not ends or ends[-1].code != 0:
        if len(ends) == MOST_STARTS:
            break  # alone, and yet it failed
        before = finished(kind, place / "out")
        share, moment = dice.choice([0.5, 1e9]), Moment.draw(dice, lines, pause, start)
        command = [*words(kind, case), *(["--resume"] if kind == "fit" else [])]
        alone = len(ends) == MOST_STARTS - 1
        ends.append(run(command, place, share, None if alone else moment, dice.choice(SIGNALS)))
        kept &= finished(kind, place / "out").items() >= before.items()
        if kind == "fit" and (place / "out").exists():
            if ends[-1].code != 130:
                break  # saved, be it that the signal came after that
            shutil.rmtree(place / "out")  # its best weights so far: that is another model
    return {
        "kind": kind, "case": case, "signals": [end.signal for end in ends if end.signal],
        "codes": [end.code for end in ends], "restarts": len(ends) - 1,
        "resumed": sum("goes on after epoch" in end.said for end in ends), "kept": kept,
        "left": sorted({path.name for path in place.iterdir()} - {"out"}),
        "same": same_as(whole, kind, place / "out"), "said": ends[-1].said[-500:] if ends[-1].code else "",
    }  # fmt: skip


def same_as(whole: str, kind: str, out: Path) -> bool:
    """Whether a folder holds what an undisturbed command writes."""
    from greysheep.errors import GreysheepError

    try:
        return outcome(kind, out) == whole
    except (OSError, GreysheepError):
        return False


def kill_save(case: int, seed: int, desk: Path, known: set[str]) -> dict[str, Any]:
    """One process that saves over and over."""
    dice = random.Random(f"{seed} save {case}")  # nosec B311  # chance, not secrecy
    save_until_killed(desk, dice.uniform(0.05, 1))
    return {"kind": "save", "case": case, "same": any(same_as(one, "fit", desk / "m") for one in known)}


def undisturbed(kind: str, desk: Path, cases: int) -> list[tuple[str, float]]:
    """What each command of a kind comes to when left alone, and its seconds."""
    found = []
    for case in range(cases):
        place = desk / f"whole-{kind}{case}"
        place.mkdir()
        begun = time.monotonic()
        end = run(words(kind, case), place)
        seconds = time.monotonic() - begun
        if end.code:
            sys.exit(end.said)
        found.append((outcome(kind, place / "out"), seconds))
    return found


def summed_up(seed: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A record of each kind for the page."""
    facts: dict[str, Any] = {"seed": seed}
    for kind in ("fit", "save", "compare", "tune"):
        own = [row for row in rows if row["kind"] == kind]
        facts[kind] = {"cases": len(own), "same": sum(row["same"] for row in own)}
        if kind != "save":
            facts[kind] |= {
                "signals": dict(sorted(Counter(name for row in own for name in row["signals"]).items())),
                "restarts": sum(row["restarts"] for row in own),
                "resumed": sum(row["resumed"] for row in own),
                "cases_resumed": sum(row["resumed"] > 0 for row in own),
                "kept": sum(row["kept"] for row in own),
                "clean": sum(not row["left"] for row in own),
            }
    return facts


def main() -> None:
    """Run the cases that OUT.jsonl does not hold, and sum up."""
    import greysheep as gs

    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    for name, default in (("fits", 100), ("saves", 40), ("searches", 6), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    ask = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(gs.__file__).parents[1])  # the library that runs here
    lines = ask.out.with_suffix(".jsonl")
    rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.is_file() else []
    counts = {"save": ask.saves, "tune": ask.searches, "compare": ask.searches, "fit": ask.fits}
    done = {(row["kind"], row["case"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder, lines.open("a") as log:
        desk = Path(folder)
        simulated = gs.datasets.simulate(n_users=400, n_items=200, seed=0)
        simulated.log.frame().write_parquet(desk / "log.parquet")
        different = {"fit": len(MODELS), "compare": 1, "tune": len(TUNES)}
        whole = {kind: undisturbed(kind, desk, number) for kind, number in different.items()}
        for name, case in (("a", 0), ("b", 1), ("m", 0)):
            shutil.copytree(desk / f"whole-fit{case}" / "out", desk / name)
        for kind, number in counts.items():
            for case in range(number):
                if (kind, case) in done:
                    continue
                if kind == "save":
                    row = kill_save(case, ask.seed, desk, {text for text, _ in whole["fit"][:2]})
                else:
                    alone = whole[kind][case % len(whole[kind])]
                    row = disturb(kind, case, ask.seed, desk, *alone)
                rows.append(row)
                print(json.dumps(row), file=log, flush=True)
                print(json.dumps(row), flush=True)
    facts = summed_up(ask.seed, rows)
    ask.out.write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))
    if any(not row["same"] or row.get("left") or not row.get("kept", True) for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
