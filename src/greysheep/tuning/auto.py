"""Which members to fit within so many minutes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from greysheep.data.splitting import Split, split
from greysheep.errors import ConfigError, GreysheepError, warn
from greysheep.models.autoencoders.config import LARGEST_BATCH, STEPS_AN_EPOCH
from greysheep.models.base import IterativeModel, Model
from greysheep.models.config import RunOptions
from greysheep.models.ensemble import Ensemble, held_back
from greysheep.models.linear.ease_forms import needed_bytes, smaller_form
from greysheep.models.linear.gram import inverse
from greysheep.models.registry import parse
from greysheep.system.checks import flag
from greysheep.system.machine import available_bytes, readable
from greysheep.tuning.score import Score

Kind = Literal["inverse", "rows", "epochs"]

MEMBERS: tuple[tuple[str, Kind], ...] = (
    ("userknn", "rows"),
    ("ease-weighted", "inverse"),
    ("itemknn[neighbours=20]", "rows"),
    ("ease-weighted[user_power=0.5,item_power=0,relax=0,regularization=30]", "inverse"),
    ("ials", "rows"),
    ("multvae", "epochs"),
    ("lmoe[n_experts=4,weighting=mainstream]", "epochs"),
)
"""What is tried, and what its time grows with: the cube of a matrix's size, rows, or users times items in
some `EPOCHS`. Different families: one more of the same adds little."""
EPOCHS = 60
"""Epochs a training takes before its patience ends, on the logs at hand; it may be cut short."""
PROBE = 768
"""Size of the matrix that is inverted to learn how fast this machine is."""
TRIAL_USERS = 512
"""Users of the small trial that a member's time is learned from."""
LEFT = 0.15
"""Share of the time kept for weighing the members and for fitting closed forms again on every row."""


@dataclass(frozen=True)
class Estimate:
    """What a member will take."""

    text: str
    kind: Kind
    seconds: float
    memory: float
    """Bytes."""

    def __str__(self) -> str:
        return f"{self.text}: about {self.seconds:.0f} s, {readable(self.memory)}"


def auto(
    data: Any, *, minutes: float = 5.0, seed: int = 0, progress: bool = True, **options: Any
) -> Ensemble:
    """Fit what the budget allows, the cheapest first, and weigh it on validation rows: an `Ensemble`.

    Before it starts it says what each member will take in seconds and memory. What would not fit in the time
    left is left out; a training in epochs is ended in time, with its best weights. However short the time,
    one member is fitted.

    Args:
        data: a split, a log, or anything `Interactions.read` takes; a log is used whole (protocol `all`).
        minutes: for everything, from now to a fitted model. The trials that estimates are made from take some
            seconds of it, and a budget of less than that is overrun.
        seed: of the split and of every training.
        progress: one line per member on stderr.
        options: run options of every member: threads, device, precision.

    Ctrl-C leaves the members that are fitted by then.

    Raises:
        ConfigError: `minutes` is not above 0, or an option is none.
        DataError: the log cannot be used.

    >>> import greysheep as gs
    >>> log = gs.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.auto(log, minutes=0.01, progress=False)
    >>> model.name, model.recommend(log.user_ids[:2], k=3).height
    ('ensemble', 6)
    """
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes > 0:
        raise ConfigError(f"minutes={minutes!r} must be a number above 0")
    if strange := [key for key in options if key not in RunOptions.model_fields]:
        known = ", ".join(RunOptions.model_fields)
        raise ConfigError(f"auto has no option {strange[0]!r}: there are {known}")
    deadline = time.monotonic() + 60 * minutes
    if not isinstance(data, Split):
        data = split(data, protocol="all", seed=seed)
    budget = Budget(data, deadline, flag("progress", progress), {"seed": seed, **options})
    ensemble = Ensemble.of(budget.fit(), progress=False, seed=seed, **options).fit(data)
    ensemble.fitted.interrupted |= budget.interrupted
    return ensemble


