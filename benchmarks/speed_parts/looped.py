"""TALL as one would first write it in PyTorch: a list of K experts, a Python loop over them, autograd.

Written from the paper's formulas (docs/method.md), as something to compare with; it reads greysheep's config
and shares no other code with it. Loss gate and adaptive weights are constants in backward. The tricks of a
good first program are taken for granted: input is scaled once per batch, losses are read at the positions of
the ones, and validation takes the top 20 by `torch.topk`. Adam is torch's own as it comes.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional as F

CUTS = (1, 5, 10, 20)


class Batch:
    """B users' train rows x and held-out rows v as positions of the ones, and what the encoder reads."""

    def __init__(self, seen: csr_matrix, held_out: csr_matrix, *, dense: bool, like: Tensor):
        self.n_rows, self.like = seen.shape[0], like
        (self.row, self.item), (self.held_row, self.held_item) = map(self._positions, (seen, held_out))
        self.n_held_out = torch.bincount(self.held_row, minlength=self.n_rows).to(like.dtype)
        scale = torch.bincount(self.row, minlength=self.n_rows).to(like.dtype).rsqrt()
        self.offsets = torch.from_numpy(seen.indptr[:-1].astype(np.int64)).to(like.device)
        self.values = scale[self.row]
        if dense:
            self.values = torch.from_numpy(seen.toarray()).to(like) * scale.unsqueeze(1)

    def _positions(self, rows: csr_matrix) -> list[Tensor]:
        entries = rows.tocoo()
        codes = (entries.row, entries.col)
        return [torch.from_numpy(code.astype(np.int64)).to(self.like.device) for code in codes]

    def without_seen(self, logits: Tensor) -> Tensor:
        """Logits [B, I] with -inf at train rows."""
        masked = logits.clone()
        masked[self.row, self.item] = -torch.inf
        return masked

    def _nll(self, logits: Tensor, row: Tensor, item: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)[row, item]
        return -log_p.new_zeros(self.n_rows).index_add(0, row, log_p)

    def held_out_loss(self, logits: Tensor) -> Tensor:
        """L [B]: sum over held-out items of -log softmax among unseen items."""
        return self._nll(self.without_seen(logits), self.held_row, self.held_item)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """CE [B]: sum over train items of -log softmax among all items."""
        return self._nll(logits, self.row, self.item)


