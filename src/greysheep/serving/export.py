"""A vector a user and an item, for any vector index: the inner product is her score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.columns import ITEM, USER
from greysheep.errors import ConfigError, DataError
from greysheep.metrics.ranking import top_n
from greysheep.models.lists import mask
from greysheep.models.recommender import Recommender, in_pieces, torch_threads
from greysheep.system.checks import a_path, one_of, seed_number, whole_number
from greysheep.system.files import check_folder, new_folder, refused
from greysheep.system.seal import MANIFEST, write_seal

RANK = 128
"""Length of the vectors unless asked for otherwise."""
PASSES, SPARE = 3, 16
"""Of the subspace iteration: passes over all users, and directions beyond the rank."""
VECTOR = "vector"
FORMATS = ("parquet", "npy")
SAMPLE, LIST = 256, 20
"""Users whose lists are compared, and how long these are."""


@dataclass(frozen=True)
class Vectors:
    """Vectors of the known users and of the items that can be recommended."""

    user_ids: pl.Series
    item_ids: pl.Series
    users: NDArray[np.float32]
    """[U, r]"""
    items: NDArray[np.float32]
    """[J, r]"""
    agreement: float
    """Of the items in users' 20 best by the model, the share that is in the 20 best by inner product."""

    @property
    def rank(self) -> int:
        """Length r of the vectors."""
        return int(self.items.shape[1])

    def write(self, directory: str | Path, *, format: str = "parquet", overwrite: bool = False) -> Path:
        """Write users.parquet and items.parquet: an id and a vector a row; sealed by a manifest.

        format: "npy": vectors stand in users.npy and items.npy, row by row as the ids in the two tables.

        Raises:
            ConfigError: the folder holds something else, or cannot be written.
        """
        one_of("format", format, FORMATS)
        folder = a_path("directory", directory)
        check_folder(folder, marker=MANIFEST, overwrite=overwrite)
        with refused(folder), new_folder(folder) as draft:
            for name, column, ids, vectors in (
                ("users", USER, self.user_ids, self.users),
                ("items", ITEM, self.item_ids, self.items),
            ):
                frame = pl.DataFrame({column: ids})
                if format == "npy":
                    np.save(draft / f"{name}.npy", vectors, allow_pickle=False)
                else:
                    width = pl.Array(pl.Float32, self.rank)
                    frame = frame.with_columns(pl.Series(VECTOR, vectors, dtype=width))
                frame.write_parquet(draft / f"{name}.parquet")
            about = {"rank": self.rank, "metric": "inner product", "agreement": self.agreement}
            write_seal(draft, {**about, "fingerprint": f"vectors of {len(self.users)} users"})
        return folder


def vectors_of(model: Recommender, *, rank: int = RANK, seed: int = 0) -> Vectors:
    """The vectors of length `rank` whose inner products are nearest to a fitted model's scores.

    They are the first singular vectors of all users' scores on all their rows, which every model has: a
    matrix factorisation loses nothing at its own rank, others lose what `agreement` says. Vectors know users'
    rows as they are now: export again after `update` or a fit.

    Found by randomised subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4),
    some users at a time.

    Raises:
        ConfigError: the rank is no whole number from 1 up.
        DataError: the model was saved without its rows.

    >>> import greysheep as gs
    >>> log = gs.simulate(n_users=60, n_items=40, seed=0).log
    >>> vectors = gs.vectors_of(gs.IALS(factors=8, progress=False).fit(log), rank=8)
    >>> vectors.users.shape, vectors.items.shape, vectors.agreement > 0.99
    ((60, 8), (40, 8), True)
    """
    rank, seed = whole_number("rank", rank), seed_number(seed)
    log = model.log
    if not model.has_history:
        raise DataError(f"this {model.name} was saved without its rows: users' vectors are made from them")
    items = np.flatnonzero(model.trained_items)
    if not len(items):
        raise ConfigError(f"this {model.name} has learned no item: there is nothing to export")
    rank = min(rank, log.n_users, len(items))
    width = min(rank + SPARE, log.n_users, len(items))
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(items), width)))[0]
    with torch_threads(model.options.threads):
        for _ in range(PASSES):
            gathered = np.zeros((len(items), width))
            for _, scores in _scores(model, items):
                gathered += scores.T @ (scores @ basis)
            basis = np.linalg.qr(gathered)[0]
        image = np.concatenate([scores @ basis for _, scores in _scores(model, items)])
    left, values, right = np.linalg.svd(image, full_matrices=False)
    users = (left[:, :rank] * values[:rank]).astype(np.float32)
    mine = np.ascontiguousarray((basis @ right[:rank].T).astype(np.float32))
    agreement = _agreement(model, items, users, mine, seed)
    return Vectors(log.user_ids, log.decode_items(items), users, mine, agreement)


def _scores(
    model: Recommender, items: NDArray[np.int64], users: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Scores [B, J] of users for these items, some users at a time, by all their rows."""
    everybody = np.arange(model.log.n_users) if users is None else users
    for chunk in in_pieces(everybody, model.log.n_items):
        yield chunk, model.serving_scores(chunk)[:, items].astype(np.float64)


def _agreement(
    model: Recommender,
    items: NDArray[np.int64],
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    seed: int,
) -> float:
    """Share of some users' best unseen items that the vectors find, too."""
    generator = np.random.default_rng([seed, 1])
    n_users = model.log.n_users
    some = np.sort(generator.choice(n_users, min(SAMPLE, n_users), replace=False))
    same, asked = 0, 0
    for chunk, scores in _scores(model, items, some):
        seen = model.rows[chunk][:, items]
        nearest = (user_vectors[chunk] @ item_vectors.T).astype(np.float64)
        for own in (scores, nearest):
            mask(own, seen)
        for wanted, found in zip(top_n(scores, LIST), top_n(nearest, LIST), strict=True):
            same += len(np.intersect1d(wanted[wanted >= 0], found))
            asked += int((wanted >= 0).sum())
    return same / asked if asked else 1.0
