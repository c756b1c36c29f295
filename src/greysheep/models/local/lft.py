"""LFT (Zhu and Caverlee, WSDM 2022): for every user a model fine-tuned on her neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.splitting import Split
from greysheep.models.autoencoders import search_spaces
from greysheep.models.base import take
from greysheep.models.config import MANY
from greysheep.models.folder_checks import check_gates
from greysheep.models.local.base import GlobalFirst, train_global
from greysheep.models.local.config import GlobalConfig
from greysheep.models.local.neighbours import Jaccard, nearest
from greysheep.models.training.objective import Objective
from greysheep.models.training.validation import PerUser, Validation
from greysheep.nn.local_experts import fine_tuned
from greysheep.nn.sparse_rows import SparseRows

ROWS = 128
"""Users scored at once; in validation each has scores for every number of steps."""


class LFTConfig(GlobalConfig):
    """Settings of LFT; the defaults were chosen on validation rows of ML-1M."""

    global_model: Literal["multvae", "wl"] = "wl"
    """Registry name of the global model; the authors of TALL ran this method on `wl`, too."""
    threshold: float = Field(0.05, ge=0, lt=1)
    """Jaccard similarity above which a user is a neighbour."""
    n_neighbours: int = Field(50, ge=1, le=MANY)
    """The most neighbours of a user, the most similar ones."""
    power: float = Field(2.0, ge=0, le=10)
    """A neighbour's weight is her Jaccard similarity to this power."""
    steps: int = Field(8, ge=1, le=1000)
    """The most gradient steps of a user's copy."""
    fine_tuning_rate: float = Field(10.0, gt=0, le=1e4)
    """Size of a step."""
    damping: float = Field(1.0, gt=0, le=1e9)
    """How much rarely predicted items share the step size of the others; the larger, the more alike."""
    shrinkage: float = Field(50.0, ge=0, le=1e9)
    """Validation rows at which a user's own best number of steps counts as much as everybody's."""


