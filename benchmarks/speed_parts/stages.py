"""Seconds of each stage of greysheep's step, by timers put around its functions from outside.

Every function of the room `nn`, and those named below, is wrapped where it is looked up. Names below are
gathered under a stage, any other function appears under its own name, and what no function claims is "rest".
So the stages add up to the whole when the code changes, even if one has to be named anew.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

# Leaves: everything called inside counts for them.
LEAVES = {
    "_SparseLinear.forward": "encoder",
    "_SparseLinear.backward": "encoder, backward",
    "_HeldOutLosses.forward": "gate's losses",
    "_HeldOutLosses.backward": "gate's losses, backward",
    "ExpertBank.held_out_losses": "gate's losses",
    "ExpertBank.encode": "encoder",
    "ExpertBank.means": "encoder",
    "kept_nll": "gate's losses",
    "loss_gate": "gate's losses",
    "_Mixture.backward": "products, backward",
    "ExpertBank.mix": "mixture product",
    "Mixture.gate": "gate's losses",
    "Mixture.kl": "KL",
    "_RowNLL.forward": "cross-entropy",
    "_RowNLL.backward": "cross-entropy, backward",
    "row_nll": "cross-entropy",
    "MixtureTrainer._weights": "adaptive weights",
    "SparseRows.take": "reading rows",
    "in_parallel": "gate and mixture, from the experts' logits",
    "cut": "gate and mixture, from the experts' logits",
    "_Mixture.forward": "gate and mixture, from the experts' logits",
    "Adam.step": "Adam",
    "top_n": "ranking",
    "mask": "ranking",
    "hits": "metrics",
    "per_user": "metrics",
    "entropy": "metrics",
}
# Their own part, without what is named inside them, is a stage.
PASSED_THROUGH = {
    "Tensor.backward": "other work, backward",
    "ExpertBank.gated_logits": "gate and mixture, from the experts' logits",
    "ExpertBank._gated_logits": "gate and mixture, from the experts' logits",
}
ROOMS = (
    "greysheep.nn.",
    "greysheep.models.autoencoders.",
    "greysheep.models.lists",
    "greysheep.metrics.ranking",
)


class Stages:
    """While entered, `seconds` gathers the time of every stage; the stages add up to the whole."""

    def __init__(self, wait: Callable[[], None] = lambda: None):
        self.wait = wait
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.since = 0.0
        self.undo: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Stages:
        self._wrap_class(torch.optim.Adam, ["step"])
        self._wrap_class(torch.Tensor, ["backward"])
        for name, module in list(sys.modules.items()):
            if name.startswith(ROOMS):
                self._wrap_module(name, module)
        self.open, self.since = ["rest"], time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._spend()
        for owner, name, original in reversed(self.undo):
            setattr(owner, name, original)

    def _spend(self) -> None:
        """Book the time since the last call for the stage now open."""
        self.wait()
        now = time.perf_counter()
        self.seconds[self.open[-1]] += now - self.since
        self.since = now

    def _wrap_module(self, module_name: str, module: Any) -> None:
        """Wrap what a module looks up: functions of the rooms by name, and the classes it defines."""
        for name, thing in list(vars(module).items()):
            if inspect.isfunction(thing) and self._is_ours(thing, thing.__name__):
                self.undo.append((module, name, thing))
                setattr(module, name, self._timed(thing, thing.__name__))
            elif inspect.isclass(thing) and thing.__module__ == module_name:
                own = [
                    n for n, f in vars(thing).items() if inspect.isfunction(f) or isinstance(f, staticmethod)
                ]
                self._wrap_class(thing, [n for n in own if self._is_ours(thing, f"{thing.__name__}.{n}")])

    @staticmethod
    def _is_ours(thing: Any, key: str) -> bool:
        """Known by name; in `nn` anything but special methods, and but what only calls the rest of it."""
        home = str(thing.__module__)
        inside = home.startswith("greysheep.nn.") and home != "greysheep.nn.mixture" and "__" not in key
        return key in LEAVES or inside

    def _wrap_class(self, kind: Any, names: list[str]) -> None:
        for name in names:
            if name not in vars(kind):
                continue
            plain = vars(kind)[name]
            static = isinstance(plain, staticmethod)
            function = plain.__func__ if static else plain
            key = f"{kind.__name__}.{name}"
            wrapped = self._timed(function, key)
            self.undo.append((kind, name, plain))
            setattr(kind, name, staticmethod(wrapped) if static else wrapped)

    def _timed(self, function: Any, key: str) -> Any:
        passed = key in PASSED_THROUGH
        stage = PASSED_THROUGH.get(key) or LEAVES.get(key, key)
        through = {"rest", *PASSED_THROUGH.values()}

        @functools.wraps(function)
        def timed(*args: Any, **keywords: Any) -> Any:
            if self.open[-1] not in through and not passed:
                return function(*args, **keywords)  # inside a leaf
            self._spend()
            self.open.append(stage)
            try:
                return function(*args, **keywords)
            finally:
                self._spend()
                self.open.pop()

        return timed
