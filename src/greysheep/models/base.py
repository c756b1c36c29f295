"""The contract of every model: config, fit, refit, save.

A new model is one file: a config, `_fit` (or `_trainer` for iterative ones), `_scores`, `_state` and
`_restore`; a class with a `name` is known by it at once. Everything about ids, parts of a split, unseen
users, lists and files is done once, here and in `Recommender`.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from greysheep.data.splitting import TRAIN, VALIDATION, Split, split
from greysheep.errors import ConfigError, DataError, warn
from greysheep.models import folder
from greysheep.models.config import ModelConfig, divide
from greysheep.models.fitted import Fitted
from greysheep.models.folder_checks import check_gates
from greysheep.models.known import Registry
from greysheep.models.move import Move, Upkeep
from greysheep.models.origin import module_of
from greysheep.models.recommender import Recommender, torch_threads
from greysheep.models.search_space import Dimension
from greysheep.models.training.checkpoints import Checkpoints
from greysheep.models.training.loop import Outcome, Trainer, Watch, run
from greysheep.models.training.objective import Objective
from greysheep.models.training.progress import Progress
from greysheep.system.checks import a_path, a_text, flag
from greysheep.system.forks import refuse_forked
from greysheep.system.machine import own_version, peak_memory_bytes
from greysheep.system.signals import ctrl_c_waits

if TYPE_CHECKING:
    import torch

LEARNED = "items_learned"
"""Saved tensor: codes of the items that the weights know, where these are not all."""
REGISTRY = Registry()
"""Every model class by its name."""


class Model(Recommender):
    """Base of all models. Keywords go to the model's config or to RunOptions, by name.

    After `fit`: `split` (the rows and their parts), `user_state` ([U, S] or None), `history` (one dict per
    epoch), `train_seconds`, `epochs`, `best_epoch`, `gate_entropy`, `peak_memory_bytes`.

    A subclass with a `name` of its own is registered by it: `create`, `parse`, `load`, `compare` and `tune`
    know it. One without is saved as the class whose name it has.
    """

    name: ClassVar[str]
    """Registry name."""
    Config: ClassVar[type[ModelConfig]]
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    validates: ClassVar[bool] = False
    """True where `fit` keeps validation rows back under every protocol, to stop or to choose by."""
    needs_rows: str | None = None
    """Why the model cannot be saved without its rows; None where it can."""
    solved_anew: ClassVar[bool] = True
    """True where `update` computes the model again from all rows; False where that would be a training: what
    was learned is kept, and users' states are computed from their rows."""
    search_space: ClassVar[dict[str, Dimension]] = {}
    """What `tune` may change; a condition reads settings that come before it."""
    search_starts: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Changes of the defaults that `tune` tries first, the most effective one first."""
    config: Any
    upkeep: Upkeep | None = None
    """What `update` did, of a model that it made."""
    checkpoints: Checkpoints | None = None
    """Those of the fit that is under way."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "name" not in cls.__dict__:
            return
        other = REGISTRY.get(cls.name, cls)
        # a module may be read again, by a notebook or as a script and as what the script imports
        if (module_of(other), other.__qualname__) != (module_of(cls), cls.__qualname__):
            taken = f"{other.__module__}.{other.__qualname__}"
            raise ConfigError(f"class {cls.__qualname__}: the name {cls.name!r} is taken by {taken}")
        REGISTRY[cls.name] = cls

    def __init__(self, *, preset: str | None = None, label: str | None = None, **keywords: Any):
        if preset is not None:
            if not isinstance(preset, str) or preset not in self.presets:
                known = ", ".join(self.presets) or "none"
                raise ConfigError(f"{self.name} has no preset {preset!r}; there are: {known}")
            keywords = {**self.presets[preset], **keywords}
        self.label = self.name if label is None else a_text("label", label) or self.name
        self.config, self.options = divide(self.Config, keywords, self.name)

    @property
    def uses_gate_rows(self) -> bool:
        """Whether rows of part `gate` are held out from training for a gate or adaptive weights."""
        return False

    @property
    def n_experts(self) -> int | None:
        """K, for mixtures."""
        return None

    @property
    def trains_in_epochs(self) -> bool:
        """Whether a fit has epochs, so that one that was killed can go on after the last of them."""
        return self.validates

    # What a model defines, beside `_scores`

    @abstractmethod
    def _fit(self, split: Split) -> None:
        """Learn from `split.train_rows(gated=self.uses_gate_rows)` (closed-form models: `self.fit_rows`)."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What was learned, for saving: arrays, or tensors on the CPU."""

    @abstractmethod
    def _restore(self, state: dict[str, Any], n_items: int) -> None:
        """Take them back, as arrays or as they were given."""

    def _saved_state(self, with_rows: bool) -> dict[str, Any]:
        """`_state`, and what else spares a loaded model work; with_rows: whether users' rows are saved."""
        return self._state()

    def _check_user_state(self, state: NDArray[Any] | None) -> None:
        """Refuse (ValueError) what a folder holds of its users; it is finite, and has a row for each."""
        if self.n_experts is not None:
            check_gates(state, self.log.n_users, self.n_experts)

    def _train_again(self, split: Split) -> bool:
        """Train anew on a split without validation, for the best number of epochs; True if Ctrl-C ended it.

        Called for models that keep validation rows back (`validates`).
        """
        return False

    def _known_state(self, seen: csr_matrix, held_out: csr_matrix) -> NDArray[Any] | None:
        """State [U, S] of every known user, from train rows and gate rows."""
        return self._states(seen, held_out)

    def _mixing_entropy(self) -> float | None:
        """Mean entropy of what mixes the experts for a user; None without experts."""
        return None

    # Other rows without training

    def keeps_weights(self) -> list[str]:
        """Names of the parts whose weights would stay as they are where the rows are others."""
        return [] if self.solved_anew and self.has_history else [self.name]

    def carried(self, move: Move) -> Self:
        """This model on other rows, untrained: solved again, or its weights and users' new states."""
        other = self._twin()
        if not self.keeps_weights():
            return other.fit(move.split)
        other.fitted = move.record(self.fitted)
        tensors, state = self._kept(move)
        other._restore({key: np.asarray(own).copy() for key, own in tensors.items()}, len(other.known_items))
        if state is not None or self.user_state is not None:
            other.user_state = other._states_after(state, move)
        return other

    def _twin(self) -> Self:
        """The same model, not fitted."""
        return type(self)(label=self.label, **self.config.model_dump(), **self.options.model_dump())

    def _kept(self, move: Move) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Learned tensors for the other rows, and users' state of before; None = all have another now."""
        return self._state(), self.user_state

    def _states_after(self, before: NDArray[Any] | None, move: Move) -> NDArray[Any] | None:
        """State of every user: kept where her rows are the same, else computed as for people never seen."""
        stay, rows = move.stay, move.gate_apart(self.fitted.learned).split
        if before is None:
            seen = rows.train_rows(gated=self.uses_gate_rows)[stay]
            kept = self._states(seen, rows.gate_rows()[stay])
        else:
            kept = before[move.users[stay]]
        fresh = self._states(rows.rows("train")[~stay], rows.rows("gate")[~stay])
        parts = [part for part in (kept, fresh) if part is not None]
        state = np.empty((len(stay), parts[0].shape[1]), parts[0].dtype)
        for which, part in ((stay, kept), (~stay, fresh)):
            if part is not None:
                state[which] = part
        return state

    # What it gets

    def fit(
        self,
        data: Any,
        *,
        refit: bool = False,
        checkpoints: str | Path | Checkpoints | None = None,
        resume: bool = False,
    ) -> Self:
        """Train on a log (protocol `all`: every row is used) or on a split's train rows.

        data: a split, a log, or anything `Interactions.read` takes.
        refit: protocol `all` only: after the best number of epochs is known, train once more with the
            validation rows among the train rows (rows of a gate stay held out, a gate needs them).
        checkpoints: a folder for them alone; a training in epochs that is killed leaves its last ones there.
            SIGTERM then leaves one and ends the process with code 143. They stay when `fit` ends: remove the
            folder once the model is saved.
        resume: go on from them, on a CPU to the same bits as if nothing had happened; from the beginning,
            with a warning, where there are none. What is not trained in epochs is computed again.

        Raises:
            ConfigError: `refit` under another protocol, where validation rows must not be trained on; or
                `checkpoints` holds some of another log, split, setting, version or number of threads, or any
                without `resume`.
            DataError: the log cannot be used.
        """
        refuse_forked()
        refit, resume = flag("refit", refit), flag("resume", resume)
        if not isinstance(data, Split):
            data = split(data, protocol="all", seed=self.options.seed)
        if refit and data.protocol != "all":
            why = "there validation stays unseen"
            raise ConfigError(f"refit is for protocol 'all', not {data.protocol!r}: {why}")
        if self.binary and data.log.weights is not None:
            warn(f"{self.name} is binary: the {len(data.log)} weights of the log are not used", 2)
        self.fitted, self.user_state = Fitted(data, weighted=not self.binary), None
        begun = time.perf_counter()
        try:
            with torch_threads(self.options.threads), self._opened(checkpoints, resume) as self.checkpoints:
                self._fit(data)
                if refit:
                    self._refit()
                self.fitted.train_seconds = time.perf_counter() - begun
                if self.checkpoints is not None:
                    self.fitted.train_seconds += self.checkpoints.seconds_before
                with ctrl_c_waits(unless=self.interrupted) as pressed:
                    self._finish()
                self.fitted.interrupted |= bool(pressed)
        except BaseException:
            self._fitted = None  # half a fit is none
            raise
        finally:
            self.checkpoints = None
        self.fitted.peak_memory_bytes = peak_memory_bytes()
        return self

    def _opened(
        self, checkpoints: str | Path | Checkpoints | None, resume: bool
    ) -> AbstractContextManager[Checkpoints | None]:
        """The checkpoints of a fit on `split`; an ensemble's members share its own."""
        if checkpoints is None and resume:
            raise ConfigError("resume=True goes on from checkpoints: name their folder, checkpoints=FOLDER")
        if checkpoints is None or isinstance(checkpoints, Checkpoints):
            return nullcontext(checkpoints)
        if not self.trains_in_epochs:
            if resume:
                warn(f"{self.name} is not trained in epochs: it is computed from the beginning", 3)
            return nullcontext()
        import torch

        identity = {
            "log": self.log.fingerprint(),
            "split": self.split.fingerprint(),
            "model": self.name,
            "settings": self.config.model_dump(mode="json"),
            "seed": self.options.seed,
            "precision": self.options.precision,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "greysheep": own_version(),
            "torch": str(torch.__version__),
        }
        return Checkpoints(a_path("checkpoints", checkpoints), identity, resume=resume)

    def _refit(self) -> None:
        """Train again with validation rows in train; where that does not end well, keep the first model.

        Models that keep no validation rows back have learned them already.
        """
        first = self.fitted
        if not self.validates or first.interrupted:
            return
        learned = deepcopy(self._state())
        part = np.where(first.split.part == VALIDATION, TRAIN, first.split.part).astype(np.int8)
        self.fitted = replace(first, split=replace(first.split, part=part))
        try:
            failure = "was interrupted" if self._train_again(self.split) else ""
        except KeyboardInterrupt:
            failure = "was interrupted"
        except ConfigError as error:  # it diverged
            failure = f"failed ({error})"
        if not failure:
            return
        self.fitted, first.interrupted = first, failure == "was interrupted"
        self._restore(learned, self.log.n_items)
        warn(f"the refit of {self.name} {failure}: the first model is kept, without validation rows", 3)

    def _finish(self) -> None:
        """Compute once what scoring and lists need of the users and items that were trained on."""
        seen = self.split.train_rows(gated=self.uses_gate_rows)
        self.user_state = self._known_state(seen, self.split.gate_rows())
        self.fitted.gate_entropy = self._mixing_entropy()
        learned = seen if self.validates else self.fit_rows
        self.fitted.trained_items = np.bincount(learned.indices, minlength=self.log.n_items) > 0

    @property
    def fit_rows(self) -> csr_matrix:
        """Rows a closed-form model learns from: it needs no validation, so under `all` these are all rows."""
        if self.split.protocol == "all":
            return self.log.matrix(weighted=not self.binary)
        return self.split.train_rows(gated=self.uses_gate_rows, weighted=not self.binary)

    @cached_property
    def device(self) -> torch.device:
        """The device the options ask for."""
        import torch  # here, as models that are none of torch's never ask

        wanted = self.options.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(wanted)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError):
            raise ConfigError(f"device {wanted!r} is not to be had here: use auto or cpu") from None
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of parameters."""
        import torch

        return torch.float64 if self.options.precision == "float64" else torch.float32

    def check_without_rows(self) -> None:
        """Refuse to be saved without rows, which can be asked before `fit`.

        Raises:
            DataError: the model cannot do without them (`needs_rows`).
        """
        if self.needs_rows:
            why = f"{self.needs_rows}; save with include_history=True"
            raise DataError(f"{self.name} cannot be saved without its rows: {why}")

    def save(self, directory: str | Path, *, include_history: bool = True) -> Path:
        """Write the model as a folder (README: it holds personal data); all of it or nothing.

        include_history: False leaves the users' rows out; recommending then needs `history`.

        Raises:
            DataError: `include_history` is False for a model that cannot do without the rows (`needs_rows`).
            ModelFolderError: the path is taken by something that is not a saved model, or cannot be written.
        """
        if not include_history:
            self.check_without_rows()
        about = {
            "model": self.name,
            "label": self.label,
            "config": self.config.model_dump(),
            "options": self.options.model_dump(include={"seed", "precision"}),
        }
        kind = REGISTRY[self.name]
        if module := module_of(kind):
            about["class"] = f"{module}:{kind.__qualname__}"
        tensors = self.tensors(include_history and self.has_history)
        saved = folder.Saved(about, self.fitted, self.user_state, tensors)
        return folder.save(saved, a_path("directory", directory), include_history)

    def tensors(self, with_rows: bool = True) -> dict[str, Any]:
        """All that is saved of what was learned; with_rows: whether users' rows are saved, too."""
        learned, state = self.fitted.learned, self._saved_state(with_rows)
        return state if learned is None else {**state, LEARNED: learned}

    def take_tensors(self, tensors: dict[str, Any]) -> None:
        """Take what `tensors` gave; ValueError where it does not fit the log or the config."""
        n_items, state = self.log.n_items, dict(tensors)
        if LEARNED in state:
            learned = take(state, LEARNED, len(state[LEARNED]), kind="i").astype(np.int64)
            if not len(learned) or learned[0] < 0 or learned[-1] >= n_items or (np.diff(learned) <= 0).any():
                raise ValueError(f"tensor {LEARNED!r} does not name items of the model in order")
            self.fitted.learned, n_items = learned, len(learned)
            del state[LEARNED]
        self._restore(state, n_items)


