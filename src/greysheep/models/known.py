"""The model classes by name, greysheep's own imported when asked for: torch comes with what it trains."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

OWN = {
    "popular": "linear.popular",
    "itemknn": "linear.itemknn",
    "userknn": "linear.userknn",
    "ease": "linear.ease",
    "ease-weighted": "linear.ease_weighted",
    "ials": "linear.ials",
    "ensemble": "ensemble",
    "multvae": "autoencoders.multvae",
    "wl": "autoencoders.wl",
    "loca": "local.loca",
    "lft": "local.lft",
    "enlft": "local.enlft",
    "moe": "autoencoders.moe",
    "lmoe": "autoencoders.lmoe",
    "tall": "autoencoders.tall",
}
"""The modules in `greysheep.models` that define greysheep's own classes."""


class Registry(MutableMapping[str, type[Any]]):
    """Every class that was imported, and greysheep's own in any case."""

    def __init__(self) -> None:
        self._imported: dict[str, type[Any]] = {}

    def __getitem__(self, name: str) -> type[Any]:
        if name in OWN and name not in self._imported:
            import_module(f"greysheep.models.{OWN[name]}")
        return self._imported[name]

    def __setitem__(self, name: str, kind: type[Any]) -> None:
        self._imported[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._imported[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**OWN, **self._imported})

    def __len__(self) -> int:
        return len({**OWN, **self._imported})
