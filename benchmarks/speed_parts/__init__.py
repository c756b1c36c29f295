"""Parts of benchmarks/speed.py; only the child processes import torch and greysheep."""
