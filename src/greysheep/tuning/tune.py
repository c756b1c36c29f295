"""Search the settings of a model on validation rows, user groups in view."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from greysheep.data.own_groups import read_groups
from greysheep.data.splitting import Split, split
from greysheep.errors import GreysheepWarning
from greysheep.system.checks import a_path
from greysheep.tuning.plan import TuneRequest
from greysheep.tuning.result import Tuning, result
from greysheep.tuning.score import blind
from greysheep.tuning.search import Search
from greysheep.tuning.study import open_notebook

__all__ = ["Tuning", "run_request", "tune"]


def tune(
    model: str,
    data: Any,
    *,
    protocol: str = "strict",
    seed: int = 0,
    objective: str = "mean",
    trials: int | None = None,
    minutes: float | None = 20,
    storage: str | Path | None = None,
    reference: str | None = None,
    margin: float = 0.02,
    fixed: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    groups: Any = None,
    progress: bool = True,
) -> Tuning:
    """Search the settings of a model for the best NDCG on validation rows; test rows are taken away first.

    The first trial is the model with its defaults, so the best is never worse than they are on validation.
    Then come a few changes that are worth most to try, then Optuna's TPE sampler. Trials of iterative models
    are pruned after 15 epochs when they lie below the median of the finished ones at the same epoch.

    Args:
        model: registry name or variant, "tall[gate=uniform]"; settings that a variant names are not searched.
        data: a log, or anything `Interactions.read` takes, split by `protocol` and `seed`; or a split.
            Protocol `all` has no rows to tune on.
        protocol: of the split. Under `paper` a gate reads the validation rows and is not searched.
        seed: of the split, the sampler and every training.
        objective: "mean" (of all users), "worst" (the group served worst), or "no-harm": the mean among
            settings under which no group's mean falls more than `margin` below that of `reference`, by the
            figures themselves; whether a difference is more than chance, `compare` tests afterwards.
        trials: how many in all, those of an earlier call with the same `storage` among them; None = no limit.
        minutes: time of this call, checked after every epoch; None = no limit. One trial is always made,
            the global model of loca, lft and enlft is never cut short, and what fits the reference comes on
            top.
        storage: file of the study (an Optuna journal); calling again with it goes on. None = memory.
        reference: for `no-harm`, a model as `model` is; `multvae` for iterative models, the model with its
            defaults for the others.
        margin: the relative loss that `no-harm` allows.
        fixed: settings and run options of every trial; they are not searched.
        epochs: the most epochs of a trial.
        groups: a file or frame of user_id and group that "worst" and "no-harm" are about, in place of the
            groups by mainstream taste; a split has its own.
        progress: one line per trial on stderr.

    A trial that diverges or fails is recorded with its message. Ctrl-C ends the search and keeps what there
    is; a trial cut short counts with its best epoch, and is run again when the search goes on.

    Raises:
        ConfigError: something asked for cannot be, the file holds another search, or every trial failed.
        DataError: no user has validation rows.
        MissingExtraError: Optuna is not installed.

    >>> import greysheep as gs
    >>> log = gs.simulate(n_users=60, n_items=40, seed=0).log
    >>> tuning = gs.tune("ease", log, trials=3, progress=False)
    >>> tuning.trials["state"].to_list(), tuning.best_value >= tuning.trials["value"][0]
    (['finished', 'finished', 'finished'], True)
    """
    settings: Any = {} if fixed is None else fixed  # the request refuses what is no dict
    protocol = data.protocol if isinstance(data, Split) else protocol
    request = TuneRequest(
        model=model, protocol=protocol, seed=seed, objective=objective, trials=trials, minutes=minutes,
        reference=reference, margin=margin, fixed=settings, epochs=epochs,
    )  # fmt: skip
    return run_request(request, data, storage, groups=groups, progress=progress)


def run_request(
    request: TuneRequest, data: Any, storage: str | Path | None, *, groups: Any = None, progress: bool
) -> Tuning:
    """Carry out a request; see `tune`."""
    plan = request.plan
    if isinstance(data, Split):
        data = data if groups is None else replace(data, groups=read_groups(groups, data.log))
    else:
        data = split(data, request.protocol, request.seed, groups=groups)
    rows = blind(data)
    if plan.unfair:
        message = (
            f"{', '.join(plan.unfair)} not searched: under protocol 'paper' a gate reads validation rows"
        )
        warnings.warn(f"{message}; use strict", GreysheepWarning, stacklevel=3)
    path = None if storage is None else a_path("storage", storage)
    identity = {**plan.identity(), "protocol": rows.protocol, "log": rows.fingerprint()}
    identity["groups"] = "mainstream" if rows.groups is None else rows.groups.fingerprint()
    with open_notebook(path, identity, request.seed) as notebook:
        search = Search(plan, rows, notebook, progress)
        interrupted = search.run()
        tuning = result(plan, notebook.records(), search.reference, interrupted)
    if tuning.best_value < 0:
        message = f"no trial keeps every group within {request.margin:g} of {plan.reference}"
        warnings.warn(f"{message}: the best harms least", GreysheepWarning, stacklevel=3)
    return tuning
