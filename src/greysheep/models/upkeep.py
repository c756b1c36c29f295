"""A fitted model with more rows, or without some people, and without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.columns import USER
from greysheep.data.ids import ids_like
from greysheep.data.interactions import Interactions
from greysheep.data.joining import joined, without_users
from greysheep.data.splitting import GATE, TEST, TRAIN, VALIDATION, Split
from greysheep.errors import ConfigError, DataError
from greysheep.models.base import Model
from greysheep.models.move import Move, Upkeep
from greysheep.models.registry import load


def update(model: Model | str | Path, *, add: Any = None, forget: Any = None) -> Model:
    """A model that has new rows, users and items, or has forgotten some users, without training.

    Closed forms are solved again on all rows. Of other models the weights stay, and users whose rows are
    others get a state as people with a `history` do: their lists are those of `recommend(history=...)`. Items
    that came after the training are stored, but no such weights know them: they are never recommended until a
    new fit. An ensemble does with each member what is done with it alone. The given model stays as it is.

    The new model serves: test rows that the old one had become train rows.

    Args:
        model: a fitted model, or the folder of one.
        add: rows, anything `Interactions.read` takes. A pair that is there already gets the latest time and
            the sum of the weights.
        forget: ids of users whose rows and states go, and whose rows among `add` are left out.

    Returns:
        The new model; its `upkeep` says what was done, and what the weights still hold of the forgotten.

    Raises:
        ConfigError: neither `add` nor `forget` is given, or `model` is no model.
        DataError: ids or times are of another type than the model's, nobody would be left, or there are rows
            to add to a model that was saved without its rows.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.EASE(regularization=10.0).fit(log)
    >>> newer = gs.update(model, forget=log.user_ids[:2])
    >>> print(newer.upkeep.lines()[1])
    forgot 2 users and their 40 rows
    """
    if add is None and forget is None:
        raise ConfigError("nothing to do: give rows to add, or users to forget")
    if not isinstance(model, Model):
        model = load(model)
    log = model.log
    if add is not None and not model.has_history:
        raise DataError(f"this {model.name} was saved without its rows: there is nothing to add rows to")
    new = None if add is None else Interactions.of(add)
    gone, missing = _people(log, new, forget)
    left = without_users(log, gone)
    refused = 0
    if new is not None and forget is not None:
        new, refused = _rest(new, forget, log)
    now = left if new is None else joined(left, new)
    move = _move(model.split, now, new)
    other = model.carried(move)
    other.upkeep = replace(
        _counted(model, other, move),
        rows_added=len(now) - len(left),
        users_forgotten=len(gone),
        rows_forgotten=int(np.isin(log.users, gone).sum()),
        not_known=missing,
        rows_refused=refused,
    )
    return other


def _people(log: Interactions, new: Interactions | None, forget: Any) -> tuple[NDArray[np.int64], int]:
    """Codes of the users to forget, and how many of them are neither known nor in the new rows."""
    if forget is None:
        return np.empty(0, np.int64), 0
    ids = ids_like(forget, "forget", USER, log.user_ids).unique()
    codes = log.encode_users(ids)
    missing = codes < 0
    if new is not None:
        missing &= new.encode_users(ids) < 0
    return codes[codes >= 0], int(missing.sum())


def _rest(new: Interactions, forget: Any, log: Interactions) -> tuple[Interactions | None, int]:
    """The new rows but those of users to forget, and how many these were."""
    codes = new.encode_users(ids_like(forget, "forget", USER, log.user_ids).unique())
    codes = codes[codes >= 0]
    if len(codes) == new.n_users:
        return None, len(new)
    rest = without_users(new, codes)
    used = np.unique(rest.items)  # what only they had must not come in without rows
    place = np.zeros(new.n_items, np.int32)
    place[used] = np.arange(len(used))
    items = rest.item_ids.gather(pl.Series(used))
    return replace(rest, item_ids=items, items=place[rest.items]), len(new) - len(rest)


def _move(before: Split, log: Interactions, new: Interactions | None) -> Move:
    """The rows of `log`: those of users without new rows in their old parts; no test rows."""
    old = before.log
    users, items = old.encode_users(log.user_ids), log.encode_items(old.item_ids)
    changed = np.zeros(log.n_users, bool)
    if new is not None:
        changed[log.encode_users(new.user_ids)] = True
    # a user's rows lie together, in the same order as before
    now = log.encode_users(old.user_ids)
    stays = (now >= 0) & ~changed[now]
    part = np.full(len(log), TRAIN, np.int8)
    part[~changed[log.users]] = before.part[stays[old.users]]
    if before.protocol == "paper":  # there a gate reads validation rows
        part[part == VALIDATION] = GATE
    part[part == TEST] = TRAIN
    return Move(Split(log, part, "all", before.seed), users, changed, items).gate_apart(None)


def _counted(model: Model, other: Model, move: Move) -> Upkeep:
    """What came with the new rows."""
    log, is_new = other.log, move.users < 0
    came = np.ones(log.n_items, bool)
    came[move.items] = False
    met = np.bincount(log.users, other.trained_items[log.items], minlength=log.n_users) > 0
    return Upkeep(
        users_added=int(is_new.sum()),
        users_changed=int((move.changed & ~is_new).sum()),
        items_added=int(came.sum()),
        unlearned=int((came & ~other.trained_items).sum()),
        strangers=int((move.changed & ~met).sum()),
        test_rows=int((model.split.part == TEST).sum()),
        kept=tuple(other.keeps_weights()),
    )
