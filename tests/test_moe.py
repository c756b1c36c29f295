"""MoE is a mixture with a learned gate: its training is that of a dense network, and the gate takes part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import greysheep as gs
from contract import world

QUICK: dict[str, Any] = {
    "n_experts": 3, "latent": 6, "batch_size": 10, "learning_rate": 0.02, "noise": 0.2, "dropout": 0.0,
    "weight_decay": 0.1, "beta": 0.7, "anneal_epochs": 3.0, "precision": "float64", "device": "cpu",
    "seed": 5, "progress": False,
}  # fmt: skip


def dense_gate(net: dict[str, Tensor], x: Tensor) -> Tensor:
    unit = x / x.norm(dim=1, keepdim=True).clamp(min=1)
    hidden = torch.tanh(unit @ net["mlp.hidden_weight"] + net["mlp.hidden_bias"])
    return torch.softmax(hidden @ net["mlp.output_weight"] + net["mlp.output_bias"], dim=1)


def dense_loss(net: dict[str, Tensor], x: Tensor, eps: Tensor, beta: float) -> Tensor:
    """Mean cross-entropy of the mixture and mean KL of the experts, both under the gate."""
    unit = x / x.norm(dim=1, keepdim=True).clamp(min=1)
    h = torch.einsum("ui,kih->kuh", unit, net["bank.encoder_weight"]) + net["bank.encoder_bias"][:, None]
    mu, logvar = h.chunk(2, dim=-1)
    z = mu + QUICK["noise"] * eps * torch.exp(logvar / 2)
    gate = dense_gate(net, x)
    each = torch.einsum("kud,kdi->kui", z, net["bank.decoder_weight"]) + net["bank.decoder_bias"][:, None]
    logits = torch.einsum("uk,kui->ui", gate, each)
    ce = -(x * torch.log_softmax(logits, dim=1)).sum(1).mean()
    kl = 0.5 * (logvar.exp() + mu**2 - 1 - logvar).sum(-1).T
    return ce + beta * (gate * kl).sum(1).mean()


def test_training_agrees_with_a_dense_network() -> None:
    split = gs.split(world(24), protocol="strict")
    model = gs.MoE(**QUICK)
    trainer = model._trainer(split, None)
    before = {key: value.clone() for key, value in model.net.state_dict().items()}
    net = {key: value.clone().requires_grad_() for key, value in before.items()}
    adam = torch.optim.Adam(net.values(), QUICK["learning_rate"])
    x = torch.from_numpy(split.rows("train", "gate").toarray()).double()
    order, random, step = np.random.default_rng(5), torch.Generator().manual_seed(5), 0
    for epoch in (1, 2, 3):
        trainer.train_epoch(epoch, lambda share: None)
        users = order.permutation(np.arange(24))
        for batch in (users[i : i + 10] for i in (0, 10, 20)):
            eps = torch.randn((3, len(batch), 6), generator=random, dtype=torch.float64)
            adam.zero_grad()
            dense_loss(net, x[batch], eps, min(0.7, step / 9)).backward()
            with torch.no_grad():
                for value in net.values():
                    value *= 1 - 0.1 / 3
            adam.step()
            step += 1
    for key, value in model.net.state_dict().items():
        np.testing.assert_allclose(value, net[key].detach(), atol=1e-9, err_msg=key)
        assert not torch.equal(value, before[key]), f"{key} was not trained"


def test_gates_differ_between_users_and_move_while_training() -> None:
    split = gs.split(world(), protocol="strict")
    early, late = (gs.MoE(**{**QUICK, "epochs": epochs}).fit(split) for epochs in (1, 12))
    for model in (early, late):
        state = {key: value.double() for key, value in model._state().items()}
        x = torch.from_numpy(split.rows("train", "gate").toarray()).double()
        np.testing.assert_allclose(model.gates, dense_gate(state, x), atol=1e-9)
    even = np.arange(96) % 2 == 0
    apart = [np.abs(m.gates[even].mean(0) - m.gates[~even].mean(0)).max() for m in (early, late)]
    assert apart[1] > 0.2 and apart[1] > 2 * apart[0]  # two tastes, which the gate learns to tell apart
    assert late.gate_entropy == pytest.approx(-(late.gates * np.log(late.gates)).sum(1).mean())
    assert late.gate_entropy < np.log(3) - 0.05
