"""The GPU path: the same code and the same numbers as on the CPU. Skipped, with a reason, without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import greysheep as gs
from contract import world
from greysheep.models.autoencoders.trainer import MixtureTrainer
from greysheep.models.training.objective import Objective

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here (torch.cuda)")
QUICK: dict[str, Any] = {"n_experts": 3, "latent": 8, "epochs": 4, "start_epoch": 1, "batch_size": 16,
                         "noise": 0.0, "progress": False}  # fmt: skip


def trained(device: str, precision: str, **more: Any) -> Any:
    return gs.TALL(**{**QUICK, **more}, device=device, precision=precision).fit(gs.split(world(48)))


@pytest.mark.parametrize(
    "more", [{}, {"gate": "mlp"}, {"active_experts": 2, "warm_up": 1}, {"gate": "uniform"}]
)
def test_a_gpu_trains_as_a_cpu_does(more: dict[str, Any]) -> None:
    cpu, gpu = (trained(device, "float64", **more) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu._scores(gpu.rows, gpu.gates), cpu._scores(cpu.rows, cpu.gates), atol=1e-6)
    assert [row["ndcg@20"] for row in gpu.history] == pytest.approx([row["ndcg@20"] for row in cpu.history])


def test_bfloat16_products_stay_near_float32() -> None:
    low, full = (trained("cuda", precision) for precision in ("bfloat16", "float32"))
    assert all(parameter.dtype == torch.float32 for parameter in low.net.parameters())
    assert low.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.02)


def test_no_array_of_all_experts_logits() -> None:
    log = gs.datasets.simulate(n_users=2000, n_items=2000, rows_per_user=30).log
    split = gs.split(log, protocol="paper")
    model = gs.TALL(n_experts=50, latent=16, batch_size=2000, progress=False, device="cuda", seed=0)
    trainer: MixtureTrainer = model._trainer(split, Objective.parse("mean-ndcg"))
    torch.cuda.reset_peak_memory_stats()
    trainer._train_batch(torch.arange(2000, device="cuda"), 1)
    held = torch.cuda.max_memory_allocated()
    weights = sum(p.numel() * 4 for p in model.net.parameters())
    blocks = 4 * (1 << 27) + 12 * 2000 * 2000 * 4
    assert held < 5 * weights + blocks
