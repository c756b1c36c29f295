"""Model folders that are made to harm, each with a valid seal: what a folder of a stranger may hold."""

from __future__ import annotations

import hashlib
import json
import os
import pickle  # nosec B403  # written here, never read
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

Change = Callable[[Path], None]
CANARY = "canary"
"""A file that appears in the working folder when code of a hostile folder runs."""
EVIL = f"open({CANARY!r}, 'w').close()\n"
DEEP = "[" * 200_000


def seal(folder: Path, **changes: Any) -> None:
    """Seal a folder anew, its manifest changed."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.update(changes)
    seal_text(folder, json.dumps(manifest))


def seal_text(folder: Path, text: str) -> None:
    """Write a manifest of any text, and its digest."""
    (folder / "manifest.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def manifest(**changes: Any) -> Change:
    """Other fields in the manifest."""
    return lambda folder: seal(folder, **changes)


def files(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Other files in the manifest."""

    def apply(folder: Path) -> None:
        named = json.loads((folder / "manifest.json").read_text())["files"]
        change(named)
        seal(folder, files=named)

    return apply


def about(**changes: Any) -> Change:
    """Other fields in config.json; None takes one away."""

    def apply(folder: Path) -> None:
        content = {**json.loads((folder / "config.json").read_text()), **changes}
        content = {key: value for key, value in content.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(content))
        (folder / "evil.py").write_text(EVIL)
        seal(folder)

    return apply


def config(**changes: Any) -> Change:
    """Other settings of the model."""

    def apply(folder: Path) -> None:
        own = json.loads((folder / "config.json").read_text())["config"]
        about(config={**own, **changes})(folder)

    return apply


def raw(name: str, data: bytes | str) -> Change:
    """Other bytes in a file."""

    def apply(folder: Path) -> None:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        seal(folder)

    return apply


