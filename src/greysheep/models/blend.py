"""Blend: the scores of several models on one scale, summed with weights chosen on validation rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from scipy.sparse import csr_matrix, eye_array

from greysheep.data.splitting import Split
from greysheep.errors import ConfigError, warn
from greysheep.models.base import Model, take
from greysheep.models.config import ModelConfig, RunOptions
from greysheep.models.fitted import Fitted
from greysheep.models.move import Move
from greysheep.models.recommender import in_pieces
from greysheep.models.registry import create
from greysheep.models.training.objective import Objective, ObjectiveText
from greysheep.models.training.progress import Steps
from greysheep.models.training.validation import PerUser, Validation

MOST_POINTS = 100_000_000
"""Combinations of weights that are gone through to find those that sum to 1."""
FAR = 1e15
"""How far from 1 the largest score of a user may be before it is scaled."""
WIDTHS = "gate_widths"
"""Saved tensor: columns of `user_state` that belong to each part."""


class BlendConfig(ModelConfig):
    """Settings of a blend."""

    models: str = "ials+ease-weighted"
    """Registry names of its parts, two or more, each once, joined by `+`."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of the parts by name, `{"ials": {"alpha": 8}}`; `ials.alpha=8` does the same for one."""
    weights: tuple[float, ...] | None = None
    """Weight of each part in the order of `models`, also as a text `0.4+0.6`. None: chosen by `fit`, which
    records its choice here; a loaded blend has the weights it was saved with, and keeps them."""
    grid: int = Field(10, ge=1, le=1000)
    """Weights tried are all multiples of 1 / grid that sum to 1."""
    objective: ObjectiveText = "mean-ndcg"
    """What the weights maximise on validation rows: `mean-ndcg` (NDCG@1, 5, 10, 20), `recall@20` and the
    like; `:low` (any group) or `:worst` behind it asks for that group."""

    @field_validator("weights", mode="before")
    @classmethod
    def _read_weights(cls, given: Any) -> Any:
        return tuple(float(part) for part in given.split("+")) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _fits_together(self) -> BlendConfig:
        names = self.names
        if len(names) < 2 or len(set(names)) < len(names) or "blend" in names:
            raise ConfigError(
                f"blend: models={self.models!r} is not two or more models joined by +, each once"
            )
        if strange := [name for name in self.settings if name not in names]:
            raise ConfigError(f"blend has no part {strange[0]!r}: its models are {', '.join(names)}")
        if self.weights is not None:
            if len(self.weights) != len(names):
                raise ConfigError(f"blend: {len(self.weights)} weights for {len(names)} models")
            if min(self.weights) < 0 or not 1e-6 <= sum(self.weights) <= 1e6:
                raise ConfigError(
                    f"blend: weights={self.weights} must be 0 or more, one of them above 0, "
                    "their sum from 1e-6 to 1e6"
                )
        elif (self.grid + 1) ** (len(names) - 1) > MOST_POINTS:
            fits = int(MOST_POINTS ** (1 / (len(names) - 1))) - 1
            raise ConfigError(
                f"blend: grid={self.grid} is too fine for {len(names)} models: grid={fits} can be tried, "
                "or give weights"
            )
        return self

    @property
    def names(self) -> list[str]:
        """The parts."""
        return [name.strip() for name in self.models.split("+")]


