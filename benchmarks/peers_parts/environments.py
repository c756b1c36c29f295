"""Each library in an environment of its own, from wheels only, made when it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

from stage import ROOT

from greysheep.errors import GreysheepError
from greysheep.system.files import write_text
from greysheep.system.machine import THREAD_VARIABLES

OURS = "greysheep"
LEFT_OUT = ("PYTHONPATH", "PYTHONHOME", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Of the caller's environment: other code, and kernels of OpenBLAS that are not the machine's best."""


@dataclass(frozen=True)
class Peer:
    """A library, what is installed for it, and what is set for its processes."""

    title: str
    needs: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


PEERS = {
    "lenskit": Peer("LensKit 2025.8.1", ("lenskit==2025.8.1",)),
    # pyarrow reads the log file; RecTools holds NumPy below 2
    "rectools": Peer("RecTools 0.19.0", ("rectools==0.19.0", "pyarrow<20")),
    "implicit": Peer("implicit 0.7.3", ("implicit==0.7.3", "pyarrow"), {"OPENBLAS_NUM_THREADS": "1"}),
    "cornac": Peer("Cornac 3.0.1", ("cornac==3.0.1", "torch")),
    # its release is older than NumPy 2, pandas 2.2 and SciPy 1.12, and uses what these took away
    "recbole": Peer("RecBole 1.2.1", ("recbole==1.2.1", "numpy<2", "pandas<2.2", "scipy<1.12")),
    "ranx": Peer("ranx 0.3.21", ("ranx==0.3.21", "pyarrow")),
}


class NotInstalledError(GreysheepError):
    """A library has no environment here; the message says why."""


def python_of(name: str, envs: Path, *, install: bool) -> str:
    """The Python of a library's environment; makes the environment first, where that is allowed.

    Raises:
        NotInstalledError: there is none, or pip cannot install the library from wheels.
    """
    if name == OURS:
        return sys.executable
    folder, needs = envs / name, " ".join(PEERS[name].needs)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    made = folder / "needs.txt"  # the last file written: an environment without it is not whole
    if python.exists() and made.exists() and made.read_text() == needs:
        return str(python)
    if not install:
        raise NotInstalledError("not installed here")
    print(f"installing {needs} in {folder}", file=sys.stderr, flush=True)
    venv.create(folder, clear=True, symlinks=os.name != "nt", with_pip=True)
    # torch only as greysheep itself pins it
    pip = [str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:", "-c", "constraints.txt"]
    done = subprocess.run(  # nosec B603  # the requirements are those above
        [*pip, *PEERS[name].needs], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NotInstalledError("pip: " + (errors or done.stderr.splitlines() or ["it said nothing"])[-1])
    write_text(made, needs)
    return str(python)


def variables(name: str, threads: int) -> dict[str, str]:
    """The environment variables of a library's processes: so many threads, and no other code on the path."""
    counts = (*THREAD_VARIABLES, "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
    kept = {key: value for key, value in os.environ.items() if key not in LEFT_OUT}
    own = {"PYTHONPATH": str(ROOT / "src")} if name == OURS else PEERS[name].variables
    return kept | dict.fromkeys(counts, str(threads)) | own
