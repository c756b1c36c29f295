"""Golden numbers that pin item-kNN, iALS and the ensemble on the fixed split of test_worlds.py."""

from __future__ import annotations

from typing import Any

import pytest

import greysheep as gs
from greysheep.models import create

ALS = {"factors": 16, "regularization": 2.0}
GOLDEN: dict[str, tuple[dict[str, Any], float, float]] = {
    "itemknn": ({}, 0.5519789606, 0.5417199215),
    "itemknn/shrunk": ({"neighbours": 20, "shrinkage": 5.0}, 0.5426786451, 0.5187237385),
    "ials": (ALS, 0.478613, 0.463954),
    "ials/seeds": ({**ALS, "n_seeds": 3, "user_power": 0.5}, 0.485613, 0.461783),
    "userknn": ({}, 0.5518485272897866, 0.5246236481838845),
    "ensemble": (
        {"members": "itemknn+ease-weighted", "objective": "ndcg@20:low"},
        0.5493979535,
        0.5326866073,
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name: str) -> None:
    """Mean NDCG@20 and that of `low`; closed forms to 1e-6, iALS to .004.

    The wider margin leaves room for another processor's rounding over the iterations.
    """
    keywords, mean, low = GOLDEN[name]
    log = gs.simulate(n_users=300, n_items=200, seed=7).log
    split = gs.split(log, protocol="strict", seed=7)
    model = create(name.partition("/")[0], **keywords, seed=7, progress=False).fit(split)
    report = gs.evaluate(model, split, k=20)
    margin = 0.004 if name.startswith("ials") else 1e-6
    assert report.overall["ndcg@20"]["mean"] == pytest.approx(mean, abs=margin)
    assert report.by_group["ndcg@20"][0] == pytest.approx(low, abs=margin)
