"""Every command that writes, on a disk that fills up and on one that is read-only.

    python benchmarks/chaos/disks.py OUT.json        (as root on Linux: it mounts a small tmpfs)

Each command writes to an empty disk, then again over what it had written; the disk has 0, 1, 2, 4 ... free
pages, until there is room. Where there is none: exit 2, one line that begins with `error:` and names the
place, no traceback, and the disk holds what it held before, byte for byte. The folders of `compare`, of
`tune` and of parts of lists grow instead: nothing that lay there may be gone but the log of a run that had
failed, and the same command must go on to its end.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import greysheep as gs
from greysheep.cli import run

SMALL = "--set latent=4 --set epochs=2"
COMMANDS = {
    "fit --model multvae": f"fit log.parquet -o DISK/m --model multvae {SMALL}",
    "fit --model ease": "fit log.parquet -o DISK/m --model ease",
    "evaluate --json": "evaluate model --json DISK/r.json",
    "evaluate --html": "evaluate model --html DISK/r.html",
    "recommend -o x.parquet": "recommend model -o DISK/x.parquet",
    "recommend -o x.csv": "recommend model -o DISK/x.csv",
    "recommend -o DIR": "recommend model -o DISK/lists",
    "update": "update model --add log.parquet -o DISK/u",
    "mainstream": "mainstream log.parquet -o DISK/scores.tsv",
    "split": "split log.parquet -o DISK/parts",
    "compare": "compare log.parquet --models popular,itemknn --seeds 1 -o DISK/c",
    "tune": "tune log.parquet --model ease --trials 2 -o DISK/t",
    "compile": "compile mixture -o DISK/i",
    "demo": "demo --data simulated --epochs 1 -o DISK/report.html",
    "data simulate": "data simulate --users 90 -o DISK/d",
    "data get": "data get simulated -o DISK/d",
}
GROW = ("recommend -o DIR", "compare", "tune")
OVERWRITE = ("fit --model multvae", "fit --model ease", "update", "split")
PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 8192
"""Of the disk."""


def contents(disk: Path) -> dict[str, bytes]:
    """What lies on the disk."""
    paths = [path for path in disk.rglob("*") if path.name != "ballast"]
    return {str(path.relative_to(disk)): path.read_bytes() if path.is_file() else b"" for path in paths}


def clear(disk: Path) -> None:
    """Empty the disk."""
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def free(disk: Path, pages: int) -> Iterator[None]:
    """So many pages are free on the disk meanwhile."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        if (room := os.statvfs(disk).f_bavail - pages) > 0:
            os.posix_fallocate(file.fileno(), 0, room * PAGE)
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Nothing can be written on the disk meanwhile."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)  # nosec B603 B607  # our own disk
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)  # nosec B603 B607  # our own disk


def attempt(name: str, words: list[str], disk: Path) -> dict[str, Any]:
    """Run a command; what is not as it should be, should it have had no room."""
    before, said = contents(disk), io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        try:
            code: Any = run(words)
        except BaseException as error:  # a bug
            code = repr(error)
    after, lines = contents(disk), said.getvalue().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    faults = [] if code == 2 else [f"exit {code}"]
    if len(errors) != 1 or str(disk) not in errors[0] or "Traceback" in said.getvalue():
        faults.append(f"says {lines[-3:]}")
    gone = before.keys() - after.keys()
    faults += [f"{path} is gone" for path in gone if not path.endswith((".log", ".lock"))]
    if name not in GROW:
        faults += [f"{path} is new" for path in after.keys() - before.keys()]
        faults += [
            f"{path} has changed" for path in before.keys() & after.keys() if before[path] != after[path]
        ]
    return {"command": name, "code": code, "said": (errors or [""])[0], "faults": [] if code == 0 else faults}


def fill(name: str, disk: Path) -> list[dict[str, Any]]:
    """One command with ever more room on an empty disk, then over its own output; then on a read-only one."""
    rows = []
    for again in (False, True):
        words = COMMANDS[name].replace("DISK", str(disk)).split()
        words += ["--overwrite"] if again and name in OVERWRITE else []
        pages, code = 0, None
        while code != 0 and pages < PAGES:
            with free(disk, pages):
                rows.append(attempt(name, words, disk) | {"over": again, "pages": pages})
            code, pages = rows[-1]["code"], max(1, 2 * pages)
        if code != 0:
            rows[-1]["faults"].append("never ends well")
    with read_only(disk):
        last = attempt(name, words, disk)
        idle = name == "recommend -o DIR"  # all parts are there: it has nothing to write
        faults = ["exit 0"] if last["code"] == 0 and not idle else last["faults"]
        rows.append(last | {"over": True, "pages": None, "faults": faults})
    clear(disk)
    return rows


def main() -> None:
    """Try every command, and write what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out.absolute()
    if os.geteuid() != 0:
        print(f"{out.name} is left out: only root can mount a small disk")
        return
    os.environ["PYTHONPATH"] = str(Path(gs.__file__).parents[1])  # the library that runs here
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        disk = Path(folder) / "disk"
        disk.mkdir()
        log = gs.datasets.simulate(n_users=90, n_items=50, rows_per_user=12, seed=0).log
        log.frame().write_parquet("log.parquet")
        gs.EASE().fit(gs.split(log)).save("model")
        gs.TALL(n_experts=2, latent=4, epochs=2, progress=False).fit(gs.split(log)).save("mixture")
        mount = ["mount", "-t", "tmpfs", "-o", f"size={PAGES * PAGE}", "tmpfs", str(disk)]
        subprocess.run(mount, check=True)  # nosec B603  # a disk of our own
        try:
            rows = [row for name in COMMANDS for row in fill(name, disk)]
        finally:
            os.chdir("/")
            subprocess.run(["umount", disk], check=True)  # nosec B603 B607  # our own disk
    out.write_text(json.dumps(rows, indent=1) + "\n")
    bad = [row for row in rows if row["faults"]]
    for row in bad:
        print(json.dumps(row))
    failed = sum(row["code"] != 0 for row in rows)
    print(f"{len(COMMANDS)} commands, {failed} calls without room, {len(bad)} not as they should be")
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
