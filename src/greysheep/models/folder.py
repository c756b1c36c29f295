"""A fitted model as a folder of safetensors, JSON and parquet files; nothing is pickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import save_file

from greysheep.data.columns import ITEM, PART, TIME, USER, WEIGHT
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import PARTS, Split
from greysheep.errors import ModelFolderError
from greysheep.models.derived import SERVING, TRAIN
from greysheep.models.derived import write as write_derived
from greysheep.models.fitted import Fitted, finite
from greysheep.models.folder_checks import (
    TENSORS,
    About,
    Manifest,
    check_fields,
    check_finite,
    check_ids,
    read_table,
    read_tensors,
    reading,
)
from greysheep.system.files import is_ours, new_folder, refused
from greysheep.system.machine import own_version
from greysheep.system.seal import (
    MANIFEST,
    check_contents,
    parse_json,
    read_json,
    read_manifest,
    read_whole,
    refuse,
    write_seal,
)

FORMAT = 2
STATE = "gate"
"""Column of users.parquet that holds their state."""
CUTS = (("cuts_train", TRAIN), ("cuts_serving", SERVING))
"""Cut points in the manifest, null unless the groups were asked for before saving."""
CONFIG, HISTORY = "config.json", "training.jsonl"
USERS, ITEMS, ROWS = "users.parquet", "items.parquet", "interactions.parquet"
FILES = (CONFIG, ITEMS, USERS, TENSORS, HISTORY)
FACTS = ("train_seconds", "epochs", "best_epoch", "gate_entropy", "peak_memory_bytes")
"""Fields of `Fitted` that the manifest holds as they are."""


@dataclass
class Saved:
    """A model as its folder holds it."""

    about: dict[str, Any]
    """model (its name), label, config, options; `class` where it is none of greysheep's."""
    fitted: Fitted
    user_state: NDArray[Any] | None
    tensors: dict[str, Any]
    """Arrays, or tensors on the CPU; arrays when it was read."""


def save(saved: Saved, directory: Path, include_history: bool) -> Path:
    """Write a model; the folder appears whole or not at all. An earlier model there is replaced.

    Raises:
        ModelFolderError: the path is taken by something that is not a saved model, or cannot be written.
    """
    directory = directory.expanduser()
    check_target(directory)
    with refused(directory, ModelFolderError), new_folder(directory) as draft:
        _write(saved, draft, include_history and saved.fitted.has_history)
    return directory


def check_target(directory: Path) -> None:
    """Refuse a path that holds something other than a saved model.

    Raises:
        ModelFolderError: it does.
    """
    if directory.is_file():
        raise ModelFolderError(f"{directory} is a file: a model is saved as a folder")
    if directory.is_dir() and any(directory.iterdir()) and not is_ours(directory, "manifest.json"):
        raise ModelFolderError(f"{directory} is a folder with other things in it: name a new or empty one")


def _write(saved: Saved, folder: Path, include_history: bool) -> None:
    record = saved.fitted
    log = record.log
    save_file({k: np.asarray(v, order="C") for k, v in saved.tensors.items()}, folder / TENSORS)
    (folder / TENSORS).chmod(0o644)  # as the other files: it would be its owner's alone
    _json(folder / CONFIG, saved.about)
    items = {ITEM: log.item_ids, "n_rows": record.item_counts, "trained": record.trained_items}
    pl.DataFrame(items).write_parquet(folder / ITEMS)
    users = pl.DataFrame({USER: log.user_ids})
    if saved.user_state is not None:
        users = users.with_columns(pl.Series(STATE, saved.user_state))
    users.write_parquet(folder / USERS)
    if include_history:
        parts = pl.Series(PART, PARTS).gather(record.split.part)
        log.frame().with_columns(parts).write_parquet(folder / ROWS)
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in record.history]
    (folder / HISTORY).write_text("".join(lines))
    write_seal(folder, _manifest(record, include_history))
    for name, known in record.known_groups().items():
        rows = record.fingerprint if name == SERVING else record.split.fingerprint()
        write_derived(folder, name, rows, log.user_ids, known)


def _manifest(record: Fitted, include_history: bool) -> dict[str, Any]:
    log, split, known = record.log, record.split, record.known_groups()
    best = record.history[record.best_epoch - 1] if record.history else {}
    return {
        "format": FORMAT,
        "greysheep": own_version(),
        "fingerprint": record.fingerprint,
        **{key: finite(known[name].cuts) if name in known else record.cuts.get(key) for key, name in CUTS},
        "user_id": str(log.user_ids.dtype),
        "item_id": str(log.item_ids.dtype),
        "protocol": split.protocol,
        "seed": split.seed,
        "has_history": include_history,
        "metrics": {key: best[key] for key in ("objective", "ndcg@20") if key in best},
        **{key: getattr(record, key) for key in FACTS},
    }


