"""The parts of a page; `templates/` turns them into HTML and escapes every text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from greysheep.report.palette import SHAPES, Style, variables


def document(title: str, headline: str, lead: str, sections: Sequence[Section | None]) -> str:
    """A whole HTML document that asks the network for nothing; its policy forbids it to."""
    page = environment().get_template("page.html")
    shown = [section for section in sections if section is not None]
    return page.render(title=title, headline=headline, lead=lead, sections=shown, variables=list(variables()))


class Part:
    """A part of a page; the macro of its class's name in `templates/parts.html` writes it."""

    def __html__(self) -> str:
        return str(getattr(_macros(), type(self).__name__.lower())(self))


Content = str | Part
"""What a cell may hold."""


@dataclass(frozen=True)
class Section(Part):
    """Parts under a heading; None among them are left out."""

    heading: str
    parts: Sequence[Part | None]


@dataclass(frozen=True)
class Text(Part):
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Marks(Part):
    """The paragraph that says what the marks of significance mean."""

    against: str
    tests: int


@dataclass(frozen=True)
class Name(Part):
    """A model's name behind its marker, then its settings and notes, free to wrap."""

    name: str
    style: Style | None
    settings: Sequence[str] = ()
    notes: Sequence[str] = ()


def group_head(name: str, notes: Sequence[str] = ()) -> Part:
    """A group's name above its column; a long one wraps."""
    if len(name) > 14:
        return Name(name, None, notes=notes)
    return Cell(name, notes=[(note, "") for note in notes])


@dataclass(frozen=True)
class Cell(Part):
    """A cell of a table: a text, bold where it is the best, the mark of its significance, small lines.

    mark: 1 = better, -1 = worse, 0 = not shown (its place is kept, so that figures stand below each other);
    None = no mark in this table. notes: (text, CSS class).
    """

    text: str
    best: bool = False
    mark: int | None = None
    notes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Table(Part):
    """A table in a box that scrolls by itself; the first cell of each row is its heading."""

    caption: str
    head: Sequence[Content]
    rows: Sequence[Sequence[Content]]
    messages: bool = False
    """Whether the last column holds sentences."""


@dataclass(frozen=True)
class Figure(Part):
    """A chart (SVG) under its caption, above the names of its models where the chart has no room for them."""

    chart: Markup
    heading: str
    note: str
    names: Sequence[Name] = ()


@dataclass(frozen=True)
class Figures(Part):
    """Figures side by side where the page is wide enough, those past the first few behind a click."""

    drawn: Sequence[Figure]
    what: str = ""
    open: int = 6


@dataclass(frozen=True)
class Legend(Part):
    """Marker and name of each model."""

    names: Sequence[Name]


@dataclass(frozen=True)
class Details(Part):
    """Parts to open on demand, or to close."""

    summary: str
    parts: Sequence[Part]
    opened: bool = False


@dataclass(frozen=True)
class Definitions(Part):
    """Terms and what they mean; line breaks are kept. verdicts: the terms are models."""

    pairs: Sequence[tuple[Content, str]]
    verdicts: bool = False


@dataclass(frozen=True)
class Settings(Part):
    """A model's label and its settings."""

    label: str
    text: str


@dataclass(frozen=True)
class Person(Part):
    """One user: what she chose, then what each model shows her, with a tick for a hit."""

    user: str
    score: str
    seen: Sequence[str]
    unseen: int
    """How many more she chose."""
    lists: Sequence[tuple[Name, Sequence[tuple[str, bool]]]]


def prose(text: str) -> Markup:
    """Text as HTML that does not break a line between a number and its name or unit."""
    return Markup(  # nosec B704  # escaped first: only the inserted blanks are marked up
        re.sub(r"(?<=\d) (?=%|0\.\d|(?:s|min|h)\b)|(?<=\bp) (?=\.\d|&lt;)", "&nbsp;", str(escape(text)))
    )


@cache
def environment() -> Environment:
    """What reads `templates/`: .html is escaped, .txt is plain text."""
    environment = Environment(  # nosec B701  # plain sentences are escaped when shown
        loader=PackageLoader("greysheep.report"),
        autoescape=lambda name: str(name).endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    shapes = {name: Markup(shape) for name, shape in SHAPES.items()}  # nosec B704  # constants of ours
    environment.globals["shapes"] = shapes
    return environment


@cache
def _macros() -> object:
    return environment().get_template("parts.html").module
