"""One program in one process: reads orders from standard input, one JSON a line, and answers each.

    {"do": "train", "users": 5120}      -> {"seconds": 1.2, "cpu_seconds": 1.1, "users": 5120}
    {"do": "validate", "users": 5120}   -> the same
    {"do": "keep"}                      -> copies the weights, as training does after its best epoch
    {"do": "peak"}                      -> {"peak": bytes}
    {"do": "stages", "users": 5120}     -> {"train": {"Adam": 0.3, ...}, "validate": {...}}

A program does nothing between two orders, so several can be measured in turn.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

import greysheep as gs
from greysheep.data.splitting import TEST, VALIDATION, Split
from greysheep.models.autoencoders.trainer import MixtureTrainer
from greysheep.models.training.objective import Objective
from speed_parts.looped import LoopedTALL, Settings
from speed_parts.settings import BARE, DATA, LIBRARY, LOGS, SIMULATED, Cell
from speed_parts.stages import Stages

TARGET = "mean-ndcg"


def tall(cell: Cell, **options: Any) -> gs.TALL:
    """An unfitted TALL with the paper's settings for this log; adaptive weights from the first epoch on."""
    preset = LOGS[cell.log]
    given = {} if preset else SIMULATED
    keywords = {**given, "n_experts": cell.n_experts, "latent": cell.latent, "start_epoch": 0, **options}
    return gs.TALL(preset=preset, seed=0, progress=False, **keywords)


def paper_split(log: str) -> Split:
    """The log, split by protocol `paper` with seed 0."""
    folder = DATA if (DATA / log).is_dir() else None  # wherever this was called from
    return gs.split(gs.datasets.load(log, folder).log, protocol="paper", seed=0)


class Program(ABC):
    """What is measured."""

    def __init__(self, device: str):
        self.device = device

    @abstractmethod
    def train(self, n_users: int) -> int:
        """Train on about this many users; how many they were."""

    @abstractmethod
    def validate(self, n_users: int) -> int:
        """Validate about this many users; how many they were."""

    def keep(self) -> None:
        """Hold a copy of the weights, if there are any."""
        return

    def timed(self, work: Callable[[int], int], n_users: int) -> dict[str, float]:
        """Seconds of a block."""
        self.wait()
        begun, used = time.perf_counter(), time.process_time()
        users = work(n_users)
        self.wait()
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - used
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "users": users}

    def wait(self) -> None:
        """Let a GPU finish."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def peak(self) -> int:
        """Most memory held so far, in bytes: the process's, or the GPU's."""
        if self.device != "cpu":
            return int(torch.cuda.max_memory_allocated())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Bare(Program):
    """The matrix products an epoch cannot avoid, of the shapes training has, into memory that is there."""

    def __init__(self, n_items: int, batch_size: int, cell: Cell, device: str):
        super().__init__(device)
        self.batch_size = batch_size
        width = cell.n_experts * cell.latent

        def drawn(*shape: int) -> torch.Tensor:
            random = torch.Generator(device).manual_seed(0)
            return torch.randn(*shape, device=device, generator=random)

        self.latents, self.decoder = drawn(batch_size, width), drawn(width, n_items)
        self.slope, self.logits = drawn(batch_size, n_items), drawn(batch_size, n_items)
        self.to_latents, self.to_decoder = torch.empty_like(self.latents), torch.empty_like(self.decoder)

    def pieces(self, n_users: int) -> Iterator[int]:
        """Sizes of the batches that hold n_users together."""
        for start in range(0, n_users, self.batch_size):
            yield min(self.batch_size, n_users - start)

    def train(self, n_users: int) -> int:
        """[B, KD] x [KD, I], [B, I] x [I, KD] and [KD, B] x [B, I] for every batch."""
        for b in self.pieces(n_users):
            torch.mm(self.latents[:b], self.decoder, out=self.logits[:b])
            torch.mm(self.slope[:b], self.decoder.T, out=self.to_latents[:b])
            torch.mm(self.latents[:b].T, self.slope[:b], out=self.to_decoder)
        return n_users

    def validate(self, n_users: int) -> int:
        """[B, KD] x [KD, I] for every batch."""
        for b in self.pieces(n_users):
            torch.mm(self.latents[:b], self.decoder, out=self.logits[:b])
        return n_users


class _Enough(Exception):
    """Enough users were trained on."""


class Library(Program):
    """greysheep's own trainer, through what the training loop calls: train_epoch, validate, snapshot."""

    def __init__(self, split: Split, cell: Cell, device: str, **settings: Any):
        super().__init__(device)
        self.split = split
        self.model = tall(cell, device=device, **settings)
        self.trainer = self.model._trainer(split, Objective.parse(TARGET))
        trained = split.train_rows(gated=True)
        self.n_users = int((np.diff(trained.indptr) > 0).sum())
        if settings and cell.n_experts > 1:  # as if an epoch had been validated
            self.trainer.gates = torch.full(
                (split.log.n_users, cell.n_experts), 1 / cell.n_experts, device=device
            )
        self.epoch = 0
        self.validators: dict[int, Any] = {}

    def train(self, n_users: int) -> int:
        """The first batches of an epoch, or all of it."""
        done = 0.0

        def tick(share: float) -> None:
            nonlocal done
            done = share * self.n_users
            if n_users <= done < self.n_users - 0.5:
                raise _Enough

        self.epoch += 1
        try:
            self.trainer.train_epoch(self.epoch, tick)
        except _Enough:
            return round(done)
        return self.n_users

    def validate(self, n_users: int) -> int:
        """What the loop does after an epoch, for some users or all."""
        self.validators[n_users].validate()
        return min(n_users, self.n_users)

    def prepare(self, n_users: int) -> None:
        """A trainer of the same network whose split has validation rows of so many users only."""
        if n_users in self.validators:
            return
        if n_users >= self.n_users:
            self.validators[n_users] = self.trainer
            return
        chosen = np.zeros(self.split.log.n_users, dtype=bool)
        chosen[np.random.default_rng(0).permutation(len(chosen))[:n_users]] = True
        left_out = (self.split.part == VALIDATION) & ~chosen[self.split.log.users]
        part = np.where(left_out, TEST, self.split.part).astype(np.int8)
        smaller = replace(self.split, part=part)
        weights = np.ones(self.split.log.n_users)
        trainer = MixtureTrainer(
            self.trainer.net, self.model.config, smaller, Objective.parse(TARGET), user_weights=weights
        )
        trainer.users = np.flatnonzero(chosen)  # the gates of the others are not this block's
        self.validators[n_users] = trainer

    def keep(self) -> None:
        """Hold the best weights, as the loop does."""
        self.kept = self.trainer.snapshot()


