"""What `tune` searches in the autoencoders: one place for models that share their training.

Size (`n_experts`, and with many experts `latent`) is what one can afford, so it is not searched there.
"""

from __future__ import annotations

from typing import Any

from greysheep.models.search_space import Choice, Dimension, Real, Whole

TRAINING: dict[str, Dimension] = {
    "dropout": Real(0.0, 0.6),
    # the KL weight in use is beta * step / anneal_steps: one of the two is enough
    "beta": Real(0.02, 2.0, log=True),
    "l2": Real(1e-5, 1e-2, log=True),
    "learning_rate": Real(3e-4, 3e-3, log=True),
}
STARTS: tuple[dict[str, Any], ...] = (
    {"dropout": 0.3, "beta": 1.3, "l2": 1e-4, "learning_rate": 0.00125},
    {"dropout": 0.3, "l2": 0.01, "learning_rate": 0.002},
)
"""MultVAE, strict, seed 0, validation rows. The first was the best of seven trials on ML-1M (.1372 for the
defaults' .1317), the second comes from ML-100K (.1647 for .1544)."""

ONE_EXPERT: dict[str, Dimension] = {**TRAINING, "latent": Choice((50, 100, 200))}
USER_WEIGHTED: dict[str, Dimension] = {"power": Real(0.0, 3.0), **ONE_EXPERT}

GATE: dict[str, Dimension] = {
    "gate": Choice(("loss", "uniform", "temperature")),
    "temperature": Real(0.1, 10.0, log=True, when=("gate", ("temperature",))),
}
GATED_EXPERTS: dict[str, Dimension] = {**TRAINING, **GATE}

ON = ("weighting", ("loss", "loss-change"))
ADAPTIVE_EXPERTS: dict[str, Dimension] = {
    **TRAINING,
    "weighting": Choice(("loss-change", "loss", "none")),
    # `mean` is left out: its alphas lie elsewhere, and it was no better (docs/results/tall-defaults.md)
    "signal_scale": Choice(("sum", "standardised"), when=ON),
    "alpha": Real(0.02, 2.0, log=True, when=ON),
    "start_epoch": Whole(0, 60, step=10, when=ON),
    **GATE,
}
REGULARISED: dict[str, Any] = {**STARTS[0], "l2": 1e-3, "learning_rate": 0.0025}
"""l2 is divided by the number of experts; the rate halves the epochs (with 4 experts on ML-1M 45 to the best,
.1371 on validation; .004 needs 40, .1362)."""
EARLIER: dict[str, Any] = {**REGULARISED, "start_epoch": 20}
GATED_STARTS: tuple[dict[str, Any], ...] = (REGULARISED,)
ADAPTIVE_STARTS: tuple[dict[str, Any], ...] = (
    EARLIER,
    {**REGULARISED, "weighting": "none", "gate": "uniform"},
    {**EARLIER, "signal_scale": "standardised", "alpha": 1.0},
)
"""A trial of ten experts takes minutes, so these come first: more regularisation, the plain mixture with it,
and the other weighting that was good on ML-1M (docs/results/tall-defaults.md)."""

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
