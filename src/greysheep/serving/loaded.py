"""A model as it is served: read once, with its version, what makes its lists, and its users' groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from greysheep.data.interactions import Interactions
from greysheep.errors import DataError, ModelFolderError
from greysheep.mainstream.groups import GROUPS, Mainstream
from greysheep.models import load
from greysheep.models.base import Model
from greysheep.models.recommender import Recommender
from greysheep.system.seal import MANIFEST, digest_of

INDEX = "index.json"
"""What `greysheep compile` leaves in a model's folder beside an index."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """One version of one model. Nothing in it changes: a request that holds it is answered from it alone."""

    version: str
    """SHA-256 of the folder's manifest, and of its index where there is one."""
    model: Model
    ranker: Recommender
    """What makes the lists: the compiled index, or the model."""
    mainstream: Mainstream | None
    """Scores and groups of known users; None where the rows for them are missing."""

    @classmethod
    def read(cls, folder: Path, *, verify: bool = True) -> Loaded:
        """Read a model's folder, with the index that is kept in it.

        Raises:
            ModelFolderError: the folder cannot be used.
        """
        with _pinned(folder) as place:
            try:
                version = version_of(place)
                model = load(place, verify=verify, mapped=True)
                ranker = _index_of(model, place, verify) or model
            except ModelFolderError as error:
                raise ModelFolderError(str(error).replace(str(place), str(folder))) from None
            # scores made here are kept in the folder, if it still is the one that was read
            model.fitted.folder = folder if version_of(folder) == version else None
            try:
                mainstream = model.serving_mainstream
            except DataError:
                mainstream = None
            ranker.fitted.rows.has_canonical_format  # noqa: B018 - builds the rows before the first request
        return cls(version, model, ranker, mainstream)

    @property
    def log(self) -> Interactions:
        """The ids and rows of the model."""
        return self.model.log

    def group(self, code: int) -> str | None:
        """Group of a known user; None where groups are not known."""
        return None if self.mainstream is None else GROUPS[self.mainstream.groups[code]]


def version_of(folder: Path) -> str:
    """What tells one content of a folder from another, quick to read; empty where there is no model.

    >>> version_of(Path("/nowhere"))
    ''
    """
    try:
        model = digest_of(folder / MANIFEST)
    except OSError:
        return ""
    try:
        return f"{model}+{digest_of(folder / INDEX)[:8]}"
    except OSError:
        return model


def _index_of(model: Model, folder: Path, verify: bool) -> Recommender | None:
    if not (folder / INDEX).is_file():
        return None
    from greysheep.models.autoencoders.kept_index import kept_index  # it brings torch

    return kept_index(model, folder, verify=verify)


@contextmanager
def _pinned(folder: Path) -> Iterator[Path]:
    """A path to the very folder that has this name now: another one may take the name while it is read.

    Raises:
        ModelFolderError: there is no such folder.
    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ModelFolderError(f"{folder} is no saved model: {error.strerror}") from None
    try:
        yield Path(f"/proc/self/fd/{held}")
    finally:
        os.close(held)
