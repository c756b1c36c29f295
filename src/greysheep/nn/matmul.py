"""Matrix products in the number type that the device is fast in, with sums and results in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor, low: torch.dtype | None = None, out: Tensor | None = None) -> Tensor:
    """Multiply two matrices, or two stacks of them; `low` (bfloat16) rounds the factors, never the result.

    A CPU multiplies the rounded factors in float32: the same numbers, without the speed.

    >>> a = torch.tensor([[1.0, 2.0]])
    >>> product(a, a.T, torch.bfloat16)
    tensor([[5.]])
    """
    if low is None:
        return torch.matmul(a, b, out=out)
    a, b = a.to(low), b.to(low)
    if not a.is_cuda:
        return torch.matmul(a.float(), b.float(), out=out)
    multiply = torch.bmm if a.dim() == 3 else torch.mm
    return multiply(a, b, out_dtype=torch.float32)
