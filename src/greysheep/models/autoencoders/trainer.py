"""One run of training of a gated mixture, epoch by epoch."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from torch import Tensor

from greysheep.data.splitting import Split
from greysheep.models.autoencoders.config import MultVAEConfig
from greysheep.models.training.checkpoints import State
from greysheep.models.training.loop import Tick
from greysheep.models.training.objective import Objective
from greysheep.models.training.validation import SCORING_ROWS, PerUser, Validation
from greysheep.nn import routing
from greysheep.nn.adaptive_weights import AdaptiveWeights
from greysheep.nn.gates import entropy
from greysheep.nn.likelihood import gaussian_kl, kept_nll, row_nll
from greysheep.nn.mixture import Mixture
from greysheep.nn.sparse_rows import SparseRows

LOSSES = ("loss", "ce", "kl")


class MixtureTrainer:
    """One run of training, epoch by epoch, for `training.loop.run`; the network is trained in place.

    objective: None = no validation. user_weights: [U] fixed weights, where they are not adaptive.
    spill: the best weights so far are kept in a file.
    """

    def __init__(
        self,
        net: Mixture,
        config: MultVAEConfig,
        split: Split,
        objective: Objective | None,
        *,
        user_weights: NDArray[np.float64],
        seed: int = 0,
        spill: bool = False,
    ):
        self.net, self.config = net, config
        some = next(net.parameters())
        self.device, self.dtype = some.device, some.dtype
        self.random = torch.Generator(self.device).manual_seed(seed)
        self.order = np.random.default_rng(seed)
        gated = net.settings.reads_held_out
        self.train = split.train_rows(gated=gated)
        self.held_out = split.gate_rows() if gated else csr_matrix(self.train.shape, dtype=np.float32)
        # all rows stay on the device: a batch takes its own there, without a copy from the host
        self.seen_rows = SparseRows.from_csr(self.train, self.device)
        self.held_out_rows = SparseRows.from_csr(self.held_out, self.device)
        self.validation = None if objective is None else Validation(split, objective)
        self.users = np.flatnonzero(np.diff(self.train.indptr))
        self.batch_size = config.users_a_step(len(self.users))
        self.steps_an_epoch = -(-len(self.users) // self.batch_size)
        rate, n_experts = config.learning_rate, net.bank.n_experts
        self.optimizer = config.adam(net.parameters(), rate, self.steps_an_epoch, n_experts)
        self.step = 0
        self.adaptive = self._adaptive()
        self.user_weights = torch.from_numpy(user_weights).to(self.device, self.dtype)
        self.best: dict[str, Tensor] | None = None
        self.spill: str | None = None
        if spill:
            self.folder = tempfile.TemporaryDirectory(prefix="greysheep-")  # goes when the trainer does
            self.spill = str(Path(self.folder.name) / "best.safetensors")
        self.gates: Tensor | None = None
        """[U, K] where gates are refreshed once per epoch: those of the last validation."""
        self.routes: Tensor | None = None
        """[U, K] gates of sparse routing, once the warm-up is over."""
        self.best_routes: Tensor | None = None

    def _adaptive(self) -> AdaptiveWeights | None:
        settings: Any = self.net.settings
        if not settings.adaptive:
            return None
        return AdaptiveWeights(
            self.held_out_rows.lengths,
            signal=settings.weighting,
            scale=settings.signal_scale,
            alpha=settings.alpha,
            window=settings.window,
            start_epoch=settings.start_epoch,
            authors=self.net.authors,
            dtype=self.dtype,
        )

    def train_epoch(self, epoch: int, tick: Tick) -> dict[str, Any]:
        """One shuffled pass over the users who have train rows."""
        if self.net.settings.active_experts is not None and epoch == self.net.settings.warm_up + 1:
            self._route()
        users = self.order.permutation(self.users)
        codes = torch.from_numpy(users).to(self.device)
        # summed up on the device: reading a loss would wait for every batch
        sums = torch.zeros(len(LOSSES), device=self.device, dtype=torch.float64)
        weight = self.user_weights if self.adaptive is None else self.adaptive.of_epoch(epoch)
        for start in range(0, len(users), self.batch_size):
            batch = codes[start : start + self.batch_size]
            sums += self._train_batch(batch, weight[batch]) * len(batch)
            tick(min(1.0, (start + len(batch)) / len(users)))
        losses = dict(zip(LOSSES, (sums / len(users)).tolist(), strict=True))
        if not all(bool(parameter.isfinite().all()) for parameter in self.net.parameters()):
            losses["loss"] = np.nan  # the last step broke the weights: no batch has seen it yet
        weights = np.full(self.train.shape[0], np.nan)
        weights[self.users] = weight.cpu().numpy()[self.users]
        return {**losses, "weight": weights}

    def _train_batch(self, users: Tensor, weight: Tensor) -> Tensor:
        """One step on users [B] of weights [B]: LOSSES [3] before it."""
        rows, held_out = self.seen_rows.take(users), self.held_out_rows.take(users)
        if self.routes is None:
            logits, kl = self._pass(users, rows, held_out)
        else:
            logits, kl = self._routed_pass(users, rows, self.routes)
        self._record(users, logits, rows, held_out)
        # a batch in which all weights are 0, as of WL's most mainstream user alone, has loss 0
        total = weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
        ce = (weight * row_nll(logits, rows)).sum() / total
        loss = ce + self.config.kl_weight(self.step, self.steps_an_epoch) * kl
        self.net.bank.recycle()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return torch.stack([loss, ce, kl]).detach()

    def _pass(self, users: Tensor, rows: SparseRows, held_out: SparseRows) -> tuple[Tensor, Tensor]:
        """Mixture logits [B, I] and the KL term, through all experts."""
        mu, logvar = self.net.bank.encode(rows, keep=self._dropout(rows))
        z = self._noisy(mu, logvar)
        if self.gates is None:
            gate, logits = self.net.mixture(z, rows, held_out)
        else:
            gate = self.gates[users]
            logits = self.net.bank.mix(z, gate)
        return logits, self.net.kl(gate, mu, logvar)

    def _routed_pass(self, users: Tensor, rows: SparseRows, gates: Tensor) -> tuple[Tensor, Tensor]:
        """The same through each user's active experts, with the gates of the end of the warm-up."""
        routes = routing.Routes.of(gates[users])
        mu, logvar = routing.encode(self.net.bank, rows, routes, keep=self._dropout(rows))
        logits = routing.mix(self.net.bank, self._noisy(mu, logvar), routes, len(users))
        kl = (routes.gate * gaussian_kl(mu, logvar)).sum()
        return logits, kl if self.net.sums_kl else kl / len(users)

    def _route(self) -> None:
        """Fix each user's experts from now on."""
        routes = self._no_gates()
        for users in np.split(self.users, range(SCORING_ROWS, len(self.users), SCORING_ROWS)):
            routes[users] = self._gates_of(users)
        self.routes = routes

    def _noisy(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """A draw of the latents around their means."""
        noise = torch.randn(mu.shape, generator=self.random, device=self.device, dtype=self.dtype)
        return mu + noise.mul(self.config.noise) * torch.exp(logvar / 2)

    @torch.no_grad()
    def _record(self, users: Tensor, logits: Tensor, rows: SparseRows, held_out: SparseRows) -> None:
        """Note the mixture's held-out losses for the adaptive weights of later epochs."""
        if self.adaptive is not None:
            losses = kept_nll(logits, rows, held_out, self.net.seen_fill, torch.empty_like(logits))
            self.adaptive.record(users, losses)

    def _dropout(self, rows: SparseRows) -> Tensor | None:
        if self.config.dropout == 0:
            return None
        kept = torch.full(rows.items.shape, 1 - self.config.dropout, device=self.device, dtype=self.dtype)
        return torch.bernoulli(kept, generator=self.random).div_(1 - self.config.dropout)

    def validate(self) -> PerUser:
        """Metrics of every user with validation rows, and the entropy of her gate if it had rows to read."""
        assert self.validation is not None
        table = self.validation.everybody(self._measure)
        if self.net.keeps_gates:
            unjudged = np.setdiff1d(self.users, self.validation.users)
            for batch in np.split(unjudged, range(SCORING_ROWS, len(unjudged), SCORING_ROWS)):
                self._keep_gates(batch, self._gates_of(batch))
        return table

    def _measure(self, users: NDArray[np.int64]) -> PerUser:
        """Metrics and gate entropy of some users with validation rows."""
        assert self.validation is not None
        gates, scores = self._validation_scores(users, self.validation.given)
        values = self.validation.metrics(users, scores)
        if self.net.bank.n_experts > 1:
            nothing_read = self.net.settings.reads_held_out & (np.diff(self.held_out[users].indptr) == 0)
            values["gate_entropy"] = np.where(nothing_read, np.nan, entropy(gates.cpu()).numpy())
        self._keep_gates(users, gates)
        return values

    def _gates_of(self, users: NDArray[np.int64]) -> Tensor:
        """Gates [B, K] of users by their train and held-out rows, as they are now."""
        codes = torch.from_numpy(users).to(self.device)
        return self.net.gates_of(self.seen_rows.take(codes), self.held_out_rows.take(codes))

    def _no_gates(self) -> Tensor:
        """[U, K] zeros."""
        shape = (self.train.shape[0], self.net.bank.n_experts)
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def _keep_gates(self, users: NDArray[np.int64], gates: Tensor) -> None:
        """Keep these users' gates for the next epoch's training, if they are refreshed once per epoch."""
        if not self.net.keeps_gates:
            return
        if self.gates is None:
            self.gates = self._no_gates()
        self.gates[users] = gates

    @torch.no_grad()
    def _validation_scores(self, users: NDArray[np.int64], given: csr_matrix) -> tuple[Tensor, Tensor]:
        """Gates [B, K] of input train and gate rows, and scores [B, I] of the validation input under them."""
        if self.net.settings.active_experts is not None:
            # in the warm-up the gates that would be fixed now, afterwards those that were
            gate = self._gates_of(users) if self.routes is None else self.routes[users]
            return gate, self.net.scores(SparseRows.from_csr(given[users], self.device), gate)
        codes = torch.from_numpy(users).to(self.device)
        seen, held_out = self.seen_rows.take(codes), self.held_out_rows.take(codes)
        mu = self.net.bank.means(seen)
        if given.nnz == self.train.nnz:  # protocol `paper`: the same input, so the same logits serve both
            gate, scores = self.net.mixture(mu, seen, held_out)
        else:
            gate = self.net.gate(mu, seen, held_out)
            scores = self.net.scores(SparseRows.from_csr(given[users], self.device), gate)
        return gate, scores

    def snapshot(self) -> Any:
        """Copy of the parameters, over the copy before it; where memory is short it is a file."""
        state = self.net.state_dict()
        self.best_routes = self.routes
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
        self.routes = self.best_routes
        self.net.load_state_dict(load_file(snapshot) if self.spill is not None else snapshot)

    def state(self) -> State:
        """All that the epochs to come depend on."""
        state = State(facts={"step": self.step, "best_is_routed": self.best_routes is not None})
        state.put("net", self.net.state_dict())
        state.put_optimizer("optimizer", self.optimizer)
        state.put_random(self.order, self.random)
        # a file is mapped into memory, not read, until its tensors are written elsewhere
        best = load_file(self.spill) if self.spill is not None and Path(self.spill).exists() else self.best
        state.put("best", best or {})
        state.put("gates", {"all": self.gates} if self.gates is not None else {})
        state.put("routes", {"all": self.routes} if self.routes is not None else {})
        if self.adaptive is not None:
            state.put("adaptive", self.adaptive.state())
        return state

    def load_state(self, state: State) -> Any:
        """Go to a state; returns the copy of the best weights, None if there is none."""
        self.step = state.facts["step"]
        self.net.load_state_dict(state.part("net"))
        state.load_optimizer("optimizer", self.optimizer)
        state.load_random(self.order, self.random)
        gates, routes = (
            {key: value.clone().to(self.device) for key, value in state.part(name).items()}.get("all")
            for name in ("gates", "routes")
        )
        self.gates, self.routes = gates, routes
        self.best_routes = routes if state.facts["best_is_routed"] else None
        if self.adaptive is not None:
            self.adaptive.load_state(state.part("adaptive"))
        best = state.part("best")
        if not best:
            return None
        if self.spill is not None:
            save_file(best, self.spill)
            return self.spill
        self.best = {key: value.clone().to(self.device) for key, value in best.items()}
        return self.best
