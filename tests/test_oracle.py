"""The oracle is held to other people's code and to arithmetic done by hand before anything is held to it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import oracle

GOLDEN = Path(__file__).with_name("golden") / "ease.json"
SIGNALS = st.lists(st.floats(-20, 20, allow_nan=False), min_size=1, max_size=7)
ALPHAS = st.floats(0.05, 5)


def random_batch(
    n_users: int, n_items: int, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Train and held-out rows; the first user has no held-out row."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(n_users, n_items, generator=generator)
    x, v = (draw < 0.35).to(dtype), ((draw >= 0.35) & (draw < 0.55)).to(dtype)
    x[:, 0], v[:, 0] = 1.0, 0.0
    v[:, 1], x[:, 1] = 1.0, 0.0
    v[0] = 0.0
    return x, v


# ---- adaptive weights


def objective(weights: np.ndarray, signals: np.ndarray, alpha: float) -> float:
    return float(weights @ signals - alpha * weights @ weights)


@settings(max_examples=50, deadline=None)
@given(SIGNALS, ALPHAS)
def test_exact_weights_solve_the_problem(values: list[float], alpha: float) -> None:
    signals, n = np.array(values), len(values)
    ours = np.array(oracle.adaptive_weights(values, alpha))
    assert (ours >= 0).all()
    assert ours.mean() == pytest.approx(1.0, abs=1e-9)
    # A general solver, which knows nothing of the sorted rule. The same problem in the units it likes best:
    # half of |w - target|^2, whose Hessian is the identity.
    target = (signals - signals.max()) / (2 * alpha)
    solved = minimize(
        lambda w: 0.5 * ((w - target) ** 2).sum(),
        np.ones(n),
        jac=lambda w: w - target,
        bounds=[(0, None)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - n, "jac": lambda w: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert solved.status in (0, 8), solved.message  # 8: it stands at a corner and finds no way down
    np.testing.assert_allclose(ours, solved.x, atol=1e-6)
    # And no point of the feasible set that we can think of does better.
    for other in (np.ones(n), solved.x, *(n * np.eye(n))):
        assert objective(ours, signals, alpha) >= objective(other, signals, alpha) - 1e-6


@settings(max_examples=50, deadline=None)
@given(SIGNALS, ALPHAS)
def test_exact_lambda_is_where_the_mean_weight_crosses_one(values: list[float], alpha: float) -> None:
    low, high = min(values) - 2 * alpha - 1, max(values)
    for _ in range(200):
        middle = (low + high) / 2
        mean = sum(max((s - middle) / (2 * alpha), 0.0) for s in values) / len(values)
        low, high = (middle, high) if mean > 1 else (low, middle)
    assert oracle.exact_lambda(values, alpha) == pytest.approx(low, abs=1e-9)


def test_weights_by_hand() -> None:
    # B = 3, 2 alpha = 1. j = 2: (5 + 4 - 3) / 2 = 3 < 4, so m is at least 2; j = 3: (9 + 0 - 3) / 3 = 2 > 0.
    assert oracle.exact_lambda([0.0, 5.0, 4.0], 0.5) == 3.0
    assert oracle.adaptive_weights([0.0, 5.0, 4.0], 0.5) == [0.0, 2.0, 1.0]
    # authors: lambda = 3 - 1 = 2, so the mean is no longer 1.
    assert oracle.adaptive_weights([0.0, 5.0, 4.0], 0.5, "authors") == [1e-8, 3.0, 2.0]
    # Nobody falls below zero: both agree.
    assert oracle.adaptive_weights([1.0, 2.0], 1.0) == oracle.adaptive_weights([1.0, 2.0], 1.0, "authors")
    assert oracle.adaptive_weights([], 1.0) == []


def test_weights_of_an_epoch_by_hand() -> None:
    """User 2 has no held-out row; user 3 is never trained on."""
    losses = [[10.0, 10.0, 0.0, None], [8.0, 9.0, 0.0, None], [8.0, 8.0, 0.0, None], [5.0, 8.0, 0.0, None]]

    def of(epoch: int) -> list[float]:
        return oracle.weights_of_epoch(epoch, losses, [2, 2, 0, 1], alpha=0.5, window=2)

    # No change before the third epoch.
    assert of(1) == of(2) == [1.0, 1.0, 1.0, 1.0]
    # Of epoch 2: changes 2 and 1, lambda = (3 - 2) / 2 = .5.
    assert of(3) == [1.5, 0.5, 1.0, 1.0]
    # Of epochs 2 and 3: means of (2, 0) and (1, 1).
    assert of(4) == [1.0, 1.0, 1.0, 1.0]
    # The change of epoch 2 has left the window: (0, 3) against (1, 0).
    assert of(5) == [1.5, 0.5, 1.0, 1.0]
    # What is recorded in an epoch does not count in it.
    later = [*losses[:2], [0.0, 50.0, 0.0, None]]
    assert oracle.weights_of_epoch(3, later, [2, 2, 0, 1], alpha=0.5) == of(3)


def test_scales_of_the_signal_and_start() -> None:
    losses = [[10.0, 10.0], [8.0, 6.0]]

    def of(epoch: int, n_held_out: list[int], **how: Any) -> list[float]:
        return oracle.weights_of_epoch(epoch, losses, n_held_out, **how)

    # Changes 2 and 4; a held-out row 1.0 and 1.0 when user 1 has four rows and user 0 two.
    assert of(3, [2, 4], alpha=0.25) == [0.0, 2.0]
    assert of(3, [2, 4], alpha=0.25, signal_scale="mean") == [1.0, 1.0]
    # Two different signals standardise to -1 and +1 whatever they were, and equal ones to 0.
    assert oracle.standardised([2.0, 4.0]) == [-1.0, 1.0]
    assert oracle.standardised([3.0, 3.0]) == [0.0, 0.0]
    # Both changed by 1 a row: nobody more than her rows explain.
    assert of(3, [2, 4], alpha=1.0, signal_scale="standardised") == [1.0, 1.0]
    # 1.2 a row on average: 2 - 1.2 more and 4 - 4.8 more.
    assert of(3, [1, 4], alpha=1.0, signal_scale="standardised") == [1.5, 0.5]
    # Losses are recorded during the first epochs, weights are 1.
    assert of(3, [2, 2], alpha=1.0, start_epoch=3) == [1.0, 1.0]
    assert of(3, [2, 2], alpha=1.0, start_epoch=2) == [0.5, 1.5]
    # The plain loss needs no change.
    assert of(2, [1, 1], weighting="loss", alpha=1.0) == [1.0, 1.0]
    assert of(3, [1, 1], weighting="loss", alpha=1.0) == [1.5, 0.5]
    assert of(3, [1, 1], weighting="none") == [1.0, 1.0]


def test_kl_weight_by_hand() -> None:
    """PAPER: after 1,000 steps .005, and a cap of .2 that ML-1M, with 12 steps an epoch, never meets."""
    assert oracle.authors_kl_weight(1_000) == pytest.approx(0.005)
    assert oracle.authors_kl_weight(40_000) == pytest.approx(0.2)
    assert oracle.authors_kl_weight(10**6) == 0.2
    # A user's own, summed over a batch of 512, in an epoch of ML-1M.
    assert 512 * oracle.authors_kl_weight(12) == pytest.approx(0.031, abs=5e-4)
    # The default rises by as much in the epoch of any log.
    for steps in (1, 12, 130):
        assert oracle.kl_weight(steps, steps, 1.0, 32.0) == pytest.approx(1 / 32)
    assert oracle.kl_weight(500, 10, 0.7, 32.0) == 0.7


# ---- losses


@pytest.mark.parametrize("seed", range(3))
def test_losses_agree_with_torch(seed: int) -> None:
    x, v = random_batch(4, 9, seed)
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4
    unseen = torch.log_softmax(logits.masked_fill(x > 0, -math.inf), dim=1)
    zeroed = torch.log_softmax(logits * (x == 0), dim=1)
    everything = torch.log_softmax(logits, dim=1)
    for u in range(4):
        torch.testing.assert_close(oracle.held_out_loss(logits[u], x[u], v[u]), -unseen[u][v[u] > 0].sum())
        torch.testing.assert_close(
            oracle.held_out_loss(logits[u], x[u], v[u], "authors"), -zeroed[u][v[u] > 0].sum()
        )
        torch.testing.assert_close(oracle.cross_entropy(logits[u], x[u]), -everything[u][x[u] > 0].sum())


def test_held_out_loss_survives_large_logits() -> None:
    x, v = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    loss = oracle.held_out_loss(torch.tensor([9000.0, 5000.0, 5000.0]), x, v)
    assert float(loss) == pytest.approx(math.log(2))


def test_kl_agrees_with_torch() -> None:
    mu, logvar = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    normal = torch.distributions.Normal(mu, torch.exp(logvar / 2))
    standard = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    expected = torch.distributions.kl_divergence(normal, standard).sum()
    torch.testing.assert_close(oracle.kl_divergence(mu, logvar), expected)


# ---- gate


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.05, 300), min_size=1, max_size=5), st.integers(1, 40), st.floats(0.05, 10))
def test_gate_is_a_distribution_that_prefers_the_smaller_loss(
    values: list[float], n_held_out: int, temperature: float
) -> None:
    losses = [torch.tensor(value, dtype=torch.float64) for value in values]
    for kind in ("loss", "temperature", "uniform"):
        gate = oracle.gate_of(losses, n_held_out, kind, temperature)
        assert float(gate.sum()) == pytest.approx(1.0)
        assert (gate > 0).all()
        if kind != "uniform":
            assert float(gate[int(np.argmin(values))]) == pytest.approx(float(gate.max()))
        torch.testing.assert_close(
            oracle.gate_of(losses, 0, kind), torch.full((len(values),), 1 / len(values), dtype=torch.float64)
        )
    # The published gate is flat: no two of its values differ by more than exp(1 / min L).
    gate = oracle.gate_of(losses, n_held_out)
    assert float(gate.max() / gate.min()) <= math.exp(1 / min(values)) * (1 + 1e-9)


def test_gate_by_hand() -> None:
    losses = [torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)]
    a, b = math.exp(1.0), math.exp(0.5)
    np.testing.assert_allclose(oracle.gate_of(losses, 1).numpy(), [a / (a + b), b / (a + b)])
    # An expert without loss takes all, two of them share.
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert oracle.gate_of([zero, one, zero], 1).tolist() == [0.5, 0.0, 0.5]
    # Two held-out rows: mean losses 1/2 and 1; temperature 1/2: exponents -1 and -2; a = 2 / (2 + 6).
    c, d = math.exp(-1.0), math.exp(-2.0)
    expected = [0.25 * c / (c + d) + 0.375, 0.25 * d / (c + d) + 0.375]
    np.testing.assert_allclose(oracle.gate_of(losses, 2, "temperature", 0.5, 6.0).numpy(), expected)


# ---- the pass, the loss and its gradients


def test_forward_by_hand() -> None:
    experts = oracle.Experts(2, 1, 1)
    with torch.no_grad():
        experts.encoders[0].weight.copy_(torch.tensor([[3.0, 5.0], [0.0, math.log(4.0)]]))
        experts.encoders[0].bias.copy_(torch.tensor([1.0, 0.0]))
        experts.decoders[0].weight.copy_(torch.tensor([[2.0], [-1.0]]))
        experts.decoders[0].bias.copy_(torch.tensor([0.0, 10.0]))
    x, v = torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    # mu = 5 + 1 = 6, logvar = log 4, z = 6 at inference and 6 + .01 * 3 * 2 with eps = 3.
    out = experts.forward(x, v)
    np.testing.assert_allclose(out.logits.detach().numpy(), [[12.0, 4.0]])
    assert out.kl[0, 0].item() == pytest.approx(0.5 * (4 + 36 - 1 - math.log(4)))
    assert out.losses[0, 0].item() == 0.0  # one unseen item: nothing to choose between
    assert float(out.gate[0, 0]) == 1.0
    noisy = experts.forward(x, v, torch.full((1, 1, 1), 3.0, dtype=torch.float64))
    np.testing.assert_allclose(noisy.logits.detach().numpy(), [[12.12, 3.94]])
    # x is scaled to length one, and an empty row stays empty.
    both = experts.forward(torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64), torch.zeros(2, 2))
    mu = 8 / math.sqrt(2) + 1
    np.testing.assert_allclose(both.logits.detach().numpy(), [[2 * mu, 10 - mu], [2.0, 9.0]], rtol=1e-12)


def loss_of(
    experts: oracle.Experts, x: torch.Tensor, v: torch.Tensor, eps: torch.Tensor, **how: object
) -> float:
    out = experts.forward(x, v, eps, **how)  # type: ignore[arg-type]
    return float(oracle.batch_loss(out, x, [0.5, 2.0, 1.0], 0.3, str(how.get("variant", "default"))))


@pytest.mark.parametrize(
    "how", [{"gate_gradient": True}, {"variant": "authors"}, {"gate": "temperature", "gate_gradient": True}]
)
def test_gradients_agree_with_finite_differences(how: dict[str, object]) -> None:
    experts = oracle.Experts(5, 2, 2, seed=3)
    x, v = random_batch(3, 5, 3)
    eps = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    out = experts.forward(x, v, eps, **how)  # type: ignore[arg-type]
    oracle.batch_loss(out, x, [0.5, 2.0, 1.0], 0.3, str(how.get("variant", "default"))).backward()  # type: ignore[no-untyped-call]
    step = 1e-5
    for parameter in experts.parameters():
        assert parameter.grad is not None
        position = tuple(int(n) - 1 for n in parameter.shape)
        with torch.no_grad():
            parameter[position] += step
            above = loss_of(experts, x, v, eps, **how)
            parameter[position] -= 2 * step
            below = loss_of(experts, x, v, eps, **how)
            parameter[position] += step
        assert float(parameter.grad[position]) == pytest.approx(
            (above - below) / (2 * step), rel=1e-5, abs=1e-7
        )


def gradient_of(gate_gradient: bool, gate: str = "loss") -> dict[str, torch.Tensor]:
    experts = oracle.Experts(6, 2, 2, seed=5)
    x, v = random_batch(3, 6, 5)
    out = experts.forward(x, v, None, gate=gate, gate_gradient=gate_gradient)
    oracle.batch_loss(out, x, [1.0, 1.0, 1.0], 0.3).backward()  # type: ignore[no-untyped-call]
    return experts.gradients()


def test_the_gate_is_a_constant_unless_asked_for() -> None:
    constant, flowing = gradient_of(False), gradient_of(True)
    assert not torch.allclose(constant["decoder_weight"], flowing["decoder_weight"])
    for name, value in gradient_of(True, "uniform").items():
        torch.testing.assert_close(value, gradient_of(False, "uniform")[name])


def test_kl_weighs_the_same_in_total_when_the_gate_is_uniform() -> None:
    x, v = random_batch(4, 6, 7)
    out = oracle.Experts(6, 3, 2, seed=7).forward(x, v, None, gate="uniform")
    ours, theirs = (oracle.batch_loss(out, x, [1.0] * 4, 0.3, variant) for variant in ("default", "authors"))
    torch.testing.assert_close(ours, theirs)
    without = oracle.batch_loss(out, x, [1.0] * 4, 0.0)
    torch.testing.assert_close(ours - without, 0.3 * out.kl.mean(dim=0).sum())


def test_stacked_shapes() -> None:
    experts = oracle.Experts(7, 3, 2)
    shapes = {name: tuple(value.shape) for name, value in experts.stacked().items()}
    assert shapes == {
        "encoder_weight": (3, 7, 4),
        "encoder_bias": (3, 4),
        "decoder_weight": (3, 2, 7),
        "decoder_bias": (3, 7),
    }
    assert {name: tuple(value.shape) for name, value in experts.gradients().items()} == shapes


# ---- closed-form baselines


def test_ease_agrees_with_rectools_and_lenskit() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    x = np.zeros((golden["n_users"], golden["n_items"]))
    for user, item in golden["rows"]:
        x[user, item] = 1.0
    weights = oracle.ease_weights(x, golden["regularisation"])
    np.testing.assert_allclose(weights, golden["weights_rectools"], atol=1e-6)
    np.testing.assert_allclose(weights, golden["weights_lenskit"], atol=1e-6)
    np.testing.assert_allclose(
        oracle.ease_scores(x, golden["regularisation"]), golden["scores_lenskit"], atol=1e-6
    )


def test_ease_is_a_ridge_regression_of_each_item_on_the_others() -> None:
    x = (np.random.default_rng(2).random((15, 6)) < 0.4).astype(float)
    weights = oracle.ease_weights(x, 2.0)
    for j in range(6):
        others = [i for i in range(6) if i != j]
        a = x[:, others]
        expected = np.linalg.solve(a.T @ a + 2.0 * np.eye(5), a.T @ x[:, j])
        np.testing.assert_allclose(weights[others, j], expected, atol=1e-12)
        assert weights[j, j] == 0.0


def test_weighted_ease() -> None:
    x = (np.random.default_rng(3).random((15, 6)) < 0.4).astype(float)
    x[:, 5], x[0] = 0.0, 0.0  # an item and a user without rows
    np.testing.assert_allclose(oracle.weighted_ease_scores(x, 2.0, 0.0, 0.0), oracle.ease_scores(x, 2.0))
    # p = 1 divides a user's row by the root of her count: in the Gram matrix she weighs 1 / n_u.
    n = np.maximum(x.sum(axis=1), 1)
    gram = sum(np.outer(row, row) / count for row, count in zip(x, n, strict=True))
    inverse = np.linalg.inv(gram + 2.0 * np.eye(6))
    expected = x @ (np.eye(6) - inverse / np.diag(inverse))
    np.testing.assert_allclose(oracle.weighted_ease_scores(x, 2.0, 1.0, 0.0), expected, atol=1e-12)
    # With a very large lambda B is the Gram matrix over lambda, so a lone item i scores j with
    # gram_ij pop_i^-2b pop_j^(-b + b) / lambda.
    pop = np.maximum(x.sum(axis=0), 1)
    far = oracle.weighted_ease_scores(x, 1e9, 0.0, 0.5, rows=np.eye(6)) * 1e9
    gram = x.T @ x
    np.testing.assert_allclose(far[0, 1], gram[0, 1] / pop[0], rtol=1e-6)


def test_popularity() -> None:
    x = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(oracle.popularity_scores(x), [[2, 1, 0], [2, 1, 0]])
    np.testing.assert_array_equal(oracle.popularity_scores(x, n_users=1), [[2, 1, 0]])