class Expert(nn.Module):
    """One MultVAE; its encoder reads dense rows, or sums the rows of an embedding table."""

    def __init__(self, n_items: int, latent: int, dense: bool):
        super().__init__()
        self.dense = dense
        table = nn.Linear(n_items, 2 * latent) if dense else nn.EmbeddingBag(n_items, 2 * latent, mode="sum")
        self.encoder: nn.Module = table
        if not dense:
            self.encoder_bias = nn.Parameter(torch.zeros(2 * latent))
        self.decoder = nn.Linear(latent, n_items)

    def encode(self, batch: Batch, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent: two [B, D]."""
        if self.dense:
            h = self.encoder(values)
        else:
            h = self.encoder(batch.item, batch.offsets, per_sample_weights=values) + self.encoder_bias
        mu, logvar = h.chunk(2, dim=1)
        return mu, logvar


def gate_of(losses: Tensor, n_held_out: Tensor) -> Tensor:
    """Softmax over experts of 1 / L_k; uniform for users without held-out items: [B, K] -> [B, K]."""
    known = (n_held_out > 0).unsqueeze(1)
    return torch.softmax(torch.where(known, 1 / losses.clamp(min=1e-12), 0.0), dim=1)


def weights_of(signal: Tensor, alpha: float) -> Tensor:
    """max((S - lambda) / (2 alpha), 0) with mean 1: [n] -> [n]."""
    ordered = torch.sort(signal, descending=True).values
    j = torch.arange(1, len(signal) + 1, device=signal.device)
    candidates = (ordered.cumsum(0) - 2 * alpha * len(signal)) / j
    m = int(torch.nonzero(ordered > candidates).max())
    return torch.clamp((signal - candidates[m]) / (2 * alpha), min=0)


class LoopedTALL:
    """Training and validation, batch by batch, of users who have train rows."""

    def __init__(
        self, train: csr_matrix, held_out: csr_matrix, config: Any, *, dense: bool,
        seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32,
    ):  # fmt: skip
        self.train, self.held_out, self.config, self.dense = train, held_out, config, dense
        self.users = np.flatnonzero(np.diff(train.indptr))
        self.batch_size = config.users_a_step(len(self.users))
        self.steps_an_epoch = -(-len(self.users) // self.batch_size)
        self.random = torch.Generator(device).manual_seed(seed)
        self.order = np.random.default_rng(seed)
        experts = (Expert(train.shape[1], config.latent, dense) for _ in range(config.n_experts))
        self.experts: Any = nn.ModuleList(experts).to(device, dtype)
        rate, parameters = config.learning_rate, self.experts.parameters()
        if config.l2:
            decay = config.l2 / config.n_experts
            self.optimizer: Any = torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        else:
            decay = config.weight_decay / (rate * self.steps_an_epoch)
            self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        n_held_out = torch.from_numpy(np.diff(held_out.indptr))
        self.n_held_out = n_held_out.to(device, dtype)
        self.latest = torch.full_like(self.n_held_out, torch.nan)
        self.losses: list[Tensor] = []  # [U] of each of the last epochs
        self.step = 0

    def batch(self, users: NDArray[np.int64]) -> Batch:
        """Rows of these users."""
        return Batch(self.train[users], self.held_out[users], dense=self.dense, like=self.n_held_out)

    def forward(self, batch: Batch, noise: float, dropout: float) -> tuple[Tensor, Tensor, Tensor]:
        """Mixture logits [B, I], gate [B, K] and KL [B, K]."""
        logits, kl = [], []
        kept = torch.full_like(batch.values, 1 - dropout)
        values = (
            batch.values * torch.bernoulli(kept, generator=self.random) / kept if dropout else batch.values
        )
        for expert in self.experts:
            mu, logvar = expert.encode(batch, values)
            z = mu
            if noise:
                eps = torch.randn(mu.shape, generator=self.random, device=mu.device, dtype=mu.dtype)
                z = mu + noise * eps * torch.exp(logvar / 2)
            logits.append(expert.decoder(z))
            kl.append(0.5 * (logvar.exp() + mu**2 - 1 - logvar).sum(1))
        with torch.no_grad():
            losses = torch.stack([batch.held_out_loss(s) for s in logits], dim=1)
            gate = gate_of(losses, batch.n_held_out)
        mixture = sum((gate[:, k : k + 1] * s for k, s in enumerate(logits)), torch.zeros_like(logits[0]))
        return mixture, gate, torch.stack(kl, dim=1)

    def begin_epoch(self, epoch: int) -> None:
        """Adaptive weights of the epoch, [U], from the mean of each user's last changes of held-out loss."""
        self.weights = torch.ones_like(self.latest)
        if epoch > 1:
            self.losses = [*self.losses[-self.config.window :], self.latest.clone()]
        if epoch <= self.config.start_epoch or len(self.losses) < 2:
            return
        change = -torch.stack(self.losses).diff(dim=0).mean(0)
        judged = ~change.isnan() & (self.n_held_out > 0)
        if not judged.any():
            return
        signal, n = change[judged], self.n_held_out[judged]
        if self.config.signal_scale == "mean":
            signal = signal / n
        if self.config.signal_scale == "standardised":
            excess = (signal - n * signal.sum() / n.sum()) / n.sqrt()
            signal = (excess - excess.mean()) / excess.std(correction=0)
        self.weights[judged] = weights_of(signal, self.config.alpha)

    def train_batch(self, users: NDArray[np.int64]) -> float:
        """One step; the batch's loss."""
        batch, rows = self.batch(users), torch.from_numpy(users).to(self.weights.device)
        mixture, gate, kl = self.forward(batch, self.config.noise, self.config.dropout)
        with torch.no_grad():
            self.latest[rows] = batch.held_out_loss(mixture)
        weights, total_kl = self.weights[rows], (gate * kl).sum()
        if self.config.kl_reduction == "mean":
            total_kl = total_kl / len(users)
        ce = (weights * batch.cross_entropy(mixture)).sum() / weights.sum()
        loss = ce + self.config.kl_weight(self.step, self.steps_an_epoch) * total_kl
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return float(loss.item())

    @torch.no_grad()
    def validate_batch(self, users: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """NDCG of these users' held-out rows, input = train rows: {"ndcg@1": [B], ...}."""
        batch = self.batch(users)
        mixture, *_ = self.forward(batch, noise=0.0, dropout=0.0)
        top = torch.topk(batch.without_seen(mixture), min(max(CUTS), mixture.shape[1]), dim=1).indices
        wanted = torch.zeros_like(mixture, dtype=torch.bool)
        wanted[batch.held_row, batch.held_item] = True
        hits = wanted.gather(1, top).cpu().numpy().astype(np.float64)
        discount = 1 / np.log2(np.arange(2, max(CUTS) + 2))
        n_held_out = batch.n_held_out.cpu().numpy().astype(np.int64)
        out = {}
        for cut in CUTS:
            gain = (hits[:, :cut] * discount[: hits[:, :cut].shape[1]]).sum(1)
            out[f"ndcg@{cut}"] = gain / np.cumsum(discount[:cut])[np.clip(n_held_out, 1, cut) - 1]
        return out

    def snapshot(self) -> dict[str, Tensor]:
        """Copy of the weights, as kept for the best epoch."""
        return copy.deepcopy(self.experts.state_dict())
