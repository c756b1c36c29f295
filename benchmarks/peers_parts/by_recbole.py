"""RecBole's side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phase import Case, main


def atomic_files(case: Case) -> None:
    """The parts in the files RecBole reads: log.train.inter and so on."""
    folder = case.scratch / "log"
    folder.mkdir()
    for part, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        user, item = case.ids(part)
        lines = [f"{u}\t{i}" for u, i in zip(user.tolist(), item.tolist(), strict=True)]
        (folder / f"log.{name}.inter").write_text("user_id:token\titem_id:token\n" + "\n".join(lines) + "\n")


def prepared(case: Case, model: str, **settings: Any) -> tuple[Any, Any, Any]:
    """Config, trainer with its untrained model, and the loaders of train and validation rows."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    atomic_files(case)
    given = {
        "data_path": str(case.scratch), "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]}, "train_neg_sample_args": None,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "RO", "group_by": "user", "mode": "full"},
        "checkpoint_dir": str(Path(case.scratch, "saved")), "seed": 0, "reproducibility": False,
        "use_gpu": False, "show_progress": False, "state": "ERROR", **settings,
    }  # fmt: skip
    config = Config(model=model, dataset="log", config_dict=given)
    init_seed(0, False)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    network = get_model(model)(config, train.dataset)
    return get_trainer(config["MODEL_TYPE"], model)(config, network), train, valid


def multvae(case: Case) -> tuple[Any, Any, Any]:
    """MultVAE with one linear layer each way, as all sides have it.

    Its size of a validation batch counts scores, not users.
    """
    given = case.settings["multvae"]
    return prepared(
        case, "MultiVAE", mlp_hidden_size=[], latent_dimension=2 * given["latent"],
        dropout_prob=given["dropout"], train_batch_size=given["batch_size"], epochs=given["epochs"],
        eval_batch_size=given["batch_size"] * 4096, learning_rate=given["learning_rate"], eval_step=0,
        metrics=["NDCG"], topk=given["cuts"], valid_metric="NDCG@20",
    )  # fmt: skip


def validated(trainer: Any, valid: Any) -> dict[str, Any]:
    """NDCG at the cuts of all sides, among the items a user does not have."""
    return {"ndcg@20 on validation": float(trainer.evaluate(valid, load_best_model=False)["ndcg@20"])}


def multvae_epoch(case: Case) -> dict[str, Any]:
    """Seconds of an epoch: those of fitting over their number."""
    trainer, train, valid = multvae(case)
    with case.timed():
        trainer.fit(train, saved=False, verbose=False)
    case.seconds /= case.settings["multvae"]["epochs"]
    return validated(trainer, valid)


def multvae_validation(case: Case) -> dict[str, Any]:
    """Seconds of ranking and measuring the validation rows once."""
    trainer, train, valid = multvae(case)
    trainer.fit(train, saved=False, verbose=False)
    with case.timed():
        return validated(trainer, valid)


if __name__ == "__main__":
    main(globals())
