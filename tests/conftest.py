"""Settings of the whole test run."""

import torch

# The tests' worlds are so small that a second thread only waits for the first.
torch.set_num_threads(1)
