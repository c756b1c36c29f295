"""What happens rarely: too little memory, a singular matrix, no rows to validate on, a bar on a terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.sparse import csr_matrix

import greysheep as gs
from contract import world
from greysheep.data.splitting import TRAIN, VALIDATION
from greysheep.errors import ConfigError, DataError, ModelFolderError
from greysheep.models.linear import ease_forms
from greysheep.models.training.progress import Steps
from greysheep.nn import routing
from greysheep.nn.bank import ExpertBank
from greysheep.nn.sparse_rows import SparseRows

QUICK: dict[str, Any] = {"latent": 4, "epochs": 2, "batch_size": 12, "progress": False}


def test_ease_says_what_memory_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ease_forms.needed_bytes(48, np.float64)
    monkeypatch.setattr(ease_forms, "available_bytes", lambda: int(needed) - 1)
    with pytest.raises(ConfigError, match=r"EASE of 48 items needs about .* of memory, .* are free"):
        gs.EASE().fit(world(24))
    monkeypatch.setattr(ease_forms, "available_bytes", lambda: int(needed) + 1)
    gs.EASE().fit(world(24))


def test_a_singular_matrix_is_said() -> None:
    twins = pl.DataFrame({"user_id": [1, 1], "item_id": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"singular with regularization=1e-30: try a larger one"):
        gs.EASE(regularization=1e-30).fit(gs.Interactions.read(twins))


@pytest.mark.filterwarnings("ignore:no user has a validation row")
def test_lft_makes_all_steps_where_nothing_stops_it() -> None:
    split = gs.split(world(24), protocol="strict")
    parts = np.where(split.part == VALIDATION, TRAIN, split.part).astype(np.int8)
    model = gs.LFT(**QUICK, steps=3).fit(gs.Split(split.log, parts, "strict", 0))
    assert model.user_state.tolist() == [[0.0, 0.0, 0.0, 1.0]] * 24
    new = pl.DataFrame({"user_id": ["x"] * 2, "item_id": ["0001", "0003"]})
    assert model.recommend(history=new, k=3).height == 3


def test_dropout_in_a_routed_pass_is_that_of_the_whole_bank() -> None:
    rows = SparseRows.from_csr(csr_matrix((np.random.default_rng(1).random((6, 9)) < 0.5).astype(np.float32)))
    bank = ExpertBank(3, 9, 4, torch.Generator().manual_seed(1))
    keep = (
        torch.bernoulli(torch.full(rows.items.shape, 0.6), generator=torch.Generator().manual_seed(2)) / 0.6
    )
    gate = torch.full((6, 3), 1 / 3)
    routes = routing.Routes.of(gate)
    for ours, whole in zip(routing.encode(bank, rows, routes, keep), bank.encode(rows, keep), strict=True):
        torch.testing.assert_close(ours, whole.flatten(0, 1))


def test_groups_of_new_people_need_the_rows(tmp_path: Path) -> None:
    model = gs.Popular().fit(world(24))
    bare = gs.load(model.save(tmp_path / "model", include_history=False))
    with pytest.raises(DataError, match="saved without its rows"):
        bare.groups_of(world(24).frame())
    with pytest.raises(DataError, match="saved without its rows"):
        bare.mainstream  # noqa: B018


def test_a_write_that_fails_leaves_the_earlier_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gs.Popular().fit(world(24))
    place = first.save(tmp_path / "model")
    before = {file.name: file.read_bytes() for file in place.iterdir()}

    def full(self: pl.DataFrame, *arguments: Any, **keywords: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(ModelFolderError, match=r"model cannot be written: No space left on device"):
        gs.EASE().fit(world(48)).save(place)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before
    assert gs.load(place).name == "popular"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    for show, expected in ((None, True), (True, True), (False, False)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        gs.MultVAE(**{**QUICK, "progress": show}).fit(world(24))
        drawn = sys.stderr.getvalue()  # type: ignore[attr-defined]
        assert ("multvae" in drawn and "epoch 2 · loss" in drawn and "ndcg@20" in drawn) == expected
        assert bool(drawn) == expected
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Steps("work", 2, None, "block") as steps:
        steps.step()
        steps.step()
    assert "block 2 of 2" in sys.stderr.getvalue()  # type: ignore[attr-defined]
