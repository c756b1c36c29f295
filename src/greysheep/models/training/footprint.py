"""How much memory training a mixture of experts takes; too little is reported before the first epoch."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import torch

from greysheep.errors import ConfigError
from greysheep.nn.bank import BLOCK_CELLS, BLOCK_ROWS
from greysheep.system.machine import available_bytes, readable

SPARED = 0.05
"""Share of the free memory that is not used."""
LOGITS = 5
"""B x I arrays alive at once in a step: logits, their log-softmax, gradients, scratch."""
LATENTS = 12
"""K x B x D arrays alive at once in a step."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that training takes beside the log; `item_size`: bytes of one number."""

    n_experts: int
    latent: int
    n_items: int
    batch_size: int
    item_size: int = 4

    @property
    def weights(self) -> int:
        """One copy of the parameters: encoder [I, 2D], decoder [D, I] and biases of every expert."""
        d, i = self.latent, self.n_items
        return self.n_experts * (3 * d * i + 2 * d + i) * self.item_size

    @property
    def step(self) -> int:
        """Weights, gradients, Adam's two moments, and the temporary arrays of a step."""
        per_row = self.n_experts * self.n_items
        block = min(self.batch_size * per_row, max(BLOCK_CELLS, BLOCK_ROWS * per_row))
        rows = self.batch_size * (LOGITS * self.n_items + LATENTS * self.n_experts * self.latent)
        return 4 * self.weights + (block + rows) * self.item_size

    def spills(self, free: int) -> bool:
        """Whether the best weights so far go to disk, since a fifth copy does not fit in `free` bytes.

        Raises:
            ConfigError: not even the four copies fit; the message says what would.
        """
        room = int(free * (1 - SPARED))
        if self.step > room:
            raise ConfigError(
                f"training needs {readable(self.step)} for n_experts={self.n_experts}, latent={self.latent} "
                f"and {self.n_items:,} items, and {readable(room)} are free: {self._what_fits(room)}"
            )
        return self.step + self.weights > room

    def _what_fits(self, room: int) -> str:
        fits = [
            f"{name}={value}"
            for name in ("n_experts", "latent")
            if (value := self._largest(name, room)) >= 1 and not (name == "n_experts" and self.n_experts == 1)
        ]
        return " or ".join(fits) + " fits" if fits else "no setting fits; keep fewer items (min_item_users)"

    def _largest(self, name: str, room: int) -> int:
        """The largest value of one setting that fits, others kept; 0 = none."""
        values = range(1, getattr(self, name))
        return bisect_right(values, room, key=lambda value: replace(self, **{name: value}).step)


def best_weights_spill(n_experts: int, latent: int, n_items: int, batch: int, dtype: torch.dtype) -> bool:
    """`Footprint.spills` of a training run with the memory that is free now."""
    return Footprint(n_experts, latent, n_items, batch, dtype.itemsize).spills(available_bytes())
