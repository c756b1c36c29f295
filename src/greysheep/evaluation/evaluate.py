"""Measure a model, or any other library's lists, user group by user group."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from greysheep.data.columns import GROUP, ITEM, USER
from greysheep.data.ids import ids_like
from greysheep.data.interactions import Interactions
from greysheep.data.item_features import read_vectors
from greysheep.data.own_groups import read_groups
from greysheep.data.protocols import has_test_rows
from greysheep.data.splitting import PARTS, Split, Stage, why_no_test_rows
from greysheep.errors import DataError, GreysheepWarning, NotFittedError
from greysheep.evaluation.beyond import Lists, figures
from greysheep.evaluation.beyond import by_item_popularity as item_popularity
from greysheep.evaluation.lists import ranked_lists
from greysheep.evaluation.report import (
    LISTS,
    MAINSTREAM_GROUP,
    N_USERS,
    TRAIN_ROWS,
    Report,
    frame_of,
    mean_of,
)
from greysheep.mainstream.groups import ACTIVITY, GROUPS, Mainstream, UserGroups, activity_groups
from greysheep.metrics.beyond import auc
from greysheep.metrics.ranking import hits, per_user
from greysheep.metrics.statistics import bootstrap_means, interval
from greysheep.system.checks import MOST_DRAWS, flag, list_lengths, seed_number, whole_number
from greysheep.system.machine import peak_memory_bytes

LISTED_CELLS = 1 << 24
"""Places of lists that are judged at once (128 MB of item codes)."""


def evaluate(
    model: Any,
    split: Split | None = None,
    *,
    k: int | Sequence[int] = 20,
    test: Any = None,
    groups: Any = None,
    beyond: bool = False,
    items: Any = None,
    seed: int = 0,
    draws: int = 2000,
) -> Report:
    """Rank the items for every user with test rows and report means by mainstream group.

    Groups and activity come from train rows; under protocol `all`, where every row serves, from all rows.

    Args:
        model: a fitted model, or a pandas, polars or Arrow frame of any other library's lists with user_id,
            item_id and rank (from 1) or score.
        split: needed with a frame; a model brings its own.
        k: length of the lists, or several: `k=[5, 10, 20]`; gap, ratio and tests are about the longest.
        test: a log of rows to be found (anything `Interactions.read` takes) in place of the split's test
            rows; every stored row is then input, and rows already stored are left out.
        groups: a file or frame of user_id and group: groups of your own, in place of the five by mainstream
            taste, whose means stand beside them then. A split may have its own.
        beyond: also coverage, Gini, popularity, novelty, of models AUC, and what was found by popularity of
            the item (docs/audit.md); a model's scores are computed twice then.
        items: a file or frame of item_id and `genres` or `vector`, for the diversity of the lists; with it,
            `beyond` is implied.
        seed: of the bootstrap.
        draws: resamples of users for the 95 % percentile intervals; users are resampled within their group,
            also for the overall mean.

    Raises:
        DataError: there are no test rows, the split is not the one the model was trained on, or a frame or
            log cannot be used.
        NotFittedError: the model is not fitted.
        ConfigError: k (or one of them) or draws is no whole number from 1 up, or the seed none from 0 to
            2**64 - 1.

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
    lengths, draws = list_lengths(k), whole_number("draws", draws, most=MOST_DRAWS)
    longest, seed = lengths[-1], seed_number(seed)
    split = _split_of(model, split)
    own = split.groups if groups is None else read_groups(groups, split.log)
    truth = _test_rows(split) if test is None else rows_to_find(test, split)
    users = np.flatnonzero(np.diff(truth.indptr) > 0)
    n_test = np.diff(truth.indptr)
    stage: Stage = "test" if test is None else "serving"
    vectors = None if items is None else read_vectors(items, split.log)
    beyond = flag("beyond", beyond) or items is not None
    found: dict[str, list[NDArray[np.float64]]] = {}
    kept: list[NDArray[np.int64]] = []
    for ranked, part in _lists(model, split, users, longest, stage):
        for name, one in per_user(hits(ranked, truth[part]), n_test[part], lengths).items():
            found.setdefault(name, []).append(one)
        kept += [ranked] if beyond else []
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    lists = None
    if beyond:
        areas = _areas(model, users, truth, stage) if is_model(model) else None
        seen = split.input_rows(stage)
        lists = Lists(np.concatenate(kept), seen, users, truth[users], lengths, vectors, areas)
    measured = model if is_model(model) else None
    return _report(measured, split, own, lengths, users, n_test, values, lists, draws, seed)