def read(folder: Path, verify: bool, mapped: bool = False) -> Saved:
    """Read what `save` wrote: small files first, then headers, then what is large.

    Raises:
        SealError: a file is missing, damaged or not what a model's is; the message names it.
    """
    earlier = read_json(folder, MANIFEST).get("format")
    if earlier != FORMAT:
        refuse(folder, MANIFEST, f"says format {earlier}, this library reads {FORMAT}: fit the model anew")
    manifest = read_manifest(folder)
    check_fields(Manifest, folder, MANIFEST, manifest)
    needed = {*FILES, *((ROWS,) if manifest["has_history"] else ())}
    if wrong := sorted(needed ^ set(manifest["files"])):
        says = "does not name" if wrong[0] in needed else "names a file that no model has:"
        refuse(folder, MANIFEST, f"{says} {wrong[0]}")
    about = read_json(folder, CONFIG)
    check_fields(About, folder, CONFIG, about)
    if verify:
        check_contents(folder, manifest)
    return _read_contents(folder, manifest, about, mapped)


def _read_contents(folder: Path, manifest: dict[str, Any], about: dict[str, Any], mapped: bool) -> Saved:
    users = read_table(folder, USERS, USER)
    items = read_table(folder, ITEMS, ITEM, "n_rows", "trained")
    with reading(folder, USERS):
        check_ids(users[USER], manifest["user_id"])
        state = _read_state(users)
    with reading(folder, ITEMS):
        check_ids(items[ITEM], manifest["item_id"])
        if not items["n_rows"].dtype.is_integer() or (items["n_rows"] < 0).any():
            raise ValueError("column 'n_rows' must count rows")
        if items["trained"].dtype != pl.Boolean:
            raise ValueError("column 'trained' must be true or false")
    lines = read_whole(folder, HISTORY).splitlines()
    record = Fitted(
        _read_split(folder, manifest, users[USER], items),
        has_history=manifest["has_history"],
        history=[parse_json(folder, HISTORY, line) for line in lines],
        trained_items=items["trained"].to_numpy(),
        folder=folder,
        cuts={key: manifest[key] for key, _ in CUTS},
        **{key: manifest[key] for key in FACTS},
    )
    if record.history and not 0 < record.best_epoch <= len(record.history):
        refuse(folder, MANIFEST, f"names best epoch {record.best_epoch} of {len(record.history)}")
    # what is computed from the rows was saved, as the rows may not be
    record.item_counts, record.fingerprint = items["n_rows"].to_numpy(), manifest["fingerprint"]
    return Saved(about, record, state, read_tensors(folder, mapped=mapped))


def _read_state(users: pl.DataFrame) -> NDArray[Any] | None:
    if STATE not in users.columns:
        return None
    dtype = users[STATE].dtype
    if not isinstance(dtype, pl.Array) or dtype.inner not in (pl.Float32, pl.Float64):
        raise ValueError(f"column {STATE!r} must hold as many numbers for each user")
    state = np.array(users[STATE].explode()).reshape(len(users), -1)
    check_finite(state, f"column {STATE!r}")
    return state


def _read_split(
    folder: Path, manifest: dict[str, Any], user_ids: pl.Series, known_items: pl.DataFrame
) -> Split:
    """The split that a model was fitted on; without rows where the model was saved without them."""
    item_ids = known_items[ITEM]
    log = Interactions(user_ids, item_ids, np.empty(0, np.int32), np.empty(0, np.int32))
    if not manifest["has_history"]:
        return Split(log, np.empty(0, np.int8), manifest["protocol"], manifest["seed"])
    rows = read_table(folder, ROWS, USER, ITEM, PART)
    with reading(folder, ROWS):
        users, items = _user_codes(log, rows[USER]), log.encode_items(rows[ITEM])
        if (users < 0).any() or (items < 0).any():
            raise ValueError("it names users or items that the model does not have")
        if not (np.diff(users * len(item_ids) + items) > 0).all():
            raise ValueError("its rows are not unique and sorted by user, then item")
        if (np.bincount(items, minlength=len(item_ids)) != known_items["n_rows"].to_numpy()).any():
            raise ValueError(f"its rows are not those that {ITEMS} counts")
        if not rows[PART].is_in(PARTS).all():
            raise ValueError(f"column {PART!r} must be one of {', '.join(PARTS)}")
        weights = rows[WEIGHT].to_numpy().astype(np.float32) if WEIGHT in rows.columns else None
        if weights is not None and not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(f"column {WEIGHT!r} must be finite, and 0 or more")
        times = rows[TIME] if TIME in rows.columns else None
        if times is not None and (
            times.null_count() or not (times.dtype.is_numeric() or times.dtype.is_temporal())
        ):
            raise ValueError(f"column {TIME!r} must hold a number, a date or a time in each row")
        part = rows[PART].replace_strict({p: i for i, p in enumerate(PARTS)}, return_dtype=pl.Int8).to_numpy()
    log = Interactions(user_ids, item_ids, users.astype(np.int32), items.astype(np.int32), weights, times)
    return Split(log, part, manifest["protocol"], manifest["seed"])


def _user_codes(log: Interactions, ids: pl.Series) -> NDArray[np.int64]:
    """As `log.encode_users`, for ids in the order of a log: they lie in runs, the first that of code 0."""
    begins = np.ones(len(ids), dtype=bool)
    begins[1:] = (ids.slice(1) != ids.slice(0, len(ids) - 1)).to_numpy()
    if ids.filter(pl.Series(begins)).equals(log.user_ids, check_dtypes=True):
        return np.cumsum(begins) - 1
    return log.encode_users(ids)


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
