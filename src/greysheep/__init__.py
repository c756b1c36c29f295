"""Recommenders for users whose taste few others share.

The public names are loaded on first use, so that `import greysheep` stays quick and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greysheep import datasets as datasets
    from greysheep import models as models
    from greysheep.comparison import Comparison as Comparison
    from greysheep.comparison import compare as compare
    from greysheep.datasets import simulate as simulate
    from greysheep.errors import GreysheepError as GreysheepError
    from greysheep.errors import GreysheepWarning as GreysheepWarning
    from greysheep.evaluation import Report as Report
    from greysheep.evaluation import evaluate as evaluate
    from greysheep.interactions import Interactions as Interactions
    from greysheep.mainstream import Mainstream as Mainstream
    from greysheep.mainstream import mainstream_scores as mainstream_scores
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
    from greysheep.splitting import Split as Split
    from greysheep.splitting import split as split
    from greysheep.tuning import Tuning as Tuning
    from greysheep.tuning import tune as tune

__version__ = "0.1.0"

_ROOMS = ("datasets", "models")
_HOME = {
    "Blend": "models",
    "Comparison": "comparison",
    "EASE": "models",
    "EnLFT": "models",
    "IALS": "models",
    "TALL": "models",
    "WL": "models",
    "Tuning": "tuning",
    "GreysheepError": "errors",
    "GreysheepWarning": "errors",
    "Interactions": "interactions",
    "ItemKNN": "models",
    "Mainstream": "mainstream",
    "LFT": "models",
    "LOCA": "models",
    "LMoE": "models",
    "MoE": "models",
    "MultVAE": "models",
    "Popular": "models",
    "Report": "evaluation",
    "Split": "splitting",
    "WeightedEASE": "models",
    "compare": "comparison",
    "evaluate": "evaluation",
    "load": "models",
    "mainstream_scores": "mainstream",
    "simulate": "datasets",
    "split": "splitting",
    "tune": "tuning",
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
        return import_module(f"greysheep.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'greysheep' has no attribute {name!r}")
    value = getattr(import_module(f"greysheep.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
