"""Settings of the whole test run."""

import os
from pathlib import Path

import torch

# The tests' worlds are so small that a second thread only waits for the first.
torch.set_num_threads(1)

# Where matplotlib keeps its list of fonts anyway, but said before a test has another HOME for a while: else
# the first figure of the run would leave the list in that test's folder.
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))
