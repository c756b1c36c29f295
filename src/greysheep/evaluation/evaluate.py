"""Measure a model, or any other library's lists, user group by user group."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from greysheep.data.columns import GROUP, ITEM, USER
from greysheep.data.ids import ids_like
from greysheep.data.interactions import Interactions
from greysheep.data.splitting import PARTS, TESTED, Split, Stage, why_no_test_rows
from greysheep.errors import DataError, GreysheepWarning, NotFittedError
from greysheep.evaluation.lists import ranked_lists
from greysheep.evaluation.report import N_USERS, TRAIN_ROWS, Report, frame_of, mean_of
from greysheep.mainstream.groups import ACTIVITY, GROUPS, Mainstream, activity_groups
from greysheep.metrics.ranking import hits, per_user
from greysheep.metrics.statistics import bootstrap_means, interval
from greysheep.system.checks import MOST_DRAWS, seed_number, whole_number
from greysheep.system.machine import peak_memory_bytes

LISTED_CELLS = 1 << 24
"""Places of lists that are judged at once (128 MB of item codes)."""


def evaluate(
    model: Any, split: Split | None = None, *, k: int = 20, test: Any = None, seed: int = 0, draws: int = 2000
) -> Report:
    """Rank the items for every user with test rows and report means by mainstream group.

    Groups and activity come from train rows; under protocol `all`, where every row serves, from all rows.

    Args:
        model: a fitted model, or a pandas, polars or Arrow frame of any other library's lists with user_id,
            item_id and rank (from 1) or score.
        split: needed with a frame; a model brings its own.
        k: length of the lists.
        test: a log of rows to be found (anything `Interactions.read` takes) in place of the split's test
            rows; every stored row is then input, and rows already stored are left out.
        seed: of the bootstrap.
        draws: resamples of users for the 95 % percentile intervals; users are resampled within their group,
            also for the overall mean.

    Raises:
        DataError: there are no test rows, the split is not the one the model was trained on, or a frame or
            log cannot be used.
        NotFittedError: the model is not fitted.
        ConfigError: k or draws is no whole number from 1 up, or the seed none from 0 to 2**64 - 1.

    >>> from greysheep.data.splitting import split
    >>> rows = {"user_id": [u for u in range(8) for _ in range(6)],
    ...         "item_id": [(u // 4 * 2 + i) % 9 for u in range(8) for i in range(6)]}
    >>> parts = split(Interactions.read(pl.DataFrame(rows)), "paper")
    >>> test = parts.log.frame().filter(pl.Series(parts.part == PARTS.index("test")))
    >>> report = evaluate(test.with_columns(rank=1), parts, k=3)
    ... # lists that hold just the test items
    >>> report.overall["n_users"], report.overall["recall@3"]["mean"]
    (8, 1.0)
    """
    k, draws = whole_number("k", k), whole_number("draws", draws, most=MOST_DRAWS)
    seed = seed_number(seed)
    split = _split_of(model, split)
    truth = _test_rows(split) if test is None else _rows_of(test, split)
    users = np.flatnonzero(np.diff(truth.indptr) > 0)
    n_test = np.diff(truth.indptr)
    stage: Stage = "test" if test is None else "serving"
    if is_model(model):
        # a list may be as long as there are items: a part of the users at a time
        size = max(1, LISTED_CELLS // min(k, split.log.n_items))
        parts = [users[start : start + size] for start in range(0, len(users), size)]
        ranked = (model.rank(part, k=k, stage=stage) for part in parts)
        found = [per_user(hits(lists, truth[part]), n_test[part], k)
                 for lists, part in zip(ranked, parts, strict=True)]  # fmt: skip
        values = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    else:
        lists = ranked_lists(model, split.log, users, k, split.input_rows(stage))
        values = per_user(hits(lists, truth[users]), n_test[users], k)
    return _report(model if is_model(model) else None, split, k, users, n_test, values, draws, seed)


def is_model(candidate: Any) -> bool:
    """Whether it ranks; a pandas frame has a method of that name, too."""
    return callable(getattr(candidate, "rank", None)) and not hasattr(candidate, "columns")


def _split_of(model: Any, given: Any) -> Split:
    """The split to measure on: a model's own; of lists, the given one."""
    if given is not None and not isinstance(given, Split):
        kind = "a log" if isinstance(given, Interactions) else f"a {type(given).__name__}"
        raise DataError(
            f"evaluate takes a split, not {kind}: greysheep.split(log) makes one; new rows go to test="
        )
    if not is_model(model):
        if given is None:
            raise DataError("a frame of lists needs the split it was made for: evaluate(frame, split)")
        return given
    own = getattr(model, "split", None)
    if own is None:
        raise NotFittedError("this model is not fitted: call fit(split) before evaluate(model)")
    if not getattr(model, "has_history", True):
        raise DataError("this model was saved without its rows (include_history=False): it has no input")
    if given is not None and given is not own and given.fingerprint() != own.fingerprint():
        raise DataError("the model was trained on another split: evaluate(model) uses the model's own")
    return own  # type: ignore[no-any-return]


def _test_rows(split: Split) -> sparse.csr_matrix:
    truth = split.rows("test")
    if truth.nnz == 0:
        advice = "give new rows with test= (--test)"
        if split.protocol not in TESTED:
            advice = f"fit on greysheep.split(log, protocol='strict'), or {advice}"
        raise DataError(f"{why_no_test_rows(split)}: {advice}")
    return truth


def _rows_of(test: Any, split: Split) -> sparse.csr_matrix:
    """Return the rows of a new log that can be found, [U, I]; what leaves is counted in one warning."""
    new, log = Interactions.of(test), split.log
    ids_like(new.user_ids, "the test log", USER, log.user_ids)
    ids_like(new.item_ids, "the test log", ITEM, log.item_ids)
    users, items = log.encode_users(new.user_ids)[new.users], log.encode_items(new.item_ids)[new.items]
    strange_user, strange_item = users < 0, (users >= 0) & (items < 0)
    known = (users >= 0) & (items >= 0)
    stored = log.users.astype(np.int64) * log.n_items + log.items
    again = known & np.isin(users * log.n_items + items, stored)
    keep = known & ~again
    counts = {
        "of unknown users": int(strange_user.sum()),
        "of unknown items": int(strange_item.sum()),
        "already stored": int(again.sum()),
    }
    if not keep.all():
        why = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        message = f"{int((~keep).sum())} of {len(new)} rows of the test log are left out: {why}"
        if not keep.any():
            raise DataError(f"no row of the test log can be measured: {message}")
        warnings.warn(message, GreysheepWarning, stacklevel=3)
    ones = np.ones(int(keep.sum()), dtype=np.float32)
    return sparse.csr_matrix((ones, (users[keep], items[keep])), shape=(log.n_users, log.n_items))


def _report(
    model: Any,
    split: Split,
    k: int,
    users: NDArray[np.int64],
    n_test: NDArray[Any],
    values: dict[str, NDArray[np.float64]],
    draws: int,
    seed: int,
) -> Report:
    log = split.log
    rows = split.rows(*PARTS) if split.protocol == "all" else split.rows("train")
    mainstream = _mainstream(model, split, rows)
    n_train = np.diff(rows.indptr)
    activity = activity_groups(n_train, log.user_ids)
    table = np.column_stack(list(values.values()))
    cuts = {GROUPS: mainstream.groups[users], ACTIVITY: activity[users]}
    drawn = _drawn([*cuts.values()], table, draws, seed)
    (by_group, overall), (by_activity, _) = (
        _means(names, member, n_train[users], table, [*values], resampled)
        for (names, member), resampled in zip(cuts.items(), drawn, strict=True)
    )
    everyone = {name: np.full(log.n_users, math.nan) for name in values}
    for name, column in values.items():
        everyone[name][users] = column
    frame = pl.DataFrame(
        {
            USER: log.user_ids,
            "mainstream": mainstream.scores,
            GROUP: pl.Series(GROUPS).gather(mainstream.groups),
            "activity": pl.Series(ACTIVITY).gather(activity),
            "n_train": n_train.astype(np.int64),
            "n_test": n_test.astype(np.int64),
            **{name: pl.Series(column, nan_to_null=True) for name, column in everyone.items()},
        }
    )
    peak = peak_memory_bytes() if model is not None else 0
    name = "recommendations" if model is None else str(getattr(model, "name", type(model).__name__))
    return Report(
        model=name, label=str(getattr(model, "label", None) or name), config=_config(model),
        protocol=split.protocol, seed=split.seed, k=k,
        overall=overall, by_group=by_group, by_activity=by_activity, per_user=frame,
        gate_entropy=getattr(model, "gate_entropy", None),
        train_seconds=float(getattr(model, "train_seconds", 0.0)),
        peak_memory_bytes=int(getattr(model, "peak_memory_bytes", 0) or peak),
        epochs=int(getattr(model, "epochs", 0)), best_epoch=int(getattr(model, "best_epoch", 0)),
        history=list(getattr(model, "history", ())),
        mainstream_sample=mainstream.sampled, mainstream_bound=mainstream.bound,
    )  # fmt: skip


def _mainstream(model: Any, split: Split, rows: sparse.csr_matrix) -> Mainstream:
    """Return the groups; a model may have them already, from its folder or from training."""
    own = getattr(model, "serving_mainstream" if split.protocol == "all" else "mainstream", None)
    if isinstance(own, Mainstream):
        return own
    return Mainstream.fit(rows, split.log.user_ids) if split.protocol == "all" else split.mainstream


def _config(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None) or {}
    return dict(config.model_dump(mode="json")) if hasattr(config, "model_dump") else dict(config)


def _drawn(
    cuts: Sequence[NDArray[np.int8]], table: NDArray[np.float64], draws: int, seed: int
) -> list[list[NDArray[np.float64]]]:
    """Resampled means [draws, M] of each group of each cut of the users.

    Groups of one code and size have the same draws: one product serves all their metrics.

    cuts: [n] group of each measured user. table: [n, M] her values.
    """
    drawn: list[list[NDArray[np.float64]]] = [[] for _ in cuts]
    for code in range(len(GROUPS)):
        values = [table[member == code] for member in cuts]
        alike = len({len(some) for some in values}) == 1
        together = [np.hstack(values)] if alike else values
        means = [bootstrap_means(some, draws=draws, seed=[seed, code]) for some in together]
        for mine, found in zip(drawn, np.hsplit(means[0], len(cuts)) if alike else means, strict=True):
            mine.append(found)
    return drawn


def _means(
    groups: Sequence[str],
    member: NDArray[np.int8],
    n_train: NDArray[Any],
    table: NDArray[np.float64],
    metrics: Sequence[str],
    resampled: Sequence[NDArray[np.float64]],
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return means and intervals of each group, and overall with users resampled within their group.

    member: [n] group of each measured user. table: [n, M] her values. resampled: [draws, M] of each group.
    """
    lines: list[dict[str, Any]] = []
    drawn_overall = np.zeros_like(resampled[0])
    for code, (group, drawn) in enumerate(zip(groups, resampled, strict=True)):
        mine = member == code
        size = int(mine.sum())
        if size:
            drawn_overall += drawn * (size / len(table))
        line = {GROUP: group, N_USERS: size, TRAIN_ROWS: mean_of(n_train[mine])}
        for name, triple in _triples(metrics, table[mine], drawn).items():
            line |= {name: triple["mean"], f"{name}_low": triple["ci_low"], f"{name}_high": triple["ci_high"]}
        lines.append(line)
    frame = frame_of(lines)
    return frame, {N_USERS: len(table), **_triples(metrics, table, drawn_overall)}


def _triples(
    metrics: Sequence[str], table: NDArray[np.float64], drawn: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    low, high = interval(drawn)
    return {
        name: {"mean": mean_of(table[:, i]), "ci_low": float(low[i]), "ci_high": float(high[i])}
        for i, name in enumerate(metrics)
    }
