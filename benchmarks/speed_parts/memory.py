"""Memory that a process holds after each step of loading; the model has its initial, random weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE


def save(log: str, n_experts: int, latent: int, folder: str) -> dict[str, Any]:
    """Write a model for another process to load."""
    from speed_parts.settings import Cell
    from speed_parts.worker import untrained

    model = untrained(Cell(log, n_experts, latent), "cpu")
    model._store_gates()
    model.save(folder)
    return {}


def loaded(folder: str, n_experts: int) -> dict[str, Any]:
    """Bytes held after each step, one after the other."""
    import greysheep as gs

    held = {"greysheep imported": resident()}
    gs.TALL  # noqa: B018 - a lazy name: this is what brings torch
    held["greysheep.TALL (torch)"] = resident()
    model = gs.load(folder)
    held[f"model loaded, K = {n_experts}"] = resident()
    model.recommend(model.log.user_ids[:100], k=20)
    held["100 users recommended to"] = resident()
    return {"held": held}
