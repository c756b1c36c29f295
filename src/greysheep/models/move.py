"""From the rows that a model was fitted on to others, on which it is to serve without being trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from greysheep.data.splitting import GATE, TRAIN, Split, unseen_gate_mask
from greysheep.models.fitted import Fitted


@dataclass(frozen=True)
class Upkeep:
    """What `update` did, and what it could not do."""

    rows_added: int = 0
    """Pairs that were not there before."""
    users_added: int = 0
    users_changed: int = 0
    """Known users whose rows are others now."""
    items_added: int = 0
    unlearned: int = 0
    """Items of the new rows that nothing recommends, as no weights know them."""
    strangers: int = 0
    """Users none of whose items any weights know: their lists are those of an empty history."""
    users_forgotten: int = 0
    rows_forgotten: int = 0
    not_known: int = 0
    """Users to forget who were not there."""
    rows_refused: int = 0
    """Rows to be added of users who are to be forgotten."""
    test_rows: int = 0
    """Test rows of before, which are train rows now."""
    kept: tuple[str, ...] = ()
    """Parts whose weights are as they were trained."""

    def lines(self) -> list[str]:
        """The same in words."""
        kept = ", ".join(self.kept)
        said = [
            f"added {self.rows_added:,} rows: {self.users_added:,} new users, "
            f"{self.users_changed:,} known users with new rows, {self.items_added:,} new items"
        ]
        if self.users_forgotten or self.not_known:
            said.append(f"forgot {self.users_forgotten:,} users and their {self.rows_forgotten:,} rows")
        if self.users_forgotten and kept:
            still = f"the weights of {kept} were trained on their rows, too, and hold what came of that"
            said.append(f"{still}: only a new fit takes it out")
        elif self.users_forgotten:
            said.append("nothing that was learned from them is left: it was computed again without them")
        late = f"items are unknown to the weights of {kept}: stored, and not recommended before a new fit"
        for count, what in (
            (self.not_known, "users to forget were not there"),
            (self.rows_refused, "rows to add are of users to forget: left out"),
            (self.unlearned, late),
            (self.strangers, "users have no item that the weights know: their lists are those of no history"),
            (
                self.test_rows,
                "test rows are train rows now: the new model serves, nothing is left to test it on",
            ),
        ):
            if count:
                said.append(f"{count:,} {what}")
        return said

    def __str__(self) -> str:
        return "\n".join(self.lines())


@dataclass(frozen=True, eq=False)
class Move:
    """The new rows, and what became of the old users and items; U' users, I' items now.

    split: the new rows. users: [U'] code that each user had, -1 = she is new. changed: [U'] whether she is
    new or has other rows than before. items: [I] code that each item of before has now.
    """

    split: Split
    users: NDArray[np.int64]
    changed: NDArray[np.bool_]
    items: NDArray[np.int64]

    @property
    def stay(self) -> NDArray[np.bool_]:
        """[U'] users whose rows are as they were."""
        return np.asarray(~self.changed & (self.users >= 0))

    def record(self, before: Fitted) -> Fitted:
        """The record of a fit whose weights stay: on the new rows, with the items that the weights know."""
        n_items = self.split.log.n_items
        learned = self.items if before.learned is None else self.items[before.learned]
        trained = np.zeros(n_items, bool)
        trained[self.items[before.trained_items]] = True
        record = Fitted(
            self.split, weighted=before.weighted, has_history=before.has_history, trained_items=trained
        )
        record.learned = None if len(learned) == n_items else learned
        if not before.has_history:  # counted when the rows were there
            record.item_counts, record.fingerprint = before.item_counts, before.fingerprint
        for name in ("history", "train_seconds", "epochs", "best_epoch", "gate_entropy", "peak_memory_bytes"):
            setattr(record, name, getattr(before, name))
        return record

    def gate_apart(self, learned: NDArray[np.int64] | None) -> Move:
        """The same with the rows of changed users dealt out as those of unseen people are: train and gate.

        learned: items that count; rows of others are none to a gate.
        """
        log, part = self.split.log, self.split.part.copy()
        theirs = self.changed[log.users]
        part[theirs] = TRAIN
        if learned is not None:
            theirs &= np.isin(log.items, learned)
        rows = np.flatnonzero(theirs)
        times = None if log.times is None else log.times.gather(rows)
        probe = unseen_gate_mask(log.users[rows].astype(np.int64), log.decode_items(log.items[rows]), times)
        part[rows[probe]] = GATE
        return replace(self, split=replace(self.split, part=part))
