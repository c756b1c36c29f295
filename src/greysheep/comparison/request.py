"""The request of a comparison; its construction checks all that can be checked without the log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from greysheep.data.protocols import TESTED, Protocol, has_test_rows
from greysheep.errors import ConfigError
from greysheep.models import parse
from greysheep.models.config import Request
from greysheep.models.registry import known, sources
from greysheep.system.checks import MOST_THREADS, seed_number, shown

NAME = re.compile(r"[^\[\]=,\n]*[^\[\]=,\s][^\[\]=,\n]*")
MOST_SEEDS = 1000
"""The most seeds of a comparison: `seeds=2024` is a mistake for `seeds=[2024]`."""


class CompareRequest(Request):
    """The request of a comparison.

    >>> request = CompareRequest(models=["popular", "small=tall[n_experts=2]"], seeds=2)
    >>> request.models, request.seeds, request.reference
    ({'popular': 'popular', 'small': 'tall[n_experts=2]'}, [0, 1], 'popular')

    Raises:
        ConfigError: something in it is not possible; the message says what is.
    """

    models: dict[str, str] = Field(strict=False)
    """Label -> registry name or variant; given as such, or as texts NAME=MODEL or MODEL."""
    protocol: str = "strict"
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2], strict=False)
    """Given as how many (3 = 0, 1, 2), or as a list."""
    k: int = Field(20, ge=1)
    """Length of the lists that the tables are about."""
    shorter: list[int] = Field(default_factory=list)
    """Further lengths that each run is measured at."""
    reference: str = Field("", strict=False, validate_default=True)
    """Label of the model to compare with; the first one if not given."""
    margin: float = Field(0.02, ge=0, lt=1)
    """Relative loss that still counts as no harm."""
    max_minutes: float | None = Field(None, ge=0)
    """No run is started later than this."""
    jobs: int = Field(1, ge=1, le=MOST_THREADS)
    """Runs at a time."""

    @cached_property
    def configs(self) -> dict[str, Any]:
        """The config of each label, as JSON has it."""
        return {label: parse(text).config.model_dump(mode="json") for label, text in self.models.items()}

    @field_validator("models", mode="before")
    @classmethod
    def _labelled(cls, models: Any) -> dict[str, str]:
        texts = joined(models) if isinstance(models, Mapping) else models
        try:
            texts = split_texts(texts) if isinstance(texts, str) else list(texts)
        except TypeError:
            raise ConfigError(f"models={shown(models)}: give a list of texts, or {{name: text}}") from None
        if not texts:
            raise ConfigError("a comparison needs at least one model, for example --models multvae,tall")
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise ConfigError(
                f"models are texts such as 'ease' or 'tall[gate=uniform]', not {shown(strange[0])}"
            )
        labelled: dict[str, str] = {}
        for label, text in map(named, texts):
            if label in labelled:
                raise ConfigError(f"model {label!r} is named twice: give each model or variant once")
            if label != text and not NAME.fullmatch(label):
                raise ConfigError(f"{label}={text}: {label!r} is no name for a model")
            if label != text and known(label):
                raise ConfigError(f"{label}={text}: {label!r} is the name of another model; take a new one")
            if re.search(r"[\[,]\s*seed\s*=", text):
                raise ConfigError(f"model {text!r}: every model gets the comparison's seeds (--seeds)")
            labelled[label] = text
        return labelled

    @field_validator("seeds", mode="before")
    @classmethod
    def _listed(cls, seeds: Any) -> list[int]:
        many = isinstance(seeds, Integral) and not isinstance(seeds, bool)
        if many and seeds > MOST_SEEDS:
            raise ConfigError(f"seeds={seeds} are too many: at most {MOST_SEEDS}, or a list of those to take")
        try:
            listed = list(range(seeds)) if many else [seed_number(seed) for seed in seeds]
        except (ConfigError, TypeError):
            listed = []
        if not listed or len(set(listed)) < len(listed):
            raise ConfigError(
                f"seeds={shown(seeds)}: give how many (3 = 0, 1, 2), or a list of different ones, below 2**64"
            )
        return listed

    @field_validator("protocol")
    @classmethod
    def _with_test_rows(cls, protocol: str) -> str:
        if not has_test_rows(protocol):
            raise ConfigError(f"compare needs test rows: protocol {' or '.join(TESTED)}, not {protocol!r}")
        return str(Protocol.parse(protocol))

    @field_validator("reference", mode="before")
    @classmethod
    def _among_the_models(cls, reference: str | None, info: ValidationInfo) -> str:
        labels = list(info.data["models"])
        text = reference.strip() if isinstance(reference, str) else None
        if reference is not None and (text is None or text not in ["", *labels]):
            raise ConfigError(f"reference {shown(reference)} is none of the models: {', '.join(labels)}")
        return text or labels[0]

    @model_validator(mode="after")
    def _models_can_be_made(self) -> CompareRequest:
        assert self.configs
        for text in self.models.values():
            sources(text)  # refuses a class that the runs' processes could not import
        return self


def split_texts(text: str) -> list[str]:
    """Cut a list of models at its commas, but not at those within brackets.

    >>> split_texts("multvae, tall[gate=uniform,n_experts=4],")
    ['multvae', 'tall[gate=uniform,n_experts=4]']
    """
    parts, depth, start = [], 0, 0
    for position, sign in enumerate(text):
        depth += (sign == "[") - (sign == "]")
        if sign == "," and depth <= 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def named(text: str) -> tuple[str, str]:
    """Take apart NAME=MODEL; a text without a name is its own.

    >>> named("small=tall[n_experts=4]"), named("tall[n_experts=4]")
    (('small', 'tall[n_experts=4]'), ('tall[n_experts=4]', 'tall[n_experts=4]'))
    """
    name, equals, model = (part.strip() for part in text.partition("="))
    return (name, model) if equals and "[" not in name else (text.strip(), text.strip())


def joined(models: Mapping[str, str]) -> list[str]:
    """Put names and models together to texts, which `named` takes apart; a model may be its own name.

    Raises:
        ConfigError: a name is empty, or has a sign that would be read otherwise.
    """
    for name, model in models.items():
        if name != model and not (isinstance(name, str) and NAME.fullmatch(name)):
            raise ConfigError(f"{name!r} is no name for a model: take words without = , [ ]")
    return [model if name == model else f"{name}={model}" for name, model in models.items()]


def read_texts(values: Iterable[str]) -> list[str]:
    """Read what `--models` was given: lists of models, or @FILE with a YAML list, or names and models.

    Raises:
        ConfigError: a file is missing or holds no list of texts.
    """
    texts: list[str] = []
    for value in values:
        texts += _of_file(Path(value[1:])) if value.startswith("@") else split_texts(value)
    return texts


def _of_file(path: Path) -> list[str]:
    try:
        texts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"file of models {path} is no YAML") from None
    except OSError as error:
        raise ConfigError(f"file of models {path} cannot be read: {error.strerror}") from None
    if isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()):
        return joined(texts)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        lines = "`- tall[gate=uniform]` or `flat: tall[gate=uniform]` lines"
        raise ConfigError(f"file of models {path} is neither a list of texts nor names and texts ({lines})")
    return texts


def read_seeds(text: str) -> int | list[int]:
    """Read `--seeds`: a number of seeds, or a list with commas.

    >>> read_seeds("3"), read_seeds("4,7"), read_seeds("4,")
    (3, [4, 7], [4])

    Raises:
        ConfigError: it is neither.
    """
    try:
        return [int(part) for part in text.split(",") if part.strip()] if "," in text else int(text)
    except ValueError:
        raise ConfigError(f"--seeds {text}: give how many (3 = 0, 1, 2), or a list such as 4,7") from None
