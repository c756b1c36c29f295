"""Lists for any number of users, in parts of a folder: whole parts or none, and a killed run goes on.

A part has the lists of PART_USERS users; no more than a part is in memory. `_request.json` says what was
asked for, so that nothing else is added to the folder; `_manifest.json` seals it when all parts are there.
Readers of tables in parts pass over names that begin with `_`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.data.columns import RANK
from greysheep.errors import ConfigError
from greysheep.models.base import Model
from greysheep.models.lists import Asked
from greysheep.models.recommender import Recommender
from greysheep.models.training.progress import Steps
from greysheep.system.checks import a_path, one_of, whole_number
from greysheep.system.drafts import no_empty_folders, remove
from greysheep.system.files import check_folder, locked, refused, write_text, written_or_refused
from greysheep.system.machine import own_version
from greysheep.system.seal import DIGEST, MANIFEST, check_seal, write_seal

PART_USERS = 4096
REQUEST, PREFIX = "_request.json", "_"
ENGINES = ("local", "ray")
NAMES = {
    "model": "another model",
    "users": "other users",
    "rows": "other rows of the users, or other histories",
    "items": "other candidates or excluded items",
}
"""What a folder holds where its request differs in a field."""


@dataclass(frozen=True)
class Written:
    """What a folder of lists holds."""

    folder: Path
    rows: int
    users: int
    """Users with a list."""
    asked: int
    """Users that lists were asked for."""
    parts: int
    found: int
    """Parts that were there before."""


def write_lists(
    model: Recommender,
    directory: str | Path,
    users: Any = None,
    *,
    k: int = 20,
    part_users: int = PART_USERS,
    overwrite: bool = False,
    engine: str = "local",
    workers: int | None = None,
    progress: bool | None = None,
    **more: Any,
) -> Written:
    """Write what `recommend` gives as parquet parts of a folder, a part in memory at a time.

    A run that was killed leaves whole parts; the same call goes on with the others, to the same files. A
    finished folder is sealed: the same call checks it and does nothing.

    Args:
        model: a fitted model.
        directory: folder for the parts. It holds personal data: ids.
        users: as of `recommend`.
        k: length of the lists.
        part_users: users a part.
        overwrite: throw away the lists of another request that the folder holds.
        engine: "local", or "ray": the parts are made on the machines of a Ray cluster (extra `ray`), all of
            which see the folders of the model and of the lists.
        workers: of Ray; one a core if not given.
        progress: True = bar on a terminal, a line a part elsewhere; False = silent; None = bar only.
        more: `exclude_seen`, `candidates`, `exclude_items`, `history` and `on_unknown` of `recommend`.

    Raises:
        ConfigError: the folder holds something else, lists of another request, or cannot be written.
        SealError: a finished folder has changed since.
        MissingExtraError: Ray is not installed.

    >>> import greysheep as gs, tempfile
    >>> model = gs.Popular().fit(gs.simulate(n_users=60, n_items=40, seed=0).log)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = gs.write_lists(model, folder + "/lists", k=5, part_users=25)
    >>> done.users, done.rows, done.parts
    (60, 300, 3)
    """
    part_users, engine = whole_number("part_users", part_users), one_of("engine", engine, ENGINES)
    folder = a_path("directory", directory)
    check_folder(folder, marker=REQUEST, overwrite=True)
    asked = model.asked(users, k=k, **more)
    request = request_of(model, asked, part_users)
    parts = Parts(folder.absolute(), len(asked.positions), part_users)
    with no_empty_folders(folder), refused(folder), _claimed(folder, request, overwrite):
        if (folder / (PREFIX + MANIFEST)).is_file():
            check_seal(folder, PREFIX)
            return _counted(parts, asked, parts.n)
        missing = [number for number in range(parts.n) if not parts.whole(number)]
        found = parts.n - len(missing)
        with Steps("lists", len(missing), progress, "part") as steps:
            if engine == "ray":
                from greysheep.serving.on_ray import write_parts

                write_parts(model, asked, parts, missing, workers, steps.step)
            else:
                _write_parts(model, asked, parts, missing, steps.step)
        write_seal(folder, request, PREFIX)
        return _counted(parts, asked, found)


@dataclass(frozen=True)
class Parts:
    """The parts of a folder: which users each has, and where it lies."""

    folder: Path
    n_users: int
    size: int

    @property
    def n(self) -> int:
        """How many; one without rows where nobody gets a list."""
        return max(1, -(-self.n_users // self.size))

    def file(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:06d}.parquet"

    def whole(self, number: int) -> bool:
        """Whether a part is there: parts appear whole, but a disk may have lost one."""
        try:
            pl.read_parquet_schema(self.file(number))
        except (OSError, pl.exceptions.PolarsError):
            return False
        return True

    def write(self, model: Recommender, asked: Asked, number: int) -> None:
        """Make a part."""
        lists = model.lists(asked, number * self.size, (number + 1) * self.size)
        with written_or_refused(self.file(number)) as draft:
            lists.write_parquet(draft)


def _write_parts(
    model: Recommender, asked: Asked, parts: Parts, missing: list[int], step: Callable[[], None]
) -> None:
    for number in missing:
        parts.write(model, asked, number)
        step()


def _counted(parts: Parts, asked: Asked, found: int) -> Written:
    files = [parts.file(number) for number in range(parts.n)]
    rank = pl.scan_parquet(files, glob=False).select(pl.col(RANK))
    rows, users = rank.select(pl.len(), (pl.col(RANK) == 1).sum().alias("users")).collect().row(0)
    return Written(parts.folder, rows, users, len(asked.audience.ids), parts.n, found)


@contextmanager
def _claimed(folder: Path, request: dict[str, Any], overwrite: bool) -> Iterator[None]:
    """Hold the folder for this request alone.

    Raises:
        ConfigError: another process is at work there, or it holds lists of another request.
    """
    with locked(folder / ".lock", f"another process writes lists to {folder}: wait for it to end"):
        file = folder / REQUEST
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else request
        if other := [key for key in request if known.get(key) != request[key] and key != "fingerprint"]:
            if not overwrite:
                key = other[0]
                what = NAMES.get(key, f"{key} {known.get(key)}, not {request[key]}")
                raise ConfigError(
                    f"output {folder} holds lists of {what}: name another folder or add --overwrite"
                )
            for left in [*folder.glob("part-*.parquet"), *folder.glob(".part-*"), *folder.glob("_*")]:
                remove(left)
        write_text(file, json.dumps(request, indent=1) + "\n")
        try:
            yield
        finally:
            (folder / ".lock").unlink(missing_ok=True)


def request_of(model: Recommender, asked: Asked, part_users: int) -> dict[str, Any]:
    """What lists depend on, for JSON: two requests that are equal give equal files."""
    audience, choice = asked.audience, asked.choice
    ids = audience.ids.gather(asked.positions)
    named = "" if choice.of_user is None else _digest(*_arrays(choice.of_user))
    known = {
        "greysheep": own_version(),
        "k": asked.k,
        "exclude_seen": asked.exclude_seen,
        "part_users": part_users,
        "model": digest_of(model),
        "users": _digest(str(ids.dtype), ids.cast(pl.String).str.join("\n").item() or ""),
        "rows": _digest(audience.code, audience.place, *_arrays(audience.history)),
        "items": _digest(choice.allowed, named),
    }
    return {**known, "fingerprint": _digest(json.dumps(known))}


def digest_of(model: Recommender) -> str:
    """SHA-256 of what a model's lists depend on; of a saved one, that of its manifest."""
    record = model.fitted
    if record.folder is not None and (record.folder / DIGEST).is_file():
        return (record.folder / DIGEST).read_text(encoding="ascii").split()[0]
    state = np.empty(0) if model.user_state is None else model.user_state
    config = model.config.model_dump_json() if isinstance(model, Model) else ""
    tensors = sorted(model.tensors().items()) if isinstance(model, Model) else []
    return _digest(model.name, config, record.fingerprint, state, *(np.asarray(own) for _, own in tensors))


def _arrays(matrix: csr_matrix) -> tuple[NDArray[Any], ...]:
    return np.asarray(matrix.shape), matrix.indptr, matrix.indices, matrix.data


def _digest(*parts: str | NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        digest.update(f"{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()
