"""docs/performance.md and its plots from kept results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stage import Record, markdown, write_page

from speed_parts import tables
from speed_parts.settings import KINDS, LABELS, NAMES, PROGRAMS

STYLE = {  # colour, marker, line
    "bare": ("#6e7781", "o", "--"),
    "greysheep": ("#d55e00", "D", "-"),
    "greysheep-epoch": ("#e69f00", "v", "-"),
    "loop-sparse": ("#0064a8", "s", "-"),
    "loop-dense": ("#cf66b5", "^", "-"),
}
ELSEWHERE = [
    "## Measured elsewhere",
    "",
    "- [large.md](results/large.md): half a million users, prepared, scored and trained.",
    "- [compiled-index.md](results/compiled-index.md): lists from a compiled index beside the mixture of "
    "100 experts.",
    "- [questions.md](results/questions.md): what fewer active experts and rarer gates save, and what they "
    "lose.",
    "- Yelp, K = 100, D = 100: a whole epoch with its validation, run once (2026-11-24, other programs "
    "beside it): 2,615 + 1,044 s, peak 16.7 GB, nothing spilled. CDs, K = 40, likewise: 438 + 155 s, 9.4 GB.",
    "- On a GPU nothing was measured yet: `python benchmarks/speed.py --device cuda --kept build/speed-gpu`.",
]
LEAST_SHARE = 0.005  # smaller stages are added up


def write(records: list[Record], docs: Path) -> Path:
    """Write the page and its pictures below `docs`."""
    return write_page(
        docs / "performance.md", _head(records), _seconds(records, docs / "img"), _loops(records),
        _stages(records), _evaluation(records), _memory(records), ELSEWHERE if records else [],
    )  # fmt: skip


def _span(values: Iterable[float], form: str = ".2f") -> str:
    """The least and the largest."""
    known = [format(value, form) for value in sorted(values)]
    return " to ".join(dict.fromkeys((known[0], known[-1])))


def _head(records: list[Record]) -> list[str]:
    lines = [
        "# Performance", "",
        "How long an epoch takes beside the matrix products it cannot avoid, and beside the program one "
        "would first write. Made by `python benchmarks/speed.py --page`.", "",
    ]  # fmt: skip
    timed = tables.measured(records)
    if not timed:
        return lines

    def all_of(values: Iterable[Any]) -> str:
        return ", ".join(map(str, sorted(set(values))))

    facts, how = [r["facts"] for r in timed], timed[0]["how"]
    days = sorted(r["begun"][:10] for r in timed)
    clock = "; seconds are processor seconds, not wall clock" if how["clock"] == "cpu" else ""
    return [
        *lines,
        f"Machine: {all_of(r['machine'] for r in timed)}; "
        f"device {all_of(r['how']['device'] for r in timed)}; "
        f"{all_of(r['how']['threads'] for r in timed)} thread(s); torch {all_of(f['torch'] for f in facts)}, "
        f"greysheep {all_of(f['greysheep'] for f in facts)}; "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}; load average when a cell began "
        f"{_span(r['load'] for r in timed)}; the programs had their cores "
        f"{100 * min(map(tables.busy, timed)):.0f} % of the time or more{clock}.", "",
        *_in_short(timed), *_method(timed),
    ]  # fmt: skip


def _in_short(timed: list[Record]) -> list[str]:
    """The span of the ratios over all cells."""
    cells = [programs for programs in tables.by_cell(timed).values() if "greysheep" in programs]
    if not cells:
        return []
    own = _span(tables.times_bare(programs["greysheep"], "both") for programs in cells)
    text = f"In short, over {len(cells)} cells: greysheep's epoch takes {own} times its bare products"
    for name in ("loop-sparse", "loop-dense"):
        if found := [
            tables.ratio(programs[name], programs["greysheep"]) for programs in cells if name in programs
        ]:
            text += f"; the {NAMES[name].replace(',', ' with')}, {_span(found)} times greysheep's seconds"
    return [f"{text}.", ""]


def _method(timed: list[Record]) -> list[str]:
    how = timed[0]["how"]
    sizes = ", ".join(str(d) for d in sorted({r["latent"] for r in timed}))
    return [
        "- **Bare products**: 3 · 2UKDI operations for training and 2UKDI for validation, as `torch.mm` of "
        "the shapes training has ([B, KD] by [KD, I], [B, I] by [I, KD], [KD, B] by [B, I]) into memory "
        f"that is there. They reach {_span(map(tables.gigaflops, timed), '.0f')} GFLOP/s here. No gate, no "
        "softmax, no encoder, no Adam.",
        "- **Loop**: TALL as a list of K modules, a Python loop and autograd, Adam as torch has it, input as "
        "dense rows or through `EmbeddingBag`; validation ranks by `torch.topk` (20), not by a full sort "
        "(`benchmarks/speed_parts/looped.py`). It computes the same numbers as greysheep, which a test "
        "checks.",
        "- **greysheep**: `train_epoch` and `validate` of its own trainer. With K = 1 it computes no gate; "
        "the loop does.",
        f"- Every program is a fresh process; they take turns, {how['blocks']} blocks each of up to "
        f"{how['batches']} batches (a slow batch: as many as fill {how['block_seconds']:.0f} s, two at "
        "least; short epochs: whole epochs). Seconds are the median block scaled to the epoch, ratios the "
        f"median of paired blocks. Protocol `paper`, seed 0, float32, D = {sizes}, batch size of the "
        "paper's preset, adaptive weights on from the first epoch.",
        "- **Peak memory** is the process's own, copying the best weights included, as training does it.",
        "",
    ]


def _seconds(records: list[Record], folder: Path) -> list[str]:
    rows = [
        row for cell, programs in tables.by_cell(records).items() for row in tables.rows_of(cell, programs)
    ]
    if not rows:
        return []
    lines = ["## Seconds an epoch, and memory", "", *markdown(tables.HEAD, rows)]
    for text, name in pictures(records, folder).items():
        lines += [f"![{text}](img/{name})", ""]
    return lines


def _loops(records: list[Record]) -> list[str]:
    """The other programs over greysheep: training alone, and training and validation together."""
    cells = tables.by_cell(tables.measured(records))
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
    if not rows:
        return []
    return [
        "## How many times greysheep's seconds the others need", "",
        "Training alone / training and validation. Below 1 is faster than greysheep with its defaults, which "
        "computes every gate in every batch. Gates once an epoch are those of the last validation; on "
        "ML-1M they give the same figures to four digits (results/questions.md).", "",
        *markdown(["log", "program", *(f"K = {k}" for k in experts)], rows),
    ]  # fmt: skip


def _stages(records: list[Record]) -> list[str]:
    """Where greysheep's time goes."""
    timed = [r for r in tables.measured(records) if r["program"] == "greysheep"]
    if not timed:
        return []
    lines = ["## Where the time goes", ""]
    lines += ["Timers around greysheep's functions, in blocks of their own; seconds an epoch and share.", ""]
    for kind, title in KINDS.items():
        columns = [_gathered(r, kind) for r in timed]
        most = {name: max(column.get(name, (0.0, 0.0))[1] for column in columns)
                for column in columns for name in column}  # fmt: skip
        names = sorted(most, key=lambda name: (name in ("rest", "smaller stages"), -most[name]))
        head = [title.capitalize(), *(f"{LABELS[r['log']]}, K = {r['n_experts']}" for r in timed)]
        rows = [
            [name, *(f"{tables.short(c[name][0])} s, {100 * c[name][1]:.0f} %" if name in c else ""
                     for c in columns)]
            for name in names
        ]  # fmt: skip
        lines += markdown(head, rows)
    return lines


