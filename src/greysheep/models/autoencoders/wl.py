"""WL (Zhu & Caverlee, WSDM 2022): MultVAE in which niche users weigh more."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from greysheep.models.autoencoders import search_spaces
from greysheep.models.autoencoders.config import MultVAEConfig
from greysheep.models.autoencoders.multvae import MultVAE


class WLConfig(MultVAEConfig):
    """Settings of WL, beside those of MultVAE."""

    power: float = Field(1.2, ge=0, le=10)
    """How steeply a user's weight falls with her mainstream score; 0 = equal weights."""


class WL(MultVAE):
    """MultVAE trained with fixed user weights ((max S - S_u) / (max S - min S))^power, scaled to mean 1.

    S is the mainstream score on train rows, so the most mainstream user weighs 0.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.WL(latent=8, epochs=2, seed=0, progress=False).fit(log)
    >>> model.recommend(log.user_ids[:2], k=3).height
    6
    """

    name = "wl"
    Config = WLConfig
    search_space, search_starts = search_spaces.USER_WEIGHTED, search_spaces.STARTS

    fixed: ClassVar[dict[str, Any]] = {"weighting": "mainstream"}
