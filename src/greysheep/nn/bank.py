"""K MultVAE experts as stacked tensors, and the passes a mixture makes over them.

No function here holds anything of size B x K x I. Where the gate is a constant in backward, gate and mixture
come from the same logits, a few rows at a time (`gated_logits`): three products of 2BKDI operations per
training step, as many as a mixture with a known gate. Where the gradient flows through the gate, its losses
take the experts one after the other through one B x I buffer, and the mixture is a product of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from greysheep.nn.likelihood import apply, held_out_nll, kept_nll, log_softmax_without
from greysheep.nn.matmul import product
from greysheep.nn.parallel import cut, in_parallel
from greysheep.nn.sparse_rows import SparseRows

BLOCK_CELLS = 1 << 22
"""Experts' logits in memory at once (16 MB in float32, which fits in caches), or BLOCK_ROWS rows of them."""
CUDA_BLOCK_CELLS = 1 << 27
"""The same on a GPU, which wants large products: 512 MB."""
BLOCK_ROWS = 96
"""With fewer rows a matrix product is bound by reading the decoders from memory."""

Spare = dict[str, Tensor]
"""Memory for gradients by the names of their parameters, to be taken out once: see `ExpertBank.recycle`."""


class _SparseLinear(torch.autograd.Function):
    """x @ W_k for every expert, x sparse [B, I], W [K, I, H] -> [K, B, H]."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: SparseRows, values: Tensor, spare: Spare) -> Tensor:
        ctx.rows, ctx.values, ctx.spare = rows, values, spare
        out = weight.new_empty(weight.shape[0], rows.n_rows, weight.shape[2])
        for k, expert in enumerate(weight):
            out[k] = rows.gather_sum(expert, values)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grad_outputs
        rows: SparseRows = ctx.rows
        transposed, order = rows.transposed()
        values = ctx.values[order]
        out = ctx.spare.pop("encoder_weight", None)
        if out is None:
            out = grad.new_empty(grad.shape[0], rows.n_items, grad.shape[2])
        for k, expert in enumerate(grad):
            out[k] = transposed.gather_sum(expert.contiguous(), values)
        return out, None, None, None


class _HeldOutLosses(torch.autograd.Function):
    """Every expert's held-out loss; backward computes each expert's logits again instead of keeping them."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, seen: SparseRows, held_out: SparseRows, fill: float
    ) -> Tensor:
        ctx.save_for_backward(z, weight, bias)
        ctx.seen, ctx.held_out, ctx.fill = seen, held_out, fill
        losses = z.new_empty(z.shape[1], z.shape[0])
        logits = z.new_empty(z.shape[1], bias.shape[1])
        for k in range(z.shape[0]):
            torch.addmm(bias[k], z[k], weight[k], out=logits)
            losses[:, k] = held_out_nll(logits, seen, held_out, fill)
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        z, weight, bias = ctx.saved_tensors
        held_out: SparseRows = ctx.held_out
        grad_z, grad_weight, grad_bias = (torch.empty_like(t) for t in (z, weight, bias))
        for k in range(z.shape[0]):
            logits = torch.addmm(bias[k], z[k], weight[k])
            slope = log_softmax_without(logits, ctx.seen, ctx.fill).exp_()
            slope.view(-1)[ctx.seen.flat] = 0.0  # a seen item's logit was replaced by a constant
            slope.mul_((grad[:, k] * held_out.lengths).unsqueeze(1))
            slope.view(-1).index_add_(0, held_out.flat, -grad[held_out.row, k])
            grad_z[k] = slope @ weight[k].T
            grad_weight[k] = z[k].T @ slope
            grad_bias[k] = slope.sum(0)
        return grad_z, grad_weight, grad_bias, None, None, None