class LFT(GlobalFirst):
    """A copy of the global model's decoder for every user, fine-tuned on her neighbours; no copy is stored.

    Neighbours: users whose train rows have a Jaccard similarity above `threshold` with her input rows, at
    most `n_neighbours`, weighted by similarity to the power of `power`; her own train rows are among them
    (with weight 1 where they are her input). Every full-batch gradient step on their mean cross-entropy is a
    stage; the number of steps maximises n_u m_u(t) + shrinkage m(t), m_u(t) the objective on her n_u
    validation rows after t steps and m(t) its mean over users, so that a user with few rows follows
    the others. People unseen in training stop at the best m(t). `user_state` [U, steps + 1] is 1 at a user's
    stage.

    A copy serves one person and follows from the global weights and the train rows, so none is stored: it
    is tuned again for each of her lists, which takes about as long as `fit` took for her after the global
    model (10 to 25 ms per user on ML-1M). The neighbours' rows are needed for that, so the model
    cannot be saved without rows.

    Simplified against the paper: the encoder stays as it is, so that a step is exact without forming the copy
    (`nn.local_experts.fine_tuned`); plain gradient steps, with a size for each item, in place of Adam; no
    noise and no KL term. Tuning the encoder too, by Adam, was slower and no better on ML-1M's validation
    rows (docs/results/local-models.md).

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.models.LFT(latent=8, epochs=2, steps=3, progress=False).fit(log)
    >>> model.user_state.shape
    (60, 4)
    """

    name = "lft"
    Config = LFTConfig
    needs_rows = "a user's copy is tuned on her neighbours' rows when asked for"
    search_space, search_starts = search_spaces.NEIGHBOUR_STEPS, search_spaces.STARTS
    curve: NDArray[np.float64]
    """[steps + 1] m(t): the objective on validation rows after t steps, the same t for all users."""
    chosen: NDArray[np.int64]
    """[U] steps of each user's copy."""
    _known: tuple[csr_matrix, Jaccard, Tensor] | None = None

    def _fit(self, split: Split) -> None:
        trained = train_global(self, split)
        record, of_global = self.fitted, trained.fitted
        record.history, record.epochs = of_global.history, of_global.epochs
        record.interrupted = of_global.interrupted
        self.global_epochs = record.best_epoch = of_global.best_epoch
        self.bank, self._known = trained.net.bank, None
        self._choose_steps(split)

    def _train_again(self, split: Split) -> bool:
        """Train the global model alone; the numbers of steps stay."""
        self.bank = train_global(self, split, self.global_epochs).net.bank
        self._known = None
        return False

    def _choose_steps(self, split: Split) -> None:
        """Every user's number of steps, from her validation rows and all users'."""
        n_stages = self.config.steps + 1
        objective, groups = Objective.parse(self.config.objective), split.user_groups
        validation = Validation(split, objective)
        n_rows = np.diff(validation.truth.indptr)
        gain = np.zeros((split.log.n_users, n_stages))
        if n_rows.any():
            stages = self._validate(validation)
            self.curve = np.array([objective.value(stage, groups) for stage in stages])
            for t, stage in enumerate(stages):
                gain[:, t] = np.nan_to_num(np.mean([stage[key] for key in objective.keys], axis=0))
        else:
            self.curve = np.arange(n_stages) / n_stages  # nothing to stop by: all steps
        # tiny differences are rounding: they must not choose
        total = n_rows[:, None] * gain + max(self.config.shrinkage, 1e-9) * self.curve
        self.chosen = np.argmax(np.round(total, 9), axis=1)

    def _validate(self, validation: Validation) -> list[PerUser]:
        """Metrics of every user, [U] each, after 0, 1, ... steps."""
        n_stages, given, n_items = self.config.steps + 1, validation.given, validation.given.shape[1]
        out: list[PerUser] = [{} for _ in range(n_stages)]
        for start in range(0, len(validation.users), ROWS):
            batch = validation.users[start : start + ROWS]
            scores = np.empty((n_stages, len(batch), n_items), np.float32)
            for i, copies in enumerate(self._copies(given[batch])):
                for t, own in zip(range(n_stages), copies, strict=False):
                    scores[t, i] = own.cpu().numpy()
            for stage, mine in zip(out, scores, strict=True):
                validation.put(stage, batch, validation.metrics(batch, mine))
        return out

    def _neighbourhood(self) -> tuple[csr_matrix, Jaccard, Tensor]:
        """Train rows [U, I] of those who can be neighbours, how near they are, their latents [U, D]."""
        if self._known is None:
            rows = self.known_part(self.split.train_rows(gated=False))
            self._known = rows, Jaccard(rows), self._latents(rows, self.bank)
        return self._known

    def _copies(self, rows: csr_matrix) -> Iterator[Iterator[Tensor]]:
        """For each of B users: her scores [I] after 0, 1, ... steps; the next step overwrites them."""
        train, nearness, z = self._neighbourhood()
        own = self._latents(rows, self.bank)
        decoder = self.bank.decoder_weight.detach()[0], self.bank.decoder_bias.detach()[0]
        for mine, line in zip(own, nearness(rows), strict=True):
            near = nearest(line, self.config.threshold, self.config.n_neighbours)
            weight = torch.from_numpy(line[near] ** self.config.power).to(self.device, self.dtype)
            theirs = SparseRows.from_csr(train[near], self.device)
            yield fine_tuned(
                mine, z[near], theirs, weight, decoder, self.config.fine_tuning_rate, self.config.damping
            )

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        assert user_state is not None
        out = np.zeros(rows.shape, np.float64 if self.dtype == torch.float64 else np.float32)
        for start in range(0, rows.shape[0], ROWS):
            for i, copies in enumerate(self._copies(rows[start : start + ROWS]), start):
                for t, own in zip(range(int(np.flatnonzero(user_state[i])[-1]) + 1), copies, strict=False):
                    if user_state[i, t]:
                        out[i] += user_state[i, t] * own.cpu().numpy()
        return out

    def _known_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any]:
        return np.eye(self.config.steps + 1, dtype=np.float32)[self.chosen]

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any]:
        one = np.eye(self.config.steps + 1, dtype=np.float32)[np.argmax(self.curve)]
        return np.tile(one, (seen.shape[0], 1))

    def _check_user_state(self, state: NDArray[Any] | None) -> None:
        """One of the steps for each user."""
        check_gates(state, self.log.n_users, self.config.steps + 1)

    def _state(self) -> dict[str, Tensor]:
        return {**super()._state(), "curve": torch.from_numpy(self.curve)}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        super()._restore(state, n_items)
        self.curve = take(state, "curve", self.config.steps + 1)
        self._known = None
