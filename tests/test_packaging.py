"""What is shipped: the wheel, the source archive and the image; the demo runs from the wheel alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run_in(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both archives, made of a copy of what git knows."""
    place = tmp_path_factory.mktemp("built")
    shutil.copytree(
        ROOT, place / "tree", ignore=shutil.ignore_patterns(".git", ".venv", "build", "dist", ".*_cache")
    )
    run_in(place / "tree", sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"))
    return place / "dist"


@pytest.mark.eval
def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    package = {
        f"greysheep/{path.relative_to(ROOT / 'src/greysheep')}"
        for path in (ROOT / "src/greysheep").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in inside if name.startswith("greysheep/")} == package
    assert all(name.startswith(("greysheep/", "greysheep-")) for name in inside)
    assert {"greysheep/py.typed", "greysheep/serving/page/page.js", "greysheep/__init__.pyi"} <= inside


@pytest.mark.eval
def test_the_source_archive_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (source,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    run_in(
        tree, sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path / "dist")
    )
    again = zipfile.ZipFile(tmp_path / "dist" / wheel.name).namelist()
    assert sorted(again) == sorted(zipfile.ZipFile(wheel).namelist())


@pytest.mark.eval
def test_the_wheel_runs_the_demo_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    run_in(tmp_path, sys.executable, "-m", "venv", "env")
    bin = tmp_path / "env" / "bin"
    constraints = str(ROOT / "constraints.txt")
    run_in(tmp_path, str(bin / "pip"), "install", "-q", "-c", constraints, f"{wheel}[report,serve]")
    where = run_in(tmp_path, str(bin / "python"), "-c", "import greysheep; print(greysheep.__file__)")
    assert str(tmp_path) in where
    run_in(tmp_path, str(bin / "greysheep"), "demo")
    assert (tmp_path / "report.html").is_file()
    assert "--max-k" in run_in(tmp_path, str(bin / "greysheep"), "serve", "--help")


def test_the_image_is_built_of_what_is_there_and_runs_as_nobody() -> None:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [
        line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")
    ]
    steps = [(word, rest) for word, rest in lines]
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in steps} <= known
    for rest in (rest for word, rest in steps if word == "COPY" and "--from" not in rest):
        assert all((ROOT / name).exists() for name in rest.split()[:-1]), rest
    assert all(":" in rest and ":latest" not in rest for word, rest in steps if word == "FROM")
    assert [rest for word, rest in steps if word == "USER"] == ["greysheep"]
    last = [word for word, _ in steps]
    assert last.index("USER") > max(n for n, word in enumerate(last) if word == "RUN")
    assert (
        "serve" in PROJECT["project"]["optional-dependencies"] and (ROOT / "src/greysheep/py.typed").is_file()
    )
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*" and {"!src", "!constraints.txt"} <= set(ignored)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint on this machine")
def test_hadolint_has_no_complaint() -> None:
    run_in(ROOT, "hadolint", "Dockerfile")
