"""Settings: what defines a model (its config) and how one run is made (RunOptions)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from greysheep.errors import ConfigError
from greysheep.system.checks import MOST_SEED, MOST_THREADS, shown

MANY = 1_000_000_000
"""Upper bound of counts that the log or the patience of a person limits anyway: what is above is a slip."""


class Plain(BaseModel):
    """Base of all settings: NumPy's scalars count as Python's, true and false not as numbers."""

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        name = info.field_name
        if isinstance(value, bool) and name and bool not in _types(cls.model_fields[name].annotation):
            raise PydanticCustomError("no_flag", "true and false mean nothing here")
        return value


def _types(annotation: Any) -> set[Any]:
    """The types in an annotation such as `int | None`."""
    return {annotation}.union(*map(_types, get_args(annotation)))


class ModelConfig(Plain):
    """Base of every model's config: frozen, strict about names, a docstring under each field.

    Every number has a lower and an upper bound, so that no setting alone makes scores overflow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class RunOptions(Plain):
    """How a run is made; none of it is part of what the model is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(0, ge=0, le=MOST_SEED)
    """Seed of everything random: the split (when `fit` makes one), initial weights, batches, noise."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`."""
    threads: int | None = Field(None, ge=1, le=MOST_THREADS)
    """CPU threads of training and scoring; None leaves torch's choice, one per core. One-time computations
    (mainstream scores, the solver of a closed form) may use more."""
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    """Number type of parameters and losses. `bfloat16` is float32 but for the factors of the experts' large
    products: for GPUs; a CPU only emulates it, slowly."""
    progress: bool | None = None
    """True: bar on a terminal, one line per epoch elsewhere. False: silent. None: bar on a terminal only."""


class Request(Plain):
    """Base of the requests to `compare` and `tune`; an invalid one raises a ConfigError of one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            owner = type(self).__name__.removesuffix("Request").lower()
            raise ConfigError(one_line(error, owner)) from None


Settings = TypeVar("Settings", bound=BaseModel)


def build(kind: type[Settings], values: dict[str, Any], owner: str) -> Settings:
    """Validate `values` into `kind`; pydantic's errors become a ConfigError of one line.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError(one_line(error, owner)) from None


def one_line(error: ValidationError, owner: str) -> str:
    """The first complaint, and how many more there are."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{owner}: {key}={shown(first['input'])} is not possible: {message}{more}"


def divide(config: type[ModelConfig], keywords: dict[str, Any], owner: str) -> tuple[ModelConfig, RunOptions]:
    """Give each keyword to the config or to the run options, by name.

    Raises:
        ConfigError: a keyword is known to neither; the message names the nearest known one.
    """
    known = {**config.model_fields, **RunOptions.model_fields}
    for key in keywords:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ConfigError(f"{owner} has no setting {key!r}; the nearest one is {near[0]!r}")
    mine = {key: value for key, value in keywords.items() if key in config.model_fields}
    run = {key: value for key, value in keywords.items() if key not in mine}
    return build(config, mine, owner), build(RunOptions, run, owner)


def split_outside(text: str, mark: str) -> tuple[str, ...]:
    """The parts of a text between marks that stand in no brackets.

    >>> split_outside("ease[form=items,regularization=9]+userknn", "+")
    ('ease[form=items,regularization=9]', 'userknn')
    """
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        depth += (sign == "[") - (sign == "]")
        if sign == mark and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return (*parts, text[start:].strip())


def read_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` texts; values are YAML, so numbers, true and null mean what they say.

    Raises:
        ConfigError: a text has no `=`, or its value is no YAML.

    >>> read_settings(["n_experts=4", "gate=uniform", "learning_rate=0.01"])
    {'n_experts': 4, 'gate': 'uniform', 'learning_rate': 0.01}
    """
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"setting {text!r} is not of the form KEY=VALUE")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"setting {text!r}: the value is no YAML") from None
    return values
