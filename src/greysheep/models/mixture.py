"""What MultVAE and TALL share: training a gated mixture of experts and scoring with it."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from greysheep.metrics import hits, per_user, top_n
from greysheep.models.base import IterativeModel
from greysheep.models.footprint import Footprint, best_weights_spill
from greysheep.models.recommending import mask
from greysheep.nn import routing
from greysheep.nn.bank import ExpertBank
from greysheep.nn.gates import MLPGate, entropy, loss_gate, temperature_gate, uniform_gate
from greysheep.nn.likelihood import gaussian_kl, kept_nll, row_nll
from greysheep.nn.pace import Pace
from greysheep.nn.rows import SparseRows
from greysheep.splitting import Split
from greysheep.training.objective import Objective

if TYPE_CHECKING:
    from greysheep.models.multvae import MultVAEConfig
    from greysheep.serving.index import Index
    from greysheep.training.loop import Tick

SCORING_ROWS = 512


@dataclass(frozen=True)
class MixtureSettings:
    """What a config says about the mixture; what it lacks is that of one expert and equal weights."""

    n_experts: int = 1
    gate: str = "uniform"
    temperature: float = 1.0
    shrinkage: float = 5.0
    gate_gradient: bool = False
    gate_refresh: str = "batch"
    active_experts: int | None = None
    warm_up: int = 0
    weighting: str = "none"
    signal_scale: str = "sum"
    alpha: float = 1.0
    window: int = 8
    start_epoch: int = 0

    @classmethod
    def of(cls, config: Any, **fixed: Any) -> MixtureSettings:
        """Read a config; `fixed` are settings that the model does not leave open."""
        own = {f.name: getattr(config, f.name) for f in fields(cls) if hasattr(config, f.name)}
        return cls(**{**own, **fixed})

    @property
    def gate_reads_losses(self) -> bool:
        """Whether the gate is made of the experts' held-out losses."""
        return self.gate in ("loss", "temperature") and self.n_experts > 1


