"""Blocks of rows on several threads give what one thread gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import random as random_sparse

from greysheep.nn import bank
from greysheep.nn.bank import ExpertBank
from greysheep.nn.gates import loss_gate
from greysheep.nn.parallel import cut, in_parallel
from greysheep.nn.sparse_rows import SparseRows


@settings(max_examples=50, deadline=None)
@given(n_rows=st.integers(0, 60), size=st.integers(1, 70), threads=st.integers(1, 9))
def test_blocks_cover_every_row_once(n_rows: int, size: int, threads: int) -> None:
    blocks = cut(n_rows, size, threads)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(n_rows))
    lengths = [block.stop - block.start for block in blocks]
    assert all(0 < length <= size for length in lengths)
    assert not lengths or max(lengths) - min(lengths) <= 1
    assert len(blocks) % threads == 0 or len(blocks) == n_rows


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_change_no_number(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "BLOCK_CELLS", 1)
    monkeypatch.setattr(bank, "BLOCK_ROWS", 8)
    net = ExpertBank(3, 40, 5, torch.Generator().manual_seed(0)).double()
    z = torch.randn(3, 64, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = [SparseRows.from_csr(random_sparse(64, 40, 0.1, "csr", random_state=seed)) for seed in (0, 1)]
    together = net.gated_logits(z, *rows, loss_gate)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    alone = net.gated_logits(z, *rows, loss_gate)
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_an_error_in_a_block_is_the_callers(two_threads: None) -> None:
    def work(block: slice) -> None:
        if block.start:
            raise ValueError("the second block")

    with pytest.raises(ValueError, match="the second block"):
        in_parallel(work, cut(10, 5, 2))


def test_a_recycled_gradient_is_the_same_in_the_same_memory() -> None:
    net = ExpertBank(3, 40, 5, torch.Generator().manual_seed(0))
    large = (net.encoder_weight, net.decoder_weight)
    gate = torch.softmax(torch.randn(16, 3, generator=torch.Generator().manual_seed(1)), 1)
    rows = [SparseRows.from_csr(random_sparse(16, 40, 0.2, "csr", random_state=seed)) for seed in (0, 1)]

    def step(batch: SparseRows) -> tuple[list[torch.Tensor], list[int]]:
        """Copies of the large gradients, and where they lie."""
        mu, logvar = net.encode(batch)
        net.mix(mu + logvar, gate).square().sum().backward()
        return [weight.grad.clone() for weight in large], [weight.grad.data_ptr() for weight in large]

    fresh = []
    for batch in rows:
        fresh.append(step(batch)[0])
        net.zero_grad(set_to_none=True)
    _, places = step(rows[1])
    for batch, expected in zip(rows, fresh, strict=True):
        net.recycle()
        assert all(weight.grad is None for weight in large)
        grads, again = step(batch)
        assert again == places and not net.spare
        for grad, wanted in zip(grads, expected, strict=True):
            torch.testing.assert_close(grad, wanted, rtol=1e-6, atol=1e-6)
