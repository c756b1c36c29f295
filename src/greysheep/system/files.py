"""Files and folders: checked before long work, written whole or not at all, locked; whose a folder is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from greysheep.errors import ConfigError


def check_file(path: Path, *, suffixes: Iterable[str] = (), inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a file that could not be written in the end, or that would replace an input.

    Raises:
        ConfigError: The ending is not one of `suffixes`, or the path is a folder, an input or not writable.
    """
    path, allowed = path.expanduser(), tuple(suffixes)
    if allowed and path.suffix.lower() not in allowed:
        raise ConfigError(f"output {path} ends in {path.suffix or 'nothing'!r}: use {' or '.join(allowed)}")
    if path.is_dir():
        raise ConfigError(f"output {path} is a folder: name a file")
    _check_place(path, inputs)


def check_folder(
    path: Path, *, marker: str, overwrite: bool = False, inputs: Iterable[Path | None] = ()
) -> None:
    """Refuse a folder that could not be written in the end, that holds something, or that holds an input.

    With `overwrite`, a full folder may be replaced or added to if it is ours.

    Raises:
        ConfigError: The path is a file, a full folder that must not be touched, an input or not writable.
    """
    path = path.expanduser()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output {path} is a file: name a folder")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise ConfigError(f"output {path} already holds files: name another folder or add --overwrite")
        if not is_ours(path, marker):
            raise ConfigError(
                f"output {path} holds files but no {marker} of greysheep's: name another folder"
            )
    _check_place(path, inputs)


def is_ours(folder: Path, marker: str) -> bool:
    """Whether greysheep wrote a folder, which it marks with the file `marker`.

    Every marker that is JSON holds a fingerprint: a web page may have a manifest.json, too.
    """
    file = folder / marker
    if file.suffix != ".json":
        return file.is_file()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "fingerprint" in content


def check_parent(path: Path) -> None:
    """Refuse a folder in which nothing could be written.

    Raises:
        ConfigError: The path is a file or not writable.
    """
    path = path.expanduser()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output {path} is a file: name a folder")
    _check_place(path / "file", ())


def _check_place(path: Path, inputs: Iterable[Path | None]) -> None:
    target = path.resolve()
    for source in inputs:
        if source is not None and (source.resolve() == target or target in source.resolve().parents):
            raise ConfigError(f"output {path} would replace the input {source}: name another place")
    place = target.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"output {path} cannot be written: no permission to write in {place}")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes `path`, on any failure it is removed."""
    with _draft(path) as draft:
        yield draft
        draft.replace(path.expanduser())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes `path`, on any failure it is removed."""
    path = path.expanduser().resolve()
    with _draft(path) as draft:
        draft.mkdir()
        yield draft
        old = draft.with_suffix(".old")
        if path.exists():
            path.rename(old)
        try:
            draft.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Yield a free path beside `path`; on failure nothing is left of it, nor of parents made for it."""
    path = path.expanduser()
    draft = path.with_name(f".{path.stem}.{os.urandom(4).hex()}.tmp{path.suffix}")
    with no_empty_folders(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
        except BaseException:
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            draft.unlink(missing_ok=True)
            raise


@contextmanager
def no_empty_folders(path: Path) -> Iterator[None]:
    """Take away the folders that appear down to `path` and stay empty, should the work fail."""
    missing = [folder for folder in (path.absolute(), *path.absolute().parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


@contextmanager
def written_or_refused(path: Path) -> Iterator[Path]:
    """`new_file` for a path that a user named.

    Raises:
        ConfigError: the path cannot be written.
    """
    try:
        with new_file(path) as draft:
            yield draft
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write a file in one step, so that nobody reads half of it; returns its path.

    Raises:
        ConfigError: the path cannot be written.
    """
    path = Path(path).expanduser()
    with written_or_refused(path) as draft:
        draft.write_bytes(data)
    return path


def write_text(path: Path | str, text: str) -> Path:
    """Write a text file in one step; returns its path."""
    return write_bytes(path, text.encode("utf-8"))


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path` meanwhile; it stays there, for others to lock.

    Raises:
        ConfigError: the file cannot be written, or (with the message `busy`) another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path).acquire(blocking=False)
    except Timeout:
        raise ConfigError(busy) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    with lock:
        yield
