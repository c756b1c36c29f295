"""Files and folders: checked before long work, written whole or not at all, locked; whose a folder is."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from greysheep.errors import ConfigError, GreysheepError
from greysheep.system.drafts import draft_of, is_trace, take_place


def check_file(path: Path, *, suffixes: Iterable[str] = (), inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a file that could not be written in the end, or that would replace an input.

    Raises:
        ConfigError: The ending is not one of `suffixes`, or the path is a folder, a device, an input or in
            one, or not writable.
    """
    path, allowed = path.expanduser(), tuple(suffixes)
    if allowed and path.suffix.lower() not in allowed:
        raise ConfigError(f"output {path} ends in {path.suffix or 'nothing'!r}: use {' or '.join(allowed)}")
    with refused(path):
        if path.is_dir():
            raise ConfigError(f"output {path} is a folder: name a file")
        if path.exists() and not path.is_file():
            raise ConfigError(f"output {path} is a device or a pipe, which cannot be replaced: name a file")
        _check_place(path, inputs)


def check_folder(
    path: Path, *, marker: str, overwrite: bool = False, inputs: Iterable[Path | None] = ()
) -> None:
    """Refuse a folder that could not be written in the end, that holds something, or that holds an input.

    With `overwrite`, a full folder may be replaced or added to if it is ours.

    Raises:
        ConfigError: The path is a file, a full folder that must not be touched, a mount point, an input or in
            one, or not writable.
    """
    path = path.expanduser()
    with refused(path):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"output {path} is a file: name a folder")
        _check_place(path, inputs)
        if path.is_dir() and not all(is_trace(entry.name) for entry in path.iterdir()):
            if not overwrite:
                raise ConfigError(
                    f"output {path} already holds files: name another folder or add --overwrite"
                )
            if not is_ours(path, marker):
                raise ConfigError(
                    f"output {path} holds files but no {marker} of greysheep's: name another folder"
                )


def check_mount(path: Path) -> None:
    """Refuse a folder that a file system is mounted on: another one cannot take its place.

    Raises:
        ConfigError: It is one.
    """
    place = real(path)
    if place.is_dir() and str(place) in _mount_points():
        raise ConfigError(f"output {path} is a mount point, which cannot be replaced: name a folder in it")


def _mount_points() -> set[str]:
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return set()
    return {re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in lines}


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


def real(path: Path) -> Path:
    """The path that links lead to; OSError where they lead in a circle."""
    try:
        return path.expanduser().resolve()
    except RuntimeError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error


def check_parent(path: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a folder in which nothing could be written.

    Raises:
        ConfigError: The path is a file or not writable.
    """
    path = path.expanduser()
    with refused(path):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"output {path} is a file: name a folder")
        _check_place(path / "file", inputs)


def _check_place(path: Path, inputs: Iterable[Path | None]) -> None:
    """Refuse a path that is, holds or lies in an input, or beside which nothing can be written."""
    target = real(path)
    for source in filter(None, inputs):
        given = real(source)
        if given == target or target in given.parents or (target.exists() and _same(given, target)):
            raise ConfigError(f"output {path} would replace the input {source}: name another place")
        if given in target.parents:
            raise ConfigError(f"output {path} lies in the input {source}: name another place")
    place = target.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"output {path} cannot be written: no permission to write in {place}")
    trial = place / f".greysheep.{os.urandom(4).hex()}"  # a full disk, a quota, a folder of the system
    trial.mkdir()
    trial.rmdir()


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes `path`, on any failure it is removed.

    Where `path` is a link, what it points to is replaced.
    """
    path = real(path)
    with draft_of(path, folder=False) as draft:
        yield draft
        draft.replace(path)


def write_together(files: Mapping[Path, str | Callable[[Path], object]]) -> list[Path]:
    """Write files, each a text or a function of a path; none takes its place before all are whole.

    Returns their paths.
    """
    with ExitStack() as stack:
        for path, content in files.items():
            draft = stack.enter_context(new_file(path))
            if isinstance(content, str):
                draft.write_text(content, encoding="utf-8")
            else:
                content(draft)
    return list(files)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes `path`, on any failure it is removed."""
    path = real(path)
    with draft_of(path, folder=True) as draft:
        yield draft
        take_place(draft, path)


@contextmanager
def written_or_refused(path: Path) -> Iterator[Path]:
    """`new_file` for a path that a user named.

    Raises:
        ConfigError: the path cannot be written.
    """
    with refused(path), new_file(path) as draft:
        yield draft


@contextmanager
def refused(path: Path, kind: type[GreysheepError] = ConfigError) -> Iterator[None]:
    """Turn an error of the system into one line on the path that cannot be written.

    Raises:
        GreysheepError: of this kind.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{path} cannot be written: {error.strerror or error}") from None


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
