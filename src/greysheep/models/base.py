"""The contract of every model: fit, recommend, similar items, save and load.

A new model is one file: a config, `_fit` (or `_trainer` for iterative ones), `_scores`, `_state` and
`_restore`, and a line in the registry. Everything about ids, parts of a split, unseen users, lists and
files is done here once.
"""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.columns import GROUP, USER
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import TRAIN, VALIDATION, Split, Stage, split
from greysheep.errors import ConfigError, DataError, GreysheepWarning, NotFittedError
from greysheep.mainstream.groups import GROUPS, Mainstream
from greysheep.mainstream.scores import mainstream_scores
from greysheep.metrics.ranking import top_n
from greysheep.models.config import ModelConfig, RunOptions, divide
from greysheep.models.lists import mask, recommend, similar_items
from greysheep.models.search_space import Dimension
from greysheep.models.training.loop import Outcome, Trainer, Watch, run
from greysheep.models.training.objective import Objective
from greysheep.models.training.progress import Progress
from greysheep.system.machine import peak_memory_bytes

SCORING_CELLS = 1 << 24
"""Scores held at once (64 MB in float32)."""


class Model(ABC):
    """Base of all recommenders. Keywords go to the model's config or to RunOptions, by name.

    After `fit`: `split` (the rows and their parts), `gates` ([U, K] or None), `history` (one dict an epoch),
    `train_seconds`, `epochs`, `best_epoch`, `gate_entropy`, `peak_memory_bytes`.
    """

    name: ClassVar[str]
    """Registry name."""
    Config: ClassVar[type[ModelConfig]]
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    binary: ClassVar[bool] = False
    """True where weights are ignored."""
    search_space: ClassVar[dict[str, Dimension]] = {}
    """What `tune` may change; a condition reads settings that stand before it."""
    search_starts: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Changes of the defaults that `tune` tries first, the most telling one first."""
    config: Any
    options: RunOptions
    split: Split
    gates: NDArray[Any] | None = None
    history: list[dict[str, Any]]
    train_seconds: float = 0.0
    epochs: int = 0
    best_epoch: int = 0
    gate_entropy: float | None = None
    peak_memory_bytes: int = 0
    has_history: bool = True
    """False after loading a model that was saved without its rows."""

    def __init__(self, *, preset: str | None = None, label: str | None = None, **keywords: Any):
        if preset is not None:
            if preset not in self.presets:
                known = ", ".join(self.presets) or "none"
                raise ConfigError(f"{self.name} has no preset {preset!r}; there are: {known}")
            keywords = {**self.presets[preset], **keywords}
        self.label = label or self.name
        self.config, self.options = divide(self.Config, keywords, self.name)
        self.history = []

    @property
    def uses_gate_rows(self) -> bool:
        """Whether rows of part `gate` are held out from training for a gate or adaptive weights."""
        return False

    @property
    def n_experts(self) -> int | None:
        """K, for mixtures."""
        return None

    # What a model brings

    @abstractmethod
    def _fit(self, split: Split) -> None:
        """Learn from `split.train_rows(gated=self.uses_gate_rows)` (closed-form models: `self.fit_rows`)."""

    @abstractmethod
    def _scores(self, rows: csr_matrix, gates: NDArray[Any] | None) -> NDArray[Any]:
        """Scores [B, I] of users whose input is `rows` [B, I] and whose gates are `gates` [B, K] or None."""

    @abstractmethod
    def _state(self) -> dict[str, Tensor]:
        """Learned tensors, for saving."""

    @abstractmethod
    def _restore(self, state: dict[str, Tensor], n_items: int) -> None:
        """Take learned tensors back."""

    def _gates(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """Gates [B, K] from input rows and held-out rows; None for models without a gate."""
        return None

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Similarity [n, I] of items to all items; default: cosine of their columns in the stored rows."""
        if not self.has_history:
            raise DataError(f"this {self.name} was saved without its rows: similar items are read from them")
        columns = self.rows.T.tocsr()
        norm = np.sqrt(np.maximum(np.asarray(columns.multiply(columns).sum(1)).ravel(), 1e-12))
        product: NDArray[Any] = (columns[items] @ columns.T).toarray()
        cosine: NDArray[Any] = product / norm[items, None] / norm
        return cosine

    # What it gets

    def fit(self, data: Interactions | Split, *, refit: bool = False) -> Self:
        """Train on a log (protocol `all`: every row serves) or on a split's train rows.

        refit: protocol `all` only: after the best number of epochs is known, train once more with the
            validation rows among the train rows (rows of a gate stay held out, a gate needs them).

        Raises:
            ConfigError: `refit` under another protocol, where validation rows must not be trained on.
        """
        if not isinstance(data, Interactions | Split):
            raise DataError(f"fit takes what Interactions.read or split gives, not {type(data).__name__}")
        given = (
            split(data, protocol="all", seed=self.options.seed) if isinstance(data, Interactions) else data
        )
        if refit and given.protocol != "all":
            raise ConfigError(
                f"refit is for protocol 'all', not {given.protocol!r}: there validation stays unseen"
            )
        if self.binary and given.log.weights is not None:
            message = f"{self.name} is binary: the {len(given.log)} weights of the log are not used"
            warnings.warn(message, GreysheepWarning, stacklevel=2)
        self._forget()
        self.split = given
        begun = time.perf_counter()
        try:
            with _threads(self.options.threads):
                self._fit(given)
                if refit:
                    self._refit(given)
                self.train_seconds = time.perf_counter() - begun
                self._store_gates()
        except BaseException:
            del self.split  # half a fit is none
            raise
        self.peak_memory_bytes = peak_memory_bytes()
        return self

    def _refit(self, split: Split) -> None:  # noqa: B027 - a hook that need not be filled
        """Train again, validation rows included; closed-form models already use every row."""

    def _forget(self) -> None:
        """A second fit is a fresh fit."""
        self.history, self.gates, self.gate_entropy = [], None, None
        self.has_history = True  # also where it was loaded without
        self.epochs = self.best_epoch = 0
        for key in ("mainstream", "serving_mainstream", "rows", "trained_items", "item_counts"):
            self.__dict__.pop(key, None)

    def _store_gates(self) -> None:
        """Every user's gate, computed once: input = train rows, targets = gate rows."""
        seen, held_out = self.split.train_rows(gated=self.uses_gate_rows), self.split.gate_rows()
        parts = [
            self._gates(seen[rows], held_out[rows]) for rows in self._chunks(np.arange(self.log.n_users))
        ]
        known = [part for part in parts if part is not None]
        self.gates = np.concatenate(known) if known else None
        self._measure_gates()

    def _measure_gates(self) -> None:
        """The gates' mean entropy; a gate that had no held-out rows to read is left out."""
        if self.gates is None or self.gates.shape[1] == 1:
            return
        held_out = np.diff(self.split.gate_rows().indptr) > 0
        judged = self.gates[held_out] if self.uses_gate_rows else self.gates
        if len(judged):
            logs = np.log(judged, where=judged > 0, out=np.zeros_like(judged))
            self.gate_entropy = float(-(judged * logs).sum(1, dtype=np.float64).mean())

    @property
    def log(self) -> Interactions:
        """The log behind the split.

        Raises:
            NotFittedError: before `fit`.
        """
        return self._fitted_on.log

    @property
    def _fitted_on(self) -> Split:
        if "split" not in self.__dict__:
            raise NotFittedError(f"this {self.name} is not fitted: call fit(log) first")
        return self.split

    @property
    def fit_rows(self) -> csr_matrix:
        """Rows a closed-form model learns from: it needs no validation, so under `all` these are all rows."""
        if self.split.protocol == "all":
            return self.log.matrix(weighted=not self.binary)
        return self.split.train_rows(gated=self.uses_gate_rows, weighted=not self.binary)

    @cached_property
    def rows(self) -> csr_matrix:
        """Every stored row, [U, I]: input and seen items of known users when recommending."""
        return self.split.input_rows("serving", weighted=not self.binary)

    @cached_property
    def trained_items(self) -> NDArray[np.bool_]:
        """[I] whether the item had rows to learn from."""
        n_items = self.log.n_items
        own = self.split.train_rows(gated=self.uses_gate_rows) if self.epochs else self.fit_rows
        return np.bincount(own.indices, minlength=n_items) > 0

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """[I] stored rows of each item."""
        return np.bincount(self.log.items, minlength=self.log.n_items)

    @cached_property
    def mainstream(self) -> Mainstream:
        """Scores and groups on the split's train rows: those of evaluation.

        Raises:
            DataError: the model was saved without its rows.
        """
        if not self.has_history:
            raise DataError(f"this {self.name} was saved without its rows: groups are read from them")
        return Mainstream.of_split(self._fitted_on)

    @cached_property
    def serving_mainstream(self) -> Mainstream:
        """Scores and groups on every stored row: those a new user is compared with."""
        return Mainstream.fit(self.log.matrix(), self.log.user_ids)

    def groups_of(self, history: Any) -> pl.DataFrame:
        """Group of people by their rows (known or not), by the stored cut points: user_id, score, group."""
        new = history if isinstance(history, Interactions) else Interactions.read(history)
        codes = self.log.encode_items(new.item_ids)[new.items]
        known = codes >= 0
        shape = (new.n_users, self.log.n_items)
        rows = csr_matrix((np.ones(known.sum(), np.float32), (new.users[known], codes[known])), shape)
        if not self.has_history:
            raise DataError(
                "this model was saved without its rows: a new user has nobody to be compared with"
            )
        scores = mainstream_scores(rows, self.log.matrix())
        self._leave_out_oneself(scores, rows, self.log.encode_users(new.user_ids))
        groups = np.asarray(GROUPS)[self.serving_mainstream.assign(scores)]
        return pl.DataFrame({USER: new.user_ids, "score": scores, GROUP: groups})

    def _leave_out_oneself(self, scores: NDArray[Any], rows: csr_matrix, codes: NDArray[np.int64]) -> None:
        """Take known users (code 0 up) out of the mean of similarities to all users: [n] scores, in place."""
        known = np.flatnonzero(codes >= 0)
        given, stored = rows[known], self.log.matrix()[codes[known]]
        common = np.asarray(given.multiply(stored).sum(1)).ravel()
        either = np.diff(given.indptr) + np.diff(stored.indptr) - common
        n_users = self.log.n_users
        scores[known] = (scores[known] * n_users - common / np.maximum(either, 1)) / max(1, n_users - 1)

    @cached_property
    def device(self) -> torch.device:
        """The device the options ask for."""
        wanted = self.options.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(wanted)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError):
            raise ConfigError(f"device {wanted!r} is not to be had here: use auto or cpu") from None
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of parameters."""
        return torch.float64 if self.options.precision == "float64" else torch.float32

    def _chunks(self, positions: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Positions in pieces whose scores fit in SCORING_CELLS."""
        size = int(np.clip(SCORING_CELLS // max(1, self.log.n_items), 1, 2048))
        for start in range(0, len(positions), size):
            yield positions[start : start + size]

    def rank(self, users: NDArray[Any], *, k: int = 20, stage: Stage = "test") -> NDArray[np.int64]:
        """Top k of known users among all items but their input of that stage (docs/method.md, "Protocols").

        users: [n] codes. stage: "validation", "test" or "serving".
        Returns [n, min(k, I)] item codes, best first, -1 where nothing is left.
        """
        given = self._fitted_on.input_rows(stage, weighted=not self.binary)
        parts = [np.empty((0, min(k, self.log.n_items)), np.int64)]
        with _threads(self.options.threads):
            for chunk in self._chunks(np.asarray(users)):
                scores = self._scores(given[chunk], self._stage_gates(chunk, stage))
                mask(scores, given[chunk])
                parts.append(top_n(scores, k))
        return np.concatenate(parts)

    def _stage_gates(self, users: NDArray[Any], stage: Stage) -> NDArray[Any] | None:
        """Gates of known users, the same at every stage."""
        return None if self.gates is None else self.gates[users]

    def recommend(
        self,
        users: Any = None,
        *,
        k: int = 20,
        exclude_seen: bool = True,
        candidates: Any = None,
        exclude_items: Any = None,
        history: Any = None,
        on_unknown: str = "raise",
    ) -> pl.DataFrame:
        """Top-k lists as a frame: user_id, item_id, score, rank (from 1).

        Args:
            users: ids; None = everybody in `history`, or every known user.
            k: length of the lists; shorter where fewer items are left.
            exclude_seen: leave out every stored row of the user, test rows included, and her history.
            candidates: item ids to choose among. Items without train rows come only when named here.
            exclude_items: item ids nobody gets.
            history: rows of people, known or not (anything `Interactions.read` takes); for a known id they
                replace the stored rows, as input and as seen items.
            on_unknown: users with neither stored rows nor history: "raise", "skip", or "popular" items.

        Raises:
            UnknownUserError: unknown users under on_unknown="raise".
            DataError: no candidate is known.
            NotFittedError: before `fit`.
        """
        with _threads(self.options.threads):
            return recommend(self, users, k, exclude_seen, candidates, exclude_items, history, on_unknown)

    def similar_items(self, items: Any, k: int = 20) -> pl.DataFrame:
        """The k items most like each given one: item_id, similar_item_id, score, rank.

        Raises:
            DataError: an item is unknown.
        """
        return similar_items(self, items, k)

    def save(self, directory: str | Path, *, include_history: bool = True) -> Path:
        """Write the model as a folder (README: it holds personal data); all of it or nothing.

        include_history: False leaves the users' rows out; recommending then needs `history`.
        """
        from greysheep.models.folder import save

        return save(self, Path(directory), include_history)


class IterativeModel(Model):
    """A model trained epoch by epoch by the one loop in `training`."""

    interrupted: bool = False
    watch: Watch | None = None
    """Asked after each validated epoch whether training shall end there."""

    @property
    def start_epoch(self) -> int:
        """Epoch from which patience is counted."""
        return 0

    @abstractmethod
    def _trainer(self, split: Split, objective: Objective | None) -> Trainer:
        """Fresh weights and what the loop needs to train them."""

    def _fit(self, split: Split) -> None:
        objective: Objective | None = Objective.parse(self.config.objective)
        groups = Mainstream.of_split(split).groups
        judged = np.bincount(groups[split.log.users[split.part == VALIDATION]], minlength=len(GROUPS))
        if objective is not None and objective.who in GROUPS and not judged[GROUPS.index(objective.who)]:
            raise ConfigError(
                f"objective {self.config.objective!r}: no user of that group has validation rows"
            )
        if not judged.any():
            objective = None
            message = f"no user has a validation row: {self.name} runs all its epochs"
            warnings.warn(message, GreysheepWarning, stacklevel=3)
        outcome = self._run(split, objective, self.config.epochs, self.label)
        self.history, self.best_epoch = outcome.history, outcome.best_epoch
        self.epochs, self.interrupted = len(outcome.history), outcome.interrupted
        if outcome.interrupted:
            message = (
                f"{self.name} was interrupted after {self.epochs} epochs; epoch {self.best_epoch} is kept"
            )
            warnings.warn(message, GreysheepWarning, stacklevel=3)

    def _refit(self, split: Split) -> None:
        """Train the best number of epochs with validation rows in train; interrupted, keep the first run."""
        if self.interrupted:
            return
        first = {key: value.clone() for key, value in self._state().items()}
        routes = self.__dict__.get("routes")
        part = np.where(split.part == VALIDATION, TRAIN, split.part).astype(np.int8)
        everything = replace(split, part=part)
        try:
            self.interrupted = self._run(
                everything, None, self.best_epoch, f"{self.label} (refit)"
            ).interrupted
            why = "was interrupted"
        except KeyboardInterrupt:
            self.interrupted, why = True, "was interrupted"
        except ConfigError as error:  # it diverged
            self.interrupted, why = True, f"failed ({error})"
        if not self.interrupted:
            self.split = everything
            return
        self._restore(first, split.log.n_items)
        if routes is not None:
            self.__dict__["routes"] = routes
        message = f"the refit of {self.name} {why}: the model trained without validation rows is kept"
        warnings.warn(message, GreysheepWarning, stacklevel=3)

    def _run(self, split: Split, objective: Objective | None, epochs: int, label: str) -> Outcome:
        groups = Mainstream.of_split(split).groups
        return run(
            self._trainer(split, objective),
            epochs=epochs,
            patience=self.config.patience,
            start_epoch=self.start_epoch,
            objective=objective,
            groups=groups,
            progress=Progress(label, epochs, self.options.progress),
            watch=None if objective is None else self.watch,
        )


def take(state: dict[str, Tensor], name: str, *shape: int) -> NDArray[Any]:
    """A saved tensor as an array, refused (ValueError) if it is not of this shape."""
    if tuple(state[name].shape) != shape:
        raise ValueError(f"tensor {name} has shape {tuple(state[name].shape)}, not {shape}")
    return state[name].numpy()


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Give torch n threads for a while."""
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
