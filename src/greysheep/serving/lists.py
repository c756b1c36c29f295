"""Lists for many requests at once: one call of the model for known users, one for people with a history."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.columns import GROUP, ITEM, SCORE, TIME, USER, WEIGHT
from greysheep.data.ids import is_text
from greysheep.data.interactions import Interactions
from greysheep.errors import ServiceError
from greysheep.serving.ids import from_path, given
from greysheep.serving.loaded import Loaded
from greysheep.serving.schemas import History, ListsRequest
from greysheep.serving.served import Served
from greysheep.serving.titles import Titles

Reply = dict[str, Any]
Recommend = Callable[..., pl.DataFrame]


@dataclass(frozen=True)
class ListsAsk:
    """A request for lists; `path_user`: the one user that its path names, as text."""

    wanted: ListsRequest
    path_user: str | None = None

    @property
    def kind(self) -> Hashable:
        """Requests of one kind can be answered by one call of the model."""
        w = self.wanted
        chosen = tuple(None if ids is None else tuple(ids) for ids in (w.candidates, w.exclude_items))
        return type(self), *chosen, w.exclude_seen, any(h.times is not None for h in w.histories)

    @staticmethod
    def answer(asks: Sequence[Any], served: Served) -> list[Reply | Exception]:
        """The replies to requests of one kind.

        Raises:
            GreysheepError: one of them cannot be answered, so that this call answers none.
        """
        loaded, wanted = served.main, asks[0].wanted
        recommend = partial(
            loaded.ranker.recommend,
            k=max(ask.wanted.k for ask in asks),
            exclude_seen=wanted.exclude_seen,
            candidates=_items(loaded, wanted.candidates, "candidates"),
            exclude_items=_items(loaded, wanted.exclude_items, "exclude_items"),
            on_unknown="popular",
        )
        users = [ask.user_ids(loaded) for ask in asks]
        popular = [ask.wanted.on_unknown == "popular" for ask in asks]
        known = iter(_of_users(loaded, recommend, *_flat(users, popular)))
        new = iter(_of_histories(loaded, recommend, *_flat([a.wanted.histories for a in asks], popular)))
        return [
            ask.reply(
                loaded,
                [next(known) for _ in ids],
                [next(new) for _ in ask.wanted.histories],
                served.titles,
            )
            for ask, ids in zip(asks, users, strict=True)
        ]

    def user_ids(self, loaded: Loaded) -> Sequence[int | str]:
        """The known users who are asked for."""
        if self.path_user is None:
            return self.wanted.users
        return [from_path(self.path_user, USER, loaded.log.user_ids)]

    def reply(
        self, loaded: Loaded, users: list[Reply], people: list[Reply], titles: Titles
    ) -> Reply | Exception:
        """The lists of this request, cut to its k; an error where somebody is unknown and must not be."""
        if self.wanted.on_unknown == "raise":
            for lists, message in ((users, _strangers), (people, _blank)):
                unknown = [one for one in lists if not one["known"]]
                if unknown:
                    return ServiceError(404, message(unknown, len(lists), loaded))
        both = [{**one, "items": titles.added(one["items"][: self.wanted.k])} for one in (*users, *people)]
        head = {"version": loaded.version, "model": loaded.model.label}
        return {**head, **both[0]} if self.path_user is not None else {**head, "lists": both}


def _strangers(unknown: list[Reply], n: int, loaded: Loaded) -> str:
    named = ", ".join(ascii(one["user_id"])[:60] for one in unknown[:3])
    why = "" if loaded.model.has_history else ": it was saved without its users' rows"
    return f"{len(unknown)} of {n} users are unknown to this model, among them {named}{why}"


def _blank(unknown: list[Reply], n: int, loaded: Loaded) -> str:
    return f"{len(unknown)} of {n} histories hold no item that this model knows"


def _flat(lists: Sequence[Sequence[Any]], popular: list[bool]) -> tuple[list[Any], NDArray[np.bool_]]:
    """All that is in the lists, and for each whether its request takes popular items for the unknown."""
    return [one for own in lists for one in own], np.repeat(popular, [len(own) for own in lists])


def _items(loaded: Loaded, ids: Sequence[int | str] | None, what: str) -> pl.Series | None:
    """Items of a body that the model knows; all of them where it knows none, for it to refuse."""
    if ids is None:
        return None
    items = given(ids, what, ITEM, loaded.log.item_ids)
    known = items.filter(pl.Series(loaded.log.encode_items(items) >= 0, dtype=pl.Boolean))
    return known if len(known) or what != "candidates" else items


def _of_users(
    loaded: Loaded, recommend: Recommend, ids: list[int | str], popular: NDArray[np.bool_]
) -> list[Reply]:
    """What each user gets, without regard to how long her request wants its list."""
    if not ids:
        return []
    series = given(ids, "users", USER, loaded.log.user_ids)
    codes = loaded.log.encode_users(series)
    known = (codes >= 0) & loaded.model.has_history
    wanted = series.filter(pl.Series(known | popular))
    lists = _by_person(recommend(wanted)) if len(wanted) else {}
    return [
        {
            "user_id": user,
            "known": bool(is_known),
            "group": loaded.group(code) if code >= 0 else None,
            "unknown_items": 0,
            "items": lists.get(user, []),
        }
        for user, code, is_known in zip(ids, codes, known, strict=True)
    ]


def _of_histories(
    loaded: Loaded, recommend: Recommend, histories: list[History], popular: NDArray[np.bool_]
) -> list[Reply]:
    """What each person with a history gets."""
    if not histories:
        return []
    names = strange_ids(len(histories), loaded.log.user_ids)
    rows, unknown_items = read_histories(loaded, histories, names)
    known = unknown_items < [len(history.items) for history in histories]
    groups: dict[int | str, str] = {}
    if rows is not None and loaded.mainstream is not None and loaded.model.has_history:
        groups = dict(loaded.model.groups_of(rows).select(USER, GROUP).iter_rows())
    wanted = names.filter(pl.Series(known | popular))
    lists = _by_person(recommend(wanted, history=rows)) if len(wanted) else {}
    return [
        {
            "user_id": None,
            "known": bool(is_known),
            "group": groups.get(name),
            "unknown_items": int(unknown),
            "items": lists.get(name, []),
        }
        for name, is_known, unknown in zip(names, known, unknown_items, strict=True)
    ]


def read_histories(
    loaded: Loaded, histories: Sequence[History], names: pl.Series
) -> tuple[Interactions | None, NDArray[np.int64]]:
    """The rows [n people] of histories with items that the model knows, and how many items it does not know.

    names: their ids, ascending. None where nothing is known.
    """
    lengths = [len(history.items) for history in histories]
    items = given([i for history in histories for i in history.items], "history", ITEM, loaded.log.item_ids)
    person = np.repeat(np.arange(len(histories)), lengths)
    known = loaded.log.encode_items(items) >= 0
    unknown = np.bincount(person[~known], minlength=len(histories))
    if not known.any():
        return None, unknown
    columns = {USER: names.gather(person), ITEM: items}
    if any(history.weights is not None for history in histories):
        columns[WEIGHT] = pl.Series(
            [w for h in histories for w in (h.weights or [1.0] * len(h.items))], dtype=pl.Float64
        )
    if any(history.times is not None for history in histories):
        # a history without times beside others with them: its rows are as recent as each other
        columns[TIME] = pl.Series(
            [t for h in histories for t in (h.times or [0.0] * len(h.items))], dtype=pl.Float64
        )
    return Interactions.read(pl.DataFrame(columns).filter(pl.Series(known))), unknown


def strange_ids(n: int, known: pl.Series) -> pl.Series:
    """Ascending ids that no log has, of the type of its ids."""
    if is_text(known):
        return pl.Series([f"\0{i:09d}" for i in range(n)])
    return pl.Series([2**126 + i for i in range(n)], dtype=pl.Int128)


def _by_person(frame: pl.DataFrame) -> dict[Any, list[Reply]]:
    """Each person's list, best first, of a frame that `recommend` made."""
    lists: dict[Any, list[Reply]] = {}
    for user, item, score in frame.select(USER, ITEM, SCORE).iter_rows():
        mine = lists.setdefault(user, [])
        mine.append({"item_id": item, "score": score, "rank": len(mine) + 1})
    return lists
