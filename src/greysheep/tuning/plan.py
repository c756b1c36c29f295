"""The request of a search, checked on construction, and its plan: what is fixed, searched and tried first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import yaml
from pydantic import Field, model_validator

from greysheep.data.protocols import TESTED, Protocol
from greysheep.errors import ConfigError, MissingExtraError
from greysheep.models import REGISTRY, Model, create, parse
from greysheep.models.base import IterativeModel
from greysheep.models.config import Request, RunOptions
from greysheep.models.search_space import Dimension
from greysheep.system.checks import MOST_SEED
from greysheep.tuning.score import OBJECTIVES, Score

OWN = ("seed", "progress", "objective")
"""Settings of a run that options of `tune` itself decide."""
STOPPING = {"mean": "mean-ndcg", "worst": "mean-ndcg:worst", "no-harm": "mean-ndcg"}
"""What early stopping maximises under each objective."""
MACHINE = ("device", "threads")
"""Options of the machine, which do not change a trial's result."""
GATE_SETTINGS = ("gate", "temperature", "shrinkage")


class TuneRequest(Request):
    """The request of a search; its construction checks all that can be checked without data.

    >>> list(TuneRequest(model="ease-weighted", fixed={"user_power": 0.5}).plan.dimensions)
    ['regularization', 'item_power', 'relax']

    Raises:
        ConfigError: something in it is not possible; the message says what is.
        MissingExtraError: Optuna is not installed.
    """

    model: str
    """Registry name or variant; what a variant names is not searched."""
    protocol: str = "strict"
    seed: int = Field(0, ge=0, le=MOST_SEED)
    """Of the split, the sampler and every training."""
    objective: str = "mean"
    trials: int | None = None
    """How many in all; None = no limit."""
    minutes: float | None = 20
    """Time of one call; None = no limit."""
    reference: str | None = None
    """Model that `no-harm` measures against; None = chosen by the model."""
    margin: float = Field(0.02, ge=0, lt=1)
    """Relative loss that `no-harm` allows."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Settings and run options of every trial."""
    epochs: int | None = None
    """The most epochs of a trial."""

    @cached_property
    def plan(self) -> Plan:
        """The plan that follows from the request."""
        return Plan.of(self)

    @model_validator(mode="after")
    def _check(self) -> TuneRequest:
        if find_spec("optuna") is None:
            raise MissingExtraError("tune", "tuning")
        if self.trials is None and self.minutes is None:
            raise ConfigError("tune needs an end: give trials, minutes or both")
        if self.trials is not None and self.trials < 1:
            raise ConfigError(f"trials={self.trials!r} is not a whole number from 1 up")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"minutes={self.minutes:g} is not a time above 0")
        if self.protocol == "all":
            raise ConfigError(
                "tune needs validation rows that no model trains on, and under protocol 'all' closed forms "
                f"do: use {' or '.join(TESTED)}"
            )
        Protocol.parse(self.protocol)
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"objective {self.objective!r} of tune is none of {', '.join(OBJECTIVES)}")
        if self.reference is not None and self.objective != "no-harm":
            raise ConfigError(
                f"reference={self.reference!r} belongs to objective 'no-harm', not {self.objective!r}"
            )
        assert self.plan
        return self


