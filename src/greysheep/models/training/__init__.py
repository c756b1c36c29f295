"""The loop that every model trained in epochs shares."""
