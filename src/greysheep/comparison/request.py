"""What was asked for: texts of models and numbers, every one tried before anything is run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from greysheep.errors import ConfigError

NAME = re.compile(r"[^\[\]=,\n]*[^\[\]=,\s][^\[\]=,\n]*")


def split_texts(text: str) -> list[str]:
    """Cut a list of models at its commas, but not at those within brackets.

    >>> split_texts("multvae, tall[gate=uniform,n_experts=4],")
    ['multvae', 'tall[gate=uniform,n_experts=4]']
    """
    found, depth, begun = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign == "[") - (sign == "]")
        if sign == "," and depth <= 0:
            found.append(text[begun:place])
            begun = place + 1
    return [part.strip() for part in (*found, text[begun:]) if part.strip()]


def named(text: str) -> tuple[str, str]:
    """Take apart NAME=MODEL; a text without a name is its own.

    >>> named("small=tall[n_experts=4]"), named("tall[n_experts=4]")
    (('small', 'tall[n_experts=4]'), ('tall[n_experts=4]', 'tall[n_experts=4]'))
    """
    name, equals, model = (part.strip() for part in text.partition("="))
    return (name, model) if equals and "[" not in name else (text.strip(), text.strip())


def joined(models: Mapping[str, str]) -> list[str]:
    """Put names and models together to texts: what `named` takes apart.

    Raises:
        ConfigError: a name is empty, or has a sign that would be read otherwise.
    """
    for name in models:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name for a model: take words without = , [ ]")
    return [f"{name}={model}" for name, model in models.items()]


def read_texts(values: Iterable[str]) -> list[str]:
    """Read what `--models` was given: lists of models, or @FILE with a YAML list, or names and models.

    Raises:
        ConfigError: a file is missing or holds no list of texts.
    """
    found: list[str] = []
    for value in values:
        found += _of_file(Path(value[1:])) if value.startswith("@") else split_texts(value)
    return found


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


def check_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Make each model once, and return the config of each label as JSON has it.

    Raises:
        ConfigError: an unknown model or setting, a seed among the settings, two equal labels, or a name that
            is another model's.
    """
    from greysheep.models import parse
    from greysheep.models.registry import known, sources

    configs: dict[str, Any] = {}
    for label, text in map(named, texts):
        if label in configs:
            raise ConfigError(f"model {label!r} is named twice: give each model or variant once")
        if label != text and not NAME.fullmatch(label):
            raise ConfigError(f"{label}={text}: {label!r} is no name for a model")
        if label != text and known(label):
            raise ConfigError(f"{label}={text}: {label!r} is the name of another model; take a new one")
        if re.search(r"[\[,]\s*seed\s*=", text):
            raise ConfigError(f"model {text!r}: every model gets the comparison's seeds (--seeds)")
        configs[label] = parse(text).config.model_dump(mode="json")
        sources(text)  # a class that the runs' processes cannot import is refused before the first of them
    return configs


def check(
    texts: Sequence[str],
    *,
    protocol: str,
    k: int,
    reference: str | None,
    margin: float,
    max_minutes: float | None,
    jobs: int,
) -> str:
    """Refuse what could not be run or judged in the end; return the label of the reference.

    Raises:
        ConfigError: one of the settings is not possible.
    """
    labels = [label for label, _ in map(named, texts)]
    if not labels:
        raise ConfigError("a comparison needs at least one model, for example --models multvae,tall")
    reference = labels[0] if reference is None else reference.strip()
    known = ("strict", "paper", "temporal")
    if protocol not in known:
        raise ConfigError(f"compare needs test rows: protocol {' or '.join(known)}, not {protocol!r}")
    if reference not in labels:
        raise ConfigError(f"reference {reference!r} is none of the models: {', '.join(labels)}")
    if type(k) is not int or k < 1 or type(jobs) is not int or jobs < 1:
        raise ConfigError(f"compare needs whole numbers k >= 1 and jobs >= 1, got k={k!r}, jobs={jobs!r}")
    if not 0 <= margin < 1:
        raise ConfigError(f"margin={margin!r} is no relative loss from 0 to below 1, such as 0.02")
    if max_minutes is not None and not max_minutes >= 0:
        raise ConfigError(f"max_minutes={max_minutes!r} is no number of minutes from 0 up")
    return reference


MOST_SEEDS = 1000
"""A number meant for a list is told so, not counted up to."""


def check_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds: 3 stands for 0, 1, 2.

    >>> check_seeds(3), check_seeds([7, 5])
    ([0, 1, 2], [7, 5])

    Raises:
        ConfigError: no seed, one that is no whole number from 0 up, or one named twice.
    """
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        raise ConfigError(f"seeds={seeds} are too many: at most {MOST_SEEDS}, or a list of the ones to take")
    found = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not found or len(set(found)) < len(found) or any(type(s) is not int or s < 0 for s in found):
        raise ConfigError(f"seeds={seeds!r}: give how many (3 = 0, 1, 2), or a list of different ones")
    return found


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
