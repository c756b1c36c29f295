"""From kept results to ratios and rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from stage import Record

from speed_parts.settings import EVALUATE, KINDS, LABELS, NAMES, Cell, Shape, flops

BOTH = (*KINDS, "both")


def cell_of(record: Record) -> Cell:
    """The cell a record is about."""
    return Cell(record["log"], record["n_experts"], record["latent"])


def epochs(record: Record, kind: str, who: str = "blocks") -> list[float]:
    """Seconds per epoch of each block; kind `both`: training and validation; who `bare`: the products."""
    if kind == "both":
        pairs = zip(epochs(record, "train", who), epochs(record, "validate", who), strict=True)
        return [a + b for a, b in pairs]
    values: list[float] = record[who][kind]
    return values


def seconds(record: Record, kind: str, who: str = "blocks") -> float:
    """Those of the median block."""
    return median(epochs(record, kind, who))


def times_bare(record: Record, kind: str) -> float:
    """How many times the bare products' seconds; paired block by block where both ran in turn."""
    own, bare = epochs(record, kind), epochs(record, kind, "bare")
    return paired(own, bare) if record["together"] else median(own) / median(bare)


def ratio(slow: Record, fast: Record, kind: str = "both") -> float:
    """Seconds of one program over those of another."""
    if slow["run"] == fast["run"] and slow["together"]:
        return paired(epochs(slow, kind), epochs(fast, kind))
    return times_bare(slow, kind) / times_bare(fast, kind)


def paired(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median of the ratios of blocks that ran beside each other.

    >>> paired([2, 6, 40], [1, 2, 10])
    3.0
    """
    return median(a / b for a, b in zip(slow, fast, strict=True))


def by_cell(records: Sequence[Record]) -> dict[Cell, dict[str, Record]]:
    """Records of programs, cell by cell in the order given."""
    cells: dict[Cell, dict[str, Record]] = {}
    for record in records:
        if record["program"] in NAMES:
            cells.setdefault(cell_of(record), {})[record["program"]] = record
    return cells


def measured(records: Sequence[Record]) -> list[Record]:
    """The programs' results, without what was skipped."""
    return [record for record in records if record["program"] in NAMES and "skipped" not in record]


HEAD = ("log", "K", "program", "training s", "validation s", "epoch s", "training / bare",
        "validation / bare", "epoch / bare", "epoch / greysheep", "peak GB")  # fmt: skip


def rows_of(cell: Cell, programs: dict[str, Record]) -> list[list[str]]:
    """The rows of one cell: the bare products first."""
    lead, rows = [LABELS[cell.log], str(cell.n_experts)], []
    for first in measured(list(programs.values()))[:1]:
        bare = [short(seconds(first, kind, "bare")) for kind in BOTH]
        rows.append([*lead, NAMES["bare"], *bare, "1", "1", "1", "", gigabytes(first["bare_peak"])])
    for name, record in programs.items():
        if "skipped" in record:
            rows.append([*lead, NAMES[name], f"skipped: {record['skipped']}", *[""] * 7])
            continue
        ours = programs.get("greysheep", record)
        against = "" if "skipped" in ours else f"{ratio(record, ours):.2f}"
        own = [short(seconds(record, kind)) for kind in BOTH]
        times = [f"{times_bare(record, kind):.2f}" for kind in BOTH]
        rows.append([*lead, NAMES[name], *own, *times, against, gigabytes(record["peak"])])
    return rows


def short(value: float) -> str:
    """Seconds with three digits.

    >>> short(0.01234), short(12.345), short(1234.5)
    ('0.0123', '12.3', '1234')
    """
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def gigabytes(n_bytes: float) -> str:
    """Bytes as GB."""
    return f"{n_bytes / 1e9:.2f}"


def gigaflops(record: Record) -> float:
    """What the bare products reach, 10^9 operations per second, training."""
    return flops(cell_of(record), Shape(**record["shape"]))[0] / seconds(record, "train", "bare") / 1e9


def busy(record: Record) -> float:
    """Share of its threads' time that the program had a core; well below 1 beside other work."""
    return float(median(record["busy"]))


def stage_rows(record: Record, kind: str) -> list[tuple[str, float, float]]:
    """Stage, seconds per epoch, share; largest first. They come from a run of their own, with timers."""
    stages, users = record["stages"][kind], record["shape"]["n_users"]
    rows = [(name, rate * users, rate / sum(stages.values())) for name, rate in stages.items()]
    return sorted(rows, key=lambda row: -row[1])


EVALUATION_HEAD = ("log", "K", "users, items", "bare s", "gates read s", "gates computed s", "read / bare",
                   "computed / bare", "groups, once s", "peak GB")  # fmt: skip


def evaluation_rows(records: Sequence[Record]) -> list[list[str]]:
    """Evaluating every user: with gates read, and with gates computed first."""
    rows = []
    for r in (r for r in records if r["program"] == EVALUATE and "skipped" not in r):
        read, bare = epochs(r, "evaluate"), epochs(r, "evaluate", "bare")
        computed = [a + b for a, b in zip(read, epochs(r, "gates"), strict=True)]
        rows.append([
            LABELS[r["log"]], str(r["n_experts"]), f"{r['shape']['n_users']:,}, {r['shape']['n_items']:,}",
            *(short(median(times)) for times in (bare, read, computed)),
            f"{paired(read, bare):.2f}", f"{paired(computed, bare):.2f}", short(r["facts"]["groups"]),
            gigabytes(r["peak"]),
        ])  # fmt: skip
    return rows
