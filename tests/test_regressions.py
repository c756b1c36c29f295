"""Faults that were found by reading: each has a test that fails without its mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, vstack

import greysheep as gs
from greysheep.errors import ConfigError, DataError, GreysheepWarning, ModelFolderError, NotFittedError
from greysheep.models.base import IterativeModel
from greysheep.nn import routing
from greysheep.nn.sparse_rows import SparseRows

QUICK: dict[str, Any] = {"latent": 6, "epochs": 2, "progress": False}


@pytest.fixture(scope="module")
def log() -> gs.Interactions:
    return gs.datasets.simulate(n_users=60, n_items=40, seed=0).log


def test_saving_replaces_neither_a_home_folder_nor_another_manifest(
    log: gs.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = gs.models.Popular().fit(log)
    for name in ("Documents/thesis.txt", "site/manifest.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text('{"name": "a web page"}')
        with pytest.raises(ModelFolderError, match="with other things in it"):
            model.save(f"~/{Path(name).parent}")
        assert (tmp_path / name).exists()
    assert gs.load(model.save("~/model")).log.n_users == 60
    model.save("~/model")  # its own folder it may replace


def test_a_model_loaded_without_rows_can_be_fitted_and_saved_again(
    log: gs.Interactions, tmp_path: Path
) -> None:
    first = gs.MultVAE(**QUICK).fit(log)
    first.save(tmp_path / "a", include_history=False)
    loaded = gs.load(tmp_path / "a")
    with pytest.raises(DataError, match="saved without its rows"):
        _ = loaded.mainstream
    loaded.save(tmp_path / "b")
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in "ab"]
    assert manifests[0] == manifests[1]
    loaded.fit(log)
    assert loaded.recommend([log.user_ids[0]], k=3).height == 3


def test_known_users_keep_their_group_when_asked_by_their_own_rows(log: gs.Interactions) -> None:
    model = gs.models.Popular().fit(log)
    found = model.groups_of(log.frame())
    codes = log.encode_users(found["user_id"])
    np.testing.assert_allclose(found["score"], model.serving_mainstream.scores[codes], rtol=1e-6)


def test_a_batch_in_which_nobody_weighs_anything_teaches_nothing(log: gs.Interactions) -> None:
    model = gs.models.WL(batch_size=1, **QUICK).fit(log)  # the most mainstream user weighs 0
    assert np.isfinite([row["loss"] for row in model.history]).all()


def test_gates_of_many_people_are_computed_in_pieces(
    log: gs.Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = gs.TALL(n_experts=2, **QUICK).fit(log)
    whole = model.recommend(history=log.frame(), k=5)
    sizes: list[int] = []
    gates = type(model)._user_state

    def counted(self: Any, seen: csr_matrix, held_out: csr_matrix) -> Any:
        sizes.append(seen.shape[0])
        return gates(self, seen, held_out)

    monkeypatch.setattr(type(model), "_user_state", counted)
    monkeypatch.setattr("greysheep.models.recommender.SCORING_CELLS", 7 * log.n_items)
    assert model.recommend(history=log.frame(), k=5)["item_id"].to_list() == whole["item_id"].to_list()
    assert max(sizes) == 7


def test_bfloat16_reaches_models_that_know_two_types_only(log: gs.Interactions) -> None:
    pytest.importorskip("implicit")
    gs.models.IALS(factors=4, iterations=1, precision="bfloat16", progress=False).fit(log)


def test_an_ensemble_with_lft_refits_reloads_and_trains_it_once(
    log: gs.Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[str] = []
    fit = gs.models.LFT._fit
    monkeypatch.setattr(gs.models.LFT, "_fit", lambda self, split: fits.append("") or fit(self, split))
    members = "lft[latent=6,epochs=2,steps=2]+ease"
    ensemble = gs.Ensemble(members=members, weights="1+1", progress=False).fit(log, refit=True)
    assert len(fits) == 1
    ensemble.save(tmp_path / "ensemble")
    users = list(log.user_ids[:9])
    again = gs.load(tmp_path / "ensemble").recommend(users, k=5)
    assert again["item_id"].to_list() == ensemble.recommend(users, k=5)["item_id"].to_list()


def test_half_a_fit_is_none(log: gs.Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gs.models.EASE()
    for ask in (lambda: model.rank(np.arange(3)), lambda: model.mainstream):
        with pytest.raises(NotFittedError):
            ask()
    model.fit(log)

    def broken(self: Any, split: Any) -> None:
        raise ConfigError("no")

    monkeypatch.setattr(gs.models.EASE, "_fit", broken)
    with pytest.raises(ConfigError, match="no"):
        model.fit(log)
    with pytest.raises(NotFittedError):
        model.recommend()


def test_a_refit_that_diverges_keeps_the_first_model(
    log: gs.Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = IterativeModel._run

    def broken(self: Any, split: Any, objective: Any, epochs: int, label: str) -> Any:
        if objective is None:
            run(self, split, objective, epochs, label)
            raise ConfigError("training diverged")
        return run(self, split, objective, epochs, label)

    plain = gs.TALL(n_experts=3, active_experts=2, warm_up=0, seed=1, **QUICK).fit(log)
    monkeypatch.setattr(IterativeModel, "_run", broken)
    with pytest.warns(GreysheepWarning, match="refit of tall failed"):
        kept = gs.TALL(n_experts=3, active_experts=2, warm_up=0, seed=1, **QUICK).fit(log, refit=True)
    np.testing.assert_array_equal(plain.gates, kept.gates)
    assert plain.recommend().equals(kept.recommend())


def test_gate_entropy_means_the_same_while_training_and_after(log: gs.Interactions) -> None:
    split = gs.split(log, protocol="strict", seed=0)
    gate = {"gate": "temperature", "temperature": 0.05, "shrinkage": 0}
    model = gs.TALL(n_experts=3, **gate, **{**QUICK, "epochs": 5}).fit(split)
    trained = model.history[model.best_epoch - 1]["gate_entropy"]
    judged = np.diff(split.rows("validation").indptr) > 0
    gates = model.gates[judged & (np.diff(split.gate_rows().indptr) > 0)]
    expected = -(gates * np.log(np.maximum(gates, 1e-30))).sum(1).mean()
    np.testing.assert_allclose(trained, expected, rtol=1e-4)


def test_ties_between_experts_do_not_depend_on_the_batch() -> None:
    random = np.random.default_rng(0)
    rows = csr_matrix((random.random((200, 30)) < 0.2).astype(np.float32))
    flat = torch.full((200, 4), 0.25)
    whole = routing.strongest(flat, 1, SparseRows.from_csr(rows))
    alone = routing.strongest(flat[7:8], 1, SparseRows.from_csr(rows[7:8]))
    assert torch.equal(whole[7:8], alone)
    behind = routing.strongest(flat[:5], 1, SparseRows.from_csr(vstack([rows[9:13], rows[7]], "csr")))
    assert torch.equal(behind[4:], alone)


def test_similar_items_of_what_is_no_list(log: gs.Interactions) -> None:
    model = gs.models.EASE().fit(log)
    for items in (5, [1, "a"], "i0-000"):
        with pytest.raises(DataError, match="items"):
            model.similar_items(items)


def test_local_models_count_their_memory_first(log: gs.Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gs.models.LOCA(n_experts=20, **QUICK)
    monkeypatch.setattr("greysheep.models.training.footprint.available_bytes", lambda: 400_000)
    with pytest.raises(ConfigError, match=r"training needs .* for n_experts=21"):
        model.fit(log)


@pytest.mark.usefixtures("runs_here")
def test_a_finished_ensemble_is_found_again(log: gs.Interactions, tmp_path: Path) -> None:
    models = ["popular", "ensemble[members=popular+ease]"]
    ask: dict[str, Any] = {"seeds": [0], "out": tmp_path, "jobs": 1, "progress": False}
    assert len(gs.compare(log, models, **ask).runs) == 2
    again = gs.compare(log, models, max_minutes=0, **ask)  # may start nothing
    assert len(again.runs) == 2 and not again.missing
    with pytest.raises(ConfigError, match="models are texts"):
        gs.compare(log, [gs.models.EASE()], **ask)  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"no-such-log\.parquet does not exist"):
        gs.compare("no-such-log.parquet", models, **ask)
    with pytest.raises(ConfigError, match="too many"):
        gs.compare(log, models, **{**ask, "seeds": 10**11})


def test_no_harm_without_a_shown_gain_is_not_called_undecided() -> None:
    from greysheep.comparison.verdicts import verdict

    row = {"n_users": 100, "difference": 0.01, "p_holm": 0.3, "verdict": "no harm"}
    row |= {"ratio": 0.01, "ratio_low": -0.001, "ratio_high": 0.03, "resolvable_margin": 0.01}
    groups = ("overall", *gs.GROUPS) if hasattr(gs, "GROUPS") else ("overall", "low", "high")
    assert verdict([{**row, "group": group} for group in groups], 0.02).startswith("no gain shown in low")


def test_few_users_decide_nothing() -> None:
    from greysheep.metrics.statistics import no_harm

    assert no_harm(np.array([0.1]), np.array([0.2])).verdict == "undecided"
    assert no_harm(np.full(9, 0.1), np.full(9, 0.2)).verdict == "harm"
    assert no_harm(np.array([0.1]), np.array([0.1])).verdict == "no harm"


def test_tune_refuses_what_is_no_setting_and_knows_its_defaults(log: gs.Interactions, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    for key in ("preset", "label", "self"):
        with pytest.raises(ConfigError, match="cannot be fixed"):
            gs.tune("tall", log, trials=1, fixed={key: "ml-1m"}, progress=False)
    found = gs.tune("ease", log, trials=2, progress=False)
    assert found.defaults == 0


@pytest.mark.usefixtures("runs_here")
def test_means_over_other_splits_are_not_ranked(log: gs.Interactions, tmp_path: Path) -> None:
    from greysheep.comparison.text import _rows

    ask: dict[str, Any] = {"out": tmp_path, "jobs": 1, "progress": False}
    gs.compare(log, ["ease"], seeds=[0, 1], **ask)
    alike = gs.compare(log, ["popular", "ease"], seeds=[0], **ask)
    uneven = gs.compare(log, ["popular", "ease"], seeds=[0, 1], max_minutes=0, **ask)
    assert any(cell.endswith("*") for row in _rows(alike, best="*") for cell in row)
    assert not any(cell.endswith("*") for row in _rows(uneven, best="*") for cell in row)


def test_an_interrupted_refit_of_lft_keeps_the_first_model(
    log: gs.Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from greysheep.models.local import lft

    train = lft.train_global

    def pressed(model: Any, split: Any, epochs: int | None = None) -> Any:
        if epochs is not None:
            raise KeyboardInterrupt
        return train(model, split)

    monkeypatch.setattr(lft, "train_global", pressed)
    with pytest.warns(GreysheepWarning, match="the first model is kept"):
        model = gs.models.LFT(steps=2, **QUICK).fit(log, refit=True)
    assert model.recommend([log.user_ids[0]], k=3).height == 3


def test_the_reference_of_a_search_runs_where_its_trials_do(
    log: gs.Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    from greysheep.tuning import search

    asked: list[dict[str, Any]] = []
    parse = search.parse
    monkeypatch.setattr(search, "parse", lambda text, **more: asked.append(more) or parse(text, **more))
    gs.tune("ease", log, objective="no-harm", trials=1, fixed={"threads": 1}, progress=False)
    assert [one.get("threads") for one in asked] == [1]
