"""The method written slowly and plainly: one user, one expert, one item at a time.

Nothing here is fast and nothing is shared with the library: the fast code in `greysheep.nn` and the
closed-form models are held to these functions. Symbols as everywhere: U users, I items, B users in a batch,
K experts, D latent size. A train row x_u and a held-out row v_u are dense 0/1 vectors over the items and
share none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Forward:
    """Everything one pass over a batch computes."""

    expert_logits: Tensor  # [K, B, I]
    kl: Tensor  # [K, B]
    losses: Tensor  # [K, B] held-out loss L_k(u); 0 for a user without held-out rows
    gate: Tensor  # [B, K]
    logits: Tensor  # [B, I] the mixture


# ---- losses of one user


def log_softmax_at(logits: Tensor, item: int, members: Sequence[int]) -> Tensor:
    """log( exp(s_item) / sum over members of exp(s_j) ), shifted by the largest so that nothing overflows."""
    top = max(float(logits[j].detach()) for j in members)
    total = torch.zeros((), dtype=logits.dtype)
    for j in members:
        total = total + torch.exp(logits[j] - top)
    return logits[item] - top - torch.log(total)


def held_out_loss(logits: Tensor, x: Tensor, v: Tensor, variant: str = "default") -> Tensor:
    """Loss of one user's logits [I] summed over her held-out items; a scalar.

    default: the denominator runs over the unseen items: all but her train items, her held-out items included.
    authors: each seen item adds exp(0) = 1 to the denominator, and exponentials are not shifted.
    """
    held_out = [i for i in range(len(v)) if v[i] > 0]
    seen = [i for i in range(len(x)) if x[i] > 0]
    unseen = [i for i in range(len(x)) if not x[i] > 0]
    assert not set(held_out) & set(seen), "a held-out item must not be a train item"
    loss = torch.zeros((), dtype=logits.dtype)
    for i in held_out:
        if variant == "authors":
            total = torch.zeros((), dtype=logits.dtype)
            for j in unseen:
                total = total + torch.exp(logits[j])
            for _ in seen:
                total = total + 1.0
            loss = loss - torch.log(torch.exp(logits[i]) / total)
        else:
            loss = loss - log_softmax_at(logits, i, unseen)
    return loss


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Minus the sum over her train items of log softmax over all items; a scalar."""
    everything = list(range(len(x)))
    loss = torch.zeros((), dtype=logits.dtype)
    for i in everything:
        if x[i] > 0:
            loss = loss - log_softmax_at(logits, i, everything)
    return loss


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Half of the sum over the latent axes of exp(logvar) + mu^2 - 1 - logvar; a scalar."""
    total = torch.zeros((), dtype=mu.dtype)
    for d in range(len(mu)):
        total = total + 0.5 * (torch.exp(logvar[d]) + mu[d] ** 2 - 1.0 - logvar[d])
    return total


def softmax(values: Sequence[Tensor]) -> Tensor:
    """Softmax of a few scalars."""
    top = max(float(value.detach()) for value in values)
    powers = [torch.exp(value - top) for value in values]
    total = powers[0]
    for power in powers[1:]:
        total = total + power
    return torch.stack([power / total for power in powers])


def gate_of(
    losses: Sequence[Tensor],
    n_held_out: int,
    gate: str = "loss",
    temperature: float = 1.0,
    shrinkage: float = 5.0,
) -> Tensor:
    """Gate [K] of one user from her K held-out losses. Without held-out rows: uniform, whatever the gate."""
    n_experts = len(losses)
    uniform = torch.full((n_experts,), 1.0 / n_experts, dtype=losses[0].dtype)
    if gate == "uniform" or n_held_out == 0:
        return uniform
    if gate == "loss":
        best = [loss for loss in losses if float(loss.detach()) == 0.0]
        if best:  # the limit: experts without any loss share the gate (a single unseen item leaves none)
            shares = [1.0 / len(best) if float(loss.detach()) == 0.0 else 0.0 for loss in losses]
            return torch.tensor(shares, dtype=losses[0].dtype)
        return softmax([1.0 / loss for loss in losses])
    if gate == "temperature":
        share = n_held_out / (n_held_out + shrinkage)
        peaked = softmax([-(loss / n_held_out) / temperature for loss in losses])
        return share * peaked + (1.0 - share) * uniform
    raise ValueError(gate)


# ---- K experts, a batch


class Experts:
    """K separate experts: an encoder `nn.Linear(I, 2D)` and a decoder `nn.Linear(D, I)` each."""

    def __init__(
        self, n_items: int, n_experts: int, latent: int, *, dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.n_items, self.n_experts, self.latent, self.dtype = n_items, n_experts, latent, dtype
        self.encoders = [nn.Linear(n_items, 2 * latent, dtype=dtype) for _ in range(n_experts)]
        self.decoders = [nn.Linear(latent, n_items, dtype=dtype) for _ in range(n_experts)]
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)

    def parameters(self) -> list[nn.Parameter]:
        """All parameters, expert after expert."""
        return [p for layer in [*self.encoders, *self.decoders] for p in layer.parameters()]

    def stacked(self) -> dict[str, Tensor]:
        """Encoder_weight [K, I, 2D], encoder_bias [K, 2D], decoder_weight [K, D, I], decoder_bias [K, I]."""
        return {
            "encoder_weight": torch.stack([e.weight.detach().T for e in self.encoders]),
            "encoder_bias": torch.stack([e.bias.detach() for e in self.encoders]),
            "decoder_weight": torch.stack([d.weight.detach().T for d in self.decoders]),
            "decoder_bias": torch.stack([d.bias.detach() for d in self.decoders]),
        }

    def gradients(self) -> dict[str, Tensor]:
        """Gradients in the shapes of `stacked`; a parameter that the loss did not touch has zeros."""

        def of(parameter: Tensor) -> Tensor:
            return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach().clone()

        return {
            "encoder_weight": torch.stack([of(e.weight).T for e in self.encoders]),
            "encoder_bias": torch.stack([of(e.bias) for e in self.encoders]),
            "decoder_weight": torch.stack([of(d.weight).T for d in self.decoders]),
            "decoder_bias": torch.stack([of(d.bias) for d in self.decoders]),
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def expert(
        self, k: int, x: Tensor, eps: Tensor | None, noise: float, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [I] and KL (a scalar) of expert k for one train row x [I]; eps [D] or None (inference).

        keep: [I] factors of the entries of the unit row (dropout), or None.
        """
        norm = math.sqrt(sum(float(value) ** 2 for value in x))
        unit = x / norm if norm > 0 else x
        h = self.encoders[k](unit if keep is None else unit * keep)
        mu, logvar = h[: self.latent], h[self.latent :]
        z = mu if eps is None else mu + noise * eps * torch.exp(logvar / 2.0)
        return self.decoders[k](z), kl_divergence(mu, logvar)

    def forward(
        self,
        x: Tensor,
        v: Tensor,
        eps: Tensor | None = None,
        *,
        variant: str = "default",
        gate: str = "loss",
        temperature: float = 1.0,
        shrinkage: float = 5.0,
        gate_gradient: bool = False,
        noise: float = 0.01,
        keep: Tensor | None = None,
    ) -> Forward:
        """One pass over train rows x [B, I], held-out rows v [B, I]; eps [K, B, D] or None for inference.

        keep: [B, I] factors of the input entries (dropout), or None.
        """
        logits_of: list[list[Tensor]] = []
        kl_of: list[list[Tensor]] = []
        for k in range(self.n_experts):
            pairs = [
                self.expert(
                    k, x[u], None if eps is None else eps[k, u], noise, None if keep is None else keep[u]
                )
                for u in range(len(x))
            ]
            logits_of.append([pair[0] for pair in pairs])
            kl_of.append([pair[1] for pair in pairs])
        losses_of = [
            [held_out_loss(logits_of[k][u], x[u], v[u], variant) for u in range(len(x))]
            for k in range(self.n_experts)
        ]
        gates, mixtures = [], []
        for u in range(len(x)):
            losses = [losses_of[k][u] for k in range(self.n_experts)]
            g = gate_of(losses, int((v[u] > 0).sum()), gate, temperature, shrinkage)
            if not (gate_gradient or variant == "authors"):
                g = g.detach()
            mixture = torch.zeros(self.n_items, dtype=self.dtype)
            for k in range(self.n_experts):
                mixture = mixture + g[k] * logits_of[k][u]
            gates.append(g)
            mixtures.append(mixture)
        return Forward(
            expert_logits=torch.stack([torch.stack(row) for row in logits_of]),
            kl=torch.stack([torch.stack(row) for row in kl_of]),
            losses=torch.stack([torch.stack(row) for row in losses_of]),
            gate=torch.stack(gates),
            logits=torch.stack(mixtures),
        )


