"""What answers with lists, whatever it learned: ranks known users, serves new ones, finds similar items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from greysheep.data.columns import GROUP, ITEM, USER
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import Split, Stage
from greysheep.errors import ConfigError, DataError, NotFittedError
from greysheep.mainstream.groups import GROUPS, Mainstream
from greysheep.mainstream.scores import mainstream_scores
from greysheep.metrics.ranking import top_n
from greysheep.models.config import RunOptions
from greysheep.models.fitted import Fitted
from greysheep.models.lists import (
    ON_UNKNOWN,
    Audience,
    allowed_items,
    as_ids,
    check_unknown,
    find_audience,
    list_frame,
    mask,
    read_history,
)

SCORING_CELLS = 1 << 24
"""Scores held at once (64 MB in float32)."""


class Recommender(ABC):
    """Answers with lists by the scores of a subclass; ids, unseen users and candidates are handled here.

    `fitted` says what it was fitted on. `user_state` [U, S] is what scoring needs of known users beside
    their input: a mixture's gate, a local model's weights, an index's vectors; None where rows are enough.
    """

    name: ClassVar[str]
    label: str
    binary: ClassVar[bool] = False
    """True where weights are ignored."""
    options: RunOptions
    user_state: NDArray[Any] | None = None
    _fitted: Fitted | None = None

    # What a subclass brings

    @abstractmethod
    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        """Scores [B, I] of users with input `rows` [B, I] and the state `user_state` [B, S], or None."""

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """State [B, S] of people by input rows and held-out rows; None where their input is enough."""
        return None

    def _stage_state(self, users: NDArray[Any], stage: Stage) -> NDArray[Any] | None:
        """State of known users; the same at every stage unless a subclass says otherwise."""
        return None if self.user_state is None else self.user_state[users]

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Similarity [n, I] of items to all items; default: cosine of their columns in the stored rows."""
        if not self.has_history:
            raise DataError(f"this {self.name} was saved without its rows: similar items are read from them")
        columns = self.rows.T.tocsr()
        norm = np.sqrt(np.maximum(np.asarray(columns.multiply(columns).sum(1)).ravel(), 1e-12))
        product: NDArray[Any] = (columns[items] @ columns.T).toarray()
        cosine: NDArray[Any] = product / norm[items, None] / norm
        return cosine

    # What is known of the fit

    @property
    def fitted(self) -> Fitted:
        """The record of the fit.

        Raises:
            NotFittedError: before `fit`.
        """
        if self._fitted is None:
            raise NotFittedError(f"this {self.name} is not fitted: call fit(log) first")
        return self._fitted

    @fitted.setter
    def fitted(self, record: Fitted | None) -> None:
        self._fitted = record

    @property
    def split(self) -> Split:
        """The rows it was fitted on, and their parts."""
        return self.fitted.split

    @property
    def log(self) -> Interactions:
        """The log behind the split."""
        return self.fitted.log

    @property
    def rows(self) -> csr_matrix:
        """Every stored row, [U, I]: input and seen items of known users when recommending."""
        return self.fitted.rows

    @property
    def has_history(self) -> bool:
        """Whether it has its rows; False after loading a model that was saved without them."""
        return self.fitted.has_history

    @property
    def history(self) -> list[dict[str, Any]]:
        """One line an epoch."""
        return self.fitted.history

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return self.fitted.epochs

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept."""
        return self.fitted.best_epoch

    @property
    def gate_entropy(self) -> float | None:
        """Mean entropy of what mixes the experts for a user; None without experts."""
        return self.fitted.gate_entropy

    @property
    def train_seconds(self) -> float:
        """Seconds of `fit`."""
        return self.fitted.train_seconds

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory the process held up to the end of `fit`."""
        return self.fitted.peak_memory_bytes

    @property
    def trained_items(self) -> NDArray[np.bool_]:
        """[I] whether the item had rows to learn from."""
        return self.fitted.trained_items

    @property
    def item_counts(self) -> NDArray[np.int64]:
        """[I] stored rows of each item."""
        return self.fitted.item_counts

    @property
    def mainstream(self) -> Mainstream:
        """Scores and groups on the split's train rows: those of evaluation.

        Raises:
            DataError: the model was saved without its rows.
        """
        if not self.has_history:
            raise DataError(f"this {self.name} was saved without its rows: groups are read from them")
        return self.fitted.mainstream

    @property
    def serving_mainstream(self) -> Mainstream:
        """Scores and groups on every stored row: those a new user is compared with."""
        return self.fitted.serving_mainstream

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

    # Lists

    def rank(self, users: NDArray[Any], *, k: int = 20, stage: Stage = "test") -> NDArray[np.int64]:
        """Top k of known users among all items but their input of that stage (docs/method.md, "Protocols").

        users: [n] codes. stage: "validation", "test" or "serving".
        Returns [n, min(k, I)] item codes, best first, -1 where nothing is left.
        """
        given = self.split.input_rows(stage, weighted=not self.binary)
        parts = [np.empty((0, min(k, self.log.n_items)), np.int64)]
        with torch_threads(self.options.threads):
            for chunk in in_pieces(np.asarray(users), self.log.n_items):
                scores = self._scores(given[chunk], self._stage_state(chunk, stage))
                mask(scores, given[chunk])
                parts.append(top_n(scores, k))
        return np.concatenate(parts)

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
        if on_unknown not in ON_UNKNOWN:
            raise ConfigError(f"on_unknown={on_unknown!r}: choose one of {', '.join(ON_UNKNOWN)}")
        with torch_threads(self.options.threads):
            allowed = allowed_items(self.log, self.trained_items, candidates, exclude_items)
            audience = self._audience(users, history)
            check_unknown(audience, on_unknown, self.has_history)
            positions = np.arange(len(audience.ids))
            if on_unknown == "skip":
                positions = positions[~audience.unknown]
            lists, values = [], []
            for chunk in in_pieces(positions, self.log.n_items):
                scores, seen = self._scored(audience, chunk)
                scores[:, ~allowed] = -np.inf
                if exclude_seen:
                    mask(scores, seen)
                lists.append(top_n(scores, k))
                values.append(np.take_along_axis(scores, np.maximum(lists[-1], 0), axis=1))
        return list_frame(self.log, audience.ids, positions, lists, values)

    def similar_items(self, items: Any, k: int = 20) -> pl.DataFrame:
        """The k items most like each given one: item_id, similar_item_id, score, rank.

        Raises:
            DataError: an item is unknown.
        """
        wanted = as_ids(items, "items")
        codes = self.log.encode_items(wanted)
        if (codes < 0).any():
            strange = [str(x) for x in wanted.filter(pl.Series(codes < 0)).head(3)]
            raise DataError(f"{int((codes < 0).sum())} unknown items, among them {', '.join(strange)}")
        lists, values = [], []
        for chunk in in_pieces(codes, self.log.n_items):
            scores = np.array(self._similarity(chunk))
            scores[:, ~self.trained_items] = -np.inf
            scores[np.arange(len(chunk)), chunk] = -np.inf
            lists.append(top_n(scores, k))
            values.append(np.take_along_axis(scores, np.maximum(lists[-1], 0), axis=1))
        similar = list_frame(self.log, self.log.decode_items(codes), np.arange(len(codes)), lists, values)
        return similar.rename({ITEM: "similar_item_id"}).rename({USER: ITEM})

    def _audience(self, users: Any, history: Any) -> Audience:
        """Who is meant, and what is known of them."""
        new = None
        if history is not None:
            new = history if isinstance(history, Interactions) else Interactions.read(history)
        rows, seen, held_out = read_history(self.log, new, self.binary)
        state = self._states(seen, held_out)
        return find_audience(self.log, users, new, rows, state, self.has_history)

    def _states(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """State [n, S] of many people, worked out in pieces."""
        parts = [
            self._user_state(seen[some], held_out[some])
            for some in in_pieces(np.arange(seen.shape[0]), seen.shape[1])
        ]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if known else None

    def _scored(self, audience: Audience, chunk: NDArray[Any]) -> tuple[NDArray[Any], csr_matrix]:
        """Scores [B, I] and seen rows of some of the audience; the history comes before the stored rows."""
        code, place = audience.code[chunk], audience.place[chunk]
        stored, given, nobody = (place < 0) & (code >= 0), place >= 0, audience.unknown[chunk]
        blank = csr_matrix((1, self.log.n_items), dtype=np.float32)
        pool = vstack([blank, audience.history[place[given]], self.rows[code[stored]]], format="csr")
        pick = np.zeros(len(chunk), dtype=np.int64)  # nobody's row is the blank one
        pick[given] = 1 + np.arange(given.sum())
        pick[stored] = 1 + given.sum() + np.arange(stored.sum())
        seen = pool[pick]
        state = None
        if self.user_state is not None:
            width = self.user_state.shape[1]
            state = np.full((len(chunk), width), 1 / width, self.user_state.dtype)
            state[stored] = self.user_state[code[stored]]
            if audience.user_state is not None:
                state[given] = audience.user_state[place[given]]
        scores = np.array(self._scores(seen, state))
        scores[nobody] = self.item_counts
        return scores, seen


def in_pieces(positions: NDArray[Any], n_items: int) -> Iterator[NDArray[Any]]:
    """Positions in pieces whose scores fit in SCORING_CELLS."""
    size = int(np.clip(SCORING_CELLS // max(1, n_items), 1, 2048))
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


@contextmanager
def torch_threads(n: int | None) -> Iterator[None]:
    """Give torch n threads for a while."""
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
