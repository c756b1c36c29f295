"""Every command that writes, where nothing can be written: one line, exit 2, and all is as it was before.

A limit on the size of files stands for the full disk: the system itself refuses to write, whoever does it.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import greysheep as gs
from contract import world
from greysheep.cli import run

SMALL = "--set latent=4 --set epochs=1"
COMMANDS = {
    "fit": f"fit log.parquet -o out/m --model multvae {SMALL}",
    "fit, closed form": "fit log.parquet -o out/m --model ease",
    "evaluate --json": "evaluate model --json out/r.json",
    "evaluate --html": "evaluate model --html out/r.html",
    "recommend, parquet": "recommend model -o out/lists.parquet",
    "recommend, csv": "recommend model -o out/lists.csv",
    "recommend, parts": "recommend model -o out/lists",
    "update": "update model --add log.parquet -o out/m",
    "mainstream": "mainstream log.parquet -o out/scores.parquet",
    "split": "split log.parquet -o out/parts",
    "compile": "compile mixture -o out/index",
    "data simulate": "data simulate -o out --users 60",
    "data get": "data get simulated -o out",
    "tune": "tune log.parquet --model ease --trials 1 -o out/t",
    "compare": "compare log.parquet --models popular -o out/c",
}
REPLACES = ("fit", "fit, closed form", "update", "split")
KEEPS = ("recommend, parts", "tune", "compare")
"""Their folders grow: what is whole stays there, and the same command goes on."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, and two models."""
    folder = tmp_path_factory.mktemp("shop")
    log = world(60, 30)
    log.frame().write_parquet(folder / "log.parquet")
    split = gs.split(log)
    gs.EASE().fit(split).save(folder / "model")
    gs.TALL(n_experts=2, latent=4, epochs=1, progress=False).fit(split).save(folder / "mixture")
    return folder


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """No file can be made larger than `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def call(line: str, size: int | None, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The errors of a command; without a size, it must end well."""
    if size is None:
        assert run(line.split()) == 0
        return []
    with no_room(size):
        assert run(line.split()) == 2
    said = capsys.readouterr().err.splitlines()
    return [text for text in said if text.startswith("error: ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_costs_nothing(
    name: str, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for entry in shop.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    line = COMMANDS[name]
    for size in (0, 300):
        errors = call(line, size, capsys)
        assert len(errors) == 1 and "out" in errors[0] and "cannot be written: File too large" in errors[0]
        if name not in KEEPS:
            assert not Path("out").exists()
    if name in ("compare", "recommend, parts"):
        return  # processes of their own, and nothing to write the second time: `benchmarks/chaos` tries them
    call(line, None, capsys)
    before = tree(Path("out"))
    again = f"{line} --overwrite" if name in REPLACES else line
    (error,) = call(again, 300, capsys)
    assert "File too large" in error and tree(Path("out")) == before