def batch_loss(
    out: Forward,
    x: Tensor,
    weights: Sequence[float],
    beta: float,
    variant: str = "default",
    kl_reduction: str = "sum",
) -> Tensor:
    """Weighted mean of the mixture's cross entropies plus beta times the gated KL of the batch.

    default: sum_u w_u CE_u / sum_u w_u + beta sum_u sum_k G_k(u) KL_k(u), and with kl_reduction "mean" the
    second sum over u is a mean
    authors: sum_u w_u CE_u / sum_u w_u + beta sum_u sum_k G_k(u) mean_v KL_k(v)
    """
    n_experts, n_users = out.kl.shape
    total = torch.zeros((), dtype=x.dtype)
    for u in range(n_users):
        total = total + weights[u] * cross_entropy(out.logits[u], x[u])
    loss = total / sum(weights)
    for u in range(n_users):
        for k in range(n_experts):
            kl = out.kl[k, u]
            if variant == "authors":
                kl = torch.zeros((), dtype=x.dtype)
                for other in range(n_users):
                    kl = kl + out.kl[k, other] / n_users
            loss = loss + beta * out.gate[u, k] * kl / (n_users if kl_reduction == "mean" else 1)
    return loss


# ---- adaptive weights


def mixture_losses(out: Forward, x: Tensor, v: Tensor, variant: str = "default") -> list[float]:
    """Held-out loss L_u of the mixture's logits for each user, summed over her held-out items."""
    return [float(held_out_loss(out.logits[u], x[u], v[u], variant).detach()) for u in range(len(x))]