def _gathered(record: Record, kind: str) -> dict[str, tuple[float, float]]:
    """Stage: seconds an epoch and share; what is too small is added up."""
    out: dict[str, tuple[float, float]] = {}
    for stage, spent, share in tables.stage_rows(record, kind):
        name = stage if share >= LEAST_SHARE else "smaller stages"
        before = out.get(name, (0.0, 0.0))
        out[name] = before[0] + spent, before[1] + share
    return out


def _evaluation(records: list[Record]) -> list[str]:
    if not (rows := tables.evaluation_rows(records)):
        return []
    return [
        "## Evaluating every user", "",
        "`gs.evaluate`: the whole catalogue ranked for every user, six metrics at 20, means by group and "
        "bootstrap intervals, random weights. Gates are stored with a model and read; computed = all users' "
        "gates computed first. Bare: one product [B, KD] by [KD, I] a batch. Groups: mainstream scores, "
        "computed once and kept, not in the other columns.", "",
        *markdown(tables.EVALUATION_HEAD, rows),
    ]  # fmt: skip


def _memory(records: list[Record]) -> list[str]:
    lines = []
    for record in (r for r in records if r["program"] == "memory"):
        rows = [[step, f"{n_bytes / 1e6:.0f}"] for step, n_bytes in record["held"].items()]
        lines += markdown([f"{LABELS[record['log']]}, K = {record['n_experts']}", "MB"], rows)
    text = "Memory a process holds after each step, one after the other."
    return ["## Memory after loading", "", text, "", *lines] if lines else []


def pictures(records: list[Record], folder: Path) -> dict[str, str]:
    """Draw the plots; {what they show: file name}."""
    from panels import draw

    cells = tables.by_cell(tables.measured(records))
    by_log = {
        LABELS[cell.log]: {c.n_experts: p for c, p in cells.items() if c.log == cell.log} for cell in cells
    }
    by_count = {
        f"K = {k}": {_size(p): p for c, p in cells.items() if c.n_experts == k}
        for k in sorted({cell.n_experts for cell in cells})
    }
    made = {}
    for text, name, panels, along, height in (
        ("Seconds an epoch against the number of experts", "seconds_by_experts", by_log, "experts K", "s"),
        ("Peak memory against the number of experts", "memory_by_experts", by_log, "experts K", "GB"),
        ("Seconds an epoch against users times items", "by_size", by_count, "users times items", "s"),
    ):
        if cells and (panels is by_log or len(by_log) > 1):
            made[text] = f"speed_{name}.svg"
            curves = {title: _curves(points, height) for title, points in panels.items()}
            styles = {NAMES[name]: style for name, style in STYLE.items()}
            draw(folder / made[text], curves, styles, height, along, logarithmic=True)
    return made


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