class Mixture(nn.Module):
    """The network: a bank of experts and a gate. MultVAE is the case of one expert."""

    def __init__(
        self,
        config: MultVAEConfig,
        n_items: int,
        generator: torch.Generator | None = None,
        settings: MixtureSettings | None = None,
    ):
        super().__init__()
        self.settings = settings or MixtureSettings.of(config)
        self.authors = config.variant == "authors"
        self.mean_kl = self.authors and not hasattr(config, "n_experts")
        """The authors' MultVAE takes the mean of KL over users; their TALL sums, for K = 1 too."""
        n_experts = self.settings.n_experts
        self.bank = ExpertBank(n_experts, n_items, config.latent, generator)
        learned = self.settings.gate == "mlp"
        self.mlp = MLPGate(n_items, n_experts, config.latent, generator) if learned else None

    @property
    def seen_fill(self) -> float:
        """Logit of seen items in the gate's losses (docs/method.md, row 1)."""
        return 0.0 if self.authors else -torch.inf

    @property
    def gradient_through_gate(self) -> bool:
        """Whether the loss passes through the gate (docs/method.md, row 2)."""
        return self.authors or self.settings.gate_gradient

    def gate(self, z: Tensor, seen: SparseRows, held_out: SparseRows) -> Tensor:
        """Gate [B, K] of users with latents z [K, B, D], train rows `seen` and gate rows `held_out`."""
        if self.mlp is not None:
            gate: Tensor = self.mlp(seen)
            return gate
        if not self.settings.gate_reads_losses:
            return uniform_gate(seen.n_rows, self.bank.n_experts, like=z)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient_through_gate):
            losses = self.bank.held_out_losses(z, seen, held_out, self.seen_fill)
            return self._gate_of(losses, held_out.lengths)

    def _gate_of(self, losses: Tensor, n_held_out: Tensor) -> Tensor:
        if self.settings.gate == "loss":
            return loss_gate(losses, n_held_out)
        return temperature_gate(losses, n_held_out, self.settings.temperature, self.settings.shrinkage)

    def mixture(self, z: Tensor, seen: SparseRows, held_out: SparseRows) -> tuple[Tensor, Tensor]:
        """Gate [B, K] and mixture logits [B, I], in one pass over the experts' logits where that can be."""
        through = torch.is_grad_enabled() and self.gradient_through_gate
        if self.settings.gate_reads_losses and not through:
            return self.bank.gated_logits(z, seen, held_out, self._gate_of, self.seen_fill)
        gate = self.gate(z, seen, held_out)
        return gate, self.bank.mix(z, gate)

    def kl(self, gate: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        """The batch's KL term (docs/method.md, row 4): gate [B, K], mu and logvar [K, B, D] -> scalar."""
        each = gaussian_kl(mu, logvar).T  # [B, K]
        if not self.authors:
            return (gate * each).sum()
        if self.mean_kl:
            return each.mean()
        return (gate * each.mean(0)).sum()

    @torch.no_grad()
    def gates_of(self, seen: SparseRows, held_out: SparseRows) -> Tensor:
        """Gates [B, K] at inference."""
        gate = self.gate(self.bank.means(seen), seen, held_out)
        m = self.settings.active_experts
        return gate if m is None else routing.strongest(gate, m, torch.Generator(gate.device).manual_seed(0))

    @torch.no_grad()
    def scores(self, rows: SparseRows, gate: Tensor) -> Tensor:
        """Mixture logits [B, I] of users whose input is `rows`, at inference."""
        if self.settings.active_experts is not None:
            routes = routing.Routes.of(gate)
            mu, _ = routing.encode(self.bank, rows, routes)
            return routing.mix(self.bank, mu, routes, rows.n_rows)
        return self.bank.mix(self.bank.means(rows), gate)


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
        given = model._user_weights(split)
        own = np.ones(self.train.shape[0]) if given is None else given
        self.user_weights = torch.from_numpy(own).to(self.device, self.dtype)
        self.best: dict[str, Tensor] | None = None
        self.spill: str | None = None
        if model.best_weights_spill:
            self.folder = tempfile.TemporaryDirectory(prefix="greysheep-")  # goes when the trainer does
            self.spill = str(Path(self.folder.name) / "best.safetensors")
        self.gates: Tensor | None = None
        """[U, K] where gates are refreshed once an epoch: those of the last validation."""
        self.best_routes: Tensor | None = None
        model.routes = None

    def _pace(self) -> Pace | None:
        settings: Any = self.net.settings
        if settings.weighting == "none":
            return None
        return Pace(
            self.train.shape[0],
            signal=settings.weighting,
            scale=settings.signal_scale,
            alpha=settings.alpha,
            window=settings.window,
            start_epoch=settings.start_epoch,
            authors=self.net.authors,
            device=self.device,
            dtype=self.dtype,
        )

    def train_epoch(self, epoch: int, tick: Tick) -> dict[str, Any]:
        """One shuffled pass over the users who have train rows."""
        if self.net.settings.active_experts is not None and epoch == self.net.settings.warm_up + 1:
            self._route()
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
        routed = self.model.routes is not None
        logits, kl = self._routed_pass(users, rows) if routed else self._pass(users, rows, held_out)
        weight = self._weights(users, logits, rows, held_out, epoch)
        ce = (weight * row_nll(logits, rows)).sum() / weight.sum()
        beta = self.config.beta * min(1.0, self.step / self.config.anneal_steps)
        loss = ce + beta * kl
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.item(), "ce": ce.item(), "kl": kl.item()}, weight.cpu().numpy()

    def _pass(
        self, users: NDArray[np.int64], rows: SparseRows, held_out: SparseRows
    ) -> tuple[Tensor, Tensor]:
        """Mixture logits [B, I] and the KL term, through all experts."""
        mu, logvar = self.net.bank.encode(rows, keep=self._dropout(rows))
        z = self._noisy(mu, logvar)
        if self.gates is None:
            gate, logits = self.net.mixture(z, rows, held_out)
        else:
            gate = self.gates[torch.from_numpy(users).to(self.device)]
            logits = self.net.bank.mix(z, gate)
        return logits, self.net.kl(gate, mu, logvar)

    def _routed_pass(self, users: NDArray[np.int64], rows: SparseRows) -> tuple[Tensor, Tensor]:
        """The same through each user's active experts, with the gates of the end of the warm-up."""
        assert self.model.routes is not None
        routes = routing.Routes.of(self.model.routes[torch.from_numpy(users).to(self.device)])
        mu, logvar = routing.encode(self.net.bank, rows, routes, keep=self._dropout(rows))
        logits = routing.mix(self.net.bank, self._noisy(mu, logvar), routes, len(users))
        return logits, (routes.gate * gaussian_kl(mu, logvar)).sum()

    def _route(self) -> None:
        """Settle who passes through which experts from now on."""
        chunks = np.split(self.users, range(SCORING_ROWS, len(self.users), SCORING_ROWS))
        routes = torch.zeros(
            self.train.shape[0], self.net.bank.n_experts, device=self.device, dtype=self.dtype
        )
        for users in chunks:
            gates = self.model._gates(self.train[users], self.held_out[users])
            routes[torch.from_numpy(users)] = torch.from_numpy(gates).to(self.device)
        self.model.routes = routes

    def _noisy(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """A draw of the latents around their means."""
        noise = torch.randn(mu.shape, generator=self.random, device=self.device, dtype=self.dtype)
        drawn: Tensor = mu + self.config.noise * noise * torch.exp(logvar / 2)
        return drawn

    @torch.no_grad()
    def _weights(
        self, users: NDArray[np.int64], logits: Tensor, rows: SparseRows, held_out: SparseRows, epoch: int
    ) -> Tensor:
        """Training weights [B]: the model's own (1 unless it says otherwise), or adaptive ones."""
        codes = torch.from_numpy(users).to(self.device)
        if self.pace is None:
            weights: Tensor = self.user_weights[codes]
            return weights
        losses = kept_nll(logits, rows, held_out, self.net.seen_fill, torch.empty_like(logits))
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
        names = tuple(dict.fromkeys((*self.objective.names, "ndcg")))
        cuts = tuple(dict.fromkeys((*self.objective.cuts, 20)))
        out: dict[str, NDArray[np.float64]] = {}
        users = np.flatnonzero(np.diff(truth.indptr))
        for batch in np.split(users, range(SCORING_ROWS, len(users), SCORING_ROWS)):
            gates, scores = self._validation_scores(batch, given)
            mask(scores, given[batch])
            found = hits(top_n(scores, max(cuts)), truth[batch])
            values = per_user(found, np.diff(truth[batch].indptr), cuts, names)
            if self.net.bank.n_experts > 1:
                values["gate_entropy"] = entropy(torch.from_numpy(gates)).numpy()
            for name, value in values.items():
                out.setdefault(name, np.full(truth.shape[0], np.nan))[batch] = value
            self._keep_gates(batch, gates)
        unjudged = np.setdiff1d(self.users, users)
        if self.net.settings.gate_refresh == "epoch":
            for batch in np.split(unjudged, range(SCORING_ROWS, len(unjudged), SCORING_ROWS)):
                self._keep_gates(batch, self.model._gates(self.train[batch], self.held_out[batch]))
        return out

    def _keep_gates(self, users: NDArray[np.int64], gates: NDArray[Any]) -> None:
        """Remember these users' gates for the next epoch's training, if they are refreshed once an epoch."""
        if self.net.settings.gate_refresh != "epoch" or not self.net.settings.gate_reads_losses:
            return
        if self.gates is None:
            shape = (self.train.shape[0], gates.shape[1])
            self.gates = torch.zeros(shape, device=self.device, dtype=self.dtype)
        self.gates[torch.from_numpy(users)] = torch.from_numpy(gates).to(self.device)

    @torch.no_grad()
    def _validation_scores(
        self, users: NDArray[np.int64], given: csr_matrix
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Gates [B, K] of input train and gate rows, and scores [B, I] of the validation input under them."""
        if self.net.settings.active_experts is not None:
            return self._routed_validation_scores(users, given)
        seen, held_out = self._rows(self.train, users), self._rows(self.held_out, users)
        mu = self.net.bank.means(seen)
        if given.nnz == self.train.nnz:  # protocol `paper`: the same input, so the same logits serve both
            gate, scores = self.net.mixture(mu, seen, held_out)
        else:
            gate = self.net.gate(mu, seen, held_out)
            scores = self.net.scores(self._rows(given, users), gate)
        return gate.cpu().numpy(), scores.cpu().numpy()

    def _routed_validation_scores(
        self, users: NDArray[np.int64], given: csr_matrix
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """What will be served: the active experts alone, in the warm-up those that would be chosen now."""
        if self.model.routes is None:
            gates = self.model._gates(self.train[users], self.held_out[users])
        else:
            gates = self.model.routes[torch.from_numpy(users)].cpu().numpy()
        return gates, self.model._scores(given[users], gates)

    def snapshot(self) -> Any:
        """Copy of the parameters, over the copy before it; where memory is short it is a file."""
        state = self.net.state_dict()
        self.best_routes = self.model.routes
        if self.spill is not None:
            save_file({key: value.contiguous() for key, value in state.items()}, self.spill)
            return self.spill
        if self.best is None:
            self.best = copy.deepcopy(state)
        for key, value in state.items():
            self.best[key].copy_(value)
        return self.best

    def restore(self, snapshot: Any) -> None:
        """Put a copy back."""
        self.model.routes = self.best_routes
        self.net.load_state_dict(load_file(snapshot) if self.spill is not None else snapshot)


class MixtureModel(IterativeModel):
    """A model whose scores are a gated mixture of experts; subclasses only bring a config."""

    binary = True
    fixed: ClassVar[dict[str, Any]] = {}
    """Settings of the mixture that are the model itself, not its user's choice."""
    net: Mixture
    routes: Tensor | None = None
    """[U, K] gates of sparse routing, once training has settled them."""
    best_weights_spill: bool = False
    """Whether the best weights so far are kept on disk while training, for want of memory."""

    @property
    def n_experts(self) -> int:
        """K."""
        return self.settings.n_experts

    @property
    def settings(self) -> MixtureSettings:
        """What the config says about the mixture."""
        return MixtureSettings.of(self.config, **self.fixed)

    @property
    def uses_gate_rows(self) -> bool:
        """Whether gate or adaptive weights read held-out rows."""
        return self.settings.gate_reads_losses or self.settings.weighting != "none"

    @property
    def start_epoch(self) -> int:
        """Epoch from which patience is counted."""
        return self.settings.start_epoch if self.settings.weighting != "none" else 0

    def _user_weights(self, split: Split) -> NDArray[np.float64] | None:
        """Fixed training weights of users [U]; None = everybody alike."""
        return None

    def _store_gates(self) -> None:
        """As every model's; who was routed while training stays with her experts."""
        super()._store_gates()
        if self.routes is not None and self.gates is not None:
            routed = np.diff(self.split.train_rows(gated=self.uses_gate_rows).indptr) > 0
            self.gates[routed] = self.routes.cpu().numpy()[routed]

    def _check_memory(self, split: Split) -> bool:
        """Whether the best weights go to disk while training; ConfigError where memory is too short."""
        if self.device.type != "cpu":
            return False  # the device says itself when it is full
        self.net = None  # type: ignore[assignment]  # a second fit needs no room for the first one's weights
        size = 8 if self.dtype == torch.float64 else 4
        batch = min(self.config.batch_size, split.log.n_users)
        shape = (self.n_experts, self.config.latent, split.log.n_items, batch, size)
        return best_weights_spill(Footprint(*shape))

    def _build(self, n_items: int) -> None:
        random = torch.Generator().manual_seed(self.options.seed)
        self.net = Mixture(self.config, n_items, random, self.settings).to(self.device, self.dtype)

    def _trainer(self, split: Split, objective: Objective | None) -> MixtureTrainer:
        self.best_weights_spill = self._check_memory(split)
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

    def compile(self, *, rank: int | None = None, tolerance: float = 0.005, seed: int = 0) -> Index:
        """Two factor matrices in place of K experts, see `greysheep.serving.index.compile_index`.

        >>> import greysheep as gs
        >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
        >>> index = gs.TALL(n_experts=3, latent=8, epochs=2, progress=False).fit(log).compile(rank=10)
        >>> index.user_vectors.shape, index.item_vectors.shape
        ((60, 10), (40, 10))
        """
        from greysheep.serving.index import compile_index

        return compile_index(self, rank=rank, tolerance=tolerance, seed=seed)

    def _similarity(self, items: NDArray[np.int64]) -> NDArray[Any]:
        """Cosine of the items' decoder rows, stacked over experts."""
        vectors = torch.nn.functional.normalize(self.net.bank.decoder_weight.detach().flatten(0, 1), dim=0)
        return (vectors[:, torch.from_numpy(items)].T @ vectors).cpu().numpy()

    def _state(self) -> dict[str, Tensor]:
        return {key: value.detach().cpu() for key, value in self.net.state_dict().items()}

    def _restore(self, state: dict[str, Tensor], n_items: int) -> None:
        self._build(n_items)
        self.net.load_state_dict(state)
