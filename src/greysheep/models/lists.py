"""From a fitted model to lists of item ids: known users, unseen users, candidates."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from greysheep.data.columns import ITEM, RANK, SCORE, USER
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import unseen_gate_mask
from greysheep.errors import ConfigError, DataError, GreysheepWarning, UnknownUserError
from greysheep.metrics.ranking import top_n

if TYPE_CHECKING:
    from greysheep.models.base import Model

ON_UNKNOWN = ("raise", "skip", "popular")


@dataclass(frozen=True)
class Audience:
    """Who gets lists: n people in the order asked for.

    ids: [n]. code: [n] code of a known user, -1 = none. place: [n] row in `history`, -1 = none.
    history: rows given for this call, [m, I]; gates: [m, K] theirs, or None.
    """

    ids: pl.Series
    code: NDArray[np.int64]
    place: NDArray[np.int64]
    history: csr_matrix
    gates: NDArray[Any] | None

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """[n] people with neither stored rows nor history."""
        return (self.code < 0) & (self.place < 0)


def recommend(
    model: Model,
    users: Any,
    k: int,
    exclude_seen: bool,
    candidates: Any,
    exclude_items: Any,
    history: Any,
    on_unknown: str,
) -> pl.DataFrame:
    """See `Model.recommend`."""
    if on_unknown not in ON_UNKNOWN:
        raise ConfigError(f"on_unknown={on_unknown!r}: choose one of {', '.join(ON_UNKNOWN)}")
    allowed = _allowed(model, candidates, exclude_items)
    audience = _audience(model, users, history)
    _check_unknown(audience, on_unknown, model.has_history)
    positions = np.arange(len(audience.ids))
    if on_unknown == "skip":
        positions = positions[~audience.unknown]
    lists, values = [], []
    for chunk in model._chunks(positions):
        scores, seen = _scored(model, audience, chunk)
        scores[:, ~allowed] = -np.inf
        if exclude_seen:
            mask(scores, seen)
        best = top_n(scores, k)
        lists.append(best)
        values.append(np.take_along_axis(scores, np.maximum(best, 0), axis=1))
    return _frame(model, audience.ids, positions, lists, values)


def mask(scores: NDArray[Any], rows: csr_matrix) -> None:
    """Set the entries of `rows` to -inf in `scores` [B, I], in place."""
    scores[np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), rows.indices] = -np.inf


def similar_items(model: Model, items: Any, k: int) -> pl.DataFrame:
    """See `Model.similar_items`."""
    wanted = _as_ids(items, "items")
    codes = model.log.encode_items(wanted)
    if (codes < 0).any():
        strange = [str(x) for x in wanted.filter(pl.Series(codes < 0)).head(3)]
        raise DataError(f"{int((codes < 0).sum())} unknown items, among them {', '.join(strange)}")
    lists, values = [np.empty((0, 1), np.int64)], [np.empty((0, 1))]
    for chunk in model._chunks(codes):
        scores = np.array(model._similarity(chunk))
        scores[:, ~model.trained_items] = -np.inf
        scores[np.arange(len(chunk)), chunk] = -np.inf
        lists.append(top_n(scores, k))
        values.append(np.take_along_axis(scores, np.maximum(lists[-1], 0), axis=1))
    positions = np.arange(len(codes))
    found = _frame(model, model.log.decode_items(codes), positions, lists[1:], values[1:])
    return found.rename({ITEM: "similar_item_id"}).rename({USER: ITEM})


def _allowed(model: Model, candidates: Any, exclude_items: Any) -> NDArray[np.bool_]:
    """[I] items that may be recommended."""
    if candidates is None:
        allowed = model.trained_items.copy()
    else:
        codes = _known_items(model, candidates, "candidates")
        if len(codes) == 0:
            raise DataError("none of the candidates is an item of this model: check the type of the ids")
        allowed = np.zeros(model.log.n_items, dtype=bool)
        allowed[codes] = True
    if exclude_items is not None:
        allowed[_known_items(model, exclude_items, "exclude_items", quiet=True)] = False
    return allowed


def _known_items(model: Model, ids: Any, what: str, quiet: bool = False) -> NDArray[np.int64]:
    codes = model.log.encode_items(ids)
    unknown = int((codes < 0).sum())
    if unknown and not quiet:
        warnings.warn(f"{unknown} of {len(codes)} {what} are unknown items and were dropped",
                      GreysheepWarning, stacklevel=5)  # fmt: skip
    return codes[codes >= 0]


def _audience(model: Model, users: Any, history: Any) -> Audience:
    """Find out who is meant and what is known of them."""
    log = model.log
    new = None
    if history is not None:
        new = history if isinstance(history, Interactions) else Interactions.read(history)
    rows, gates = _read_history(model, new)
    everybody = log.user_ids if new is None else new.user_ids
    ids = everybody if users is None else _as_ids(users, "users")
    code = log.encode_users(ids)
    if not model.has_history:
        code = np.full(len(ids), -1)
    place = np.full(len(ids), -1) if new is None else new.encode_users(ids)
    # a history without a known item leaves an unknown user, also where the log has rows of hers
    empty = place >= 0
    empty[empty] = np.diff(rows.indptr)[place[empty]] == 0
    code[empty] = place[empty] = -1
    return Audience(_in_stored_type(ids, log.user_ids.dtype), code, place, rows, gates)


def _as_ids(given: Any, what: str) -> pl.Series:
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


def _read_history(model: Model, new: Interactions | None) -> tuple[csr_matrix, NDArray[Any] | None]:
    """History rows in the model's item codes, and the gates they give."""
    n_items = model.log.n_items
    if new is None:
        return csr_matrix((0, n_items), dtype=np.float32), None
    codes = model.log.encode_items(new.item_ids)
    lost = int((codes < 0).sum())
    if lost:
        warnings.warn(f"{lost} of {len(codes)} items in history are unknown to the model and were dropped",
                      GreysheepWarning, stacklevel=5)  # fmt: skip
    keep = codes[new.items] >= 0
    people, items = new.users[keep], codes[new.items[keep]]
    weights = np.ones(len(items), np.float32)
    if not model.binary and new.weights is not None:
        weights = new.weights[keep]
    times = None if new.times is None else new.times.filter(pl.Series(keep))
    probe = unseen_gate_mask(people.astype(np.int64), model.log.decode_items(items), times)

    def rows(which: NDArray[np.bool_]) -> csr_matrix:
        built = csr_matrix((weights[which], (people[which], items[which])), (new.n_users, n_items))
        built.sort_indices()
        return built

    seen, held_out = rows(~probe), rows(probe)
    parts = [model._gates(seen[some], held_out[some]) for some in model._chunks(np.arange(new.n_users))]
    gates = [part for part in parts if part is not None]
    return rows(np.ones(len(items), bool)), np.concatenate(gates) if gates else None


