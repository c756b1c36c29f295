"""ranx's side."""

from __future__ import annotations

import json
from typing import Any

from phase import Case, main


def measured(case: Case, **options: Any) -> Any:
    """Six metrics at k, users and items as text as it wants them."""
    import pandas as pd
    from ranx import Qrels, Run, evaluate

    k = case.settings["k"]
    lists = pd.read_parquet(case.work / "lists.parquet")
    test = pd.read_parquet(case.work / "parts" / "test.parquet").assign(score=1)
    texts = [
        frame.astype({"user_id": str, "item_id": str}).astype({"user_id": object, "item_id": object})
        for frame in (test, lists)
    ]
    names = {"q_id_col": "user_id", "doc_id_col": "item_id", "score_col": "score"}
    metrics = [f"{name}@{k}" for name in ("ndcg", "recall", "precision", "hit_rate", "mrr", "map")]
    run = Run.from_df(texts[1].astype({"score": float}), **names)
    return evaluate(Qrels.from_df(texts[0], **names), run, metrics, **options)


def evaluate_program(case: Case) -> None:
    """Means."""
    means = {name: float(value) for name, value in measured(case).items()}
    (case.scratch / "means.json").write_text(json.dumps(means))


def evaluate(case: Case) -> dict[str, Any]:
    """Means of six metrics, by a script."""
    case.run_here(evaluate_program)
    name = f"ndcg@{case.settings['k']}"
    return {name: json.loads((case.scratch / "means.json").read_text())[name]}


def evaluate_users_program(case: Case) -> None:
    """Each user's metrics."""
    import pandas as pd

    pd.DataFrame(measured(case, return_mean=False)).to_parquet(case.scratch / "users.parquet")


def evaluate_users(case: Case) -> dict[str, Any]:
    """Each user's metrics, by a script."""
    import pandas as pd

    case.run_here(evaluate_users_program)
    name = f"ndcg@{case.settings['k']}"
    return {name: float(pd.read_parquet(case.scratch / "users.parquet")[name].mean())}


if __name__ == "__main__":
    main(globals())
