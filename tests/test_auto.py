"""What `auto` fits within a budget, and what it leaves out."""

from typing import Any

import numpy as np
import pytest

import greysheep as gs
from contract import world
from greysheep.errors import ConfigError, GreysheepWarning
from greysheep.tuning import auto as room

FEW = (("popular", "rows"), ("ease[regularization=10]", "inverse"), ("itemknn", "rows"))


@pytest.fixture(autouse=True)
def few_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MEMBERS", FEW)


def tried(said: str) -> list[str]:
    return [line for line in said.splitlines() if "validation" in line]


def test_all_that_fits_is_fitted_and_weighed(capsys: pytest.CaptureFixture[str]) -> None:
    parts = gs.split(world(), "strict", seed=3)
    model = gs.auto(parts, minutes=5, seed=3)
    said = capsys.readouterr().err
    assert len(tried(said)) == 3 and said.count(": about ") == 3
    assert model.selection is not None and len(model.selection.alone) == 3
    asked = gs.Ensemble(members=[text for text, _ in FEW], seed=3, progress=False).fit(parts)
    assert set(model.config.members) == set(asked.config.members) and model.options.seed == 3
    shares = dict(zip(asked.config.members, asked.weights, strict=True))
    found = [shares[text] for text in model.config.members]
    np.testing.assert_allclose(model.weights, found)


def test_what_does_not_fit_is_left_out_but_one_is_always_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    model = gs.auto(world(), minutes=1e-6)
    said = capsys.readouterr().err
    assert len(tried(said)) == 1 and said.count("left out, 0 s are left") == 2
    assert len(model.parts) == 1 and model.recommend(k=2).height == 2 * model.log.n_users


def test_ctrl_c_keeps_the_members_that_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[Any] = []
    member = room.Budget.member

    def interrupted(self: Any, estimate: Any) -> Any:
        if fits:
            raise KeyboardInterrupt
        fits.append(estimate)
        return member(self, estimate)

    monkeypatch.setattr(room.Budget, "member", interrupted)
    with pytest.warns(GreysheepWarning, match="interrupted: the 1 members that are fitted are kept"):
        model = gs.auto(world(), progress=False)
    assert model.interrupted and len(model.parts) == 1


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), True, "5"])
def test_a_budget_is_a_number_above_0(minutes: Any) -> None:
    with pytest.raises(ConfigError, match=r"minutes=.* must be a number above 0"):
        gs.auto(world(), minutes=minutes)


def test_options_are_run_options() -> None:
    with pytest.raises(ConfigError, match="auto has no option 'epochs'"):
        gs.auto(world(), epochs=3)
