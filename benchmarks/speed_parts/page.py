"""docs/performance.md and its plots from kept results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stage import Record, filled, put_section, section, write_page

from speed_parts import tables
from speed_parts.settings import KINDS, LABELS, NAMES, PROGRAMS

STYLE = {  # colour, marker, line
    "bare": ("#6e7781", "o", "--"),
    "greysheep": ("#d55e00", "D", "-"),
    "greysheep-epoch": ("#e69f00", "v", "-"),
    "loop-sparse": ("#0064a8", "s", "-"),
    "loop-dense": ("#cf66b5", "^", "-"),
}
PAGE = "performance.md"
LEAST_SHARE = 0.005  # smaller stages are added up


def write(records: list[Record], docs: Path) -> Path:
    """Write the page and its pictures below `docs`; the section that benchmarks/peers.py writes stays."""
    beside = section(docs / PAGE, "peers")
    page = write_page(docs / PAGE, **_content(records), pictures=pictures(records, docs / "img"))
    return put_section(page, "peers", beside) if beside else page


def text(records: list[Record]) -> str:
    """The page without pictures and pointers to other pages, for a terminal."""
    return filled(PAGE, **_content(records), pictures=None)


def _content(records: list[Record]) -> Record:
    """What the template fills in."""
    timed = tables.measured(records)
    cells = tables.by_cell(records)
    loops_head, loops = _loops(timed)
    return {
        "facts": _facts(timed) if timed else None, "in_short": _in_short(timed),
        "seconds_head": tables.HEAD,
        "seconds": [row for cell, programs in cells.items() for row in tables.rows_of(cell, programs)],
        "loops_head": loops_head, "loops": loops,
        "stages": _stages([r for r in timed if r["program"] == "greysheep"]),
        "evaluation_head": tables.EVALUATION_HEAD, "evaluation": tables.evaluation_rows(records),
        "memory": _memory(records),
    }  # fmt: skip


def _span(values: Iterable[float], form: str = ".2f") -> str:
    """The least and the largest."""
    known = [format(value, form) for value in sorted(values)]
    return " to ".join(dict.fromkeys((known[0], known[-1])))


def _facts(timed: list[Record]) -> Record:
    """Machine, versions, dates and load of what was measured."""

    def all_of(values: Iterable[Any]) -> str:
        return ", ".join(map(str, sorted(set(values))))

    days = sorted(r["begun"][:10] for r in timed)
    return {
        "how": timed[0]["how"], "days": " to ".join(dict.fromkeys((days[0], days[-1]))),
        "load": _span(r["load"] for r in timed), "busy": f"{100 * min(map(tables.busy, timed)):.0f}",
        "gigaflops": _span(map(tables.gigaflops, timed), ".0f"),
        "machine": all_of(r["machine"] for r in timed), "latent": all_of(r["latent"] for r in timed),
        **{name: all_of(r["how"][name] for r in timed) for name in ("device", "threads")},
        **{name: all_of(r["facts"][name] for r in timed) for name in ("torch", "greysheep")},
    }  # fmt: skip


def _in_short(timed: list[Record]) -> Record | None:
    """The span of the ratios over all cells."""
    cells = [programs for programs in tables.by_cell(timed).values() if "greysheep" in programs]
    if not cells:
        return None
    others = []
    for name in ("loop-sparse", "loop-dense"):
        ratios = [tables.ratio(p[name], p["greysheep"]) for p in cells if name in p]
        others += [(NAMES[name].replace(",", " with"), _span(ratios))] if ratios else []
    own = _span(tables.times_bare(programs["greysheep"], "both") for programs in cells)
    return {"cells": len(cells), "own": own, "others": others}


def _loops(timed: list[Record]) -> tuple[list[str], list[list[str]]]:
    """The other programs over greysheep: training alone, and training and validation together."""
    cells = tables.by_cell(timed)
    experts = sorted({cell.n_experts for cell in cells})
    rows = []
    for log in dict.fromkeys(cell.log for cell in cells):
        own = {cell.n_experts: programs for cell, programs in cells.items() if cell.log == log}
        for name in PROGRAMS[1:]:
            texts = [
                f"{tables.ratio(own[k][name], own[k]['greysheep'], 'train'):.2f} / "
                f"{tables.ratio(own[k][name], own[k]['greysheep']):.2f}"
                if {name, "greysheep"} <= own.get(k, {}).keys() else ""
                for k in experts
            ]  # fmt: skip
            rows += [[LABELS[log], NAMES[name], *texts]] if any(texts) else []
    return ["log", "program", *(f"K = {k}" for k in experts)], rows


def _stages(ours: list[Record]) -> list[tuple[list[str], list[list[str]]]]:
    """Where greysheep's time goes: a table for training, one for validation."""
    out = []
    for kind, title in KINDS.items() if ours else ():
        columns = [_gathered(r, kind) for r in ours]
        most = {name: max(column.get(name, (0.0, 0.0))[1] for column in columns)
                for column in columns for name in column}  # fmt: skip
        names = sorted(most, key=lambda name: (name in ("rest", "smaller stages"), -most[name]))
        head = [title.capitalize(), *(f"{LABELS[r['log']]}, K = {r['n_experts']}" for r in ours)]
        rows = [
            [name, *(f"{tables.short(c[name][0])} s, {100 * c[name][1]:.0f} %" if name in c else ""
                     for c in columns)]
            for name in names
        ]  # fmt: skip
        out.append((head, rows))
    return out


