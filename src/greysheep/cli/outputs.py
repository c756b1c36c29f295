"""Tables as a command writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from greysheep.errors import ConfigError
from greysheep.system.files import check_file, real, written_or_refused

if TYPE_CHECKING:
    import polars as pl

TABLES = (".parquet", ".csv", ".tsv")


def check_reports(json: str | None, html: Path | None, inputs: Sequence[Path | None]) -> Path | None:
    """Refuse files of --json and --html that could not be written; the file of --json, if it is one.

    Raises:
        ConfigError: one of them cannot be, or both are the same.
    """
    json_file = Path(json) if json not in (None, "-") else None
    if json_file is not None:
        check_file(json_file, inputs=inputs)
    if html is not None:
        check_file(html, suffixes=(".html", ".htm"), inputs=inputs)
        if json_file is not None and real(json_file) == real(html):
            raise ConfigError(f"--json and --html both name {html}: one would replace the other")
    return json_file


def write_table(frame: "pl.DataFrame", path: Path) -> None:
    """Write a frame as .parquet, .csv or .tsv; text is quoted, so that the id 007 stays text."""
    with written_or_refused(path) as draft:
        if path.suffix.lower() == ".parquet":
            frame.write_parquet(draft)
        else:
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            frame.write_csv(draft, separator=separator, quote_style="non_numeric")
