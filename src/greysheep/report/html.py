"""The page around a report. Arguments are plain text unless they are said to be HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from greysheep.report.palette import Style, key, variables

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str) -> str:
    """A whole HTML document that asks the network for nothing; its policy forbids it to. body: HTML."""
    light, dark = (";".join(f"--{name}:{both[n]}" for name, both in variables()) for n in (0, 1))
    colours = f":root{{color-scheme:light dark;{light}}}"
    colours += f"\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    sheet = files("greysheep").joinpath("report", "templates", "page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{colours}
{sheet}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def section(heading: str, *parts: str) -> str:
    """A section of HTML parts under a heading."""
    inner = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{inner}\n</section>"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in a box that scrolls by itself; cells are HTML, the first of each row is its heading."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>\n'
        for first, *rest in rows
    )
    name = escape(caption)
    return (
        f'<div class="box" role="region" tabindex="0" aria-label="{name}"><table>'
        f'<caption class="unseen">{name}</caption>\n'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def figure(chart: str, heading: str, note: str) -> str:
    """A chart (HTML) under its caption."""
    return f"<figure><figcaption><b>{escape(heading)}</b>{escape(note)}</figcaption>{chart}</figure>"


def figures(drawn: Sequence[str]) -> str:
    """Figures (HTML) side by side where the page is wide enough."""
    return f'<div class="figures">{"".join(drawn)}</div>'


def legend(styles: Mapping[str, Style]) -> str:
    """Marker and name of each model."""
    items = "".join(f"<li>{name_with_key(label, styles)}</li>" for label in styles)
    return f'<ul class="legend" aria-label="Models">{items}</ul>'


def name_with_key(label: str, styles: Mapping[str, Style]) -> str:
    """A model's name after its marker."""
    return (key(styles[label]) if label in styles else "") + escape(label)


def prose(text: str) -> str:
    """Text as HTML that does not break a line between a number and its name or unit."""
    return re.sub(r"(?<=\d) (?=%|0\.\d|(?:s|min|h)\b)|(?<=\bp) (?=\.\d|&lt;)", "&nbsp;", escape(text))


def paragraph(text: str) -> str:
    """A paragraph."""
    return f'<p class="quiet">{prose(text)}</p>'


def details(summary: str, inner: str, *, opened: bool = False) -> str:
    """HTML to open on demand, or to close."""
    return f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>{inner}</details>"


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of terms and what they mean; line breaks are kept."""
    lines = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>\n" for term, text in pairs)
    return f"<dl>\n{lines}</dl>"