class _Mixture(torch.autograd.Function):
    """The mixture's logits, computed before, and their gradients for a gate that is a constant."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, gate: Tensor, logits: Tensor, bank: ExpertBank
    ) -> Tensor:
        ctx.save_for_backward(z, weight, gate)
        ctx.low, ctx.spare = bank.low, bank.spare
        ctx.mark_dirty(logits)  # returned as it is, not as a view of itself
        return logits

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        z, weight, gate = ctx.saved_tensors
        (n_experts, latent, n_items), n_rows = weight.shape, len(gate)
        grad_gated = product(grad, weight.flatten(0, 1).T, ctx.low).view(n_rows, n_experts, latent)
        grad_z = (grad_gated * gate.unsqueeze(-1)).transpose(0, 1)
        out = ctx.spare.pop("decoder_weight", None)
        out = None if out is None else out.flatten(0, 1)
        grad_weight = product(_gated(z, gate).T, grad, ctx.low, out=out).view(n_experts, latent, n_items)
        return grad_z, grad_weight, gate.T @ grad, None, None, None


def _gated(z: Tensor, gate: Tensor) -> Tensor:
    """The experts' latents times their gates, side by side: [K, B, D], [B, K] -> [B, K D]."""
    return (z * gate.T.unsqueeze(-1)).transpose(0, 1).reshape(z.shape[1], -1)


