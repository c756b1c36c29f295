"""docs/performance.md from kept results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speed_parts.pictures import draw
from speed_parts.settings import NAMES, PROGRAMS
from speed_parts.tables import (
    EVALUATION_HEAD,
    HEAD,
    LABELS,
    busy,
    by_cell,
    cell_of,
    evaluation_row,
    gigaflops,
    markdown,
    ratio,
    rows_of,
    short,
    stage_rows,
    times_bare,
)

Record = dict[str, Any]
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
    "- On a GPU nothing was measured yet: `python benchmarks/speed.py --device cuda --json "
    "build/speed/gpu.json`.",
]
LEAST_SHARE = 0.005  # smaller stages are added up


def write(records: list[Record], docs: Path) -> Path:
    """Write the page and its pictures below `docs`."""
    pictures = draw(records, docs / "img")
    sections = [
        _head(records),
        _seconds(records, pictures),
        _loops(records),
        _stages(records),
        _evaluation(records),
        _memory(records),
        ELSEWHERE if records else [],
    ]
    page = docs / "performance.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(line for section in sections for line in section).rstrip() + "\n")
    return page


def _measured(records: list[Record]) -> list[Record]:
    return [r for r in records if r["program"] in NAMES and "skipped" not in r]


def _head(records: list[Record]) -> list[str]:
    timed = [r for r in records if "skipped" not in r]
    machines = sorted({f"{r['machine']['cpu']}, {r['machine']['cores']} cores" for r in timed})
    threads = sorted({r["how"]["threads"] for r in timed})
    devices = sorted({r["how"]["device"] for r in timed})
    versions = sorted(
        {f"torch {r['facts']['torch']}, greysheep {r['facts']['greysheep']}" for r in _measured(records)}
    )
    loads = [r["machine"]["load"] for r in timed]
    days = sorted({r["begun"][:10] for r in timed})
    lines = [
        "# Performance",
        "",
        "How long an epoch takes beside the matrix products it cannot avoid, and beside the program one "
        "would first write. Made by `python benchmarks/speed.py --page`.",
        "",
    ]
    if timed:
        where = (
            f"{'; '.join(machines)}; device {', '.join(devices)}; {', '.join(map(str, threads))} thread(s)"
        )
        lines += [
            f"Machine: {where}; {'; '.join(versions)}; {' to '.join(dict.fromkeys((days[0], days[-1])))}; "
            f"load average when a cell began {min(loads):.2f} to {max(loads):.2f}{_share_of_cores(records)}.",
            "",
        ]
    return [*lines, *_in_short(records), *_method(records)]


def _in_short(records: list[Record]) -> list[str]:
    """The span of the ratios over all cells."""

    def span(values: list[float]) -> str:
        low, high = f"{min(values):.2f}", f"{max(values):.2f}"
        return low if low == high else f"{low} to {high}"

    cells = [
        {name: r for name, r in programs.items() if "skipped" not in r}
        for programs in by_cell(records).values()
    ]
    cells = [programs for programs in cells if "greysheep" in programs]
    if not cells:
        return []
    own = span([times_bare(programs["greysheep"], "both") for programs in cells])
    text = f"In short, over {len(cells)} cells: greysheep's epoch takes {own} times its bare products"
    for name in ("loop-sparse", "loop-dense"):
        found = [ratio(programs[name], programs["greysheep"]) for programs in cells if name in programs]
        text += (
            f"; the {NAMES[name].replace(',', ' with')}, {span(found)} times greysheep's seconds"
            if found
            else ""
        )
    return [f"{text}.", ""]


def _share_of_cores(records: list[Record]) -> str:
    """How far the machine was its own, and another clock, if one was used."""
    shares = [busy(r) for r in _measured(records)]
    clocks = {r["how"]["clock"] for r in _measured(records)}
    said = f"; the programs had their cores {100 * min(shares):.0f} % of the time or more" if shares else ""
    return said + ("; seconds are processor seconds, not wall clock" if "cpu" in clocks else "")


def _method(records: list[Record]) -> list[str]:
    how = next((r["how"] for r in _measured(records)), None)
    if how is None:
        return []
    reached = [gigaflops(r) for r in _measured(records)]
    sizes = ", ".join(str(d) for d in sorted({r["latent"] for r in _measured(records)}))
    return [
        "- **Bare products**: 3 · 2UKDI operations for training and 2UKDI for validation, as `torch.mm` of "
        "the shapes training has ([B, KD] by [KD, I], [B, I] by [I, KD], [KD, B] by [B, I]) into memory "
        f"that is there. They reach {min(reached):.0f} to {max(reached):.0f} GFLOP/s here. No gate, no "
        "softmax, no encoder, no Adam.",
        "- **Loop**: TALL as a list of K modules, a Python loop and autograd, `torch.optim.Adam` as it "
        "comes, input as dense rows or through `EmbeddingBag`; validation ranks by `torch.topk` (20), not "
        "by a full sort (`benchmarks/speed_parts/looped.py`). It computes the same numbers as greysheep, "
        "which a test checks.",
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


def _seconds(records: list[Record], pictures: dict[str, str]) -> list[str]:
    rows = [row for cell, programs in by_cell(records).items() for row in rows_of(cell, programs)]
    if not rows:
        return []
    lines = ["## Seconds an epoch, and memory", "", *markdown(HEAD, rows), ""]
    for text, name in pictures.items():
        lines += [f"![{text}](img/{name})", ""]
    return lines


def _loops(records: list[Record]) -> list[str]:
    """The other programs over greysheep: training alone, and training and validation together."""
    cells = by_cell(records)
    experts = sorted({cell.n_experts for cell in cells})
    rows = []
    for log in dict.fromkeys(cell.log for cell in cells):
        for name in PROGRAMS[1:]:
            found = {c.n_experts: p for c, p in cells.items() if c.log == log}
            texts = [_factor(found.get(k, {}), name) for k in experts]
            if any(texts):
                rows.append([LABELS.get(log, log), NAMES[name], *texts])
    if not rows:
        return []
    head = ["log", "program", *(f"K = {k}" for k in experts)]
    return [
        "## How many times greysheep's seconds the others need",
        "",
        "Training alone / training and validation. Below 1 is faster than greysheep with its defaults, which "
        "computes every gate in every batch. Gates once an epoch are those of the last validation; on "
        "ML-1M they give the same figures to four digits (results/questions.md).",
        "",
        *markdown(head, rows),
        "",
    ]


def _factor(programs: dict[str, Record], name: str) -> str:
    pair = [programs.get(name), programs.get("greysheep")]
    if any(record is None or "skipped" in record for record in pair):
        return ""
    slow, fast = pair
    assert slow is not None and fast is not None
    return f"{ratio(slow, fast, 'train'):.2f} / {ratio(slow, fast):.2f}"


def _stages(records: list[Record]) -> list[str]:
    """Where greysheep's time goes."""
    timed = [r for r in _measured(records) if r["program"] == "greysheep" and r.get("stages")]
    if not timed:
        return []
    lines = ["## Where the time goes", ""]
    lines += ["Timers around greysheep's functions, in blocks of their own; seconds an epoch and share.", ""]
    for kind, title in (("train", "Training"), ("validate", "Validation")):
        shares = {id(r): {name: (s, p) for name, s, p in _gathered(r, kind)} for r in timed}
        names = sorted(
            {name for found in shares.values() for name in found},
            key=lambda name: -max(found.get(name, (0, 0))[1] for found in shares.values()),
        )
        head = [title, *(f"{LABELS.get(r['log'], r['log'])}, K = {r['n_experts']}" for r in timed)]
        rows = [
            [name, *(_share(shares[id(r)].get(name)) for r in timed)]
            for name in sorted(names, key=lambda name: name in ("rest", "smaller stages"))
        ]
        lines += [*markdown(head, rows), ""]
    return lines


