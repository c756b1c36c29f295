"""The one training loop, early stopping and progress."""
