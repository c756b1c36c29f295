"""Checkpoints of a fit, from which another process goes on to the same bits.

A fit runs one loop of epochs, or several: a refit's, the global and the local models', those of an ensemble's
parts. Each is a stage, numbered in the order of their beginning. A checkpoint is a sealed folder,
`STAGE-EPOCH`, of all that the epochs to come depend on; a resumed fit does again what lies between the
stages, which depends on the log and the settings alone, and takes each stage up from its last checkpoint.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from safetensors import SafetensorError

from greysheep.errors import ConfigError, SealError, warn
from greysheep.system.drafts import no_empty_folders
from greysheep.system.files import locked, new_folder
from greysheep.system.seal import check_seal, read_manifest, sync, write_seal
from greysheep.system.signals import on_sigterm, terminate

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHARE = 0.02
"""The most of a fit's time that writing checkpoints takes, after the first."""
FIRST_SECONDS, BYTES_A_SECOND = 0.02, 4e8
"""What writing the first one is taken to cost, before one was written."""
KEPT = 2
"""Checkpoints of the stage under way that are kept; of those before, the last one is."""
TENSORS, FACTS = "state.safetensors", "state.json"
NAME = re.compile(r"(\d{2})-(\d{6})")


@dataclass
class State:
    """What a trainer needs to go on after an epoch: tensors, and numbers and texts that JSON holds."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def put(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Add tensors, without a copy."""
        self.tensors.update({f"{prefix}.{name}": tensor.contiguous() for name, tensor in tensors.items()})

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors that were put under this prefix; empty if there were none."""
        start = f"{prefix}."
        return {key.removeprefix(start): t for key, t in self.tensors.items() if key.startswith(start)}

    def put_optimizer(self, prefix: str, optimizer: torch.optim.Optimizer) -> None:
        """Add the moments and steps that an optimizer keeps of each parameter."""
        for number, own in optimizer.state_dict()["state"].items():
            self.put(f"{prefix}.{number}", own)

    def load_optimizer(self, prefix: str, optimizer: torch.optim.Optimizer) -> None:
        """Give them back to an optimizer that was made as the first one was."""
        known = optimizer.state_dict()
        own: dict[int, dict[str, Tensor]] = {}
        for key, tensor in self.part(prefix).items():
            number, _, name = key.partition(".")
            own.setdefault(int(number), {})[name] = tensor.clone()
        optimizer.load_state_dict({**known, "state": own})

    def put_random(self, order: np.random.Generator, noise: torch.Generator) -> None:
        """Add where the generators of the order of users and of noise stand."""
        self.facts["order"] = order.bit_generator.state
        self.put("random", {"noise": noise.get_state()})

    def load_random(self, order: np.random.Generator, noise: torch.Generator) -> None:
        """Set the generators to where those of `put_random` stood."""
        order.bit_generator.state = self.facts["order"]
        noise.set_state(self.part("random")["noise"].clone())


class Resumable(Protocol):
    """A trainer whose training can go on in another process."""

    def state(self) -> State:
        """All that the epochs to come depend on, the best weights so far included; nothing is copied."""

    def load_state(self, state: State) -> Any:
        """Go to a state; returns what `snapshot` gave for its best weights, None if there are none."""


class Checkpoints:
    """The checkpoints of one fit, open while it runs.

    folder: theirs alone; it is made with the first one.
    identity: what must be the same for a fit to go on: log, split, settings, threads, versions.
    resume: go on from what lies there; False refuses a folder that holds any.

    A checkpoint is written at the end of an epoch, as soon as writing takes at most SHARE of the time since
    the one before. SIGTERM ends the process with code 143: at once if the last epoch is in a checkpoint, else
    when the one under way is trained and written; a second SIGTERM does not wait.

    Raises:
        ConfigError: on entering: they are of another fit (the message says what differs), must not be
            resumed, or another process writes there.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, resume: bool = False):
        self.folder, self.identity, self.resume = folder.expanduser(), dict(identity), resume
        self.n_stages = 0
        self.running = False
        self.unwritten = False
        """Whether an epoch was trained that no checkpoint holds."""
        self.ending = False
        """Whether SIGTERM asked to end."""
        self.failed = False
        self.cost: float | None = None
        self.seconds_before = 0.0
        """Seconds of the fit in earlier processes."""

    def __enter__(self) -> Self:
        self.begun = self.last = time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(no_empty_folders(self.folder))
            stack.enter_context(held(self.folder))
            self._check()
            stack.enter_context(on_sigterm(self._asked))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _check(self) -> None:
        """Refuse checkpoints of another fit, or any where they must not be resumed."""
        there = found(self.folder)
        if not self.resume:
            if there:
                what = f"{self.folder} holds {unfinished(self.folder)}"
                raise ConfigError(f"{what}: resume it (--resume, resume=True) or remove it (--overwrite)")
            return
        for path in there:
            try:
                known = read_manifest(path)["identity"]
            except (SealError, KeyError):
                continue  # a stage that comes to it says so
            if differs := differences(known, self.identity):
                raise ConfigError(f"{path} cannot be resumed, it is of another training: {differs}")
        if not there:
            warn(f"nothing to resume in {self.folder}: training starts from the beginning", 5)

    def _asked(self) -> None:
        """Take a SIGTERM."""
        if self.ending or not (self.running and self.unwritten):
            terminate()
        self.ending = True

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """The next loop of epochs."""
        self.running, self.unwritten = True, True  # its first epoch, too, is trained to the end
        self.n_stages += 1
        try:
            yield Stage(self, self.n_stages - 1)
        finally:
            self.running = False
        if self.ending:
            terminate()

    def due(self, n_bytes: int) -> bool:
        """Whether a state of so many bytes may be written now."""
        cost = FIRST_SECONDS + n_bytes / BYTES_A_SECOND if self.cost is None else self.cost
        return not self.failed and time.monotonic() - self.last >= cost / SHARE

    def write(self, stage: int, epoch: int, state: State) -> None:
        """Write a checkpoint whole; where that cannot be, say so once and train on without."""
        begun = time.monotonic()
        facts = {**state.facts, "seconds": self.seconds_before + begun - self.begun}
        path = self.folder / f"{stage:02d}-{epoch:06d}"
        try:
            from safetensors.torch import save_file  # here, as closed forms need no torch

            with new_folder(path) as draft:
                save_file(state.tensors, draft / TENSORS)
                (draft / FACTS).write_text(json.dumps(facts, allow_nan=False), encoding="utf-8")
                write_seal(draft, {"stage": stage, "epoch": epoch, "identity": self.identity})
            sync(self.folder)
        except (OSError, SafetensorError) as error:
            self.failed = True
            why = getattr(error, "strerror", None) or error
            warn(f"no checkpoint can be written in {self.folder} ({why}): training goes on without", 5)
            return
        self.unwritten = False
        self._tidy(stage)
        self.last = time.monotonic()
        self.cost = self.last - begun

    def _tidy(self, stage: int) -> None:
        """Remove all but the last ones of the stage under way and the last one of each before."""
        by_stage: dict[int, list[Path]] = {}
        for path in found(self.folder):
            by_stage.setdefault(int(path.name[:2]), []).append(path)
        for number, paths in by_stage.items():
            for path in paths[: -(KEPT if number == stage else 1)]:
                shutil.rmtree(path, ignore_errors=True)

    def read(self, stage: int) -> State | None:
        """The last whole checkpoint of a stage, None if there is none; a damaged one is passed over."""
        if not self.resume:
            return None
        from safetensors.torch import load_file

        for path in reversed(found(self.folder, stage)):
            try:
                check_seal(path)
                facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
                tensors = load_file(path / TENSORS)
            except (SealError, OSError, ValueError, SafetensorError) as error:
                warn(f"{error}: this checkpoint is passed over", 5)
                continue
            self.seconds_before, self.unwritten = facts["seconds"], False
            return State(tensors, facts)
        return None


