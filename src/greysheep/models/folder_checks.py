"""What the files of a model folder must be before they are believed; every refusal names the file.

A seal is no signature: a folder may be whole and yet be made to harm. So sizes are read from headers before
anything of that size is allocated, and values are held to what the code takes for granted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from greysheep.data.protocols import Protocol
from greysheep.errors import ConfigError, SealError
from greysheep.models.config import RunOptions, one_line
from greysheep.system.checks import MOST_SEED
from greysheep.system.seal import MOST_BYTES, open_inside, parse_json, refuse

TENSORS = "model.safetensors"
_KINDS = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4"}
_KINDS |= {"I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8"}
"""NumPy's types by those of safetensors."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8}
"""Bytes of a value in memory by its type in parquet; 16 for all others."""
SMALL, GROWTH = 1 << 25, 300
"""A table may take so many bytes in memory, or so many times those of its file; real ones take 30 times."""
Fields = TypeVar("Fields", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Manifest(_Strict):
    """Fields of manifest.json."""

    format: int
    greysheep: str
    fingerprint: str
    cuts_train: list[float | None] | None
    cuts_serving: list[float | None] | None
    user_id: str
    item_id: str
    protocol: str
    seed: int = Field(ge=0, le=MOST_SEED)
    has_history: bool
    metrics: dict[str, float | None]
    """None where nobody had validation rows."""
    train_seconds: float = Field(ge=0)
    epochs: int = Field(ge=0)
    best_epoch: int = Field(ge=0)
    gate_entropy: float | None
    peak_memory_bytes: int = Field(ge=0)
    files: dict[str, dict[str, Any]]

    @field_validator("protocol")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            return str(Protocol.parse(value))
        except ConfigError as error:
            raise ValueError(str(error)) from None  # which pydantic gathers


class Options(_Strict):
    """Run options that config.json holds; their values are those of `RunOptions`."""

    seed: int = Field(ge=0, le=MOST_SEED)
    precision: str

    @field_validator("precision")
    @classmethod
    def _known(cls, value: str) -> str:
        return RunOptions(precision=value).precision


class About(_Strict):
    """Fields of config.json; the config itself is the model's to check."""

    model: str
    label: str
    config: dict[str, Any]
    options: Options
    class_: str | None = Field(None, alias="class")


@contextmanager
def reading(folder: Path, name: str) -> Iterator[None]:
    """Turn whatever reading a damaged file raises, a panic of polars included, into one line that names it.

    Raises:
        SealError: the work failed.
    """
    try:
        yield
    except SealError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise SealError(f"{folder / name} cannot be used: {said[0]}") from error


def check_fields(kind: type[BaseModel], folder: Path, name: str, values: dict[str, Any]) -> None:
    """Refuse a JSON object whose fields are not those of `kind`."""
    try:
        kind.model_validate(values)
    except ValidationError as error:
        refuse(folder, name, f"cannot be used: {one_line(error, '').removeprefix(': ')}")


def read_tensors(folder: Path, name: str = TENSORS, *, mapped: bool = False) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file, finite, once its header says that they lie in the file end to end.

    mapped: leave them in the file, whose pages all processes that map it share; what one of them writes to
        such an array is its own. The file must not be changed in place; it may be replaced.
    """
    with open_inside(folder, name) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MOST_BYTES:
            refuse(folder, name, f"has a header of {size:,} bytes")
        header = parse_json(folder, name, file.read(size))
        begin, end = 8 + size, file.seek(0, 2)
        with reading(folder, name):
            header.pop("__metadata__", None)
            _check_spans(header, end - begin)
            file.seek(begin)
            # the mode "c": copy on write
            content = np.memmap(file, np.uint8, "c")[begin:] if mapped else np.fromfile(file, np.uint8)
            tensors = {key: _tensor(content, facts) for key, facts in header.items()}
            for key, values in tensors.items():
                check_finite(values, f"tensor {key!r}")
    return tensors


def _check_spans(header: dict[str, Any], length: int) -> None:
    """Refuse (ValueError) tensors of another size than their type and shape say, or not end to end."""
    spans = []
    for name, facts in header.items():
        shape, (start, stop) = facts["shape"], facts["data_offsets"]
        if facts["dtype"] not in _KINDS or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"tensor {name!r} is of type {facts['dtype']!r} and shape {shape}")
        if stop - start != math.prod(shape) * np.dtype(_KINDS[facts["dtype"]]).itemsize:
            raise ValueError(f"tensor {name!r} has {stop - start} bytes for shape {shape}")
        spans.append((start, stop))
    spans.sort()
    if [0, *(stop for _, stop in spans)] != [*(start for start, _ in spans), length]:
        raise ValueError("its tensors overlap, or leave gaps")


def _tensor(content: NDArray[np.uint8], facts: dict[str, Any]) -> NDArray[Any]:
    """One tensor, a view of the file's content."""
    start, stop = facts["data_offsets"]
    values = np.asarray(content[start:stop]).view(_KINDS[facts["dtype"]]).reshape(facts["shape"])
    return values if values.flags.aligned else values.copy()


def check_finite(values: NDArray[Any], what: str) -> None:
    """Refuse (ValueError) NaN and infinity; a finite sum has none, and is quick."""
    if not np.issubdtype(values.dtype, np.floating):
        return
    with np.errstate(all="ignore"):
        whole = np.isfinite(values.sum())
    if not whole and not np.isfinite(values).all():
        raise ValueError(f"{what} holds NaN or infinity")


def read_table(folder: Path, name: str, *columns: str) -> pl.DataFrame:
    """A table that has at least these columns, once its footer says that it fits its file."""
    import pyarrow.parquet as pq

    with reading(folder, name):
        with open_inside(folder, name) as file:
            size = file.seek(0, 2)
            file.seek(0)
            footer = pq.ParquetFile(file).metadata
        groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        if sum(group.num_rows for group in groups) != footer.num_rows:
            raise ValueError("its footer counts other rows than its parts")
        needed = sum(chunk.num_values * _WIDTHS.get(chunk.physical_type, 16) for chunk in chunks)
        needed = max(needed, sum(chunk.total_uncompressed_size for chunk in chunks), 16 * footer.num_rows)
        if needed > max(SMALL, GROWTH * size):
            raise ValueError(f"its {size:,} bytes would become {needed:,} in memory")
        frame = pl.read_parquet(folder / name, glob=False)
        for column in columns:
            if column not in frame.columns:
                raise ValueError(f"it has no column {column!r}")
            if frame[column].null_count():
                raise ValueError(f"column {column!r} has rows without a value")
    return frame


def check_ids(ids: pl.Series, kind: str) -> None:
    """Refuse (ValueError) ids that are not unique and ascending, or not of the type `kind`."""
    if str(ids.dtype) != kind or not (ids.dtype == pl.String or ids.dtype.is_integer()):
        raise ValueError(f"its ids are of type {ids.dtype}, not {kind} as the manifest says")
    if not len(ids):
        raise ValueError("it has no rows")
    if not (ids.slice(1) > ids.slice(0, len(ids) - 1)).all():
        raise ValueError("its ids are not unique and ascending")


def check_gates(gates: NDArray[Any] | None, n_users: int, width: int) -> None:
    """Refuse (ValueError) weights of experts that are not [U, K], 0 or more, of sum 1."""
    if gates is None or gates.shape != (n_users, width):
        found = "none" if gates is None else f"of shape {gates.shape}"
        raise ValueError(f"gates are {found}, not ({n_users}, {width})")
    if (gates < 0).any() or np.abs(gates.sum(1, dtype=np.float64) - 1).max(initial=0) > 1e-3:
        raise ValueError("gates must be 0 or more, and of sum 1 for each user")
