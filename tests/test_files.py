"""Files and folders are written whole or not at all, and a lock keeps others out until it is given back."""

import errno
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from greysheep.cli.outputs import write_table
from greysheep.errors import ConfigError
from greysheep.system import drafts
from greysheep.system.files import (
    check_folder,
    is_ours,
    locked,
    new_file,
    new_folder,
    write_bytes,
    write_text,
    write_together,
)


class Crash(BaseException):
    """Anything that ends the work: Ctrl-C is no `Exception` either."""


def fill(draft: Path, text: str) -> None:
    (draft / "sub").mkdir()
    (draft / "sub" / "file.txt").write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "page.svg"
    with pytest.raises(Crash), new_file(target) as draft:
        draft.write_text("half")
        assert draft.suffix == ".svg" and draft.parent == target.parent  # the ending tells writers the format
        raise Crash
    assert list(tmp_path.iterdir()) == []  # nor the folders that were made for it
    assert write_text(target, "ä") == target and target.read_bytes() == "ä".encode()
    with pytest.raises(Crash), new_file(target) as draft:
        draft.write_text("half")
        raise Crash
    assert tree(tmp_path) == {"deep/er/page.svg": "ä"}
    assert write_bytes(str(target), b"new") == target and tree(tmp_path) == {"deep/er/page.svg": "new"}


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deep" / "model"
    with pytest.raises(Crash), new_folder(target) as draft:
        fill(draft, "half")
        raise Crash
    assert list(tmp_path.iterdir()) == []
    for text in ("old", "new"):
        with new_folder(target) as draft:
            fill(draft, text)
        assert tree(tmp_path) == {"deep/model/sub/file.txt": text}
    rename = Path.rename

    def only_the_old_one(self: Path, to: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", only_the_old_one)
    with pytest.raises(OSError, match="No space"), new_folder(target) as draft:
        fill(draft, "newer")
    assert tree(tmp_path) == {"deep/model/sub/file.txt": "new"}


def test_files_that_belong_together_are_there_together_or_not_at_all(tmp_path: Path) -> None:
    first, second = tmp_path / "new" / "a.txt", tmp_path / "b.txt"

    def full(draft: Path) -> None:
        draft.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{second}'")):
        write_together({first: "ä", second: full})
    assert list(tmp_path.iterdir()) == []
    assert write_together({first: "ä", second: lambda draft: draft.write_bytes(b"b")}) == [first, second]
    with pytest.raises(OSError, match="No space"):
        write_together({first: "new", second: full})
    assert tree(tmp_path) == {"new/a.txt": "ä", "b.txt": "b"}


def test_an_error_names_the_place_and_not_its_draft(tmp_path: Path) -> None:
    missing, place = tmp_path / "missing", tmp_path / "x.parquet"

    def named(fail: Callable[[Path], object]) -> str:
        with pytest.raises(OSError) as error, new_file(place) as draft:
            fail(draft)
        return str(error.value.filename)

    def in_words(draft: Path) -> None:
        raise pl.exceptions.ComputeError("parquet: underlying IO error (os error 28)")

    def below(draft: Path) -> None:
        draft.unlink()
        draft.mkdir()
        (draft / "no" / "such").write_text("x")

    assert named(in_words) == named(below) == str(place)
    assert named(lambda draft: missing.read_text()) == str(missing)  # that one is another's
    with pytest.raises(pl.exceptions.ComputeError, match="bug"), new_file(place):
        raise pl.exceptions.ComputeError("bug")


@pytest.mark.parametrize("ending", [OSError(28, "No space left on device"), Crash()], ids=["error", "kill"])
@pytest.mark.parametrize("name", ["model", "model.v1"])
def test_without_an_exchange_of_names_the_earlier_folder_is_never_lost(
    name: str, ending: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "exchange", lambda one, other: False)
    target, rename, tries = tmp_path / name, Path.rename, iter(range(9))
    for text in ("old", "new"):
        with new_folder(target) as draft:
            fill(draft, text)
        assert tree(tmp_path) == {f"{name}/sub/file.txt": text}

    def ends_at_the_last_step(self: Path, to: Path) -> Path:
        if to == target and ".tmp" in self.name and next(tries) == 1:
            raise ending
        return rename(self, to)

    with monkeypatch.context() as patch, pytest.raises(type(ending)), new_folder(target) as draft:
        patch.setattr(Path, "rename", ends_at_the_last_step)
        fill(draft, "newer")
    if isinstance(ending, Crash):  # a killed process gives nothing back: the next one does
        assert not target.exists()
        drafts.sweep(target)
        drafts.recover(target)
    assert tree(tmp_path) == {f"{name}/sub/file.txt": "new"}


@contextmanager
def living(draft: Path) -> Iterator[None]:
    """Hold a draft as the process does that fills it."""
    descriptor = os.open(draft, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


@pytest.mark.parametrize("name", ["m", "m(+.v1", "m.parquet"])
def test_only_what_dead_processes_left_of_this_place_is_swept(name: str, tmp_path: Path) -> None:
    path, others = tmp_path / name, [tmp_path / ".m.00000000.tmp.csv", tmp_path / ".mm.00000000.tmp"]
    stem, ending = path.stem, path.suffix
    draft, old = (tmp_path / f".{stem}.00000000.{kind}{ending}" for kind in ("tmp", "old"))
    for folder in (draft, old, *others):
        fill_new(folder)
    with living(draft):
        drafts.sweep(path)
        drafts.recover(path)
        assert draft.exists() and old.exists() and not path.exists()
        fill_new(path)
        drafts.sweep(path)
        assert draft.exists() and old.exists()
    drafts.recover(path)
    assert old.exists()  # the place is taken
    drafts.sweep(path)
    assert set(tmp_path.iterdir()) == {path, *others}


def fill_new(folder: Path) -> None:
    folder.mkdir()
    fill(folder, folder.name)


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    fill_new(tmp_path / "there")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    drafts.remove(tmp_path / "link")
    assert tree(tmp_path) == {"there/sub/file.txt": "there"} and not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["a" + "é" * 120 + ".csv", "a." + "é" * 120, "é" * 127])
def test_a_place_may_have_the_longest_name(name: str, tmp_path: Path) -> None:
    with new_file(tmp_path / name) as draft:
        draft.write_text("it")
    assert tree(tmp_path) == {name: "it"}


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EIO, None])
def test_where_names_cannot_be_exchanged_it_is_said(
    code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = SimpleNamespace() if code is None else SimpleNamespace(renameat2=lambda *_: -1)
    known = SimpleNamespace(CDLL=lambda *_, **__: system, get_errno=lambda: code)
    monkeypatch.setattr(drafts, "ctypes", known)
    if code == errno.EIO:  # nothing that another way could help against
        with pytest.raises(OSError, match="Input/output"):
            drafts.exchange(tmp_path / "a", tmp_path / "b")
    else:
        assert not drafts.exchange(tmp_path / "a", tmp_path / "b")


def test_two_drafts_of_one_place_do_not_meet(tmp_path: Path) -> None:
    with new_file(tmp_path / "a") as first, new_file(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert tree(tmp_path) == {"a": "first"}  # the one that is finished last


def test_what_the_system_says_through_a_library_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, new_file(tmp_path / "a"):
        raise pl.exceptions.ComputeError("cannot write: it is full (os error 28)")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(pl.exceptions.ComputeError), new_file(tmp_path / "a"):
        raise pl.exceptions.ComputeError("of another kind")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_a_draft_at_work_is_not_swept(new: Any, tmp_path: Path) -> None:
    with new(tmp_path / "a") as draft:
        drafts.sweep(tmp_path / "a")
        assert draft.exists()


def test_a_folder_of_others_is_not_touched(tmp_path: Path) -> None:
    marker = tmp_path / "manifest.json"
    check_folder(tmp_path, marker="manifest.json")
    for content in ('{"name": "a web page"}', '["fingerprint"]', "{", '"fingerprint"'):
        marker.write_text(content)
        assert not is_ours(tmp_path, "manifest.json")
        with pytest.raises(ConfigError, match="holds files but no manifest"):
            check_folder(tmp_path, marker="manifest.json", overwrite=True)
    marker.write_text('{"fingerprint": "0"}')
    check_folder(tmp_path, marker="manifest.json", overwrite=True)
    with pytest.raises(ConfigError, match="already holds files"):
        check_folder(tmp_path, marker="manifest.json")
    assert is_ours(tmp_path, "manifest.json") and not is_ours(tmp_path, "study.journal")


def test_a_folder_with_nothing_but_traces_of_a_killed_process_is_empty(tmp_path: Path) -> None:
    for name in (".lock", ".study.journal.lock", ".compare.0123abcd.tmp.json", ".m.0123abcd.new"):
        (tmp_path / name).touch()
    check_folder(tmp_path, marker="compare.json")
    for name in (".git", "lock", "tmp", ".notes.tmp"):
        (tmp_path / name).touch()
        with pytest.raises(ConfigError, match="already holds files"):
            check_folder(tmp_path, marker="compare.json")
        with pytest.raises(ConfigError, match=r"holds files but no compare\.json"):
            check_folder(tmp_path, marker="compare.json", overwrite=True)
        (tmp_path / name).unlink()


def test_a_lock_keeps_other_processes_out_while_it_is_held(tmp_path: Path) -> None:
    file = tmp_path / "new" / ".lock"
    code = (
        "import sys; from pathlib import Path; from greysheep.system.files import locked\n"
        f"with locked(Path({str(file)!r}), 'taken'): print('held')"
    )

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    with locked(file, "taken"):
        assert "ConfigError: taken" in other().stderr
        with pytest.raises(ConfigError, match="taken"), locked(file, "taken"):
            pass
    assert other().stdout == "held\n"
    with pytest.raises(Crash), locked(file, "taken"):
        raise Crash
    with locked(file, "taken"):
        pass
    with pytest.raises(ConfigError, match="cannot be written"), locked(file / "below", "taken"):
        pass


def test_a_path_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("taken")
    place = tmp_path / "file" / "page.html"
    with pytest.raises(ConfigError, match=re.escape(f"{place} cannot be written: ")):
        write_text(place, "a page")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_table(pl.DataFrame({"user_id": [1]}), tmp_path / "file" / "lists.csv")
    assert (tmp_path / "file").read_text() == "taken"
