"""Parts of benchmarks/peers.py: a script for each library (`by_*.py`), run in its own environment."""
