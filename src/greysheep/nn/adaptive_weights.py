"""Adaptive weights: how much each user's loss counts at this moment of training (Pan et al. 2024)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Signal = Literal["loss", "loss-change"]
SignalScale = Literal["sum", "mean", "standardised"]


def adaptive_weights(signal: Tensor, alpha: float) -> Tensor:
    """Argmax over w of sum w S - alpha ||w||^2 with w >= 0 and mean(w) = 1: signal [B] -> w [B].

    The solution is w_u = max((S_u - lambda) / (2 alpha), 0) with the one lambda that makes the mean 1;
    it is found by sorting, since the m users with w > 0 are those of largest signal.
    """
    signal = signal - signal.max()  # changes no weight, and float32 keeps its digits for the differences
    ordered = signal.sort(descending=True).values
    j = torch.arange(1, len(signal) + 1, dtype=signal.dtype, device=signal.device)
    lambdas = (ordered.cumsum(0) - 2 * alpha * len(signal)) / j
    m = int((ordered > lambdas).sum())  # the condition holds for a prefix
    weights: Tensor = ((signal - lambdas[m - 1]) / (2 * alpha)).clamp(min=0)
    return weights


def authors_weights(signal: Tensor, alpha: float) -> Tensor:
    """The authors' program: lambda = mean(S) - 2 alpha, weights floored at 1e-8 (docs/method.md, row 3)."""
    return ((signal - signal.mean() + 2 * alpha) / (2 * alpha)).clamp(min=1e-8)


class Pace:
    """Remembers each user's held-out loss from epoch to epoch and turns it into weights.

    signal "loss": S_u = L_u(t). signal "loss-change": S_u = mean of the last `window` changes
    L_u(t-1) - L_u(t), the one just recorded included.
    scale "sum": L_u as it is, summed over the user's held-out items; "mean": divided by their number;
    "standardised": S_u less the batch's mean, divided by its standard deviation.
    """

    def __init__(
        self,
        n_users: int,
        *,
        signal: Signal,
        scale: SignalScale,
        alpha: float,
        window: int,
        start_epoch: int,
        authors: bool = False,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.signal, self.scale, self.alpha = signal, scale, alpha
        self.start_epoch, self.project = start_epoch, authors_weights if authors else adaptive_weights
        self.previous = torch.full((n_users,), torch.nan, device=device, dtype=dtype)
        self.changes = torch.zeros(n_users, window, device=device, dtype=dtype)
        self.n_changes = torch.zeros(n_users, dtype=torch.int64, device=device)

    def weights(self, users: Tensor, losses: Tensor, n_held_out: Tensor, epoch: int) -> Tensor:
        """Record this pass's losses and return the users' weights: [B] each; epochs count from 1.

        Users without held-out items, or without a change yet, weigh 1 outside the projection;
        so does everybody up to and including epoch `start_epoch`.
        """
        if self.scale == "mean":
            losses = losses / n_held_out.clamp(min=1)
        change = self.previous[users] - losses
        recorded = ~change.isnan() & (n_held_out > 0)
        self.previous[users] = losses
        if self.signal == "loss":
            signal, judged = losses, n_held_out > 0
        else:
            self._record(users[recorded], change[recorded])
            n = self.n_changes[users].clamp(max=self.changes.shape[1])
            signal, judged = self.changes[users].sum(1) / n.clamp(min=1), recorded
        weights = torch.ones_like(losses)
        if epoch > self.start_epoch and bool(judged.any()):
            weights[judged] = self.project(self._scaled(signal[judged]), self.alpha)
        return weights

    def _record(self, users: Tensor, change: Tensor) -> None:
        """Write into the ring buffer; slots not yet written hold 0, so a plain sum is right."""
        self.changes[users, self.n_changes[users] % self.changes.shape[1]] = change
        self.n_changes[users] += 1

    def _scaled(self, signal: Tensor) -> Tensor:
        if self.scale != "standardised" or len(signal) < 2:
            return signal
        return (signal - signal.mean()) / signal.std(correction=0).clamp(min=1e-12)
