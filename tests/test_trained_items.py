"""Items that a model had no rows of come into lists only if they are named as candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

import greysheep as gs
from contract import world
from greysheep.data.splitting import GATE, PARTS, TEST, TRAIN, VALIDATION
from greysheep.models import parse

QUICK = {"latent": 4, "epochs": 2, "batch_size": 8, "progress": False}
LONELY = {"lonely-test": TEST, "lonely-validation": VALIDATION, "lonely-gate": GATE}
CLOSED = ("popular", "itemknn", "userknn", "ease", "ease-weighted", "ials[factors=4]")
TRAINED = ("multvae", "moe[n_experts=2]", "loca[n_experts=2,local_epochs=1]", "lft[steps=1]")
GATED = ("tall[n_experts=2]", "lmoe[n_experts=2]")
MIXED = ("ensemble[members=ease+multvae[latent=4,epochs=2,batch_size=8],weights=1+1]",)


def split_with_lonely_items(protocol: str) -> gs.Split:
    """Three items have all their rows, four each, in one part that is not train."""
    rows = [(f"{u:03d}", name) for n, name in enumerate(LONELY) for u in range(4 * n, 4 * n + 4)]
    more = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    log = gs.Interactions.read(pl.concat([world(24).frame(), more]))
    part = gs.split(log, protocol="strict").part
    part[(part == TEST) & (protocol == "all")] = TRAIN
    for name, code in LONELY.items():
        here = log.items == log.encode_items([name])[0]
        part[here] = VALIDATION if protocol == "all" and code == TEST else code
    return gs.Split(log, part, protocol, 0)


def model_of(text: str, split: gs.Split) -> Any:
    return parse(text, **(QUICK if text in (*TRAINED, *GATED) else {"progress": False})).fit(split)


# Under `all` what the first item has are validation rows, too. Closed forms learn every row there.
UNTRAINED = {
    ("strict", CLOSED): {"lonely-test", "lonely-validation"},
    ("strict", TRAINED): {"lonely-test", "lonely-validation"},
    ("strict", GATED): set(LONELY),
    ("strict", MIXED): {"lonely-test", "lonely-validation"},
    ("all", CLOSED): set[str](),
    ("all", TRAINED): {"lonely-test", "lonely-validation"},
    ("all", GATED): set(LONELY),
    ("all", MIXED): set[str](),
}
CASES = [(protocol, text, left) for (protocol, texts), left in UNTRAINED.items() for text in texts]


@pytest.mark.parametrize(("protocol", "text", "untrained"), CASES)
def test_only_trained_items_are_offered(protocol: str, text: str, untrained: set[str]) -> None:
    split = split_with_lonely_items(protocol)
    assert PARTS[int(split.part.max())] == ("test" if protocol == "strict" else "validation")
    model = model_of(text, split)
    everything = set(split.log.item_ids)
    offered = model.recommend(k=500, exclude_seen=False)
    assert set(offered["item_id"]) == everything - untrained
    assert offered.height == 24 * (len(everything) - len(untrained))
    new = pl.DataFrame({"user_id": ["x"] * 3, "item_id": ["0001", "0003", "0009"]})
    assert not set(model.recommend(history=new, k=500)["item_id"]) & untrained
    named = model.recommend(k=500, exclude_seen=False, candidates=list(LONELY))
    assert set(named["item_id"]) == set(LONELY)
    similar = model.similar_items(["0002"], k=500)
    assert not set(similar["similar_item_id"]) & untrained
    if text not in CLOSED:  # the others may leave out what is not similar at all
        assert set(similar["similar_item_id"]) == everything - untrained - {"0002"}
    np.testing.assert_array_equal(model.trained_items, ~split.log.item_ids.is_in(list(untrained)).to_numpy())
