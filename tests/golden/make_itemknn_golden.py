"""Write itemknn.json: LensKit's item-item cosines, all of them and the largest few an item, and its scores.

LensKit wants pandas 2 and does not fit beside greysheep, so it gets an environment of its own:

    python3 -m venv golden-venv
    golden-venv/bin/pip install -c constraints.txt lenskit==2025.8.1
    golden-venv/bin/python tests/golden/make_itemknn_golden.py

The tests read itemknn.json only. The rows are such that no item's last kept neighbour ties with the next.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_USERS, N_ITEMS, SEED, NEIGHBOURS = 40, 12, 20240409, 4


def matrix() -> NDArray[np.float64]:
    """0/1 rows [N_USERS, N_ITEMS], some items popular and some rare, at least one row a user and an item."""
    generator = np.random.default_rng(SEED)
    chance = np.linspace(0.7, 0.1, N_ITEMS)
    x = (generator.random((N_USERS, N_ITEMS)) < chance).astype(np.float64)
    x[np.arange(N_USERS), np.arange(N_USERS) % N_ITEMS] = 1.0
    return x


def from_lenskit(
    users: NDArray[Any], items: NDArray[Any], neighbours: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [N_ITEMS, N_ITEMS] and scores [N_USERS, N_ITEMS], seen items scored too; NaN = no neighbour."""
    # Imported here because the tests' doctest run imports every module and has no LensKit.
    import pandas as pd
    from lenskit.data import ItemList, RecQuery, from_interactions_df
    from lenskit.knn import ItemKNNScorer

    dataset = from_interactions_df(pd.DataFrame({"user_id": users, "item_id": items}))
    model = ItemKNNScorer(max_nbrs=N_ITEMS, save_nbrs=neighbours, feedback="implicit")
    model.train(dataset)
    inner = model.items.numbers(np.arange(N_ITEMS))
    weights = model.sim_matrix.to_scipy().toarray()[np.ix_(inner, inner)]
    scores = [
        model(RecQuery(history_items=ItemList(items[users == u])), ItemList(np.arange(N_ITEMS))).scores()
        for u in range(N_USERS)
    ]
    return weights.astype(np.float64), np.nan_to_num(np.asarray(scores, dtype=np.float64))


def main() -> None:
    """Fit with all neighbours and with a few, refuse ties, write."""
    users, items = np.nonzero(matrix())
    every, scores = from_lenskit(users, items, None)
    few, few_scores = from_lenskit(users, items, NEIGHBOURS)
    best = -np.sort(-every, axis=1)
    assert (best[:, NEIGHBOURS - 1] - best[:, NEIGHBOURS] > 1e-4).all(), "a tie: take another seed"
    golden = {
        "model": "ItemKNNScorer, feedback=implicit",
        "versions": {**{n: version(n) for n in ("lenskit", "numpy")}, "python": platform.python_version()},
        "n_users": N_USERS,
        "n_items": N_ITEMS,
        "neighbours": NEIGHBOURS,
        "rows": [[int(u), int(i)] for u, i in zip(users, items, strict=True)],
        "weights_all": every.tolist(),
        "scores_all": scores.tolist(),
        "weights_few": few.tolist(),
        "scores_few": few_scores.tolist(),
    }
    body = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    Path(__file__).with_name("itemknn.json").write_text("{\n" + body + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
