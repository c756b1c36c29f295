"""Losses of sparse binary rows under dense logits, without autograd's extra B x I copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from greysheep.nn.sparse_rows import SparseRows


def log_softmax_without(logits: Tensor, seen: SparseRows, fill: float) -> Tensor:
    """Log-softmax over items after the seen entries of `logits` [B, I] are set to `fill`, in place.

    fill = -inf leaves seen items out of the denominator; fill = 0 counts each of them as
    exp(0) = 1, as the authors' program does (docs/method.md, row 1).
    """
    logits.view(-1)[seen.flat] = fill
    return torch.log_softmax(logits, dim=1)


def held_out_nll(logits: Tensor, seen: SparseRows, held_out: SparseRows, fill: float) -> Tensor:
    """[B] sum over held-out items of -log softmax among unseen items. Overwrites `logits` [B, I]."""
    log_p = log_softmax_without(logits, seen, fill)
    return -held_out.sum_by_row(log_p.view(-1)[held_out.flat])


def kept_nll(logits: Tensor, seen: SparseRows, held_out: SparseRows, fill: float, scratch: Tensor) -> Tensor:
    """`held_out_nll` that leaves `logits` as they were; overwrites `scratch` [B, I] instead."""
    entries = logits.view(-1)  # index_select and scatter_ take a third of the time of entries[...]
    kept = entries.index_select(0, seen.flat)
    entries.scatter_(0, seen.flat, torch.full_like(kept, fill))
    torch.log_softmax(logits, dim=1, out=scratch)
    entries.scatter_(0, seen.flat, kept)
    return -held_out.sum_by_row(scratch.view(-1).index_select(0, held_out.flat))


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Apply an autograd function that returns one tensor."""
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class _RowNLL(torch.autograd.Function):
    """Cross-entropy of sparse rows; keeps one [B, I] array for backward instead of four."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: SparseRows) -> Tensor:
        log_p = torch.log_softmax(logits, dim=1)
        ctx.save_for_backward(log_p)
        ctx.rows = rows
        return -rows.sum_by_row(log_p.view(-1)[rows.flat])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        (log_p,) = ctx.saved_tensors
        rows: SparseRows = ctx.rows
        # d nll_u / d s_ui = n_u softmax(s_u)_i - x_ui
        out = torch.exp(log_p).mul_((grad * rows.lengths).unsqueeze(1))
        out.view(-1).index_add_(0, rows.flat, -grad[rows.row])
        return out, None


def row_nll(logits: Tensor, rows: SparseRows) -> Tensor:
    """[B] multinomial negative log-likelihood CE_u = -sum over x_u of log softmax(s_u) (Liang et al. 2018).

    logits: [B, I]; the softmax runs over all items.
    """
    return apply(_RowNLL, logits, rows)


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) summed over the last axis: [..., D] -> [...]."""
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(-1)
