"""Gates: the weight of each expert for each user. Every row of a gate sums to 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from greysheep.nn.sparse_rows import SparseRows


def loss_gate(losses: Tensor, n_held_out: Tensor) -> Tensor:
    """The published gate, softmax over experts of 1 / L_k: losses [B, K], n_held_out [B] -> [B, K].

    Users without held-out items get the uniform gate. With L summed over many held-out items
    this gate is nearly uniform for all users (docs/method.md, "Gate").
    """
    known = (n_held_out > 0).unsqueeze(1)
    safe = torch.where(known, losses, torch.ones_like(losses)).clamp(min=1e-12)  # 0 = certain, not NaN
    return torch.softmax(torch.where(known, 1 / safe, torch.zeros_like(safe)), dim=1)


def temperature_gate(losses: Tensor, n_held_out: Tensor, temperature: float, shrinkage: float) -> Tensor:
    """G = a softmax(-Lbar / temperature) + (1 - a) / K, Lbar = L / n, a = n / (n + shrinkage): [B, K]."""
    n = n_held_out.to(losses.dtype).unsqueeze(1)
    sharp = torch.softmax(-losses / n.clamp(min=1) / temperature, dim=1)
    # 0 / 0 with shrinkage 0 and no held-out rows: nothing is known, so nothing is trusted
    trust = torch.where(n > 0, n / (n + shrinkage).clamp(min=1e-30), torch.zeros_like(n))
    return trust * sharp + (1 - trust) / losses.shape[1]


def entropy(gate: Tensor) -> Tensor:
    """Natural-log entropy of each row of a gate: [B, K] -> [B]. log K means a flat gate."""
    terms: Tensor = torch.special.entr(gate)
    return terms.sum(1)


class MLPGate(nn.Module):
    """A learned gate: x_u / ||x_u|| -> tanh layer -> softmax over K experts (the paper's "MoE").

    The first layer reads sparse rows, so its weight lies as [I, H].
    """

    def __init__(self, n_items: int, n_experts: int, hidden: int, generator: torch.Generator | None = None):
        super().__init__()
        self.hidden_weight = nn.Parameter(torch.empty(n_items, hidden))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.output_weight = nn.Parameter(torch.empty(hidden, n_experts))
        self.output_bias = nn.Parameter(torch.zeros(n_experts))
        with torch.no_grad():
            for weight in (self.hidden_weight, self.output_weight):
                bound = 1 / math.sqrt(weight.shape[0])
                weight.uniform_(-bound, bound, generator=generator)

    def forward(self, rows: SparseRows) -> Tensor:
        """Gate of B rows: [B, K]."""
        h = rows.gather_sum(self.hidden_weight, rows.unit_values(self.hidden_weight.dtype))
        h = torch.tanh(h + self.hidden_bias)
        return torch.softmax(h @ self.output_weight + self.output_bias, dim=1)
