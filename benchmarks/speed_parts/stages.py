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

GATED = "gate and mixture, from the experts' logits"
NAMED = {
    "encoder": "_SparseLinear.forward ExpertBank.encode ExpertBank.means",
    "encoder, backward": "_SparseLinear.backward",
    "gate's losses": "_HeldOutLosses.forward ExpertBank.held_out_losses kept_nll loss_gate Mixture.gate",
    "gate's losses, backward": "_HeldOutLosses.backward",
    "products, backward": "_Mixture.backward",
    "mixture product": "ExpertBank.mix",
    "KL": "Mixture.kl",
    "cross-entropy": "_RowNLL.forward row_nll",
    "cross-entropy, backward": "_RowNLL.backward",
    "adaptive weights": "AdaptiveWeights.of_epoch MixtureTrainer._record",
    "dropout": "MixtureTrainer._dropout",
    "reading rows": "SparseRows.take",
    GATED: "in_parallel cut _Mixture.forward",
    "Adam": "Adam.step AdamW.step",
    "ranking": "top_n mask",
    "metrics": "hits per_user entropy",
}
LEAVES = {name: stage for stage, names in NAMED.items() for name in names.split()}
"""Everything called inside counts for them."""
PASSED_THROUGH = {
    "Tensor.backward": "other work, backward", "ExpertBank.gated_logits": GATED,
    "ExpertBank._gated_logits": GATED,
}  # fmt: skip
"""Their own part, without what is named inside them, is a stage."""
ROOMS = (
    "greysheep.nn.", "greysheep.models.autoencoders.", "greysheep.models.lists",
    "greysheep.metrics.ranking",
)  # fmt: skip


class Stages:
    """While entered, `seconds` gathers the time of every stage; the stages add up to the whole."""

    def __init__(self, wait: Callable[[], None] = lambda: None):
        self.wait = wait
        self.seconds: dict[str, float] = defaultdict(float)
        self.undo: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Stages:
        adam = ((torch.optim.Adam, "step"), (torch.optim.AdamW, "step"))
        for kind, name in (*adam, (torch.Tensor, "backward")):
            self._wrap(kind, name, f"{kind.__name__}.{name}")
        for module_name, module in list(sys.modules.items()):
            if not module_name.startswith(ROOMS):
                continue
            for name, thing in list(vars(module).items()):
                if inspect.isfunction(thing) and self._is_ours(thing, thing.__name__):
                    self._wrap(module, name, thing.__name__)
                elif inspect.isclass(thing) and thing.__module__ == module_name:
                    for own, function in list(vars(thing).items()):
                        plain = function.__func__ if isinstance(function, staticmethod) else function
                        if inspect.isfunction(plain) and self._is_ours(plain, f"{thing.__name__}.{own}"):
                            self._wrap(thing, own, f"{thing.__name__}.{own}")
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

    @staticmethod
    def _is_ours(function: Any, key: str) -> bool:
        """Known by name; in `nn` anything but special methods, and but what only calls the rest of it."""
        home = str(function.__module__)
        inside = home.startswith("greysheep.nn.") and home != "greysheep.nn.mixture" and "__" not in key
        return key in LEAVES or inside

    def _wrap(self, owner: Any, name: str, key: str) -> None:
        """Put a timer in the place of what `owner` itself has under this name."""
        if (plain := vars(owner).get(name)) is None:
            return
        static = isinstance(plain, staticmethod)
        timed = self._timed(plain.__func__ if static else plain, key)
        self.undo.append((owner, name, plain))
        setattr(owner, name, staticmethod(timed) if static else timed)

    def _timed(self, function: Any, key: str) -> Any:
        stage = PASSED_THROUGH.get(key) or LEAVES.get(key, key)
        open_to_others = {"rest", *PASSED_THROUGH.values()}

        @functools.wraps(function)
        def timed(*args: Any, **keywords: Any) -> Any:
            if self.open[-1] not in open_to_others and key not in PASSED_THROUGH:
                return function(*args, **keywords)  # inside a leaf
            self._spend()
            self.open.append(stage)
            try:
                return function(*args, **keywords)
            finally:
                self._spend()
                self.open.pop()

        return timed
