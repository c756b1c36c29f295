"""What MultVAE and TALL share: training a gated mixture of experts and scoring with it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from greysheep.metrics import hits, per_user, top_n
from greysheep.models.base import IterativeModel
from greysheep.models.recommending import mask
from greysheep.nn.bank import ExpertBank
from greysheep.nn.gates import MLPGate, entropy, loss_gate, temperature_gate, uniform_gate
from greysheep.nn.likelihood import gaussian_kl, held_out_nll, row_nll
from greysheep.nn.pace import Pace
from greysheep.nn.rows import SparseRows
from greysheep.splitting import Split
from greysheep.training.objective import Objective

if TYPE_CHECKING:
    from greysheep.models.multvae import MultVAEConfig
    from greysheep.training.loop import Tick

SCORING_ROWS = 512


class Mixture(nn.Module):
    """The network: a bank of experts and a gate. MultVAE is the case of one expert.

    `config` is a MultVAEConfig or a TALLConfig; what the former lacks has the value of a single,
    equally weighted expert.
    """

    def __init__(self, config: MultVAEConfig, n_items: int, generator: torch.Generator | None = None):
        super().__init__()
        self.config: Any = config
        self.gate_kind: str = getattr(config, "gate", "uniform")
        self.authors = config.variant == "authors"
        n_experts: int = getattr(config, "n_experts", 1)
        self.bank = ExpertBank(n_experts, n_items, config.latent, generator)
        self.mlp = MLPGate(n_items, n_experts, config.latent, generator) if self.gate_kind == "mlp" else None

    @property
    def seen_fill(self) -> float:
        """Logit of seen items in the gate's losses (docs/method.md, row 1)."""
        return 0.0 if self.authors else -torch.inf

    @property
    def gradient_through_gate(self) -> bool:
        """Whether the loss passes through the gate (docs/method.md, row 2)."""
        return bool(self.authors or getattr(self.config, "gate_gradient", False))

    def gate(self, z: Tensor, seen: SparseRows, held_out: SparseRows) -> Tensor:
        """Gate [B, K] of users with latents z [K, B, D], train rows `seen` and gate rows `held_out`."""
        if self.mlp is not None:
            gate: Tensor = self.mlp(seen)
            return gate
        if self.gate_kind == "uniform" or self.bank.n_experts == 1:
            return uniform_gate(seen.n_rows, self.bank.n_experts, like=z)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_through_gate):
            losses = self.bank.held_out_losses(z, seen, held_out, self.seen_fill)
            if self.gate_kind == "loss":
                return loss_gate(losses, held_out.lengths)
            temperature, shrinkage = self.config.temperature, self.config.shrinkage
            return temperature_gate(losses, held_out.lengths, temperature, shrinkage)

    def kl(self, gate: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        """The batch's KL term (docs/method.md, row 4): gate [B, K], mu and logvar [K, B, D] -> scalar."""
        each = gaussian_kl(mu, logvar).T  # [B, K]
        if not self.authors:
            return (gate * each).sum()
        if not hasattr(self.config, "n_experts"):  # the authors' MultVAE; their TALL sums for K = 1 too
            return each.mean()
        return (gate * each.mean(0)).sum()

    @torch.no_grad()
    def gates_of(self, seen: SparseRows, held_out: SparseRows) -> Tensor:
        """Gates [B, K] at inference."""
        mu, _ = self.bank.encode(seen)
        return self.gate(mu, seen, held_out)

    @torch.no_grad()
    def scores(self, rows: SparseRows, gate: Tensor) -> Tensor:
        """Mixture logits [B, I] of users whose input is `rows`, at inference."""
        mu, _ = self.bank.encode(rows)
        return self.bank.mix(mu, gate)


class MixtureTrainer:
    """One run of training, epoch by epoch, for `training.loop.run`."""

    def __init__(self, model: MixtureModel, split: Split, objective: Objective | None):
        self.config: Any = model.config
        self.model, self.split, self.objective = model, split, objective
        self.net = model.net
        self.device, self.dtype = model.device, model.dtype
        self.random = torch.Generator(self.device).manual_seed(model.options.seed)
        self.order = np.random.default_rng(model.options.seed)
        self.train = split.train_rows(gated=model.uses_gate_rows)
        empty = csr_matrix(self.train.shape, dtype=np.float32)
        self.held_out = split.gate_rows() if model.uses_gate_rows else empty
        self.users = np.flatnonzero(np.diff(self.train.indptr))
        decay = self.config.l2 / self.net.bank.n_experts
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=self.config.learning_rate, weight_decay=decay, fused=True
        )
        self.step = 0
        self.pace = self._pace()

    def _pace(self) -> Pace | None:
        if getattr(self.config, "weighting", "none") == "none":
            return None
        return Pace(
            self.train.shape[0],
            signal=self.config.weighting,
            scale=self.config.signal_scale,
            alpha=self.config.alpha,
            window=self.config.window,
            start_epoch=self.config.start_epoch,
            authors=self.net.authors,
            device=self.device,
            dtype=self.dtype,
        )

    def train_epoch(self, epoch: int, tick: Tick) -> dict[str, Any]:
        """One shuffled pass over the users who have train rows."""
        users = self.order.permutation(self.users)
        sums = dict.fromkeys(("loss", "ce", "kl"), 0.0)
        weight = np.full(self.train.shape[0], np.nan)
        for start in range(0, len(users), self.config.batch_size):
            batch = users[start : start + self.config.batch_size]
            row, weight[batch] = self._train_batch(batch, epoch)
            for key, value in row.items():
                sums[key] += value * len(batch)
            tick(min(1.0, (start + len(batch)) / len(users)))
        if not all(bool(parameter.isfinite().all()) for parameter in self.net.parameters()):
            sums["loss"] = np.nan  # the last step broke the weights: no batch has seen it yet
        return {key: value / len(users) for key, value in sums.items()} | {"weight": weight}

    def _train_batch(self, users: NDArray[np.int64], epoch: int) -> tuple[dict[str, float], NDArray[Any]]:
        rows = self._rows(self.train, users)
        held_out = self._rows(self.held_out, users)
        mu, logvar = self.net.bank.encode(rows, keep=self._dropout(rows))
        noise = torch.randn(mu.shape, generator=self.random, device=self.device, dtype=self.dtype)
        z = mu + self.config.noise * noise * torch.exp(logvar / 2)
        gate = self.net.gate(z, rows, held_out)
        logits = self.net.bank.mix(z, gate)
        weight = self._weights(users, logits, rows, held_out, epoch)
        ce = (weight * row_nll(logits, rows)).sum() / weight.sum()
        kl = self.net.kl(gate, mu, logvar)
        beta = self.config.beta * min(1.0, self.step / self.config.anneal_steps)
        loss = ce + beta * kl
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.item(), "ce": ce.item(), "kl": kl.item()}, weight.cpu().numpy()

    @torch.no_grad()
    def _weights(
        self, users: NDArray[np.int64], logits: Tensor, rows: SparseRows, held_out: SparseRows, epoch: int
    ) -> Tensor:
        """Adaptive weights [B]; the logits are copied, not changed."""
        if self.pace is None:
            return torch.ones(len(users), device=self.device, dtype=self.dtype)
        losses = held_out_nll(logits.detach().clone(), rows, held_out, self.net.seen_fill)
        codes = torch.from_numpy(users).to(self.device)
        return self.pace.weights(codes, losses, held_out.lengths, epoch)

    def _dropout(self, rows: SparseRows) -> Tensor | None:
        if self.config.dropout == 0:
            return None
        kept = torch.full(rows.items.shape, 1 - self.config.dropout, device=self.device, dtype=self.dtype)
        factors: Tensor = torch.bernoulli(kept, generator=self.random) / (1 - self.config.dropout)
        return factors

    def _rows(self, matrix: csr_matrix, users: NDArray[np.int64]) -> SparseRows:
        return SparseRows.from_csr(matrix[users], self.device)

    def validate(self) -> dict[str, NDArray[np.float64]]:
        """Metrics of every user with validation rows, and the entropy of every user's gate."""
        assert self.objective is not None
        truth, given = self.split.rows("validation"), self.split.input_rows("validation")
        users = np.flatnonzero(np.diff(truth.indptr))
        names = tuple(dict.fromkeys((*self.objective.names, "ndcg")))
        cuts = tuple(dict.fromkeys((*self.objective.cuts, 20)))
        out: dict[str, NDArray[np.float64]] = {}
        for start in range(0, len(users), SCORING_ROWS):
            batch = users[start : start + SCORING_ROWS]
            gates = self.model._gates(self.train[batch], self.held_out[batch])
            scores = self.model._scores(given[batch], gates)
            mask(scores, given[batch])
            found = hits(top_n(scores, max(cuts)), truth[batch])
            values = per_user(found, np.diff(truth[batch].indptr), cuts, names)
            if self.net.bank.n_experts > 1:
                values["gate_entropy"] = entropy(torch.from_numpy(gates)).numpy()
            for name, value in values.items():
                out.setdefault(name, np.full(truth.shape[0], np.nan))[batch] = value
        return out

    def snapshot(self) -> Any:
        """Copy of the parameters."""
        return copy.deepcopy(self.net.state_dict())

    def restore(self, snapshot: Any) -> None:
        """Put a copy back."""
        self.net.load_state_dict(snapshot)


