"""What is searched: the model, what stays fixed, the dimensions, and what is tried first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from greysheep.data.splitting import PROTOCOLS
from greysheep.errors import ConfigError
from greysheep.models import REGISTRY, Model, create, parse
from greysheep.models.base import IterativeModel
from greysheep.models.config import RunOptions
from greysheep.models.search_space import Dimension
from greysheep.tuning.score import OBJECTIVES, Score

OWN = {"seed": "seed", "progress": "progress", "objective": "objective"}
"""Settings of a run that options of `tune` itself decide."""
STOPPING = {"mean": "mean-ndcg", "worst": "mean-ndcg:worst", "no-harm": "mean-ndcg"}
"""What early stopping maximises under each objective."""
MACHINE = ("device", "threads")
"""Options that say where a trial runs, not what it is."""
GATE_SETTINGS = ("gate", "temperature", "shrinkage")


@dataclass(frozen=True)
class Plan:
    """A checked request; everything in it was possible before any data were read."""

    model: str
    """Registry name."""
    fixed: dict[str, Any]
    """Settings and run options that every trial has."""
    dimensions: dict[str, Dimension]
    first: tuple[dict[str, Any], ...]
    """Changes of the defaults to try first; the first of them is no change."""
    objective: str
    margin: float
    reference: str | None
    """Model that `no-harm` measures against; None for the other objectives."""
    seed: int
    unfair: tuple[str, ...] = ()
    """Dimensions left out under `paper`, where a gate reads the very rows it would be judged on."""

    @property
    def iterative(self) -> bool:
        """Whether a trial can be ended between its epochs."""
        return issubclass(REGISTRY[self.model], IterativeModel)

    def value(self, score: Score, reference: Score | None) -> float:
        """The number to maximise."""
        return score.value(self.objective, reference, self.margin)

    def create(self, settings: Mapping[str, Any], progress: bool | None) -> Model:
        """An unfitted model of a trial."""
        return create(self.model, **{**self.fixed, **settings}, seed=self.seed, progress=progress)

    def defaults(self) -> dict[str, Any]:
        """Every setting of the model as it is without a search."""
        return dict(self.create({}, False).config)

    def complete(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults with changes, cut down to the dimensions that then apply."""
        settings = {**self.defaults(), **changes}
        return {name: settings[name] for name, way in self.dimensions.items() if way.applies(settings)}

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Ask the sampler for one value a dimension, conditions first."""
        settings, chosen = self.defaults(), dict[str, Any]()
        for name, way in self.dimensions.items():
            if way.applies(settings):
                settings[name] = chosen[name] = way.suggest(trial, name)
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
            "objective": self.objective,
            "seed": str(self.seed),
            "fixed settings": _yaml(fixed),
            "reference": str(self.reference),
            "margin": str(self.margin if self.objective == "no-harm" else None),
            "search space": str(self.dimensions),
        }


def plan(
    model: str,
    *,
    objective: str,
    protocol: str,
    seed: int,
    fixed: Mapping[str, Any],
    epochs: int | None,
    reference: str | None,
    margin: float,
) -> Plan:
    """Check a request.

    Raises:
        ConfigError: something in it cannot be; the message says what can.
    """
    if protocol == "all":
        raise ConfigError(
            "tune needs validation rows that no model trains on, and under protocol 'all' closed forms do: "
            "use strict, paper or temporal"
        )
    if protocol not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {protocol!r}; tune takes strict, paper or temporal")
    if objective not in OBJECTIVES:
        raise ConfigError(f"objective {objective!r} of tune is none of {', '.join(OBJECTIVES)}")
    if not 0 <= margin < 1:
        raise ConfigError(f"margin={margin!r} is not a share from 0 up to 1")
    if reference is not None and objective != "no-harm":
        raise ConfigError(f"reference={reference!r} belongs to objective 'no-harm', not {objective!r}")
    named = parse(model)
    stays = {key: getattr(named.config, key) for key in named.config.model_fields_set}
    stays |= {key: getattr(named.options, key) for key in named.options.model_fields_set} | dict(fixed)
    for key in ("preset", "label", "self"):
        if key in stays:
            raise ConfigError(
                f"setting {key!r} cannot be fixed; a preset is part of the model: tall[preset=ml-1m]"
            )
    for key in OWN:
        if key in stays:
            raise ConfigError(f"setting {key!r} cannot be fixed: tune has an option {OWN[key]!r} of its own")
    if epochs is not None:
        stays["epochs"] = epochs
    if "objective" in type(named.config).model_fields:
        stays["objective"] = STOPPING[objective]
    made = create(named.name, **stays, seed=seed)
    # as the config holds them: '3' given for a number is 3 in every label and file
    stays = {
        key: getattr(made.options if key in RunOptions.model_fields else made.config, key) for key in stays
    }
    dimensions = {key: way for key, way in named.search_space.items() if key not in stays}
    unfair = tuple(key for key in dimensions if key in GATE_SETTINGS and protocol == "paper")
    dimensions = {key: way for key, way in dimensions.items() if key not in unfair}
    if not dimensions:
        why = "every setting that could be searched is fixed" if named.search_space else "it has no settings"
        raise ConfigError(f"there is nothing to tune in {model}: {why}")
    starts = tuple(start for start in named.search_starts if start.keys() <= dimensions.keys())
    if objective == "no-harm":
        reference = reference or ("multvae" if isinstance(named, IterativeModel) else named.name)
        parse(reference, seed=seed)
    return Plan(named.name, stays, dimensions, ({}, *starts), objective, margin, reference, seed, unfair)


def _yaml(value: Any) -> str:
    """A value as one line of YAML: 1.0e-05, which YAML reads as a number, not 1e-05, a text.

    >>> _yaml(1e-05), _yaml("loss"), _yaml({"a": 1})
    ('1.0e-05', 'loss', '{a: 1}')
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").strip()
