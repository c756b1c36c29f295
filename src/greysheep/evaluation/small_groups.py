"""What a group of a few users can show, in a sentence."""

from __future__ import annotations

import polars as pl

from greysheep.data.columns import GROUP
from greysheep.evaluation.numbers import number, short
from greysheep.metrics.statistics import LEAST_USERS


def notes_on_small_groups(by_group: pl.DataFrame, metric: str) -> list[str]:
    """One sentence for each group of fewer than LEAST_USERS users with test rows.

    The smallest p of a two-sided sign-flip test of n users is 2 / 2^n, that of all signs alike.
    """
    notes = []
    for row in by_group.iter_rows(named=True):
        group, n = row[GROUP], int(row["n_users"])
        if n == 0:
            notes.append(f"{group}: no user with test rows, so nothing is known of this group.")
        elif n < LEAST_USERS:
            low, high = (short(number(row.get(f"{metric}_{end}"))) for end in ("low", "high"))
            notes.append(
                f"{group}: {n} user{'s' if n > 1 else ''} with test rows, which shows single cases and not "
                f"how such users fare: its interval ({low} to {high}) is rather too narrow, no paired test "
                f"of so few can go below p = {2 / 2**n:.3g}, and harm is judged from {LEAST_USERS} users up."
            )
    return notes
