"""A mixture of experts compiled into one vector per user and one per item.

With f_u = [g_1 z_1, ..., g_K z_K, g_1, ..., g_K] and H = [W_1; ...; W_K; b_1; ...; b_K] a mixture's scores
are s_u = f_u H, K (D + 1) multiplications per item. The scores of all users, F H, are nearly of low rank:
with V its first r right singular vectors, s_u is nearly (f_u H V) V^T. So an item's vector is its row of V, a
user's is f_u P with P = H V, computed from her rows alone, whether she was seen in training or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.columns import GROUP, ITEM, USER
from greysheep.data.ids import positions_in
from greysheep.data.splitting import STAGES, Stage
from greysheep.errors import ConfigError, DataError
from greysheep.mainstream.groups import GROUPS
from greysheep.metrics.ranking import hits, per_user
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.contributions import Contributions
from greysheep.models.recommender import Recommender
from greysheep.nn.sparse_rows import SparseRows
from greysheep.system.checks import a_path, number, one_of, seed_number, whole_number
from greysheep.system.files import new_folder, refused

RANKS = (16, 32, 64, 128, 256, 512)
"""Ranks to try, smallest first."""
PASSES = 3
"""Over all users, to find the singular vectors: few are enough, as the scores' spectrum falls quickly."""
SPARE = 16
"""Directions beyond the largest rank, which make the last ones exact."""
ROWS = 512
VECTOR = "vector"
INDEX_FILES = ("users.parquet", "items.parquet")


