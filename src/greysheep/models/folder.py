"""A fitted model as a folder of safetensors, JSON and parquet files; nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.torch import save_file

from greysheep.data.columns import GROUP, ITEM, PART, TIME, USER, WEIGHT
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import PARTS, Split
from greysheep.errors import ModelFolderError
from greysheep.mainstream.groups import GROUPS
from greysheep.system.files import is_ours, new_folder
from greysheep.system.machine import own_version

FORMAT = 1
MAINSTREAM, GATE = "mainstream", "gate"


def save(model: Any, directory: Path, include_history: bool) -> Path:
    """Write a model; the folder appears whole or not at all. An earlier model there is replaced.

    Raises:
        ModelFolderError: the path is taken by something that is not a saved model, or cannot be written.
    """
    directory = directory.expanduser()
    check_target(directory)
    include_history = include_history and model.has_history
    try:
        with new_folder(directory) as draft:
            _write(model, draft, include_history)
    except OSError as error:
        raise ModelFolderError(f"{directory} cannot be written: {error.strerror or error}") from None
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


def _write(model: Any, folder: Path, include_history: bool) -> None:
    log, split = model.log, model.split
    save_file({k: v.contiguous() for k, v in model._state().items()}, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # as the other files: it would be its owner's alone
    run = model.options.model_dump(include={"seed", "precision"})
    _json(folder / "config.json", {"model": model.name, "label": model.label,
                                   "config": model.config.model_dump(), "options": run})  # fmt: skip
    items = {ITEM: log.item_ids, "n_rows": model.item_counts, "trained": model.trained_items}
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    serving = model.serving_mainstream
    users = pl.DataFrame({USER: log.user_ids, MAINSTREAM: serving.scores,
                          GROUP: np.asarray(GROUPS)[serving.groups]})  # fmt: skip
    if model.gates is not None:
        users = users.with_columns(pl.Series(GATE, model.gates))
    users.write_parquet(folder / "users.parquet")
    if include_history:
        parts = pl.Series(PART, PARTS).gather(split.part)
        log.frame().with_columns(parts).write_parquet(folder / "interactions.parquet")
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in model.history]
    (folder / "training.jsonl").write_text("".join(lines))
    best = model.history[model.best_epoch - 1] if model.history else {}
    manifest = {
        "format": FORMAT,
        "greysheep": own_version(),
        **(_of_rows(model) if model.has_history else model.__dict__["of_rows"]),
        "user_id": str(log.user_ids.dtype),
        "item_id": str(log.item_ids.dtype),
        "protocol": split.protocol,
        "seed": split.seed,
        "has_history": include_history,
        "cuts_serving": _finite(serving.cuts),
        "mainstream_sample": serving.sampled,
        "mainstream_bound": serving.bound,
        "metrics": {key: best[key] for key in ("objective", "ndcg@20") if key in best},
        **{key: getattr(model, key) for key in FACTS},
    }
    _json(folder / "manifest.json", manifest)


def _of_rows(model: Any) -> dict[str, Any]:
    """What only the rows tell; a model that was loaded without them keeps what its manifest said."""
    return {"fingerprint": model.log.fingerprint(), "cuts_train": _finite(model.mainstream.cuts)}


FACTS = ("train_seconds", "epochs", "best_epoch", "gate_entropy", "peak_memory_bytes")


def read_split(folder: Path, manifest: dict[str, Any], user_ids: pl.Series, item_ids: pl.Series) -> Split:
    """The split that a model was fitted on; without rows where the model was saved without them."""
    if not manifest["has_history"]:
        none = np.empty(0, np.int32)
        log = Interactions(user_ids, item_ids, none, none)
        return Split(log, np.empty(0, np.int8), manifest["protocol"], manifest["seed"])
    rows = pl.read_parquet(folder / "interactions.parquet", glob=False)
    ids = Interactions(user_ids, item_ids, np.empty(0, np.int32), np.empty(0, np.int32))
    users, items = ids.encode_users(rows[USER]), ids.encode_items(rows[ITEM])
    if (users < 0).any() or (items < 0).any():
        raise ValueError("interactions.parquet names users or items that the model does not have")
    weights = rows[WEIGHT].to_numpy().astype(np.float32) if WEIGHT in rows.columns else None
    times = rows[TIME] if TIME in rows.columns else None
    log = Interactions(user_ids, item_ids, users.astype(np.int32), items.astype(np.int32), weights, times)
    part = rows[PART].replace_strict({p: i for i, p in enumerate(PARTS)}, return_dtype=pl.Int8).to_numpy()
    return Split(log, part, manifest["protocol"], manifest["seed"])


def _finite(cuts: Any) -> list[float | None]:
    """Cut points for JSON, which has no infinity (an empty group)."""
    return [float(cut) if np.isfinite(cut) else None for cut in cuts]


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
