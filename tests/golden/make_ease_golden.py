"""Write ease.json: EASE's item-item weights as RecTools and LensKit compute them, and LensKit's scores.

The two fit beside each other but not beside greysheep (RecTools wants numpy < 2), so they get an environment:

    python3 -m venv golden-venv
    golden-venv/bin/pip install -c constraints.txt rectools==0.19.0 lenskit==2025.8.1 'pyarrow<21'
    golden-venv/bin/python tests/golden/make_ease_golden.py

The tests read ease.json only. RecTools' scores are left out on purpose: `EASEModel.recommend` of 0.19.0 hands
its weights to the ranker untransposed, so it ranks by X B' where EASE says X B (B is not symmetric).
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_USERS, N_ITEMS, SEED, REGULARISATION = 30, 12, 20240408, 3.5


def matrix() -> NDArray[np.float64]:
    """0/1 rows [N_USERS, N_ITEMS], some items popular and some rare, at least one row a user and an item."""
    generator = np.random.default_rng(SEED)
    chance = np.linspace(0.7, 0.1, N_ITEMS)
    x = (generator.random((N_USERS, N_ITEMS)) < chance).astype(np.float64)
    x[np.arange(N_USERS), np.arange(N_USERS) % N_ITEMS] = 1.0
    return x


def from_rectools(users: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float64]:
    """Weights [N_ITEMS, N_ITEMS] of RecTools, its item order put back into ours."""
    # Imported here because the tests' doctest run imports every module and has neither library.
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    frame = pd.DataFrame(
        {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: "2024-04-08"}
    )
    dataset = Dataset.construct(frame)
    model = EASEModel(regularization=REGULARISATION).fit(dataset)
    inner = dataset.item_id_map.convert_to_internal(np.arange(N_ITEMS))
    return np.asarray(model.weight, dtype=np.float64)[np.ix_(inner, inner)]


def from_lenskit(users: NDArray[Any], items: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [N_ITEMS, N_ITEMS] and scores [N_USERS, N_ITEMS] of LensKit, seen items scored too."""
    import pandas as pd
    from lenskit.data import ItemList, RecQuery, from_interactions_df
    from lenskit.knn import EASEScorer

    dataset = from_interactions_df(pd.DataFrame({"user_id": users, "item_id": items}))
    model = EASEScorer(regularization=REGULARISATION)
    model.train(dataset)
    inner = model.items.numbers(np.arange(N_ITEMS))
    scores = [
        model(RecQuery(history_items=ItemList(items[users == u])), ItemList(np.arange(N_ITEMS))).scores()
        for u in range(N_USERS)
    ]
    return model.weights[np.ix_(inner, inner)].astype(np.float64), np.asarray(scores, dtype=np.float64)


def main() -> None:
    """Fit both, write."""
    users, items = np.nonzero(matrix())
    weights, scores = from_lenskit(users, items)
    packages = ("rectools", "lenskit", "numpy", "scipy", "torch")
    golden = {
        "models": "weights_rectools: EASEModel; weights_lenskit, scores_lenskit: EASEScorer",
        "versions": {**{name: version(name) for name in packages}, "python": platform.python_version()},
        "regularisation": REGULARISATION,
        "n_users": N_USERS,
        "n_items": N_ITEMS,
        "rows": [[int(u), int(i)] for u, i in zip(users, items, strict=True)],
        "weights_rectools": from_rectools(users, items).tolist(),
        "weights_lenskit": weights.tolist(),
        "scores_lenskit": scores.tolist(),
    }
    body = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    Path(__file__).with_name("ease.json").write_text("{\n" + body + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
