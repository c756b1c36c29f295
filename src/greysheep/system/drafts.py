"""Drafts: what is written stands beside its place first, and takes the place in one step when it is whole.

A draft is locked while its process lives, so that the next one to write the same place can take away what a
killed process has left, and nothing else.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_HERE = -100  # AT_FDCWD
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What a kernel or a file system says that cannot exchange two names."""
_LONGEST = 100
"""Bytes of a place's name that go into its draft's: with the rest it stays below the 255 of file systems."""


@contextmanager
def draft_of(path: Path, *, folder: bool) -> Iterator[Path]:
    """Yield an empty file or folder beside `path`, with its ending; what is left of it in the end is removed.

    On failure the parents that were made for it go, too. Drafts of killed processes are swept before.

    Raises:
        OSError: with the name of `path`, also where a writer says an error of the system in words of its own.
    """
    with no_empty_folders(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        sweep(path)
        stem, suffix = _parts(path)
        name = f".{stem}.{os.urandom(4).hex()}"
        # locked before it has the name that others sweep
        fresh, draft = (path.with_name(f"{name}.{kind}{suffix}") for kind in ("new", "tmp"))
        held = _create(fresh, folder)
        try:
            fresh.rename(draft)
            yield draft
        except _writing_errors() as error:
            raise _plain(error, path, draft) from error
        finally:
            for left in (fresh, draft):
                remove(left)
            os.close(held)


def take_place(draft: Path, path: Path) -> None:
    """Give a folder its name; an earlier folder of that name is removed. At no moment is there neither.

    Where names cannot be exchanged the earlier one is put aside for a moment: `recover` finds it again.
    """
    try:
        draft.rename(path)  # there is nothing, or an empty folder
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if not exchange(draft, path):
        old = _old_of(draft)
        path.rename(old)
        try:
            draft.rename(path)
        except OSError:
            old.rename(path)
            raise
        remove(old)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), str(other))


def recover(path: Path) -> None:
    """Give back the folder that a process killed in `take_place` had put aside."""
    if os.path.lexists(path) or not path.parent.is_dir():
        return
    for old in _left(path, "old"):
        with suppress(OSError), _dead(_draft_of_old(old)):
            old.rename(path)
            return


def sweep(path: Path) -> None:
    """Remove what killed processes have left of `path`: drafts that no process holds."""
    for left in _left(path, "tmp"):
        with suppress(OSError), _dead(left):
            remove(left)
    if os.path.lexists(path):  # else what was put aside is all there is
        for old in _left(path, "old"):
            with suppress(OSError), _dead(_draft_of_old(old)):
                remove(old)


def is_trace(name: str) -> bool:
    """Whether a name is that of a draft or a lock: what a killed process leaves, and nobody's work.

    >>> [is_trace(name) for name in (".lock", ".study.journal.lock", ".m.0123abcd.tmp", ".git", "a.lock")]
    [True, True, True, False, False]
    """
    return re.fullmatch(r"\.(.*\.)?lock|\..*\.[0-9a-f]{8}\.(new|tmp)(\.[^.]*)?", name) is not None


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as that can be done; a link goes, not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


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


def _create(path: Path, folder: bool) -> int:
    """Make an empty file or folder; returns a descriptor whose lock lasts as long as this process."""
    if folder:
        path.mkdir()
    else:
        path.touch(exist_ok=False)
    held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with suppress(OSError):  # a file system without locks: then nobody can lock it, and nobody sweeps it
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


@contextmanager
def _dead(path: Path) -> Iterator[None]:
    """Hold the lock of something that no living process holds; OSError where one does."""
    if not os.path.lexists(path):
        yield
        return
    held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


def _left(path: Path, kinds: str) -> list[Path]:
    """Drafts of `path` of these kinds, whoever's they are."""
    stem, suffix = map(re.escape, _parts(path))
    pattern = re.compile(rf"\.{stem}\.[0-9a-f]{{8}}\.({kinds}){suffix}")
    return [path.parent / name for name in os.listdir(path.parent) if pattern.fullmatch(name)]


def _old_of(draft: Path) -> Path:
    return draft.with_name(re.sub(r"\.tmp(\.[^.]*)?$", r".old\1", draft.name))


def _draft_of_old(old: Path) -> Path:
    return old.with_name(re.sub(r"\.old(\.[^.]*)?$", r".tmp\1", old.name))


def _parts(path: Path) -> tuple[str, str]:
    """Stem and ending of a draft's name; a long name is cut, as the draft's is longer."""
    stem, suffix = path.stem, path.suffix
    if len(os.fsencode(suffix)) > 20:
        stem, suffix = path.name, ""
    return os.fsencode(stem)[:_LONGEST].decode(errors="ignore"), suffix


def _writing_errors() -> tuple[type[Exception], ...]:
    """What writing raises: OSError, and errors of libraries that are loaded; `--help` loads none of them."""
    known = (("polars.exceptions", "PolarsError"), ("safetensors", "SafetensorError"))
    return (OSError, *(getattr(sys.modules[where], name) for where, name in known if where in sys.modules))


def _plain(error: Exception, path: Path, draft: Path) -> Exception:
    """An error of the system in writing `path`, with that name: nobody knows the draft's. Others as they are.

    Polars and safetensors say theirs as "... (os error 28)".
    """
    said = re.search(r"\(os error (\d+)\)", str(error))
    code = getattr(error, "errno", None) or (int(said[1]) if said is not None else None)
    of_another = not str(getattr(error, "filename", None) or draft).startswith(str(draft))
    if code is None or of_another:
        return error
    return OSError(code, os.strerror(code), str(path))
