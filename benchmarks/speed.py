"""Seconds and memory of an epoch beside the bare matrix products and beside a straightforward loop.

    python benchmarks/speed.py                                     # every cell; hours, on a quiet machine
    python benchmarks/speed.py --logs ml-1m --experts 1,10         # some cells
    python benchmarks/speed.py --what greysheep --logs ml-1m       # some programs; the bare products always
    python benchmarks/speed.py --page                              # docs/performance.md from what was kept

Every program runs in a fresh process and the programs of a cell take turns, block by block, so that a load
that changes changes all of them. Results are kept in build/speed/, as suites of pyperf, and read again as
long as the measured code and the settings are the same: an interrupted run goes on, and after a change in
greysheep only greysheep is measured anew. What is measured is told on the page (speed_parts/page.py).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from speed_parts.settings import EVALUATE, EXPERTS, LOGS, PAPER_LOGS, PROGRAMS, Cell, Setup
from stage import BUILD, ROOT, Record

from greysheep.system.machine import usable_cores

WHAT = (*PROGRAMS, EVALUATE, "memory")


def words(text: str) -> list[str]:
    """Comma-separated words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Options, checked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logs", type=words, default=list(PAPER_LOGS), help=f"of {', '.join(LOGS)}")
    parser.add_argument("--experts", type=words, default=[str(k) for k in EXPERTS], help="values of K")
    parser.add_argument("--latent", type=int, default=100, help="D")
    parser.add_argument("--what", type=words, default=list(WHAT), help=f"of {', '.join(WHAT)}")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="default: all cores")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10, help="batches a block, at most")
    parser.add_argument("--block-seconds", type=float, default=15.0, help="fewer batches if they take longer")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: with --threads 1 beside other work"
    )
    parser.add_argument("--max-memory", type=float, default=20.0, help="GB; cells that need more are skipped")
    parser.add_argument("--kept", type=Path, default=BUILD / "speed", help="folder of the results")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from --kept")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    options = parser.parse_args(given)
    for name, known in (("logs", LOGS), ("what", WHAT)):
        if strange := [word for word in getattr(options, name) if word not in known]:
            parser.error(f"--{name}: there is no {strange[0]!r}; choose among {', '.join(known)}")
    if not all(k.isdigit() and int(k) > 0 for k in options.experts):
        parser.error("--experts: whole numbers from 1 up, such as 1,10")
    return options


def measure(options: argparse.Namespace) -> list[Record]:
    """All records asked for, kept ones and new ones."""
    from speed_parts.measure import measure_cell, measure_memory

    setup = Setup(
        threads=options.threads, device=options.device, blocks=options.blocks, batches=options.batches,
        block_seconds=options.block_seconds, clock=options.clock, max_memory=options.max_memory * 1e9,
    )  # fmt: skip
    programs = [name for name in PROGRAMS if name in options.what]
    experts = [int(k) for k in options.experts]
    cells = [Cell(log, k, options.latent) for log in options.logs if programs for k in experts]
    records = [record for cell in cells for record in measure_cell(programs, cell, setup, options.kept)]
    log = "yelp" if "yelp" in options.logs else options.logs[0]
    cell = Cell(log, 10 if 10 in experts else experts[0], options.latent)
    if EVALUATE in options.what:
        records += measure_cell([EVALUATE], cell, setup, options.kept)
    if "memory" in options.what:
        records.append(measure_memory(cell, setup, options.kept))
    return records


def place_in_table(record: Record) -> tuple[int, int, int]:
    """Logs and programs in the order of the settings, then K."""
    return list(LOGS).index(record["log"]), record["n_experts"], WHAT.index(record["program"])


def main(given: list[str] | None = None) -> None:
    """Measure and print what the page would say, or write it."""
    options = arguments(given)
    from speed_parts import page

    if not options.page:
        print(page.text(measure(options)))
        return
    from speed_parts.measure import all_kept

    records = sorted(all_kept(options.kept), key=place_in_table)
    if not records:
        raise SystemExit(f"{options.kept} holds no results of this code: run the benchmark first")
    print(page.write(records, options.docs))


if __name__ == "__main__":
    main()
