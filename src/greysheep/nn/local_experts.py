"""Tensors of the local models: distances, one expert's gradient, fine-tuning without a copy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from greysheep.nn.bank import ExpertBank
from greysheep.nn.likelihood import gaussian_kl
from greysheep.nn.sparse_rows import SparseRows


def angular_distance(a: Tensor, b: Tensor) -> Tensor:
    """D = min(1, (2 / pi) arccos(cosine)) of latents a [N, D] and b [M, D]: [N, M] (Choi et al., WSDM 2021).

    0 = same direction, 1 = at a right angle or further apart.

    >>> angular_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]))
    tensor([[0.0000, 0.5000, 1.0000]])
    """
    unit = [torch.nn.functional.normalize(x, dim=1) for x in (a, b)]
    cosine = (unit[0] @ unit[1].T).clamp(-1, 1)
    return (2 / math.pi * torch.arccos(cosine)).clamp(max=1)


def epanechnikov(distance: Tensor, bandwidth: float) -> Tensor:
    """Kernel weights .75 (1 - d^2) where d < bandwidth, else 0, of the shape of `distance`."""
    return torch.where(distance < bandwidth, 0.75 * (1 - distance.square()), torch.zeros_like(distance))


class ExpertGradient:
    """Loss and gradient of one expert of a bank on weighted users, by hand: the weights are known beforehand.

    loss = sum_u w_u CE_u / sum_u w_u + beta n sum_u w_u KL_u / sum_u w_u, n the number of users in the batch
    if `sums_kl`, else 1: equal weights give MultVAE's loss, whose KL is a sum or a mean. The logits of every
    expert go through one [B, I] buffer.
    """

    def __init__(self, bank: ExpertBank, noise: float, sums_kl: bool):
        self.bank, self.noise, self.sums_kl = bank, noise, sums_kl
        self.buffer = bank.decoder_bias.new_empty(0)

    @torch.no_grad()
    def __call__(
        self, k: int, rows: SparseRows, weight: Tensor, eps: Tensor, beta: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]:
        """(CE, KL) as in the loss; gradients of encoder weight and bias, decoder weight and bias.

        rows: [B, I]. weight: [B], at least one above 0. eps: [B, D] standard normal.
        """
        bank, n = self.bank, rows.n_rows
        values = rows.unit_values(weight.dtype)
        h = rows.gather_sum(bank.encoder_weight[k], values) + bank.encoder_bias[k]
        mu, logvar = h[:, : bank.latent], h[:, bank.latent :]
        spread = self.noise * eps * torch.exp(logvar / 2)
        z = mu + spread
        share = weight / weight.sum()
        logits = self._buffer(n, rows.n_items)
        torch.addmm(bank.decoder_bias[k], z, bank.decoder_weight[k], out=logits)
        logits -= torch.logsumexp(logits, dim=1, keepdim=True)
        ce = -(share[rows.row] * logits.view(-1)[rows.flat]).sum()
        factor = n if self.sums_kl else 1
        kl = factor * (share * gaussian_kl(mu, logvar)).sum()
        # d CE / d s_ui = w_u (n_u softmax(s_u)_i - x_ui) / sum w
        slope = logits.exp_().mul_((share * rows.lengths).unsqueeze(1))
        slope.view(-1).index_add_(0, rows.flat, -share[rows.row])
        dz = slope @ bank.decoder_weight[k].T
        pull = beta * factor * share.unsqueeze(1)
        d_mu = dz + pull * mu
        d_logvar = dz * spread / 2 + pull * (logvar.exp() - 1) / 2
        dh = torch.cat([d_mu, d_logvar], dim=1)
        transposed, order = rows.transposed()
        d_encoder = transposed.gather_sum(dh, values[order])
        return (ce, kl), (d_encoder, dh.sum(0), z.T @ slope, slope.sum(0))

    def _buffer(self, n_rows: int, n_items: int) -> Tensor:
        if self.buffer.numel() < n_rows * n_items:
            self.buffer = self.buffer.new_empty(n_rows * n_items)
        return self.buffer[: n_rows * n_items].view(n_rows, n_items)


def latents(bank: ExpertBank, k: int, rows: SparseRows) -> Tensor:
    """Mu of one expert at inference: [B, D]."""
    values = rows.unit_values(bank.encoder_weight.dtype)
    h = rows.gather_sum(bank.encoder_weight.detach()[k], values) + bank.encoder_bias.detach()[k]
    return h[:, : bank.latent]


def fine_tuned(
    own: Tensor,
    z: Tensor,
    rows: SparseRows,
    weight: Tensor,
    decoder: tuple[Tensor, Tensor],
    learning_rate: float,
    damping: float,
) -> Iterator[Tensor]:
    """Scores [I] of one user after 0, 1, 2, ... steps of fine-tuning a copy of the decoder on her neighbours.

    own: [D] her latent. z: [N, D] her neighbours' latents, rows: [N, I] their items, weight: [N].
    decoder: global weight [D, I] and bias [I]; they are read, no copy is made.

    Loss of a copy: sum_v w_v CE_v / n_v / sum_v w_v, n_v the length of v's row, so that users with many
    rows don't dominate. A gradient step changes the decoder by Z'R and the bias by 1'R, R [N, I] the slope of
    the loss by the neighbours' logits; so all logits, hers included, change by (Z Z' + 1) R, which costs
    2 N^2 I instead of 4 N D I and needs no copy. Column i of R is multiplied by
    c_i = sqrt((1 + damping) / (I h_i + damping)), h_i the neighbours' mean probability of i before the first
    step: a step size for each item, as Adam's, without which popular items overshoot before others move.
    """
    decoder_weight, decoder_bias = decoder
    n_items = decoder_weight.shape[1]
    latent = torch.cat([own.unsqueeze(0), z])
    logits = torch.addmm(decoder_bias, latent, decoder_weight)
    yield logits[0]
    if not len(weight):
        while True:
            yield logits[0]
    kernel = latent @ z.T + 1
    share = (weight / weight.sum()).unsqueeze(1)
    entry_share = (share.squeeze(1) / rows.lengths)[rows.row]
    rate: Tensor | None = None
    while True:
        slope = torch.softmax(logits[1:], dim=1).mul_(share)
        if rate is None:
            rate = ((1 + damping) / (slope.sum(0) * n_items + damping)).sqrt_().mul_(learning_rate)
        slope.view(-1).index_add_(0, rows.flat, -entry_share)
        logits.addmm_(kernel, slope.mul_(rate), alpha=-1)
        yield logits[0]
