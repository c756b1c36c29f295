"""Each model keeps the contract."""

from typing import Any, ClassVar

import greysheep as gs
from contract import ModelContract

QUICK = {"latent": 16, "epochs": 60, "batch_size": 16, "learning_rate": 1e-2, "patience": 30}


class TestPopular(ModelContract):
    kind = gs.Popular
    personal = False


class TestEASE(ModelContract):
    kind = gs.EASE
    keywords: ClassVar[dict[str, Any]] = {"regularization": 10.0}


class TestWeightedEASE(ModelContract):
    kind = gs.WeightedEASE


class TestMultVAE(ModelContract):
    kind = gs.MultVAE
    keywords: ClassVar[dict[str, Any]] = QUICK


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
