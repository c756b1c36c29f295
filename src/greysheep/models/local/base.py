"""What the local models share: a trained global model and a bank of experts around anchors."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.splitting import Split
from greysheep.models.autoencoders import paper_settings
from greysheep.models.autoencoders.config import MultVAEConfig
from greysheep.models.autoencoders.multvae import MultVAE
from greysheep.models.autoencoders.wl import WL
from greysheep.models.base import IterativeModel, Model, mean_entropy
from greysheep.models.fitted import Fitted
from greysheep.models.local.trainer import LocalTrainer, mixed_scores
from greysheep.models.training.footprint import best_weights_spill
from greysheep.models.training.loop import Outcome
from greysheep.models.training.objective import Objective
from greysheep.models.training.validation import SCORING_ROWS
from greysheep.nn.bank import ExpertBank
from greysheep.nn.local_experts import latents
from greysheep.nn.saved import take_weights
from greysheep.nn.sparse_rows import SparseRows

GLOBAL: dict[str, type[MultVAE]] = {"multvae": MultVAE, "wl": WL}
"""Global models by the setting `global_model`."""


def train_global(model: Model, split: Split, epochs: int | None = None) -> MultVAE:
    """Train the global model that a config names.

    epochs: None = until validation says stop; else that many, without validation (a refit).

    Raises:
        KeyboardInterrupt: a refit was interrupted.
    """
    own = model.config.model_dump(include=set(MultVAEConfig.model_fields))
    kind = GLOBAL[model.config.global_model]
    trained = kind(label=f"{model.label} (global)", **own, **model.options.model_dump())
    trained.fitted, trained.checkpoints = Fitted(split), model.checkpoints
    if epochs is None:
        trained._fit(split)
    elif trained._run(split, None, epochs, trained.label).interrupted:
        raise KeyboardInterrupt  # half a refit is none: the first model is kept
    return trained


class GlobalFirst(Model):
    """A model that trains a global one first and keeps it, or copies of it, in a bank of experts."""

    binary = True
    presets = paper_settings.MULTVAE
    validates = True
    solved_anew = False
    bank: ExpertBank
    global_epochs: int = 0
    """The best epoch of the global model."""

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Cosine of the items' decoder rows, stacked over experts."""
        return self.bank.similarity(torch.from_numpy(items)).cpu().numpy()

    @torch.no_grad()
    def _latents(self, rows: csr_matrix, bank: ExpertBank) -> Tensor:
        """[B, D] latent means of rows [B, I] in expert 0."""
        parts = (rows[i : i + SCORING_ROWS] for i in range(0, rows.shape[0], SCORING_ROWS))
        return torch.cat([latents(bank, 0, SparseRows.from_csr(part, self.device)) for part in parts])

    def _state(self) -> dict[str, Tensor]:
        return {key: value.detach().cpu() for key, value in self.bank.state_dict().items()}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        n_experts = len(state.get("decoder_bias", []))
        with torch.device("meta"):
            self.bank = ExpertBank(n_experts, n_items, self.config.latent)
        own = {key: value for key, value in state.items() if key in self.bank.state_dict()}
        take_weights(self.bank, own, self.device, self.dtype)

    def _empty_bank(self, n_experts: int, n_items: int) -> None:
        random = torch.Generator().manual_seed(self.options.seed)
        bank = ExpertBank(n_experts, n_items, self.config.latent, random)
        self.bank = bank.to(self.device, self.dtype)


class LocalModel(GlobalFirst, IterativeModel):
    """A bank of local models, one per anchor; a subclass sets their user weights and how they are mixed."""

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

    def _fit(self, split: Split) -> None:
        self.global_epochs = 0
        super()._fit(split)

    def _train_global(self, split: Split, objective: Objective | None) -> ExpertBank:
        """The global model's weights as a bank of one; without objective, after the epochs found before."""
        again = self.global_epochs if objective is None and self.global_epochs else None
        trained = train_global(self, split, again)
        if trained.interrupted:
            raise KeyboardInterrupt  # without local models it is no model yet
        if again is None:
            self.global_epochs = trained.best_epoch
        return trained.net.bank

    def _trainer(self, split: Split, objective: Objective | None) -> LocalTrainer:
        origin = self._train_global(split, objective)
        n_anchors, first = self._choose(split, origin), int(self.keeps_global)
        batch = min(self.config.local_batch_size, split.log.n_users)
        if self.device.type == "cpu":
            best_weights_spill(first + n_anchors, self.config.latent, split.log.n_items, batch, self.dtype)
        self._empty_bank(first + n_anchors, split.log.n_items)
        with torch.no_grad():
            for own, trained in zip(self.bank.parameters(), origin.parameters(), strict=True):
                own[: None if self.config.warm_start else first] = trained
        rows = split.train_rows(gated=False)
        return LocalTrainer(
            self.bank,
            self.config,
            split,
            objective,
            weights=self._user_weights(rows),
            gates=None if objective is None else self._states(rows, rows),
            first=first,
            global_epochs=self.global_epochs,
            seed=self.options.seed,
        )

    @property
    def patience(self) -> int:
        """Epochs of the local models without a better objective before training stops."""
        return int(self.config.local_patience)

    def _run(self, split: Split, objective: Objective | None, epochs: int, label: str) -> Outcome:
        return super()._run(split, objective, min(epochs, self.config.local_epochs), label)

    def _mixing_entropy(self) -> float | None:
        return None if self.user_state is None else mean_entropy(self.user_state)

    def _speakers(self, user_state: NDArray[Any] | None) -> list[tuple[str, float]]:
        if user_state is None:
            return []
        names = ["global model"] * self.keeps_global + [f"anchor {k + 1}" for k in range(len(user_state))]
        return [(name, float(weight)) for name, weight in zip(names, user_state, strict=False)]

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        assert user_state is not None
        return mixed_scores(self.bank, rows, user_state)
