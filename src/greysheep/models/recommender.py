"""What every model can do once fitted: rank items for known users, serve new ones, find similar items."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from greysheep.data.columns import GROUP, ITEM, USER
from greysheep.data.ids import ids_like, positions_in
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import Split, Stage
from greysheep.errors import DataError, NotFittedError
from greysheep.mainstream.groups import GROUPS, Mainstream
from greysheep.mainstream.jaccard import binary
from greysheep.metrics.ranking import tie_order
from greysheep.models.config import RunOptions
from greysheep.models.contributions import Contributions, alone, as_frames, left_out
from greysheep.models.fitted import Fitted
from greysheep.models.lists import (
    ON_UNKNOWN,
    Asked,
    Audience,
    best_of,
    check_unknown,
    choice_of,
    find_audience,
    history_items,
    list_frame,
    mask,
    named_users,
    read_history,
)
from greysheep.system.checks import flag, one_of, whole_number
from greysheep.system.forks import refuse_forked

SCORING_CELLS = 1 << 24
"""Scores held at once (64 MB in float32)."""


def recorded(name: str, meaning: str) -> Any:
    """A read-only attribute that the record of the fit holds under this name."""
    return property(attrgetter(f"fitted.{name}"), doc=meaning)


class Recommender(ABC):
    """Answers with lists by the scores of a subclass; ids, unseen users and candidates are handled here.

    `fitted` says what it was fitted on. `user_state` [U, S] is what scoring needs of known users beside
    their input: a mixture's gate, a local model's weights, an index's vectors; None where rows are enough.
    """

    name: ClassVar[str]
    label: str
    binary: ClassVar[bool] = False
    """True where weights are ignored."""
    linear: ClassVar[bool] = False
    """True where a person's scores are the sum of those that each of her rows would give alone."""
    options: RunOptions
    user_state: NDArray[Any] | None = None
    _fitted: Fitted | None = None

    # What a subclass defines

    @abstractmethod
    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        """Scores [B, I] of users with input `rows` [B, I] and the state `user_state` [B, S], or None."""

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """State [B, S] of people by input rows and held-out rows; None where their input is enough."""
        return None

    def _stage_state(self, users: NDArray[Any], stage: Stage) -> NDArray[Any] | None:
        """State of known users; the same at every stage unless a subclass says otherwise."""
        return None if self.user_state is None else self.user_state[users]

    def _speakers(self, user_state: NDArray[Any] | None) -> list[tuple[str, float]]:
        """Names and weights of the experts or members that score a person of this state [S]."""
        return []

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Similarity [n, I] of items to all items; default: cosine of their columns in the stored rows."""
        if not self.has_history:
            raise DataError(f"this {self.name} was saved without its rows: similar items are read from them")
        rows = self.known_part(self.rows)
        columns = rows.T.tocsr().astype(np.float64)  # squares of large weights are beyond float32
        norm = np.sqrt(np.asarray(columns.multiply(columns).sum(1)).ravel())
        norm[norm == 0] = 1
        return np.asarray((columns[items] @ columns.T).toarray() / norm[items, None] / norm)

    # Where weights do not know all items, a subclass sees those alone that they know

    @property
    def _learned(self) -> NDArray[np.int64] | None:
        """Codes of the items that the weights know; None = all, as of a model that is about to be trained."""
        return None if self._fitted is None else self._fitted.learned

    @property
    def known_items(self) -> NDArray[np.int64]:
        """Codes of the items that the weights know."""
        learned = self._learned
        return np.arange(self.log.n_items) if learned is None else learned

    def known_part(self, rows: csr_matrix) -> csr_matrix:
        """Rows [B, I] as the weights know them: without items that came after the training."""
        learned = self._learned
        return rows if learned is None else csr_matrix(rows[:, learned])

    def spread(self, values: NDArray[Any], fill: float = -np.inf) -> NDArray[Any]:
        """What a subclass says of the items that it knows, of all items: [B, I], `fill` for the others."""
        learned = self._learned
        if learned is None:
            return values
        wide = np.full((len(values), self.log.n_items), fill, values.dtype)
        wide[:, learned] = values
        return wide

    def known_places(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where items stand among those that the weights know, -1 where they do not."""
        learned = self._learned
        if learned is None:
            return items
        place = np.minimum(np.searchsorted(learned, items), len(learned) - 1)
        return np.where(learned[place] == items, place, -1)

    # What is known of the fit

    @property
    def fitted(self) -> Fitted:
        """The record of the fit.

        Raises:
            NotFittedError: before `fit`.
            ForkedProcessError: this process was forked after polars had started its threads.
        """
        refuse_forked()  # here, as everything that a fitted model does begins here
        if self._fitted is None:
            raise NotFittedError(f"this {self.name} is not fitted: call fit(log) first")
        return self._fitted

    @fitted.setter
    def fitted(self, record: Fitted | None) -> None:
        self._fitted = record

    split: Split = recorded("split", "The rows it was fitted on, and their parts.")
    log: Interactions = recorded("log", "The log behind the split.")
    rows: csr_matrix = recorded("rows", "Every stored row, [U, I]: input and seen items when recommending.")
    has_history: bool = recorded(
        "has_history", "Whether it has its rows; False if it was saved without them."
    )
    history: list[dict[str, Any]] = recorded("history", "Losses and metrics of each epoch.")
    epochs: int = recorded("epochs", "Epochs that were trained.")
    best_epoch: int = recorded("best_epoch", "The epoch whose weights are kept.")
    gate_entropy: float | None = recorded("gate_entropy", "Users' mean gate entropy; None without experts.")
    train_seconds: float = recorded("train_seconds", "Seconds of `fit`.")
    peak_memory_bytes: int = recorded("peak_memory_bytes", "Peak memory of the process at the end of `fit`.")
    interrupted: bool = recorded("interrupted", "Whether Ctrl-C ended the training early.")
    trained_items: NDArray[np.bool_] = recorded(
        "trained_items", "[I] whether the item had rows to learn from."
    )
    item_counts: NDArray[np.int64] = recorded("item_counts", "[I] stored rows of each item.")
    serving_mainstream: Mainstream = recorded(
        "serving_mainstream", "Scores and groups on every stored row: those a new user is compared with."
    )

    @property
    def mainstream(self) -> Mainstream:
        """Scores and groups on the split's train rows: those of evaluation.

        Raises:
            DataError: the model was saved without its rows.
        """
        if not self.has_history:
            raise DataError(f"this {self.name} was saved without its rows: groups are read from them")
        return self.fitted.mainstream

    def groups_of(self, history: Any) -> pl.DataFrame:
        """Group of people by their rows (known or not), by the stored cut points: user_id, score, group."""
        if not self.has_history:
            raise DataError(
                "this model was saved without its rows: a new user has nobody to be compared with"
            )
        new = Interactions.of(history)
        ids_like(new.user_ids, "history", USER, self.log.user_ids)  # a known user must be known as one
        codes = history_items(self.log, new, 2)[new.items]
        known = codes >= 0
        shape = (new.n_users, self.log.n_items)
        rows = csr_matrix((np.ones(known.sum(), np.float32), (new.users[known], codes[known])), shape)
        scores = self.fitted.crowd.mean_similarity(rows)
        self._leave_out_oneself(scores, rows, self.log.encode_users(new.user_ids))
        groups = np.asarray(GROUPS)[self.serving_mainstream.assign(scores)]
        return pl.DataFrame({USER: new.user_ids, "score": scores, GROUP: groups})

    def _leave_out_oneself(self, scores: NDArray[Any], rows: csr_matrix, codes: NDArray[np.int64]) -> None:
        """Take known users (code 0 up) out of the mean of similarities to all users: [n] scores, in place."""
        known = np.flatnonzero(codes >= 0)
        if not len(known):
            return
        current, stored = rows[known], binary(self.rows[codes[known]])
        common = np.asarray(current.multiply(stored).sum(1)).ravel()
        either = np.diff(current.indptr) + np.diff(stored.indptr) - common
        n_users = self.log.n_users
        scores[known] = (scores[known] * n_users - common / np.maximum(either, 1)) / max(1, n_users - 1)

    # Lists

    def rank(self, users: NDArray[Any], *, k: int = 20, stage: Stage = "test") -> NDArray[np.int64]:
        """Top k of known users among all items but their input of that stage (docs/method.md, "Protocols").

        users: [n] codes. stage: "validation", "test" or "serving". Of items with equal scores the one with
        more input rows at that stage comes first, then the smaller code.
        Returns [n, min(k, I)] item codes, best first, -1 where nothing is left.
        """
        k = whole_number("k", k)
        input_rows = self.split.input_rows(stage)
        place = tie_order(np.bincount(input_rows.indices, minlength=self.log.n_items))
        parts = [np.empty((0, min(k, self.log.n_items)), np.int64)]
        parts += [best_of(scores, k, place)[0] for scores in self.stage_scores(users, stage)]
        return np.concatenate(parts)

    def stage_scores(self, users: NDArray[Any], stage: Stage = "test") -> Iterator[NDArray[Any]]:
        """Scores [B, I] of known users ([n] codes), a part of them at a time; -inf for their input."""
        users = positions_in(users, self.log.n_users, "users")
        input_rows = self.split.input_rows(stage, weighted=not self.binary)
        with torch_threads(self.options.threads):
            for chunk in in_pieces(users, self.log.n_items):
                state = self._stage_state(chunk, stage)
                scores = self.spread(self._scores(self.known_part(input_rows[chunk]), state))
                mask(scores, input_rows[chunk])
                yield scores

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

        Of items with equal scores, as those of which the model knows nothing for a user, the one with more
        stored rows comes first, then the smaller id.

        Args:
            users: ids in the log's type, as a list, set, array, Series or column of a frame; None = everybody
                in `history`, or those named in `candidates`, or every known user.
            k: length of the lists; shorter where fewer items are left.
            exclude_seen: leave out every stored row of the user, test rows included, and her history.
            candidates: item ids to choose among, the same for all; or each user's own, as {user: items} or as
                a frame with user_id and item_id: who is not named there gets no list. Items without train
                rows come only when named here.
            exclude_items: item ids that are never recommended, to nobody.
            history: rows of people, known or not (anything `Interactions.read` takes); for a known id they
                replace the stored rows, as input and as seen items.
            on_unknown: users with neither stored rows nor history: "raise", "skip", or "popular" items.

        Raises:
            UnknownUserError: unknown users under on_unknown="raise".
            DataError: no candidate is known, ids come in another type than the log's or as no list, or a
                score is no finite number.
            ConfigError: k is no whole number from 1 up, or `on_unknown` none of the three.
            NotFittedError: before `fit`.
        """
        asked = self.asked(
            users, k=k, exclude_seen=exclude_seen, candidates=candidates, exclude_items=exclude_items,
            history=history, on_unknown=on_unknown,
        )  # fmt: skip
        return self.lists(asked)

    def asked(
        self,
        users: Any = None,
        *,
        k: int = 20,
        exclude_seen: bool = True,
        candidates: Any = None,
        exclude_items: Any = None,
        history: Any = None,
        on_unknown: str = "raise",
    ) -> Asked:
        """Who is to get which lists, all checked: what `recommend` is asked, for `lists` to make in parts."""
        on_unknown = one_of("on_unknown", on_unknown, ON_UNKNOWN)
        k, exclude_seen = whole_number("k", k), flag("exclude_seen", exclude_seen)
        with torch_threads(self.options.threads):
            if users is None and history is None:
                users = named_users(self.log, candidates)
            audience = self._audience(users, history)
        choice = choice_of(self.log, self.trained_items, audience.ids, candidates, exclude_items)
        check_unknown(audience, on_unknown, self.has_history)
        positions = np.arange(len(audience.ids))
        if on_unknown == "skip":
            positions = positions[~audience.unknown]
        return Asked(audience, choice, positions, k, exclude_seen)

    def lists(self, asked: Asked, start: int = 0, stop: int | None = None) -> pl.DataFrame:
        """The lists of those who stand from `start` to before `stop` among who is to get some."""
        positions, best = asked.positions[start:stop], []
        with torch_threads(self.options.threads):
            for chunk in in_pieces(positions, self.log.n_items):
                scores, seen = self._scored(asked.audience, chunk)
                asked.choice.rule_out(scores, chunk)
                if asked.exclude_seen:
                    mask(scores, seen)
                best.append(best_of(scores, asked.k, self.fitted.place))
        return list_frame(self.log, asked.audience.ids, positions, best)

    def similar_items(self, items: Any, k: int = 20) -> pl.DataFrame:
        """The k items most like each given one: item_id, similar_item_id, score, rank.

        Of equally similar ones the one with more stored rows comes first, then the smaller id.

        Raises:
            DataError: an item is unknown, or the ids are of another type than the log's.
        """
        k, codes = whole_number("k", k), self._item_codes(items)
        best = []
        for chunk in in_pieces(codes, self.log.n_items):
            scores = np.array(self.spread(self._similarity(self.known_places(chunk))))
            scores[:, ~self.trained_items] = -np.inf
            scores[np.arange(len(chunk)), chunk] = -np.inf
            best.append(best_of(scores, k, self.fitted.place))
        similar = list_frame(self.log, self.log.decode_items(codes), np.arange(len(codes)), best)
        return similar.rename({ITEM: "similar_item_id"}).rename({USER: ITEM})

    def contributions(self, user: Any = None, items: Any = None, *, history: Any = None) -> Contributions:
        """Which rows of one person speak for items, and which experts or members, and how loudly.

        Exact where the model is linear (`ease`, `ease-weighted`, `itemknn`); elsewhere each row is left out
        once, with the gate as it is.

        Args:
            user: id of a known user; None: the one person in `history`.
            items: ids of items; None = the ten that she is recommended.
            history: rows of a person, known or not, in place of the stored ones.

        Raises:
            UnknownUserError: she has neither stored rows nor a history.
            DataError: an item is unknown, or it is not one person who is named.
        """
        audience = self._audience(None if user is None else [user], history)
        if len(audience.ids) != 1:
            raise DataError(f"contributions are those of one person: {len(audience.ids)} are named")
        check_unknown(audience, "raise", self.has_history)
        if items is None:
            items = self.recommend(audience.ids, k=10, history=history)[ITEM]
        codes = self._item_codes(items)
        row, state = self._input(audience, np.zeros(1, np.int64))

        def score(rows: csr_matrix) -> NDArray[Any]:
            state_of_each = None if state is None else np.repeat(state, rows.shape[0], axis=0)
            return self.spread(self._scores(self.known_part(rows), state_of_each))

        with torch_threads(self.options.threads):
            each = (alone if self.linear else left_out)(score, row, codes)
        voices = self._speakers(None if state is None else state[0])
        return as_frames(self.log, row, codes, each, voices, self.linear)

    def _item_codes(self, items: Any) -> NDArray[np.int64]:
        """Codes of items, each once.

        Raises:
            DataError: one is unknown, or the ids are of another type than the log's.
        """
        wanted = ids_like(items, "items", ITEM, self.log.item_ids).unique(maintain_order=True)
        codes = self.log.encode_items(wanted)
        if (codes < 0).any():
            strange = [str(x) for x in wanted.filter(pl.Series(codes < 0)).head(3)]
            raise DataError(f"{int((codes < 0).sum())} unknown items, among them {', '.join(strange)}")
        if late := int((self.known_places(codes) < 0).sum()):
            raise DataError(f"{late} of {len(codes)} items came after the training: fit the model again")
        return codes

    def _audience(self, users: Any, history: Any) -> Audience:
        """Who gets lists, and the rows known of them."""
        new = None if history is None else Interactions.of(history)
        rows, seen, held_out = read_history(self.log, new, self.binary, self.fitted.learned)
        state = self._states(seen, held_out)
        return find_audience(self.log, users, new, rows, state, self.has_history)

    def _states(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """State [n, S] of many users, computed in pieces."""
        states, part = [], self.known_part
        for some in in_pieces(np.arange(seen.shape[0]), seen.shape[1]):
            state = self._user_state(part(seen[some]), part(held_out[some]))
            if state is None:
                return None
            states.append(state)
        return np.concatenate(states) if states else None

    def _scored(self, audience: Audience, chunk: NDArray[Any]) -> tuple[NDArray[Any], csr_matrix]:
        """Scores [B, I] and seen rows of some of the audience."""
        seen, state = self._input(audience, chunk)
        scores = np.array(self.spread(self._scores(self.known_part(seen), state)))
        scores[audience.unknown[chunk]] = self.item_counts
        return scores, seen

    def _input(self, audience: Audience, chunk: NDArray[Any]) -> tuple[csr_matrix, NDArray[Any] | None]:
        """Rows [B, I] and state [B, S] of some of the audience; the history comes before the stored rows."""
        code, place = audience.code[chunk], audience.place[chunk]
        given, stored = place >= 0, (place < 0) & (code >= 0)
        blank = csr_matrix((1, self.log.n_items), dtype=np.float32)
        pool = vstack([blank, audience.history[place[given]], self.rows[code[stored]]], format="csr")
        pick = np.zeros(len(chunk), dtype=np.int64)  # row 0, the blank one, for unknown users
        pick[given] = 1 + np.arange(given.sum())
        pick[stored] = 1 + given.sum() + np.arange(stored.sum())
        seen = pool[pick]
        known, state = self._stage_state(code[stored], "serving"), None
        if known is not None:
            width = known.shape[1]
            state = np.full((len(chunk), width), 1 / width, known.dtype)
            state[stored] = known
            state[given] = 0 if audience.user_state is None else audience.user_state[place[given]]
        return seen, state


def in_pieces(positions: NDArray[Any], n_items: int) -> Iterator[NDArray[Any]]:
    """Positions in pieces whose scores fit in SCORING_CELLS."""
    size = int(np.clip(SCORING_CELLS // max(1, n_items), 1, 2048))
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


@contextmanager
def torch_threads(n: int | None) -> Iterator[None]:
    """Give torch n threads for a while; where no model has imported it, there is nothing to give."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
