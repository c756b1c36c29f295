"""Seconds and memory of an epoch beside the bare matrix products and beside a straightforward loop.

    python benchmarks/speed.py                                     # every cell; hours, on a quiet machine
    python benchmarks/speed.py --logs ml-1m --experts 1,10         # some cells
    python benchmarks/speed.py --what greysheep --logs ml-1m       # some programs; the bare products always
    python benchmarks/speed.py --page                              # docs/performance.md from the last --json

Every program runs in a fresh process and the programs of a cell take turns, block by block, so that a load
that changes changes all of them. Results are kept in build/speed/ and read again as long as the measured
code and the settings are the same: an interrupted run goes on, and after a change in greysheep only
greysheep is measured anew. What is measured is told in speed_parts/page.py, and on the page.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from speed_parts.measure import fingerprint, measure_cell, measure_whole, replace, shape_of
from speed_parts.settings import EXPERTS, KEPT, LOGS, PAPER_LOGS, PROGRAMS, ROOT, Cell, How, all_cores
from speed_parts.tables import (
    EVALUATION_HEAD,
    HEAD,
    LABELS,
    busy,
    by_cell,
    cell_of,
    evaluation_row,
    gigaflops,
    plain,
    rows_of,
    short,
    stage_rows,
)

WHOLE = ("evaluate", "memory")
Record = dict[str, Any]


def words(text: str) -> list[str]:
    """Comma-separated words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Options, checked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logs", type=words, default=list(PAPER_LOGS), help=f"of {', '.join(LOGS)}")
    parser.add_argument("--experts", type=words, default=[str(k) for k in EXPERTS], help="values of K")
    parser.add_argument("--latent", type=int, default=100, help="D")
    parser.add_argument(
        "--what", type=words, default=[*PROGRAMS, *WHOLE], help=f"of {', '.join([*PROGRAMS, *WHOLE])}"
    )
    parser.add_argument("--threads", type=int, default=all_cores(), help="default: all cores")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10, help="batches a block, at most")
    parser.add_argument("--block-seconds", type=float, default=15.0, help="fewer batches if they take longer")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: with --threads 1 beside other work"
    )
    parser.add_argument("--max-memory", type=float, default=20.0, help="GB; cells that need more are skipped")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the results")
    parser.add_argument("--json", type=Path, help="default: table.json in the folder of the results")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from --json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    options = parser.parse_args(given)
    for name, known in (("logs", LOGS), ("what", [*PROGRAMS, *WHOLE])):
        if strange := [word for word in getattr(options, name) if word not in known]:
            parser.error(f"--{name}: there is no {strange[0]!r}; choose among {', '.join(known)}")
    if not all(k.isdigit() and int(k) > 0 for k in options.experts):
        parser.error("--experts: whole numbers from 1 up, such as 1,10")
    options.json = options.json or options.kept / "table.json"
    return options


def measure(options: argparse.Namespace) -> list[Record]:
    """All records asked for, kept ones and new ones; --json gathers them after every cell."""
    how = How(
        threads=options.threads,
        device=options.device,
        blocks=options.blocks,
        batches=options.batches,
        block_seconds=options.block_seconds,
        clock=options.clock,
        max_memory=options.max_memory * 1e9,
    )
    programs = [name for name in PROGRAMS if name in options.what]
    experts = [int(k) for k in options.experts]
    earlier = json.loads(options.json.read_text()) if options.json.exists() else []
    records: list[Record] = []

    def note(found: list[Record]) -> None:
        """Add to the table, which keeps what was measured before and not now, if its code is the same."""
        records.extend(found)
        now = {(r["program"], cell_of(r)) for r in records}
        old = [
            r for r in earlier
            if (r["program"], cell_of(r)) not in now and r.get("code") == fingerprint(r["program"])
        ]  # fmt: skip
        whole = sorted(old + records, key=place_in_table)
        replace(options.json, json.dumps(whole, indent=1) + "\n")

    for log in options.logs if programs else ():
        shape = shape_of(log, options.kept)
        for k in experts:
            note(measure_cell(programs, Cell(log, k, options.latent), shape, how, options.kept))
    for what in (what for what in WHOLE if what in options.what):
        log = "yelp" if "yelp" in options.logs else options.logs[0]
        k = 10 if 10 in experts else experts[0]
        note([measure_whole(what, Cell(log, k, options.latent), how, options.kept)])
    return records


def place_in_table(record: Record) -> tuple[int, int, int]:
    """Logs and programs in the order of the settings, then K."""
    order = [*PROGRAMS, *WHOLE]
    return list(LOGS).index(record["log"]), record["n_experts"], order.index(record["program"])


def show(records: list[Record]) -> None:
    """The tables, on the terminal."""
    cells = by_cell(records)
    if cells:
        print(plain(HEAD, [row for cell, found in cells.items() for row in rows_of(cell, found)]))
    for found in cells.values():
        ours = found.get("greysheep", {})
        if not ours.get("stages"):
            continue
        name = f"{LABELS[ours['log']]}, K = {ours['n_experts']}"
        facts = f"load {ours['machine']['load']:.2f}, had its cores {100 * busy(ours):.0f} % of the time"
        print(f"\n{name}: bare products {gigaflops(ours):.0f} GFLOP/s, {facts}")
        for kind in ("train", "validate"):
            stages = (
                f"{n} {short(s)} s ({100 * p:.0f} %)" for n, s, p in stage_rows(ours, kind) if p >= 0.005
            )
            print(f"  {kind}: {', '.join(stages)}")
    if rows := [evaluation_row(r) for r in records if r["program"] == "evaluate"]:
        print("\nevaluation of every user\n" + plain(EVALUATION_HEAD, rows))
    for record in (r for r in records if r["program"] == "memory"):
        held = ", ".join(f"{step} {n / 1e6:.0f} MB" for step, n in record["measured"].items())
        print(f"\nmemory held: {held}")


def main(given: list[str] | None = None) -> None:
    """Measure and print, or write the page."""
    options = arguments(given)
    if not options.page:
        show(measure(options))
        return
    if not options.json.exists():
        raise SystemExit(f"{options.json} is not there: run the benchmark first")
    from speed_parts.page import write  # brings matplotlib

    print(write(json.loads(options.json.read_text()), options.docs))


if __name__ == "__main__":
    main()
