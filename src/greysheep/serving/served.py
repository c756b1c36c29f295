"""What is served now, and the watch over the folders it comes from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from greysheep.errors import GreysheepError
from greysheep.serving.loaded import Loaded, version_of
from greysheep.serving.titles import Titles

log = logging.getLogger("greysheep.serving")


@dataclass(frozen=True, eq=False)
class Served:
    """The model, the baselines shown beside it, and the titles: what one request is answered from."""

    main: Loaded
    baselines: tuple[Loaded, ...] = ()
    titles: Titles = field(default_factory=Titles)


class Shelf:
    """The model folders; `served` is what was read of them last, replaced in one step."""

    def __init__(
        self,
        folder: Path,
        baselines: Sequence[Path] = (),
        titles: Titles | None = None,
        *,
        verify: bool = True,
    ):
        self.folders, self.verify = (folder, *baselines), verify
        main, *others = (Loaded.read(place, verify=verify) for place in self.folders)
        self.served = Served(main, tuple(others), titles or Titles())
        self.swaps = 0
        self._told: dict[Path, str] = {}

    def refresh(self) -> None:
        """Read again what has changed; what cannot be read is told once and leaves the old in its place."""
        now = [self.served.main, *self.served.baselines]
        new = [self._fresh(folder, old) for folder, old in zip(self.folders, now, strict=True)]
        if new != now:
            self.served = Served(new[0], tuple(new[1:]), self.served.titles)
            self.swaps += 1

    def _fresh(self, folder: Path, old: Loaded) -> Loaded:
        if version_of(folder) == old.version:
            return old
        try:
            fresh = Loaded.read(folder, verify=self.verify)
        except (GreysheepError, OSError) as error:  # it may be half copied: the next look will tell
            if self._told.get(folder) != str(error):
                log.warning("%s stays at version %s: %s", folder, old.version[:12], error)
            self._told[folder] = str(error)
            return old
        self._told.pop(folder, None)
        log.info("%s: version %s in place of %s", folder, fresh.version[:12], old.version[:12])
        return fresh