class Budget:
    """Members fitted one after another until the time is up."""

    def __init__(self, parts: Split, deadline: float, show: bool, options: dict[str, Any]):
        self.split, self.deadline, self.show, self.options = parts, deadline, show, options
        self.held = held_back(parts)
        self.interrupted = False
        self.again = 0.0
        """Seconds that closed forms will take once more, on every row."""

    def fit(self) -> list[Model]:
        """The members that fit in the time; Ctrl-C keeps those that are done."""
        fitted: list[Model] = []
        estimates = list(self.estimates())
        for estimate in estimates:
            self.say(str(estimate))
        try:
            for estimate in sorted(estimates, key=lambda one: one.seconds):
                why = self.refused(estimate) if fitted else ""
                if why:
                    self.say(f"{estimate.text}: left out, {why}")
                elif (model := self.member(estimate)) is not None:
                    fitted.append(model)
        except KeyboardInterrupt:
            if not fitted:
                raise
            self.interrupted = True
            warn(f"interrupted: the {len(fitted)} members that are fitted are kept", 3)
        if not fitted:
            raise ConfigError("no member could be fitted: name a model to see why")
        return fitted

    @property
    def left(self) -> float:
        """Seconds for members."""
        total = self.deadline - time.monotonic() - self.again
        return total * (1 - LEFT)

    def refused(self, estimate: Estimate) -> str:
        """Why a member is not begun; empty if it is. A training in epochs may be cut to a third."""
        needed = estimate.seconds / 3 if estimate.kind == "epochs" else estimate.seconds
        if self.split is not self.held and estimate.kind != "epochs":
            needed *= 2
        if needed > self.left:
            return f"{max(self.left, 0):.0f} s are left"
        if estimate.memory > available_bytes():
            return f"{readable(available_bytes())} of memory are free"
        return ""

    def member(self, estimate: Estimate) -> Model | None:
        """Fit one; None where it cannot be had on this log."""
        model = parse(estimate.text, **{**self.options, "progress": None if self.show else False})
        if isinstance(model, IterativeModel):
            until = time.monotonic() + self.left
            model.watch = lambda _: time.monotonic() >= until
        begun = time.monotonic()
        try:
            model.fit(self.split if model.validates else self.held)
        except GreysheepError as error:
            self.say(f"{estimate.text}: left out, {error}")
            return None
        seconds = time.monotonic() - begun
        if model.interrupted:
            raise KeyboardInterrupt
        if self.split is not self.held and not model.validates:
            self.again += seconds
        self.say(f"{estimate.text}: {seconds:.1f} s, {_in_words(Score.of_model(model))}")
        return model

    def estimates(self) -> Iterator[Estimate]:
        """Seconds and bytes of each member, learned from a small trial."""
        n_users, n_items = self.split.log.n_users, self.split.log.n_items
        form = smaller_form(n_users, n_items)
        size = n_items if form == "items" else n_users
        cube = _seconds_to_invert() * (size / PROBE) ** 3
        few = _of_some_users(self.split, TRIAL_USERS, int(self.options["seed"]))
        times = n_users / few.log.n_users
        # a step costs by its users and by the weights it moves: as many steps as in the real training
        step = {"epochs": 1, "batch_size": max(1, min(LARGEST_BATCH, n_users // STEPS_AN_EPOCH))}
        for text, kind in MEMBERS:
            if kind == "inverse":
                yield Estimate(text, kind, cube, needed_bytes(size, np.float32))
                continue
            own = step if kind == "epochs" else {}
            model = parse(text, **{**self.options, **own, "progress": False})
            begun = time.monotonic()
            try:
                model.fit(few)
            except GreysheepError as error:
                self.say(f"{text}: left out, {error}")
                continue
            seconds = (time.monotonic() - begun) * times * (EPOCHS if kind == "epochs" else 1)
            yield Estimate(text, kind, seconds, _state_bytes(model) * (4 if kind == "epochs" else times))

    def say(self, line: str) -> None:
        """A line on stderr."""
        if self.show:
            print(line, file=sys.stderr, flush=True)


def _seconds_to_invert() -> float:
    """Of a matrix of size PROBE."""
    rows = csr_matrix(np.random.default_rng(0).random((64, PROBE), dtype=np.float32))
    begun = time.perf_counter()
    inverse(rows, 1.0, np.float32)
    return time.perf_counter() - begun


def _of_some_users(parts: Split, n: int, seed: int) -> Split:
    """The rows of n users, their parts as they are; all items stay."""
    log = parts.log
    chosen = np.sort(np.random.default_rng(seed).permutation(log.n_users)[:n])
    kept = np.isin(log.users, chosen)
    rows = replace(
        log,
        user_ids=log.user_ids[chosen],
        users=np.searchsorted(chosen, log.users[kept]).astype(log.users.dtype),
        items=log.items[kept],
        weights=None if log.weights is None else log.weights[kept],
        times=None if log.times is None else log.times.filter(pl.Series(kept)),
    )
    return replace(parts, log=rows, part=parts.part[kept])


def _state_bytes(model: Model) -> float:
    return float(sum(np.asarray(value).nbytes for value in model._state().values()))


def _in_words(score: Score) -> str:
    low = score.groups["low"]
    return f"validation {score.mean:.4f}" + ("" if np.isnan(low) else f" (low {low:.4f})")
