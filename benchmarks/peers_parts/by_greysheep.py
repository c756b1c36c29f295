"""greysheep's side of every row, and the inputs that all sides read."""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import Any

from phase import Case, main

COMMAND = (sys.executable, "-m", "greysheep")


def train_file(case: Case) -> str:
    """The log file of the commands."""
    return str(case.work / "parts" / "train.parquet")


def prepare(case: Case) -> dict[str, Any]:
    """Write the log, the parts of its split, their rows as arrays, and a frame of lists to evaluate."""
    import numpy as np
    import polars as pl

    import greysheep as gs

    source, work = case.settings["log"], case.work
    log = gs.Interactions.read(source) if source else gs.simulate(n_users=300, n_items=200, seed=0).log
    split = gs.split(log, protocol="strict", seed=0)
    split.write(work / "parts")
    frames = {part: pl.read_parquet(work / "parts" / f"{part}.parquet")
              for part in ("train", "validation", "test")}  # fmt: skip
    columns = {f"{part}_{name}": np.array(frame[f"{name}_id"].to_list())
               for part, frame in frames.items() for name in ("user", "item")}  # fmt: skip
    np.savez(work / "rows.npz", **columns)
    model = gs.EASE(**case.settings["ease"], progress=False).fit(split)
    files = [work / "parts" / f"{part}.parquet" for part in ("train", "gate", "validation")]
    model.recommend(history=pl.concat(map(pl.read_parquet, files)), k=case.settings["k"]).write_parquet(
        work / "lists.parquet"
    )
    return {"users": log.n_users, "items": log.n_items, "rows": len(frames["train"])}


def start(case: Case) -> dict[str, Any]:
    """The help of the command."""
    case.run(*COMMAND, "--help")
    return {}


def fit(case: Case, model: str, settings: dict[str, Any]) -> str:
    """Train by command; returns the model's folder."""
    folder = str(case.scratch / "model")
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    case.run(*COMMAND, "fit", train_file(case), "-o", folder, "--model", model, *options)
    return folder


def lists_of_some(case: Case, model: Any) -> dict[str, Any]:
    """NDCG of some users' lists."""
    frame = model.recommend(case.some_users(), k=case.settings["k"])
    return case.ndcg_of_frame(frame["user_id"], frame["item_id"])


def ease_command(case: Case) -> dict[str, Any]:
    """From a log file to a model's folder."""
    import greysheep as gs

    return lists_of_some(case, gs.load(fit(case, "ease", case.settings["ease"])))


def ease_lists_command(case: Case) -> dict[str, Any]:
    """From a log file to a file of everybody's lists: two commands."""
    import polars as pl

    folder, lists = fit(case, "ease", case.settings["ease"]), case.scratch / "lists.parquet"
    case.run(*COMMAND, "recommend", folder, "-k", str(case.settings["k"]), "-o", str(lists))
    frame = pl.read_parquet(lists)
    return case.ndcg_of_frame(frame["user_id"], frame["item_id"])


def train_log(case: Case) -> Any:
    """The train rows as a log."""
    import greysheep as gs

    return gs.Interactions.read(train_file(case))


def ease_fit(case: Case) -> dict[str, Any]:
    """EASE from a log in memory."""
    import greysheep as gs

    model, log = gs.EASE(**case.settings["ease"], progress=False), train_log(case)
    with case.timed():
        model.fit(log)
    return lists_of_some(case, model)


def lists(case: Case, model: Any) -> dict[str, Any]:
    """Everybody's lists."""
    with case.timed():
        frame = model.recommend(model.log.user_ids, k=case.settings["k"])
    return case.ndcg_of_frame(frame["user_id"], frame["item_id"])


def ease_lists(case: Case) -> dict[str, Any]:
    """Everybody's lists from EASE in memory."""
    import greysheep as gs

    return lists(case, gs.EASE(**case.settings["ease"], progress=False).fit(train_log(case)))


def evaluate(case: Case) -> dict[str, Any]:
    """Means of six metrics of a frame of lists, with intervals and user groups, by command."""
    out = case.scratch / "report.json"
    case.run(
        *COMMAND, "evaluate", "--recs", str(case.work / "lists.parquet"), "--split", str(case.work / "parts"),
        "-k", str(case.settings["k"]), "--json", str(out),
    )  # fmt: skip
    name = f"ndcg@{case.settings['k']}"
    return {name: json.loads(out.read_text())["overall"][name]["mean"]}


def evaluate_users_program(case: Case) -> None:
    """Read lists and split, measure, write every user's metrics."""
    import polars as pl

    import greysheep as gs

    split = gs.Split.read(case.work / "parts")
    report = gs.evaluate(pl.read_parquet(case.work / "lists.parquet"), split, k=case.settings["k"])
    report.per_user.write_parquet(case.scratch / "users.parquet")


def evaluate_users(case: Case) -> dict[str, Any]:
    """The same and each user's metrics, by a script: the command writes means."""
    import polars as pl

    case.run_here(evaluate_users_program)
    name = f"ndcg@{case.settings['k']}"
    return {name: pl.read_parquet(case.scratch / "users.parquet")[name].mean()}


def ials_command(case: Case) -> dict[str, Any]:
    """From a log file to a model's folder."""
    import greysheep as gs

    return lists_of_some(case, gs.load(fit(case, "ials", case.settings["ials"])))


def ials(case: Case) -> Any:
    """An unfitted iALS."""
    import greysheep as gs

    return gs.IALS(**case.settings["ials"], threads=case.settings["threads"], seed=0, progress=False)


def ials_fit(case: Case) -> dict[str, Any]:
    """IALS from a log in memory."""
    model, log = ials(case), train_log(case)
    with case.timed():
        model.fit(log)
    return lists_of_some(case, model)


def ials_lists(case: Case) -> dict[str, Any]:
    """Everybody's lists from iALS in memory."""
    return lists(case, ials(case).fit(train_log(case)))


def trained_multvae(case: Case) -> Any:
    """MultVAE after some epochs with validation; its history has the seconds of each."""
    import greysheep as gs

    given = case.settings["multvae"]
    return gs.MultVAE(
        latent=given["latent"], batch_size=given["batch_size"], dropout=given["dropout"],
        learning_rate=given["learning_rate"], epochs=given["epochs"], patience=given["epochs"],
        threads=case.settings["threads"], seed=0, progress=False,
    ).fit(gs.Split.read(case.work / "parts"))  # fmt: skip


def multvae_epoch(case: Case) -> dict[str, Any]:
    """Seconds of training an epoch, the first one apart."""
    history = trained_multvae(case).history
    case.found(median(row["train_seconds"] for row in history[1:]))
    return {"ndcg@20 on validation": history[-1]["ndcg@20"]}


def multvae_validation(case: Case) -> dict[str, Any]:
    """Seconds of ranking and measuring the validation rows once."""
    history = trained_multvae(case).history
    case.found(median(row["validation_seconds"] for row in history[1:]))
    return {"ndcg@20 on validation": history[-1]["ndcg@20"]}


if __name__ == "__main__":
    main(globals())
