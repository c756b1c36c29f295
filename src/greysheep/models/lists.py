"""Between ids and codes: who gets lists, which items they may hold, and the lists as a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.data.columns import ITEM, RANK, SCORE, USER
from greysheep.data.interactions import Interactions
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


def allowed_items(
    log: Interactions, trained: NDArray[np.bool_], candidates: Any, exclude_items: Any
) -> NDArray[np.bool_]:
    """[I] items that may be recommended.

    Raises:
        DataError: no candidate is known.
    """
    if candidates is None:
        allowed = trained.copy()
    else:
        codes = _known_items(log, candidates, "candidates")
        if len(codes) == 0:
            raise DataError("none of the candidates is an item of this model: check the type of the ids")
        allowed = np.zeros(log.n_items, dtype=bool)
        allowed[codes] = True
    if exclude_items is not None:
        allowed[_known_items(log, exclude_items, "exclude_items", quiet=True)] = False
    return allowed


def _known_items(log: Interactions, ids: Any, what: str, quiet: bool = False) -> NDArray[np.int64]:
    codes = log.encode_items(ids)
    unknown = int((codes < 0).sum())
    if unknown and not quiet:
        warn(f"{unknown} of {len(codes)} {what} are unknown items and were dropped", 4)
    return codes[codes >= 0]


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
    everybody = log.user_ids if new is None else new.user_ids
    ids = everybody if users is None else as_ids(users, "users")
    code = log.encode_users(ids)
    if not has_history:
        code = np.full(len(ids), -1)
    place = np.full(len(ids), -1) if new is None else new.encode_users(ids)
    # a user whose history has no known item is unknown, even if the log has rows of her
    empty = place >= 0
    empty[empty] = np.diff(rows.indptr)[place[empty]] == 0
    code[empty] = place[empty] = -1
    return Audience(_in_stored_type(ids, log.user_ids.dtype), code, place, rows, user_state)


def as_ids(given: Any, what: str) -> pl.Series:
    """A list, array or Series of ids, each once."""
    if isinstance(given, str | bytes | pl.DataFrame | dict) or not hasattr(given, "__iter__"):
        raise DataError(f"{what} is a list, array or Series of ids, not {type(given).__name__}")
    try:
        ids = given if isinstance(given, pl.Series) else pl.Series(USER, list(given))
    except (TypeError, pl.exceptions.PolarsError):
        raise DataError(f"{what} holds ids of different types: make them all text or all numbers") from None
    return ids.unique(maintain_order=True)


def _in_stored_type(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Ids in the type of the log, where they fit it without change."""
    if ids.dtype == dtype or not (ids.dtype.is_integer() and dtype.is_integer()):
        return ids
    try:
        return ids.cast(dtype)
    except pl.exceptions.InvalidOperationError:
        return ids


def read_history(
    log: Interactions, new: Interactions | None, binary: bool
) -> tuple[csr_matrix, csr_matrix, csr_matrix]:
    """History rows in the log's item codes: all of them, those a gate sees, those held out for it to read."""
    if new is None:
        none = csr_matrix((0, log.n_items), dtype=np.float32)
        return none, none, none
    codes = log.encode_items(new.item_ids)
    lost = int((codes < 0).sum())
    if lost:
        warn(f"{lost} of {len(codes)} items in history are unknown to the model and were dropped", 4)
    keep = codes[new.items] >= 0
    people, items = new.users[keep], codes[new.items[keep]]
    weights = np.ones(len(items), np.float32)
    if not binary and new.weights is not None:
        weights = new.weights[keep]
    times = None if new.times is None else new.times.filter(pl.Series(keep))
    probe = unseen_gate_mask(people.astype(np.int64), log.decode_items(items), times)

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
            "give their rows as history, or set on_unknown to skip or popular"
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
