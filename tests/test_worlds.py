"""Worlds with a known answer, and golden numbers that pin each model on a fixed split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import greysheep as gs
from contract import world
from greysheep.models import create

SETTINGS: dict[str, Any] = {
    "latent": 16,
    "batch_size": 64,
    "learning_rate": 5e-3,
    "threads": 1,
    "progress": False,
}


def minority_and_majority(model: Any, split: gs.Split) -> tuple[float, float]:
    """Mean NDCG@20 of the minority community (its ids say so) and of everybody else."""
    per_user = gs.evaluate(model.fit(split), split, k=20).per_user
    minority = per_user["user_id"].str.starts_with("u0-")
    means = [per_user.filter(who)["ndcg@20"].fill_nan(None).mean() for who in (minority, ~minority)]
    return means[0], means[1]


def test_tall_lifts_the_minority_and_harms_nobody() -> None:
    """Six tastes in two latent dimensions: one model spends them on the many, experts have room for all."""
    lifts, others = [], []
    narrow = {**SETTINGS, "latent": 2, "learning_rate": 1e-2}  # both stop early in half of the epochs
    for seed in (0, 1, 2):
        log = gs.simulate(1000, 240, n_communities=6, minority=0.06, rows_per_user=20, seed=seed).log
        split = gs.split(log, protocol="strict", seed=seed)
        vae = minority_and_majority(gs.MultVAE(**narrow, seed=seed), split)
        experts = {"n_experts": 4, "start_epoch": 5, "alpha": 0.5, "signal_scale": "standardised"}
        tall = minority_and_majority(gs.TALL(**narrow, **experts, seed=seed), split)
        lifts.append(tall[0] / vae[0])
        others.append(tall[1] / vae[1])
    assert np.mean(lifts) > 1.05
    assert np.mean(others) > 0.97


def test_a_loss_gate_finds_the_expert_of_a_taste() -> None:
    """Two experts made by hand, one for each of two tastes: both loss-driven gates lean to the right one."""
    log = world()
    even = np.arange(log.n_users) % 2 == 0
    sharp: dict[str, Any] = {"gate": "temperature", "temperature": 0.2, "shrinkage": 0.0}
    for gate, least in (({"gate": "loss"}, 0.5), (sharp, 0.9)):
        model = gs.TALL(**{**SETTINGS, "epochs": 1}, n_experts=2, weighting="none", **gate).fit(log)
        for parameter in model.net.parameters():
            torch.nn.init.zeros_(parameter)
        for k in range(2):
            model.net.bank.decoder_bias.data[k, k::2] = 3.0
        gates = model._user_state(model.split.train_rows(gated=True), model.split.gate_rows())
        judged = np.diff(model.split.gate_rows().indptr) > 0
        assert (
            judged.any()
            and (gates[judged & even, 0] > least).all()
            and (gates[judged & ~even, 1] > least).all()
        )


TEN = {**SETTINGS, "epochs": 10, "dropout": 0.3, "weight_decay": 0.05, "anneal_epochs": 20.0}
THREE = {**TEN, "n_experts": 3, "start_epoch": 3, "signal_scale": "sum", "alpha": 0.08, "window": 4}
GOLDEN: dict[str, tuple[dict[str, Any], float, float]] = {
    "popular": ({}, 0.1715857879, 0.1485352708),
    "ease": ({"regularization": 10.0}, 0.4610023182, 0.4386927718),
    "ease-weighted": ({}, 0.546101772054751, 0.5230641668042234),
    "multvae": (TEN, 0.5444359, 0.5213410),
    "tall": (THREE, 0.5273844, 0.4610754),
    "tall/authors": ({**THREE, "variant": "authors"}, 0.5382851, 0.4920069),
    "tall/temperature": (
        {**THREE, "gate": "temperature", "temperature": 0.3, "weighting": "loss"},
        0.5068985,
        0.4578870,
    ),
    "tall/mlp": (
        {**THREE, "gate": "mlp", "signal_scale": "standardised", "alpha": 0.5},
        0.5158336,
        0.3820064,
    ),
    "tall/uniform": ({**THREE, "gate": "uniform", "weighting": "none"}, 0.5503829, 0.5271682),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name: str) -> None:
    """Mean NDCG@20 and that of `low` on one fixed split; closed forms to 1e-6, trained models to .004.

    The wider margin leaves room for another processor's rounding over the epochs, not for another method.
    """
    keywords, mean, low = GOLDEN[name]
    log = gs.simulate(n_users=300, n_items=200, seed=7).log
    split = gs.split(log, protocol="strict", seed=7)
    model = create(name.partition("/")[0], **keywords, seed=7).fit(split)
    report = gs.evaluate(model, split, k=20)
    margin = 0.004 if model.history else 1e-6
    assert report.overall["ndcg@20"]["mean"] == pytest.approx(mean, abs=margin)
    assert report.by_group["ndcg@20"][0] == pytest.approx(low, abs=margin)
