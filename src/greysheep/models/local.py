"""What the local models share: a trained global model and a bank of experts around anchors."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.errors import DataError
from greysheep.mainstream import Mainstream
from greysheep.metrics import hits, per_user, top_n
from greysheep.models import paper_settings
from greysheep.models.base import IterativeModel, Model
from greysheep.models.footprint import Footprint, best_weights_spill
from greysheep.models.multvae import MultVAEConfig
from greysheep.models.recommending import mask
from greysheep.nn.bank import ExpertBank
from greysheep.nn.local import ExpertGradient
from greysheep.nn.rows import SparseRows
from greysheep.splitting import Split
from greysheep.training.loop import Outcome, run
from greysheep.training.objective import Objective
from greysheep.training.optimizer import adam
from greysheep.training.progress import Progress

if TYPE_CHECKING:
    from greysheep.models.mixture import MixtureModel
    from greysheep.training.loop import Tick

SCORING_ROWS = 512


class GlobalConfig(MultVAEConfig):
    """Settings of a model that starts from a global one; those of MultVAE are the global model's."""

    global_model: Literal["multvae", "wl"] = "multvae"
    """Registry name of the global model: `multvae`, or `wl`, which weights niche users more."""


class LocalConfig(GlobalConfig):
    """Settings of a bank of local models."""

    n_experts: int = Field(100, ge=1)
    """K, the number of anchors; each has a local model. At most one a user."""
    warm_start: bool = True
    """Local models begin as copies of the global one; False: with fresh weights."""
    local_epochs: int = Field(30, ge=1)
    """The most epochs of the local models."""
    local_patience: int = Field(3, ge=1)
    """Epochs of the local models without a better objective before training stops."""
    local_learning_rate: float = Field(1e-3, gt=0)
    """Adam's step size for the local models."""
    local_batch_size: int = Field(512, ge=1)
    """Users a step of a local model."""


def train_global(model: Model, split: Split, epochs: int | None = None) -> MixtureModel:
    """Train the global model that a config names.

    epochs: None = until validation says stop; else that many, without validation (a refit).

    Raises:
        KeyboardInterrupt: a refit was interrupted.
    """
    from greysheep.models import create

    own = model.config.model_dump(include=set(MultVAEConfig.model_fields))
    options = model.options.model_dump()
    found: Any = create(model.config.global_model, label=f"{model.label} (global)", **own, **options)
    found.split = split
    if epochs is None:
        found._fit(split)
    else:
        if found._run(split, None, epochs, found.label).interrupted:
            raise KeyboardInterrupt  # half a refit is none: the first model is kept
    return found  # type: ignore[no-any-return]