@dataclass(frozen=True)
class Plan:
    """What a request leads to: fixed settings, searched dimensions, first trials."""

    request: TuneRequest
    model: str
    """Registry name."""
    fixed: dict[str, Any]
    """Settings and run options that every trial has."""
    dimensions: dict[str, Dimension]
    first: tuple[dict[str, Any], ...]
    """Changes of the defaults to try first; the first of them is no change."""
    reference: str | None
    """Model that `no-harm` measures against; None for the other objectives."""
    unfair: tuple[str, ...] = ()
    """Dimensions left out under `paper`, where a gate reads the very rows it would be judged on."""

    @classmethod
    def of(cls, request: TuneRequest) -> Plan:
        """The plan of a request.

        Raises:
            ConfigError: a setting cannot be, or there is nothing to search.
        """
        named = parse(request.model)
        fixed = _fixed(request, named)
        dimensions = {key: one for key, one in named.search_space.items() if key not in fixed}
        unfair = tuple(key for key in dimensions if key in GATE_SETTINGS and request.protocol == "paper")
        dimensions = {key: one for key, one in dimensions.items() if key not in unfair}
        if not dimensions:
            why = (
                "every setting that could be searched is fixed"
                if named.search_space
                else "it has no settings"
            )
            raise ConfigError(f"there is nothing to tune in {request.model}: {why}")
        starts = tuple(start for start in named.search_starts if start.keys() <= dimensions.keys())
        reference = request.reference
        if request.objective == "no-harm":
            reference = reference or ("multvae" if isinstance(named, IterativeModel) else named.name)
            parse(reference, seed=request.seed)
        return cls(request, named.name, fixed, dimensions, ({}, *starts), reference, unfair)

    @property
    def iterative(self) -> bool:
        """Whether a trial can be ended between its epochs."""
        return issubclass(REGISTRY[self.model], IterativeModel)

    def value(self, score: Score, reference: Score | None) -> float:
        """The number to maximise."""
        return score.value(self.request.objective, reference, self.request.margin)

    def create(self, settings: Mapping[str, Any], progress: bool | None) -> Model:
        """An unfitted model of a trial."""
        return create(self.model, **{**self.fixed, **settings}, seed=self.request.seed, progress=progress)

    def defaults(self) -> dict[str, Any]:
        """Every setting of the model as it is without a search."""
        return dict(self.create({}, False).config)

    def complete(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults with changes, cut down to the dimensions that then apply."""
        settings = {**self.defaults(), **changes}
        return {name: settings[name] for name, one in self.dimensions.items() if one.applies(settings)}

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Ask the sampler for one value per dimension that applies, in their order."""
        settings, chosen = self.defaults(), dict[str, Any]()
        for name, dimension in self.dimensions.items():
            if dimension.applies(settings):
                settings[name] = chosen[name] = dimension.suggest(trial, name)
        return chosen

    def differences(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Fixed and chosen settings that are not the model's own defaults."""
        plain = dict(create(self.model).config)
        mine = {**self.fixed, **settings}
        return {
            key: value for key, value in mine.items() if key not in MACHINE and plain.get(key, ...) != value
        }

    def text(self, settings: Mapping[str, Any]) -> str:
        """The model as `name[key=value,...]`, which `compare` and `fit` take."""
        changes = [f"{key}={_yaml(value)}" for key, value in self.differences(settings).items()]
        return f"{self.model}[{','.join(changes)}]" if changes else self.model

    def identity(self) -> dict[str, str]:
        """What must be the same for a search to go on."""
        fixed = {key: value for key, value in self.fixed.items() if key not in MACHINE}
        return {
            "model": self.model,
            "objective": self.request.objective,
            "seed": str(self.request.seed),
            "fixed settings": _yaml(fixed),
            "reference": str(self.reference),
            "margin": str(self.request.margin if self.request.objective == "no-harm" else None),
            "search space": str(self.dimensions),
        }


def _fixed(request: TuneRequest, named: Model) -> dict[str, Any]:
    """What a variant names, what the request fixes, and what its objective implies for early stopping.

    Raises:
        ConfigError: a setting is not the model's, is decided elsewhere, or has an impossible value.
    """
    fixed = {key: getattr(named.config, key) for key in named.config.model_fields_set}
    fixed |= {key: getattr(named.options, key) for key in named.options.model_fields_set} | request.fixed
    for key in ("preset", "label", "self"):
        if key in fixed:
            raise ConfigError(
                f"setting {key!r} cannot be fixed; a preset is part of the model: tall[preset=ml-1m]"
            )
    for key in OWN:
        if key in fixed:
            raise ConfigError(f"setting {key!r} cannot be fixed: tune has an option {key!r} of its own")
    if request.epochs is not None:
        fixed["epochs"] = request.epochs
    if "objective" in type(named.config).model_fields:
        fixed["objective"] = STOPPING[request.objective]
    model = create(named.name, **fixed, seed=request.seed)
    # as the config holds them: '3' given for a number is 3 in every label and file
    return {
        key: getattr(model.options if key in RunOptions.model_fields else model.config, key) for key in fixed
    }


def _yaml(value: Any) -> str:
    """A value as one line of YAML: 1.0e-05, which YAML reads as a number, not 1e-05, a text.

    >>> _yaml(1e-05), _yaml("loss"), _yaml({"a": 1})
    ('1.0e-05', 'loss', '{a: 1}')
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").strip()
