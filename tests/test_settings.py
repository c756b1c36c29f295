"""Every setting does what its docstring says: none is read and forgotten."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import greysheep as gs
from contract import state_of
from greysheep.data.splitting import TEST, TRAIN, VALIDATION
from greysheep.errors import GreysheepWarning
from greysheep.models.training.objective import Objective
from greysheep.nn.bank import ExpertBank
from greysheep.nn.gates import MLPGate

QUICK: dict[str, Any] = {"latent": 6, "epochs": 3, "batch_size": 12, "learning_rate": 0.02, "progress": False}
LOCAL: dict[str, Any] = {**QUICK, "n_experts": 3, "local_epochs": 1, "local_batch_size": 16}


@pytest.fixture(scope="module")
def split() -> gs.Split:
    return gs.split(gs.simulate(n_users=60, n_items=40, seed=1).log, protocol="strict")


# ---- how a run is made


@pytest.fixture
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_are_those_asked_for_and_only_for_a_while(split: gs.Split, threads: int | None) -> None:
    seen: dict[str, int] = {}

    class Watched(gs.MultVAE):
        def _scores(self, rows: Any, user_state: Any) -> Any:
            seen["scoring"] = torch.get_num_threads()
            return super()._scores(rows, user_state)

    model = Watched(**QUICK, threads=threads)
    model.watch = lambda row: bool(seen.update(training=torch.get_num_threads()))
    for call in (lambda: model.fit(split), model.recommend, lambda: model.rank(np.arange(3))):
        seen["scoring"] = threads or 2
        call()
        assert set(seen.values()) == {threads or 2}
        assert torch.get_num_threads() == 2


def test_bfloat16_rounds_and_float64_does_not(split: gs.Split) -> None:
    keywords = {**QUICK, "n_experts": 2, "dropout": 0.0}
    low, single, double = (
        state_of(gs.TALL(**keywords, precision=precision).fit(split))
        for precision in ("bfloat16", "float32", "float64")
    )
    for key, value in double.items():
        assert (low[key].dtype, single[key].dtype, value.dtype) == (np.float32, np.float32, np.float64)
    weights = "bank.decoder_weight"
    assert np.abs(low[weights] - single[weights]).max() > 1e-4
    np.testing.assert_allclose(low[weights], single[weights], atol=0.1)


# ---- how weights begin


def test_first_weights_are_drawn_as_the_docstrings_say() -> None:
    bank = ExpertBank(3, 500, 20, torch.Generator().manual_seed(1))
    for weight, spread in ((bank.encoder_weight, 2 / 540), (bank.decoder_weight, 2 / 520)):
        assert weight.std().item() == pytest.approx(math.sqrt(spread), rel=0.02)
        assert abs(weight.mean().item()) < 1e-3
    assert not bank.encoder_bias.any() and not bank.decoder_bias.any()
    gate = MLPGate(400, 30, 25, torch.Generator().manual_seed(1))
    for weight, bound in ((gate.hidden_weight, 0.05), (gate.output_weight, 0.2)):
        assert 0.97 * bound < weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not gate.hidden_bias.any() and not gate.output_bias.any()


# ---- presets: the paper's settings

PROGRAM = {
    "latent": 100, "patience": 15, "learning_rate": 1e-3, "weight_decay": 0.0, "beta": 0.2,
    "kl_reduction": "sum", "anneal_steps": 200_000, "noise": 0.01, "dropout": 0.0,
}  # fmt: skip
ADAPTIVE = {"gate": "loss", "weighting": "loss-change", "signal_scale": "sum", "window": 8}
LOGS = {
    "ml-1m": ({"batch_size": 512, "l2": 1e-3}, {"start_epoch": 40, "alpha": 0.08}),
    "yelp": ({"batch_size": 256, "l2": 1e-4}, {"start_epoch": 15, "alpha": 0.6}),
    "cds": ({"batch_size": 256, "l2": 1e-4}, {"start_epoch": 25, "alpha": 0.3}),
}


@pytest.mark.parametrize("log", LOGS)
def test_presets_are_the_papers_settings(log: str) -> None:
    own, adaptive = LOGS[log]
    expected = {
        gs.MultVAE: {**PROGRAM, **own},
        gs.LOCA: {**PROGRAM, **own},
        gs.LMoE: {**PROGRAM, **own, "n_experts": 100, "gate": "loss", "weighting": "none"},
        gs.MoE: {**PROGRAM, **own, "n_experts": 100},
        gs.TALL: {**PROGRAM, **own, "n_experts": 100, **ADAPTIVE, **adaptive},
    }
    for kind, settings in expected.items():
        config = kind(preset=log).config.model_dump()
        assert {key: config[key] for key in settings} == settings
        assert set(kind.presets) == set(LOGS)


# ---- routing


@pytest.mark.parametrize("epochs", [3, 4])
def test_experts_are_settled_after_the_warm_up(epochs: int, split: gs.Split) -> None:
    parts = np.where(split.part == VALIDATION, TRAIN, split.part).astype(np.int8)
    kept = gs.Split(split.log, parts, "strict", 0)  # nothing to validate: the last epoch's weights are kept
    model = gs.LMoE(**{**QUICK, "epochs": epochs}, n_experts=4, active_experts=2, warm_up=3)
    with pytest.warns(GreysheepWarning, match="no user has a validation row"):
        model.fit(kept)
    assert (model.routes is None) == (epochs == 3)
    if epochs == 4:
        np.testing.assert_array_equal(model.gates, model.routes.numpy())


# ---- local models


def without_train_rows(split: gs.Split, user: int) -> gs.Split:
    parts = np.where(split.log.users == user, TEST, split.part).astype(np.int8)
    return gs.Split(split.log, parts, split.protocol, split.seed)


def trainer_of(model: Any, split: gs.Split) -> Any:
    return model._trainer(split, Objective.parse("mean-ndcg"))


def jaccard(split: gs.Split) -> np.ndarray:
    x = split.rows("train", "gate").toarray()
    common = x @ x.T
    return common / np.maximum(x.sum(1)[:, None] + x.sum(1) - common, 1)


@pytest.mark.parametrize("most", [1, 4, 1000])
def test_enlft_weighs_an_anchors_nearest_users_by_similarity(most: int, split: gs.Split) -> None:
    model = gs.EnLFT(**LOCAL, threshold=0.1, n_neighbours=most)
    weights, near = trainer_of(model, split).weights, jaccard(split)
    for own, anchor in zip(weights, model.anchors, strict=True):
        order = sorted((u for u in range(60) if near[anchor, u] > 0.1), key=lambda u: (-near[anchor, u], u))
        expected = np.zeros(60)
        expected[order[:most]] = near[anchor, order[:most]]
        np.testing.assert_allclose(own, expected, rtol=1e-6)
        assert own.argmax() == anchor and own[anchor] == 1
    assert (weights > 0).sum(1).max() == min(most, (near[model.anchors] > 0.1).sum(1).max())


@pytest.mark.parametrize("kind", [gs.LOCA, gs.EnLFT])
def test_users_without_train_rows_weigh_nothing_in_local_models(kind: Any, split: gs.Split) -> None:
    weights = trainer_of(kind(**LOCAL), without_train_rows(split, 7)).weights
    assert not weights[:, 7].any() and weights[:, 8].any()


def distances(model: Any, split: gs.Split) -> np.ndarray:
    """(2 / pi) arccos of the latents' cosine, [U, U], in the global model: expert 0."""
    net = {key: value.double().numpy() for key, value in model._state().items()}
    x = split.rows("train", "gate").toarray().astype(np.float64)
    x /= np.sqrt(np.maximum(x.sum(1, keepdims=True), 1))
    mu = (x @ net["encoder_weight"][0] + net["encoder_bias"][0])[:, :6]
    mu /= np.linalg.norm(mu, axis=1, keepdims=True)
    return np.minimum(1, 2 / np.pi * np.arccos(np.clip(mu @ mu.T, -1, 1)))


