"""Frames as text tables on stdout."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def show(frame: "pl.DataFrame", *, most: int | None = None) -> None:
    """Print a frame; with `most`, only that many rows and a line that counts the rest."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    shown = frame if most is None else frame.head(most)
    for row in shown.iter_rows():
        table.add_row(*(Text(_text(value)) for value in row))
    # A pipe has no width: give every column the room it needs instead of the 80 characters rich assumes.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)
    if shown.height < frame.height:
        print(f"... and {frame.height - shown.height:,} more rows: write them all with -o FILE")


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
