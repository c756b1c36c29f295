"""Weights that were saved, given to a network that was made without any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def take_weights(
    net: nn.Module, weights: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> None:
    """Give a network on torch's device `meta`, which has taken no memory, its weights; arrays are not copied.

    Raises:
        ValueError: a weight is missing, none of the network's, or of another type or shape.
    """
    tensors = {key: torch.as_tensor(value) for key, value in weights.items()}
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    for key in sorted(wanted.keys() | tensors.keys()):
        if key not in tensors or key not in wanted:
            raise ValueError(
                f"there is no tensor {key!r}" if key in wanted else f"tensor {key!r} is not used"
            )
        found = tuple(tensors[key].shape), tensors[key].dtype
        if found != (wanted[key], dtype):
            raise ValueError(
                f"tensor {key!r} is {found[1]} of shape {found[0]}, not {dtype} of {wanted[key]}"
            )
    net.load_state_dict({key: value.to(device) for key, value in tensors.items()}, assign=True)
