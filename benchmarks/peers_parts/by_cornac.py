"""Cornac's side."""

from __future__ import annotations

from typing import Any

from phase import Case, main, top


def triplets(case: Case, part: str = "train") -> list[tuple[Any, Any, float]]:
    """(user, item, 1) of a part's rows."""
    user, item = case.ids(part)
    return [(u, i, 1.0) for u, i in zip(user.tolist(), item.tolist(), strict=True)]


def ease_fit(case: Case) -> dict[str, Any]:
    """EASE from a dataset in memory, negative weights kept."""
    import numpy as np
    from cornac.data import Dataset
    from cornac.models import EASE

    data = Dataset.from_uir(triplets(case), seed=0)
    model = EASE(lamb=case.settings["ease"]["regularization"], posB=False, verbose=False, seed=0)
    with case.timed():
        model.fit(data)
    users, items = case.some_users(), np.array(data.item_ids)
    scores = np.array([model.score(data.uid_map[user]).ravel() for user in users.tolist()])
    seen = data.csr_matrix[[data.uid_map[user] for user in users.tolist()]]
    return case.ndcg(dict(zip(users.tolist(), top(scores, seen, items, case.settings["k"]).tolist(),
                              strict=True)))  # fmt: skip


def unfitted_multvae(case: Case) -> tuple[Any, Any]:
    """A VAECF, and the method that holds train and validation rows."""
    import torch  # noqa: F401  # else the first epoch would import it
    from cornac.eval_methods import BaseMethod
    from cornac.models import VAECF

    given = case.settings["multvae"]
    method = BaseMethod.from_splits(triplets(case), triplets(case, "validation"), exclude_unknowns=True)
    model = VAECF(
        k=given["latent"], autoencoder_structure=[], likelihood="mult", n_epochs=given["epochs"],
        batch_size=given["batch_size"], learning_rate=given["learning_rate"], seed=0, verbose=False,
    )  # fmt: skip
    return model, method


def validated(case: Case, model: Any, method: Any) -> dict[str, Any]:
    """NDCG at the cuts of all sides, among the items a user does not have."""
    from cornac.eval_methods import ranking_eval
    from cornac.metrics import NDCG

    metrics = [NDCG(k=cut) for cut in case.settings["multvae"]["cuts"]]
    means, _ = ranking_eval(model, metrics, method.train_set, method.test_set)
    return {"ndcg@20 on validation": float(means[-1])}


def multvae_epoch(case: Case) -> dict[str, Any]:
    """Seconds of an epoch: those of fitting over their number."""
    model, method = unfitted_multvae(case)
    with case.timed():
        model.fit(method.train_set)
    case.seconds /= case.settings["multvae"]["epochs"]
    return validated(case, model, method)


def multvae_validation(case: Case) -> dict[str, Any]:
    """Seconds of ranking and measuring the validation rows once."""
    model, method = unfitted_multvae(case)
    model.fit(method.train_set)
    with case.timed():
        return validated(case, model, method)


if __name__ == "__main__":
    main(globals())