class MixtureModel(IterativeModel):
    """A model whose scores are a gated mixture of experts; subclasses only bring a config."""

    binary = True
    net: Mixture

    @property
    def n_experts(self) -> int:
        """K."""
        return int(getattr(self.config, "n_experts", 1))

    @property
    def uses_gate_rows(self) -> bool:
        """Whether gate or adaptive weights read held-out rows."""
        gated = getattr(self.config, "gate", "uniform") in ("loss", "temperature") and self.n_experts > 1
        return gated or getattr(self.config, "weighting", "none") != "none"

    @property
    def start_epoch(self) -> int:
        """Epoch from which patience is counted."""
        return self.config.start_epoch if getattr(self.config, "weighting", "none") != "none" else 0

    def _build(self, n_items: int) -> None:
        random = torch.Generator().manual_seed(self.options.seed)
        self.net = Mixture(self.config, n_items, random).to(self.device, self.dtype)

    def _trainer(self, split: Split, objective: Objective | None) -> MixtureTrainer:
        self._build(split.log.n_items)
        return MixtureTrainer(self, split, objective)

    def _gates(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any]:
        gate = self.net.gates_of(
            SparseRows.from_csr(seen, self.device), SparseRows.from_csr(held_out, self.device)
        )
        return gate.cpu().numpy()

    def _scores(self, rows: csr_matrix, gates: NDArray[Any] | None) -> NDArray[Any]:
        assert gates is not None
        gate = torch.from_numpy(gates).to(self.device, self.dtype)
        return self.net.scores(SparseRows.from_csr(rows, self.device), gate).cpu().numpy()

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Cosine of the items' decoder rows, stacked over experts."""
        vectors = torch.nn.functional.normalize(self.net.bank.decoder_weight.detach().flatten(0, 1), dim=0)
        return (vectors[:, torch.from_numpy(items)].T @ vectors).cpu().numpy()

    def _state(self) -> dict[str, Tensor]:
        return {key: value.detach().cpu() for key, value in self.net.state_dict().items()}

    def _restore(self, state: dict[str, Tensor], n_items: int) -> None:
        self._build(n_items)
        self.net.load_state_dict(state)
