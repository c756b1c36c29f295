"""Plots of docs/performance.md: SVG, the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speed_parts.settings import NAMES
from speed_parts.tables import LABELS, by_cell, epoch_seconds

Record = dict[str, Any]
STYLE = {  # colour, marker
    "bare": ("#6e7781", "o"),
    "greysheep": ("#d55e00", "D"),
    "greysheep-epoch": ("#e69f00", "v"),
    "loop-sparse": ("#0064a8", "s"),
    "loop-dense": ("#cf66b5", "^"),
}
MEASURES = {"seconds": "seconds an epoch", "memory": "peak memory, GB"}


def draw(records: list[Record], folder: Path) -> dict[str, str]:
    """Write the plots; {what they show: file name}. Without results there is none."""
    cells = {
        cell: {name: r for name, r in programs.items() if "skipped" not in r}
        for cell, programs in by_cell(records).items()
    }
    cells = {cell: programs for cell, programs in cells.items() if programs}
    if not cells:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for measure, text in MEASURES.items():
        name = f"speed_{measure}_by_experts.svg"
        _by_experts(cells, measure, folder / name)
        made[f"{text.partition(',')[0]} against the number of experts".capitalize()] = name
    if len({cell.log for cell in cells}) > 1:
        _by_size(cells, folder / "speed_by_size.svg")
        made["Seconds an epoch against users times items"] = "speed_by_size.svg"
    return made


def value(program: str, programs: dict[str, Record], measure: str) -> float | None:
    """A point of a curve; the bare products are those measured beside the first program."""
    record = next(iter(programs.values())) if program == "bare" else programs.get(program)
    if record is None:
        return None
    if measure == "memory":
        return float(record["bare_peak" if program == "bare" else "peak"]) / 1e9
    return epoch_seconds(record, "both", "bare" if program == "bare" else "blocks")


def _by_experts(cells: Any, measure: str, file: Path) -> None:
    """One panel a log, both axes logarithmic."""
    logs = list(dict.fromkeys(cell.log for cell in cells))
    figure, panels = _figure(len(logs))
    for panel, log in zip(panels, logs, strict=True):
        own = {cell.n_experts: programs for cell, programs in cells.items() if cell.log == log}
        for program in STYLE:
            _curve(panel, {k: value(program, own[k], measure) for k in sorted(own)}, program)
        panel.set_title(LABELS.get(log, log), loc="left", fontsize=10)
        _axes(panel, "experts K", sorted(own))
    panels[0].set_ylabel(MEASURES[measure])
    _save(figure, panels[0], file)


def _by_size(cells: Any, file: Path) -> None:
    """One panel a number of experts; users times items along the axis."""
    counts = [
        k for k in sorted({c.n_experts for c in cells}) if len([c for c in cells if c.n_experts == k]) > 1
    ]
    counts = counts or [min(cell.n_experts for cell in cells)]
    figure, panels = _figure(len(counts))
    for panel, k in zip(panels, counts, strict=True):
        own = {}
        for cell, programs in cells.items():
            if cell.n_experts == k:
                shape = next(iter(programs.values()))["shape"]
                own[shape["n_users"] * shape["n_items"]] = programs
        for program in STYLE:
            _curve(panel, {size: value(program, own[size], "seconds") for size in sorted(own)}, program)
        panel.set_title(f"K = {k}", loc="left", fontsize=10)
        _axes(panel, "users times items", [])
    panels[0].set_ylabel(MEASURES["seconds"])
    _save(figure, panels[0], file)


def _figure(n_panels: int) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "greysheep", "svg.fonttype": "none", "font.size": 9})
    figure, panels = pyplot.subplots(
        1, n_panels, figsize=(1.2 + 2.6 * n_panels, 3.1), sharey=True, squeeze=False, layout="constrained"
    )
    return figure, list(panels[0])


def _curve(panel: Any, points: dict[int, float | None], program: str) -> None:
    known = {x: y for x, y in points.items() if y is not None}
    colour, marker = STYLE[program]
    style = "--" if program == "bare" else "-"
    if known:
        panel.plot(
            [*known], [*known.values()], style, color=colour, marker=marker, ms=5, label=NAMES[program]
        )


def _axes(panel: Any, label: str, ticks: list[int]) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(label)
    panel.grid(color="#dfe3e8", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    if ticks:
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()


def _save(figure: Any, first: Any, file: Path) -> None:
    from matplotlib import pyplot

    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)