class Index(Recommender):
    """A compiled mixture: recommends like the model it was made from, at r multiplications per item.

    item_vectors: [I, r]. user_vectors: [U, r], of every stored row. projection: [K (D + 1), r], P.
    quality: validation NDCG@20 by group: group, full, compiled, loss (relative; null where NDCG is 0).
    """

    name = "index"
    binary = True

    def __init__(self, model: MixtureModel, projection: NDArray[Any], item_vectors: NDArray[Any]):
        self.model = model
        """Needed for users not stored: its encoders, and the decoders that a loss-driven gate reads."""
        self.projection, self.item_vectors = projection, item_vectors
        self.label, self.options, self.fitted = f"{model.label} (compiled)", model.options, model.fitted
        self.quality = pl.DataFrame()

    @property
    def length(self) -> int:
        """Length r of the vectors."""
        return int(self.item_vectors.shape[1])

    @property
    def user_vectors(self) -> NDArray[Any]:
        """[U, r] one vector per known user, of every stored row: her `user_state`."""
        assert self.user_state is not None
        return self.user_state

    def vectors(self, users: NDArray[Any], stage: Stage = "serving") -> NDArray[Any]:
        """Vectors [n, r] of known users, given by their codes, by their input of a stage."""
        users = positions_in(users, self.log.n_users, "users")
        is_serving = one_of("stage", stage, STAGES) == "serving"
        return self.user_vectors[users] if is_serving else self._of_rows(users, stage)

    _stage_state = vectors

    def _of_rows(self, users: NDArray[Any], stage: Stage = "serving") -> NDArray[Any]:
        assert self.model.gates is not None
        rows = self.known_part(self.split.input_rows(stage)[users])
        return self._project(rows, self.model.gates[users])

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any]:
        """Vectors [B, r] of people given by their rows."""
        return self._project(csr_matrix(seen + held_out), self.model._user_state(seen, held_out))

    def _project(self, rows: csr_matrix, gates: NDArray[Any]) -> NDArray[Any]:
        """Vectors [B, r] of people whose input is `rows`: f_u P."""
        return np.asarray(features(self.model, rows, gates).numpy() @ self.projection)

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        assert user_state is not None
        return np.asarray(user_state @ self.item_vectors.T)

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Cosine of the items' vectors."""
        length = np.maximum(np.linalg.norm(self.item_vectors, axis=1, keepdims=True), 1e-12)
        unit = self.item_vectors / length
        return np.asarray(unit[items] @ unit.T)

    def contributions(self, user: Any = None, items: Any = None, *, history: Any = None) -> Contributions:
        """Those of the model that it was made from."""
        return self.model.contributions(user, items, history=history)

    def export(self, directory: str | Path) -> Path:
        """Write users.parquet and items.parquet, one id and vector per row, for any vector index.

        The inner product of a user's and an item's vector is her score. The folder holds personal data.

        Raises:
            DataError: the folder holds anything but an earlier index, or cannot be written.
        """
        folder = a_path("directory", directory)
        check_index_folder(folder)
        with refused(folder, DataError), new_folder(folder) as draft:
            for name, column, ids, vectors in (
                (INDEX_FILES[0], USER, self.log.user_ids, self.user_vectors),
                (INDEX_FILES[1], ITEM, self.log.decode_items(self.known_items), self.item_vectors),
            ):
                vector = pl.Series(VECTOR, vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
                pl.DataFrame({column: ids, VECTOR: vector}).write_parquet(draft / name)
        return folder


def check_index_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier index: its files would be lost, or stand among ours.

    Raises:
        DataError: it does.
    """
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if names and names != set(INDEX_FILES):
        raise DataError(f"{folder} holds files that are no index of greysheep's: name another folder")


def compile_index(model: Any, *, rank: int | None = None, tolerance: float = 0.005, seed: int = 0) -> Index:
    """Compile a fitted mixture (MultVAE, WL, MoE, LMoE, TALL).

    rank: r; None = the smallest of RANKS with which no group loses more than `tolerance` (relative) of its
        NDCG@20 on validation rows; the largest where none does, or where no user has validation rows.

    Raises:
        ConfigError: not a mixture, or a number out of range.
        DataError: the model was saved without its rows.
        NotFittedError: it is not fitted.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.TALL(n_experts=3, latent=8, epochs=2, progress=False).fit(log)
    >>> index = gs.compile_index(model, rank=10)
    >>> index.user_vectors.shape, index.item_vectors.shape
    ((60, 10), (40, 10))
    """
    if not isinstance(model, MixtureModel):
        kind = getattr(model, "name", type(model).__name__)
        raise ConfigError(f"only mixtures of experts can be compiled, not {kind!r}")
    rank = None if rank is None else whole_number("rank", rank)
    tolerance, seed = number("tolerance", tolerance, least=0), seed_number(seed)
    log = model.log  # raises where there was no fit
    if not model.has_history:
        raise DataError(f"this {model.name} was saved without its rows: an index is compiled from them")
    most = min(log.n_users, log.n_items, decoders(model).shape[0])
    ranks = sorted({min(r, most) for r in (RANKS if rank is None else (rank,))})
    basis = right_vectors(model, ranks[-1], seed)
    projection, full = decoders(model) @ basis, by_group(model)
    for r in ranks:
        index = Index(model, projection[:, :r], basis[:, :r])
        compiled = by_group(index)
        if no_worse(full, compiled, tolerance):
            break
    index.quality = _quality(full, compiled)
    index.user_state = np.concatenate([index._of_rows(users) for users in _chunks(log.n_users)])
    return index


def decoders(model: MixtureModel) -> NDArray[Any]:
    """H, [K (D + 1), I]."""
    bank = model.net.bank
    return np.asarray(torch.cat([bank.decoder_weight.flatten(0, 1), bank.decoder_bias]).numpy(force=True))


@torch.no_grad()
def features(model: MixtureModel, rows: csr_matrix, gates: NDArray[Any]) -> Tensor:
    """f_u of B users: [B, K (D + 1)], on the CPU."""
    z = model.net.bank.means(SparseRows.from_csr(rows, model.device)).cpu()  # [K, B, D]
    gate = torch.from_numpy(gates)
    gated = (z * gate.T.unsqueeze(-1)).transpose(0, 1).reshape(len(gates), -1)
    return torch.cat([gated, gate.to(gated.dtype)], dim=1)


def right_vectors(model: MixtureModel, rank: int, seed: int) -> NDArray[Any]:
    """V, the first `rank` right singular vectors [I, r] of all users' scores on their rows but the test rows.

    Test rows stay out, so that nothing that is measured on them was made from them.
    Randomised subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4), with the
    scores' factors in place of the scores: nothing is U x I.
    """
    h = torch.from_numpy(decoders(model))
    n_users, n_items = model.log.n_users, h.shape[1]
    width = min(rank + SPARE, n_users, n_items, h.shape[0])
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(n_items, width, generator=generator, dtype=h.dtype)).Q
    assert model.gates is not None
    rows, small = model.known_part(model.split.input_rows("test")), torch.empty(0)
    for last in [False] * PASSES + [True]:
        projected, gathered = h @ basis, torch.zeros(h.shape[0], width, dtype=h.dtype)
        gram = torch.zeros(width, width, dtype=torch.float64)
        for chunk in _chunks(n_users):
            f = features(model, rows[chunk], model.gates[chunk]).to(h.dtype)
            image = f @ projected
            if last:
                gram += (image.T @ image).double()
            else:
                gathered += f.T @ image
        if last:
            small = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank].to(h.dtype)
        else:
            basis = torch.linalg.qr(h.T @ gathered).Q
    return np.asarray(basis @ small)


def by_group(ranker: Recommender, stage: Stage = "validation") -> dict[str, float]:
    """NDCG@20 on a stage's rows of each group that has some, and of all users."""
    split, groups = ranker.split, ranker.mainstream.groups
    truth = split.rows(stage)
    users = np.flatnonzero(np.diff(truth.indptr))
    if len(users) == 0:
        return {}
    ranked = ranker.rank(users, k=20, stage=stage)
    values = per_user(hits(ranked, truth[users]), np.diff(truth.indptr)[users], 20)["ndcg@20"]
    members = {name: values[groups[users] == code] for code, name in enumerate(GROUPS)}
    of_groups = {name: float(own.mean()) for name, own in members.items() if len(own)}
    return {"overall": float(values.mean()), **of_groups}


def no_worse(full: dict[str, float], compiled: dict[str, float], tolerance: float) -> bool:
    """Whether no group loses more than `tolerance`; False where no user has validation rows."""
    return bool(full) and all(compiled[name] >= value * (1 - tolerance) for name, value in full.items())


def _quality(full: dict[str, float], compiled: dict[str, float]) -> pl.DataFrame:
    lines = [
        (name, value, compiled[name], 1 - compiled[name] / value if value else None)
        for name, value in full.items()
    ]
    types = {GROUP: pl.String, "full": pl.Float64, "compiled": pl.Float64, "loss": pl.Float64}
    return pl.DataFrame(lines, schema=types, orient="row")


def _chunks(n: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, n, ROWS):
        yield np.arange(start, min(start + ROWS, n))