def exact_lambda(signals: Sequence[float], alpha: float) -> float:
    """The threshold that gives the weights max((S_u - lambda) / (2 alpha), 0) the mean 1."""
    ordered = sorted(signals, reverse=True)
    n = len(ordered)
    m = 1
    for j in range(1, n + 1):
        if ordered[j - 1] > (math.fsum(ordered[:j]) - 2.0 * alpha * n) / j:
            m = j
    return (math.fsum(ordered[:m]) - 2.0 * alpha * n) / m


def adaptive_weights(signals: Sequence[float], alpha: float, variant: str = "default") -> list[float]:
    """Weights of a batch from its users' signals S_u; all of them are in the projection."""
    if not signals:
        return []
    if variant == "authors":
        threshold, floor = math.fsum(signals) / len(signals) - 2.0 * alpha, 1e-8
    else:
        threshold, floor = exact_lambda(signals, alpha), 0.0
    return [max((s - threshold) / (2.0 * alpha), floor) for s in signals]


def standardised(signals: Sequence[float]) -> list[float]:
    """Signals less their mean, over their population standard deviation; all 0 where they are all equal.

    The exact weights do not change when all signals shift, so only the division matters: alpha then counts
    standard deviations and no longer depends on the data.
    """
    mean = math.fsum(signals) / len(signals)
    deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in signals) / len(signals))
    return [(s - mean) / deviation if deviation > 0 else 0.0 for s in signals]


