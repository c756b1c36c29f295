"""greysheep.nn and the training step are held to the slow oracle: values, weights and every gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from torch import Tensor

import oracle
from greysheep import Interactions
from greysheep.data.splitting import GATE, TRAIN, Split, split
from greysheep.models.autoencoders.multvae import MultVAE, MultVAEConfig
from greysheep.models.autoencoders.tall import TALL, TALLConfig
from greysheep.models.autoencoders.trainer import MixtureTrainer
from greysheep.nn import bank
from greysheep.nn.adaptive_weights import AdaptiveWeights, adaptive_weights, authors_weights
from greysheep.nn.gates import MLPGate, entropy, temperature_gate
from greysheep.nn.likelihood import held_out_nll, row_nll
from greysheep.nn.mixture import Mixture, MixtureSettings
from greysheep.nn.sparse_rows import SparseRows

BETA = 0.3
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "gradient": {"gate_gradient": True},
    "authors": {"variant": "authors"},
    "temperature": {"gate": "temperature", "temperature": 0.4, "shrinkage": 2.0},
    "temperature gradient": {"gate": "temperature", "shrinkage": 0.0, "gate_gradient": True},
    "uniform": {"gate": "uniform"},
    "authors uniform": {"gate": "uniform", "variant": "authors"},
}


def sparse(x: Tensor) -> SparseRows:
    return SparseRows.from_csr(csr_matrix(x.numpy()))


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    """Relative to the largest value of the oracle's tensor."""
    assert ours.shape == theirs.shape, what
    largest = max(float(theirs.abs().max()), 1e-30)
    worst = float((ours.double() - theirs.double()).abs().max()) / largest
    assert worst <= tolerance, f"{what}: {worst:.2e} of the largest value"


@dataclass
class Batch:
    x: Tensor  # [B, I] train rows
    v: Tensor  # [B, I] held-out rows
    eps: Tensor  # [K, B, D]
    weights: Tensor  # [B]


