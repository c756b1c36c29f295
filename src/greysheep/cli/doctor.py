"""What greysheep runs on: versions, cores, memory, threads, extras, data, and the fix for a wrong setting."""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import typer

from greysheep.system.machine import THREAD_VARIABLES, own_version, total_bytes, usable_cores


def doctor() -> None:
    """Print what greysheep runs on, and the exact fix for whatever is set wrong."""
    for fact in facts():
        typer.echo(str(fact))


@dataclass(frozen=True)
class Fact:
    """One line of the report; `fix` is what to do when the value is not good."""

    name: str
    value: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.name:<22} {self.value}"
        return f"{line}\n{'':<22} -> {self.fix}" if self.fix else line


def facts() -> list[Fact]:
    """Everything worth knowing before a bug report or a long run. Imports torch."""
    import numpy
    import torch

    cores = usable_cores()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: training runs on the CPU"
    return [
        Fact("greysheep", own_version()),
        Fact("python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        Fact("torch", torch.__version__),
        Fact("numpy", f"{numpy.__version__}, BLAS {_numpy_blas()}"),
        *(Fact(name, _version(name)) for name in ("scipy", "polars", "pyarrow")),
        Fact("cores", f"{cores} usable of {os.cpu_count()}"),
        Fact("memory", f"{total_bytes() / 2**30:.1f} GiB"),
        Fact("torch threads", str(torch.get_num_threads())),
        *thread_facts(os.environ, cores),
        Fact("cuda", gpu),
        *extras(),
        data_folder(),
    ]


def thread_facts(environment: Mapping[str, str], cores: int) -> Iterator[Fact]:
    """Judge the thread variables of an environment.

    Examples:
        >>> for fact in thread_facts({"OMP_NUM_THREADS": "8"}, cores=2):
        ...     print(fact)
        OMP_NUM_THREADS        8, more than the 2 cores: threads wait for each other
                               -> export OMP_NUM_THREADS=2
    """
    for name in THREAD_VARIABLES:
        text = environment.get(name)
        if text is None:
            continue
        wanted = int(text) if text.isdecimal() else 0
        if wanted < 1:
            yield Fact(name, f"{text!r}, not a number of threads", f"unset {name}")
        elif wanted > cores:
            reason = f"{wanted}, more than the {cores} cores: threads wait for each other"
            yield Fact(name, reason, f"export {name}={cores}")
        elif wanted == 1 and cores > 1:
            yield Fact(name, f"1, so one core of {cores} works and training is slow", f"unset {name}")
        else:
            yield Fact(name, text)


def extras() -> Iterator[Fact]:
    """Which optional parts are installed, read from the package's own metadata."""
    wanted: dict[str, list[str]] = {}
    for line in metadata.requires("greysheep") or []:
        match = re.match(r"([A-Za-z0-9._-]+).*extra == ['\"]([a-z]+)['\"]", line)
        if match and match[1] != "greysheep":
            wanted.setdefault(match[2], []).append(match[1])
    for extra, packages in sorted(wanted.items()):
        absent = [name for name in packages if not _version(name)]
        missing = f"not installed ({', '.join(absent)}): pip install 'greysheep[{extra}]'"
        yield Fact(f"extra {extra}", missing if absent else "installed")


def _numpy_blas() -> str:
    import numpy

    build = numpy.show_config(mode="dicts")
    blas = build.get("Build Dependencies", {}).get("blas", {}) if isinstance(build, dict) else {}
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def data_folder() -> Fact:
    """Where the named data sets are looked for, and which are there."""
    folder = Path(os.environ.get("GREYSHEEP_DATA") or "../shared/data").expanduser()
    if not folder.is_dir():
        return Fact("data folder", f"{folder} (not found): set GREYSHEEP_DATA to use the large data sets")
    sets = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    return Fact("data folder", f"{folder}: {', '.join(sets) or 'empty'}")
