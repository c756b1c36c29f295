"""Rules of the house that hold for every file, and what `import greysheep` costs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import polars
import pytest
import yaml

import greysheep
from greysheep.cli import run
from greysheep.models import REGISTRY
from greysheep.models.known import OWN

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()


def test_import_brings_neither_torch_nor_frames():
    heavy = "{'torch', 'polars', 'numpy', 'scipy', 'pyarrow', 'pydantic', 'typer', 'rich'}"
    assert python(f"import sys, greysheep; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_help_brings_neither_torch_nor_frames():
    code = (
        "import sys; from greysheep.cli import run; code = run(['fit', '--help']); "
        "print('LOADED', code, sorted({'torch', 'polars', 'numpy', 'scipy', 'pyarrow'} & set(sys.modules)))"
    )
    assert python(code).endswith("LOADED 0 []")


def test_closed_forms_and_their_commands_never_import_torch(tmp_path: Path):
    greysheep.simulate(n_users=60, n_items=40, rows_per_user=15).log.frame().write_parquet(
        tmp_path / "log.parquet"
    )
    code = f"""
import os, sys
from greysheep.cli import run
from greysheep.models import REGISTRY
from greysheep.models.known import OWN
os.chdir({str(tmp_path)!r})
for line in (
    "mainstream log.parquet -o scores.parquet",
    "split log.parquet -o parts",
    "fit log.parquet -o ease --model ease --protocol strict",
    "fit log.parquet -o mix --model ensemble[members=ease-weighted+itemknn+userknn+ials[factors=4]+popular]",
    "recommend ease -k 5 -o recs.parquet",
    "recommend mix -k 5 -o recs.csv",
    "evaluate ease",
    "evaluate --recs recs.parquet --split parts",
):
    assert run(line.split()) == 0, line
    assert "torch" not in sys.modules, line
