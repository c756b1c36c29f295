"""Tables as a command writes them."""

from pathlib import Path
from typing import TYPE_CHECKING

from greysheep.system.files import written_or_refused

if TYPE_CHECKING:
    import polars as pl

TABLES = (".parquet", ".csv", ".tsv")


def write_table(frame: "pl.DataFrame", path: Path) -> None:
    """Write a frame as .parquet, .csv or .tsv; text is quoted, so that the id 007 stays text."""
    with written_or_refused(path) as draft:
        if path.suffix.lower() == ".parquet":
            frame.write_parquet(draft)
        else:
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            frame.write_csv(draft, separator=separator, quote_style="non_numeric")
