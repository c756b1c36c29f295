"""MovieLens from where it can be had: a wheel that carries ML-100K, and the publisher's own address.

GroupLens allows research use and forbids redistribution, so files are fetched by each user and cached for her
only (F. M. Harper, J. A. Konstan, 2015, doi:10.1145/2827872).
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import polars as pl

from greysheep.data.columns import ITEM, TIME, USER
from greysheep.data.text import UNREADABLE
from greysheep.errors import DataError, first_line
from greysheep.system.files import new_file

WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k"
PUBLISHER = "https://files.grouplens.org/datasets/movielens"
ROWS = {"ml-100k": 100_000, "ml-1m": 1_000_209}
TIMEOUT = 20.0
"""Seconds to wait for an address to answer."""

Tables = tuple[pl.DataFrame, pl.DataFrame]
"""Rows (user_id, item_id, rating, timestamp) and titles (item_id, title)."""


class Unreachable(Exception):
    """A source of a data set does not answer; the message says which and why."""


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/greysheep, or ~/.cache/greysheep."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "greysheep"


def fetch(name: str) -> Tables:
    """ML-100K or ML-1M, from the cache or from the first address that answers.

    Raises:
        DataError: If none answers; the line says what was tried and what to do.
    """
    sources: list[Callable[[], Tables]] = [lambda: _read_zip(name, _cached(f"{name}.zip", _download))]
    if name == "ml-100k":
        sources.insert(0, lambda: _read_wheel(_cached(WHEEL, _pip)))
    tried = []
    for read in sources:
        try:
            return read()
        except Unreachable as error:
            tried.append(str(error))
    raise DataError(
        f"{name} cannot be fetched: {'; '.join(tried)}; try again with a network, put its "
        f"interactions.parquet in $GREYSHEEP_DATA/{name}, or use 'simulated', which needs no network"
    )


def _cached(file: str, fetch: Callable[[str, Path], None]) -> Path:
    """The cached file, fetched by `fetch(file, path)` if it is not there: whole or not at all."""
    target = cache_folder() / file
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(target) as draft:
            fetch(file, draft)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise Unreachable(f"{target.parent} cannot be written ({reason})") from error
    return target


def _pip(file: str, target: Path) -> None:
    """Let pip download the wheel, without what it depends on: only its sample data is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
            "--no-input", "--disable-pip-version-check", "--retries", "1", "--timeout", str(int(TIMEOUT)),
            "--dest", folder, "recbole==1.2.1",
        ]  # fmt: skip
        try:
            # a fixed list of words, no shell: the folder is our own
            done = subprocess.run(  # nosec B603
                command, capture_output=True, text=True, timeout=6 * TIMEOUT, check=False
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise Unreachable(f"pip download recbole==1.2.1 did not end ({type(error).__name__})") from error
        wheel = Path(folder) / file
        if done.returncode or not wheel.is_file():
            said = (done.stderr.strip().splitlines() or ["no message"])[-1][:160]
            raise Unreachable(f"pip download recbole==1.2.1 failed ({said})")
        shutil.move(wheel, target)
    if not _is_the_wheel(target):
        raise Unreachable(f"pip brought a {WHEEL} with another SHA-256 than {WHEEL_SHA256[:12]}...")


def _download(file: str, target: Path) -> None:
    address = f"{PUBLISHER}/{file}"
    try:
        # the scheme is fixed: PUBLISHER is an https address
        with (
            urllib.request.urlopen(address, timeout=TIMEOUT) as answer,  # nosec B310
            target.open("wb") as draft,
        ):
            while chunk := answer.read(1 << 20):
                draft.write(chunk)
    except urllib.error.URLError as error:
        raise Unreachable(f"{address} does not answer ({first_line(error)})") from error
    except (http.client.HTTPException, OSError) as error:
        raise Unreachable(f"{address} broke off ({first_line(error)})") from error


def _is_the_wheel(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == WHEEL_SHA256


def _read_wheel(path: Path) -> Tables:
    if not _is_the_wheel(path):
        path.unlink()  # damaged since; the next call fetches it anew
        raise Unreachable(f"{path} was damaged and is removed: try again")
    with zipfile.ZipFile(path) as wheel:
        rows = _table(wheel.read(f"{WHEEL_FOLDER}/ml-100k.inter"), "\t", "utf-8", header=True)
        movies = _table(wheel.read(f"{WHEEL_FOLDER}/ml-100k.item"), "\t", "utf-8", header=True)
    name, year = pl.nth(1), pl.nth(2)
    dated = pl.when(year.str.contains(r"^\d{4}$")).then(name + " (" + year + ")").otherwise(name)
    spelt = dated.replace("unkonwn", "unknown")  # one film, misspelt in the wheel
    return _rows(rows), _titles(movies, spelt)


def _read_zip(name: str, path: Path) -> Tables:
    rows_file, movies_file, rows_separator, movies_separator = {
        "ml-100k": ("u.data", "u.item", "\t", "|"),
        "ml-1m": ("ratings.dat", "movies.dat", "::", "::"),
    }[name]
    try:
        with zipfile.ZipFile(path) as archive:
            rows = _table(archive.read(f"{name}/{rows_file}"), rows_separator, "latin-1")
            movies = _table(archive.read(f"{name}/{movies_file}"), movies_separator, "latin-1")
        tables = _rows(rows), _titles(movies, pl.nth(1))
    except (zipfile.BadZipFile, zlib.error, KeyError, *UNREADABLE) as error:
        path.unlink()
        raise Unreachable(f"{PUBLISHER}/{path.name} gave a file that cannot be read") from error
    if rows.height != ROWS[name]:
        path.unlink()
        raise Unreachable(f"{PUBLISHER}/{path.name} has {rows.height} rows in place of {ROWS[name]}")
    return tables


def _table(content: bytes, separator: str, encoding: str, *, header: bool = False) -> pl.DataFrame:
    """All fields as text; the files have no quotes, but titles may."""
    text = content.decode(encoding)
    if len(separator) > 1:  # polars wants one character
        text, separator = text.replace(separator, "\t"), "\t"
    file = io.BytesIO(text.encode())
    return pl.read_csv(file, separator=separator, has_header=header, quote_char=None, infer_schema=False)


def _rows(table: pl.DataFrame) -> pl.DataFrame:
    return table.select(
        pl.nth(0).cast(pl.Int64).alias(USER),
        pl.nth(1).cast(pl.Int64).alias(ITEM),
        pl.nth(2).cast(pl.Float64).alias("rating"),
        pl.nth(3).cast(pl.Int64).alias(TIME),
    )


def _titles(table: pl.DataFrame, title: pl.Expr) -> pl.DataFrame:
    return table.select(pl.nth(0).cast(pl.Int64).alias(ITEM), title.alias("title")).sort(ITEM)
