"""iALS (Hu, Koren & Volinsky, ICDM 2008): weighted matrix factorisation, fitted by the package `implicit`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix, diags_array

from greysheep.data.splitting import Split, Stage
from greysheep.errors import ConfigError, MissingExtraError, warn
from greysheep.models.base import Model, take
from greysheep.models.config import ModelConfig
from greysheep.models.fitted import Fitted
from greysheep.models.search_space import Dimension, Real, Whole
from greysheep.models.training.progress import Steps
from greysheep.system.machine import threads_each

LARGEST_CONFIDENCE = 1e9
"""What is above would overflow in float32, and be as good as this."""
FOLDING_CELLS = 1 << 17
"""Numbers in one batch of users that are folded in: 1 MB in float64, which a core's own cache holds."""

VECTORS = "user_vectors"
"""Saved tensor: known users' vectors."""


class IALSConfig(ModelConfig):
    """Settings of iALS."""

    factors: int = Field(64, ge=1, le=10_000)
    """D, length of an item's vector."""
    alpha: float = Field(4.0, gt=0, le=1e6)
    """Confidence of a row of weight 1; an item without a row has confidence 1."""
    regularization: float = Field(10.0, gt=0, le=1e9)
    """lambda, the same for every user and item, whatever their number of rows."""
    iterations: int = Field(15, ge=1, le=10_000)
    """Passes over users and items."""
    user_power: float = Field(0.0, ge=0, le=2)
    """q: a user's rows are multiplied by n_u^-q. 0 = every row counts alike, larger = busy users less."""
    n_seeds: int = Field(1, ge=1, le=1000)
    """Models from as many random starts, their scores summed; smoother, and as many times slower."""


class IALS(Model):
    """Least squares on preferences 1 (a row) and 0 (none): scores = x_u . y_i, summed over the seeds.

    Minimises sum over all u, i of c_ui (p_ui - x_u . y_i)^2 + lambda (sum |x_u|^2 + sum |y_i|^2).
    As `implicit` 0.7.3 has it, and unlike the paper's 1 + alpha r: c_ui = alpha * w_ui where user u has item
    i (w_ui its weight, here times n_u^-user_power, n_u her number of rows), 1 elsewhere; nothing is added,
    so alpha = 1 says no more about a row than about a gap. lambda is the same for all users and items. A
    confidence above 1e9 counts as 1e9: either way the preference is met exactly.

    A user's vector is solved exactly from her input rows at every stage, so people seen in training and new
    ones are served alike. Those of her stored rows are kept: each is solved once, when lists or a saved model
    ask for it.

    Fitting runs on the CPU. `implicit`'s own solver takes 3 conjugate-gradient steps per vector; the result
    depends on the seed, not on the number of threads.

    Raises:
        MissingExtraError: in `fit`, if `implicit` is not installed.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> gs.IALS(factors=8, progress=False).fit(log).recommend(log.user_ids[:2], k=3).height
    6
    """

    name = "ials"
    Config = IALSConfig
    solved_anew = False
    search_space: ClassVar[dict[str, Dimension]] = {
        "factors": Whole(16, 256, log=True),
        "alpha": Real(0.5, 50.0, log=True),
        "regularization": Real(0.5, 200.0, log=True),
        "user_power": Real(0.0, 1.0),
    }
    item_factors: NDArray[Any]
    """[S, I, D], one matrix per seed."""
    _known: tuple[Fitted, NDArray[Any]] | None = None
    """[U, S D] vectors of the users of a fit by their stored rows; 0 = not solved yet."""

    def _fit(self, split: Split) -> None:
        rows, config = self._scaled(self.fit_rows), self.config
        done: list[NDArray[Any]] = []
        with Steps(self.label, config.iterations * config.n_seeds, self.options.progress) as steps:
            for number in range(config.n_seeds):
                factors, whole = self._factorise(rows, number, steps)
                if whole or not done:
                    done.append(factors)
                if not whole:
                    self._say_interrupted(len(done), steps.finished)
                    break
        self.item_factors = np.stack(done)

    def _factorise(self, rows: csr_matrix, number: int, steps: Steps) -> tuple[NDArray[Any], bool]:
        """Item factors [I, D] from the `number`-th random start, and whether all iterations were made.

        Ctrl-C ends the iterations; before the end of the very first one it is passed on.
        """
        try:
            from implicit.cpu.als import AlternatingLeastSquares
            from implicit.recommender_base import ModelFitError
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise MissingExtraError("baselines", "ials (implicit)") from error
        config, whole = self.config, True
        # implicit runs its own threads; beside them BLAS's would only make each wait for the other
        with threadpool_limits(1, "blas"):
            als = AlternatingLeastSquares(
                factors=config.factors,
                alpha=config.alpha,
                regularization=config.regularization,
                iterations=config.iterations,
                dtype=np.float64 if self.options.precision == "float64" else np.float32,
                num_threads=self.options.threads or threads_each(1),
                random_state=np.random.default_rng([self.options.seed, number]),
            )
            try:
                als.fit(rows, show_progress=False, callback=lambda *_: steps.step())
            except KeyboardInterrupt:
                whole = False
                if not steps.finished:
                    raise
            except ModelFitError:
                message = "factors are no numbers: try a larger regularization or a smaller alpha"
                raise ConfigError(f"{self.label}: {message}") from None
        return np.asarray(als.item_factors), whole

    def _say_interrupted(self, n_models: int, finished: int) -> None:
        config = self.config
        kept = f"{n_models} of {config.n_seeds} seeds"
        if finished < config.iterations:
            kept = f"{finished} of {config.iterations} iterations"
        self.fitted.interrupted = True
        warn(f"{self.name} was interrupted: {kept} are kept", 4)

    def _scaled(self, rows: csr_matrix) -> csr_matrix:
        """Rows [B, I] times n_u^-user_power, none above that of the largest confidence."""
        scaled = csr_matrix(rows, dtype=np.float32)
        if self.config.user_power:
            per_user = np.maximum(np.diff(rows.indptr), 1).astype(np.float64)
            scaled = csr_matrix(diags_array(per_user**-self.config.user_power) @ rows, dtype=np.float32)
        most = LARGEST_CONFIDENCE / self.config.alpha
        if scaled.nnz and scaled.data.max() > most:
            scaled.data = np.minimum(scaled.data, np.float32(most))
        return scaled

    def _vectors(self, rows: csr_matrix) -> NDArray[Any]:
        """Users' vectors [B, S D] by their rows [B, I], those of the seeds side by side."""
        scaled, config = self._scaled(rows), self.config
        each = (fold_in(scaled, items, config.alpha, config.regularization) for items in self.item_factors)
        return np.concatenate(list(each), axis=1).astype(self.item_factors.dtype)

    def _stage_state(self, users: NDArray[Any], stage: Stage) -> NDArray[Any] | None:
        """Vectors by stored rows; before serving, the input is other rows."""
        if stage != "serving":
            return None
        if self._known is None or self._known[0] is not self.fitted:
            n_seeds, _, size = self.item_factors.shape
            shape = (self.log.n_users, n_seeds * size)
            self._known = self.fitted, np.zeros(shape, self.item_factors.dtype)
        known: NDArray[Any] = self._known[1]
        new = users[~known[users].any(axis=1)]
        if len(new):
            known[new] = self._vectors(self.known_part(self.rows[new]))
        return np.asarray(known[users])

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        """Scores [B, I]; vectors that are 0, or not given at all, are solved from the rows."""
        if user_state is None:
            user_state = self._vectors(rows)
        elif (new := ~user_state.any(axis=1)).any():
            user_state[new] = self._vectors(rows[new])
        return np.asarray(user_state @ np.concatenate(self.item_factors, axis=1).T)

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Cosine [n, I] of the items' vectors, the mean over the seeds."""
        length = np.maximum(np.linalg.norm(self.item_factors, axis=2, keepdims=True), 1e-12)
        unit = self.item_factors / length
        return np.asarray((unit[:, items] @ unit.transpose(0, 2, 1)).mean(0))

    def _state(self) -> dict[str, NDArray[Any]]:
        return {"item_factors": self.item_factors}

    def _saved_state(self, with_rows: bool) -> dict[str, Any]:
        """Known users' vectors beside it; they tell a user's rows, and are left out with them."""
        known = self._stage_state(np.arange(self.log.n_users), "serving") if with_rows else None
        return self._state() if known is None else {**self._state(), VECTORS: known}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        n_seeds = len(state.get("item_factors", []))  # fewer than asked for after Ctrl-C
        self.item_factors = take(state, "item_factors", n_seeds, n_items, self.config.factors)
        if VECTORS in state:
            shape = self.log.n_users, n_seeds * self.config.factors
            self._known = self.fitted, take(state, VECTORS, *shape)