def _gathered(record: Record, kind: str) -> list[tuple[str, float, float]]:
    rows = stage_rows(record, kind)
    small = [row for row in rows if row[2] < LEAST_SHARE]
    kept = [row for row in rows if row[2] >= LEAST_SHARE]
    if small:
        kept.append(("smaller stages", sum(row[1] for row in small), sum(row[2] for row in small)))
    return kept


def _share(found: tuple[float, float] | None) -> str:
    return "" if found is None else f"{short(found[0])} s, {100 * found[1]:.0f} %"


def _evaluation(records: list[Record]) -> list[str]:
    rows = [evaluation_row(r) for r in records if r["program"] == "evaluate"]
    if not rows:
        return []
    return [
        "## Evaluating every user",
        "",
        "`gs.evaluate`: the whole catalogue ranked for every user, six metrics at 20, means by group and "
        "bootstrap intervals, random weights. Gates are stored with a model and read; computed = all users' "
        "gates computed first. Bare: one product [B, KD] by [KD, I] a batch. Groups: mainstream scores, "
        "computed once and kept, not in the other columns.",
        "",
        *markdown(EVALUATION_HEAD, rows),
        "",
    ]


def _memory(records: list[Record]) -> list[str]:
    found = [r for r in records if r["program"] == "memory"]
    if not found:
        return []
    lines = [
        "## Memory after loading",
        "",
        "Memory a process holds after each step, one after the other.",
        "",
    ]
    for record in found:
        name, held = LABELS.get(record["log"], record["log"]), record["measured"]
        rows = [[step, f"{n_bytes / 1e6:.0f}"] for step, n_bytes in held.items()]
        lines += [*markdown([f"{name}, K = {cell_of(record).n_experts}", "MB"], rows), ""]
    return lines
