"""Mainstream scores beside a saved model: made when first asked for, outside the seal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl

from greysheep.data.columns import GROUP, SCORE, USER
from greysheep.errors import SealError
from greysheep.mainstream.groups import GROUPS, Mainstream
from greysheep.system.files import new_file
from greysheep.system.seal import open_inside, read_json

SERVING, TRAIN = "mainstream", "mainstream-train"
"""Names of the files: scores on every stored row, and on the split's train rows."""


def kept(
    folder: Path | None, name: str, rows: str, user_ids: pl.Series, make: Callable[[], Mainstream]
) -> Mainstream:
    """The scores in a model's folder, made and put there if they are missing, damaged or of other rows.

    folder: None = nowhere. rows: fingerprint of the rows scored. A folder that cannot be written is left.
    """
    if folder is None:
        return make()
    known = _read(folder, name, rows, user_ids)
    if known is None:
        known = make()
        if folder.is_dir():
            with suppress(OSError):
                write(folder, name, rows, user_ids, known)
    return known


def write(folder: Path, name: str, rows: str, user_ids: pl.Series, known: Mainstream) -> None:
    """Write scores and groups as a table, and beside it what it was made of and its SHA-256."""
    groups = pl.Series(GROUP, GROUPS).gather(known.groups)
    with new_file(folder / f"{name}.parquet") as draft:
        pl.DataFrame({USER: user_ids, SCORE: known.scores, GROUP: groups}).write_parquet(draft)
        digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    about = {"rows": rows, "sha256": digest, "sampled": known.sampled, "bound": known.bound}
    with new_file(folder / f"{name}.json") as draft:
        draft.write_text(json.dumps(about) + "\n", encoding="utf-8")


def _read(folder: Path, name: str, rows: str, user_ids: pl.Series) -> Mainstream | None:
    """The scores of these rows; None where they are missing or not as they were written."""
    try:
        about = read_json(folder, f"{name}.json")
        if about.get("rows") != rows:
            return None
        with open_inside(folder, f"{name}.parquet") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != about.get("sha256"):
                return None
            file.seek(0)
            scores = pl.read_parquet(file, columns=[SCORE])[SCORE].to_numpy()
        if scores.shape != (len(user_ids),) or scores.dtype != np.float64 or not np.isfinite(scores).all():
            return None
        known = Mainstream.from_scores(scores, user_ids)
        sample = int(about["sampled"]), float(about["bound"])
    except (SealError, OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError):
        return None
    return Mainstream(known.scores, known.groups, known.cuts, *sample)
