"""What `tune` searches in the autoencoders: one place for models that share their training.

Size (`n_experts`, and with many experts `latent`) is what one can afford, so it is not searched there.
"""

from __future__ import annotations

from typing import Any

from greysheep.models.search_space import Choice, Dimension, Real, Whole

TRAINING: dict[str, Dimension] = {
    "dropout": Real(0.0, 0.8),
    "weight_decay": Real(0.0, 0.1),
    "anneal_epochs": Real(8.0, 512.0, log=True),
    "learning_rate": Real(5e-4, 5e-3, log=True),
}
STARTS: tuple[dict[str, Any], ...] = (
    {"weight_decay": 0.05},
    {"dropout": 0.7},
)
"""Tried after the defaults, which are tried first: more of each of the two that matter most."""

ONE_EXPERT: dict[str, Dimension] = {**TRAINING, "latent": Choice((50, 100, 200))}
USER_WEIGHTED: dict[str, Dimension] = {"power": Real(0.0, 3.0), **ONE_EXPERT}

GATE: dict[str, Dimension] = {
    "gate": Choice((None, "uniform", "temperature")),
    "temperature": Real(0.1, 10.0, log=True, when=("gate", ("temperature",))),
}
FIXED_WEIGHTS: Dimension = Real(0.0, 2.0, when=("weighting", ("mainstream",)))
GATED_EXPERTS: dict[str, Dimension] = {
    **TRAINING,
    "weighting": Choice(("none", "mainstream")),
    "power": FIXED_WEIGHTS,
    **GATE,
}

ON = ("weighting", ("loss", "loss-change"))
ADAPTIVE_EXPERTS: dict[str, Dimension] = {
    **TRAINING,
    "weighting": Choice(("loss-change", "loss", "none", "mainstream")),
    "power": FIXED_WEIGHTS,
    # in standard deviations: the other two scales have another unit on every log
    "alpha": Real(0.1, 4.0, log=True, when=ON),
    "start_epoch": Whole(0, 60, step=10, when=ON),
    **GATE,
}
MAINSTREAM: dict[str, Any] = {"weighting": "mainstream"}
GATED_STARTS: tuple[dict[str, Any], ...] = (MAINSTREAM, *STARTS)
ADAPTIVE_STARTS: tuple[dict[str, Any], ...] = ({"start_epoch": 0}, *GATED_STARTS)
"""A trial of ten experts takes minutes, so these come first."""

RATE: Dimension = Real(3e-4, 5e-3, log=True)
KERNEL_EXPERTS: dict[str, Dimension] = {
    **TRAINING, "global_weight": Real(0.2, 0.8), "bandwidth": Real(0.5, 1.0), "local_learning_rate": RATE,
}  # fmt: skip
NEIGHBOUR_EXPERTS: dict[str, Dimension] = {
    **TRAINING, "threshold": Real(0.0, 0.2), "local_learning_rate": RATE,
}  # fmt: skip
NEIGHBOUR_STEPS: dict[str, Dimension] = {
    **TRAINING,
    "power": Real(0.0, 4.0),
    "threshold": Real(0.0, 0.2),
    "fine_tuning_rate": Real(2.0, 30.0, log=True),
}
"""Of models that start from a global one: what trains it, and what makes its copies local."""