class Blend(Model):
    """Weighted sum of z-scores: score(u, i) = sum over parts m of w_m (s_m(u, i) - mean) / deviation.

    Mean and standard deviation are taken per user and part, over the items that are not in her input:
    her own items score far above the rest and would set the scale. A part that gives all of these the same
    score adds nothing.

    Weights: of all grid points of the simplex the one with the best `objective` on validation rows (input
    and truth as in early stopping), among equals the most even one. Under protocol `all` closed-form parts
    are fitted twice: without validation rows to choose, then on every row. Without validation rows all parts
    weigh alike, and a warning says so. `fit` records the weights in `config.weights`.

    Settings of a part are written with its name in front, as in `blend[models=ials+ease,ials.alpha=8]` or
    `--set ials.alpha=8`, or as keyword `settings={"ials": {"alpha": 8}}`. Seed, threads and other run
    options are those of the blend.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> blend = gs.Blend(models="itemknn+ease", settings={"ease": {"regularization": 10.0}}).fit(log)
    >>> len(blend.config.weights), blend.recommend(log.user_ids[:2], k=3).height
    (2, 6)
    """

    name = "blend"
    Config = BlendConfig
    parts: list[Model]
    weights: NDArray[np.float64]
    """[M] in use, sum 1."""

    def __init__(self, **keywords: Any):
        dotted = [key for key in keywords if "." in key]
        if dotted:
            settings = keywords.pop("settings", {})
            if not isinstance(settings, dict) or not all(isinstance(own, dict) for own in settings.values()):
                raise ConfigError(f"blend: settings={settings!r} must give each part's settings by its name")
            settings = {name: dict(own) for name, own in settings.items()}
            for key in dotted:
                part, _, setting = key.partition(".")
                settings.setdefault(part, {})[setting] = keywords.pop(key)
            keywords["settings"] = settings
        super().__init__(**keywords)
        self._given: tuple[float, ...] | None = self.config.weights
        self.parts = self._make_parts()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """As of every model; weights that `fit` chose are none of the settings."""
        return super().get_params(deep) | {"weights": self._given}

    def _make_parts(self) -> list[Model]:
        options = self.options.model_dump()
        for name, own in self.config.settings.items():
            if shared := [key for key in own if key in RunOptions.model_fields]:
                raise ConfigError(f"{name}.{shared[0]} cannot be set: {shared[0]} is one for the whole blend")
        return [create(n, **self.config.settings.get(n, {}), **options) for n in self.config.names]

    @property
    def uses_gate_rows(self) -> bool:
        """Whether a part holds gate rows out."""
        return any(part.uses_gate_rows for part in self.parts)

    @property
    def trains_in_epochs(self) -> bool:
        """Whether a part does."""
        return any(part.trains_in_epochs for part in self.parts)

    def _fit(self, split: Split) -> None:
        self.parts = self._make_parts()
        shares = self._given
        choose = shares is None and bool(split.rows("validation").nnz)
        # under `all` a closed form would learn validation rows, which the weights are to be chosen on
        held = replace(split, protocol="strict") if choose and split.protocol == "all" else split
        for part in self.parts:
            part.fit(split if part.validates else held, checkpoints=self.checkpoints)
            self.fitted.interrupted = part.interrupted
            if part.interrupted and part is not self.parts[-1]:
                raise KeyboardInterrupt  # without the parts to come it is no model yet
        if choose:
            shares = self._choose(held)
        elif shares is None:
            shares = (1 / len(self.parts),) * len(self.parts)
            warn(f"no user has a validation row: the {len(shares)} parts of {self.name} weigh alike", 3)
        if held is not split:
            for part in self.parts:
                if not part.validates:
                    part.fit(split)
        self.config = self.config.model_copy(update={"weights": shares})
        self.weights = np.asarray(shares) / sum(shares)

    def _choose(self, split: Split) -> tuple[float, ...]:
        """The grid point with the best objective on validation rows."""
        objective = Objective.parse(self.config.objective)
        validation = Validation(split, objective, weighted=True)
        points = list(simplex(len(self.parts), self.config.grid))
        tables: list[PerUser] = [{} for _ in points]
        chunks = list(in_pieces(validation.users, split.log.n_items))
        label, show = f"{self.label}: weights", self.options.progress
        with Steps(label, len(chunks), show, "part of the users") as steps:
            for chunk in chunks:
                states = [None if part.user_state is None else part.user_state[chunk] for part in self.parts]
                each = self._standard_scores(validation.given[chunk], states)
                for table, point in zip(tables, points, strict=True):
                    scores = np.tensordot(np.asarray(point, each.dtype), each, axes=1)
                    validation.put(table, chunk, validation.metrics(chunk, scores))
                steps.step()
        one_group = np.zeros(split.log.n_users, dtype=np.int8)
        groups = one_group if objective.who is None else split.mainstream.groups
        value = [objective.value(table, groups) for table in tables]
        if np.isnan(value).all():
            raise ConfigError(f"objective {self.config.objective!r}: no user of it has validation rows")
        return points[int(np.nanargmax(value))]

    def _standard_scores(self, rows: csr_matrix, states: list[Any]) -> NDArray[Any]:
        """Z-scores [M, B, I] of the parts for users whose input is `rows`; states: each part's, or None."""
        ones = csr_matrix((np.ones_like(rows.data), rows.indices, rows.indptr), rows.shape)
        parts = zip(self.parts, states, strict=True)
        return np.stack([self._of_part(*pair, ones if pair[0].binary else rows) for pair in parts])

    @staticmethod
    def _of_part(part: Model, state: Any, rows: csr_matrix) -> NDArray[Any]:
        """Z-scores [B, I] of one part; 0 for items that its weights do not know."""
        known = part.known_part(rows)
        return part.spread(standardised(part._scores(known, state), known), fill=0)

    def check_without_rows(self) -> None:
        """Refuse to be saved without rows if a part needs them."""
        for part in self.parts:
            part.check_without_rows()

    def _refit(self) -> None:
        if self.interrupted:
            return
        first = self.split
        for part in self.parts:
            part.checkpoints = self.checkpoints
            part._refit()
            part.checkpoints = None
            part._finish()
            if part.interrupted:
                self.fitted.interrupted = True
                break
        # rows that a part now trains on are train rows of the blend, too: only its own split is saved
        self.fitted.split = next((part.split for part in self.parts if part.split is not first), first)

    def _finish(self) -> None:
        super()._finish()
        self.fitted.trained_items = np.any([part.trained_items for part in self.parts], axis=0)

    def _known_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """The parts' states side by side, [U, sum of S]."""
        stored = [part.user_state for part in self.parts]
        self.state_widths = np.array([0 if state is None else state.shape[1] for state in stored])
        return _side_by_side(stored)

    def _mixing_entropy(self) -> float | None:
        """That of the first part with a gate."""
        return next((part.gate_entropy for part in self.parts if part.gate_entropy is not None), None)

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        return _side_by_side(
            [part._user_state(part.known_part(seen), part.known_part(held_out)) for part in self.parts]
        )

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        ends = np.cumsum(self.state_widths)
        own = [
            None if user_state is None or width == 0 else user_state[:, end - width : end]
            for width, end in zip(self.state_widths, ends, strict=True)
        ]
        each = self._standard_scores(rows, own)
        return np.asarray(np.tensordot(self.weights.astype(each.dtype), each, axes=1))

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Weighted sum [n, I] of the parts' similarities, each z-scored over the other items."""
        total = np.zeros((len(items), self.log.n_items))
        for part, weight in zip(self.parts, self.weights, strict=True):
            places = part.known_places(items)
            known = np.flatnonzero(places >= 0)
            itself = csr_matrix(eye_array(self.log.n_items, format="csr")[items[known]])
            own = standardised(part._similarity(places[known]), part.known_part(itself))
            total[known] += weight * part.spread(own, fill=0)
        return total

    def keeps_weights(self) -> list[str]:
        """Those of its parts."""
        return [name for part in self.parts for name in part.keeps_weights()]

    def carried(self, move: Move) -> Self:
        """Its parts on other rows, with the weights that they have."""
        other, state, ends = self._twin(), self.user_state, np.cumsum(self.state_widths)
        for part, width, end in zip(self.parts, self.state_widths, ends, strict=True):
            if part.user_state is None and state is not None and width:  # read from a folder
                part.user_state = state[:, end - width : end]
            if not len(part.trained_items):
                part.fitted.trained_items = self.trained_items
        other.parts, other.weights = [part.carried(move) for part in self.parts], self.weights
        other.fitted = move.record(self.fitted)
        other.fitted.learned = None  # each part says what it knows
        none = csr_matrix((0, other.log.n_items))
        other.user_state = other._known_state(none, none)
        other.fitted.trained_items = np.any([part.trained_items for part in other.parts], axis=0)
        return other

    def _check_user_state(self, state: NDArray[Any] | None) -> None:
        """Each part checks its own columns."""
        widths, found = self.state_widths, 0 if state is None else state.shape[1]
        if (widths < 0).any() or widths.sum() != found:
            raise ValueError(f"the parts' states have {found} columns, not {widths.tolist()}")
        for part, start, width in zip(self.parts, np.cumsum(widths) - widths, widths, strict=True):
            part._check_user_state(None if state is None or not width else state[:, start : start + width])

    def _state(self) -> dict[str, Any]:
        own: dict[str, Any] = {"weights": self.weights, WIDTHS: self.state_widths}
        named = zip(self.config.names, self.parts, strict=True)
        return own | {f"{name}.{key}": value for name, part in named for key, value in part.tensors().items()}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        self.parts = self._make_parts()
        self.weights = take(state, "weights", len(self.parts))
        if (self.weights < 0).any() or abs(self.weights.sum() - 1) > 1e-6:
            raise ValueError("tensor 'weights' must be 0 or more, and of sum 1")
        self.state_widths = take(state, WIDTHS, len(self.parts), kind="i")
        for name, part in zip(self.config.names, self.parts, strict=True):
            part.fitted = Fitted(self.split, weighted=not part.binary, has_history=self.has_history)
            start = f"{name}."
            own = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
            part.take_tensors(own)


