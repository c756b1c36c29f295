"""Between ids and codes: who gets lists, which items they may hold, and the lists as a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.data.columns import ITEM, RANK, SCORE, USER
from greysheep.data.ids import ids_by_user, ids_like
from greysheep.data.interactions import Interactions, lookup
from greysheep.data.splitting import unseen_gate_mask
from greysheep.errors import DataError, UnknownUserError, warn
from greysheep.metrics.ranking import top_n

ON_UNKNOWN = ("raise", "skip", "popular")


@dataclass(frozen=True)
class Audience:
    """Who gets lists: n people in the requested order.

    ids: [n]. code: [n] code of a known user, -1 = none. place: [n] row in `history`, -1 = none.
    history: rows given for this call, [m, I]; user_state: [m, S] theirs, or None.
    """

    ids: pl.Series
    code: NDArray[np.int64]
    place: NDArray[np.int64]
    history: csr_matrix
    user_state: NDArray[Any] | None

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """[n] people with neither stored rows nor history."""
        return (self.code < 0) & (self.place < 0)


def mask(scores: NDArray[Any], rows: csr_matrix) -> None:
    """Set the entries of `rows` to -inf in `scores` [B, I], in place."""
    scores[np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), rows.indices] = -np.inf


@dataclass(frozen=True)
class Choice:
    """The items that may be recommended.

    allowed: [I] to everybody. of_user: [n, I] to each of the audience, None = the same to all.
    """

    allowed: NDArray[np.bool_]
    of_user: csr_matrix | None = None

    def rule_out(self, scores: NDArray[Any], people: NDArray[Any]) -> None:
        """Set the other items to -inf in the scores [B, I] of some of the audience, in place."""
        scores[:, ~self.allowed] = -np.inf
        if self.of_user is not None:
            scores[self.of_user[people].toarray() == 0] = -np.inf


@dataclass(frozen=True)
class Asked:
    """What `recommend` is asked: lists of length k for those at `positions` of the audience."""

    audience: Audience
    choice: Choice
    positions: NDArray[np.int64]
    k: int
    exclude_seen: bool


def named_users(log: Interactions, candidates: Any) -> pl.Series | None:
    """The users whom candidates are given for, each once; None where the candidates are the same to all."""
    pairs = None if candidates is None else ids_by_user(candidates, "candidates", log.user_ids, log.item_ids)
    return None if pairs is None else pairs[0].unique(maintain_order=True)


def choice_of(
    log: Interactions, trained: NDArray[np.bool_], audience: pl.Series, candidates: Any, exclude_items: Any
) -> Choice:
    """The choice that a call of `recommend` leaves; `candidates` may differ from user to user.

    Raises:
        DataError: no candidate is known, or one of the two holds no ids of this log's types.
    """
    allowed, of_user = trained.copy(), None
    if candidates is not None:
        allowed[:] = True
        pairs = ids_by_user(candidates, "candidates", audience, log.item_ids)
        if pairs is None:
            allowed[:] = False
            allowed[_known_items(log, candidates, "candidates")] = True
        else:
            of_user = _candidates_of(log, audience, *pairs)
        if not allowed.any():
            raise DataError("none of the candidates is an item of this model")
    if exclude_items is not None:
        if ids_by_user(exclude_items, "exclude_items", audience, log.item_ids) is not None:
            raise DataError("exclude_items holds for everybody: give items alone, without users")
        allowed[_known_items(log, exclude_items, "exclude_items")] = False
    return Choice(allowed, of_user)


def _candidates_of(log: Interactions, audience: pl.Series, users: pl.Series, items: pl.Series) -> csr_matrix:
    """[n, I] the candidates of each of the audience; whoever is not named has none."""
    place, codes = lookup(audience, users, USER), log.encode_items(items)
    _count_unknown(codes, "candidates", 6)
    keep = (codes >= 0) & (place >= 0)
    chosen = csr_matrix((np.ones(keep.sum(), bool), (place[keep], codes[keep])), (len(audience), log.n_items))
    without, n = int((np.diff(chosen.indptr) == 0).sum()), len(audience)
    if 0 < without == n:
        raise DataError(f"candidates name no known item for any of the {n} users")
    if without:
        warn(f"{without} of {n} users have no candidates and get no list", 5)
    return chosen


def _known_items(log: Interactions, given: Any, what: str) -> NDArray[np.int64]:
    codes = log.encode_items(ids_like(given, what, ITEM, log.item_ids).unique())
    _count_unknown(codes, what, 6)
    return codes[codes >= 0]


def _count_unknown(codes: NDArray[np.int64], what: str, level: int) -> None:
    if unknown := int((codes < 0).sum()):
        warn(f"{unknown} of {len(codes)} {what} are unknown items and were left out", level)


def find_audience(
    log: Interactions,
    users: Any,
    new: Interactions | None,
    rows: csr_matrix,
    user_state: NDArray[Any] | None,
    has_history: bool,
) -> Audience:
    """Find out who is meant: `users`, or everybody in the history `new`, or every known user.

    rows, user_state: those of the history. has_history: False = no user has stored rows.
    """
    ids = log.user_ids if new is None else new.user_ids
    if users is not None:
        known = (log.user_ids,) if new is None else (log.user_ids, new.user_ids)
        ids = ids_like(users, "users", USER, *known).unique(maintain_order=True)
    code = log.encode_users(ids)
    if not has_history:
        code = np.full(len(ids), -1)
    place = np.full(len(ids), -1) if new is None else new.encode_users(ids)
    # a user whose history has no known item is unknown, even if the log has rows of her
    empty = place >= 0
    empty[empty] = np.diff(rows.indptr)[place[empty]] == 0
    code[empty] = place[empty] = -1
    return Audience(_in_stored_type(ids, log.user_ids.dtype), code, place, rows, user_state)


def _in_stored_type(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Ids in the type of the log, where they fit it without change."""
    if ids.dtype == dtype or not (ids.dtype.is_integer() and dtype.is_integer()):
        return ids
    try:
        return ids.cast(dtype)
    except pl.exceptions.InvalidOperationError:
        return ids


