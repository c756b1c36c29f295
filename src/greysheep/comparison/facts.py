"""How a comparison was made, for those who read its numbers later."""

from __future__ import annotations

import platform
from collections.abc import Collection
from importlib.metadata import version
from importlib.util import find_spec

from greysheep.comparison.tables import GROUPINGS
from greysheep.comparison.text import LEFT_OUT
from greysheep.data.interactions import Interactions
from greysheep.system.machine import own_version, threads_each, usable_cores


def facts_of_log(log: Interactions) -> dict[str, str]:
    """What was measured on, and with what."""
    one = log.summary
    filters = [
        f"ratings from {one.min_rating:g}" if one.min_rating is not None else "",
        f"{one.min_user_items} items a user" if one.min_user_items else "",
        f"{one.min_item_users} users an item" if one.min_item_users else "",
    ]
    return {
        "Log": f"{one.source or 'a frame'}: {len(log):,} rows, {log.n_users:,} users, {log.n_items:,} items",
        "Filter": ", ".join(filter(None, filters)) or "none",
        "Fingerprint": log.fingerprint(),
        "Versions": f"greysheep {own_version()}, torch {version('torch')}, "
        f"Python {platform.python_version()}",
    }


def facts(log: Interactions, groupings: Collection[str], jobs: int, command: str) -> dict[str, str]:
    """Name -> value. groupings: those that the comparison has."""
    entries = facts_of_log(log)
    versions = entries.pop("Versions")
    cores = f"{usable_cores()}; {jobs} at a time, {threads_each(jobs)} threads each"
    entries |= {"Cores": cores, "Versions": versions, "Command": command}
    if groupings and (absent := [name for name in GROUPINGS if name not in groupings]):
        entries[LEFT_OUT] = f"{', '.join(absent)}: not in every run"
        if "density" in absent and find_spec("sklearn") is None:
            entries[LEFT_OUT] += " (density needs scikit-learn: pip install greysheep[baselines])"
    return entries