def fold_in(
    rows: csr_matrix, items: NDArray[Any], alpha: float, regularization: float
) -> NDArray[np.float64]:
    """Exact user vectors [B, D] of rows [B, I], given item vectors [I, D].

    x_u = (Y'Y + lambda 1 + sum over u's items of (c - 1) y y')^-1 (sum of c y), c = alpha times the row's
    value; zeros for a user without rows. Users of like length are solved together, in float64.

    >>> fold_in(csr_matrix([[1.0, 0.0]]), np.array([[1.0], [2.0]]), alpha=2.0, regularization=4.0)
    array([[0.2]])
    """
    vectors = np.asarray(items, dtype=np.float64)
    size = vectors.shape[1]
    out = np.zeros((rows.shape[0], size))
    base = vectors.T @ vectors + regularization * np.eye(size)
    lengths = np.diff(rows.indptr)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    while len(order):
        # the longest rows first: the batch's padding is what they have more than its shortest one
        longest = int(lengths[order[-1]])
        width = max(1, FOLDING_CELLS // (max(longest, size) * size))
        order, batch = order[:-width], order[-width:]
        place = rows.indptr[batch, None] + np.arange(longest)
        filled = np.arange(longest) < lengths[batch, None]
        place[~filled] = 0
        confidence = np.where(filled, alpha * rows.data[place].astype(np.float64), 0.0)
        more = np.where(filled, confidence - 1, 0.0)
        theirs = vectors[rows.indices[place]]  # [b, L, D]
        matrix = base + theirs.mT @ (more[:, :, None] * theirs)
        wanted = (confidence[:, None, :] @ theirs).mT  # [b, D, 1]
        out[batch] = np.linalg.solve(matrix, wanted)[:, :, 0]
    return out
