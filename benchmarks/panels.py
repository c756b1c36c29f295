"""The plots of the benchmarks' pages: SVG, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

Curve = Mapping[Any, float]
"""{place along the axis: height}; the places are names or numbers."""


def draw(
    file: Path, panels: Mapping[str, Mapping[str, Curve]], styles: Mapping[str, tuple[str, str, str]],
    height: str, along: str = "", logarithmic: bool = False,
) -> Path:  # fmt: skip
    """One panel per title, one curve per name; styles: {name: (colour, marker, line)}."""
    pyplot.rcParams.update({"svg.hashsalt": "greysheep", "svg.fonttype": "none", "font.size": 9})
    size = (1.2 + 3 * len(panels), 3.3)
    figure, (axes,) = pyplot.subplots(
        1, len(panels), figsize=size, sharey=logarithmic, squeeze=False, layout="constrained"
    )
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves.items():
            colour, marker, line = styles[name]
            style = {"linestyle": line, "color": colour, "marker": marker, "markersize": 5}
            axis.plot([*curve], [*curve.values()], label=name, **style)
        places = list(dict.fromkeys(place for curve in curves.values() for place in curve))
        if logarithmic:
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(places, [f"{place:,}" for place in places])
            axis.minorticks_off()
        elif max(map(len, places)) > 5:
            pyplot.setp(axis.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")
        axis.set_xlabel(along)
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(color="#dfe3e8", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(height)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 + min(3, len(panels)), frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)
    return file
