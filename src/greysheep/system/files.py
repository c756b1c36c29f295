"""Files and folders: checked before long work, written next to the place, then moved there; locks."""

from __future__ import annotations

import fcntl
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


def check_folder(path: Path, *, marker: str, overwrite: bool, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a folder that could not be written in the end, that holds something, or that holds an input.

    With `overwrite`, a full folder may be replaced if it holds the file `marker`, which greysheep writes.

    Raises:
        ConfigError: The path is a file, a full folder that must not be replaced, an input or not writable.
    """
    path = path.expanduser()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output {path} is a file: name a folder")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise ConfigError(f"output {path} already holds files: name another folder or add --overwrite")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise ConfigError(
            f"output {path} holds files but no {marker}: greysheep did not write it, name another"
        )
    _check_place(path, inputs)


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
    path = path.expanduser()
    made = _make_parents(path)
    draft = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        _remove_empty(made)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes `path`, on any failure it is removed."""
    path = path.expanduser().resolve()
    made = _make_parents(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.mkdir()
    try:
        yield draft
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            draft.rename(path)
            shutil.rmtree(old)
        else:
            draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        _remove_empty(made)
        raise


@contextmanager
def no_empty_folders(path: Path) -> Iterator[None]:
    """Take away the folders that appear down to `path` and stay empty, should the work fail."""
    missing = [folder for folder in (path.absolute(), *path.absolute().parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        _remove_empty(missing)
        raise


def write_text(text: str, path: Path) -> None:
    """Write a text file in one step."""
    with new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _make_parents(path: Path) -> list[Path]:
    """Make the folders above `path`; return those that were missing, innermost first."""
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file in one step, so that nobody reads half of it; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Keep a file to ourselves meanwhile; it is made if it is not there.

    Raises:
        ConfigError: the file cannot be written, or (with the message `busy`) another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("ab")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(busy) from None
        yield
