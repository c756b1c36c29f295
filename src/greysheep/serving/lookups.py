"""A user's group and an item's neighbours, for many requests at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from greysheep.data.columns import GROUP, ITEM, SCORE, USER
from greysheep.data.ids import NOUN
from greysheep.errors import DataError, ServiceError
from greysheep.serving.ids import from_path, given
from greysheep.serving.lists import Reply
from greysheep.serving.served import Served


@dataclass(frozen=True)
class GroupAsk:
    """A request for the group of a user, named in a path."""

    path_user: str

    @property
    def kind(self) -> Hashable:
        """All are of one kind."""
        return (type(self),)

    @staticmethod
    def answer(asks: Sequence[Any], served: Served) -> list[Reply | Exception]:
        """The replies.

        Raises:
            GreysheepError: one of them names no id, or no groups are known.
        """
        loaded = served.main
        if loaded.mainstream is None:
            raise DataError("this model was saved without its rows before its groups were known")
        log, scores = loaded.log, loaded.mainstream.scores
        ids = [from_path(ask.path_user, USER, log.user_ids) for ask in asks]
        codes = log.encode_users(given(ids, "users", USER, log.user_ids))
        head = {"version": loaded.version, "model": loaded.model.label}
        return [
            {**head, USER: user, GROUP: loaded.group(code), SCORE: float(scores[code])}
            if code >= 0
            else _unknown(USER, user)
            for user, code in zip(ids, codes, strict=True)
        ]


@dataclass(frozen=True)
class SimilarAsk:
    """A request for the items most like one, named in a path."""

    path_item: str
    k: int

    @property
    def kind(self) -> Hashable:
        """All are of one kind."""
        return (type(self),)

    @staticmethod
    def answer(asks: Sequence[Any], served: Served) -> list[Reply | Exception]:
        """The replies.

        Raises:
            GreysheepError: one of them names no id, or the model was saved without what this needs.
        """
        loaded, titles = served.main, served.titles
        log = loaded.log
        ids = [from_path(ask.path_item, ITEM, log.item_ids) for ask in asks]
        series = given(ids, "items", ITEM, log.item_ids)
        known = log.encode_items(series) >= 0
        found: dict[Any, list[Reply]] = {item: [] for item in ids}
        if known.any():
            frame = loaded.ranker.similar_items(series.filter(pl.Series(known)), max(a.k for a in asks))
            for item, other, score, rank in frame.iter_rows():
                found[item].append({ITEM: other, SCORE: score, "rank": rank})
        head = {"version": loaded.version, "model": loaded.model.label}
        return [
            {**head, **titles.added([{ITEM: item}])[0], "similar": titles.added(found[item][: ask.k])}
            if is_known
            else _unknown(ITEM, item)
            for ask, item, is_known in zip(asks, ids, np.asarray(known), strict=True)
        ]


def _unknown(column: str, named: int | str) -> ServiceError:
    return ServiceError(404, f"{NOUN[column]} {ascii(named)[:60]} is unknown to this model")