@pytest.mark.parametrize(("bandwidth", "train_bandwidth"), [(0.3, 0.5), (0.5, 0.3)])
def test_loca_covers_within_one_bandwidth_and_trains_within_the_other(
    bandwidth: float, train_bandwidth: float, split: gs.Split
) -> None:
    model = gs.LOCA(**{**LOCAL, "epochs": 8}, bandwidth=bandwidth, train_bandwidth=train_bandwidth)
    weights, away = trainer_of(model, split).weights, distances(model, split)
    left, anchors = np.ones(60, dtype=bool), []
    for _ in range(3):  # greedily, each covers the most of those not covered yet
        gains = ((away < bandwidth) & left).sum(1)
        assert gains.max() > 0
        anchors.append(int(gains.argmax()))
        left &= ~(away[anchors[-1]] < bandwidth)
    assert not left[anchors].any() and len(set(anchors)) == 3
    expected = np.where(away < train_bandwidth, 0.75 * (1 - away**2), 0)[anchors]
    np.testing.assert_allclose(weights, expected, atol=2e-3)  # float32 near an angle of 0
    assert 0 < (expected > 0).mean() < 1


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("kind", [gs.LOCA, gs.EnLFT])
def test_a_warm_start_is_the_global_model(kind: Any, warm: bool, split: gs.Split) -> None:
    model = kind(**LOCAL, warm_start=warm)
    trainer_of(model, split)
    whole = gs.MultVAE(**QUICK) if model.config.global_model == "multvae" else gs.WL(**QUICK)
    origin, state = whole.fit(split)._state(), model._state()
    first = 1 if kind is gs.LOCA else 0
    for key in ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias"):
        trained = origin[f"bank.{key}"][0]
        if first:
            assert torch.equal(state[key][0], trained)
        for own in state[key][first:]:
            assert torch.equal(own, trained) == warm
    if not warm:
        assert not torch.equal(state["encoder_weight"][first], state["encoder_weight"][first + 1])


# ---- what is said


def test_items_a_list_should_not_hold_are_counted(split: gs.Split) -> None:
    log, k = split.log, 4
    given, truth = split.input_rows("test"), split.rows("test")
    users = np.flatnonzero(np.diff(truth.indptr))
    rows = []
    for n, user in enumerate(users):
        n_seen = n % 3  # none, one or two items of her input, among others
        new = np.setdiff1d(np.arange(log.n_items), given[user].indices)
        items = [*given[user].indices[:n_seen], *new[: k - n_seen]]
        rows += [(log.user_ids[int(user)], log.item_ids[int(i)], r + 1) for r, i in enumerate(items)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row")
    seen = sum(n % 3 for n in range(len(users)))
    message = f"^{seen} of {k * len(users)} places of the lists hold items the user already had as input"
    with pytest.warns(GreysheepWarning, match=message):
        gs.evaluate(frame, split, k=k)
