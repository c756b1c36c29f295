"""One program in one process: answers orders, one JSON per line.

{"do": "train", "users": 5120}      -> {"seconds": 1.2, "cpu_seconds": 1.1, "users": 5120}
{"do": "validate", "users": 5120}   -> the same; of `evaluate`: "gates" and "evaluate"
{"do": "keep"}                      -> copies the weights, as training does after its best epoch
{"do": "facts"}                     -> versions and what else is known after loading
{"do": "peak"}                      -> {"peak": bytes}
{"do": "stages", "users": 5120}     -> {"train": {"Adam": 0.3, ...}, "validate": {...}}
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from stage import DATA

import greysheep as gs
from greysheep.data.splitting import Split
from greysheep.models.training.objective import Objective
from greysheep.system.machine import peak_memory_bytes
from speed_parts.looped import LoopedTALL
from speed_parts.settings import BARE, EVALUATE, KINDS, LIBRARY, LOGS, SIMULATED, Cell
from speed_parts.stages import Stages


def tall(cell: Cell, **options: Any) -> gs.TALL:
    """An unfitted TALL with the paper's settings for this log; adaptive weights from the first epoch on."""
    preset = LOGS[cell.log]
    given = {} if preset else SIMULATED
    keywords = {**given, "n_experts": cell.n_experts, "latent": cell.latent, "start_epoch": 0, **options}
    return gs.TALL(preset=preset, seed=0, progress=False, **keywords)


def batch_size_of(split: Split, cell: Cell) -> int:
    """Batch size B for this log, also of the bare products and the loop."""
    users = int((np.diff(split.train_rows(gated=True).indptr) > 0).sum())
    return int(tall(cell).config.users_a_step(users))


def paper_split(log: str) -> Split:
    """The log, split by protocol `paper` with seed 0."""
    folder = DATA if (DATA / log).is_dir() else None  # wherever this was called from
    return gs.split(gs.datasets.load(log, folder).log, protocol="paper", seed=0)


def untrained(cell: Cell, device: str) -> Any:
    """A TALL with random weights that knows its split, ready to be evaluated and saved."""
    model: Any = tall(cell, device=device)
    model.split = paper_split(cell.log)
    model._build(model.log.n_items)
    model.epochs = model.best_epoch = 1
    return model


class Program:
    """What is measured: `train` and `validate` work on about so many users and return how many they were."""

    def __init__(self, device: str):
        self.device = device

    def keep(self) -> None:
        """Hold a copy of the weights, if there are any."""
        return

    def work(self, kind: str) -> Callable[[int], int]:
        """The method for a block of this kind; for `evaluate`: computing all gates, evaluating with them."""
        done: Callable[[int], int] = getattr(self, "train" if kind in ("train", "gates") else "validate")
        return done

    def timed(self, kind: str, n_users: int) -> dict[str, float]:
        """Seconds of a block."""
        work = self.work(kind)
        self.wait()
        begun, used = time.perf_counter(), time.process_time()
        users = work(n_users)
        self.wait()
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - used
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "users": users}

    def wait(self) -> None:
        """Wait until a GPU has finished."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def peak(self) -> int:
        """Most memory held so far, in bytes: the process's, or the GPU's."""
        if self.device != "cpu":
            return int(torch.cuda.max_memory_allocated())
        return peak_memory_bytes()


class Bare(Program):
    """The matrix products an epoch cannot avoid, of the shapes training has, into memory that is there."""

    def __init__(self, n_items: int, batch_size: int, cell: Cell, device: str):
        super().__init__(device)
        self.batch_size = batch_size
        width, random = cell.n_experts * cell.latent, torch.Generator(device).manual_seed(0)
        shapes = ((batch_size, width), (width, n_items), (batch_size, n_items), (batch_size, n_items))
        drawn = (torch.randn(*shape, device=device, generator=random) for shape in shapes)
        self.latents, self.decoder, self.slope, self.logits = drawn
        self.to_latents, self.to_decoder = torch.empty_like(self.latents), torch.empty_like(self.decoder)

    def train(self, n_users: int) -> int:
        """[B, KD] x [KD, I], [B, I] x [I, KD] and [KD, B] x [B, I] for every batch."""
        return self._products(n_users, training=True)

    def validate(self, n_users: int) -> int:
        """[B, KD] x [KD, I] for every batch."""
        return self._products(n_users, training=False)

    def work(self, kind: str) -> Callable[[int], int]:
        """Evaluating and computing gates both take the product of validation."""
        return self.train if kind == "train" else self.validate

    def _products(self, n_users: int, training: bool) -> int:
        for start in range(0, n_users, self.batch_size):
            b = min(self.batch_size, n_users - start)
            torch.mm(self.latents[:b], self.decoder, out=self.logits[:b])
            if training:
                torch.mm(self.slope[:b], self.decoder.T, out=self.to_latents[:b])
                torch.mm(self.latents[:b].T, self.slope[:b], out=self.to_decoder)
        return n_users


class _Enough(Exception):
    """Enough users were trained on."""


class Library(Program):
    """greysheep's own trainer, through what the training loop calls: train_epoch, validate, snapshot."""

    def __init__(self, split: Split, cell: Cell, device: str, **settings: Any):
        super().__init__(device)
        self.model = tall(cell, device=device, **settings)
        self.trainer = self.model._trainer(split, Objective.parse("mean-ndcg"))
        self.n_users = len(self.trainer.users)
        if self.trainer.net.keeps_gates:  # as if an epoch had been validated
            shape = split.log.n_users, cell.n_experts
            self.trainer.gates = torch.full(shape, 1 / cell.n_experts, device=device)
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
        """The same trainer with validation rows of so many users only."""
        if n_users in self.validators:
            return
        self.validators[n_users] = trainer = copy.copy(self.trainer)
        if n_users < self.n_users:
            # the gates of the others are not this block's
            validation = trainer.validation = copy.copy(self.trainer.validation)
            trainer.users = np.random.default_rng(0).permutation(validation.truth.shape[0])[:n_users]
            validation.users = np.intersect1d(validation.users, trainer.users)

    def keep(self) -> None:
        """Hold the best weights, as the loop does."""
        self.kept = self.trainer.snapshot()


