"""Write beyond.json: figures of lists as RecTools and PySAL's inequality have them, of all and by group.

RecTools does not fit beside greysheep (it wants numpy < 2), so they get an environment:

    python3 -m venv golden-venv
    golden-venv/bin/pip install rectools==0.19.0 scikit-learn
    golden-venv/bin/pip install inequality==1.1.2
    golden-venv/bin/python tests/golden/make_beyond_golden.py

Rows, lists, groups and vectors are in the file: the tests read nothing else. Lists differ in length, one
user has none, two items have no rows; RecTools has no figure for the user without a list, and 0 as the
diversity of a list of one item, for which greysheep has none: she is left out of the file's diversity.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

N_USERS, N_ITEMS, SEED, K = 40, 25, 20241125, (3, 8)


def world() -> dict[str, Any]:
    """Rows, lists, groups and vectors."""
    rng = np.random.default_rng(SEED)
    chance = np.linspace(0.6, 0.05, N_ITEMS)
    chance[-2:] = 0.0
    rows = rng.random((N_USERS, N_ITEMS)) < chance
    rows[np.arange(N_USERS), np.arange(N_USERS) % 5] = True
    lists = []
    for user in range(N_USERS):
        free = np.flatnonzero(~rows[user])
        weight = rng.random(len(free)) + 0.3 * chance[free]
        size = 0 if user == 7 else 1 if user == 3 else int(rng.integers(3, 9))
        lists.append(free[np.argsort(-weight)][:size].tolist())
    return {
        "rows": np.argwhere(rows).tolist(),
        "lists": lists,
        "groups": [("a", "b", "c")[user % 7 % 3] for user in range(N_USERS)],
        "vectors": (rng.random((N_ITEMS, 4)) < 0.5).astype(float).tolist(),
    }


def figures(data: dict[str, Any], users: list[int], k: int) -> dict[str, Any]:
    """Every figure of some users' lists."""
    # Imported here because the tests' doctest run imports every module and has none of them.
    import pandas as pd
    from inequality.gini import Gini
    from rectools.metrics import AvgRecPopularity, CatalogCoverage, IntraListDiversity, MeanInvUserFreq
    from rectools.metrics.distances import PairwiseDistanceCalculator
    from sklearn.metrics.pairwise import cosine_distances

    vectors = np.array(data["vectors"]) + 1e-3  # none of them 0, so that every pair has a distance

    class Cosine(PairwiseDistanceCalculator):
        def __getitem__(self, pair: Any) -> Any:
            first, second = pair
            return cosine_distances(vectors)[np.asarray(first), np.asarray(second)]

        def _get_distances_for_item_pairs(self, first: Any, second: Any) -> Any:
            return cosine_distances(vectors)[np.asarray(first), np.asarray(second)]

    lines = [(u, item, place) for u in users for place, item in enumerate(data["lists"][u], 1)]
    reco = pd.DataFrame(lines, columns=["user_id", "item_id", "rank"])
    seen = pd.DataFrame(data["rows"], columns=["user_id", "item_id"])
    places = reco[reco["rank"] <= k]["item_id"].value_counts().reindex(range(N_ITEMS), fill_value=0)
    diverse = IntraListDiversity(k=k, distance_calculator=Cosine()).calc_per_user(reco)
    per_user = {
        "popularity": AvgRecPopularity(k=k).calc_per_user(reco, seen),
        "novelty": MeanInvUserFreq(k=k).calc_per_user(reco, seen),
        "diversity": diverse.drop(index=3, errors="ignore"),
    }
    found: dict[str, Any] = {
        "coverage": float(CatalogCoverage(k=k, normalize=True).calc(reco, range(N_ITEMS))),
        "gini": float(Gini(places.to_numpy()).g),
    }
    for name, values in per_user.items():
        found[name] = {str(user): float(value) for user, value in values.items()}
    return found


def main() -> None:
    """Write the file."""
    data = world()
    members = {name: [u for u in range(N_USERS) if data["groups"][u] == name] for name in "abc"}
    members["overall"] = list(range(N_USERS))
    golden = {
        "made_with": {name: version(name) for name in ("rectools", "inequality", "scikit-learn", "numpy")},
        **data,
        "figures": {str(k): {name: figures(data, users, k) for name, users in members.items()} for k in K},
    }
    path = Path(__file__).with_name("beyond.json")
    path.write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