class Stage:
    """One loop of epochs in a fit with checkpoints."""

    def __init__(self, owner: Checkpoints, number: int):
        self.owner, self.number = owner, number

    def begin(self, trainer: Resumable) -> tuple[list[dict[str, Any]], int, Any]:
        """Take the stage up: history so far, best epoch, copy of the best weights; empty, 0, None at first.

        Raises:
            ConfigError: the model's own code has changed, so that it cannot take its state.
        """
        state = self.owner.read(self.number)
        if state is None:
            return [], 0, None
        try:
            best = trainer.load_state(state)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            message = f"the checkpoint in {self.owner.folder} is of another version of the model"
            raise ConfigError(f"{message}: {' '.join(str(error).split())}") from None
        self.owner.last = time.monotonic()
        return state.facts["history"], state.facts["best_epoch"], best

    def end_of_epoch(self, trainer: Resumable, history: list[dict[str, Any]], best_epoch: int) -> None:
        """Write a checkpoint if one is due; end the process if SIGTERM asked for it."""
        owner = self.owner
        owner.unwritten = True
        state = trainer.state()
        if owner.ending or owner.due(sum(tensor.nbytes for tensor in state.tensors.values())):
            state.facts |= {"history": history, "best_epoch": best_epoch}
            owner.write(self.number, len(history), state)
        if owner.ending:
            terminate()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder of checkpoints; it is removed in the end if it holds none."""
    lock = folder / ".lock"
    with locked(lock, f"another process writes its checkpoints in {folder}: wait for it to end"):
        for draft in folder.glob(".*/"):  # of a process that was killed
            shutil.rmtree(draft, ignore_errors=True)
        try:
            yield
        finally:
            if not found(folder):
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # something of somebody else's lies there
                    folder.rmdir()


def found(folder: Path, stage: int | None = None) -> list[Path]:
    """The checkpoints of a folder, or of one stage, oldest first."""
    names = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(path for path in names if stage is None or int(path.name[:2]) == stage)


def unfinished(folder: Path) -> str:
    """In words, which training lies in a folder; empty if none does."""
    there = found(folder)
    return f"an unfinished training up to epoch {int(there[-1].name[3:])}" if there else ""


def remove(folder: Path) -> None:
    """Remove the checkpoints of a folder, and the folder if nothing else is in it.

    Raises:
        ConfigError: another process writes there.
    """
    if folder.is_dir():
        with held(folder):
            for path in found(folder):
                shutil.rmtree(path, ignore_errors=True)


def differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In words, how the identity of a checkpoint differs from that of a fit; empty if it does not.

    >>> old = {"log": "ab", "settings": {"latent": 8, "beta": 1.0}, "threads": 2}
    >>> differences(old, {"log": "ab", "settings": {"latent": 9, "beta": 1.0}, "threads": 1})
    'threads is 2 there and 1 here; latent is 8 there and 9 here'
    """
    if known.get("log") != wanted.get("log"):
        return "another log"
    if known.get("split") != wanted.get("split"):
        return "another split of the log (protocol or seed)"
    flat = [{**one, **one.get("settings", {})} for one in (known, wanted)]
    keys = [key for key in dict.fromkeys((*flat[0], *flat[1])) if key != "settings"]
    there, here = ({key: one.get(key) for key in keys} for one in flat)
    return "; ".join(
        f"{key} is {there[key]} there and {here[key]} here" for key in keys if there[key] != here[key]
    )
