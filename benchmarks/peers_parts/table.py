"""From measured rows to the section of docs/performance.md."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from stage import Record, filled

from greysheep.system.machine import total_bytes, usable_cores
from peers_parts.environments import OURS, PEERS
from peers_parts.rounds import Verb

HEAD = ("verb", "library", "s", "its s / greysheep's", "of rounds", "peak MB", "figure")
Rows = Sequence[tuple[Verb, Record]]


def machine() -> str:
    """What the rows were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.machine()
    return f"{cpu}, {usable_cores()} cores, {total_bytes() / 2**30:.0f} GiB"


def ratios(row: Record, name: str) -> list[float]:
    """A library's seconds over greysheep's, round by round.

    >>> own, theirs = [{"seconds": 2.0}, {"seconds": 4.0}], [{"seconds": 3.0}, {"seconds": 8.0}]
    >>> ratios({"sides": {"greysheep": own, "ranx": theirs}}, "ranx")
    [1.5, 2.0]
    """
    pairs = zip(row["sides"][name], row["sides"][OURS], strict=True)
    return [theirs["seconds"] / own["seconds"] for theirs, own in pairs]


def peak(row: Record, name: str) -> float:
    """Bytes of the median round."""
    return median(found["peak"] for found in row["sides"][name])


def too_much(row: Record, name: str) -> bool:
    """Whether greysheep takes more memory than this library and 20 % or 150 MB, whichever is more."""
    theirs = peak(row, name)
    return peak(row, OURS) > theirs + max(0.2 * theirs, 150e6)


def lines_of(verb: Verb, row: Record) -> list[list[str]]:
    """The lines of a verb: greysheep's first, then the others', the fastest first."""
    peers = sorted(
        (name for name in row["sides"] if name != OURS), key=lambda name: median(ratios(row, name))
    )
    lines = []
    for name in (OURS, *peers):
        found = row["sides"][name]
        ratio, span = "1", ""
        if name != OURS:
            values = sorted(ratios(row, name))
            ratio, span = f"{median(values):.2f}", f"{values[0]:.2f} to {values[-1]:.2f}"
        lines.append([
            verb.text if name == OURS else "", title(name), seconds(median(one["seconds"] for one in found)),
            ratio, span, f"{peak(row, name) / 1e6:.0f}", figure(found[-1]["figure"]),
        ])  # fmt: skip
    return lines


def title(name: str) -> str:
    """A library's name and release."""
    return PEERS[name].title if name in PEERS else name


def seconds(value: float) -> str:
    """Three digits.

    >>> seconds(0.03456), seconds(12.345)
    ('0.0346', '12.3')
    """
    return f"{value:.3g}"


def figure(found: Record) -> str:
    """The one number that says whether the same was computed."""
    return next((f"{name} {value:.4f}" for name, value in found.items() if "ndcg" in name), "")


def span(values: Iterable[Any]) -> str:
    """The least and the largest, once if they are the same."""
    known = sorted(values)
    return " to ".join(dict.fromkeys((str(known[0]), str(known[-1]))))


def section(rows: Rows) -> str:
    """The whole section as Markdown."""
    pairs = [(verb, row, name) for verb, row in rows for name in row["sides"] if name != OURS]
    slower = [f"{verb.text} ({title(name)}, {median(ratios(row, name)):.2f})"
              for verb, row, name in pairs if median(ratios(row, name)) < 1]  # fmt: skip
    larger = [f"{verb.text} ({title(name)})" for verb, row, name in pairs if too_much(row, name)]
    missing: dict[str, list[str]] = {}
    for verb, row in rows:
        for name, why in row["missing"].items():
            missing.setdefault(f"{title(name)}: {why}", []).append(verb.text)
    hows = [row["how"] for _, row in rows]
    first = hows[0] if hows else None
    return filled(
        "peers.md", head=HEAD, rows=[line for verb, row in rows for line in lines_of(verb, row)],
        slower=slower, larger=larger, missing=missing, how=first,
        log=rows[0][1]["log"] if rows else None,
        machines=sorted({how["machine"] for how in hows}),
        rounds=span(how["rounds"] for how in hows) if hows else "",
        threads=span(how["settings"]["threads"] for how in hows) if hows else "",
        days=span(row["day"] for _, row in rows) if hows else "",
        loads=span(f"{row['load']:.2f}" for _, row in rows) if hows else "",
        simulated=bool(hows) and not first["log"], name=Path(first["log"]).parent.name if first else "",
    )  # fmt: skip