class Loop(Program):
    """The straightforward program of looped.py."""

    def __init__(self, split: Split, cell: Cell, device: str, dense: bool):
        super().__init__(device)
        config = tall(cell).config
        settings = Settings(
            n_experts=cell.n_experts,
            latent=cell.latent,
            batch_size=config.batch_size,
            l2=config.l2,
            alpha=config.alpha,
        )
        rows: csr_matrix = split.train_rows(gated=True)
        self.batch_size = config.batch_size
        self.program = LoopedTALL(rows, split.gate_rows(), settings, dense=dense, device=device)
        self.epoch = 0

    def _batches(self, n_users: int) -> Iterator[NDArray[np.int64]]:
        users = self.program.order.permutation(self.program.users)[:n_users]
        for start in range(0, len(users), self.batch_size):
            yield users[start : start + self.batch_size]

    def train(self, n_users: int) -> int:
        """The first batches of an epoch, or all of it."""
        self.epoch += 1
        done = 0
        for users in self._batches(n_users):
            self.program.train_batch(users, self.epoch)
            done += len(users)
        return done

    def validate(self, n_users: int) -> int:
        """NDCG of some users or all, batch by batch."""
        done = 0
        for users in self._batches(n_users):
            self.program.validate_batch(users)
            done += len(users)
        return done

    def keep(self) -> None:
        """Hold the best weights."""
        self.kept = self.program.snapshot()


def build(name: str, cell: Cell, device: str) -> tuple[Program, dict[str, Any]]:
    """The program and what is known of its problem."""
    split = paper_split(cell.log)
    batch_size = tall(cell).config.batch_size
    if name == BARE:
        program: Program = Bare(split.log.n_items, batch_size, cell, device)
    elif name in LIBRARY:
        refreshed = {"gate_refresh": "epoch"} if name == "greysheep-epoch" else {}
        program = Library(split, cell, device, **refreshed)
    else:
        program = Loop(split, cell, device, dense=name == "loop-dense")
    return program, {"torch": torch.__version__, "greysheep": gs.__version__}


def shape_of(log: str) -> dict[str, int]:
    """Size of a log's training problem."""
    rows = paper_split(log).train_rows(gated=True)
    return {
        "n_users": rows.shape[0],
        "n_items": rows.shape[1],
        "n_rows": int(rows.nnz),
        "batch_size": int(tall(Cell(log, 1)).config.batch_size),
    }


def stages_of(program: Program, n_users: int) -> dict[str, dict[str, float]]:
    """Share of each stage in a block of training and one of validation."""
    out = {}
    for what, work in (("train", program.train), ("validate", program.validate)):
        with Stages(program.wait) as stages:
            users = work(n_users)
        out[what] = {name: seconds / users for name, seconds in stages.seconds.items()}
    return out


def obey(program: Program, order: dict[str, Any]) -> dict[str, Any]:
    """Do one order."""
    what, n_users = order["do"], order.get("users", 0)
    if isinstance(program, Library) and what in ("validate", "stages"):
        program.prepare(n_users)
    if what == "train":
        return program.timed(program.train, n_users)
    if what == "validate":
        return program.timed(program.validate, n_users)
    if what == "stages":
        return stages_of(program, n_users)
    if what == "keep":
        program.keep()
        return {}
    return {"peak": program.peak()}


def serve(name: str, cell: Cell, device: str, threads: int) -> None:
    """Answer orders until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to the error stream
    torch.set_num_threads(threads)
    program, facts = build(name, cell, device)
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(program, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if asked["program"] == "shape":
        print(json.dumps(shape_of(asked["log"])))
    else:
        wanted = Cell(asked["log"], asked["n_experts"], asked["latent"])
        serve(asked["program"], wanted, asked["device"], asked["threads"])
