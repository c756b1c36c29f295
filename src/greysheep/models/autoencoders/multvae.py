"""MultVAE (Liang et al., WWW 2018): one expert, equal user weights."""

from __future__ import annotations

from typing import ClassVar

from greysheep.models.autoencoders import paper_settings, search_spaces
from greysheep.models.autoencoders.base import MixtureModel
from greysheep.models.autoencoders.config import MultVAEConfig


class MultVAE(MixtureModel):
    """Variational autoencoder with multinomial likelihood, in the form TALL's experts have.

    One linear layer each way, input scaled to unit length, no sampling at inference. Presets `ml-1m`, `yelp`
    and `cds` hold the settings of TALL's experts for those data sets, its sum of KL included;
    `variant="authors"` is the authors' own script of this model, which takes the mean of KL.

    >>> import greysheep as gs
    >>> log = gs.datasets.simulate(n_users=60, n_items=40, seed=0).log
    >>> model = gs.MultVAE(latent=8, epochs=2, seed=0, progress=False).fit(log)
    >>> model.recommend(log.user_ids[:1], k=3).columns
    ['user_id', 'item_id', 'score', 'rank']
    """

    name = "multvae"
    Config: ClassVar[type[MultVAEConfig]] = MultVAEConfig
    presets = paper_settings.MULTVAE
    search_space, search_starts = search_spaces.ONE_EXPERT, search_spaces.STARTS
