"""Real processes killed at random moments of `fit` and of `save`; what they leave must serve the next one.

    python benchmarks/chaos/kills.py OUT.json [--fits 100] [--saves 40] [--seed 0]

fit: `greysheep fit` gets SIGKILL (now and then SIGTERM or SIGINT) at a random moment, and is started again
with `--resume`, up to five times, then left alone: its model must be that of a run nobody disturbed, bit by
bit.
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
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import greysheep as gs

MODELS = (
    ("multvae", ["latent=16"]),
    ("tall", ["n_experts=3", "latent=8", "start_epoch=3"]),
    ("tall", ["n_experts=3", "latent=8", "active_experts=2", "warm_up=4", "start_epoch=2"]),
    ("loca", ["n_experts=3", "latent=8", "local_epochs=8"]),
)
CODE = """
from greysheep.models.training import checkpoints
checkpoints.SHARE = {share}
from greysheep.cli import main
main()
"""
SAVING = """
import greysheep as gs
a, b = gs.load('a'), gs.load('b')
print('on', flush=True)
while True:
    a.save('m')
    b.save('m')
"""
SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT]


def command(case: int, share: float, *more: str) -> list[str]:
    """`greysheep fit` of a case."""
    name, settings = MODELS[case % len(MODELS)]
    words = [word for one in (*settings, "epochs=25") for word in ("--set", one)]
    fit = ["fit", "log.parquet", "--model", name, "--threads", "1", *words, *more]
    return [sys.executable, "-c", CODE.format(share=share), *fit]


def digest(model: Path) -> str:
    """Of what a model answers with; times and memory are left out."""
    lists = gs.load(model).recommend(k=5).write_csv().encode()
    return hashlib.sha256((model / "model.safetensors").read_bytes() + lists).hexdigest()


def kill_fit(case: int, seed: int, desk: Path, whole: str, seconds: float) -> dict[str, Any]:
    """One fit, disturbed and resumed."""
    dice = random.Random(seed * 1000 + case)  # nosec B311  # chance, not secrecy
    name, killed, resumed = f"m{case}", [], 0
    shutil.rmtree(desk / name, ignore_errors=True)
    for _ in range(5):
        number = dice.choice(SIGNALS)
        process = subprocess.Popen(  # nosec B603  # our own command
            command(case, dice.choice([0.02, 1e9]), "-o", name, "--resume"),
            cwd=desk, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=dice.uniform(0.2, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            _, said = process.communicate()
            killed.append(signal.Signals(number).name)
        resumed += "goes on after epoch" in said
        if number == signal.SIGINT and process.returncode == 130:
            shutil.rmtree(desk / name, ignore_errors=True)  # its best weights so far: that is another model
        if (desk / name).exists():  # saved, be it that the signal came after that
            break
    else:
        last = command(case, 1e9, "-o", name, "--resume")
        subprocess.run(last, cwd=desk, capture_output=True, check=True)  # nosec B603
    same = digest(desk / name) == whole
    left = [path.name for path in desk.glob(f".{name}*")]
    shutil.rmtree(desk / name)
    return {"kind": "fit", "case": case, "signals": killed, "resumed": resumed, "same": same, "left": left}


def kill_save(case: int, seed: int, desk: Path, known: set[str]) -> dict[str, Any]:
    """One process that saves over and over."""
    dice = random.Random(seed * 1000 + case)  # nosec B311  # chance, not secrecy
    saving = [sys.executable, "-c", SAVING]
    process = subprocess.Popen(saving, cwd=desk, stdout=subprocess.PIPE, text=True)  # nosec B603
    assert process.stdout is not None and process.stdout.readline() == "on\n"
    time.sleep(dice.uniform(0.05, 0.4))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    try:
        same = digest(desk / "m") in known
    except gs.errors.GreysheepError as error:
        return {"kind": "save", "case": case, "same": False, "message": str(error)}
    return {"kind": "save", "case": case, "same": same}


def prepare(desk: Path) -> tuple[list[str], float]:
    """The log, and every model undisturbed: digests, and seconds of the slowest."""
    gs.datasets.simulate(n_users=400, n_items=200, seed=0).log.frame().write_parquet(desk / "log.parquet")
    whole, slowest = [], 0.0
    for case in range(len(MODELS)):
        begun = time.monotonic()
        alone = command(case, 0.02, "-o", f"w{case}")
        subprocess.run(alone, cwd=desk, capture_output=True, check=True)  # nosec B603
        slowest = max(slowest, time.monotonic() - begun)
        whole.append(digest(desk / f"w{case}"))
    return whole, slowest


def main() -> None:
    """Run the cases that OUT.jsonl does not hold, and sum up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--fits", type=int, default=100)
    parser.add_argument("--saves", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    ask = parser.parse_args()
    lines = ask.out.with_suffix(".jsonl")
    known = [json.loads(line) for line in lines.read_text().splitlines()] if lines.is_file() else []
    done = {(row["kind"], row["case"]) for row in known}
    with tempfile.TemporaryDirectory() as folder, lines.open("a") as log:
        desk = Path(folder)
        whole, seconds = prepare(desk)
        shutil.copytree(desk / "w0", desk / "a")
        shutil.copytree(desk / "w1", desk / "b")
        shutil.copytree(desk / "a", desk / "m")
        jobs = [("fit", case) for case in range(ask.fits)] + [("save", case) for case in range(ask.saves)]
        for kind, case in jobs:
            if (kind, case) in done:
                continue
            if kind == "fit":
                row = kill_fit(case, ask.seed, desk, whole[case % len(MODELS)], seconds)
            else:
                row = kill_save(case, ask.seed, desk, set(whole[:2]))
            known.append(row)
            print(json.dumps(row), file=log, flush=True)
            print(json.dumps(row), flush=True)
    fits, saves = ([row for row in known if row["kind"] == kind] for kind in ("fit", "save"))
    signals = [name for row in fits for name in row["signals"]]
    facts = {
        "seed": ask.seed,
        "fits": len(fits),
        "signals": {name: signals.count(name) for name in sorted(set(signals))},
        "resumed": sum(row["resumed"] for row in fits),
        "fits_bit_identical": sum(row["same"] for row in fits),
        "saves": len(saves),
        "saves_readable": sum(row["same"] for row in saves),
    }
    ask.out.write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))
    if any(not row["same"] for row in known):
        sys.exit(1)


if __name__ == "__main__":
    main()
