"""The seal of a folder: SHA-256 of every file in its manifest, that of the manifest in a file beside it.

It finds damage and names the file. It is no signature: who may write the folder can seal it anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from greysheep.errors import SealError
from greysheep.system.files import new_file

MANIFEST, DIGEST = "manifest.json", "manifest.sha256"
MOST_BYTES = 1 << 22
"""Of a JSON file that is read whole; the largest of greysheep's own has some thousands."""


def write_seal(folder: Path, about: Mapping[str, Any], prefix: str = "") -> None:
    """Write `about` and the digests of all files of a flat folder as its manifest; all is on disk after.

    `sha256sum --check manifest.sha256` accepts the digest of the manifest.

    prefix: of the two names; `_` where the folder is a table in parts, whose readers pass such files over.
    """
    manifest, digest = prefix + MANIFEST, prefix + DIGEST
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    paths = [path for path in visible if path.name not in (manifest, digest)]
    with ThreadPoolExecutor(1) as pool:
        on_disk = [pool.submit(sync, path) for path in paths]  # the disk works while digests are made
        files = {path.name: {"bytes": path.stat().st_size, "sha256": digest_of(path)} for path in paths}
        for written in on_disk:
            written.result()
    data = (json.dumps({**about, "files": files}, indent=1, allow_nan=False) + "\n").encode()
    (folder / digest).write_bytes(_digest_line(hashlib.sha256(data).hexdigest(), manifest))
    sync(folder / digest)
    with new_file(folder / manifest) as draft:  # last and whole: a folder that has a manifest is sealed
        draft.write_bytes(data)
        sync(draft)
    sync(folder)


def check_seal(folder: Path, prefix: str = "") -> dict[str, Any]:
    """The manifest of a sealed folder, all of whose files are as they were written.

    Raises:
        SealError: a file is missing, is no regular file in the folder, or has changed; the message names it.
    """
    manifest = read_manifest(folder, prefix)
    check_contents(folder, manifest)
    return manifest


def read_manifest(folder: Path, prefix: str = "") -> dict[str, Any]:
    """The manifest of a sealed folder, itself unchanged; its files are there, of their sizes, not yet read.

    Files that it does not name are no part of the folder: they are neither looked at nor refused.

    Raises:
        SealError: a file is missing, is no regular file in the folder, or has another size.
    """
    own, digest = prefix + MANIFEST, prefix + DIGEST
    data = read_whole(folder, own)
    manifest = parse_json(folder, own, data)
    if read_whole(folder, digest) != _digest_line(hashlib.sha256(data).hexdigest(), own):
        refuse(folder, own, f"has changed since it was written, or {digest} beside it has")
    files = manifest.get("files")
    if not isinstance(files, dict):
        refuse(folder, own, "holds no digests of the files")
    for name, facts in files.items():
        if Path(name).name != name or name in (own, digest) or not isinstance(facts, dict):
            refuse(folder, own, f"names {name!r}, which is no file of a sealed folder")
        with open_inside(folder, name) as file:
            size = os.fstat(file.fileno()).st_size
        if size != facts.get("bytes"):
            refuse(folder, name, f"has {size} bytes, not {facts.get('bytes')} as when it was written")
    return manifest


def check_contents(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare every file with its digest in a manifest that `read_manifest` gave.

    Raises:
        SealError: a file has changed; the message names it.
    """
    for name, facts in manifest["files"].items():
        with open_inside(folder, name) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts.get("sha256"):
                refuse(folder, name, "has changed since it was written: its SHA-256 is another")


def open_inside(folder: Path, name: str) -> BufferedReader:
    """Open a regular file that lies in the folder itself; a link, a pipe or a device is never opened.

    Raises:
        SealError: it is something else, or missing, or not readable.
    """
    try:
        # a link is not followed, and opening a pipe that nobody writes to does not wait
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        if (folder / name).is_symlink():
            refuse(folder, name, "is a link: only regular files in the folder itself are read")
        refuse(folder, name, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        refuse(folder, name, "is no regular file: a folder, a pipe or a device is not read")
    return os.fdopen(descriptor, "rb")


def read_whole(folder: Path, name: str) -> bytes:
    """The bytes of a small file of the folder.

    Raises:
        SealError: it cannot be read, or has more than MOST_BYTES.
    """
    with open_inside(folder, name) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        refuse(folder, name, f"has more than {MOST_BYTES:,} bytes, which no file of its kind has")
    return data


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A small JSON file of the folder, which holds one object.

    Raises:
        SealError: it cannot be read, or is something else.
    """
    return parse_json(folder, name, read_whole(folder, name))


def parse_json(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    """One JSON object, read from the file `name` of the folder; NaN and infinity, no JSON, are refused.

    Raises:
        SealError: it is something else; the message names the file.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        refuse(folder, name, f"is no JSON: {error}")
    if not isinstance(value, dict):
        refuse(folder, name, f"holds a {type(value).__name__}, not a JSON object")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def refuse(folder: Path, name: str, why: str) -> NoReturn:
    """Raise a SealError that names a file of the folder."""
    raise SealError(f"{folder / name} {why}")


def _digest_line(digest: str, name: str) -> bytes:
    return f"{digest}  {name}\n".encode("ascii")


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
