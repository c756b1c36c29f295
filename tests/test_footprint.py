"""Memory is counted before training: where it is short the best weights go to disk, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import greysheep as gs
from contract import assert_same_state, world
from greysheep.errors import ConfigError
from greysheep.models.autoencoders import trainer as mixture_trainer
from greysheep.models.training import footprint
from greysheep.models.training.footprint import Footprint
from greysheep.nn.bank import ExpertBank

KEYWORDS: dict[str, Any] = {"n_experts": 3, "latent": 8, "epochs": 6, "batch_size": 16, "progress": False}


def test_weights_are_those_of_a_bank() -> None:
    bank = ExpertBank(3, 40, 8)
    held = sum(parameter.numel() * parameter.element_size() for parameter in bank.parameters())
    assert Footprint(3, 8, 40, 16).weights == held
    assert Footprint(3, 8, 40, 16, item_size=8).weights == 2 * held


def test_refusal_names_settings_that_fit_and_no_larger_ones_do() -> None:
    wanted = Footprint(100, 100, 25_720, 256)
    free = wanted.step // 2
    with pytest.raises(ConfigError, match=r"training needs .* GB for n_experts=100, latent=100") as error:
        wanted.spills(free)
    told = dict(
        part.split("=") for part in str(error.value).split(": ")[1].removesuffix(" fits").split(" or ")
    )
    for name, value in told.items():
        own = {"n_experts": 100, "latent": 100, "n_items": 25_720, "batch_size": 256}
        assert not isinstance(Footprint(**{**own, name: int(value)}).spills(free), str)
        with pytest.raises(ConfigError):
            Footprint(**{**own, name: int(value) + 1}).spills(free)
    with pytest.raises(ConfigError, match="no setting fits"):
        wanted.spills(1000)
    assert not wanted.spills(10 * wanted.step)
    assert wanted.spills(int(wanted.step / 0.94))


def test_best_weights_on_disk_are_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    log = world(48)
    plain = gs.TALL(**KEYWORDS, start_epoch=0).fit(log)
    assert not plain.best_weights_spill
    batch = Footprint(3, 8, log.n_items, 16)
    monkeypatch.setattr(footprint, "available_bytes", lambda: int((batch.step + batch.weights / 2) / 0.95))
    written: list[str] = []
    save = mixture_trainer.save_file
    monkeypatch.setattr(mixture_trainer, "save_file", lambda state, to: (written.append(to), save(state, to)))
    spilled = gs.TALL(**KEYWORDS, start_epoch=0).fit(log)
    assert spilled.best_weights_spill and written
    assert not any(Path(path).exists() for path in written)
    assert_same_state(plain, spilled)


def test_too_little_memory_is_one_line_before_any_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "available_bytes", lambda: 200_000)
    with pytest.raises(ConfigError, match=r"are free: n_experts=\d+ (or latent=\d+ )?fits"):
        gs.TALL(**{**KEYWORDS, "n_experts": 50}).fit(world(48))


def test_a_step_stays_within_the_estimate() -> None:
    # The largest arrays of a step, counted by torch's own profiler against the estimate without the weights.
    log = world(96)
    model = gs.TALL(**{**KEYWORDS, "batch_size": 96}, start_epoch=0)
    trainer = model._trainer(gs.split(log), None)
    users = torch.from_numpy(trainer.users)
    trainer._train_batch(users, trainer.user_weights[users])
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        trainer._train_batch(users, trainer.user_weights[users])
    held = highest = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    estimate = Footprint(3, 8, log.n_items, 96)
    assert 0.4 <= highest / (estimate.step - 3 * estimate.weights) <= 1.5