def _check_unknown(audience: Audience, on_unknown: str, has_history: bool) -> None:
    unknown = int(audience.unknown.sum())
    if unknown and on_unknown == "raise":
        some = ", ".join(str(x) for x in audience.ids.filter(pl.Series(audience.unknown)).head(3))
        why = "" if has_history else " (this model was saved without its rows)"
        raise UnknownUserError(
            f"{unknown} of {len(audience.ids)} users are unknown{why}, among them {some}: "
            "give their rows as history, or set on_unknown to skip or popular"
        )


def _scored(model: Model, audience: Audience, chunk: NDArray[Any]) -> tuple[NDArray[Any], csr_matrix]:
    """Scores [B, I] and seen rows of some of the audience; the history comes before the stored rows."""
    code, place = audience.code[chunk], audience.place[chunk]
    stored, given, nobody = (place < 0) & (code >= 0), place >= 0, audience.unknown[chunk]
    blank = csr_matrix((1, model.log.n_items), dtype=np.float32)
    pool = vstack([blank, audience.history[place[given]], model.rows[code[stored]]], format="csr")
    pick = np.zeros(len(chunk), dtype=np.int64)  # nobody's row is the blank one
    pick[given] = 1 + np.arange(given.sum())
    pick[stored] = 1 + given.sum() + np.arange(stored.sum())
    seen = pool[pick]
    gates = None
    if model.gates is not None:
        gates = np.full((len(chunk), model.gates.shape[1]), 1 / model.gates.shape[1], model.gates.dtype)
        gates[stored] = model.gates[code[stored]]
        if audience.gates is not None:
            gates[given] = audience.gates[place[given]]
    scores = np.array(model._scores(seen, gates))
    scores[nobody] = model.item_counts
    return scores, seen


def _frame(
    model: Model,
    ids: pl.Series,
    positions: NDArray[Any],
    lists: list[NDArray[np.int64]],
    values: list[NDArray[Any]],
) -> pl.DataFrame:
    """Lists as long rows; padding is dropped."""
    best = np.concatenate(lists) if lists else np.empty((0, 1), np.int64)
    score = np.concatenate(values) if values else np.empty((0, 1))
    rank = np.broadcast_to(np.arange(1, best.shape[1] + 1), best.shape)
    filled = best >= 0
    who = np.broadcast_to(positions[:, None], best.shape)[filled]
    return pl.DataFrame(
        {
            USER: ids.gather(who),
            ITEM: model.log.decode_items(best[filled]),
            SCORE: score[filled].astype(np.float64),
            RANK: rank[filled].astype(np.int32),
        }
    )
