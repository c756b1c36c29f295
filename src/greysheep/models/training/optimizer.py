"""The one optimizer of the autoencoders: Adam, and what keeps its weights small."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def adam(
    parameters: Iterable[Tensor],
    *,
    learning_rate: float,
    l2: float,
    weight_decay: float,
    steps_an_epoch: int,
    n_experts: int = 1,
) -> torch.optim.Optimizer:
    """Adam with `l2` (coupled) where it is not 0, else with `weight_decay` (decoupled, an epoch).

    l2 is divided by the number of experts, as an expert's gradient carries the gate's 1 / K; a decoupled
    decay does not meet the gradient.
    """
    if l2:
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=l2 / n_experts, fused=True)
    # AdamW multiplies by 1 - lr * weight_decay at each step
    decay = weight_decay / (learning_rate * steps_an_epoch)
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay, fused=True)