print("NONE")
"""
    assert python(code).endswith("NONE")


def test_own_models_are_named_where_they_are():
    for name, module in OWN.items():
        kind = REGISTRY[name]
        assert kind.name == name and kind.__module__ == f"greysheep.models.{module}"
        assert getattr(greysheep.models, kind.__name__) is kind
    assert set(OWN) <= set(REGISTRY) and len(REGISTRY) == len(list(REGISTRY))


def test_every_public_name_is_there():
    for name in greysheep.__all__:
        assert getattr(greysheep, name) is not None, name
        assert name in dir(greysheep)
    assert greysheep.datasets.__name__ == "greysheep.data.datasets"
    with pytest.raises(AttributeError, match="TALLL"):
        greysheep.TALLL  # noqa: B018


def test_public_names_have_a_docstring():
    names = set(greysheep.__all__) - {"__version__"}
    assert [name for name in sorted(names) if not getattr(greysheep, name).__doc__] == []


def test_version_is_the_installed_one():
    assert metadata.version("greysheep") == greysheep.__version__


PICKLES = {"pickle", "dill", "joblib", "cloudpickle"}
GLOBAL_STATE = {"eval", "exec", "torch.manual_seed", "np.random.seed", "random.seed"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_source_keeps_the_rules(path: Path):
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            logged = any("log.exception" in ast.unparse(line) for line in node.body)  # the edge of a service
            assert caught and (logged or caught != "Exception"), f"line {node.lineno}: name what is caught"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not PICKLES & set(names), f"line {node.lineno}: no pickle"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in GLOBAL_STATE, f"line {node.lineno}"
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 100, f"{node.name} has {length} lines"
    assert not re.search(r"# type: ignore(?!\[)|# noqa(?!: [A-Z])", text)


def test_every_setup_uses_the_constraints():
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "/pip install" in line]
    assert installs and all("-c constraints.txt" in line for line in installs)
    assert re.search(r"^torch==\d", (ROOT / "constraints.txt").read_text(), flags=re.M)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_sets_up_once(tmp_path: Path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)

    def planned(goal: str) -> str:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        return subprocess.run(
            ["make", "-n", goal], cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
        ).stdout

    first = planned("test")
    assert re.search(r"-m venv .venv.*pip install.*-e '\.\[dev\]'.*doctor.*pytest", first, flags=re.S)
    assert "dev" not in planned("demo")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/pip", "stamp-demo", "stamp-dev"):
        (tmp_path / ".venv" / name).touch()
    assert planned("demo").strip() == ".venv/bin/greysheep demo"
    assert "pip" not in planned("test")


def test_hooks_are_the_linters():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {"ruff-check", "mypy", "lint-imports"} <= {hook["id"] for hook in hooks}


def lint_imports(source: Path) -> subprocess.CompletedProcess[str]:
    """Hold the package in a folder to the contracts of pyproject.toml."""
    code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache', '--no-logo'])"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(source)},
    )


def test_no_import_runs_back_up_or_in_a_circle():
    found = lint_imports(ROOT / "src")
    assert found.returncode == 0, found.stdout + found.stderr


FAULTS = {
    "a lazy import": ("data/columns.py", "def f():\n    from greysheep.models import base"),
    "an import for types": (
        "metrics/ranking.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from greysheep.data import reading",
    ),
    "a model in evaluation": ("evaluation/lists.py", "import greysheep.models.base"),
    "a circle within a room": ("data/columns.py", "import greysheep.data.reading"),
    "a room that the contract does not know": ("utilities/__init__.py", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contracts_see(fault: str, tmp_path: Path):
    file, code = FAULTS[fault]
    shutil.copytree(ROOT / "src" / "greysheep", tmp_path / "greysheep")
    (tmp_path / "greysheep" / file).parent.mkdir(exist_ok=True)
    with (tmp_path / "greysheep" / file).open("a") as source:
        source.write(f"\n{code}\n")
    found = lint_imports(tmp_path)
    assert found.returncode == 1 and "BROKEN" in found.stdout, found.stdout + found.stderr


def code_of(name: str) -> str:
    """The first Python block of a page."""
    found = re.search(r"^```python\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), flags=re.M | re.S)
    assert found is not None
    return found[1]


def test_readme_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    rows = greysheep.simulate(n_users=60, n_items=40, rows_per_user=15).log.frame()
    known = rows.with_columns(rows["user_id"].replace({"u0-00": "alice", "u1-06": "bob"}))
    known.write_parquet("log.parquet")
    assert {"alice", "bob"} <= set(known["user_id"])
    rows.filter(rows["user_id"] == "u0-01").with_columns(user_id=polars.lit("new")).write_parquet(
        "new_people.parquet"
    )
    names: dict[str, Any] = {}
    exec(code_of("README.md"), names)
    assert names["recs"].columns == ["user_id", "item_id", "score", "rank"]
    assert names["recs"]["user_id"].unique().to_list() == ["new"] and names["recs"].height == 20
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert "low" in capsys.readouterr().out


README_COMMANDS = sorted(set(re.findall(r"^    greysheep ([^#\n]+?)(?: +#.*)?$", README, flags=re.M)))


@pytest.mark.parametrize("line", README_COMMANDS)
def test_readme_commands_exist(line: str, capsys: pytest.CaptureFixture[str]):
    words = line.split()
    command = words[: 2 if words[0] == "data" else 1]
    assert run([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: greysheep " + " ".join(command) in text
    for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", line):
        assert re.search(rf"(?<![\w-]){re.escape(option)}\b", text), f"{option} is no option of {command}"


def test_readme_options_of_every_log_exist(capsys: pytest.CaptureFixture[str]):
    named = set(re.findall(r"`(--[a-z-]+-(?:col|rating|items|users))`", README))
    assert len(named) == 8
    for command in (["mainstream"], ["split"], ["fit"], ["evaluate"], ["recommend"]):
        run([*command, "--help"])
        text = capsys.readouterr().out
        assert all(option in text for option in named), command


def test_the_source_archive_ships_its_tests_with_all_they_read():
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = set(facts["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    read = {"/src", "/tests", "/benchmarks", "/docs", "/README.md", "/CONTRIBUTING.md", "/SECURITY.md"}
    assert read <= shipped and all((ROOT / name[1:]).exists() for name in shipped)
