"""What the page shows of one person: her rows, her lists beside a baseline's, and what speaks for them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from greysheep.data.columns import GROUP, ITEM, TIME, USER
from greysheep.data.interactions import Interactions
from greysheep.errors import DataError, ServiceError
from greysheep.serving.ids import from_path
from greysheep.serving.lists import ListsAsk, Reply, read_histories, strange_ids
from greysheep.serving.loaded import Loaded
from greysheep.serving.schemas import History, ListsRequest
from greysheep.serving.served import Served

ROWS_SHOWN = 500
"""Rows of a history in a profile, the newest ones; their number is given."""
REASONS = 5
"""Rows that are named for each item, the loudest."""


@dataclass(frozen=True)
class ProfileAsk:
    """A request for all that is known of one person: a user by her id as text, or a history."""

    user: str | None
    history: History | None
    k: int

    @property
    def kind(self) -> Hashable:
        """Each is answered alone."""
        return type(self), id(self)

    @staticmethod
    def answer(asks: Sequence[Any], served: Served) -> list[Reply | Exception]:
        """The reply to the one request.

        Raises:
            GreysheepError: it cannot be answered.
        """
        return [asks[0].reply(served)]

    def reply(self, served: Served) -> Reply:
        """The profile.

        Raises:
            GreysheepError: she is unknown, or an id is of another type.
        """
        main, titles = served.main, served.titles
        mine = self._list(main, served)
        rows, history = self._rows(main)
        told = main.ranker.contributions(
            None if history is not None else mine["user_id"],
            pl.Series([one[ITEM] for one in mine["items"]], dtype=main.log.item_ids.dtype),
            history=history,
        )
        by_item: dict[Any, list[Reply]] = {}
        for item, other, value in told.rows.iter_rows():
            reasons = by_item.setdefault(item, [])
            if len(reasons) < REASONS and value > 0:
                reasons.append({ITEM: other, "contribution": value})
        for one in mine["items"]:
            one["because"] = titles.added(by_item.get(one[ITEM], []))
        return {
            "version": main.version,
            "model": main.model.label,
            "user_id": mine["user_id"],
            "group": mine[GROUP],
            "unknown_items": mine["unknown_items"],
            "n_rows": len(rows),
            "rows": titles.added([{ITEM: item} for item in rows[:ROWS_SHOWN]]),
            "exact": told.exact,
            "voices": [{"voice": voice, "weight": weight} for voice, weight in told.voices.iter_rows()],
            "lists": [
                {"model": main.ranker.label, "version": main.version, "items": mine["items"], "error": None},
                *(self._beside(one, served) for one in served.baselines),
            ],
        }

    def _list(self, loaded: Loaded, served: Served) -> Reply:
        """Her list from one model.

        Raises:
            GreysheepError: there is none.
        """
        histories = [] if self.history is None else [self.history]
        wanted = ListsRequest.model_construct(k=self.k, histories=histories)
        ask = ListsAsk(wanted, self.user)
        (reply,) = ListsAsk.answer([ask], Served(loaded, (), served.titles))
        if isinstance(reply, Exception):
            raise reply
        return reply if self.history is None else dict(reply["lists"][0])

    def _beside(self, loaded: Loaded, served: Served) -> Reply:
        """Her list from a baseline; in its place, why there is none."""
        about = {"model": loaded.ranker.label, "version": loaded.version}
        try:
            return {**about, "items": self._list(loaded, served)["items"], "error": None}
        except (DataError, ServiceError) as error:
            return {**about, "items": [], "error": str(error)}

    def _rows(self, loaded: Loaded) -> tuple[list[Any], Interactions | None]:
        """Her items, the newest first where times are known; and her history, if that is what was given."""
        log = loaded.log
        if self.history is not None:
            given, _ = read_histories(loaded, [self.history], strange_ids(1, log.user_ids))
            assert given is not None  # else there would have been no list
            return _newest_first(given, slice(None)), given
        assert self.user is not None
        code = int(log.encode_users([from_path(self.user, USER, log.user_ids)])[0])
        return _newest_first(log, slice(*log.users.searchsorted([code, code + 1]))), None


def _newest_first(log: Interactions, rows: slice) -> list[Any]:
    """Items of some rows of a log."""
    items = log.decode_items(log.items[rows])
    if log.times is None:
        return items.to_list()
    frame = pl.DataFrame({ITEM: items, TIME: log.times[rows]})
    return frame.sort(TIME, descending=True, maintain_order=True)[ITEM].to_list()


@dataclass(frozen=True)
class SearchAsk:
    """A request for items by words of their titles, or by the beginning of their ids."""

    words: str
    most: int

    @property
    def kind(self) -> Hashable:
        """Each is answered alone."""
        return type(self), id(self)

    @staticmethod
    def answer(asks: Sequence[Any], served: Served) -> list[Reply | Exception]:
        """The items that this version knows."""
        (ask,) = asks
        log, titles = served.main.log, served.titles
        texts = log.item_ids.cast(pl.String)
        found = pl.Series(titles.search(ask.words, 10 * ask.most), dtype=pl.String)
        begun = texts.filter(texts.str.starts_with(ask.words.strip())) if ask.words.strip() else texts.clear()
        every = pl.concat([found, begun.head(ask.most)]).unique(maintain_order=True)
        codes = log.encode_items(every.cast(log.item_ids.dtype, strict=False).drop_nulls())
        items = log.decode_items(codes[codes >= 0][: ask.most])
        return [{"version": served.main.version, "items": titles.added([{ITEM: item} for item in items])}]