def validation_metrics(
    split: Split, objective: Objective, scores_of: Any, users: NDArray[np.int64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Metrics of every user with validation rows, [U] each, NaN = none.

    scores_of: takes codes [B] and their input rows [B, I], returns scores [B, I] that may be changed.
    """
    truth, given = split.rows("validation"), split.input_rows("validation")
    users = np.flatnonzero(np.diff(truth.indptr)) if users is None else users
    names = tuple(dict.fromkeys((*objective.names, "ndcg")))
    cuts = tuple(dict.fromkeys((*objective.cuts, 20)))
    out: dict[str, NDArray[np.float64]] = {}
    for start in range(0, len(users), SCORING_ROWS):
        batch = users[start : start + SCORING_ROWS]
        scores = scores_of(batch, given[batch])
        mask(scores, given[batch])
        found = hits(top_n(scores, max(cuts)), truth[batch])
        for name, value in per_user(found, np.diff(truth[batch].indptr), cuts, names).items():
            out.setdefault(name, np.full(truth.shape[0], np.nan))[batch] = value
    return out


class LocalTrainer:
    """Trains all local models side by side, one pass of each over its own users an epoch."""

    def __init__(self, model: LocalModel, split: Split, objective: Objective | None, first: int):
        self.model, self.split, self.objective, self.first = model, split, objective, first
        config, bank = model.config, model.bank
        self.train = split.train_rows(gated=False)
        self.weights = model._user_weights(self.train)
        self.weights[:, np.diff(self.train.indptr) == 0] = 0
        self.order = np.random.default_rng(model.options.seed)
        self.random = torch.Generator(model.device).manual_seed(model.options.seed)
        self.gradient = ExpertGradient(bank, config.noise, sums_kl=config.kl_reduction == "sum")
        # views of one expert each: a step changes the bank, and its gradient is gone before the next expert's
        self.parts = [
            [tensor.detach()[first + k] for tensor in bank.parameters()] for k in range(len(self.weights))
        ]
        n_users = (self.weights > 0).sum(1)
        self.steps_an_epoch = np.maximum(-(-n_users // config.local_batch_size), 1)
        rate = config.local_learning_rate
        self.optimizers = [
            adam(parts, config, steps_an_epoch=int(steps), learning_rate=rate)
            for parts, steps in zip(self.parts, self.steps_an_epoch, strict=True)
        ]
        # the KL weight goes on from the global model's: in steps, or in epochs of the local model's own
        if config.anneal_steps is None:
            self.steps = model.global_epochs * self.steps_an_epoch
        else:
            batches = -(-self.train.shape[0] // config.users_a_step(self.train.shape[0]))
            self.steps = np.full(len(self.weights), model.global_epochs * batches)
        self.gates: NDArray[Any] | None = None
        self.best: dict[str, Tensor] | None = None

    def train_epoch(self, epoch: int, tick: Tick) -> dict[str, Any]:
        """One shuffled pass of every local model over the users that weigh in it."""
        sums, trained = np.zeros(2), 0
        for k, weight in enumerate(self.weights):
            users = self.order.permutation(np.flatnonzero(weight > 0))
            for start in range(0, len(users), self.model.config.local_batch_size):
                batch = users[start : start + self.model.config.local_batch_size]
                sums += self._step(k, batch, weight[batch]) * np.array(len(batch))
                trained += len(batch)
            tick((k + 1) / len(self.weights))
        ce, kl = sums / max(1, trained)
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.bank.parameters()):
            ce = np.nan
        return {"loss": float(ce + self._beta(0) * kl), "ce": float(ce), "kl": float(kl)}

    def _beta(self, k: int) -> float:
        """KL weight of local model k, by its own steps."""
        weight: float = self.model.config.kl_weight(int(self.steps[k]), int(self.steps_an_epoch[k]))
        return weight

    def _step(self, k: int, users: NDArray[np.int64], weight: NDArray[Any]) -> NDArray[np.float64]:
        device, dtype = self.model.device, self.model.dtype
        rows = SparseRows.from_csr(self.train[users], device)
        shape = (len(users), self.model.config.latent)
        eps = torch.randn(shape, generator=self.random, device=device, dtype=dtype)
        given = torch.from_numpy(weight).to(device, dtype)
        losses, gradients = self.gradient(self.first + k, rows, given, eps, self._beta(k))
        for part, gradient in zip(self.parts[k], gradients, strict=True):
            part.grad = gradient
        self.optimizers[k].step()
        self.optimizers[k].zero_grad(set_to_none=True)
        self.steps[k] += 1
        return np.array([float(loss) for loss in losses])

    def validate(self) -> dict[str, NDArray[np.float64]]:
        """Metrics of the aggregate; its gate does not change while the local models are trained."""
        assert self.objective is not None
        if self.gates is None:
            chunks = [
                self.train[start : start + SCORING_ROWS]
                for start in range(0, self.train.shape[0], SCORING_ROWS)
            ]
            self.gates = np.concatenate([self.model._gates(rows, rows) for rows in chunks])
        gates = self.gates
        return validation_metrics(
            self.split, self.objective, lambda users, rows: self.model._scores(rows, gates[users])
        )

    def snapshot(self) -> Any:
        """Copy of the bank, in the place of the one before."""
        if self.best is None:
            self.best = {key: value.clone() for key, value in self.model.bank.state_dict().items()}
        for key, value in self.model.bank.state_dict().items():
            self.best[key].copy_(value)
        return self.best

    def restore(self, snapshot: Any) -> None:
        """Put a copy back."""
        self.model.bank.load_state_dict(snapshot)


class GlobalFirst(Model):
    """A model that trains a global one first and keeps it, or its offspring, in a bank of experts."""

    binary = True
    presets = paper_settings.MULTVAE
    bank: ExpertBank
    global_epochs: int = 0

    def _forget(self) -> None:
        super()._forget()
        self.global_epochs = 0

    def _train_global(self, split: Split, objective: Objective | None) -> ExpertBank:
        """The global model's weights as a bank of one; without objective, after the epochs found before."""
        again = self.global_epochs if objective is None and self.global_epochs else None
        found = train_global(self, split, again)
        if again is None:
            self.global_epochs = found.best_epoch
        return found.net.bank

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Cosine of the items' decoder rows, stacked over experts."""
        vectors = torch.nn.functional.normalize(self.bank.decoder_weight.detach().flatten(0, 1), dim=0)
        return (vectors[:, torch.from_numpy(items)].T @ vectors).cpu().numpy()

    def _state(self) -> dict[str, Tensor]:
        return {key: value.detach().cpu() for key, value in self.bank.state_dict().items()}

    def _restore(self, state: dict[str, Tensor], n_items: int) -> None:
        self._empty_bank(state["decoder_bias"].shape[0], n_items)
        self.bank.load_state_dict({key: state[key] for key in self.bank.state_dict()})

    def _empty_bank(self, n_experts: int, n_items: int) -> None:
        random = torch.Generator().manual_seed(self.options.seed)
        bank = ExpertBank(n_experts, n_items, self.config.latent, random)
        self.bank = bank.to(self.device, self.dtype)


class LocalModel(GlobalFirst, IterativeModel):
    """A bank of local models, one an anchor; a subclass says who weighs in each and how they are mixed."""

    keeps_global: bool = False
    """Whether the global model is expert 0 of the bank."""

    @property
    def n_experts(self) -> int:
        """Experts in the gate: the anchors, and the global model where it is one of them."""
        return self.bank.n_experts if "bank" in self.__dict__ else int(self.config.n_experts)

    @abstractmethod
    def _choose(self, split: Split, origin: ExpertBank) -> int:
        """Choose the anchors of a split by its train rows and the global model; return their number."""

    @abstractmethod
    def _user_weights(self, train: csr_matrix) -> NDArray[np.float32]:
        """[K, U] how much each user counts in each local model."""

    def _trainer(self, split: Split, objective: Objective | None) -> LocalTrainer:
        origin = self._train_global(split, objective)
        n_anchors, first = self._choose(split, origin), int(self.keeps_global)
        size = 8 if self.dtype == torch.float64 else 4
        batch = min(self.config.local_batch_size, split.log.n_users)
        if self.device.type == "cpu":
            best_weights_spill(
                Footprint(first + n_anchors, self.config.latent, split.log.n_items, batch, size)
            )
        self._empty_bank(first + n_anchors, split.log.n_items)
        with torch.no_grad():
            for own, given in zip(self.bank.parameters(), origin.parameters(), strict=True):
                own[: None if self.config.warm_start else first] = given
        return LocalTrainer(self, split, objective, first)

    def _run(self, split: Split, objective: Objective | None, epochs: int, label: str) -> Outcome:
        trainer = self._trainer(split, objective)
        most = min(epochs, self.config.local_epochs)
        return run(
            trainer,
            epochs=most,
            patience=self.config.local_patience,
            start_epoch=0,
            objective=objective,
            groups=Mainstream.of_split(split).groups,
            progress=Progress(label, most, self.options.progress),
            watch=None if objective is None else self.watch,
        )

    def _scores(self, rows: csr_matrix, gates: NDArray[Any] | None) -> NDArray[Any]:
        assert gates is not None
        with torch.no_grad():
            mu, _ = self.bank.encode(SparseRows.from_csr(rows, self.device))
            gate = torch.from_numpy(gates).to(self.device, self.dtype)
            return self.bank.mix(mu, gate).cpu().numpy()


def refuse_without_rows(model: Model, include_history: bool, why: str) -> None:
    """Stop before a model is saved without rows it cannot do without.

    Raises:
        DataError: `include_history` is False.
    """
    if not include_history:
        raise DataError(
            f"{model.name} cannot be saved without its rows: {why}; save with include_history=True"
        )
