"""Recommenders for users whose taste few others share.

The public names are loaded on first use, so that `import greysheep` stays quick and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greysheep import models as models
    from greysheep.comparison.compare import compare as compare
    from greysheep.comparison.result import Comparison as Comparison
    from greysheep.data import datasets as datasets
    from greysheep.data.datasets import simulate as simulate
    from greysheep.data.interactions import Interactions as Interactions
    from greysheep.data.splitting import Split as Split
    from greysheep.data.splitting import split as split
    from greysheep.errors import GreysheepError as GreysheepError
    from greysheep.errors import GreysheepWarning as GreysheepWarning
    from greysheep.evaluation.evaluate import evaluate as evaluate
    from greysheep.evaluation.report import Report as Report
    from greysheep.mainstream.groups import Mainstream as Mainstream
    from greysheep.mainstream.scores import mainstream_scores as mainstream_scores
    from greysheep.models import EASE as EASE
    from greysheep.models import IALS as IALS
    from greysheep.models import LFT as LFT
    from greysheep.models import LOCA as LOCA
    from greysheep.models import TALL as TALL
    from greysheep.models import WL as WL
    from greysheep.models import Blend as Blend
    from greysheep.models import EnLFT as EnLFT
    from greysheep.models import ItemKNN as ItemKNN
    from greysheep.models import LMoE as LMoE
    from greysheep.models import MoE as MoE
    from greysheep.models import MultVAE as MultVAE
    from greysheep.models import Popular as Popular
    from greysheep.models import WeightedEASE as WeightedEASE
    from greysheep.models import load as load
    from greysheep.models.autoencoders.index import compile_index as compile_index
    from greysheep.tuning.tune import Tuning as Tuning
    from greysheep.tuning.tune import tune as tune

__version__ = "0.1.0"

_ROOMS = {"datasets": "data.datasets", "models": "models"}
_HOME = {
    "Blend": "models",
    "Comparison": "comparison.result",
    "EASE": "models",
    "EnLFT": "models",
    "IALS": "models",
    "TALL": "models",
    "WL": "models",
    "Tuning": "tuning.tune",
    "GreysheepError": "errors",
    "GreysheepWarning": "errors",
    "Interactions": "data.interactions",
    "ItemKNN": "models",
    "Mainstream": "mainstream.groups",
    "LFT": "models",
    "LOCA": "models",
    "LMoE": "models",
    "MoE": "models",
    "MultVAE": "models",
    "Popular": "models",
    "Report": "evaluation.report",
    "Split": "data.splitting",
    "WeightedEASE": "models",
    "compare": "comparison.compare",
    "compile_index": "models.autoencoders.index",
    "evaluate": "evaluation.evaluate",
    "load": "models",
    "mainstream_scores": "mainstream.scores",
    "simulate": "data.datasets",
    "split": "data.splitting",
    "tune": "tuning.tune",
}

__all__ = [
    "EASE",
    "IALS",
    "LFT",
    "LOCA",
    "TALL",
    "WL",
    "Blend",
    "Comparison",
    "EnLFT",
    "GreysheepError",
    "GreysheepWarning",
    "Interactions",
    "ItemKNN",
    "LMoE",
    "Mainstream",
    "MoE",
    "MultVAE",
    "Popular",
    "Report",
    "Split",
    "Tuning",
    "WeightedEASE",
    "__version__",
    "compare",
    "compile_index",
    "datasets",
    "evaluate",
    "load",
    "mainstream_scores",
    "models",
    "simulate",
    "split",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"greysheep.{_ROOMS[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'greysheep' has no attribute {name!r}")
    value = getattr(import_module(f"greysheep.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
