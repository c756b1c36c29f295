"""Sparse routing: a user passes through her m best experts only, for m / K of the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from greysheep.nn.bank import ExpertBank
from greysheep.nn.likelihood import apply
from greysheep.nn.sparse_rows import SparseRows


def strongest(gate: Tensor, m: int, rows: SparseRows) -> Tensor:
    """A gate [B, K] cut to its m largest entries and scaled back to sum 1; ties are broken by the input rows.

    So users whose gate is uniform, as without held-out rows, spread over all experts, and who else is in the
    batch changes nothing.
    """
    order = _hashes(rows, gate.shape[1]).argsort(dim=1)
    shuffled = gate.gather(1, order)
    best = shuffled.argsort(dim=1, descending=True, stable=True)[:, :m]
    kept = order.gather(1, best)
    cut = torch.zeros_like(gate).scatter_(1, kept, gate.gather(1, kept))
    return cut / cut.sum(1, keepdim=True)


def _hashes(rows: SparseRows, n_experts: int) -> Tensor:
    """[B, K] pseudo-random numbers: hashes of the expert and the user's items."""
    of_items = rows.items.new_zeros(rows.n_rows).index_add_(0, rows.row, rows.items * rows.items + 1)
    of_expert = torch.arange(1, n_experts + 1, device=rows.items.device)
    mixed = of_items.unsqueeze(1) * 0x9E3779B1 + of_expert * 0x85EBCA77
    mixed = (mixed ^ (mixed >> 15)) * 0x2C1B3C6D
    return (mixed ^ (mixed >> 13)) & 0xFFFFFF


@dataclass(frozen=True)
class Routes:
    """P pairs of a user and an expert with a gate above 0, expert after expert.

    row: [P] the user's row in the batch. gate: [P]. first: [K + 1] where each expert's pairs begin.
    """

    row: Tensor
    gate: Tensor
    first: list[int]

    @classmethod
    def of(cls, gate: Tensor) -> Routes:
        """Take the pairs of a gate [B, K]."""
        expert, row = gate.T.nonzero(as_tuple=True)
        ends = torch.bincount(expert, minlength=gate.shape[1]).cumsum(0).tolist()
        return cls(row, gate.T[expert, row], [0, *ends])

    def __iter__(self) -> Any:
        """Each expert's number and its pairs, as a slice; experts without users are left out."""
        for k, (start, stop) in enumerate(zip(self.first[:-1], self.first[1:], strict=True)):
            if stop > start:
                yield k, slice(start, stop)


class _RoutedLinear(torch.autograd.Function):
    """x_u @ W_k for every pair: x sparse [B, I], W [K, I, H] -> [P, H]."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: SparseRows, routes: Routes, values: Tensor) -> Tensor:
        ctx.parts = [(k, here, *rows.pick(routes.row[here], values)) for k, here in routes]
        ctx.shape = weight.shape
        out = weight.new_empty(len(routes.row), weight.shape[2])
        for k, here, picked, own in ctx.parts:
            out[here] = picked.gather_sum(weight[k], own)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grad_outputs
        out = grad.new_zeros(ctx.shape)
        for k, here, picked, own in ctx.parts:
            transposed, order = picked.transposed()
            out[k] = transposed.gather_sum(grad[here].contiguous(), own[order])
        return out, None, None, None


class _RoutedMixture(torch.autograd.Function):
    """s(u) = sum over her pairs of G (z W_k + b_k): z [P, D] -> [B, I]; the gate is a constant."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, routes: Routes, n_rows: int) -> Tensor:
        ctx.save_for_backward(z, weight)
        ctx.routes = routes
        out = z.new_zeros(n_rows, weight.shape[2])
        for k, here in routes:
            gate = routes.gate[here].unsqueeze(1)
            out.index_add_(0, routes.row[here], torch.addmm(gate * bias[k], gate * z[here], weight[k]))
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        z, weight = ctx.saved_tensors
        grad_z, grad_weight = torch.empty_like(z), torch.zeros_like(weight)
        grad_bias = weight.new_zeros(weight.shape[0], weight.shape[2])
        for k, here in ctx.routes:
            slope = grad[ctx.routes.row[here]]
            gate = ctx.routes.gate[here].unsqueeze(1)
            grad_z[here] = gate * (slope @ weight[k].T)
            grad_weight[k] = (gate * z[here]).T @ slope
            grad_bias[k] = (gate.T @ slope)[0]
        return grad_z, grad_weight, grad_bias, None, None


def encode(
    bank: ExpertBank, rows: SparseRows, routes: Routes, keep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `ExpertBank.encode` for the pairs alone: latent means and log-variances, two [P, D] tensors."""
    values = rows.unit_values(bank.encoder_weight.dtype)
    if keep is not None:
        values = values * keep
    h = apply(_RoutedLinear, bank.encoder_weight, rows, routes, values)
    counts = torch.tensor(routes.first).diff().to(h.device)
    h = h + torch.repeat_interleave(bank.encoder_bias, counts, dim=0)
    mu, logvar = h.chunk(2, dim=-1)
    return mu, logvar


def mix(bank: ExpertBank, z: Tensor, routes: Routes, n_rows: int) -> Tensor:
    """As `ExpertBank.mix` for the pairs alone: z [P, D] -> [B, I]."""
    return apply(_RoutedMixture, z, bank.decoder_weight, bank.decoder_bias, routes, n_rows)
