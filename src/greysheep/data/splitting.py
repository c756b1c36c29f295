"""Split the rows of a log into train, gate, validation and test parts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from greysheep.data.columns import ITEM, PART, USER
from greysheep.data.interactions import Interactions
from greysheep.data.own_groups import read_groups
from greysheep.data.protocols import GATE as GATE
from greysheep.data.protocols import OUTSIDE, Parts, Protocol, has_test_rows, rank_within
from greysheep.data.protocols import PROTOCOLS as PROTOCOLS
from greysheep.data.protocols import TEST as TEST
from greysheep.data.protocols import TRAIN as TRAIN
from greysheep.data.protocols import VALIDATION as VALIDATION
from greysheep.data.text import UNREADABLE
from greysheep.errors import ConfigError, DataError, first_line, warn
from greysheep.mainstream.groups import Mainstream, UserGroups
from greysheep.system.checks import a_path, one_of, seed_number
from greysheep.system.files import check_folder, new_folder, refused
from greysheep.system.forks import refuse_forked

PARTS = ("train", "gate", "validation", "test")
Stage = Literal["validation", "test", "serving"]
STAGES: tuple[Stage, ...] = ("validation", "test", "serving")


@dataclass(frozen=True, eq=False)
class Split:
    """A log and the part of each of its rows; U users, I items, n rows."""

    log: Interactions
    part: Parts
    """[n] TRAIN, GATE, VALIDATION or TEST, in the row order of the log."""
    protocol: str
    seed: int
    groups: UserGroups | None = None
    """Groups of one's own, by which models are stopped and measured in place of the mainstream ones."""

    def rows(self, *parts: str, weighted: bool = False) -> sp.csr_matrix:
        """The rows of the named parts as a [U, I] matrix."""
        wanted = [PARTS.index(one_of("part", part, PARTS)) for part in parts]
        return self.log.matrix(np.isin(self.part, wanted), weighted=weighted)

    @cached_property
    def mainstream(self) -> Mainstream:
        """Mainstream scores and groups of the users, by the train rows."""
        return Mainstream.fit(self.rows("train"), self.log.user_ids)

    @cached_property
    def serving_mainstream(self) -> Mainstream:
        """The same by every row."""
        return Mainstream.fit(self.rows(*PARTS), self.log.user_ids)

    @property
    def user_groups(self) -> UserGroups:
        """The groups that means are taken of: one's own, else those by mainstream taste."""
        return self.mainstream.user_groups if self.groups is None else self.groups

    def with_mainstream(self, known: Mainstream) -> Split:
        """The same split, which need not compute the scores any more."""
        split = replace(self)
        split.__dict__["mainstream"] = known
        return split

    def gate_rows(self) -> sp.csr_matrix:
        """[U, I] held-out rows that the gate and the adaptive weights read."""
        return self.rows("validation" if self.protocol == "paper" else "gate")

    def train_rows(self, *, gated: bool, weighted: bool = False) -> sp.csr_matrix:
        """[U, I] rows that parameters are trained on.

        A model that reads gate rows otherwise (`gated`) trains on train; any other model on train and gate:
        all models see the same rows. In `paper`, every model trains on train.
        """
        return self.rows("train", *(() if gated else ("gate",)), weighted=weighted)

    def input_rows(self, stage: Stage, weighted: bool = False) -> sp.csr_matrix:
        """[U, I] rows shown to the model at a stage; just these leave the candidates."""
        one_of("stage", stage, STAGES)
        if stage == "serving":
            return self.rows(*PARTS, weighted=weighted)
        if self.protocol == "paper":
            return self.rows("train", weighted=weighted)
        later = ("validation",) if stage == "test" else ()
        return self.rows("train", "gate", *later, weighted=weighted)

    def summary(self) -> pl.DataFrame:
        """One row per part: part, rows, users, items."""
        masks = [self.part == code for code in range(len(PARTS))]
        return pl.DataFrame(
            {
                PART: PARTS,
                "rows": [int(m.sum()) for m in masks],
                "users": [len(np.unique(self.log.users[m])) for m in masks],
                "items": [len(np.unique(self.log.items[m])) for m in masks],
            }
        )

    def write(self, directory: str | Path) -> list[Path]:
        """Write a folder with a parquet file for each part that has rows, and split.json; return their paths.

        An earlier split of that name is replaced.

        Raises:
            ConfigError: the folder holds something else, or cannot be written.
        """
        folder = a_path("directory", directory)
        check_folder(folder, marker="split.json", overwrite=True)
        with refused(folder), new_folder(folder) as draft:
            return [folder / file.name for file in self._fill(draft)]

    def _fill(self, folder: Path) -> list[Path]:
        frame = self.log.frame()
        written = []
        for code, name in enumerate(PARTS):
            file = folder / f"{name}.parquet"
            rows = frame.filter(pl.Series(self.part == code))
            if rows.height:
                rows.write_parquet(file)
                written.append(file)
        facts = {
            "format": 1,
            "protocol": self.protocol,
            "seed": self.seed,
            "rows": {name: int((self.part == code).sum()) for code, name in enumerate(PARTS)},
            "fingerprint": self.fingerprint(),
        }
        (folder / "split.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        return [*written, folder / "split.json"]

    @classmethod
    def read(cls, directory: str | Path) -> Split:
        """Read what `write` wrote.

        Raises:
            DataError: If a file is missing or its rows are not those that were written.
        """
        folder = a_path("directory", directory)
        facts = _read_facts(folder)
        files = []
        for code, name in enumerate(PARTS):
            if facts["rows"][name]:
                file = folder / f"{name}.parquet"
                if not file.is_file():
                    raise DataError(f"{folder} is not a whole split: {name}.parquet is missing")
                files.append((file, pl.lit(code, pl.Int8).alias(PART)))
        try:
            frame = pl.concat([pl.read_parquet(file, glob=False).with_columns(code) for file, code in files])
        except UNREADABLE as error:
            raise DataError(f"the parts in {folder} cannot be read: {first_line(error)}") from error
        log = Interactions.read(frame.drop(PART), missing_ids="keep")
        key = log.encode_users(frame[USER]) * log.n_items + log.encode_items(frame[ITEM])
        part = frame[PART].to_numpy()[np.argsort(key)]
        split = cls(log, part, str(facts["protocol"]), int(facts["seed"]))
        if len(part) != len(log) or split.fingerprint() != facts["fingerprint"]:
            raise DataError(f"the rows in {folder} are not those that were written with its split.json")
        return split

    def fingerprint(self) -> str:
        """SHA-256 of the log and of every row's part."""
        return hashlib.sha256(self.log.fingerprint().encode() + self.part.astype("i1").tobytes()).hexdigest()


def why_no_test_rows(split: Split) -> str:
    """Why a split has no test rows."""
    protocol = Protocol.parse(split.protocol)
    if not has_test_rows(split.protocol):
        return f"protocol {split.protocol!r} left no test rows: it keeps none back"
    if protocol.name == "global-time":
        return f"protocol {split.protocol!r} left no test rows: no user has rows before and after the cut"
    least = {"temporal": 4, "leave-last": (protocol.value or 0) + 1}.get(protocol.name, 3)
    most = int(np.bincount(split.log.users).max())
    who = "every user has one row" if most == 1 else f"no user has more than {most} rows"
    spare = f"only one with {least} is sure to spare one"
    return f"protocol {split.protocol!r} left no test rows: {who}, and {spare}"


def _read_facts(folder: Path) -> dict[str, Any]:
    refuse_forked()
    file = folder / "split.json"
    if not file.is_file():
        hint = f"greysheep split LOG -o {folder} writes one"
        raise DataError(f"{folder} is no split: it has no split.json ({hint})")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["format"] != 1 or set(facts["rows"]) != set(PARTS) or not any(facts["rows"].values()):
            raise ValueError("of another format")
        Protocol.parse(facts["protocol"])
        if not isinstance(facts["fingerprint"], str):
            raise ValueError("no split of this version")
        facts["seed"] = seed_number(facts["seed"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return dict(facts)


def split(log: Any, protocol: str = "strict", seed: int = 0, *, groups: Any = None) -> Split:
    """Deal the rows of a log into parts; the log is one, or anything `Interactions.read` takes.

    - `all`: 5 % of each user's rows to gate and 5 % to validation, at least one each where that leaves her at
      least half her rows in train; no test rows. A user with 2 or 3 rows has one of the two, by a coin.
    - `paper`: 10 % of all rows to validation, 20 % to test. A user left without a validation or test row gets
      one from her train rows, never the last. Where that can't be, and for a user left without a train row,
      it comes from her larger other part. So with 3 rows or more she has all three.
    - `strict`: the train and test rows of `paper`; each user's validation rows are dealt in turn to gate and
      validation, the first by a coin.
    - `temporal`: each user's rows in order of time to train, gate (5 %), validation (5 %) and test (20 %), at
      least one each; fewer than 4 rows: all train. Equal times are ordered by the seed.
    - `leave-last`: the latest row of each user with more than one to test; before it, as far as a row is left
      to train, validation and gate as in `temporal`. `leave-last[n=5]`: the latest five, of each user with
      more than five rows.
    - `global-time`: one cut for everybody, between two instants: rows after it, as close to 20 % as the times
      allow (`global-time[test=0.1]`: 10 %), to test, and by two more cuts the 5 % before them to validation
      and the 5 % before those to gate. A user's first row is always a train row; users who have no row before
      the cut are left out of the split, and a warning counts them.

    groups: a file or frame of user_id and group, by which models are stopped and measured in place of the
    five groups by mainstream taste (docs/audit.md); it does not change the parts.

    The result depends on the log's rows, the protocol and the seed, not on the row order of the source.

    >>> log = Interactions.read(pl.DataFrame({"user_id": [1] * 10, "item_id": range(10)}))
    >>> split(log, "strict").summary()["rows"].to_list()
    [7, 0, 1, 2]

    Raises:
        ConfigError: If there is no such protocol, or the seed is no whole number from 0 to 2**64 - 1.
        DataError: If the log cannot be used, or the protocol goes by time and the log has no times.
    """
    refuse_forked()
    chosen, seed = Protocol.parse(protocol), seed_number(seed)
    if isinstance(log, Split):
        raise DataError("split takes a log, not a split: the log behind one is its .log")
    log = Interactions.of(log)
    part = chosen.deal(log, seed)
    if len(kept := np.flatnonzero(part != OUTSIDE)) < len(log):
        whole, log, part = log, log.take(kept), part[kept]
        warn(
            f"protocol {str(chosen)!r} leaves out {whole.n_users - log.n_users} of {whole.n_users} users, "
            f"who have no row before the cut: {len(whole) - len(log)} rows",
            2,
        )
    return Split(log, part, str(chosen), seed, None if groups is None else read_groups(groups, log))


def unseen_gate_mask(
    users: NDArray[np.int64], item_ids: pl.Series, times: pl.Series | None
) -> NDArray[np.bool_]:
    """Which rows of a history log serve the gate, for users never seen in training.

    A user with m rows gives the latest ceil(m / 8), without times those whose item ids have the smallest
    hashes; none if m < 2. Equal times are ordered by the hash. Row order and process do not matter.

    Args:
        users: [n] any integer code of the row's user.
        item_ids: [n] ids of the items.
        times: [n] times, or None; a missing time counts as the earliest.

    Returns:
        [n] True for gate rows.
    """
    if not len(users):
        return np.zeros(0, dtype=bool)
    groups = np.unique(users, return_inverse=True)[1]
    counts = np.bincount(groups)
    unique = item_ids.unique()
    hashes = pl.DataFrame({"id": unique, "hash": [_hash(text) for text in unique.cast(pl.String)]})
    rows = pl.DataFrame({"id": item_ids}).join(hashes, on="id", how="left", maintain_order="left")
    order = rows["hash"].rank("dense").to_numpy().astype(np.int64)
    keys: tuple[NDArray[np.int64], ...] = (order,)
    if times is not None:
        keys = (-times.rank("dense").fill_null(0).to_numpy().astype(np.int64), order)
    quota = np.where(counts < 2, 0, -(-counts // 8))
    return rank_within(groups, *keys) < quota[groups]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
