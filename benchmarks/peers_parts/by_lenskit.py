"""LensKit's side."""

from __future__ import annotations

import pickle  # nosec B403  # written and read by this very script
import sys
from pathlib import Path
from typing import Any

from phase import Case, main


def train_frame(case: Case) -> Any:
    """The log file as pandas reads it."""
    import pandas as pd

    return pd.read_parquet(case.work / "parts" / "train.parquet")


def dataset_of(frame: Any) -> Any:
    """A LensKit dataset."""
    from lenskit.data import from_interactions_df

    return from_interactions_df(frame)


def pipeline(case: Case) -> Any:
    """Candidates (what the user does not have), EASE, the best k; not trained."""
    from lenskit import topn_pipeline
    from lenskit.knn import EASEScorer

    return topn_pipeline(EASEScorer(**case.settings["ease"]), n=case.settings["k"])


def lists_of(pipe: Any, users: Any, processes: int = 1) -> Any:
    """Their lists; a pool of processes, each of which imports everything first, pays for many users only."""
    from lenskit.batch import recommend

    return recommend(pipe, list(users), n_jobs=processes)


def figure(case: Case, lists: Any) -> dict[str, Any]:
    """NDCG of a collection of lists."""
    return case.ndcg({key.user_id: items.ids().tolist() for key, items in lists.items()})


def start(case: Case) -> dict[str, Any]:
    """The help of the command."""
    case.run(str(Path(sys.executable).with_name("lenskit")), "--help")
    return {}


def ease_program(case: Case) -> None:
    """Read the log file, fit, keep the trained pipeline."""
    pipe = pipeline(case)
    pipe.train(dataset_of(train_frame(case)))
    with (case.scratch / "model.pickle").open("wb") as file:
        pickle.dump(pipe, file, protocol=5)


def ease_command(case: Case) -> dict[str, Any]:
    """From a log file to a pickled pipeline, by a script."""
    case.run_here(ease_program)
    with (case.scratch / "model.pickle").open("rb") as file:
        pipe = pickle.load(file)  # nosec B301  # its own, a moment ago
    return figure(case, lists_of(pipe, case.some_users()))


def ease_lists_program(case: Case) -> None:
    """Read the log file, fit, write everybody's lists."""
    frame, pipe = train_frame(case), pipeline(case)
    pipe.train(dataset_of(frame))
    lists_of(pipe, frame["user_id"].unique(), case.settings["threads"]).to_df().to_parquet(
        case.scratch / "lists.parquet"
    )


def ease_lists_command(case: Case) -> dict[str, Any]:
    """From a log file to a file of everybody's lists, by one script."""
    import pandas as pd

    case.run_here(ease_lists_program)
    frame = pd.read_parquet(case.scratch / "lists.parquet")
    return case.ndcg_of_frame(frame["user_id"], frame["item_id"])


def ease_fit(case: Case) -> dict[str, Any]:
    """EASE from a dataset in memory."""
    data, pipe = dataset_of(train_frame(case)), pipeline(case)
    with case.timed():
        pipe.train(data)
    return figure(case, lists_of(pipe, case.some_users()))


def ease_lists(case: Case) -> dict[str, Any]:
    """Everybody's lists from EASE in memory."""
    frame, pipe = train_frame(case), pipeline(case)
    pipe.train(dataset_of(frame))
    with case.timed():
        lists = lists_of(pipe, frame["user_id"].unique(), case.settings["threads"])
    return figure(case, lists)


def measured(case: Case) -> Any:
    """Metrics at k: it has five of the six (no MAP); NDCG with the discount log2(rank + 1) of all sides."""
    import pandas as pd
    from lenskit.data import ItemListCollection, UserIDKey
    from lenskit.metrics import NDCG, Hit, Precision, Recall, RecipRank, RunAnalysis
    from lenskit.metrics.ranking import LogRankWeight

    k = case.settings["k"]
    lists, test = (
        ItemListCollection.from_df(pd.read_parquet(case.work / file), UserIDKey)
        for file in ("lists.parquet", "parts/test.parquet")
    )
    metrics = NDCG(k, weight=LogRankWeight(offset=1)), Recall(k), Precision(k), Hit(k), RecipRank(k)
    return RunAnalysis(*metrics).measure(lists, test)


def evaluate_program(case: Case) -> None:
    """Means."""
    measured(case).list_summary().to_parquet(case.scratch / "means.parquet")


def evaluate(case: Case) -> dict[str, Any]:
    """Means, by a script."""
    import pandas as pd

    case.run_here(evaluate_program)
    k = case.settings["k"]
    return {f"ndcg@{k}": float(pd.read_parquet(case.scratch / "means.parquet").loc[f"NDCG@{k}", "mean"])}


def evaluate_users_program(case: Case) -> None:
    """Each user's metrics."""
    measured(case).list_metrics().to_parquet(case.scratch / "users.parquet")


def evaluate_users(case: Case) -> dict[str, Any]:
    """Each user's metrics, by a script."""
    import pandas as pd

    case.run_here(evaluate_users_program)
    k = case.settings["k"]
    return {f"ndcg@{k}": float(pd.read_parquet(case.scratch / "users.parquet")[f"NDCG@{k}"].mean())}


if __name__ == "__main__":
    main(globals())