class ExpertBank(nn.Module):
    """K one-layer MultVAE experts (Pan et al. 2024; docs/method.md, "Experts").

    encoder_weight [K, I, 2D], encoder_bias [K, 2D]: x / ||x|| -> (mu, log-variance).
    decoder_weight [K, D, I], decoder_bias [K, I]: z -> logits over items.
    Initial weights are Glorot-normal, as in MultVAE, drawn expert by expert from `generator`; biases are 0.
    On ML-1M's validation rows this beats the initial values of `torch.nn.Linear`.

    low: number type of the factors of the large products, None = that of the parameters.
    """

    low: torch.dtype | None = None

    def __init__(self, n_experts: int, n_items: int, latent: int, generator: torch.Generator | None = None):
        super().__init__()
        self.spare: Spare = {}
        self.encoder_weight = nn.Parameter(torch.empty(n_experts, n_items, 2 * latent))
        self.encoder_bias = nn.Parameter(torch.empty(n_experts, 2 * latent))
        self.decoder_weight = nn.Parameter(torch.empty(n_experts, latent, n_items))
        self.decoder_bias = nn.Parameter(torch.empty(n_experts, n_items))
        if self.encoder_weight.is_meta:
            return  # it is to be given its weights
        with torch.no_grad():
            for weight in (self.encoder_weight, self.decoder_weight):
                for expert in weight:
                    spread = (2 / (expert.shape[0] + expert.shape[1])) ** 0.5
                    expert.normal_(0, spread, generator=generator)
            self.encoder_bias.zero_()
            self.decoder_bias.zero_()

    @property
    def n_experts(self) -> int:
        """K."""
        return self.encoder_weight.shape[0]

    @property
    def latent(self) -> int:
        """D."""
        return self.decoder_weight.shape[1]

    def recycle(self) -> None:
        """Drop the large gradients, and leave their memory to the next ones.

        Fresh memory comes page by page from the system: where items are many, a quarter of a step's time.
        """
        for name in ("encoder_weight", "decoder_weight"):
            parameter = self.get_parameter(name)
            if parameter.grad is not None:
                self.spare[name], parameter.grad = parameter.grad, None

    def encode(self, rows: SparseRows, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent means and log-variances of B rows: two [K, B, D] tensors.

        keep: [nnz] factors of the input entries (dropout while training); None = all 1.
        """
        values = rows.unit_values(self.encoder_weight.dtype)
        if keep is not None:
            values = values * keep
        h = apply(_SparseLinear, self.encoder_weight, rows, values, self.spare) + self.encoder_bias[:, None]
        mu, logvar = h.chunk(2, dim=-1)
        return mu, logvar

    @torch.no_grad()
    def means(self, rows: SparseRows) -> Tensor:
        """Latent means [K, B, D] alone: all that inference needs."""
        values = rows.unit_values(self.encoder_weight.dtype)
        mu = self.encoder_weight.new_empty(self.n_experts, rows.n_rows, self.latent)
        for k, expert in enumerate(self.encoder_weight):
            mu[k] = rows.gather_sum(expert[:, : self.latent], values)
        return mu.add_(self.encoder_bias[:, None, : self.latent])

    def held_out_losses(
        self, z: Tensor, seen: SparseRows, held_out: SparseRows, fill: float = -torch.inf
    ) -> Tensor:
        """L_k(u) = sum over held-out items of -log softmax among unseen items: [K, B, D] -> [B, K].

        Users without held-out items get 0. `fill` is explained at `log_softmax_without`.
        """
        return apply(_HeldOutLosses, z, self.decoder_weight, self.decoder_bias, seen, held_out, fill)

    @torch.no_grad()
    def similarity(self, items: Tensor) -> Tensor:
        """Cosine [n, I] of items' decoder rows with those of all items, stacked over experts."""
        vectors = nn.functional.normalize(self.decoder_weight.flatten(0, 1), dim=0)
        return vectors[:, items].T @ vectors

    def mix(self, z: Tensor, gate: Tensor) -> Tensor:
        """Mixture logits s(u) = sum_k G_k(u) (z_k W_k + b_k): z [K, B, D], gate [B, K] -> [B, I]."""
        if gate.requires_grad:
            return self._mixed(z, gate)
        with torch.no_grad():
            logits = self._mixed(z, gate)
        return apply(_Mixture, z, self.decoder_weight, self.decoder_bias, gate, logits, self)

    def _mixed(self, z: Tensor, gate: Tensor) -> Tensor:
        bias, weight = gate @ self.decoder_bias, self.decoder_weight.flatten(0, 1)
        if self.low is None:
            return torch.addmm(bias, _gated(z, gate), weight)
        return bias + product(_gated(z, gate), weight, self.low)

    def gated_logits(
        self,
        z: Tensor,
        seen: SparseRows,
        held_out: SparseRows,
        gate_of: Callable[[Tensor, Tensor], Tensor],
        fill: float = -torch.inf,
    ) -> tuple[Tensor, Tensor]:
        """Gate [B, K] and mixture logits [B, I] by one product per expert; backward takes the gate as fixed.

        gate_of: makes some rows' gate from their held-out losses [b, K] and numbers of held-out items [b].
        """
        with torch.no_grad():
            gate, logits = self._gated_logits(z.detach(), seen, held_out, gate_of, fill)
        return gate, apply(_Mixture, z, self.decoder_weight, self.decoder_bias, gate, logits, self)

    def _gated_logits(
        self,
        z: Tensor,
        seen: SparseRows,
        held_out: SparseRows,
        gate_of: Callable[[Tensor, Tensor], Tensor],
        fill: float,
    ) -> tuple[Tensor, Tensor]:
        n_experts, n_rows, _ = z.shape
        n_items = self.decoder_bias.shape[1]
        weight = self.decoder_weight if self.low is None else self.decoder_weight.to(self.low)
        gate, logits = z.new_empty(n_rows, n_experts), z.new_empty(n_rows, n_items)
        cells = CUDA_BLOCK_CELLS if z.is_cuda else BLOCK_CELLS
        size = max(BLOCK_ROWS, cells // (n_experts * n_items))
        blocks = cut(n_rows, size, 1 if z.is_cuda else torch.get_num_threads())
        most = max((here.stop - here.start for here in blocks), default=0)
        free: list[Tensor] = []  # experts' logits of blocks that are done: memory for those to come

        @torch.no_grad()
        def fill_block(here: slice) -> None:
            """Write gate and mixture of some rows."""
            rows = here.stop - here.start
            room = free.pop() if free else z.new_empty(n_experts, most, n_items)
            known, wanted = seen.block(here), held_out.block(here)
            scratch = logits[here]  # serves as scratch first, holds the mixture in the end
            each, losses = [], []
            for k, bias in enumerate(self.decoder_bias):
                expert = product(z[k, here], weight[k], self.low, out=room[k, :rows])
                expert.add_(bias)  # cheaper here, in the cache, than within the product
                losses.append(kept_nll(expert, known, wanted, fill, scratch))
                each.append(expert)
            gate[here] = gate_of(torch.stack(losses, dim=1), wanted.lengths)
            torch.mul(each[0], gate[here, :1], out=scratch)
            for k in range(1, n_experts):
                scratch.addcmul_(each[k], gate[here, k : k + 1])
            free.append(room)

        in_parallel(fill_block, blocks)
        return gate, logits