def table(name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Change:
    """Another table."""

    def apply(folder: Path) -> None:
        change(pl.read_parquet(folder / name)).write_parquet(folder / name)
        seal(folder)

    return apply


def tensors(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Other tensors."""

    def apply(folder: Path) -> None:
        arrays = load_file(folder / "model.safetensors")
        change(arrays)
        save_file(arrays, folder / "model.safetensors")
        seal(folder)

    return apply


def header(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Another header before the same tensors."""

    def apply(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        facts = json.loads(data[8 : 8 + size])
        change(facts[next(iter(sorted(facts)))])
        text = json.dumps(facts).encode()
        whole = len(text).to_bytes(8, "little") + text + data[8 + size :]
        raw("model.safetensors", whole)(folder)

    return apply


def bomb(name: str, millions: int) -> Change:
    """A table of a few kilobytes whose rows, all alike, take gigabytes."""

    def apply(folder: Path) -> None:
        one = pl.read_parquet(folder / name).head(1).to_arrow()
        part = pa.concat_tables([one] * 1000).combine_chunks()
        part = pa.concat_tables([part] * 1000).combine_chunks()
        with pq.ParquetWriter(folder / name, one.schema, compression="zstd") as writer:
            for _ in range(millions):
                writer.write_table(part, row_group_size=len(part))
        seal(folder)

    return apply


def put(name: str, make: Callable[[Path], Any]) -> Change:
    """Something else in the place of a file whose seal is left as it is."""

    def apply(folder: Path) -> None:
        (folder / name).rename(folder.with_name(f"{folder.name}-moved"))
        make(folder / name)

    return apply


def extra(folder: Path) -> None:
    """One more file, which the seal names."""
    (folder / "evil.py").write_text(EVIL)
    facts = {"bytes": len(EVIL), "sha256": hashlib.sha256(EVIL.encode()).hexdigest()}
    files(lambda named: named.update({"evil.py": facts}))(folder)


def moved(place: Path) -> Path:
    """Where `put` has laid the true file."""
    return place.parent.with_name(f"{place.parent.name}-moved").absolute()


def scaled(arrays: dict[str, Any], name: str, make: Callable[[Any], Any]) -> None:
    """Change one array."""
    arrays[name] = make(arrays[name])


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, (EVIL,)


GATE = "gate"
W = "bank.encoder_weight"
W32, T, U, ITEMS, R = (
    "model.safetensors",
    "config.json",
    "users.parquet",
    "items.parquet",
    "interactions.parquet",
)


def gates(change: Callable[[Any], Any]) -> Change:
    """Other gates of all users."""
    return table(U, lambda t: t.with_columns(pl.Series(GATE, change(t[GATE].to_numpy()))))


def spoilt(values: Any, value: float) -> Any:
    """A copy whose first value is another."""
    values = values.copy()
    values.flat[0] = value
    return values


CASES: dict[str, tuple[str, Change]] = {
    # config.json
    "class os:system": ("tall", about(model="evil", **{"class": "os:system"})),
    "class evil:Model": ("tall", about(model="evil", **{"class": "evil:Model"})),
    "model is a number": ("tall", about(model=7)),
    "no model": ("tall", about(model=None)),
    "model is a path": ("tall", about(model="../../evil.py")),
    "label is a list": ("tall", about(label=["a"])),
    "config is a list": ("tall", about(config=[1])),
    "n_experts = 10**9": ("tall", config(n_experts=10**9)),
    "latent = 10**9": ("tall", config(latent=10**9)),
    "n_experts = -1": ("tall", config(n_experts=-1)),
    "a setting nobody knows": ("tall", config(evil=1)),
    "a preset": ("tall", config(preset="evil")),
    "a device among the options": (
        "tall",
        about(options={"seed": 0, "precision": "float32", "device": "cuda"}),
    ),
    "seed = -1": ("tall", about(options={"seed": -1, "precision": "float32"})),
    "seed = 2**70": ("tall", about(options={"seed": 2**70, "precision": "float32"})),
    "precision float16": ("tall", about(options={"seed": 0, "precision": "float16"})),
    "config of another model": ("tall", about(model="ease", config={"regularization": 10.0})),
    "deep JSON": ("tall", raw(T, DEEP)),
    "8 MB of JSON": ("tall", raw(T, json.dumps({"a": "b" * (8 << 20)}))),
    "no UTF-8": ("tall", raw(T, b"\xff\xfe\x00")),
    "NaN in JSON": ("tall", raw(T, '{"model": NaN}')),
    "an integer of 5,000 digits": ("tall", raw(T, '{"model": ' + "9" * 5000 + "}")),
    "settings of another size": ("ials", config(factors=10**9)),
    "steps = 10**9": ("lft", config(steps=10**9)),
    "members that are not there": ("ensemble", config(members=["evil", "ease"])),
    # manifest.json
    "has_history is a text": ("tall", manifest(has_history="yes")),
    "unknown protocol": ("tall", manifest(protocol="evil")),
    "negative epochs": ("tall", manifest(epochs=-1)),
    "format 99": ("tall", manifest(format=99)),
    "best epoch 10**9": ("tall", manifest(best_epoch=10**9)),
    "no fingerprint": ("tall", manifest(fingerprint=None)),
    "ids of another type": ("tall", manifest(user_id="Int64")),
    "files is a list": ("tall", lambda f: seal(f, files=["a"])),
    "a path upwards": ("tall", files(lambda n: n.update({"../evil.py": {"bytes": 0, "sha256": ""}}))),
    "an absolute path": ("tall", files(lambda n: n.update({"/etc/passwd": {"bytes": 0, "sha256": ""}}))),
    "a file left out": ("tall", files(lambda n: n.pop(U))),
    "one more file": ("tall", extra),
    "deep manifest": ("tall", lambda f: seal_text(f, DEEP)),
    # model.safetensors
    "NaN weights": ("tall", tensors(lambda a: scaled(a, W, lambda w: spoilt(w, np.nan)))),
    "infinite weights": ("ease", tensors(lambda a: scaled(a, "weights", lambda w: spoilt(w, np.inf)))),
    "float64 weights": ("tall", tensors(lambda a: scaled(a, W, lambda w: w.astype(np.float64)))),
    "integer weights": ("ease", tensors(lambda a: scaled(a, "weights", lambda w: w.astype(np.int64)))),
    "another shape": ("tall", tensors(lambda a: scaled(a, W, lambda w: w.transpose(0, 2, 1).copy()))),
    "fewer items": ("ials", tensors(lambda a: scaled(a, "item_factors", lambda w: w[:, 1:].copy()))),
    "a tensor missing": ("tall", tensors(lambda a: a.pop(W))),
    "a tensor too many": ("tall", tensors(lambda a: a.update(evil=np.zeros(3, np.float32)))),
    "curve too long": ("lft", tensors(lambda a: scaled(a, "curve", lambda w: np.zeros(10**6)))),
    "negative widths": ("ensemble", tensors(lambda a: scaled(a, "state_widths", lambda w: -w))),
    "weights of sum 9": ("ensemble", tensors(lambda a: scaled(a, "weights", lambda w: w * 9))),
    "shape 10**9 x 10**9": ("tall", header(lambda t: t.update(shape=[10**9, 10**9]))),
    "negative shape": ("tall", header(lambda t: t.update(shape=[-1, -1]))),
    "overlapping tensors": ("tall", header(lambda t: t.update(data_offsets=[8, 8 + t["data_offsets"][1]]))),
    "offsets beyond the file": ("tall", header(lambda t: t.update(data_offsets=[0, 10**15]))),
    "an unknown type": ("tall", header(lambda t: t.update(dtype="F8_E5M2"))),
    "a header of 2**63 bytes": ("tall", raw(W32, (2**63).to_bytes(8, "little") + b"{}")),
    "a pickle": ("tall", raw(W32, pickle.dumps(Evil()))),
    "no bytes at all": ("tall", raw(W32, b"")),
    # tables
    "a user twice": ("tall", table(U, lambda t: pl.concat([t[:1], t[:-1]]))),
    "items not sorted": ("ease", table(ITEMS, lambda t: t.reverse())),
    "ids missing": ("ease", table(U, lambda t: t.with_columns(pl.lit(None, pl.String).alias("user_id")))),
    "ids are fractions": ("ease", table(U, lambda t: t.select(user_id=pl.int_range(pl.len()) / 2))),
    "no users": ("ease", table(U, lambda t: t.head(0))),
    "negative counts": ("ease", table(ITEMS, lambda t: t.with_columns(n_rows=-pl.col("n_rows")))),
    "other counts": ("ease", table(ITEMS, lambda t: t.with_columns(n_rows=pl.col("n_rows") + 1))),
    "trained is a number": ("ease", table(ITEMS, lambda t: t.with_columns(trained=pl.lit(1)))),
    "NaN gates": ("tall", gates(lambda g: spoilt(g, np.nan))),
    "negative gates": ("tall", gates(lambda g: np.concatenate([-g[:, :1], 1 - g[:, 1:2], 2 * g[:, :1]], 1))),
    "gates of sum 2": ("tall", gates(lambda g: 2 * g)),
    "gates of more experts": ("tall", gates(lambda g: np.concatenate([g, 0 * g], 1))),
    "no gates": ("tall", table(U, lambda t: t.drop(GATE))),
    "rows not sorted": ("ease", table(R, lambda t: t.reverse())),
    "rows twice": ("ease", table(R, lambda t: pl.concat([t, t]).sort("user_id", "item_id"))),
    "a part nobody knows": ("ease", table(R, lambda t: t.with_columns(part=pl.lit("evil")))),
    "rows of strangers": ("ease", table(R, lambda t: t.with_columns(user_id=pl.lit("evil")))),
    "infinite weights of rows": ("ease", table(R, lambda t: t.with_columns(weight=pl.lit(np.inf)))),
    "a bomb of users": ("tall", bomb(U, 60)),
    "a bomb of items": ("ease", bomb(ITEMS, 200)),
    "a bomb of rows": ("ease", bomb(R, 60)),
    "CSV for parquet": ("ease", raw(ITEMS, "item_id,n_rows\n1,2\n")),
    "half a table": ("ease", lambda f: raw(ITEMS, (f / ITEMS).read_bytes()[:-40])(f)),
    # what is no JSON line, no file
    "deep log": ("tall", raw("training.jsonl", DEEP)),
    "a log of numbers": ("tall", raw("training.jsonl", "1\n2\n")),
    "a pipe": ("tall", put(W32, os.mkfifo)),
    "a pipe for the seal": ("tall", put("manifest.sha256", os.mkfifo)),
    "a pipe for the manifest": ("tall", put("manifest.json", os.mkfifo)),
    "a device": ("tall", put(W32, lambda p: p.symlink_to("/dev/zero"))),
    "a link out": ("tall", put(U, lambda p: p.symlink_to(moved(p)))),
    "a folder for a file": ("tall", put(T, Path.mkdir)),
    "a file missing": ("tall", put(ITEMS, lambda p: None)),
}


def make(case: str, good: Path, place: Path) -> Path:
    """A hostile copy of a model's folder in `good`."""
    model, change = CASES[case]
    shutil.copytree(good / model, place)
    change(place)
    return place
