"""Sparse routing: the same mathematics as the whole mixture under a gate with zeros, for less work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import greysheep as gs
from contract import world
from greysheep.data.splitting import TRAIN, VALIDATION
from greysheep.nn import routing
from greysheep.nn.bank import ExpertBank
from greysheep.nn.sparse_rows import SparseRows

QUICK: dict[str, Any] = {
    "n_experts": 4, "latent": 8, "epochs": 8, "batch_size": 16, "learning_rate": 1e-2, "start_epoch": 2,
    "active_experts": 2, "warm_up": 3, "progress": False,
}  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(n_rows=st.integers(1, 9), n_experts=st.integers(1, 5), m=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_a_routed_pass_is_the_whole_mixture_under_the_cut_gate(
    n_rows: int, n_experts: int, m: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = csr_matrix((torch.rand(n_rows, 7, generator=generator) < 0.4).double().numpy())
    rows, bank = SparseRows.from_csr(x), ExpertBank(n_experts, 7, 3, generator).double()
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    gate = torch.softmax(torch.randn(n_rows, n_experts, generator=generator, dtype=torch.float64), dim=1)
    cut = routing.strongest(gate, m, rows)
    slope = torch.randn(n_rows, 7, generator=generator, dtype=torch.float64)

    def gradients(logits: torch.Tensor, kl: torch.Tensor) -> list[torch.Tensor]:
        bank.zero_grad()
        ((logits * slope).sum() + kl).backward()  # type: ignore[no-untyped-call]
        return [
            logits.detach(),
            kl.detach(),
            *(p.grad.clone() for p in bank.parameters() if p.grad is not None),
        ]

    mu, logvar = bank.encode(rows)
    whole = gradients(bank.mix(mu, cut), (cut.T * (mu.square() + logvar).sum(-1)).sum())
    routes = routing.Routes.of(cut)
    mu, logvar = routing.encode(bank, rows, routes)
    logits = routing.mix(bank, mu, routes, n_rows)
    routed = gradients(logits, (routes.gate * (mu.square() + logvar).sum(-1)).sum())
    for ours, theirs in zip(routed, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_strongest_experts_are_kept_and_ties_are_spread() -> None:
    gate = torch.tensor([[0.1, 0.5, 0.4], [0.7, 0.2, 0.1]])
    random = np.random.default_rng(0)
    rows = SparseRows.from_csr(csr_matrix((random.random((600, 40)) < 0.2).astype(np.float32)))
    torch.testing.assert_close(
        routing.strongest(gate, 2, rows.block(slice(0, 2))),
        torch.tensor([[0.0, 5 / 9, 4 / 9], [7 / 9, 2 / 9, 0.0]]),
    )
    flat = routing.strongest(torch.full((600, 3), 1 / 3), 1, rows)
    assert (flat.sum(0) > 150).all() and torch.equal(flat.sum(1), torch.ones(600))


@pytest.mark.parametrize("protocol", ["strict", "paper", "all"])
def test_users_keep_the_experts_they_were_trained_with(protocol: str) -> None:
    split = gs.split(world(96), protocol=protocol)
    model = gs.TALL(**{**QUICK, "warm_up": 1}).fit(split)
    assert model.gates is not None and model.routes is not None and model.best_epoch > 1
    np.testing.assert_allclose(model.gates.sum(1), 1, rtol=1e-5)
    assert ((model.gates > 0).sum(1) == 2).all()
    np.testing.assert_array_equal(model.gates, model.routes.numpy())
    scores = model._scores(model.rows, model.gates)
    plain = model.net.bank.mix(
        model.net.bank.means(SparseRows.from_csr(model.rows)), torch.from_numpy(model.gates)
    )
    np.testing.assert_allclose(scores, plain.detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:no user has a validation row")
def test_all_experts_active_changes_no_gate_but_freezes_it() -> None:
    split = gs.split(world(48), protocol="strict")
    routed = gs.LMoE(n_experts=2, latent=4, epochs=1, active_experts=2, warm_up=5, progress=False).fit(split)
    whole = gs.LMoE(n_experts=2, latent=4, epochs=1, progress=False).fit(split)
    np.testing.assert_allclose(routed.gates, whole.gates, rtol=1e-5)
    assert routed.routes is None  # the warm-up was never over
    # without validation rows the last weights are kept: the gates are those of the end of the warm-up
    parts = np.where(split.part == VALIDATION, TRAIN, split.part).astype(np.int8)
    kept = gs.Split(split.log, parts, "strict", 0)
    more = {"n_experts": 2, "latent": 4, "learning_rate": 1e-2, "gate": "temperature", "progress": False}
    frozen = gs.LMoE(**more, epochs=5, active_experts=2, warm_up=2).fit(kept)
    then, later = (gs.LMoE(**more, epochs=epochs).fit(kept) for epochs in (2, 5))
    np.testing.assert_allclose(frozen.gates, then.gates, rtol=1e-5)
    assert np.abs(later.gates - then.gates).max() > 1e-3
