"""A few users one by one: what they chose and what models would show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from greysheep.data.columns import ITEM
from greysheep.errors import ConfigError
from greysheep.report.html import Details, Name, Part, Person, Section, Text
from greysheep.report.sentences import sentence
from greysheep.report.view import View

if TYPE_CHECKING:
    from greysheep.data.splitting import Split
    from greysheep.models.base import Model


OPEN = 3  # users shown at once; the others are a click away


@dataclass(frozen=True)
class Example:
    """One user: titles of what she chose, and what each model recommends (True = found in her test rows)."""

    user: object
    score: float
    seen: Sequence[str]
    n_seen: int
    lists: Mapping[str, Sequence[tuple[str, bool]]]


def niche_examples(
    models: Sequence[Model],
    *,
    titles: pl.DataFrame | None = None,
    users: int = 10,
    shown: int = 6,
    k: int = 6,
) -> list[Example]:
    """The users of lowest mainstream score that have test rows, with each model's top k at the test stage.

    Args:
        models: Fitted on the same split.
        titles: Frame of item_id and title; without it, or for an item it lacks, the id stands for the title.
        users: How many users.
        shown: How many of a user's own items are named: the latest; the first ids where no times are known.
        k: How many recommendations of each model.

    Raises:
        ConfigError: No model, or models fitted on different splits.
    """
    if not models:
        raise ConfigError("there is no model to take examples from: give at least one")
    split = models[0].split
    if any(not _same(model.split, split) for model in models[1:]):
        raise ConfigError("the models were fitted on different splits: examples need one split for all")
    names = _titles(split, titles)
    test, inputs = split.rows("test"), split.input_rows("test")
    scores = models[0].mainstream.scores
    order = np.argsort(scores, kind="stable")
    codes = order[np.diff(test.indptr)[order] > 0][:users]
    ranked = {model.label: model.rank(codes, k=k, stage="test") for model in models}
    examples = []
    for n, code in enumerate(codes):
        seen = _latest_first(split, int(code), inputs.indices[inputs.indptr[code] : inputs.indptr[code + 1]])
        hidden = set(test.indices[test.indptr[code] : test.indptr[code + 1]].tolist())
        lists = {
            label: [(names[item], item in hidden) for item in rows[n].tolist() if item >= 0]
            for label, rows in ranked.items()
        }
        user = split.log.user_ids[int(code)]
        examples.append(
            Example(user, float(scores[code]), [names[item] for item in seen[:shown]], len(seen), lists)
        )
    return examples


def _same(one: Split, other: Split) -> bool:
    return one is other or (
        (one.protocol, one.seed) == (other.protocol, other.seed)
        and one.log.fingerprint() == other.log.fingerprint()
    )


def _titles(split: Split, titles: pl.DataFrame | None) -> list[str]:
    """A title for each item code."""
    ids = split.log.item_ids
    if titles is None:
        return [str(item) for item in ids]
    known = dict(zip(titles[ITEM].to_list(), titles["title"].to_list(), strict=True))
    return [str(known.get(item) or item) for item in ids]


def _latest_first(split: Split, code: int, items: NDArray[np.int32]) -> list[int]:
    """A user's item codes, the latest first; in order of code where the log has no times."""
    log = split.log
    if log.times is None:
        return [int(item) for item in items]
    rows = np.flatnonzero(log.users == code)
    rows = rows[np.isin(log.items[rows], items)]
    latest = log.times.gather(rows).arg_sort(descending=True).to_numpy()
    return [int(item) for item in log.items[rows][latest]]


def examples_section(view: View, examples: Sequence[Example]) -> Section | None:
    """One block per user: what she chose, then what each model shows her."""
    if not examples:
        return None
    lead = sentence("examples", count=len(examples))
    people: list[Part] = [
        Person(
            user=str(example.user),
            score=f"{example.score:.4f}",
            seen=example.seen,
            unseen=example.n_seen - len(example.seen),
            lists=[(Name(label, view.styles.get(label)), titles) for label, titles in example.lists.items()],
        )
        for example in examples
    ]
    first, rest = people[:OPEN], people[OPEN:]
    others = f"{len(rest)} more user" + ("s" if len(rest) > 1 else "")
    more = [Details(others, rest)] if rest else []
    return Section("The most niche users, one by one", [Text(lead), *first, *more])
