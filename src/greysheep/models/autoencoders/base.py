"""What MultVAE, WL, MoE, LMoE and TALL share: a model whose scores are a gated mixture of experts."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.splitting import Split
from greysheep.models.autoencoders.config import MultVAEConfig
from greysheep.models.autoencoders.trainer import MixtureTrainer
from greysheep.models.base import IterativeModel, mean_entropy
from greysheep.models.recommender import recorded
from greysheep.models.training.footprint import best_weights_spill
from greysheep.models.training.objective import Objective
from greysheep.nn.mixture import Mixture, MixtureSettings
from greysheep.nn.saved import take_weights
from greysheep.nn.sparse_rows import SparseRows


def niche_weights(scores: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """WL's weights of users (Zhu & Caverlee, WSDM 2022): mainstream scores S [U] -> weights [U] of mean 1.

    ((max S - S_u) / (max S - min S))^power, so the most mainstream user weighs 0; all 1 where all users are
    equally mainstream.

    >>> niche_weights(np.array([0.1, 0.2, 0.3]), power=1.0)
    array([2., 1., 0.])
    """
    spread = scores.max() - scores.min()
    if spread == 0:
        return np.ones(len(scores))
    weights = ((scores.max() - scores) / spread) ** power
    return np.asarray(weights / weights.mean())


class MixtureModel(IterativeModel):
    """A model whose scores are a gated mixture of experts; subclasses only define a config."""

    binary = True
    fixed: ClassVar[dict[str, Any]] = {}
    """Settings of the mixture that are the model itself, not its user's choice."""
    config: MultVAEConfig
    net: Mixture
    best_weights_spill: bool = False
    """Whether the best weights so far are kept on disk while training, for want of memory."""

    @property
    def n_experts(self) -> int:
        """K."""
        return self.settings.n_experts

    @property
    def settings(self) -> MixtureSettings:
        """What the config says about the mixture."""
        return MixtureSettings.of(dict(self.config), **self.fixed)

    @property
    def uses_gate_rows(self) -> bool:
        """Whether gate or adaptive weights read held-out rows."""
        return self.settings.reads_held_out

    @property
    def gates(self) -> NDArray[Any] | None:
        """[U, K] every known user's gate: her `user_state`."""
        return self.user_state

    routes: Tensor | None = recorded("routes", "[U, K] gates of sparse routing, fixed after the warm-up.")

    @property
    def start_epoch(self) -> int:
        """Epoch from which patience is counted."""
        return self.settings.start_epoch if self.settings.adaptive else 0

    def _user_weights(self, split: Split) -> NDArray[np.float64]:
        """Fixed training weights of users [U], mean 1."""
        if self.settings.weighting != "mainstream":
            return np.ones(split.log.n_users)
        return niche_weights(split.mainstream.scores, self.settings.power)

    def _known_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """As in every model; users who were routed in training keep their experts."""
        gates = super()._known_state(seen, held_out)
        if self.routes is not None and gates is not None:
            routed = np.diff(seen.indptr) > 0
            gates[routed] = self.routes.cpu().numpy()[routed]
        return gates

    def _mixing_entropy(self) -> float | None:
        """Mean entropy of the gates, without users whose gate had no held-out rows to read."""
        assert self.gates is not None
        read = np.diff(self.split.gate_rows().indptr) > 0
        return mean_entropy(self.gates[read] if self.uses_gate_rows else self.gates)

    def _check_memory(self, split: Split) -> bool:
        """Whether the best weights go to disk while training; ConfigError if memory is too short."""
        if self.device.type != "cpu":
            return False  # a GPU raises by itself when its memory is full
        self.net = None  # type: ignore[assignment]  # a second fit must not hold the first one's weights
        batch = min(self.config.users_a_step(split.log.n_users), split.log.n_users)
        return best_weights_spill(self.n_experts, self.config.latent, split.log.n_items, batch, self.dtype)

    def _build(self, n_items: int, *, empty: bool = False) -> None:
        """The network, its weights drawn; or `empty`, without memory, to be given its weights."""
        random = None if empty else torch.Generator().manual_seed(self.options.seed)
        with torch.device("meta") if empty else nullcontext():
            net = Mixture(self.settings, n_items, random)
        self.net = net if empty else net.to(self.device, self.dtype)
        self.net.bank.low = torch.bfloat16 if self.options.precision == "bfloat16" else None

    def _trainer(self, split: Split, objective: Objective | None) -> MixtureTrainer:
        self.best_weights_spill = self._check_memory(split)
        self._build(split.log.n_items)
        return MixtureTrainer(
            self.net,
            self.config,
            split,
            objective,
            user_weights=self._user_weights(split),
            seed=self.options.seed,
            spill=self.best_weights_spill,
        )

    def _trained(self, trainer: Any) -> None:
        self.fitted.routes = trainer.routes

    def _user_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any]:
        rows = (SparseRows.from_csr(part, self.device) for part in (seen, held_out))
        return self.net.gates_of(*rows).cpu().numpy()

    def _scores(self, rows: csr_matrix, user_state: NDArray[Any] | None) -> NDArray[Any]:
        assert user_state is not None
        gate = torch.from_numpy(user_state).to(self.device, self.dtype)
        return self.net.scores(SparseRows.from_csr(rows, self.device), gate).cpu().numpy()

    def _speakers(self, user_state: NDArray[Any] | None) -> list[tuple[str, float]]:
        if user_state is None or self.n_experts == 1:
            return []
        return [(f"expert {k}", float(weight)) for k, weight in enumerate(user_state, 1)]

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Cosine of the items' decoder rows, stacked over experts."""
        return self.net.bank.similarity(torch.from_numpy(items)).cpu().numpy()

    def _state(self) -> dict[str, Tensor]:
        return {key: value.detach().cpu() for key, value in self.net.state_dict().items()}

    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        self._build(n_items, empty=True)
        take_weights(self.net, state, self.device, self.dtype)