def _side_by_side(states: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    known = [state for state in states if state is not None]
    return np.concatenate(known, axis=1) if known else None


def standardised(scores: NDArray[Any], seen: csr_matrix) -> NDArray[Any]:
    """Scores [B, I] minus their mean, over their standard deviation, per row over the items not in `seen`.

    A row whose unseen items all have one score becomes 0.

    >>> standardised(np.array([[9.0, 1.0, 3.0]]), csr_matrix([[1.0, 0.0, 0.0]]))
    array([[ 7., -1.,  1.]])
    """
    peak = np.maximum(scores.max(1, initial=0), -scores.min(1, initial=0))
    far = ((peak > FAR) | (peak < 1 / FAR)) & (peak > 0)  # whose squares would leave float32
    if far.any():
        scores = scores.copy()
        scores[far] /= peak[far, None]
    row = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    left = np.maximum(seen.shape[1] - np.diff(seen.indptr), 1)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        of_seen = np.bincount(row, values[row, seen.indices], minlength=len(values))
        return np.asarray((values.sum(1, dtype=np.float64) - of_seen) / left)

    middle = mean(scores)
    centred: NDArray[Any] = scores - middle[:, None].astype(scores.dtype)
    deviation = np.sqrt(np.maximum(mean(np.square(centred)), 0))
    # equal scores differ from their mean by a rounding error, which must not become their scale
    flat = deviation <= 1e-6 * np.abs(middle)
    scale = np.where(flat, 0.0, 1 / np.where(flat, 1.0, deviation))
    centred *= scale[:, None].astype(scores.dtype)
    return centred


def simplex(size: int, grid: int) -> Iterator[tuple[float, ...]]:
    """All `size` weights that are multiples of 1 / grid and sum to 1, the most even ones first.

    >>> list(simplex(2, 2))
    [(0.5, 0.5), (0.0, 1.0), (1.0, 0.0)]
    """
    dealt = itertools.product(range(grid + 1), repeat=size - 1)
    whole = [(*some, grid - sum(some)) for some in dealt if sum(some) <= grid]
    for counts in sorted(whole, key=lambda counts: (sum(n * n for n in counts), counts)):
        yield tuple(n / grid for n in counts)
