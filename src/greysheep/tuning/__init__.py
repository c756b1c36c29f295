"""The parts of `tune`: the plan, what a trial is worth, the study on disk, the search, the result."""