def weights_of_epoch(
    epoch: int,
    losses: Sequence[Sequence[float]],
    n_held_out: Sequence[int],
    *,
    weighting: str = "loss-change",  # none | loss | loss-change
    alpha: float = 0.08,
    window: int = 8,
    signal_scale: str = "sum",  # sum | mean | standardised
    start_epoch: int = 0,
    variant: str = "default",
) -> list[float]:
    """Everybody's weight in an epoch (counted from 1), from the losses of the epochs before it.

    losses[e - 1][u] is L_u(e), the mixture's loss summed over u's held-out rows when training passed over her
    in epoch e; None if it never does. Losses of `epoch` and later are not read. Users without a signal (no
    held-out row, no loss, no change yet) have weight 1 and do not count in the projection.
    """
    weights = [1.0] * len(n_held_out)
    if epoch <= start_epoch or weighting == "none":
        return weights
    signals: dict[int, float] = {}
    for user, n in enumerate(n_held_out):
        own = [losses[e - 1][user] for e in range(1, epoch)]
        if n == 0 or not own or own[0] is None:
            continue
        # changes[0] is that of epoch 2, the last one that of epoch `epoch` - 1
        changes = [before - after for before, after in pairwise(own)]
        if weighting == "loss":
            signals[user] = own[-1]
        elif changes:
            recent = changes[-window:]
            signals[user] = math.fsum(recent) / len(recent)
    if not signals:
        return weights
    if signal_scale == "mean":
        signals = {user: s / n_held_out[user] for user, s in signals.items()}
    if signal_scale == "standardised":
        # what a sum of n rows has above n average ones; it is about sqrt(n) as noisy as one row
        average = math.fsum(signals.values()) / sum(n_held_out[user] for user in signals)
        values = standardised(
            [(s - n_held_out[user] * average) / math.sqrt(n_held_out[user]) for user, s in signals.items()]
        )
        signals = dict(zip(signals, values, strict=True))
    found = adaptive_weights(list(signals.values()), alpha, variant)
    for user, weight in zip(signals, found, strict=True):
        weights[user] = weight
    return weights


def mainstream_weights(scores: Sequence[float], power: float) -> list[float]:
    """WL's weights of everybody: ((max - S_u) / (max - min))^power over their mean; 1 where all are equal."""
    low, high = min(scores), max(scores)
    if low == high:
        return [1.0] * len(scores)
    raw = [((high - s) / (high - low)) ** power for s in scores]
    return [r * len(raw) / math.fsum(raw) for r in raw]


# ---- KL weight


def authors_kl_weight(step: int, cap: float = 0.2, anneal_steps: int = 200_000) -> float:
    """After so many steps (0 before the first one): the ramp rises by 1 / anneal_steps a step up to a cap."""
    weight = step * (1.0 / anneal_steps)
    return cap if weight > cap else weight


def kl_weight(step: int, steps_an_epoch: int, cap: float, anneal_epochs: float) -> float:
    """The same by epochs: 1 / anneal_epochs an epoch, whatever the number of steps in it."""
    weight = (step / steps_an_epoch) * (1.0 / anneal_epochs)
    return cap if weight > cap else weight


# ---- closed baselines


def ease_weights(x: FloatArray, regularisation: float) -> FloatArray:
    """EASE's weights [I, I] from rows x [U, I]: P = (X'X + lambda)^-1, B_ij = -P_ij / P_jj, B_jj = 0."""
    x = np.asarray(x, dtype=np.float64)
    precision = np.linalg.inv(x.T @ x + regularisation * np.eye(x.shape[1]))
    weights = np.zeros_like(precision)
    for i in range(len(weights)):
        for j in range(len(weights)):
            if i != j:
                weights[i, j] = -precision[i, j] / precision[j, j]
    return weights


