"""A fitted model as a folder of safetensors, JSON and parquet files; nothing is pickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from greysheep.data.columns import ITEM, PART, TIME, USER, WEIGHT
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import PARTS, Split
from greysheep.errors import ModelFolderError
from greysheep.models.derived import SERVING, TRAIN
from greysheep.models.derived import write as write_derived
from greysheep.models.fitted import Fitted, finite
from greysheep.system.files import is_ours, new_folder, refused
from greysheep.system.machine import own_version
from greysheep.system.seal import MANIFEST, check_contents, read_json, read_manifest, write_seal

FORMAT = 2
STATE = "gate"
"""Column of users.parquet that holds their state."""
CUTS = (("cuts_train", TRAIN), ("cuts_serving", SERVING))
"""Cut points in the manifest, null unless the groups were asked for before saving."""
ROWS = "interactions.parquet"
FILES = ("config.json", "items.parquet", "users.parquet", "model.safetensors", "training.jsonl")
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
    save_file({k: np.asarray(v, order="C") for k, v in saved.tensors.items()}, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # as the other files: it would be its owner's alone
    _json(folder / "config.json", saved.about)
    items = {ITEM: log.item_ids, "n_rows": record.item_counts, "trained": record.trained_items}
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    users = pl.DataFrame({USER: log.user_ids})
    if saved.user_state is not None:
        users = users.with_columns(pl.Series(STATE, saved.user_state))
    users.write_parquet(folder / "users.parquet")
    if include_history:
        parts = pl.Series(PART, PARTS).gather(record.split.part)
        log.frame().with_columns(parts).write_parquet(folder / "interactions.parquet")
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in record.history]
    (folder / "training.jsonl").write_text("".join(lines))
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


def read(folder: Path, verify: bool) -> Saved:
    """Read what `save` wrote; `registry.load` turns what a damaged folder raises into one error."""
    earlier = read_json(folder, MANIFEST).get("format")
    if earlier != FORMAT:
        raise ValueError(f"{MANIFEST} says format {earlier}, this library reads {FORMAT}: fit the model anew")
    manifest = read_manifest(folder)
    needed = {*FILES, *((ROWS,) if manifest["has_history"] else ())}
    if missing := sorted(needed - set(manifest["files"])):
        raise ValueError(f"{MANIFEST} does not name {missing[0]}")
    if verify:
        check_contents(folder, manifest)
    users = pl.read_parquet(folder / "users.parquet", glob=False)
    items = pl.read_parquet(folder / "items.parquet", glob=False)
    record = Fitted(
        _read_split(folder, manifest, users[USER], items[ITEM]),
        has_history=manifest["has_history"],
        history=[json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()],
        trained_items=items["trained"].to_numpy(),
        folder=folder,
        cuts={key: manifest[key] for key, _ in CUTS},
        **{key: manifest[key] for key in FACTS},
    )
    # what is computed from the rows was saved, as the rows may not be
    record.item_counts, record.fingerprint = items["n_rows"].to_numpy(), manifest["fingerprint"]
    state = np.array(users[STATE].explode()).reshape(len(users), -1) if STATE in users.columns else None
    about = read_json(folder, "config.json")
    if state is not None and not np.isfinite(state).all():
        raise ValueError(f"users.parquet: column {STATE!r} holds NaN or infinity")
    tensors = load_file(folder / "model.safetensors")
    for name, values in tensors.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(f"model.safetensors: tensor {name!r} holds NaN or infinity")
    return Saved(about, record, state, tensors)


def _read_split(folder: Path, manifest: dict[str, Any], user_ids: pl.Series, item_ids: pl.Series) -> Split:
    """The split that a model was fitted on; without rows where the model was saved without them."""
    log = Interactions(user_ids, item_ids, np.empty(0, np.int32), np.empty(0, np.int32))
    if not manifest["has_history"]:
        return Split(log, np.empty(0, np.int8), manifest["protocol"], manifest["seed"])
    rows = pl.read_parquet(folder / "interactions.parquet", glob=False)
    users, items = log.encode_users(rows[USER]), log.encode_items(rows[ITEM])
    if (users < 0).any() or (items < 0).any():
        raise ValueError("interactions.parquet names users or items that the model does not have")
    weights = rows[WEIGHT].to_numpy().astype(np.float32) if WEIGHT in rows.columns else None
    times = rows[TIME] if TIME in rows.columns else None
    log = Interactions(user_ids, item_ids, users.astype(np.int32), items.astype(np.int32), weights, times)
    part = rows[PART].replace_strict({p: i for i, p in enumerate(PARTS)}, return_dtype=pl.Int8).to_numpy()
    return Split(log, part, manifest["protocol"], manifest["seed"])


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