class Loop(Program):
    """The straightforward program of looped.py."""

    def __init__(self, split: Split, cell: Cell, device: str, dense: bool):
        super().__init__(device)
        rows: csr_matrix = split.train_rows(gated=True)
        config = tall(cell).config
        self.program = LoopedTALL(rows, split.gate_rows(), config, dense=dense, device=device)
        self.epoch = 0

    def train(self, n_users: int) -> int:
        """The first batches of an epoch, or all of it."""
        self.epoch += 1
        self.program.begin_epoch(self.epoch)
        return self._pass(n_users, self.program.train_batch)

    def validate(self, n_users: int) -> int:
        """NDCG of some users or all, batch by batch."""
        return self._pass(n_users, self.program.validate_batch)

    def _pass(self, n_users: int, step: Callable[[Any], Any]) -> int:
        users = self.program.order.permutation(self.program.users)[:n_users]
        for start in range(0, len(users), self.program.batch_size):
            step(users[start : start + self.program.batch_size])
        return len(users)

    def keep(self) -> None:
        """Hold the best weights."""
        self.kept = self.program.snapshot()


class Evaluation(Program):
    """`gs.evaluate` of every user, and all users' gates; how long depends on shapes, not on the weights."""

    def __init__(self, cell: Cell, device: str):
        super().__init__(device)
        self.model = untrained(cell, device)
        self.model._store_gates()
        begun = time.perf_counter()
        _ = self.model.mainstream  # computed once and kept, as after training
        self.groups = time.perf_counter() - begun

    def train(self, n_users: int) -> int:
        """Every user's gate."""
        self.model._store_gates()
        return int(self.model.log.n_users)

    def validate(self, n_users: int) -> int:
        """Every user with test rows against the whole catalogue: six metrics at 20, groups and intervals."""
        gs.evaluate(self.model, k=20)
        return int(self.model.log.n_users)


def build(name: str, cell: Cell, device: str) -> tuple[Program, dict[str, Any]]:
    """The program and what is known of its problem."""
    facts = {"torch": torch.__version__, "greysheep": gs.__version__}
    if name == EVALUATE:
        evaluation = Evaluation(cell, device)
        return evaluation, facts | {"groups": evaluation.groups}
    split = paper_split(cell.log)
    if name == BARE:
        program: Program = Bare(split.log.n_items, batch_size_of(split, cell), cell, device)
    elif name in LIBRARY:
        refreshed = {"gate_refresh": "batch"} if name == "greysheep-batch" else {}
        program = Library(split, cell, device, **refreshed)
    else:
        program = Loop(split, cell, device, dense=name == "loop-dense")
    return program, facts


def sizes_of(log: str) -> dict[str, int]:
    """Size of a log's training problem."""
    split = paper_split(log)
    rows = split.train_rows(gated=True)
    sizes = {"n_users": rows.shape[0], "n_items": rows.shape[1], "n_rows": int(rows.nnz)}
    return {**sizes, "batch_size": batch_size_of(split, Cell(log, 1))}


def stages_of(program: Program, n_users: int) -> dict[str, dict[str, float]]:
    """Seconds a user of each stage in a block of each kind."""
    out = {}
    for what in KINDS:
        with Stages(program.wait) as stages:
            users = program.work(what)(n_users)
        out[what] = {name: seconds / users for name, seconds in stages.seconds.items()}
    return out


def begin(job: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load a program; what answers its orders."""
    torch.set_num_threads(job["threads"])
    cell = Cell(job["log"], job["n_experts"], job["latent"])
    program, facts = build(job["program"], cell, job["device"])

    def answer(order: dict[str, Any]) -> dict[str, Any]:
        what, n_users = order["do"], order["users"]
        if isinstance(program, Library) and what in ("validate", "stages"):
            program.prepare(n_users)
        if what == "facts":
            return facts
        if what == "peak":
            return {"peak": program.peak()}
        if what == "stages":
            return stages_of(program, n_users)
        if what == "keep":
            program.keep()
            return {}
        return program.timed(what, n_users)

    return answer
