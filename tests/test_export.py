"""Vectors for other systems, settings as scikit-learn has them, and the notebook."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import greysheep as gs
from contract import world
from greysheep.cli import run
from greysheep.errors import ConfigError, DataError
from greysheep.system.seal import check_seal

DOCS = Path(__file__).parents[1] / "docs"
IALS = gs.IALS(factors=6, progress=False).fit(world())


def test_at_its_own_rank_a_factorisation_is_what_it_was():
    vectors = gs.vectors_of(IALS, rank=6)
    scores = IALS.serving_scores(np.arange(96))
    np.testing.assert_allclose(vectors.users @ vectors.items.T, scores, atol=1e-4)
    assert vectors.agreement == 1 and vectors.rank == 6
    few = gs.vectors_of(IALS, rank=2)
    left, values, right = np.linalg.svd(scores)
    best = (left[:, :2] * values[:2]) @ right[:2]
    np.testing.assert_allclose(few.users @ few.items.T, best, atol=1e-3)
    assert gs.vectors_of(IALS, rank=500).rank == 48


@pytest.mark.parametrize(
    "model",
    [
        gs.Popular(),
        gs.EASE(regularization=10.0),
        gs.TALL(n_experts=2, latent=4, epochs=2, progress=False),
        gs.Ensemble(members="ease+itemknn", weights="0.5+0.5"),
    ],
    ids=lambda model: model.name,
)
def test_any_model_has_vectors(model: Any):
    log = gs.simulate(n_users=90, n_items=50, rows_per_user=12, seed=1).log
    full = gs.vectors_of(model.fit(log), rank=50)
    assert full.agreement > 0.95 and full.users.shape == (90, 50)
    np.testing.assert_allclose(full.users @ full.items.T, model.serving_scores(np.arange(90)), atol=2e-3)


def test_only_items_that_were_learned_are_there():
    newer = gs.update(IALS, add=pl.DataFrame({"user_id": ["new"] * 2, "item_id": ["late", "0001"]}))
    vectors = gs.vectors_of(newer, rank=6)
    assert "late" not in vectors.item_ids and vectors.users.shape == (97, 6) and vectors.agreement == 1


def test_files_hold_the_vectors(tmp_path: Path):
    vectors = gs.vectors_of(IALS, rank=6)
    for kind in ("parquet", "npy"):
        folder = vectors.write(tmp_path / kind, format=kind)
        assert check_seal(folder)["rank"] == 6
        of_users = ("users", vectors.user_ids, vectors.users)
        for name, ids, wanted in (of_users, ("items", vectors.item_ids, vectors.items)):
            frame = pl.read_parquet(folder / f"{name}.parquet")
            assert frame[:, 0].equals(ids)
            found = np.load(folder / f"{name}.npy") if kind == "npy" else frame["vector"].to_numpy()
            np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ConfigError, match="already holds files"):
        vectors.write(tmp_path / "npy")
    with pytest.raises(ConfigError, match="format='csv'"):
        vectors.write(tmp_path / "csv", format="csv")
    bare = gs.load(IALS.save(tmp_path / "bare", include_history=False))
    with pytest.raises(DataError, match="saved without its rows"):
        gs.vectors_of(bare)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    IALS.save("model")
    assert run(["export", "model", "-o", "vectors", "--rank", "6"]) == 0
    assert "they find 100.0% of users' 20 best items" in capsys.readouterr().out
    for line in (
        "export model -o vectors",
        "export model -o other --format csv",
        "export model -o model --overwrite",
    ):
        assert run(line.split()) == 2
    assert not Path("other").exists()


@pytest.mark.skipif(find_spec("usearch") is None, reason="usearch is not installed")
def test_the_recipe_finds_the_models_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    rows = world().frame().with_columns(pl.col("user_id").replace({"003": "alice"}))
    rows.write_parquet("log.parquet")
    model = gs.IALS(factors=6, progress=False).fit(rows)
    gs.vectors_of(model, rank=6).write("vectors")
    text = (DOCS / "export.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert names["best"] == model.recommend(["alice"], k=10)["item_id"].to_list()


def test_settings_go_in_and_out():
    model = gs.TALL(n_experts=3, seed=5)
    params = model.get_params()
    assert params["n_experts"] == 3 and params["seed"] == 5 and gs.TALL(**params).config == model.config
    assert model.set_params(n_experts=4, threads=2) is model
    assert model.config.n_experts == 4 and model.options.threads == 2 and model.options.seed == 5
    before = model.get_params()
    for bad in ({"n_expert": 1}, {"n_experts": 0}, {"label": "x", "latent": -1}):
        with pytest.raises((ConfigError, TypeError)):  # a label given twice is Python's to refuse
            model.set_params(**bad)
        assert model.get_params() == before
    fitted = gs.Popular().fit(world())
    assert fitted.set_params() is fitted and fitted.recommend(k=1).height == 96
    with pytest.raises(gs.GreysheepError, match="not fitted"):
        fitted.set_params(seed=1).recommend()


def test_scikit_learn_clones_models():
    sklearn = pytest.importorskip("sklearn.base")
    both = gs.Ensemble(members="ease+popular", label="both").fit(gs.split(world()))
    other = sklearn.clone(both)
    assert other.label == "both" and other.get_params() == both.get_params() and other._fitted is None
    assert both.config.weights is not None and other.config.weights is None
    assert sklearn.clone(gs.EASE(regularization=7.5)).config.regularization == 7.5


@pytest.mark.skipif(find_spec("nbclient") is None or find_spec("ipykernel") is None, reason="no kernel")
def test_the_notebook_runs(tmp_path: Path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / "quickstart.ipynb", as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]
    here = {"metadata": {"path": tmp_path}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=here).execute()
    assert "known users with new rows" in str(notebook.cells[-1].outputs)