def ease_scores(x: FloatArray, regularisation: float) -> FloatArray:
    """Scores [U, I] of EASE trained on and fed with x [U, I]."""
    return np.asarray(x, dtype=np.float64) @ ease_weights(x, regularisation)


def relaxed_ease_weights(x: FloatArray, regularisation: float, relax: float) -> FloatArray:
    """argmin over b of |x_j - X b|^2 + lambda |b|^2 with b_j <= relax, for each item j by itself: [I, I].

    Where ridge regression breaks the bound, b_j = relax, and the others explain what is left of the column.
    """
    x = np.asarray(x, dtype=np.float64)
    gram, n_items = x.T @ x, x.shape[1]
    weights = np.zeros((n_items, n_items))
    for j in range(n_items):
        free = np.linalg.solve(gram + regularisation * np.eye(n_items), gram[:, j])
        if free[j] > relax:
            others = np.array([i for i in range(n_items) if i != j], dtype=int)
            left = gram[np.ix_(others, others)] + regularisation * np.eye(n_items - 1)
            free[j] = relax
            free[others] = np.linalg.solve(left, gram[others, j] * (1 - relax))
        weights[:, j] = free
    return weights


def user_knn_scores(
    x: FloatArray, neighbours: int, power: float, rows: FloatArray
) -> tuple[FloatArray, bool]:
    """Scores [n, I] of people with `rows` [n, I] by the users x [U, I] most like them, one pair at a time.

    And whether the last neighbour of somebody is as similar as the first who is none, but for rounding.
    """
    n_users, n_items = x.shape
    idf = [math.log((1 + n_users) / (1 + int((x[:, i] != 0).sum()))) for i in range(n_items)]

    def cosine(a: FloatArray, b: FloatArray) -> float:
        a, b = a * idf, b * idf
        length = math.sqrt((a * a).sum()) * math.sqrt((b * b).sum())
        return float((a * b).sum() / length) if length > 0 else 0.0

    scores, near = np.zeros((len(rows), n_items)), False
    for n, row in enumerate(rows):
        alike = [(cosine(row, x[v]), v) for v in range(n_users)]
        nearest = sorted((one for one in alike if one[0] > 0), key=lambda one: (-one[0], one[1]))
        for similarity, v in nearest[:neighbours]:
            scores[n] += similarity**power * x[v]
        if len(nearest) > neighbours:
            near |= nearest[neighbours - 1][0] - nearest[neighbours][0] < 1e-5
    return scores, near


def weighted_ease_scores(
    x: FloatArray,
    regularisation: float,
    user_power: float,
    item_power: float,
    relax: float = 0.0,
    rows: FloatArray | None = None,
) -> FloatArray:
    """Scores of EASE with user rows scaled by n_u^(-p/2) and item columns by pop_i^-b before and back after.

    x [U, I] is trained on; `rows` [n, I] (x itself when left out) are fed. n_u and pop_i count the nonzero
    entries of x; a count of 0 is taken as 1.
    """
    x = np.asarray(x, dtype=np.float64)
    fed = x if rows is None else np.asarray(rows, dtype=np.float64)
    n = np.maximum((x != 0).sum(axis=1), 1).astype(np.float64)
    popularity = np.maximum((x != 0).sum(axis=0), 1).astype(np.float64)
    scaled = np.diag(n ** (-user_power / 2.0)) @ x @ np.diag(popularity**-item_power)
    weights = relaxed_ease_weights(scaled, regularisation, relax)
    return fed @ np.diag(popularity**-item_power) @ weights @ np.diag(popularity**item_power)


def popularity_scores(x: FloatArray, n_users: int | None = None) -> FloatArray:
    """The same scores for everybody: the sum of each item's column. [U, I] or [n_users, I]."""
    x = np.asarray(x, dtype=np.float64)
    return np.tile(x.sum(axis=0), (x.shape[0] if n_users is None else n_users, 1))
