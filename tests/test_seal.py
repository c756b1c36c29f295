"""A sealed folder: whatever changes in it is found, and the file named; nothing but regular files is read."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greysheep.errors import SealError
from greysheep.system.seal import (
    DIGEST,
    MANIFEST,
    MOST_BYTES,
    check_seal,
    read_json,
    read_manifest,
    write_seal,
)

FILES = {"weights.bin": b"\x00\x01\x02" * 50, "log.jsonl": b'{"epoch": 1}\n', "empty.txt": b""}


def sealed(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    write_seal(folder, {"format": 1, "fingerprint": "abc"})
    return folder


def test_a_sealed_folder_is_accepted_and_its_digest_is_sha256sums(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "it")
    manifest = check_seal(folder)
    assert manifest["format"] == 1 and set(manifest["files"]) == set(FILES)
    subprocess.run(["sha256sum", "--check", "--quiet", "manifest.sha256"], cwd=folder, check=True)
    (folder / "notes.txt").write_text("a file of somebody else's")
    assert check_seal(folder) == manifest
    write_seal(folder, {"format": 2})  # sealing anew takes in what lies there now
    assert set(check_seal(folder)["files"]) == {*FILES, "notes.txt"}


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed(tmp_path_factory.mktemp("flips") / "it")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_changed_bit_and_every_cut_is_found_and_the_file_named(
    data: st.DataObject, one_folder: Path
) -> None:
    folder = one_folder
    file = data.draw(st.sampled_from(sorted(path for path in folder.iterdir() if path.stat().st_size)))
    before = file.read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    for after in (bytes(changed), before[:place], before + b"\0"):
        file.write_bytes(after)
        with pytest.raises(SealError, match=file.name) as caught:
            check_seal(folder)
        assert "\n" not in str(caught.value)
    file.write_bytes(before)
    check_seal(folder)


@pytest.mark.parametrize("name", [MANIFEST, DIGEST])
def test_where_the_seal_cannot_be_written_there_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a")
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if Path(name).stem in self.name and self.suffix == Path(name).suffix:
            write(self, data[:5])
            raise OSError(28, "No space left on device")
        return write(self, data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_bytes", full)
        write_seal(tmp_path, {})
    assert not (tmp_path / MANIFEST).exists() and not list(tmp_path.glob(".*"))
    write_seal(tmp_path, {})
    assert list(check_seal(tmp_path)["files"]) == ["a.txt"]


def test_sizes_are_checked_without_reading_the_files(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "it")
    (folder / "weights.bin").write_bytes(b"\xff" * 150)
    read_manifest(folder)
    (folder / "weights.bin").write_bytes(b"\xff" * 151)
    with pytest.raises(SealError, match=r"weights\.bin has 151 bytes, not 150"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "weights.bin"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link", "link to nowhere", "device"])
def test_only_regular_files_of_the_folder_itself_are_read(tmp_path: Path, name: str, kind: str) -> None:
    folder = sealed(tmp_path / "it")
    file, elsewhere = folder / name, tmp_path / "elsewhere"
    file.rename(elsewhere)
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)  # reading it would wait for ever
    elif kind == "link":
        file.symlink_to(elsewhere)
    elif kind == "link to nowhere":
        file.symlink_to(tmp_path / "nowhere")
    elif kind == "device":
        file.symlink_to("/dev/zero")
    what = "no regular file" if kind in ("folder", "pipe") else "a link" if "link" in kind else ""
    with pytest.raises(SealError, match=f"{name} .*{what}"):
        check_seal(folder)
    held = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SealError):
        check_seal(folder)
    assert len(os.listdir("/proc/self/fd")) == held  # what was opened is closed


def test_a_small_file_has_at_most_so_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b" " * (MOST_BYTES - 2) + b"{}")
    assert read_json(tmp_path, "a.json") == {}
    (tmp_path / "a.json").write_bytes(b" " * (MOST_BYTES - 1) + b"{}")
    with pytest.raises(SealError, match="more than"):
        read_json(tmp_path, "a.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"), ("[1]", "holds a list"), ('{"a": NaN}', "NaN"), ('{"a": -Infinity}', "Infinity"),
        ("[" * 100_000, "no JSON"), ('{"a": ' + "9" * 5000 + "}", "no JSON"), ("\x00", "no JSON"),
        (" " * (1 << 22) + "{}", "more than"),
    ],
    ids=range(8),
)  # fmt: skip
def test_json_of_a_folder_is_one_object_of_proper_numbers(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SealError, match=rf"config\.json.*{says}"):
        read_json(tmp_path, "config.json")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(SealError, match="no JSON"):
        read_json(tmp_path, "config.json")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "..", "", "a/b", "manifest.json", "nul\0", "\ud800"]
)
def test_a_manifest_names_files_of_its_folder_only(tmp_path: Path, name: str) -> None:
    folder = sealed(tmp_path / "it")
    (tmp_path / "secret").write_text("x")
    text = json.dumps({"files": {name: {"bytes": 1, "sha256": ""}}})
    (folder / "manifest.json").write_text(text)
    line = subprocess.run(["sha256sum", "manifest.json"], cwd=folder, capture_output=True, check=True).stdout
    (folder / "manifest.sha256").write_bytes(line)
    with pytest.raises(SealError):
        check_seal(folder)
