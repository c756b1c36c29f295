"""Each model keeps the contract."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

import greysheep as gs
from contract import ModelContract, text_of
from greysheep.errors import DataError

QUICK = {"latent": 16, "epochs": 60, "batch_size": 16, "learning_rate": 1e-2, "patience": 30, "dropout": 0.0}
LOCAL = {"n_experts": 3, "epochs": 25, "local_epochs": 4, "local_batch_size": 16}


class TestPopular(ModelContract):
    kind = gs.Popular
    personal = False

    def test_similar_items_need_the_rows(self, fitted: Any, tmp_path: Path) -> None:
        loaded = gs.load(fitted.save(tmp_path / "model", include_history=False))
        with pytest.raises(DataError, match="saved without its rows"):
            loaded.similar_items(["0002"])


class NeedsItsRows(ModelContract):
    """A model that compares people with stored rows whenever it is asked."""

    def test_saved_without_rows(self, fitted: Any, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"{self.kind.name} cannot be saved without its rows"):
            fitted.save(tmp_path / "model", include_history=False)
        assert not list(tmp_path.iterdir())


class TestUserKNN(NeedsItsRows):
    kind = gs.UserKNN


class TestItemKNN(ModelContract):
    kind = gs.ItemKNN


class TestEASE(ModelContract):
    kind = gs.EASE
    keywords: ClassVar[dict[str, Any]] = {"regularization": 10.0}


class TestWeightedEASE(ModelContract):
    kind = gs.WeightedEASE


class TestIALS(ModelContract):
    kind = gs.IALS
    keywords: ClassVar[dict[str, Any]] = {"factors": 8, "regularization": 1.0, "n_seeds": 2}


class TestEnsemble(ModelContract):
    kind = gs.Ensemble
    keywords: ClassVar[dict[str, Any]] = {"members": "ease-weighted+ials[factors=8,regularization=1]"}


class TestEnsembleOfGates(ModelContract):
    kind = gs.Ensemble
    keywords: ClassVar[dict[str, Any]] = {
        "members": (
            text_of("multvae", {**QUICK, "epochs": 6}),
            "itemknn",
            text_of("tall", {**QUICK, "epochs": 6, "n_experts": 3}),
        ),
        "weights": (1, 1, 1),
    }


class TestMultVAE(ModelContract):
    kind = gs.MultVAE
    keywords: ClassVar[dict[str, Any]] = QUICK


class TestWL(ModelContract):
    kind = gs.WL
    keywords: ClassVar[dict[str, Any]] = QUICK


class TestLOCA(ModelContract):
    kind = gs.LOCA
    keywords: ClassVar[dict[str, Any]] = {**QUICK, **LOCAL}


class TestEnLFT(NeedsItsRows):
    kind = gs.EnLFT
    keywords: ClassVar[dict[str, Any]] = {**QUICK, **LOCAL}


class TestLFT(NeedsItsRows):
    kind = gs.LFT
    keywords: ClassVar[dict[str, Any]] = {**QUICK, "epochs": 25, "steps": 3}


class TestMoE(ModelContract):
    kind = gs.MoE
    keywords: ClassVar[dict[str, Any]] = {**QUICK, "n_experts": 3}


class TestLMoE(ModelContract):
    kind = gs.LMoE
    keywords: ClassVar[dict[str, Any]] = {**QUICK, "n_experts": 3, "gate_refresh": "batch"}


class TestTALL(ModelContract):
    kind = gs.TALL
    keywords: ClassVar[dict[str, Any]] = {**QUICK, "n_experts": 3, "start_epoch": 5}


class TestTALLTemperature(ModelContract):
    kind = gs.TALL
    keywords: ClassVar[dict[str, Any]] = {
        **QUICK, "n_experts": 3, "start_epoch": 5, "gate": "temperature", "weighting": "loss",
    }  # fmt: skip


class TestTALLMLP(ModelContract):
    kind = gs.TALL
    keywords: ClassVar[dict[str, Any]] = {**QUICK, "n_experts": 3, "gate": "mlp", "weighting": "none"}


class TestTALLAuthors(ModelContract):
    kind = gs.TALL
    keywords: ClassVar[dict[str, Any]] = {**QUICK, "n_experts": 3, "start_epoch": 5, "variant": "authors"}


def test_a_model_saved_by_an_earlier_version_loads() -> None:
    """tests/golden/saved was written before the models moved to folders of their own, in the same format."""
    saved = Path(__file__).parent / "golden" / "saved"
    model = gs.load(saved / "model")
    assert model.recommend(k=2)["item_id"].to_list() == json.loads((saved / "lists.json").read_text())
    assert model.gates.shape == (24, 2) and model.epochs == len(model.history) == 2