class IterativeModel(Model):
    """A model trained epoch by epoch by the one loop in `training`."""

    validates = True
    solved_anew = False
    watch: Watch | None = None
    """Called after each validated epoch; True ends the training there."""

    @property
    def start_epoch(self) -> int:
        """Epoch from which patience is counted."""
        return 0

    @property
    def patience(self) -> int:
        """Epochs without a better objective before training stops."""
        return int(self.config.patience)

    @abstractmethod
    def _trainer(self, split: Split, objective: Objective | None) -> Trainer:
        """Fresh weights and what the loop needs to train them."""

    def _trained(self, trainer: Any) -> None:
        """Take what the trainer learned beside the weights."""

    def _fit(self, split: Split) -> None:
        objective = Objective.parse(self.config.objective)
        judged = np.unique(split.log.users[split.part == VALIDATION])
        if objective.who is not None and len(judged):
            members, place = split.user_groups.of(judged), objective.place(split.user_groups)
            if not (members.codes >= 0 if place is None else members.codes == place).any():
                whom = "a group" if place is None else "that group"
                raise ConfigError(
                    f"objective {self.config.objective!r}: no user of {whom} has validation rows"
                )
        if not len(judged):
            warn(f"no user has a validation row: {self.name} runs all its epochs", 3)
        watched = objective if len(judged) else None
        outcome, record = self._run(split, watched, self.config.epochs, self.label), self.fitted
        record.history, record.best_epoch = outcome.history, outcome.best_epoch
        record.epochs, record.interrupted = len(outcome.history), outcome.interrupted
        if outcome.interrupted:
            kept = f"its best weights are those of epoch {self.best_epoch}"
            warn(f"{self.name} was interrupted after {self.epochs} epochs: {kept}", 3)

    def _train_again(self, split: Split) -> bool:
        return self._run(split, None, self.best_epoch, f"{self.label} (refit)").interrupted

    def _run(self, split: Split, objective: Objective | None, epochs: int, label: str) -> Outcome:
        trainer = self._trainer(split, objective)
        outcome = run(
            trainer,
            epochs=epochs,
            patience=self.patience,
            start_epoch=self.start_epoch,
            objective=objective,
            groups=split.user_groups,
            progress=Progress(label, epochs, self.options.progress),
            watch=None if objective is None else self.watch,
            checkpoints=self.checkpoints,
        )
        self._trained(trainer)
        return outcome


def take(state: dict[str, Any], name: str, *shape: int, kind: str = "f") -> NDArray[Any]:
    """A saved array, refused (ValueError) if it is not of this shape and kind ("f" float, "i" integer)."""
    if name not in state:
        raise ValueError(f"there is no tensor {name!r}")
    values = np.asarray(state[name])
    if values.shape != shape or values.dtype.kind != kind:
        raise ValueError(f"tensor {name!r} is {values.dtype} of shape {values.shape}, not {kind} of {shape}")
    return values


def mean_entropy(weights: NDArray[Any]) -> float | None:
    """Mean over users of the entropy of their experts' weights [n, K]; None for one expert, or no users."""
    if weights.shape[1] == 1 or not len(weights):
        return None
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    return float(-(weights * logs).sum(1, dtype=np.float64).mean())