def _gathered(record: Record, kind: str) -> dict[str, tuple[float, float]]:
    """Stage: seconds per epoch and share; small stages are added up."""
    out: dict[str, tuple[float, float]] = {}
    for stage, spent, share in tables.stage_rows(record, kind):
        name = stage if share >= LEAST_SHARE else "smaller stages"
        before = out.get(name, (0.0, 0.0))
        out[name] = before[0] + spent, before[1] + share
    return out


def _memory(records: list[Record]) -> list[tuple[list[str], list[list[str]]]]:
    held = [record for record in records if record["program"] == "memory"]
    heads = [[f"{LABELS[record['log']]}, K = {record['n_experts']}", "MB"] for record in held]
    rows = [[[step, f"{size / 1e6:.0f}"] for step, size in record["held"].items()] for record in held]
    return list(zip(heads, rows, strict=True))


def pictures(records: list[Record], folder: Path) -> dict[str, str]:
    """Draw the plots; {what they show: file name}."""
    from panels import draw  # brings matplotlib

    cells = tables.by_cell(tables.measured(records))
    by_log = {
        LABELS[cell.log]: {c.n_experts: p for c, p in cells.items() if c.log == cell.log} for cell in cells
    }
    by_count = {
        f"K = {k}": {_size(p): p for c, p in cells.items() if c.n_experts == k}
        for k in sorted({cell.n_experts for cell in cells})
    }
    files = {}
    for text, name, panels, along, height in (
        ("Seconds an epoch against the number of experts", "seconds_by_experts", by_log, "experts K", "s"),
        ("Peak memory against the number of experts", "memory_by_experts", by_log, "experts K", "GB"),
        ("Seconds an epoch against users times items", "by_size", by_count, "users times items", "s"),
    ):
        if cells and (panels is by_log or len(by_log) > 1):
            files[text] = f"speed_{name}.svg"
            curves = {title: _curves(points, height) for title, points in panels.items()}
            styles = {NAMES[name]: style for name, style in STYLE.items()}
            draw(folder / files[text], curves, styles, height, along, logarithmic=True)
    return files


def _size(programs: dict[str, Record]) -> int:
    shape = next(iter(programs.values()))["shape"]
    return int(shape["n_users"] * shape["n_items"])


def _curves(points: dict[int, dict[str, Record]], height: str) -> dict[str, dict[int, float]]:
    """{program: {place: height}}; the bare products are those measured beside the first program."""
    out: dict[str, dict[int, float]] = {}
    for place, programs in sorted(points.items()):
        beside = next(iter(programs.values()))
        for name, record in {"bare": beside, **programs}.items():
            key, who = ("bare_peak", "bare") if name == "bare" else ("peak", "blocks")
            value = record[key] / 1e9 if height == "GB" else tables.seconds(record, "both", who)
            out.setdefault(NAMES[name], {})[place] = value
    return out
