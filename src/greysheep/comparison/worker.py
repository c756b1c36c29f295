"""One run of a comparison, in a process of its own: `python -m greysheep.comparison.worker`."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import polars as pl

from greysheep.comparison.run_folder import Run
from greysheep.data.splitting import Split
from greysheep.errors import GreysheepWarning
from greysheep.evaluation.evaluate import evaluate
from greysheep.mainstream.groups import GROUPS, Mainstream, _of_split
from greysheep.models import parse
from greysheep.models.origin import import_source
from greysheep.system import jobs
from greysheep.system.machine import peak_memory_bytes


def main(stdin: IO[str]) -> None:
    """Make the run that one line on stdin describes."""
    jobs.serve(measure, stdin)


def measure(job: dict[str, Any]) -> None:
    """Fit and evaluate one model and write what came out."""
    run = Run(job["label"], job["seed"], Path(job["out"]))
    parts = Split.read(job["split"])
    scores = pl.read_parquet(Path(job["split"]) / "groups.parquet", glob=False)
    # The groups are those of every model on this split, so no model's time or memory includes them.
    known = Mainstream.from_scores(scores["mainstream"].to_numpy(), parts.log.user_ids)
    _of_split[parts] = replace(known, sampled=scores["sampled"][0], bound=scores["bound"][0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GreysheepWarning)
        for module, folder in job.get("sources", ()):
            import_source(module, folder)
        model = parse(job["text"], seed=run.seed, threads=job["threads"], progress=True)
        model.label = run.label
        asked = model.config.model_dump(mode="json")
        report = evaluate(model.fit(parts), parts, k=job["k"])
    names = pl.Series(GROUPS)
    more = {
        name: names.gather(Mainstream.from_scores(scores[name].to_numpy(), parts.log.user_ids).groups)
        for name in ("density", "distribution")
        if name in scores.columns
    }
    report = replace(
        report, per_user=report.per_user.with_columns(**more), peak_memory_bytes=peak_memory_bytes()
    )
    told = [str(one.message) for one in caught if issubclass(one.category, GreysheepWarning)]
    run.write(report, list(dict.fromkeys(told)), asked)


if __name__ == "__main__":
    main(sys.stdin)