def _lists(
    model: Any, split: Split, users: NDArray[np.int64], k: int, stage: Stage
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Ranked item codes of a part of the users, and which: a list may be as long as there are items."""
    if not is_model(model):
        yield ranked_lists(model, split.log, users, k, split.input_rows(stage)), users
        return
    size = max(1, LISTED_CELLS // min(k, split.log.n_items))
    for start in range(0, len(users), size):
        part = users[start : start + size]
        yield model.rank(part, k=k, stage=stage), part


def _areas(
    model: Any, users: NDArray[np.int64], truth: sparse.csr_matrix, stage: Stage
) -> NDArray[np.float64] | None:
    """[n] AUC of each user; None of a model that does not hand out its scores."""
    if not hasattr(model, "stage_scores"):
        return None
    areas, done = [], 0
    for scores in model.stage_scores(users, stage):
        areas.append(auc(scores, truth[users[done : done + len(scores)]]))
        done += len(scores)
    return np.concatenate(areas)


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
        if not has_test_rows(split.protocol):
            advice = f"fit on greysheep.split(log, protocol='strict'), or {advice}"
        raise DataError(f"{why_no_test_rows(split)}: {advice}")
    return truth


def rows_to_find(test: Any, split: Split) -> sparse.csr_matrix:
    """The rows of a new log that can be found, [U, I]; what leaves is counted in one warning.

    test: a log, anything `Interactions.read` takes, or what this function returned before.

    Raises:
        DataError: the log cannot be used, or none of its rows can be found.
    """
    if sparse.issparse(test):
        return test
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
    own: UserGroups | None,
    lengths: list[int],
    users: NDArray[np.int64],
    n_test: NDArray[Any],
    values: dict[str, NDArray[np.float64]],
    lists: Lists | None,
    draws: int,
    seed: int,
) -> Report:
    log = split.log
    rows = split.rows(*PARTS) if split.protocol == "all" else split.rows("train")
    mainstream = _mainstream(model, split)
    n_train = np.diff(rows.indptr)
    activity = activity_groups(n_train, log.user_ids)
    table = np.column_stack(list(values.values()))
    columns = (n_train[users], table, [*values], draws, seed)
    members = mainstream.user_groups if own is None else own
    by_group, overall = _means(members.names, members.codes[users], *columns)
    by_activity, _ = _means(ACTIVITY, activity[users], *columns)
    by_item_popularity = pl.DataFrame()
    if lists is not None:
        more, mine = lists.per_user(), members.of(users)
        figures_by_group, of_all = figures(lists, more, mine, draws, seed)
        by_group, overall = by_group.hstack(figures_by_group), overall | of_all
        by_item_popularity = item_popularity(lists, draws, seed)
        values = values | more
    everyone = {name: np.full(log.n_users, math.nan) for name in values}
    for name, column in values.items():
        everyone[name][users] = column
    frame = pl.DataFrame(
        {
            USER: log.user_ids,
            "mainstream": mainstream.scores,
            GROUP: members.named(),
            "activity": pl.Series(ACTIVITY).gather(activity),
            "n_train": n_train.astype(np.int64),
            "n_test": n_test.astype(np.int64),
            **{name: pl.Series(column, nan_to_null=True) for name, column in everyone.items()},
        }
    )
    by_mainstream = pl.DataFrame()
    if own is not None:
        by_mainstream, _ = _means(GROUPS, mainstream.groups[users], *columns)
        frame = frame.with_columns(mainstream.user_groups.named().alias(MAINSTREAM_GROUP))
    peak = peak_memory_bytes() if model is not None else 0
    name = LISTS if model is None else str(getattr(model, "name", type(model).__name__))
    return Report(
        model=name, label=str(getattr(model, "label", None) or name), config=_config(model),
        protocol=split.protocol, seed=split.seed, k=lengths[-1], lengths=lengths,
        overall=overall, by_group=by_group, by_activity=by_activity, per_user=frame,
        gate_entropy=getattr(model, "gate_entropy", None),
        train_seconds=float(getattr(model, "train_seconds", 0.0)),
        peak_memory_bytes=int(getattr(model, "peak_memory_bytes", 0) or peak),
        epochs=int(getattr(model, "epochs", 0)), best_epoch=int(getattr(model, "best_epoch", 0)),
        history=list(getattr(model, "history", ())),
        grouping=members.grouping, by_mainstream=by_mainstream, by_item_popularity=by_item_popularity,
        mainstream_sample=mainstream.sampled, mainstream_bound=mainstream.bound,
    )  # fmt: skip


def _mainstream(model: Any, split: Split) -> Mainstream:
    """Return the groups; a model may have them already, from its folder or from training."""
    own = getattr(model, "serving_mainstream" if split.protocol == "all" else "mainstream", None)
    if isinstance(own, Mainstream):
        return own
    return split.serving_mainstream if split.protocol == "all" else split.mainstream


def _config(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None) or {}
    return dict(config.model_dump(mode="json")) if hasattr(config, "model_dump") else dict(config)


def _means(
    groups: Sequence[str],
    member: NDArray[np.integer],
    n_train: NDArray[Any],
    table: NDArray[np.float64],
    metrics: Sequence[str],
    draws: int,
    seed: int,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return means and intervals of each group, and overall with users resampled within their group.

    member: [n] group of each measured user, -1 = in none. table: [n, M] her values.
    """
    lines: list[dict[str, Any]] = []
    drawn_overall = np.zeros((draws, len(metrics)))
    for code in range(len(groups) + 1):
        mine = member == (code if code < len(groups) else -1)
        drawn = bootstrap_means(table[mine], draws=draws, seed=[seed, code])
        size = int(mine.sum())
        if size:
            drawn_overall += drawn * (size / len(table))
        if code == len(groups):
            break
        line = {GROUP: groups[code], N_USERS: size, TRAIN_ROWS: mean_of(n_train[mine])}
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
