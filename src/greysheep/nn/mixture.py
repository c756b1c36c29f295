"""The network that MultVAE, MoE, LMoE and TALL share: a bank of experts and a gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from greysheep.nn import routing
from greysheep.nn.bank import ExpertBank
from greysheep.nn.gates import MLPGate, loss_gate, temperature_gate
from greysheep.nn.likelihood import gaussian_kl
from greysheep.nn.sparse_rows import SparseRows


@dataclass(frozen=True)
class MixtureSettings:
    """What there is to say about a mixture; the defaults are those of one expert and equal weights."""

    latent: int
    variant: str = "default"
    kl_reduction: str = "mean"
    n_experts: int = 1
    gate: str = "uniform"
    temperature: float = 1.0
    shrinkage: float = 5.0
    gate_gradient: bool = False
    gate_refresh: str | None = None
    active_experts: int | None = None
    warm_up: int = 0
    weighting: str = "none"
    power: float = 1.2
    signal_scale: str = "sum"
    alpha: float = 1.0
    window: int = 8
    start_epoch: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any], **fixed: Any) -> MixtureSettings:
        """Pick them out of a model's settings; `fixed` are those that the model does not leave open."""
        own = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        if "gate" in own and own["gate"] is None:
            own["gate"] = "uniform" if own["weighting"] == "mainstream" else "loss"
        return cls(**{**own, **fixed})

    @property
    def gate_reads_losses(self) -> bool:
        """Whether the gate is made of the experts' held-out losses."""
        return self.gate in ("loss", "temperature") and self.n_experts > 1

    @property
    def adaptive(self) -> bool:
        """Whether users' weights follow their held-out losses."""
        return self.weighting in ("loss", "loss-change")

    @property
    def reads_held_out(self) -> bool:
        """Whether gate or adaptive weights read held-out rows."""
        return self.gate_reads_losses or self.adaptive


class Mixture(nn.Module):
    """The network: a bank of experts and a gate. MultVAE is the case of one expert."""

    def __init__(self, settings: MixtureSettings, n_items: int, generator: torch.Generator | None = None):
        super().__init__()
        self.settings = settings
        self.authors = settings.variant == "authors"
        self.sums_kl = settings.kl_reduction == "sum"
        n_experts, latent = settings.n_experts, settings.latent
        self.bank = ExpertBank(n_experts, n_items, latent, generator)
        self.mlp = MLPGate(n_items, n_experts, latent, generator) if settings.gate == "mlp" else None

    @property
    def seen_fill(self) -> float:
        """Logit of seen items in the gate's losses (docs/method.md, row 1)."""
        return 0.0 if self.authors else -torch.inf

    @property
    def gradient_through_gate(self) -> bool:
        """Whether the loss passes through the gate (docs/method.md, row 2)."""
        return self.authors or self.settings.gate_gradient

    @property
    def keeps_gates(self) -> bool:
        """Whether training takes a user's gate from the last validation, not anew with every batch.

        A gate that the loss passes through cannot be kept; and sparse routing keeps gates of its own.
        """
        can = self.settings.gate_reads_losses and not self.gradient_through_gate
        asked = self.settings.gate_refresh or ("batch" if self.settings.active_experts else "epoch")
        return can and asked == "epoch"

    def gate(self, z: Tensor, seen: SparseRows, held_out: SparseRows) -> Tensor:
        """Gate [B, K] of users with latents z [K, B, D], train rows `seen` and gate rows `held_out`."""
        if self.mlp is not None:
            gate: Tensor = self.mlp(seen)
            return gate
        if not self.settings.gate_reads_losses:
            return z.new_full((seen.n_rows, self.bank.n_experts), 1 / self.bank.n_experts)
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
        if self.authors:
            each = each.mean(0)
        total = (gate * each).sum()
        return total if self.sums_kl else total / len(gate)

    @torch.no_grad()
    def gates_of(self, seen: SparseRows, held_out: SparseRows) -> Tensor:
        """Gates [B, K] at inference."""
        gate = self.gate(self.bank.means(seen), seen, held_out)
        m = self.settings.active_experts
        return gate if m is None else routing.strongest(gate, m, seen)

    @torch.no_grad()
    def scores(self, rows: SparseRows, gate: Tensor) -> Tensor:
        """Mixture logits [B, I] of users whose input is `rows`, at inference."""
        if self.settings.active_experts is not None:
            routes = routing.Routes.of(gate)
            mu, _ = routing.encode(self.bank, rows, routes)
            return routing.mix(self.bank, mu, routes, rows.n_rows)
        return self.bank.mix(self.bank.means(rows), gate)
