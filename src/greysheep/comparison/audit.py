"""Judge lists that recommenders made already: nothing is trained, and the record is that of a comparison."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from greysheep.comparison.facts import facts_of_log
from greysheep.comparison.result import Comparison
from greysheep.data.interactions import Interactions
from greysheep.data.item_features import read_vectors
from greysheep.data.own_groups import read_groups
from greysheep.data.protocols import TRAIN
from greysheep.data.splitting import Split
from greysheep.errors import ConfigError, DataError, GreysheepWarning
from greysheep.evaluation.evaluate import evaluate, rows_to_find
from greysheep.evaluation.report import Report
from greysheep.system.checks import number, shown


def audit(
    log: Any,
    recs: Any,
    *,
    test: Any = None,
    split: Split | None = None,
    k: int | Sequence[int] = 20,
    groups: Any = None,
    items: Any = None,
    reference: str | None = None,
    margin: float = 0.02,
    command: str = "greysheep.audit(log, recs, ...)",
) -> Comparison:
    """Say whom lists serve badly: means by group with intervals, figures beside accuracy, and paired tests.

    Args:
        log: what the recommender had seen (anything `Interactions.read` takes).
        recs: lists as `evaluate` takes them, one frame or several by name: `{"old": frame, "new": frame}`.
        test: a log of what people chose afterwards. It or `split` is needed.
        split: the split that the lists were made for: its test rows are to be found. `log` is then the log
            that was split, or its train rows.
        k: length of the lists, or several; the tables are about the longest.
        groups: a file or frame of user_id and group, in place of the five groups by mainstream taste.
        items: a file or frame of item_id and `genres` or `vector`, for the diversity of the lists.
        reference: the name that the others are compared with; the first one if not given.
        margin: relative loss that still counts as no harm.
        command: what to write down as the command that made it.

    Returns:
        A comparison of the lists, whose runs are the reports of `evaluate(frame, beyond=True)`; its page:
        `greysheep.write_html(comparison, path)`.

    Raises:
        ConfigError: neither or both of `test` and `split`, no lists, or an unknown reference.
        DataError: a log, lists, groups or items cannot be used.

    >>> import greysheep as gs
    >>> import polars as pl
    >>> log = gs.simulate(n_users=60, n_items=40, seed=0).log
    >>> items = pl.DataFrame({"item_id": log.item_ids[:5], "rank": range(1, 6)})
    >>> same_for_all = pl.DataFrame({"user_id": log.user_ids}).join(items, how="cross")
    >>> found = audit(log, same_for_all, split=gs.split(log), k=5)
    >>> found.runs[0].overall["coverage@5"]["mean"]  # 5 of 40 items
    0.125
    """
    if (test is None) == (split is None):
        what = "not both" if test is not None else "else there is nothing that the lists could have hit"
        raise ConfigError(
            "an audit needs what people chose afterwards: a later log (test=, --test) or the split that the "
            f"lists were made for (split=, --split), {what}"
        )
    named = dict(recs) if isinstance(recs, Mapping) else {"recommendations": recs}
    margin = number("margin", margin, least=0, below=1)
    if not named or not all(isinstance(label, str) for label in named):
        raise ConfigError(f"recs={shown(recs)} names no lists: give a frame, or {{name: frame}}")
    if reference is not None and not (isinstance(reference, str) and reference in named):
        raise ConfigError(f"reference {shown(reference)} is none of the lists: {', '.join(named)}")
    seen = Interactions.of(log)
    if split is None:
        parts = Split(seen, np.full(len(seen), TRAIN, dtype=np.int8), "all", 0)
    else:
        parts = _agreed(split, seen)
    # read once, so that each is complained of once
    parts = replace(parts, groups=read_groups(groups, parts.log)) if groups is not None else parts
    common = {
        "k": k,
        "test": None if test is None else rows_to_find(test, parts),
        "items": None if items is None else read_vectors(items, parts.log),
    }
    runs = [_measured(frame, label, parts, common) for label, frame in named.items()]
    first = runs[0]
    found = int(first.per_user["n_test"].sum())
    rows = f"{found:,}, of {first.overall['n_users']:,} users"
    facts = facts_of_log(seen) | {"Rows to be found": rows, "Lists": ", ".join(named), "Command": command}
    return Comparison(
        runs=runs, failures=[], seeds=[parts.seed], protocol=parts.protocol, k=first.k,
        reference=reference or first.label, margin=margin, facts=facts,
    )  # fmt: skip


def _agreed(split: Split, seen: Interactions) -> Split:
    """The split, if the log is the one that was split or the rows of it that a recommender may have seen.

    Raises:
        DataError: it is another log.
    """
    if not isinstance(split, Split):
        raise DataError(f"split={shown(split)} is no split: greysheep.split(log) makes one")
    whole = split.log
    users, items = whole.encode_users(seen.user_ids), whole.encode_items(seen.item_ids)
    pairs = users[seen.users] * whole.n_items + items[seen.items]
    pairs[(users[seen.users] < 0) | (items[seen.items] < 0)] = -1
    stored = whole.users.astype(np.int64) * whole.n_items + whole.items
    strange = int((~np.isin(pairs, stored)).sum())
    absent = int((~np.isin(stored[split.part == TRAIN], pairs)).sum())
    if strange or absent:
        raise DataError(
            f"the log is not the one that was split: {strange} of its {len(seen)} rows are not in the split, "
            f"and {absent} of the split's {int((split.part == TRAIN).sum())} train rows are not in the log"
        )
    return split


def _measured(frame: Any, label: str, parts: Split, common: Mapping[str, Any]) -> Report:
    """The report on one file of lists; what is odd about them is said with their name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GreysheepWarning)
        report = evaluate(frame, parts, beyond=True, **common)
    for one in caught:
        own = issubclass(one.category, GreysheepWarning)
        warnings.warn(f"{label}: {one.message}" if own else str(one.message), one.category, stacklevel=3)
    return replace(report, label=label)
