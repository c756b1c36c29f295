"""A compiled index beside the model it was made from, in that model's folder, outside its seal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from greysheep.errors import ModelFolderError, SealError
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.autoencoders.index import Index
from greysheep.models.base import Model, take
from greysheep.models.folder_checks import read_tensors, reading
from greysheep.system.files import new_file, refused
from greysheep.system.seal import MANIFEST, digest_of, read_json

INDEX, ABOUT = "index.safetensors", "index.json"


def keep_index(index: Index, folder: Path) -> None:
    """Write an index into the folder of its model, in place of an earlier one.

    Raises:
        ModelFolderError: the folder cannot be written.
    """
    parts = {
        "projection": index.projection,
        "item_vectors": index.item_vectors,
        "user_vectors": index.user_vectors,
    }
    with refused(folder, ModelFolderError):
        with new_file(folder / INDEX) as draft:
            save_file({name: np.ascontiguousarray(values) for name, values in parts.items()}, draft)
            draft.chmod(0o644)  # as the model's files: it would be its owner's alone
            digest = digest_of(draft)
        about = {"model": digest_of(folder / MANIFEST), "sha256": digest}
        with new_file(folder / ABOUT) as draft:
            draft.write_text(json.dumps(about) + "\n", encoding="utf-8")


def kept_index(model: Model, folder: Path, *, verify: bool = True) -> Index | None:
    """The index in the folder of a model that was loaded from there; None where there is none.

    Its arrays stay in their file, whose memory all processes that do so share.

    Raises:
        ModelFolderError: it is damaged, or was compiled from another model.
    """
    if not isinstance(model, MixtureModel) or not (folder / ABOUT).is_file():
        return None
    try:
        about = read_json(folder, ABOUT)
        if about.get("model") != digest_of(folder / MANIFEST):
            raise SealError(f"{folder / INDEX} was compiled from another model")
        if verify and about.get("sha256") != digest_of(folder / INDEX):
            raise SealError(f"{folder / INDEX} has changed since it was written: its SHA-256 is another")
        state = read_tensors(folder, INDEX, mapped=True)
        with reading(folder, INDEX):
            length = np.asarray(state.get("item_vectors")).shape[-1]
            wide = model.settings.n_experts * (model.settings.latent + 1)
            projection = take(state, "projection", wide, length)
            index = Index(model, projection, take(state, "item_vectors", model.log.n_items, length))
            index.user_state = take(state, "user_vectors", model.log.n_users, length)
    except (SealError, OSError) as error:
        raise ModelFolderError(f"{error}: compile it again") from None
    return index
