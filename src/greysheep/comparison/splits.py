"""One split per seed with the users' scores, shared by all runs of a comparison."""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import polars as pl

from greysheep.data.columns import GROUP, USER
from greysheep.data.interactions import Interactions
from greysheep.data.own_groups import read_groups
from greysheep.data.splitting import Split, split
from greysheep.errors import DataError, GreysheepWarning, MissingExtraError
from greysheep.mainstream.groups import Mainstream, UserGroups
from greysheep.mainstream.scores import density_scores, distribution_scores
from greysheep.system.files import written_or_refused

SCORES, OWN = "groups.parquet", "own.parquet"


def scores_of(parts: Split) -> pl.DataFrame:
    """Every user's score by each measure of mainstreamness: user_id, mainstream, density, distribution.

    Density is left out where scikit-learn is absent or there are too few users.
    """
    rows = parts.rows("train")
    known = parts.mainstream
    frame = pl.DataFrame({USER: parts.log.user_ids, "mainstream": known.scores}).with_columns(
        sampled=pl.lit(known.sampled), bound=pl.lit(known.bound)
    )
    with suppress(MissingExtraError, DataError):  # `Comparison.facts` says which grouping is not there
        frame = frame.with_columns(density=density_scores(rows))
    return frame.with_columns(distribution=distribution_scores(rows))


def read_split(folder: Path) -> tuple[Split, pl.DataFrame]:
    """Read what `Splits` wrote: a split that knows its users' groups, and the scores by every measure."""
    parts = Split.read(folder)
    scores = pl.read_parquet(folder / SCORES, glob=False)
    known = Mainstream.from_scores(scores["mainstream"].to_numpy(), parts.log.user_ids)
    if (file := folder / OWN).is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GreysheepWarning)  # given when the groups were first read
            parts = replace(parts, groups=read_groups(pl.read_parquet(file, glob=False), parts.log))
    known = replace(known, sampled=scores["sampled"][0], bound=scores["bound"][0])
    return parts.with_mainstream(known), scores


class Splits:
    """One split per seed, written once for all models and kept while they need it."""

    def __init__(self, log: Interactions, protocol: str, out: Path, groups: UserGroups | None = None):
        self.log, self.protocol, self.groups = log, protocol, groups
        self.folder, self.scores = out / "splits", out / "groups"
        self.clear()  # left by a comparison that was killed

    def __contains__(self, seed: int) -> bool:
        return (self.folder / f"s{seed}").is_dir()

    def of(self, seed: int) -> Path:
        """The folder of a seed's split, with the users' scores."""
        folder = self.folder / f"s{seed}"
        if seed not in self:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GreysheepWarning)  # given when the log was first split
                parts = split(self.log, self.protocol, seed)
            scores = self._scores(parts)
            parts.write(folder)
            with written_or_refused(folder / SCORES) as draft:
                scores.write_parquet(draft)
            if self.groups is not None:
                own = pl.DataFrame({USER: self.log.user_ids, GROUP: self.groups.named()})
                with written_or_refused(folder / OWN) as draft:
                    own.write_parquet(draft)
        return folder

    def _scores(self, parts: Split) -> pl.DataFrame:
        """Scores take longer than the split: they outlive an interruption."""
        known = self.scores / f"s{parts.seed}.parquet"
        if not known.is_file():
            with written_or_refused(known) as draft:
                scores_of(parts).write_parquet(draft)
        return pl.read_parquet(known, glob=False)

    def drop(self, seed: int) -> None:
        """Remove the split of a seed that no run needs any more."""
        shutil.rmtree(self.folder / f"s{seed}", ignore_errors=True)

    def clear(self) -> None:
        """Remove all splits: they are copies of the log."""
        shutil.rmtree(self.folder, ignore_errors=True)
