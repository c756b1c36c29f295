"""Adaptive weights: how much each user's loss counts in an epoch of training (Pan et al. 2024)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Signal = Literal["loss", "loss-change"]
SignalScale = Literal["sum", "mean", "standardised"]


def adaptive_weights(signal: Tensor, alpha: float) -> Tensor:
    """Argmax over w of sum w S - alpha ||w||^2 with w >= 0 and mean(w) = 1: signal [n] -> w [n].

    The solution is w_u = max((S_u - lambda) / (2 alpha), 0) with the one lambda that makes the mean 1;
    it is found by sorting, since the m users with w > 0 are those of largest signal.
    """
    signal = signal - signal.max()  # changes no weight, and float32 keeps its digits for the differences
    ordered = signal.sort(descending=True).values
    j = torch.arange(1, len(signal) + 1, dtype=signal.dtype, device=signal.device)
    lambdas = (ordered.cumsum(0) - 2 * alpha * len(signal)) / j
    m = int((ordered > lambdas).sum())  # the condition holds for a prefix
    return (signal - lambdas[m - 1]).div(2 * alpha).clamp(min=0)


def authors_weights(signal: Tensor, alpha: float) -> Tensor:
    """The authors' program: lambda = mean(S) - 2 alpha, weights floored at 1e-8 (docs/method.md, row 3)."""
    return ((signal - signal.mean() + 2 * alpha) / (2 * alpha)).clamp(min=1e-8)


class AdaptiveWeights:
    """Remembers each user's held-out loss of every epoch and turns it into the weights of the next one.

    The weights of epoch t are made once, before it begins, over all users, of the losses of the epochs
    before it, and stay fixed while it runs.

    n_held_out: [U] held-out rows of each user; who has none always weighs 1, outside the projection.
    signal "loss": S_u = L_u(t-1). "loss-change": S_u = mean of the last `window` of the changes
    L_u(s-1) - L_u(s) of the epochs s = 2 to t-1.
    scale "sum": L_u as it is, summed over the user's held-out rows; "mean": divided by their number;
    "standardised": what the sum exceeds the average of as many rows by, divided by the root of their number,
    so that all users' are about equally noisy; then mean 0 and standard deviation 1 over users: alpha counts
    standard deviations, whatever the log and however many held-out rows a user has in it.
    """

    def __init__(
        self,
        n_held_out: Tensor,
        *,
        signal: Signal,
        scale: SignalScale,
        alpha: float,
        window: int,
        start_epoch: int,
        authors: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        self.n_held_out, self.signal, self.scale, self.alpha = n_held_out, signal, scale, alpha
        self.start_epoch, self.project = start_epoch, authors_weights if authors else adaptive_weights
        unknown = torch.full((len(n_held_out),), torch.nan, device=n_held_out.device, dtype=dtype)
        self.before, self.latest = unknown, unknown.clone()
        self.changes = unknown.new_zeros(len(n_held_out), window)  # a slot not yet written adds nothing
        self.n_changes = 0

    def record(self, users: Tensor, losses: Tensor) -> None:
        """Note the mixture's loss [B], summed over held-out rows, of users [B] of the epoch that runs."""
        self.latest[users] = losses

    def of_epoch(self, epoch: int) -> Tensor:
        """Weights [U] of this epoch (counted from 1); everything recorded so far is of the epochs before.

        1 for all users up to and including epoch `start_epoch`, and as long as there is no signal.
        """
        if epoch > 2:
            self.changes[:, self.n_changes % self.changes.shape[1]] = self.before - self.latest
            self.n_changes += 1
        self.before = self.latest.clone()
        weights = torch.ones_like(self.before)
        signal = self._signal()
        judged = ~signal.isnan() & (self.n_held_out > 0)
        if epoch > self.start_epoch and bool(judged.any()):
            weights[judged] = self.project(self._scaled(signal, judged), self.alpha)
        return weights

    def state(self) -> dict[str, Tensor]:
        """What was recorded so far, not copied."""
        n_changes = torch.tensor(self.n_changes)
        return {"before": self.before, "latest": self.latest, "changes": self.changes, "n_changes": n_changes}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take a record back."""
        for name in ("before", "latest", "changes"):
            setattr(self, name, state[name].clone().to(self.n_held_out.device))
        self.n_changes = int(state["n_changes"])

    def _signal(self) -> Tensor:
        """S [U] in units of summed loss, NaN = none yet."""
        if self.signal == "loss":
            return self.before
        if not self.n_changes:
            return torch.full_like(self.before, torch.nan)
        return self.changes.sum(1) / min(self.n_changes, self.changes.shape[1])

    def _scaled(self, signal: Tensor, judged: Tensor) -> Tensor:
        signal, n = signal[judged], self.n_held_out[judged].to(signal.dtype)
        if self.scale == "sum":
            return signal
        if self.scale == "mean":
            return signal / n
        excess = (signal - n * signal.sum() / n.sum()) / n.sqrt()
        return (excess - excess.mean()).div(excess.std(correction=0).clamp(min=1e-12))
