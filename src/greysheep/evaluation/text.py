"""Tables of texts: aligned for a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from greysheep.evaluation.numbers import DASH


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other, numbers to the right; a row of two cells is a model with a message."""
    full = [row for row in rows if len(row) > 2]
    first = max(len(row[0]) for row in rows)
    widths = [max(map(len, column)) for column in list(zip(*full, strict=True))[1:]]
    lines = []
    for row in rows:
        cells = [row[1]] if len(row) == 2 else [c.rjust(w) for c, w in zip(row[1:], widths, strict=True)]
        lines.append("  ".join([row[0].ljust(first), *cells]).replace(DASH, "-").rstrip())
    return lines


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; short rows are filled up."""
    full = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    lines = [list(head), ["---"] * len(head), *full]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
