"""The settings of the TALL authors' programs: what `variant="authors"` and the presets stand for."""

from __future__ import annotations

from typing import Any

PROGRAM: dict[str, Any] = {
    "latent": 100,
    "patience": 15,
    "batch_size": 512,
    "learning_rate": 1e-3,
    "l2": 1e-3,
    "weight_decay": 0.0,
    "beta": 0.2,
    "kl_reduction": "sum",
    "anneal_steps": 200_000,
    "noise": 0.01,
    "dropout": 0.0,
}
"""Of an expert, and of MultVAE but for the mean of its KL (docs/method.md, row 4)."""
ADAPTIVE: dict[str, Any] = {
    "gate": "loss",
    "weighting": "loss-change",
    "signal_scale": "sum",
    "window": 8,
    "start_epoch": 40,
    "alpha": 0.08,
}
"""Of TALL beside them, for ML-1M."""
LOGS: dict[str, dict[str, Any]] = {
    "ml-1m": {"batch_size": 512, "l2": 1e-3},
    "yelp": {"batch_size": 256, "l2": 1e-4},
    "cds": {"batch_size": 256, "l2": 1e-4},
}
"""What the authors change from log to log."""
ADAPTIVE_LOGS: dict[str, dict[str, Any]] = {
    "ml-1m": {"start_epoch": 40, "alpha": 0.08},
    "yelp": {"start_epoch": 15, "alpha": 0.6},
    "cds": {"start_epoch": 25, "alpha": 0.3},
}

MULTVAE = {log: {**PROGRAM, **own} for log, own in LOGS.items()}
"""Presets of models of one expert: a fair baseline of TALL, with its sum of KL."""
EXPERTS = {log: {**own, "n_experts": 100} for log, own in MULTVAE.items()}
"""Presets of mixtures without adaptive weights."""
LMOE = {log: {**own, "gate": "loss"} for log, own in EXPERTS.items()}
TALL = {log: {**own, **ADAPTIVE, **ADAPTIVE_LOGS[log]} for log, own in EXPERTS.items()}