def draw_batch(n_users: int, n_items: int, n_experts: int, latent: int, seed: int) -> Batch:
    """Ordinary users behind five special ones (as many of them as there is room for)."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(n_users, n_items, generator=generator)
    x, v = (draw < 0.3).double(), ((draw >= 0.3) & (draw < 0.55)).double()
    x[:, 0], v[:, 0], v[:, 1], x[:, 1] = 1.0, 0.0, 1.0, 0.0
    special = torch.zeros(5, 2, n_items, dtype=torch.float64)
    special[0, 0, 1:3] = 1.0  # no held-out row
    special[1, 0, 2], special[1, 1, 0] = 1.0, 1.0  # one train row, one held-out row
    special[2, 0] = 1.0  # every item seen: the denominator would be empty
    special[3, 0, 1:], special[3, 1, 0] = 1.0, 1.0  # one unseen item, held out: no expert has any loss
    special[4, 1, :2] = 1.0  # no train row
    for u in range(min(5, n_users)):
        x[u], v[u] = special[u]
    eps = torch.randn(n_experts, n_users, latent, generator=generator, dtype=torch.float64)
    weights = torch.rand(n_users, generator=generator, dtype=torch.float64) * 3
    weights[torch.rand(n_users, generator=generator) < 0.3] = 0.0
    weights[0] = 0.5
    return Batch(x, v, eps, weights)


def net_like(experts: oracle.Experts, dtype: torch.dtype, **keywords: Any) -> Mixture:
    """The library's network with the oracle's parameters."""
    config = TALLConfig(n_experts=experts.n_experts, latent=experts.latent, **keywords)
    net = Mixture(MixtureSettings.of(dict(config)), experts.n_items).to(dtype)
    with torch.no_grad():
        for name, value in experts.stacked().items():
            getattr(net.bank, name).copy_(value)
    return net


def check_pass(
    experts: oracle.Experts, batch: Batch, how: dict[str, Any], noisy: bool, dtype: torch.dtype
) -> None:
    """One forward and backward pass by both; everything must agree."""
    variant, tolerance = how.get("variant", "default"), TOLERANCE[dtype]
    reduction = TALLConfig(**how).kl_reduction
    noise = 0.5  # far more than in training, so that the log-variance's gradients count
    experts.zero_grad()
    out = experts.forward(batch.x, batch.v, batch.eps if noisy else None, noise=noise, **how)
    expected = oracle.batch_loss(out, batch.x, batch.weights.tolist(), BETA, variant, reduction)
    expected.backward()  # type: ignore[no-untyped-call]

    net = net_like(experts, dtype, **how)
    rows, held_out = sparse(batch.x), sparse(batch.v)
    mu, logvar = net.bank.encode(rows)
    z = mu + noise * batch.eps.to(dtype) * torch.exp(logvar / 2) if noisy else mu
    losses = net.bank.held_out_losses(z, rows, held_out, net.seen_fill)
    with mock.patch.multiple(bank, BLOCK_CELLS=1, BLOCK_ROWS=2):  # several blocks, the last one short
        gate, logits = net.mixture(z, rows, held_out)
    assert_near(net.gate(z, rows, held_out).detach(), gate.detach(), tolerance, "gate on its own")
    weights = batch.weights.to(dtype)
    loss = (weights * row_nll(logits, rows)).sum() / weights.sum() + BETA * net.kl(gate, mu, logvar)
    loss.backward()  # type: ignore[no-untyped-call]

    assert_near(losses.detach(), out.losses.detach().T, tolerance, "held-out losses")
    assert_near(gate.detach(), out.gate.detach(), tolerance, "gate")
    assert_near(logits.detach(), out.logits.detach(), tolerance, "logits")
    assert_near(loss.detach(), expected.detach(), tolerance, "loss")
    ours = held_out_nll(logits.detach().clone(), rows, held_out, net.seen_fill)
    theirs = torch.tensor(oracle.mixture_losses(out, batch.x, batch.v, variant), dtype=torch.float64)
    assert_near(ours, theirs, tolerance, "mixture's held-out losses")
    for name, gradient in experts.gradients().items():
        assert_near(getattr(net.bank, name).grad, gradient, tolerance, f"gradient of {name}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("noisy", [False, True], ids=["mean", "noise"])
@pytest.mark.parametrize("n_experts", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_pass_agrees(mode: str, n_experts: int, noisy: bool, dtype: torch.dtype) -> None:
    experts = oracle.Experts(8, n_experts, 3, seed=len(mode))
    check_pass(experts, draw_batch(7, 8, n_experts, 3, seed=len(mode)), MODES[mode], noisy, dtype)


@settings(max_examples=25, deadline=None)
@given(
    mode=st.sampled_from(sorted(MODES)),
    n_experts=st.integers(1, 4),
    n_users=st.integers(1, 7),
    n_items=st.integers(3, 9),
    latent=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_any_pass_agrees(
    mode: str, n_experts: int, n_users: int, n_items: int, latent: int, seed: int
) -> None:
    experts = oracle.Experts(n_items, n_experts, latent, seed=seed)
    check_pass(
        experts, draw_batch(n_users, n_items, n_experts, latent, seed), MODES[mode], True, torch.float64
    )


def test_multvae_of_the_authors_takes_the_mean_of_kl() -> None:
    batch, experts = draw_batch(6, 8, 1, 3, seed=1), oracle.Experts(8, 1, 3, seed=1)
    out = experts.forward(batch.x, batch.v)
    for keywords, expected in (
        ({"variant": "authors"}, out.kl.mean()),
        ({"kl_reduction": "sum"}, out.kl.sum()),
        ({}, out.kl.mean()),
        (MultVAE.presets["ml-1m"], out.kl.sum()),
    ):
        config = MultVAEConfig(**{**keywords, "latent": 3})
        net = Mixture(MixtureSettings.of(dict(config)), 8).double()
        with torch.no_grad():
            for name, value in experts.stacked().items():
                getattr(net.bank, name).copy_(value)
        mu, logvar = net.bank.encode(sparse(batch.x))
        gate = net.gate(mu, sparse(batch.x), sparse(batch.v))
        torch.testing.assert_close(net.kl(gate, mu, logvar), expected)


def test_scores_mix_one_input_with_the_gate_of_another() -> None:
    # Gates read train rows and held-out rows; what is scored may show the model more rows.
    batch, experts = draw_batch(7, 8, 3, 3, seed=2), oracle.Experts(8, 3, 3, seed=2)
    net = net_like(experts, torch.float64)
    gates = net.gates_of(sparse(batch.x), sparse(batch.v))
    scores = net.scores(sparse(batch.x + batch.v), gates)
    gate = experts.forward(batch.x, batch.v).gate
    shown = experts.forward(batch.x + batch.v, torch.zeros_like(batch.v)).expert_logits
    assert_near(gates, gate.detach(), 1e-10, "gate")
    assert_near(scores, torch.einsum("uk,kui->ui", gate, shown).detach(), 1e-10, "scores")
    assert not scores.requires_grad


def test_large_logits_do_not_overflow() -> None:
    experts = oracle.Experts(8, 3, 3, seed=4)
    with torch.no_grad():
        for decoder in experts.decoders:
            decoder.weight.mul_(1e4)
    check_pass(experts, draw_batch(7, 8, 3, 3, seed=4), {}, False, torch.float64)


def test_dropout_scales_the_entries_of_unit_rows() -> None:
    batch, experts = draw_batch(7, 8, 2, 3, seed=5), oracle.Experts(8, 2, 3, seed=5)
    net, rows = net_like(experts, torch.float64), sparse(batch.x)
    keep = torch.bernoulli(torch.full((int(batch.x.sum()),), 0.5, dtype=torch.float64)) / 0.5
    dense = torch.zeros_like(batch.x)
    dense[batch.x > 0] = keep
    dense = dense / batch.x.norm(dim=1, keepdim=True).clamp(min=1)
    weight = experts.stacked()["encoder_weight"].requires_grad_()
    h = torch.einsum("ui,kih->kuh", dense, weight) + experts.stacked()["encoder_bias"][:, None]
    expected = torch.split(h, 3, dim=-1)
    got = net.bank.encode(rows, keep)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.stack(got).square().sum().backward()  # type: ignore[no-untyped-call]
    torch.stack(expected).square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(net.bank.encoder_weight.grad, weight.grad)


def test_mlp_gate_is_two_dense_layers() -> None:
    batch = draw_batch(7, 8, 3, 3, seed=6)
    gate = MLPGate(8, 3, 4, torch.Generator().manual_seed(6)).double()
    copies = [p.detach().clone().requires_grad_() for p in gate.parameters()]
    hidden_weight, hidden_bias, output_weight, output_bias = copies
    unit = batch.x / batch.x.norm(dim=1, keepdim=True).clamp(min=1)
    expected = torch.softmax(
        torch.tanh(unit @ hidden_weight + hidden_bias) @ output_weight + output_bias, dim=1
    )
    got = gate(sparse(batch.x))
    torch.testing.assert_close(got, expected)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (got * direction).sum().backward()
    (expected * direction).sum().backward()  # type: ignore[no-untyped-call]
    for parameter, copy in zip(gate.parameters(), copies, strict=True):
        torch.testing.assert_close(parameter.grad, copy.grad)


def test_entropy_and_the_ends_of_shrinkage() -> None:
    gate = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(entropy(gate), torch.tensor([np.log(2), 0.0], dtype=torch.float64))
    losses, n = torch.tensor([[8.0, 4.0], [0.0, 0.0]], dtype=torch.float64), torch.tensor([4, 0])
    sharp = torch.softmax(torch.tensor([-2.0, -1.0], dtype=torch.float64), dim=0)
    flat = torch.full((2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(temperature_gate(losses, n, 1.0, 0.0), torch.stack([sharp, flat]))
    torch.testing.assert_close(
        temperature_gate(losses, n, 1.0, 1e12), torch.stack([flat, flat]), atol=1e-9, rtol=0
    )


# ---- adaptive weights

SIGNALS = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12)
ALPHAS = st.floats(0.01, 5)


@settings(max_examples=50, deadline=None)
@given(SIGNALS, ALPHAS)
def test_weights_agree(values: list[float], alpha: float) -> None:
    signal = torch.tensor(values, dtype=torch.float64)
    expected = torch.tensor(oracle.adaptive_weights(values, alpha), dtype=torch.float64)
    torch.testing.assert_close(adaptive_weights(signal, alpha), expected, atol=1e-9, rtol=1e-10)
    expected = torch.tensor(oracle.adaptive_weights(values, alpha, "authors"), dtype=torch.float64)
    torch.testing.assert_close(authors_weights(signal, alpha), expected, atol=1e-9, rtol=1e-10)


@settings(max_examples=50, deadline=None)
@given(SIGNALS, ALPHAS, st.sampled_from([0.0, 1e3, 1e5]))
def test_float32_weights_have_mean_one_wherever_the_signals_lie(
    values: list[float], alpha: float, level: float
) -> None:
    signal = torch.tensor(values, dtype=torch.float32) + level
    weights = adaptive_weights(signal, alpha)
    expected = oracle.adaptive_weights(signal.double().tolist(), alpha)
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=1e-4)
    assert float(weights.mean()) == pytest.approx(1.0, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    weighting=st.sampled_from(["loss", "loss-change"]),
    scale=st.sampled_from(["sum", "mean", "standardised"]),
    variant=st.sampled_from(["default", "authors"]),
    window=st.integers(1, 4),
    start_epoch=st.integers(0, 3),
    alpha=st.floats(0.05, 2),
    seed=st.integers(0, 2**31),
)
def test_weights_agree_over_epochs(
    weighting: Any, scale: Any, variant: str, window: int, start_epoch: int, alpha: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    n_users = int(random.integers(1, 9))
    n_held_out = random.integers(0, 4, n_users)
    trained = np.flatnonzero(random.random(n_users) < 0.8)  # others have no train rows
    fast = AdaptiveWeights(
        torch.from_numpy(n_held_out),
        signal=weighting,
        scale=scale,
        alpha=alpha,
        window=window,
        start_epoch=start_epoch,
        authors=variant == "authors",
        dtype=torch.float64,
    )
    losses: list[list[float | None]] = []
    for epoch in range(1, 9):
        expected = oracle.weights_of_epoch(
            epoch,
            losses,
            n_held_out.tolist(),
            weighting=weighting,
            alpha=alpha,
            window=window,
            signal_scale=scale,
            start_epoch=start_epoch,
            variant=variant,
        )
        np.testing.assert_allclose(fast.of_epoch(epoch).numpy(), expected, atol=1e-8)
        losses.append([None] * n_users)
        order = random.permutation(trained)
        for users in np.array_split(order, 2):
            own = random.gamma(4.0, 3.0, len(users)) * (n_held_out[users] > 0)
            fast.record(torch.from_numpy(users), torch.from_numpy(own))
            for user, loss in zip(users, own, strict=True):
                losses[-1][user] = float(loss)


# ---- the whole training step


def small_split(seed: int) -> Split:
    random = np.random.default_rng(seed)
    n_rows = [1, 2, 3, 4, 6, 8, 9, 10, 5, 7, 2]
    frame = pl.DataFrame(
        [
            {"user_id": u, "item_id": int(i)}
            for u, n in enumerate(n_rows)
            for i in random.choice(12, size=n, replace=False)
        ]
    )
    found = split(Interactions.read(frame), protocol="strict", seed=seed)
    # so few rows leave almost nobody a gate row: here a third of them are, and one user has no other
    found.part[:] = np.where(random.random(len(found.part)) < 1 / 3, GATE, TRAIN)
    found.part[0] = GATE
    return found


def train_slowly(model: TALL, parts: Split, epochs: int) -> tuple[oracle.Experts, list[list[float]]]:
    """The oracle's training from the model's first weights, with its order of users and its noise.

    It steps through whole epochs: the weights of one are made before it of the losses of those before.
    """
    config, seed = model.config, model.options.seed
    experts = oracle.Experts(parts.log.n_items, config.n_experts, config.latent)
    with torch.no_grad():
        for k in range(config.n_experts):
            experts.encoders[k].weight.copy_(model.net.bank.encoder_weight[k].T)
            experts.encoders[k].bias.copy_(model.net.bank.encoder_bias[k])
            experts.decoders[k].weight.copy_(model.net.bank.decoder_weight[k].T)
            experts.decoders[k].bias.copy_(model.net.bank.decoder_bias[k])
    x_all = torch.from_numpy(parts.rows("train").toarray()).double()
    v_all = torch.from_numpy(parts.rows("gate").toarray()).double()
    order, random = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    n_held_out = [int(n) for n in v_all.sum(1)]
    trained = np.flatnonzero(x_all.sum(1).numpy())
    steps_an_epoch = math.ceil(len(trained) / config.batch_size)
    if config.l2:
        decay = {"weight_decay": config.l2 / config.n_experts}
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            experts.parameters(), config.learning_rate, **decay
        )
    else:
        optimizer = torch.optim.Adam(experts.parameters(), config.learning_rate)
    weights_of, losses_of, step = [], [], 0
    for epoch in range(1, epochs + 1):
        weights = weights_of_epoch(config, parts, epoch, losses_of, n_held_out)
        weights_of.append([w if u in trained else 0.0 for u, w in enumerate(weights)])
        losses_of.append([None] * len(x_all))
        users = order.permutation(trained)
        for start in range(0, len(users), config.batch_size):
            batch = users[start : start + config.batch_size]
            x, v = x_all[batch], v_all[batch]
            keep = None
            if config.dropout:  # each entry of the input stays with probability 1 - dropout, and counts more
                kept = torch.full((int(x.sum()),), 1 - config.dropout, dtype=torch.float64)
                keep = torch.zeros_like(x)
                keep[x > 0] = torch.bernoulli(kept, generator=random) / (1 - config.dropout)
            shape = (config.n_experts, len(batch), config.latent)
            eps = torch.randn(shape, generator=random, dtype=torch.float64)
            how = {"gate": model.settings.gate, "variant": config.variant, "noise": config.noise}
            out = experts.forward(x, v, eps, **how, keep=keep)
            for user, loss in zip(batch, oracle.mixture_losses(out, x, v, config.variant), strict=True):
                losses_of[-1][user] = loss
            if config.anneal_steps:
                beta = oracle.authors_kl_weight(step, config.beta, config.anneal_steps)
            else:
                beta = oracle.kl_weight(step, steps_an_epoch, config.beta, config.anneal_epochs)
            own = [weights[user] for user in batch]
            loss = oracle.batch_loss(out, x, own, beta, config.variant, config.kl_reduction)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                for parameter in experts.parameters():
                    parameter *= 1 - (0 if config.l2 else config.weight_decay) / steps_an_epoch
            optimizer.step()
            step += 1
    return experts, weights_of


def weights_of_epoch(
    config: Any, parts: Split, epoch: int, losses: list[list[float | None]], n_held_out: list[int]
) -> list[float]:
    """The oracle's weights under a config."""
    if config.weighting == "mainstream":
        return oracle.mainstream_weights(parts.mainstream.scores.tolist(), config.power)
    keys = ("weighting", "alpha", "window", "signal_scale", "start_epoch", "variant")
    return oracle.weights_of_epoch(epoch, losses, n_held_out, **{key: getattr(config, key) for key in keys})


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"weight_decay": 0.1, "l2": 0.0},
        {"kl_reduction": "mean", "anneal_steps": None, "anneal_epochs": 1.5, "beta": 1.2},
        {"weighting": "mainstream", "gate": "loss", "power": 2.0, "dropout": 0.4},
        {"variant": "authors", "alpha": 0.2},  # the floor bites: the weights' sum is no longer their number
        {"gate": "temperature", "weighting": "loss", "signal_scale": "mean"},
        {"gate": "uniform", "signal_scale": "standardised", "window": 2},
    ],
    ids=str,
)
def test_training_agrees_step_by_step(how: dict[str, Any]) -> None:
    epochs, parts = 4, small_split(3)
    keywords: dict[str, Any] = {
        "n_experts": 2,
        "latent": 3,
        "batch_size": 4,
        "learning_rate": 0.05,
        "start_epoch": 1,
        "alpha": 0.5,
        "signal_scale": "sum",
        "beta": 0.2,
        "kl_reduction": "sum",
        "anneal_steps": 50,
        "noise": 0.3,
        "dropout": 0.0,
        "l2": 0.1,
    }
    model = TALL(**{**keywords, **how}, seed=11, precision="float64", device="cpu")
    trainer = model._trainer(parts, None)
    assert isinstance(trainer, MixtureTrainer)
    experts, weights = train_slowly(model, parts, epochs)
    got = [trainer.train_epoch(epoch, lambda share: None)["weight"] for epoch in range(1, epochs + 1)]
    np.testing.assert_allclose(np.nan_to_num(np.array(got)), weights, atol=1e-8)
    assert len(set(np.round(weights[-1], 6))) >= 5  # otherwise the weights would prove nothing
    for name, value in experts.stacked().items():
        assert_near(getattr(model.net.bank, name).detach(), value, 1e-8, name)


@pytest.mark.parametrize("mode", ["default", "uniform", "temperature"])
def test_bfloat16_rounds_factors_and_nothing_else(mode: str) -> None:
    # On a CPU bfloat16 is the same mathematics on rounded factors.
    batch, experts = draw_batch(7, 8, 3, 3, seed=6), oracle.Experts(8, 3, 3, seed=6)
    rows, held_out = sparse(batch.x), sparse(batch.v)
    low, full = (net_like(experts, torch.float32, **MODES[mode]) for _ in range(2))
    low.bank.low = torch.bfloat16
    gradients = []
    for net in (low, full):
        mu, logvar = net.bank.encode(rows)
        gate, logits = net.mixture(mu, rows, held_out)
        assert logits.dtype == gate.dtype == torch.float32
        (row_nll(logits, rows).sum() + net.kl(gate, mu, logvar)).backward()  # type: ignore[no-untyped-call]
        gradients.append([logits.detach(), *(p.grad for p in net.bank.parameters() if p.grad is not None)])
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == torch.float32
        worst = float((ours - theirs).abs().max() / theirs.abs().max())
        assert 0 < worst < 0.03  # rounded, and by no more than bfloat16's eight bits explain
