"""RecTools' side."""

from __future__ import annotations

import pickle  # nosec B403  # written and read by this very script
from typing import Any

from phase import Case, main


def dataset_of(frame: Any) -> Any:
    """A RecTools dataset of a pandas frame of user_id and item_id."""
    from rectools.dataset import Dataset

    return Dataset.construct(frame.assign(weight=1, datetime="2000-01-01"))


def unfitted(case: Case) -> Any:
    """EASE with the settings of all sides."""
    from rectools.models import EASEModel

    threads = case.settings["threads"]
    return EASEModel(case.settings["ease"]["regularization"], recommend_n_threads=threads)


def lists_of(case: Case, model: Any, dataset: Any, users: Any) -> Any:
    """The frame of their lists."""
    return model.recommend(users, dataset, k=case.settings["k"], filter_viewed=True)


def train_frame(case: Case) -> Any:
    """The log file as pandas reads it."""
    import pandas as pd

    return pd.read_parquet(case.work / "parts" / "train.parquet")


def ease_program(case: Case) -> None:
    """Read the log file, fit, keep the model and what it needs to recommend."""
    dataset = dataset_of(train_frame(case))
    model = unfitted(case).fit(dataset)
    with (case.scratch / "model.pickle").open("wb") as file:
        pickle.dump((model, dataset), file, protocol=5)


def ease_command(case: Case) -> dict[str, Any]:
    """From a log file to a pickled model, by a script."""
    case.run_here(ease_program)
    with (case.scratch / "model.pickle").open("rb") as file:
        model, dataset = pickle.load(file)  # nosec B301  # its own, a moment ago
    frame = lists_of(case, model, dataset, case.some_users())
    return case.ndcg_of_frame(frame["user_id"], frame["item_id"])


def ease_lists_program(case: Case) -> None:
    """Read the log file, fit, write everybody's lists."""
    frame = train_frame(case)
    dataset = dataset_of(frame)
    model = unfitted(case).fit(dataset)
    lists = lists_of(case, model, dataset, frame["user_id"].unique())
    lists.to_parquet(case.scratch / "lists.parquet")


def ease_lists_command(case: Case) -> dict[str, Any]:
    """From a log file to a file of everybody's lists, by one script."""
    import pandas as pd

    case.run_here(ease_lists_program)
    frame = pd.read_parquet(case.scratch / "lists.parquet")
    return case.ndcg_of_frame(frame["user_id"], frame["item_id"])


def ease_fit(case: Case) -> dict[str, Any]:
    """EASE from a dataset in memory."""
    model, dataset = unfitted(case), dataset_of(train_frame(case))
    with case.timed():
        model.fit(dataset)
    frame = lists_of(case, model, dataset, case.some_users())
    return case.ndcg_of_frame(frame["user_id"], frame["item_id"])


def ease_lists(case: Case) -> dict[str, Any]:
    """Everybody's lists from EASE in memory."""
    frame = train_frame(case)
    dataset = dataset_of(frame)
    model, users = unfitted(case).fit(dataset), frame["user_id"].unique()
    with case.timed():
        lists = lists_of(case, model, dataset, users)
    return case.ndcg_of_frame(lists["user_id"], lists["item_id"])


def metrics(k: int) -> dict[str, Any]:
    """The same six, at the same length."""
    from rectools.metrics import MAP, MRR, NDCG, HitRate, Precision, Recall

    ndcg = NDCG(k=k, divide_by_achievable=True)
    return {"ndcg": ndcg, "recall": Recall(k=k), "precision": Precision(k=k), "hit": HitRate(k=k),
            "mrr": MRR(k=k), "map": MAP(k=k)}  # fmt: skip


def inputs(case: Case) -> tuple[Any, Any]:
    """Lists and test rows."""
    import pandas as pd

    test = pd.read_parquet(case.work / "parts" / "test.parquet")
    return pd.read_parquet(case.work / "lists.parquet"), test.assign(weight=1, datetime="2000-01-01")


def evaluate_program(case: Case) -> None:
    """Means."""
    import json

    from rectools.metrics import calc_metrics

    means = calc_metrics(metrics(case.settings["k"]), *inputs(case))
    (case.scratch / "means.json").write_text(json.dumps({name: float(mean) for name, mean in means.items()}))


def evaluate(case: Case) -> dict[str, Any]:
    """Means of six metrics, by a script."""
    import json

    case.run_here(evaluate_program)
    means = json.loads((case.scratch / "means.json").read_text())
    return {f"ndcg@{case.settings['k']}": means["ndcg"]}


def evaluate_users_program(case: Case) -> None:
    """Each user's six metrics, and their means."""
    import pandas as pd

    lists, test = inputs(case)
    columns = {
        name: metric.calc_per_user(lists, test) for name, metric in metrics(case.settings["k"]).items()
    }
    pd.DataFrame(columns).to_parquet(case.scratch / "users.parquet")


def evaluate_users(case: Case) -> dict[str, Any]:
    """Each user's metrics, by a script."""
    import pandas as pd

    case.run_here(evaluate_users_program)
    users = pd.read_parquet(case.scratch / "users.parquet")
    return {f"ndcg@{case.settings['k']}": float(users["ndcg"].mean())}


if __name__ == "__main__":
    main(globals())
