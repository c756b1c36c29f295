"""The one optimizer of the autoencoders: Adam, and what keeps its weights small."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from greysheep.models.autoencoders.multvae import MultVAEConfig


def adam(
    parameters: Iterable[Tensor],
    config: MultVAEConfig,
    *,
    steps_an_epoch: int,
    n_experts: int = 1,
    learning_rate: float | None = None,
) -> torch.optim.Optimizer:
    """Adam with the config's `l2` (coupled) or `weight_decay` (decoupled, an epoch).

    l2 is divided by the number of experts, as an expert's gradient carries the gate's 1 / K; a decoupled
    decay does not meet the gradient. learning_rate: None = the config's.
    """
    rate = config.learning_rate if learning_rate is None else learning_rate
    if config.l2:
        return torch.optim.Adam(parameters, lr=rate, weight_decay=config.l2 / n_experts, fused=True)
    # AdamW multiplies by 1 - lr * weight_decay at each step
    decay = config.weight_decay / (rate * steps_an_epoch)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
