"""The models by name: made from a name, from a text, or from a folder."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from greysheep.data.columns import GROUP, ITEM, USER
from greysheep.errors import ConfigError, ModelFolderError
from greysheep.mainstream.groups import GROUPS, Mainstream
from greysheep.models.base import Model
from greysheep.models.config import RunOptions, read_settings
from greysheep.models.folder import FACTS, FORMAT, GATE, MAINSTREAM, read_split

REGISTRY: dict[str, type[Model]] = {}
"""Every model by its name; `greysheep.models` fills it."""

# what reading a broken folder can raise, from JSON, parquet, safetensors and our own checks
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, RuntimeError,
    SafetensorError, pl.exceptions.PolarsError, ConfigError, ValidationError,
)  # fmt: skip


def create(name: str, /, **keywords: Any) -> Model:
    """Make a model by its registry name.

    Raises:
        ConfigError: no such model; the message names the nearest one.

    >>> create("tall", n_experts=4).config.n_experts
    4
    """
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=1, cutoff=0.0)
        raise ConfigError(f"there is no model {name!r}; the nearest is {near[0]!r} of {', '.join(REGISTRY)}")
    return REGISTRY[name](**keywords)


def parse(text: str, /, **keywords: Any) -> Model:
    """Make a model from `name` or `name[key=value,...]`; the text becomes its label.

    >>> parse("tall[gate=uniform,n_experts=4]").label
    'tall[gate=uniform,n_experts=4]'
    """
    name, bracket, rest = text.strip().partition("[")
    if bracket and not rest.endswith("]"):
        raise ConfigError(f"{text!r}: a variant is written name[key=value,...]")
    try:
        own = read_settings(filter(None, rest[:-1].split(",")))
    except ConfigError as error:
        raise ConfigError(f"model {text!r}: {error}") from None
    given = {**keywords, **own}
    for key in ("label", "self"):  # names in `Model.__init__` that are no settings
        if key in given:
            raise ConfigError(f"{name} has no setting {key!r}")
    return create(name, **given, label=text.strip())


def load(directory: str | Path) -> Model:
    """Read a saved model; nothing in the folder is executed.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another format.
    """
    folder = Path(directory).expanduser()
    if not (folder / "manifest.json").is_file():
        raise ModelFolderError(f"{folder} is no saved model: it has no manifest.json")
    try:
        return _read(folder)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFolderError(f"{folder} is damaged or incomplete: {reason}") from error


def _read(folder: Path) -> Model:
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']} (this library reads {FORMAT})")
    saved = json.loads((folder / "config.json").read_text())
    model = create(saved["model"], label=saved["label"], **saved["config"])
    model.options = RunOptions(**saved["options"])
    users = pl.read_parquet(folder / "users.parquet", glob=False)
    items = pl.read_parquet(folder / "items.parquet", glob=False)
    model.split = read_split(folder, manifest, users[USER], items[ITEM])
    model.has_history = manifest["has_history"]
    model.__dict__["of_rows"] = {key: manifest[key] for key in ("fingerprint", "cuts_train")}
    model._restore(load_file(folder / "model.safetensors"), len(items))
    if GATE in users.columns:
        model.gates = np.array(users[GATE].explode()).reshape(len(users), -1)
    for key in FACTS:
        setattr(model, key, manifest[key])
    model.history = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    codes = users[GROUP].replace_strict({g: i for i, g in enumerate(GROUPS)}, return_dtype=pl.Int8).to_numpy()
    cuts = np.array([np.inf if cut is None else cut for cut in manifest["cuts_serving"]])
    how = (manifest.get("mainstream_sample", 0), manifest.get("mainstream_bound", 0.0))
    model.__dict__["serving_mainstream"] = Mainstream(users[MAINSTREAM].to_numpy(), codes, cuts, *how)
    model.__dict__["trained_items"] = items["trained"].to_numpy()
    model.__dict__["item_counts"] = items["n_rows"].to_numpy()
    return model
