"""The models by name: made from a name, from a text, or from a folder; a user's own as well as greysheep's.

A class is known once its module was imported. An installed package makes its model known to every process,
those of `compare` and of the command line among them, by an entry point in the group `greysheep.models` that
has the model's name.
"""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from greysheep.errors import ConfigError, ModelFolderError, SealError
from greysheep.models import folder
from greysheep.models.base import REGISTRY, Model
from greysheep.models.config import RunOptions, read_settings, split_outside
from greysheep.models.folder_checks import TENSORS, reading
from greysheep.models.origin import source_of
from greysheep.system.checks import a_path, flag, shown
from greysheep.system.forks import refuse_forked

GROUP = "greysheep.models"
"""Entry points of installed models."""


def find(name: str) -> type[Model]:
    """The class of a registry name; an installed one is imported on first use.

    Raises:
        ConfigError: no such model (the message names the nearest one), or it cannot be imported.
    """
    if not isinstance(name, str):
        raise ConfigError(f"a model is named by a text such as 'tall', not by {shown(name)}")
    points = {} if name in REGISTRY else {point.name: point for point in entry_points(group=GROUP)}
    if name in points:
        try:
            points[name].load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"model {name!r} is installed but cannot be imported: {error}") from error
        if name not in REGISTRY:
            raise ConfigError(f"entry point {name!r} ({points[name].value}) brings no model of that name")
    if name not in REGISTRY:
        known = sorted({*REGISTRY, *points})
        if not name:
            raise ConfigError(f"the name of a model is missing: it is one of {', '.join(known)}")
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ConfigError(f"there is no model {name!r}; the nearest is {near[0]!r} of {', '.join(known)}")
    return REGISTRY[name]


def known(name: str) -> bool:
    """Whether there is a model of that name, imported or installed."""
    return name in REGISTRY or bool(entry_points(group=GROUP, name=name))


def create(name: str, /, **keywords: Any) -> Model:
    """Make a model by its registry name.

    Raises:
        ConfigError: no such model; the message names the nearest one.

    >>> create("tall", n_experts=4).config.n_experts
    4
    """
    return find(name)(**keywords)


def parse(text: str, /, **keywords: Any) -> Model:
    """Make a model from `name` or `name[key=value,...]`; the text becomes its label.

    >>> parse("tall[gate=uniform,n_experts=4]").label
    'tall[gate=uniform,n_experts=4]'
    """
    if not isinstance(text, str):
        raise ConfigError(f"a model is a text such as 'ease' or 'tall[gate=uniform]', not {shown(text)}")
    name, bracket, rest = text.strip().partition("[")
    if bracket and not rest.endswith("]"):
        raise ConfigError(f"{text!r}: a variant is written name[key=value,...]")
    try:
        own = read_settings(filter(None, split_outside(rest[:-1], ",")))
    except ConfigError as error:
        raise ConfigError(f"model {text!r}: {error}") from None
    given = {**keywords, **own}
    for key in ("label", "self"):  # names in `Model.__init__` that are no settings
        if key in given:
            raise ConfigError(f"{name} has no setting {key!r}")
    return create(name, **given, label=text.strip())


def sources(text: str) -> list[tuple[str, str]]:
    """Modules of the classes in the model that a text names, with their folders; none of greysheep's.

    Another process that imports them (`origin.import_source`) can parse the text, too.

    Raises:
        ConfigError: a class is defined in a session, where no other process finds it.
    """
    model = parse(text)
    kinds = [find(part.name) for part in (model, *getattr(model, "parts", ()))]
    return [source for kind in kinds if (source := source_of(kind)) is not None]


def load(directory: str | Path, *, verify: bool = True, mapped: bool = False) -> Model:
    """Read a saved model; nothing in the folder is executed.

    A user's own class is known by its entry point, or once its module was imported: a folder names the
    module, but nothing is imported because a folder says so.

    verify: False skips the SHA-256 of the files, for large models in a place that is trusted; all else that
        is checked stays.
    mapped: True leaves the weights in their file, whose memory all processes that do so share. Replace the
        folder as you like, as `save` does; but nobody may write into its files meanwhile.

    Raises:
        ModelFolderError: the folder is missing, incomplete, damaged or of another format, or the class
            cannot be imported.
    """
    refuse_forked()
    place = a_path("directory", directory)
    if not (place / "manifest.json").is_file():
        raise ModelFolderError(f"{place} is no saved model: it has no manifest.json")
    verify, mapped = flag("verify", verify), flag("mapped", mapped)
    try:
        saved = folder.read(place, verify, mapped)
        about = saved.about
        with reading(place, folder.CONFIG):
            _know(about)
            model = create(about["model"], label=about["label"], **about["config"])
            model.options = RunOptions(**about["options"])
        model.fitted, model.user_state = saved.fitted, saved.user_state
        model.fitted.weighted = not model.binary
        with reading(place, TENSORS):
            model.take_tensors(saved.tensors)
        with reading(place, folder.USERS):
            model._check_user_state(model.user_state)
    except SealError as error:
        raise ModelFolderError(f"{place} is damaged or incomplete: {error}") from error
    return model


def _know(about: dict[str, Any]) -> None:
    """Refuse a user's own class that is neither imported nor installed.

    Raises:
        ConfigError: it is not; the message names its module.
    """
    name, origin = about["model"], about.get("class")
    if origin is not None and not known(name):
        module = str(origin).partition(":")[0]
        raise ConfigError(f"its class {origin} is not known here: import {module} first, or install it")
