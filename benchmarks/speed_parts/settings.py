"""Which cells are measured, with what settings, and how much memory each would need."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

BARE, EVALUATE = "bare", "evaluate"
LIBRARY = ("greysheep", "greysheep-batch")
PROGRAMS = (*LIBRARY, "loop-sparse", "loop-dense")
NAMES = {
    BARE: "bare products",
    "greysheep": "greysheep",
    "greysheep-batch": "greysheep, gates with every batch",
    "loop-sparse": "loop, sparse input",
    "loop-dense": "loop, dense input",
}
KINDS = {"train": "training", "validate": "validation"}
EVALUATION_KINDS = ("gates", "evaluate")
# log: preset of gs.TALL that gives batch size and l2 (None = the defaults and SIMULATED)
LOGS: dict[str, str | None] = {"ml-1m": "ml-1m", "yelp": "yelp", "amazon-cds": "cds", "simulated": None}
LABELS = {"ml-1m": "ML-1M", "yelp": "Yelp", "amazon-cds": "CDs", "simulated": "simulated"}
PAPER_LOGS = ("ml-1m", "yelp", "amazon-cds")
SIMULATED = {"batch_size": 64}
EXPERTS = (1, 10, 40, 100)
WHOLE_EPOCH_FLOPS = 5e11  # below this a block is a whole epoch
INTERPRETER = 0.45e9  # python, torch, polars and a log


@dataclass(frozen=True)
class Cell:
    """One log and one number of experts."""

    log: str
    n_experts: int
    latent: int = 100


@dataclass(frozen=True)
class Setup:
    """How cells are measured; a kept result counts only for the same values."""

    threads: int
    device: str = "cpu"
    blocks: int = 5
    batches: int = 10
    block_seconds: float = 15.0
    """A block of very slow batches holds fewer of them, but two at least."""
    max_memory: float = 20e9
    clock: str = "wall"
    """`cpu` counts processor seconds: of use with one thread beside other work."""

    def key(self) -> dict[str, Any]:
        """What must agree for a kept result to be read again."""
        return {name: value for name, value in asdict(self).items() if name != "max_memory"}


@dataclass(frozen=True)
class Shape:
    """Size of a log's training problem: U users, I items, nnz train rows, B users per batch."""

    n_users: int
    n_items: int
    n_rows: int
    batch_size: int


def flops(cell: Cell, shape: Shape) -> tuple[float, float]:
    """Operations an epoch cannot avoid: 3 x 2UKDI in training, 2UKDI in validation."""
    once = 2.0 * shape.n_users * cell.n_experts * cell.latent * shape.n_items
    return 3 * once, once


def needed_bytes(program: str, cell: Cell, shape: Shape) -> float:
    """Estimate of a program's peak memory, float32.

    A training program holds its parameters five times: weights, gradient, Adam's two moments and the best
    weights so far; the loop also those that replace them, for a moment, and all experts' logits.
    """
    ours = (*LIBRARY, EVALUATE)
    n_cells = shape.batch_size * shape.n_items
    decoder = cell.n_experts * cell.latent * shape.n_items
    if program == BARE:
        return INTERPRETER + 4 * (2 * decoder + 2 * n_cells)
    latents = cell.n_experts * shape.batch_size * cell.latent
    numbers = (5 if program in ours else 6) * 3.0 * decoder + 6 * n_cells + 12 * latents
    if program in ours:
        numbers += 4 * min(shape.n_users, 512) * shape.n_items
    else:
        numbers += (cell.n_experts + 2) * n_cells + (4 * n_cells if program == "loop-dense" else 0)
    return INTERPRETER + 4 * numbers
