"""Ensemble: scores of fitted models on one scale, summed with weights chosen on validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator
from scipy.sparse import csr_matrix, eye_array

from greysheep.data.splitting import Split
from greysheep.errors import ConfigError, warn
from greysheep.models.base import Model, take
from greysheep.models.config import ModelConfig, split_outside
from greysheep.models.fitted import Fitted
from greysheep.models.move import Move
from greysheep.models.recommender import in_pieces
from greysheep.models.registry import parse
from greysheep.models.scale import standardised
from greysheep.models.selection import Pool, Selection, select
from greysheep.models.training.objective import Objective, ObjectiveText
from greysheep.models.training.progress import Steps
from greysheep.models.training.validation import Validation

WIDTHS = "state_widths"
"""Saved tensor: columns of `user_state` that belong to each member."""


class EnsembleConfig(ModelConfig):
    """Settings of an ensemble."""

    members: tuple[str, ...] = ("ease-weighted", "userknn", "multvae")
    """Its members as texts, `ease` or `ease[regularization=100]`, each once; also one text, joined by `+`."""
    weights: tuple[float, ...] | None = None
    """Weight of each member in the order of `members`, also as a text `0.4+0.6`. None: chosen by `fit`, which
    records its choice here; a loaded ensemble has the weights it was saved with, and keeps them."""
    objective: ObjectiveText = "mean-ndcg"
    """What the weights maximise on validation rows: `mean-ndcg` (NDCG@1, 5, 10, 20), `recall@20` and the
    like; `:low` (any group) or `:worst` behind it asks for that group."""

    @field_validator("members", mode="before")
    @classmethod
    def _read_members(cls, given: Any) -> Any:
        if given is None or isinstance(given, bool | int | float):  # `members=` and `members=3` of a text
            raise ConfigError(
                f"ensemble: members={given!r} names no models: join their names by +, as in "
                "ensemble[members=ease+userknn]"
            )
        return split_outside(given, "+") if isinstance(given, str) else given

    @field_validator("weights", mode="before")
    @classmethod
    def _read_weights(cls, given: Any) -> Any:
        return tuple(float(part) for part in given.split("+")) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _fits_together(self) -> EnsembleConfig:
        shown = "+".join(self.members)
        if not self.members or len(set(self.members)) < len(self.members):
            raise ConfigError(f"ensemble: members={shown!r} is not one or more models joined by +, each once")
        if any(text.partition("[")[0] == "ensemble" for text in self.members):
            raise ConfigError(f"ensemble: members={shown!r} holds an ensemble: name its members instead")
        if self.weights is not None:
            if len(self.weights) != len(self.members):
                raise ConfigError(f"ensemble: {len(self.weights)} weights for {len(self.members)} members")
            if min(self.weights) < 0 or not 1e-6 <= sum(self.weights) <= 1e6:
                raise ConfigError(
                    f"ensemble: weights={self.weights} must be 0 or more, one of them above 0, "
                    "their sum from 1e-6 to 1e6"
                )
        return self


class Ensemble(Model):
    """Weighted sum of z-scores: score(u, i) = sum over members m of w_m (s_m(u, i) - mean) / deviation.

    Mean and standard deviation are taken per user and member, over the items that are not in her input: her
    own items score far above the rest and would set the scale. A member that gives all of these the same
    score adds nothing.

    Weights are chosen on validation rows by forward selection with replacement (Caruana et al., ICML 2004),
    from the mean of the best few members as far as cross-validation over users bears it out. A member of
    weight 0 is dropped. Under protocol `all` closed forms are fitted twice: without validation rows to
    choose, then on every row. Without validation rows all members weigh alike, and a warning says so. `fit`
    records members and weights in `config`.

    Seed, threads and other run options are those of the ensemble.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.Ensemble(members="itemknn+ease[regularization=10]").fit(log)
    >>> model.recommend(log.user_ids[:2], k=3).height
    6
    """

    name = "ensemble"
    Config = EnsembleConfig
    parts: list[Model]
    """Its members."""
    weights: NDArray[np.float64]
    """[M] in use, sum 1."""
    selection: Selection | None = None
    """How the weights were chosen, among all members that were given; None where they were given, too."""

    def __init__(self, **keywords: Any):
        super().__init__(**keywords)
        self._asked = self.config
        self._fitted_parts: list[Model] | None = None
        self.parts = self._make_parts()

    @classmethod
    def of(cls, fitted: Sequence[Model], **keywords: Any) -> Self:
        """An ensemble of models that were fitted on one split; `fit` on that split only chooses weights."""
        ensemble = cls(members=tuple(part.label for part in fitted), **keywords)
        ensemble.parts = ensemble._fitted_parts = list(fitted)
        return ensemble

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """As of every model; members and weights as they were asked for, not as `fit` chose them."""
        return {**self._asked.model_dump(), **self.options.model_dump()}

    def _make_parts(self) -> list[Model]:
        return [parse(text, **self.options.model_dump()) for text in self.config.members]

    @property
    def uses_gate_rows(self) -> bool:
        """Whether a member holds gate rows out."""
        return any(part.uses_gate_rows for part in self.parts)

    @property
    def trains_in_epochs(self) -> bool:
        """Whether a member does."""
        return any(part.trains_in_epochs for part in self.parts)

    def _fit(self, split: Split) -> None:
        self.config = self._asked
        shares = self.config.weights
        choose = shares is None and bool(split.rows("validation").nnz)
        held = held_back(split) if choose else split
        self._fit_parts(split, held)
        if choose:
            shares = self._choose(held)
        elif shares is None:
            shares = (1 / len(self.parts),) * len(self.parts)
            warn(f"no user has a validation row: the {len(shares)} members of {self.name} weigh alike", 3)
        kept = [m for m, share in enumerate(shares) if share > 0]
        self.parts = [self.parts[m] for m in kept]
        self.weights = np.asarray(shares)[kept] / sum(shares)
        members = tuple(self.config.members[m] for m in kept)
        self.config = self.config.model_copy(
            update={"members": members, "weights": tuple(self.weights.tolist())}
        )
        if held is not split:
            for part in self.parts:
                if not part.validates:
                    part.fit(split)

    def _fit_parts(self, split: Split, held: Split) -> None:
        if self._fitted_parts is not None:
            self.parts, self._fitted_parts = self._fitted_parts, None  # of this split, not of the next one
            return
        self.parts = self._make_parts()
        for part in self.parts:
            part.fit(split if part.validates else held, checkpoints=self.checkpoints)
            self.fitted.interrupted = part.interrupted
            if part.interrupted and part is not self.parts[-1]:
                raise KeyboardInterrupt  # without the members to come it is no model yet

    def _choose(self, split: Split) -> tuple[float, ...]:
        """The weights that selection finds on the validation rows of a split."""
        objective = Objective.parse(self.config.objective)
        validation = Validation(split, objective, weighted=True)
        groups = split.user_groups
        chunks = list(in_pieces(validation.users, split.log.n_items))
        pools = []
        with Steps(
            f"{self.label}: weights", len(chunks), self.options.progress, "part of the users"
        ) as steps:
            for chunk in chunks:
                states = [None if part.user_state is None else part.user_state[chunk] for part in self.parts]
                given, truth = validation.given[chunk], validation.truth[chunk]
                each = self._standard_scores(given, states)
                pools.append(Pool.of(each, given, truth, groups.of(chunk), validation.place))
                steps.step()
        self.selection = select(Pool.together(pools), objective, self.options.seed)
        if np.isnan(self.selection.value):
            raise ConfigError(f"objective {self.config.objective!r}: no user of it has validation rows")
        return tuple(self.selection.weights.tolist())

    def _standard_scores(self, rows: csr_matrix, states: list[Any]) -> NDArray[Any]:
        """Z-scores [M, B, I] of the members for users whose input is `rows`; states: theirs."""
        ones = csr_matrix((np.ones_like(rows.data), rows.indices, rows.indptr), rows.shape)
        parts = zip(self.parts, states, strict=True)
        return np.stack([self._of_part(*pair, ones if pair[0].binary else rows) for pair in parts])

    @staticmethod
    def _of_part(part: Model, state: Any, rows: csr_matrix) -> NDArray[Any]:
        """Z-scores [B, I] of one member; 0 for items that its weights do not know."""
        known = part.known_part(rows)
        return part.spread(standardised(part._scores(known, state), known), fill=0)

    def check_without_rows(self) -> None:
        """Refuse to be saved without rows if a member needs them."""
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
        # rows that a member now trains on are train rows of the ensemble, too: only its own split is saved
        self.fitted.split = next((part.split for part in self.parts if part.split is not first), first)

    def _finish(self) -> None:
        super()._finish()
        self.fitted.trained_items = np.any([part.trained_items for part in self.parts], axis=0)

    def _known_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """The members' states side by side, [U, sum of S]."""
        stored = [part.user_state for part in self.parts]
        self.state_widths = np.array([0 if state is None else state.shape[1] for state in stored])
        return _side_by_side(stored)

    def _mixing_entropy(self) -> float | None:
        """That of the first member with a gate."""
        return next((part.gate_entropy for part in self.parts if part.gate_entropy is not None), None)

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        return _side_by_side(
            [part._user_state(part.known_part(seen), part.known_part(held_out)) for part in self.parts]
        )

    def _own_states(self, user_state: NDArray[Any] | None) -> list[NDArray[Any] | None]:
        """Each member's share of states [..., S]; None for a member without."""
        ends = np.cumsum(self.state_widths)
        return [
            None if user_state is None or width == 0 else user_state[..., end - width : end]
            for width, end in zip(self.state_widths, ends, strict=True)
        ]

    def _speakers(self, user_state: NDArray[Any] | None) -> list[tuple[str, float]]:
        """The members; in place of one with experts these, by its weight."""
        voices = []
        own = zip(self.config.members, self.parts, self.weights, self._own_states(user_state), strict=True)
        for text, part, weight, state in own:
            within = part._speakers(state) or [("", 1.0)]
            voices += [(f"{text} {voice}".strip(), float(weight * share)) for voice, share in within]
        return voices

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        each = self._standard_scores(rows, self._own_states(user_state))
        return np.asarray(np.tensordot(self.weights.astype(each.dtype), each, axes=1))

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Weighted sum [n, I] of the members' similarities, each z-scored over the other items."""
        total = np.zeros((len(items), self.log.n_items))
        for part, weight in zip(self.parts, self.weights, strict=True):
            places = part.known_places(items)
            known = np.flatnonzero(places >= 0)
            itself = csr_matrix(eye_array(self.log.n_items, format="csr")[items[known]])
            own = standardised(part._similarity(places[known]), part.known_part(itself))
            total[known] += weight * part.spread(own, fill=0)
        return total

    def keeps_weights(self) -> list[str]:
        """Those of its members."""
        return [name for part in self.parts for name in part.keeps_weights()]

    def carried(self, move: Move) -> Self:
        """Its members on other rows, with the weights that they have."""
        other, state, ends = self._twin(), self.user_state, np.cumsum(self.state_widths)
        for part, width, end in zip(self.parts, self.state_widths, ends, strict=True):
            if part.user_state is None and state is not None and width:  # read from a folder
                part.user_state = state[:, end - width : end]
            if not len(part.trained_items):
                part.fitted.trained_items = self.trained_items
        other.parts, other.weights = [part.carried(move) for part in self.parts], self.weights
        other.fitted = move.record(self.fitted)
        other.fitted.learned = None  # each member says what it knows
        none = csr_matrix((0, other.log.n_items))
        other.user_state = other._known_state(none, none)
        other.fitted.trained_items = np.any([part.trained_items for part in other.parts], axis=0)
        return other

    def _check_user_state(self, state: NDArray[Any] | None) -> None:
        """Each member checks its own columns."""
        widths, found = self.state_widths, 0 if state is None else state.shape[1]
        if (widths < 0).any() or widths.sum() != found:
            raise ValueError(f"the members' states have {found} columns, not {widths.tolist()}")
        for part, start, width in zip(self.parts, np.cumsum(widths) - widths, widths, strict=True):
            part._check_user_state(None if state is None or not width else state[:, start : start + width])

    def _state(self) -> dict[str, Any]:
        return self._with_members([part._state() for part in self.parts])

    def _saved_state(self, with_rows: bool) -> dict[str, Any]:
        # members score rows: what one alone would keep of known users, such as their vectors, is not read
        return self._with_members([part.tensors(with_rows=False) for part in self.parts])

    def _with_members(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        own: dict[str, Any] = {"weights": self.weights, WIDTHS: self.state_widths}
        return own | {f"{m}.{key}": value for m, each in enumerate(states) for key, value in each.items()}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        self.parts = self._make_parts()
        self.weights = take(state, "weights", len(self.parts))
        if (self.weights < 0).any() or abs(self.weights.sum() - 1) > 1e-6:
            raise ValueError("tensor 'weights' must be 0 or more, and of sum 1")
        self.state_widths = take(state, WIDTHS, len(self.parts), kind="i")
        for m, part in enumerate(self.parts):
            part.fitted = Fitted(self.split, weighted=not part.binary, has_history=self.has_history)
            start = f"{m}."
            own = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
            part.take_tensors(own)


def held_back(split: Split) -> Split:
    """What closed forms are fitted on for a choice: under `all` they would learn the rows that decide."""
    choose = split.protocol == "all" and split.rows("validation").nnz
    return replace(split, protocol="strict") if choose else split


def _side_by_side(states: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    known = [state for state in states if state is not None]
    return np.concatenate(known, axis=1) if known else None
