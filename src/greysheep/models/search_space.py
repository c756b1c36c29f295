"""What `tune` may change of a model: one dimension per setting, kept in the model's class.

`Model.search_space` maps a setting's name to its dimension. A condition (`when`) reads settings that come
before it. `Model.search_starts` are settings to try first, right after the defaults and each on top of them:
where a trial takes minutes, only these are reached, so the most effective change comes first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Dimension(ABC):
    """Values that one setting may take."""

    when: tuple[str, tuple[Any, ...]] | None = field(default=None, kw_only=True)
    """Name of an earlier setting and the values of it under which this one matters; None = always."""

    def applies(self, settings: Mapping[str, Any]) -> bool:
        """Whether this setting does anything beside the others."""
        return self.when is None or settings[self.when[0]] in self.when[1]

    @abstractmethod
    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """Ask the sampler for a value."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether the value can be suggested."""


@dataclass(frozen=True)
class Real(Dimension):
    """A number from `low` to `high`, both included, in three significant digits.

    >>> Real(0.1, 300, log=True).holds(1000)
    False
    """

    low: float
    high: float
    log: bool = field(default=False, kw_only=True)
    """Equal ratios are equally likely, not equal differences."""

    def suggest(self, trial: BaseTrial, name: str) -> float:
        """Ask for a value; what is trained is the rounded one, so that a label can hold it."""
        return float(f"{trial.suggest_float(name, self.low, self.high, log=self.log):.3g}")

    def holds(self, value: Any) -> bool:
        """Whether it lies between the bounds."""
        return bool(self.low <= value <= self.high)


@dataclass(frozen=True)
class Whole(Dimension):
    """A whole number from `low` to `high`, both included; `log` as in `Real`, then without a step."""

    low: int
    high: int
    step: int = field(default=1, kw_only=True)
    log: bool = field(default=False, kw_only=True)

    def suggest(self, trial: BaseTrial, name: str) -> int:
        """Ask for a value."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether it lies between the bounds, on a step."""
        return bool(self.low <= value <= self.high and (value - self.low) % self.step == 0)


@dataclass(frozen=True)
class Choice(Dimension):
    """One of a few values: texts, numbers, booleans or None.

    >>> Choice(("loss", "uniform"), when=("n_experts", (10, 20))).applies({"n_experts": 1})
    False
    """

    options: tuple[str | float | bool | None, ...]

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """Ask for a value."""
        return trial.suggest_categorical(name, list(self.options))

    def holds(self, value: Any) -> bool:
        """Whether it is one of them."""
        return value in self.options
