"""A matplotlib figure measured in CSS pixels, and its text as SVG that can stand inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from greysheep.errors import ConfigError, MissingExtraError
from greysheep.report.palette import GRID, INK, MUTED, PAPER, variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 440  # design width of a chart: its text is still readable when a phone shows it at 350


@contextmanager
def canvas(width: float, height: float, *, text_as_paths: bool = False) -> Iterator[Figure]:
    """A figure to draw and save inside the `with`; matplotlib is imported here, on first use.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("report", "drawing a report") from error
    with matplotlib.rc_context():
        matplotlib.rcParams["svg.fonttype"] = "path" if text_as_paths else "none"
        matplotlib.rcParams["svg.hashsalt"] = "greysheep"  # same input, same bytes
        matplotlib.rcParams["font.family"] = "DejaVu Sans"  # comes with matplotlib
        matplotlib.rcParams["font.size"] = 11.5
        matplotlib.rcParams["text.color"] = INK
        matplotlib.rcParams["text.parse_math"] = False  # a $ in a label is a dollar
        yield Figure(figsize=(width / 72, height / 72), dpi=72)


def add_axes(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes placed by margins in pixels, with a base line and without ticks."""
    width, height = figure.get_size_inches() * 72
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(box)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0, colors=MUTED, labelsize=11)
    axes.set_axisbelow(True)
    return axes


def note(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    offset: tuple[float, float],
    coordinates: tuple[str, str],
    leader: dict[str, Any] | None = None,
    **looks: Any,
) -> None:
    """Small muted text, `offset` pixels from `at`; leader: the line to it; looks: properties of the text."""
    annotation = axes.annotate(
        text, at, offset, coordinates, "offset points", arrowprops=leader, annotation_clip=False
    )
    annotation.set(**{"color": MUTED, "fontsize": 10.5, "va": "center", **looks})


def picture_kind(path: Path) -> str:
    """What kind of picture a path names, `svg` or `png`.

    Raises:
        ConfigError: Another ending.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise ConfigError(f"picture {path} ends in {path.suffix or 'nothing'!r}: use .svg or .png")
    return kind


def file_of(figure: Figure, kind: str) -> bytes:
    """The figure as a file of its own, `svg` or `png`, on white."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator") if kind == "svg" else ("Software",))
    figure.savefig(buffer, format=kind, dpi=144 if kind == "png" else 72, facecolor=PAPER, metadata=nothing)
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, aria: str) -> Markup:
    """SVG text for a page: no prolog, no global style, ids of its own, colours as CSS variables.

    name: prefix of its ids, another one for each drawing of a page. aria: what it shows, as plain text.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    body = text[text.index("<svg") : text.rindex("</svg>")]
    head, inner = body.split(">", 1)
    inner = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", inner, flags=re.S)  # would style the page
    inner = inner.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', inner))
    inner = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", inner)
    inner = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", inner)
    inner = re.sub(r" font-family: [^;]+;", "", inner)  # the page's own font
    inner = re.sub(r"\s*\n\s*", " ", inner).strip()
    for variable, (light, _) in variables():
        inner = inner.replace(light, f"var(--{variable})")
    box = re.search(r'viewBox="[^"]+"', head)
    view = box[0] if box else ""
    chart = Markup('<svg class="chart" {} role="img" aria-label="{}">{}</svg>')
    # matplotlib wrote both and escapes every text of the figure; `aria` is escaped by format
    return chart.format(Markup(view), aria, Markup(inner))  # nosec B704
