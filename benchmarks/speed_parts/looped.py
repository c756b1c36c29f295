"""TALL as one would first write it in PyTorch: a list of K experts, a Python loop over them, autograd.

Written from the paper's formulas (docs/method.md), as something to compare with; it shares no code with
greysheep. Loss gate and adaptive weights are constants in backward. The published tricks of a first program
are taken for granted: the input is scaled once a batch, not once an expert, and validation takes the top 20
by `torch.topk`, not by a full sort. Adam is `torch.optim.Adam` as it comes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional as F

CUTS = (1, 5, 10, 20)


@dataclass(frozen=True)
class Settings:
    """The paper's symbols; see greysheep's TALLConfig for the same names."""

    n_experts: int
    latent: int
    batch_size: int
    l2: float
    alpha: float
    start_epoch: int = 0
    window: int = 8
    learning_rate: float = 1e-3
    beta: float = 0.2
    anneal_steps: int = 200_000
    noise: float = 0.01


class DenseBatch:
    """B users' train rows x and held-out rows v as [B, I] arrays."""

    def __init__(self, seen: csr_matrix, held_out: csr_matrix, device: str, dtype: torch.dtype):
        self.x = torch.from_numpy(seen.toarray()).to(device, dtype)
        self.v = torch.from_numpy(held_out.toarray()).to(device, dtype)
        self.input = F.normalize(self.x)
        self.n_held_out = self.v.sum(1)

    def without_seen(self, logits: Tensor) -> Tensor:
        """Logits [B, I] with -inf at train rows."""
        return logits.masked_fill(self.x > 0, -torch.inf)

    def held_out_loss(self, logits: Tensor) -> Tensor:
        """L [B]: sum over held-out items of -log softmax among unseen items."""
        log_p = F.log_softmax(self.without_seen(logits), dim=1)
        return -log_p.masked_fill(self.v == 0, 0.0).sum(1)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """CE [B]: sum over train items of -log softmax among all items."""
        return -(self.x * F.log_softmax(logits, dim=1)).sum(1)

    def hits(self, top: Tensor) -> Tensor:
        """Whether each listed item [B, N] is held out."""
        return self.v.gather(1, top)


class SparseBatch:
    """The same as positions of the ones: row and item of each entry."""

    def __init__(self, seen: csr_matrix, held_out: csr_matrix, device: str, dtype: torch.dtype):
        self.n_rows = seen.shape[0]
        self.row, self.item = self._entries(seen, device)
        self.held_row, self.held_item = self._entries(held_out, device)
        offsets = torch.from_numpy(seen.indptr[:-1].astype(np.int64)).to(device)
        n_seen = torch.bincount(self.row, minlength=self.n_rows).to(dtype)
        self.input = (self.item, offsets, n_seen.rsqrt()[self.row])
        self.n_held_out = torch.bincount(self.held_row, minlength=self.n_rows).to(dtype)

    @staticmethod
    def _entries(rows: csr_matrix, device: str) -> tuple[Tensor, Tensor]:
        entries = rows.tocoo()
        row, item = entries.row.astype(np.int64), entries.col.astype(np.int64)
        return torch.from_numpy(row).to(device), torch.from_numpy(item).to(device)

    def without_seen(self, logits: Tensor) -> Tensor:
        """Logits [B, I] with -inf at train rows."""
        masked = logits.clone()
        masked[self.row, self.item] = -torch.inf
        return masked

    def _sum(self, values: Tensor, row: Tensor) -> Tensor:
        return values.new_zeros(self.n_rows).index_add(0, row, values)

    def held_out_loss(self, logits: Tensor) -> Tensor:
        """L [B]: sum over held-out items of -log softmax among unseen items."""
        log_p = F.log_softmax(self.without_seen(logits), dim=1)
        return -self._sum(log_p[self.held_row, self.held_item], self.held_row)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """CE [B]: sum over train items of -log softmax among all items."""
        return -self._sum(F.log_softmax(logits, dim=1)[self.row, self.item], self.row)

    def hits(self, top: Tensor) -> Tensor:
        """Whether each listed item [B, N] is held out."""
        v = top.new_zeros(self.n_rows, int(top.max()) + 1, dtype=torch.bool)
        kept = self.held_item < v.shape[1]
        v[self.held_row[kept], self.held_item[kept]] = True
        return v.gather(1, top)


