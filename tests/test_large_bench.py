"""The stages of benchmarks/large.py on a small world, in this process, and the page made of them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from greysheep.mainstream import scores as mainstream

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import large
import stage

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks of single steps are read from Linux's /proc"
)


@pytest.fixture
def small(tmp_path, monkeypatch):
    world = {"n_items": 60, "n_communities": 3, "rows_per_user": 12, "seed": 0}
    monkeypatch.setattr(large, "WORLD", world)
    monkeypatch.setattr(large, "MODEL", {**large.MODEL, "n_experts": 2, "latent": 4})
    monkeypatch.setattr(large, "BUILD", tmp_path)
    monkeypatch.setattr(large, "PAGE", tmp_path / "large.md")
    monkeypatch.setattr(stage.jobs, "run", lambda command, job, log, threads: stage.work(job))
    monkeypatch.setattr(mainstream, "LEAST_SAMPLE", 30)
    monkeypatch.setattr(mainstream, "EXACT_PAIRS", 1)
    return tmp_path


def test_every_stage_then_the_page(small):
    options = argparse.Namespace(users=100, batch_size=32, train_users=40)
    large.measured(options, list(large.STAGES))
    folder = small / "large" / "100"
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in large.STAGES}
    assert {name: [step["step"] for step in record["steps"]] for name, record in found.items()} == {
        "simulate": ["simulate", "write parquet"],
        "split": ["Interactions.read", "split, protocol strict"],
        "mainstream": ["Interactions.read", "split, protocol strict", "mainstream scores"],
        "fit": [
            "Interactions.read",
            "split, protocol strict",
            "mainstream scores",
            "TALL.fit, one epoch",
            "save",
        ],
        "evaluate": ["load", "mainstream scores", "evaluate, every user"],
    }
    assert all(1e6 < step["peak"] < 1e11 for record in found.values() for step in record["steps"])
    assert found["split"]["facts"]["rows"] == 1200
    assert found["mainstream"]["facts"]["sampled"] == 30
    assert len(found["mainstream"]["facts"]["said"]) == 1
    assert found["fit"]["facts"]["trained_users"] == 40
    assert found["evaluate"]["facts"]["users"] == 100
    page = large.page(found).read_text()
    assert "100 simulated users" in page and "1,200 rows" in page
    assert "compared with 30 others" in page
    assert "of 40 users" in page and "in proportion" in page
    assert "tall " in page


def test_without_a_limit_every_user_is_trained_on(small):
    options = argparse.Namespace(users=50, batch_size=32, train_users=None)
    found = large.measured(options, ["simulate", "fit"])["fit"]
    assert found["facts"]["trained_users"] == 50
