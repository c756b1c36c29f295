"""Titles of items, by the text of their ids: they outlive a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from greysheep.data.columns import ITEM
from greysheep.data.reading import read_id_column
from greysheep.data.sources import open_source
from greysheep.errors import DataError

TITLE = "title"


class Titles:
    """Titles by item id, and the search for them.

    >>> titles = Titles({"1": "Alien (1979)", "2": "Aliens (1986)"})
    >>> titles.of(2), titles.of(3), titles.search("ALIEN 1979", 5)
    ('Aliens (1986)', None, ['1'])
    """

    def __init__(self, titles: Mapping[str, str] | None = None):
        self._titles = titles or {}
        self._folded = [(text.casefold(), item) for item, text in self._titles.items()]

    @classmethod
    def read(cls, path: Path) -> Titles:
        """Read a table with the columns item_id and title; items without a title are passed over.

        Raises:
            DataError: the file cannot be used, or names an item twice.
        """
        source = open_source(path)
        if TITLE not in source.columns:
            raise DataError(f"{path} has no column {TITLE!r}; it has {', '.join(source.columns[:8])}")
        ids = read_id_column(path, ITEM).cast(pl.String)
        if twice := len(ids) - ids.n_unique():
            first = ids.filter(ids.is_duplicated())[0]
            raise DataError(f"{path} has {twice} items more than once, among them {first!r}: keep one title")
        titles = source.load([TITLE])[TITLE].cast(pl.String, strict=False)
        return cls({item: title for item, title in zip(ids, titles, strict=True) if title})

    def __len__(self) -> int:
        return len(self._titles)

    def of(self, item: int | str) -> str | None:
        """The title of an item; None where it has none."""
        return self._titles.get(str(item))

    def added(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The items with their titles, where there are any."""
        if not self._titles:
            return items
        return [{**item, TITLE: self.of(item["item_id"])} for item in items]

    def search(self, words: str, most: int) -> list[str]:
        """Ids, as text, of items whose title holds every word; those that begin with the text come first."""
        wanted = words.casefold().split()
        if not self._titles or not wanted:
            return []
        found = [pair for pair in self._folded if all(word in pair[0] for word in wanted)]
        first = words.casefold().strip()
        found.sort(key=lambda pair: (not pair[0].startswith(first), len(pair[0])))
        return [item for _, item in found[:most]]
