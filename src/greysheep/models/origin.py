"""Where a user's own model class is defined, so that another process can import it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from greysheep.errors import ConfigError

MAIN = "__main__"


def module_of(kind: type) -> str | None:
    """Name under which the module of a class is imported; None for greysheep's own classes.

    The script that runs has the name of its file; what a session defines stays in `__main__`.
    """
    if kind.__module__.partition(".")[0] == "greysheep":
        return None
    if kind.__module__ != MAIN:
        return kind.__module__
    main = sys.modules[MAIN]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:  # python -m
        return str(spec.name)
    return MAIN if file is None else Path(file).stem


def source_of(kind: type) -> tuple[str, str] | None:
    """Module of a class, and the folder from which it is imported; None for greysheep's own classes.

    Raises:
        ConfigError: the class is defined in a session, where no other process finds it.
    """
    module = module_of(kind)
    if module is None:
        return None
    if module == MAIN:
        raise ConfigError(
            f"class {kind.__qualname__} is defined in a session, and the processes of its runs cannot "
            "import it: put it in a file"
        )
    top = sys.modules.get(module.partition(".")[0], sys.modules[MAIN])
    package = getattr(top, "__path__", None)
    place = Path(next(iter(package)) if package else str(top.__file__))
    return module, str(place.resolve().parent)


def import_source(module: str, folder: str) -> None:
    """Import a module, found in `folder` if nowhere else.

    Raises:
        ConfigError: it cannot be imported.
    """
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that nothing there shadows other modules
    try:
        import_module(module)
    except (ImportError, ConfigError) as error:
        raise ConfigError(
            f"module {module} cannot be imported: {error} (what a script does stands below "
            '`if __name__ == "__main__":`)'
        ) from error