class Expert(nn.Module):
    """One MultVAE; its encoder reads dense rows, or sums the rows of an embedding table."""

    def __init__(self, n_items: int, latent: int, dense: bool):
        super().__init__()
        self.dense = dense
        if dense:
            self.encoder: nn.Module = nn.Linear(n_items, 2 * latent)
        else:
            self.encoder = nn.EmbeddingBag(n_items, 2 * latent, mode="sum")
            self.encoder_bias = nn.Parameter(torch.zeros(2 * latent))
        self.decoder = nn.Linear(latent, n_items)

    def encode(self, given: Any) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent: two [B, D]."""
        if self.dense:
            h = self.encoder(given)
        else:
            items, offsets, values = given
            h = self.encoder(items, offsets, per_sample_weights=values) + self.encoder_bias
        mu, logvar = h.chunk(2, dim=1)
        return mu, logvar


def gate_of(losses: Tensor, n_held_out: Tensor) -> Tensor:
    """Softmax over experts of 1 / L_k; uniform for users without held-out items: [B, K] -> [B, K]."""
    known = (n_held_out > 0).unsqueeze(1)
    return torch.softmax(torch.where(known, 1 / losses.clamp(min=1e-12), 0.0), dim=1)


def weights_of(signal: Tensor, alpha: float) -> Tensor:
    """max((S - lambda) / (2 alpha), 0) with mean 1: [B] -> [B]."""
    ordered = torch.sort(signal, descending=True).values
    j = torch.arange(1, len(signal) + 1, device=signal.device)
    candidates = (ordered.cumsum(0) - 2 * alpha * len(signal)) / j
    m = int(torch.nonzero(ordered > candidates).max())
    return torch.clamp((signal - candidates[m]) / (2 * alpha), min=0)


class LoopedTALL:
    """Training and validation, batch by batch, of users who have train rows."""

    def __init__(
        self,
        train: csr_matrix,
        held_out: csr_matrix,
        settings: Settings,
        *,
        dense: bool,
        seed: int = 0,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.train, self.held_out, self.settings = train, held_out, settings
        self.users = np.flatnonzero(np.diff(train.indptr))
        self.batch_type = DenseBatch if dense else SparseBatch
        self.device, self.dtype = device, dtype
        self.random = torch.Generator(device).manual_seed(seed)
        self.order = np.random.default_rng(seed)
        self.experts = nn.ModuleList(
            Expert(train.shape[1], settings.latent, dense) for _ in range(settings.n_experts)
        ).to(device, dtype)
        self.optimizer = torch.optim.Adam(
            self.experts.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.l2 / settings.n_experts,
        )
        # each user's last window + 1 losses, newest last, NaN = not yet
        self.losses = torch.full((train.shape[0], settings.window + 1), torch.nan, device=device, dtype=dtype)
        self.step = 0

    def batch(self, users: NDArray[np.int64]) -> Any:
        """Rows of these users."""
        return self.batch_type(self.train[users], self.held_out[users], self.device, self.dtype)

    def forward(self, batch: Any, noise: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixture logits [B, I], gate [B, K], KL [B, K] and the experts' held-out losses [B, K]."""
        logits, kl = [], []
        for expert in self.experts:
            mu, logvar = expert.encode(batch.input)
            z = mu
            if noise:
                eps = torch.randn(mu.shape, generator=self.random, device=self.device, dtype=self.dtype)
                z = mu + noise * eps * torch.exp(logvar / 2)
            logits.append(expert.decoder(z))
            kl.append(0.5 * (logvar.exp() + mu**2 - 1 - logvar).sum(1))
        with torch.no_grad():
            losses = torch.stack([batch.held_out_loss(s) for s in logits], dim=1)
            gate = gate_of(losses, batch.n_held_out)
        mixture = sum(gate[:, k : k + 1] * s for k, s in enumerate(logits))
        return mixture, gate, torch.stack(kl, dim=1), losses

    def weights(self, users: NDArray[np.int64], mixture: Tensor, batch: Any, epoch: int) -> Tensor:
        """Adaptive weights [B] from the mean of each user's last changes of the mixture's held-out loss."""
        rows = torch.from_numpy(users).to(self.device)
        self.losses[rows] = torch.cat(
            [self.losses[rows, 1:], batch.held_out_loss(mixture).unsqueeze(1)], dim=1
        )
        change = torch.nanmean(-self.losses[rows].diff(dim=1), dim=1)
        weights = torch.ones_like(change)
        judged = ~change.isnan() & (batch.n_held_out > 0)
        if epoch > self.settings.start_epoch and judged.any():
            weights[judged] = weights_of(change[judged], self.settings.alpha)
        return weights

    def train_batch(self, users: NDArray[np.int64], epoch: int) -> float:
        """One step; the batch's loss."""
        settings = self.settings
        batch = self.batch(users)
        mixture, gate, kl, _ = self.forward(batch, settings.noise)
        with torch.no_grad():
            weights = self.weights(users, mixture.detach(), batch, epoch)
        beta = settings.beta * min(1.0, self.step / settings.anneal_steps)
        ce = (weights * batch.cross_entropy(mixture)).sum() / weights.sum()
        loss = ce + beta * (gate * kl).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def validate_batch(self, users: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """NDCG of these users' held-out rows, input = train rows: {"ndcg@1": [B], ...}."""
        batch = self.batch(users)
        mixture, *_ = self.forward(batch, noise=0.0)
        top = torch.topk(batch.without_seen(mixture), min(max(CUTS), mixture.shape[1]), dim=1).indices
        found = batch.hits(top).cpu().numpy().astype(np.float64)
        discount = 1 / np.log2(np.arange(2, max(CUTS) + 2))
        n_held_out = batch.n_held_out.cpu().numpy().astype(np.int64)
        out = {}
        for cut in CUTS:
            gain = (found[:, :cut] * discount[: found[:, :cut].shape[1]]).sum(1)
            ideal = np.cumsum(discount[:cut])[np.clip(n_held_out, 1, cut) - 1]
            out[f"ndcg@{cut}"] = gain / ideal
        return out

    def snapshot(self) -> dict[str, Tensor]:
        """Copy of the weights, as kept for the best epoch."""
        return copy.deepcopy(self.experts.state_dict())
