"""Colours and markers of a report, the same in every chart.

Each colour has a light and a dark value. Charts are drawn with the light one, which the page replaces by a
CSS variable, so one drawing serves both themes. All keep a contrast of about 3 to 1 with their background
and a distance of 10 (CIE 1976) from each other under simulated colour blindness; markers differ as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CHROME = {
    "ink": ("#1f2328", "#e8ecf1"),
    "muted": ("#59636e", "#a0abb8"),
    "grid": ("#dfe3e8", "#343c47"),
    "band": ("#f4f6f8", "#171d26"),
    "paper": ("#ffffff", "#0f1419"),
    "good": ("#0a6b3d", "#4cc38a"),
    "bad": ("#b3261e", "#ff8a80"),
}
INK, MUTED, GRID, BAND, PAPER = (CHROME[name][0] for name in ("ink", "muted", "grid", "band", "paper"))
MODELS = (
    ("#6e7781", "#9aa4af"),
    ("#d55e00", "#ff8f3f"),
    ("#0064a8", "#4aa0f0"),
    ("#009e73", "#2cc99a"),
    ("#cf66b5", "#f0a0e0"),
    ("#6b5200", "#ead94c"),
    ("#2f98d6", "#b4e2ff"),
    ("#24292f", "#fffffe"),
)
GROUP_COLOURS = (  # niche first: the group to watch stands out most on either background
    ("#2d1160", "#fdd49a"),
    ("#721f81", "#fc9a68"),
    ("#b5367a", "#ec5f7e"),
    ("#e2573e", "#b5459a"),
    ("#cc7f14", "#8a5cc0"),
)
MARKERS = ("o", "D", "s", "^", "v", "P", "X", "h")
SHAPES = {
    "o": '<circle cx="7" cy="7" r="5"/>',
    "D": '<path d="M7 1l6 6-6 6-6-6z"/>',
    "s": '<path d="M2 2h10v10H2z"/>',
    "^": '<path d="M7 1l6 11H1z"/>',
    "v": '<path d="M7 13l6-11H1z"/>',
    "P": '<path d="M5 1h4v4h4v4H9v4H5V9H1V5h4z"/>',
    "X": '<path d="M3 0l4 4 4-4 3 3-4 4 4 4-3 3-4-4-4 4-3-3 4-4-4-4z"/>',
    "h": '<path d="M7 1l5.500 3v6L7 13l-5.500-3V4z"/>',
}
PREFERRED = ("popular", "tall", "multvae", "ease-weighted", "ease", "ials", "lmoe", "wl")  # one per colour


@dataclass(frozen=True)
class Style:
    """Colour (index into `MODELS`) and marker of one model."""

    slot: int
    marker: str

    @property
    def colour(self) -> str:
        """Light value of the colour."""
        return MODELS[self.slot][0]


def styles(models: Sequence[tuple[str, str]]) -> dict[str, Style]:
    """One style per label, from (label, registry name) pairs in order; well-known models keep their colour.

    >>> chosen = styles([("tall", "tall"), ("tall[gate=uniform]", "tall")])
    >>> chosen["tall"].slot, chosen["tall[gate=uniform]"].slot
    (1, 2)
    """
    taken: dict[str, int] = {}
    for label, name in models:
        if name in PREFERRED and PREFERRED.index(name) not in taken.values():
            taken[label] = PREFERRED.index(name)
    spare = iter([slot for slot in (1, 2, 3, 4, 5, 6, 7, 0) if slot not in taken.values()])
    for label, _ in models:
        if label not in taken:
            taken[label] = next(spare, len(taken))
    # Past eight models a colour comes again, with another marker.
    return {label: Style(taken[label] % 8, MARKERS[sum(divmod(taken[label], 8)) % 8]) for label, _ in models}


def variables() -> Iterator[tuple[str, tuple[str, str]]]:
    """Name of each CSS variable with its light and dark value."""
    yield from CHROME.items()
    for letter, palette in (("m", MODELS), ("g", GROUP_COLOURS)):
        yield from ((f"{letter}{n}", both) for n, both in enumerate(palette))
