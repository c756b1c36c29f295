"""One run of training of a bank of local models, epoch by epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.splitting import Split
from greysheep.models.local.config import LocalConfig
from greysheep.models.training.checkpoints import State
from greysheep.models.training.loop import Tick
from greysheep.models.training.objective import Objective
from greysheep.models.training.validation import PerUser, Validation
from greysheep.nn.bank import ExpertBank
from greysheep.nn.local_experts import ExpertGradient
from greysheep.nn.sparse_rows import SparseRows


class LocalTrainer:
    """Trains all local models; in an epoch each passes once over its own users.

    weights: [K, U] how much each user counts in each local model, which is expert `first` + k of the bank.
    gates: [U, first + K] how the experts are mixed when validating; fixed during training.
    objective: None = no validation. global_epochs: those of the global model, trained before.
    """

    def __init__(
        self,
        bank: ExpertBank,
        config: LocalConfig,
        split: Split,
        objective: Objective | None,
        *,
        weights: NDArray[np.float32],
        gates: NDArray[Any] | None,
        first: int,
        global_epochs: int,
        seed: int,
    ):
        self.bank, self.config, self.first, self.gates = bank, config, first, gates
        self.device, self.dtype = bank.decoder_bias.device, bank.decoder_bias.dtype
        self.train = split.train_rows(gated=False)
        self.validation = None if objective is None else Validation(split, objective)
        self.weights = weights
        self.weights[:, np.diff(self.train.indptr) == 0] = 0
        self.order = np.random.default_rng(seed)
        self.random = torch.Generator(self.device).manual_seed(seed)
        self.gradient = ExpertGradient(bank, config.noise, sums_kl=config.kl_reduction == "sum")
        # views of one expert each: a step changes the bank, and its gradient is gone before the next expert's
        self.parts = [
            [tensor.detach()[first + k] for tensor in bank.parameters()] for k in range(len(weights))
        ]
        n_users = (self.weights > 0).sum(1)
        self.steps_an_epoch = np.maximum(-(-n_users // config.local_batch_size), 1)
        self.optimizers = [
            config.adam(parts, config.local_learning_rate, int(steps))
            for parts, steps in zip(self.parts, self.steps_an_epoch, strict=True)
        ]
        # the KL weight goes on from the global model's: in steps, or in epochs of the local model's own
        if config.anneal_steps is None:
            self.steps = global_epochs * self.steps_an_epoch
        else:
            batches = -(-self.train.shape[0] // config.users_a_step(self.train.shape[0]))
            self.steps = np.full(len(self.weights), global_epochs * batches)
        self.best: dict[str, Tensor] | None = None

    def train_epoch(self, epoch: int, tick: Tick) -> dict[str, Any]:
        """One shuffled pass of every local model over the users that weigh in it."""
        sums, trained = np.zeros(2), 0
        for k, weight in enumerate(self.weights):
            users = self.order.permutation(np.flatnonzero(weight > 0))
            for start in range(0, len(users), self.config.local_batch_size):
                batch = users[start : start + self.config.local_batch_size]
                sums += self._step(k, batch, weight[batch]) * np.array(len(batch))
                trained += len(batch)
            tick((k + 1) / len(self.weights))
        ce, kl = sums / max(1, trained)
        if not all(bool(parameter.isfinite().all()) for parameter in self.bank.parameters()):
            ce = np.nan
        return {"loss": float(ce + self._beta(0) * kl), "ce": float(ce), "kl": float(kl)}

    def _beta(self, k: int) -> float:
        """KL weight of local model k, by its own steps."""
        return self.config.kl_weight(int(self.steps[k]), int(self.steps_an_epoch[k]))

    def _step(self, k: int, users: NDArray[np.int64], weight: NDArray[Any]) -> NDArray[np.float64]:
        device, dtype = self.device, self.dtype
        rows = SparseRows.from_csr(self.train[users], device)
        shape = (len(users), self.config.latent)
        eps = torch.randn(shape, generator=self.random, device=device, dtype=dtype)
        weights = torch.from_numpy(weight).to(device, dtype)
        losses, gradients = self.gradient(self.first + k, rows, weights, eps, self._beta(k))
        for part, gradient in zip(self.parts[k], gradients, strict=True):
            part.grad = gradient
        self.optimizers[k].step()
        self.optimizers[k].zero_grad(set_to_none=True)
        self.steps[k] += 1
        return np.array([float(loss) for loss in losses])

    def validate(self) -> PerUser:
        """Metrics of the aggregate."""
        validation, gates = self.validation, self.gates
        assert validation is not None and gates is not None

        def measure(users: NDArray[np.int64]) -> PerUser:
            return validation.metrics(users, mixed_scores(self.bank, validation.given[users], gates[users]))

        return validation.everybody(measure)

    def snapshot(self) -> Any:
        """Copy of the bank, in the place of the one before."""
        if self.best is None:
            self.best = {key: value.clone() for key, value in self.bank.state_dict().items()}
        for key, value in self.bank.state_dict().items():
            self.best[key].copy_(value)
        return self.best

    def restore(self, snapshot: Any) -> None:
        """Put a copy back."""
        self.bank.load_state_dict(snapshot)

    def state(self) -> State:
        """All that the epochs to come depend on."""
        state = State()
        state.put("bank", self.bank.state_dict())
        for k, optimizer in enumerate(self.optimizers):
            state.put_optimizer(f"optimizer.{k}", optimizer)
        state.put_random(self.order, self.random)
        state.put("steps", {"all": torch.from_numpy(self.steps)})
        state.put("best", self.best or {})
        return state

    def load_state(self, state: State) -> Any:
        """Go to a state; returns the copy of the best weights, None if there is none."""
        self.bank.load_state_dict(state.part("bank"))
        for k, optimizer in enumerate(self.optimizers):
            state.load_optimizer(f"optimizer.{k}", optimizer)
        state.load_random(self.order, self.random)
        self.steps = state.part("steps")["all"].numpy().copy()
        best = state.part("best")
        self.best = {key: value.clone().to(self.device) for key, value in best.items()} or None
        return self.best


@torch.no_grad()
def mixed_scores(bank: ExpertBank, rows: csr_matrix, gates: NDArray[Any]) -> NDArray[Any]:
    """Scores [B, I] of users whose input is `rows` by the experts of a bank, mixed as `gates` [B, K] say."""
    mu, _ = bank.encode(SparseRows.from_csr(rows, bank.decoder_bias.device))
    gate = torch.from_numpy(gates).to(bank.decoder_bias)
    return bank.mix(mu, gate).cpu().numpy()
