"""A model class of somebody's own: installed with an entry point, in a module, in a script, in a session."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import greysheep as gs
from contract import ModelContract, world
from greysheep.errors import ConfigError, ModelFolderError
from greysheep.models import REGISTRY, Model, create, parse
from greysheep.models.registry import sources
from greysheep.system.seal import write_seal

ROOT = Path(__file__).parents[1]
TOY = ROOT / "tests" / "toy_package"
MODULE = TOY / "src" / "cooccurrence" / "__init__.py"


def install(site: Path, points: dict[str, str], name: str = "toy") -> None:
    """Write down a package's entry points as an installer does."""
    info = site / f"{name}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [f"{point} = {value}\n" for point, value in points.items()]
    (info / "entry_points.txt").write_text("[greysheep.models]\n" + "".join(lines))


def forget(*names: str) -> None:
    """Undo the import of modules and their models, so that no other test meets them."""
    for name in names:
        REGISTRY.pop(name, None)
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The toy package as an installer leaves it, on the path of this process and of those it starts."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(TOY / "src" / "cooccurrence", site / "cooccurrence")
    project = tomllib.loads((TOY / "pyproject.toml").read_text())["project"]
    install(site, project["entry-points"]["greysheep.models"], project["name"].replace("-", "_"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        yield site
    forget("cooccurrence")


def test_the_page_shows_the_package() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    assert block is not None and block[1] == MODULE.read_text(encoding="utf-8")
    assert '[project.entry-points."greysheep.models"]\ncooccurrence = "cooccurrence:Cooccurrence"' in page


class TestCooccurrence(ModelContract):
    """Every test that greysheep's own models pass."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def found(cls, installed: Path) -> None:
        cls.kind = type(create("cooccurrence"))


def test_an_installed_model_is_loaded_in_a_fresh_process(installed: Path, tmp_path: Path) -> None:
    model = create("cooccurrence", power=0.3).fit(world(24))
    model.save(tmp_path / "model")
    code = "import sys, greysheep as gs; gs.load(sys.argv[1]).recommend(k=3).write_parquet(sys.argv[2])"
    lists = tmp_path / "lists.parquet"
    subprocess.run([sys.executable, "-c", code, tmp_path / "model", lists], check=True)
    import polars as pl

    assert pl.read_parquet(lists).equals(model.recommend(k=3))


def test_an_installed_model_is_compared_and_tuned(installed: Path, tmp_path: Path) -> None:
    log = world(48)
    compared = gs.compare(log, ["cooccurrence[power=0.3]"], seeds=1, out=tmp_path / "out", progress=False)
    assert not compared.failures and len(compared.runs) == 1
    assert compared.runs[0].model == "cooccurrence" and compared.runs[0].config == {"power": 0.3}
    tuned = gs.tune("cooccurrence", log, trials=2, progress=False)
    assert tuned.trials["state"].to_list() == ["finished"] * 2
    with pytest.raises(ConfigError, match="'cooccurrence' is the name of another model"):
        gs.compare(log, {"cooccurrence": "ease"}, out=tmp_path / "other", progress=False)


def test_an_ensemble_takes_an_installed_model(installed: Path) -> None:
    ensemble = gs.Ensemble(members="ease+cooccurrence", weights="1+1", progress=False).fit(world(24))
    assert ensemble.recommend(k=2).height == 48
    assert sources("ensemble[members=ease+cooccurrence]") == [("cooccurrence", str(installed.resolve()))]
    assert sources("ensemble") == sources("tall") == []


def test_a_class_that_is_gone_is_named(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create("cooccurrence").fit(world(24)).save(tmp_path / "model")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(installed)])
    forget("cooccurrence")
    with pytest.raises(ModelFolderError, match=r"class cooccurrence:Cooccurrence is not known here: import"):
        gs.load(tmp_path / "model")
    with pytest.raises(ConfigError, match="there is no model 'cooccurrence'"):
        create("cooccurrence")


SCRIPT = """
if __name__ == "__main__":
    import sys
    import greysheep as gs

    log = gs.simulate(n_users=60, n_items=40).log
    model = gs.models.create("mine").fit(log)
    model.save("model")
    assert gs.load("model").recommend(k=3).equals(model.recommend(k=3))
    compared = gs.compare(log, ["mine"], seeds=1, out="out", progress=False)
    assert not compared.failures, compared.failures
    assert len(gs.tune("mine", log, trials=2, progress=False).trials) == 2
    print(compared.runs[0].model, compared.runs[0].config["power"])
"""


def test_a_class_in_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = MODULE.read_text().replace('"cooccurrence"', '"mine"')
    (tmp_path / "my_script.py").write_text(own + SCRIPT)
    done = subprocess.run(
        [sys.executable, "my_script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "mine 0.5\n", done.stderr
    about = json.loads((tmp_path / "model" / "config.json").read_text())
    assert about["class"] == "my_script:Cooccurrence"
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelFolderError, match="import my_script first"):
        gs.load(tmp_path / "model")  # a folder has nothing imported
    import_module("my_script")
    loaded = gs.load(tmp_path / "model")
    assert type(loaded).__module__ == "my_script" and loaded.recommend(k=3).height == 180
    forget("mine", "my_script")


def test_a_class_of_a_session_cannot_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    kind = type("Session", (gs.EASE,), {"name": "session", "__module__": "__main__"})
    try:
        with pytest.raises(ConfigError, match="class Session is defined in a session"):
            gs.compare(world(24), ["session"], out=tmp_path / "out", progress=False)
        kind().fit(world(24)).save(tmp_path / "model")
        assert isinstance(gs.load(tmp_path / "model"), kind)
        forget("session")
        with pytest.raises(ModelFolderError, match="class __main__:Session is not known here"):
            gs.load(tmp_path / "model")
    finally:
        forget("session")


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(ConfigError, match=r"class Mine: the name 'ease' is taken by greysheep.*EASE"):
        type("Mine", (Model,), {"name": "ease"})
    assert REGISTRY["ease"] is gs.EASE
    plain = type("Plain", (gs.EASE,), {})  # without a name of its own it is none of the registry's
    assert REGISTRY["ease"] is gs.EASE and plain().name == "ease"
    for _ in range(2):  # a cell of a notebook is run again
        again = type("Again", (gs.EASE,), {"name": "again"})
    assert isinstance(parse("again"), again)
    forget("again")


def test_nothing_in_a_folder_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = gs.Popular().fit(world(24)).save(tmp_path / "model")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "model": "trap", "class": "trap:Trap"}))
    facts = json.loads((folder / "manifest.json").read_text())
    del facts["files"]
    write_seal(folder, facts)
    (folder / "trap.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModelFolderError, match="trap:Trap is not known here"):
        gs.load(folder)


def test_a_broken_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, {"lost": "no_such_module:Lost", "other": "json:JSONDecoder"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="model 'lost' is installed but cannot be imported: No module"):
        create("lost")
    with pytest.raises(ConfigError, match=r"'other' \(json:JSONDecoder\) brings no model of that name"):
        create("other")
    with pytest.raises(ConfigError, match="there is no model 'losst'; the nearest is 'lost'"):
        create("losst")
    assert create("ease").name == "ease"