def history_items(log: Interactions, new: Interactions, level: int) -> NDArray[np.int64]:
    """[n] the log's code of each item of a history, -1 for unknown ones, which a warning counts.

    Raises:
        DataError: the ids are of another type.
    """
    codes = log.encode_items(ids_like(new.item_ids, "history", ITEM, log.item_ids))
    if lost := int((codes < 0).sum()):
        message = f"{lost} of {len(codes)} items in history are unknown to the model and were dropped"
        warn(message, level + 1)
    return codes


def read_history(
    log: Interactions, new: Interactions | None, binary: bool, learned: NDArray[np.int64] | None
) -> tuple[csr_matrix, csr_matrix, csr_matrix]:
    """History rows in the log's item codes: all of them, those a gate sees, those held out for it to read.

    learned: items that weights know; None = all. A gate does not read rows of others.
    """
    if new is None:
        none = csr_matrix((0, log.n_items), dtype=np.float32)
        return none, none, none
    codes = history_items(log, new, 5)
    keep = codes[new.items] >= 0
    people, items = new.users[keep], codes[new.items[keep]]
    weights = np.ones(len(items), np.float32)
    if not binary and new.weights is not None:
        weights = new.weights[keep]
    times = None if new.times is None else new.times.filter(pl.Series(keep))
    counts = np.ones(len(items), bool) if learned is None else np.isin(items, learned)
    when = None if times is None else times.filter(pl.Series(counts))
    probe = np.zeros(len(items), bool)
    probe[counts] = unseen_gate_mask(people[counts].astype(np.int64), log.decode_items(items[counts]), when)

    def rows(which: NDArray[np.bool_]) -> csr_matrix:
        built = csr_matrix((weights[which], (people[which], items[which])), (new.n_users, log.n_items))
        built.sort_indices()
        return built

    return rows(np.ones(len(items), bool)), rows(~probe), rows(probe)


def check_unknown(audience: Audience, on_unknown: str, has_history: bool) -> None:
    """Refuse unknown people where they are not allowed.

    Raises:
        UnknownUserError: there are some, and `on_unknown` is "raise".
    """
    unknown = int(audience.unknown.sum())
    if unknown and on_unknown == "raise":
        some = ", ".join(str(x) for x in audience.ids.filter(pl.Series(audience.unknown)).head(3))
        why = "" if has_history else " (this model was saved without its rows)"
        raise UnknownUserError(
            f"{unknown} of {len(audience.ids)} users are unknown{why}, among them {some}: "
            "give their rows as history (--history), or set on_unknown (--on-unknown) to skip or popular"
        )


def best_of(scores: NDArray[Any], k: int, place: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Codes [n, k] of the largest scores [n, I], best first, -1 where nothing is left, and their scores.

    place: [I] which of several items with equal scores comes first (`metrics.ranking.tie_order`).

    Raises:
        DataError: a score is no finite number.
    """
    codes = top_n(scores, k, place)
    best = np.take_along_axis(scores, np.maximum(codes, 0), axis=1)
    beyond = int(np.isposinf(best[:, :1]).sum())
    if beyond:
        raise DataError(
            f"scores of {beyond} of {len(best)} users are infinite: the weights of the log or of the history "
            "are too large for this model, divide them by their maximum"
        )
    return codes, best


def list_frame(
    log: Interactions,
    ids: pl.Series,
    positions: NDArray[Any],
    lists: list[tuple[NDArray[np.int64], NDArray[Any]]],
) -> pl.DataFrame:
    """Lists as long rows: user_id, item_id, score, rank; padding is dropped.

    ids: of all people; positions: those of them whose lists (of `best_of`) follow, one after the other.
    """
    best, score = np.empty((0, 1), np.int64), np.empty((0, 1))
    if lists:
        best, score = (np.concatenate(parts) for parts in zip(*lists, strict=True))
    rank = np.broadcast_to(np.arange(1, best.shape[1] + 1), best.shape)
    filled = best >= 0
    who = np.broadcast_to(positions[:, None], best.shape)[filled]
    return pl.DataFrame(
        {
            USER: ids.gather(who),
            ITEM: log.decode_items(best[filled]),
            SCORE: score[filled].astype(np.float64),
            RANK: rank[filled].astype(np.int32),
        }
    )
