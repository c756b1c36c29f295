"""Models on the same splits, over seeds: runs, tables, tests and verdicts."""
