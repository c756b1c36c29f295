"""From blocks to seconds an epoch, ratios and rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from speed_parts.settings import NAMES, Shape, flops
from speed_parts.settings import Cell as CellKey

Record = dict[str, Any]
KINDS = ("train", "validate")
LABELS = {"ml-1m": "ML-1M", "yelp": "Yelp", "amazon-cds": "CDs", "simulated": "simulated"}


def cell_of(record: Record) -> CellKey:
    """The cell a record is about."""
    return CellKey(record["log"], record["n_experts"], record["latent"])


def rates(blocks: dict[str, list[list[float]]], kind: str) -> list[float]:
    """Seconds a user of each block; kind `both` = a user trained on once and validated once."""
    if kind == "both":
        return [a + b for a, b in zip(rates(blocks, "train"), rates(blocks, "validate"), strict=True)]
    return [seconds / users for seconds, users, _ in blocks[kind]]


def epoch_seconds(record: Record, kind: str, who: str = "blocks") -> float:
    """Median block, scaled to all users. who: `blocks` = the program's, `bare` = the products beside it."""
    return median(rates(record[who], kind)) * record["shape"]["n_users"]


def times_bare(record: Record, kind: str) -> float:
    """How many times the bare products' seconds; paired block by block where both ran in turn."""
    own, bare = rates(record["blocks"], kind), rates(record["bare"], kind)
    if not record["together"]:
        return median(own) / median(bare)
    return median(a / b for a, b in zip(own, bare, strict=True))


def ratio(slow: Record, fast: Record, kind: str = "both") -> float:
    """Seconds of one program over those of another."""
    if slow["run"] == fast["run"] and slow["together"]:
        pairs = zip(rates(slow["blocks"], kind), rates(fast["blocks"], kind), strict=True)
        return median(a / b for a, b in pairs)
    return times_bare(slow, kind) / times_bare(fast, kind)


def by_cell(records: Sequence[Record]) -> dict[CellKey, dict[str, Record]]:
    """Records of programs, cell by cell in the order given."""
    cells: dict[CellKey, dict[str, Record]] = {}
    for record in records:
        if record["program"] in NAMES:
            cells.setdefault(cell_of(record), {})[record["program"]] = record
    return cells


HEAD = [
    "log",
    "K",
    "program",
    "training s",
    "validation s",
    "epoch s",
    "training / bare",
    "validation / bare",
    "epoch / bare",
    "epoch / greysheep",
    "peak GB",
]


def rows_of(cell: CellKey, programs: dict[str, Record]) -> list[list[str]]:
    """The rows of one cell: the bare products first."""
    lead = [LABELS.get(cell.log, cell.log), str(cell.n_experts)]
    rows = []
    measured = [record for record in programs.values() if "skipped" not in record]
    if measured:
        first = measured[0]
        seconds = [epoch_seconds(first, kind, "bare") for kind in (*KINDS, "both")]
        cells = [*(short(s) for s in seconds), "1", "1", "1", "", gigabytes(first["bare_peak"])]
        rows.append([*lead, NAMES["bare"], *cells])
    for name, record in programs.items():
        if "skipped" in record:
            rows.append([*lead, NAMES[name], f"skipped: {record['skipped']}", *[""] * 7])
            continue
        seconds = [epoch_seconds(record, kind) for kind in (*KINDS, "both")]
        ours = programs.get("greysheep", record)
        against = "" if "skipped" in ours else f"{ratio(record, ours):.2f}"
        times = [f"{times_bare(record, kind):.2f}" for kind in (*KINDS, "both")]
        rows.append(
            [*lead, NAMES[name], *(short(s) for s in seconds), *times, against, gigabytes(record["peak"])]
        )
    return rows


def short(seconds: float) -> str:
    """Seconds with three digits.

    >>> short(0.01234), short(12.345), short(1234.5)
    ('0.0123', '12.3', '1234')
    """
    return f"{seconds:.3g}" if seconds < 1000 else f"{seconds:.0f}"


def gigabytes(n_bytes: float) -> str:
    """Bytes as GB."""
    return f"{n_bytes / 1e9:.2f}"


def gigaflops(record: Record) -> float:
    """What the bare products reach, 10^9 operations a second, training."""
    training, _ = flops(cell_of(record), Shape(**record["shape"]))
    return training / epoch_seconds(record, "train", "bare") / 1e9


def busy(record: Record) -> float:
    """Share of its threads' time that the program had a core; well below 1 beside other work."""
    shares = [share for blocks in record["blocks"].values() for _, _, share in blocks]
    return median(shares) / float(record["how"]["threads"])


def stage_rows(record: Record, kind: str) -> list[tuple[str, float, float]]:
    """Stage, seconds an epoch, share; largest first. They come from a run of their own, with timers."""
    stages = record["stages"][kind]
    whole = sum(stages.values())
    users = record["shape"]["n_users"]
    return sorted(
        ((name, rate * users, rate / whole) for name, rate in stages.items()), key=lambda row: -row[1]
    )


def evaluation_row(record: Record) -> list[str]:
    """Evaluating every user: with gates read, and with gates computed first."""
    m = record["measured"]
    bare = (m["bare"] + m["bare again"]) / 2
    computed = m["evaluate"] + m["gates"]
    return [
        LABELS.get(record["log"], record["log"]),
        str(record["n_experts"]),
        f"{m['users']:,}, {m['items']:,}",
        short(bare),
        short(m["evaluate"]),
        short(computed),
        f"{m['evaluate'] / bare:.2f}",
        f"{computed / bare:.2f}",
        short(m["groups"]),
    ]


EVALUATION_HEAD = [
    "log",
    "K",
    "users, items",
    "bare s",
    "gates read s",
    "gates computed s",
    "read / bare",
    "computed / bare",
    "groups, once s",
]


def plain(head: list[str], rows: list[list[str]]) -> str:
    """A table for a terminal."""
    widths = [
        max(len(row[i]) for row in [head, *(r for r in rows if "skipped" not in r[3])])
        for i in range(len(head))
    ]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    )


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table for a page."""
    return ["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]]
