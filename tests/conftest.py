"""Settings of the whole test run."""

import json
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
import torch
from hypothesis import settings

from greysheep.comparison import worker
from greysheep.system import jobs

settings.register_profile("whole", max_examples=200, deadline=None)

# The tests' worlds are so small that a second thread only waits for the first.
torch.set_num_threads(1)

# Where matplotlib keeps its list of fonts anyway, but said before a test has another HOME for a while: else
# the first figure of the run would leave the list in that test's folder.
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))


# A package to be installed, not a room of tests: collecting it would put its folder on the path.
collect_ignore = ["toy_package"]


class RunHere:
    """Stands for the process of a run: makes the run as soon as its job is written to it."""

    returncode: int | None = None

    def __init__(self, command: list[str], *, stdout: IO[str], **rest: Any):
        self.stdin, self.log = self, os.dup(stdout.fileno())  # the starter closes its own

    def write(self, line: str) -> None:
        with open(self.log, "w") as log, redirect_stdout(log), redirect_stderr(log):
            worker.measure(json.loads(line))
        self.returncode = 0

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def poll(self) -> int | None:
        return self.returncode


@pytest.fixture
def runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the runs of a comparison in this process, one at a time: a fresh one imports for seconds.

    For tests of what is done with runs; that they are fresh processes is shown in test_compare_cli.py.
    """
    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(Popen=RunHere, PIPE=subprocess.PIPE))
