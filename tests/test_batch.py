"""Lists in parts of a folder: the same as `recommend`, whole parts or none, resumed, sealed, refused."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import greysheep as gs
from contract import world
from greysheep.cli import run
from greysheep.errors import ConfigError, MissingExtraError, SealError
from greysheep.serving.batch import Parts, write_lists
from greysheep.system import cluster

FITTED = gs.EASE(regularization=10.0).fit(world())


def parts_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("part-*"))}


def read(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(file) for file in sorted(folder.glob("part-*"))])


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"users": ["007", "000"]},
        {"users": []},
        {"k": 3, "candidates": {"001": ["0001", "0003"]}, "exclude_seen": False},
        {"exclude_items": ["0001"], "history": world().frame().head(24)},
        {"users": ["nobody", "003"], "on_unknown": "skip"},
        {"users": ["nobody", "003"], "on_unknown": "popular"},
    ],
)
def test_the_parts_together_are_the_lists(asked: dict[str, Any], tmp_path: Path):
    done = write_lists(FITTED, tmp_path / "lists", **asked, part_users=10)
    wanted = FITTED.recommend(**asked)
    assert read(done.folder).equals(wanted)
    assert (done.rows, done.users) == (wanted.height, wanted["user_id"].n_unique())
    assert not list(done.folder.glob(".*"))


def test_a_killed_run_goes_on_to_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = write_lists(FITTED, tmp_path / "whole", k=5, part_users=20)
    write, made = Parts.write, list[int]()

    def until_the_third(self: Parts, model: Any, asked: Any, number: int) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(number)
        write(self, model, asked, number)

    monkeypatch.setattr(Parts, "write", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_lists(FITTED, tmp_path / "killed", k=5, part_users=20)
    assert len(parts_of(tmp_path / "killed")) == 2 and not (tmp_path / "killed" / "_manifest.json").exists()
    (tmp_path / "killed" / "part-000001.parquet").write_bytes(b"half")  # what a disk may lose
    made.clear()
    monkeypatch.setattr(Parts, "write", lambda *given: (made.append(given[3]), write(*given))[1])
    done = write_lists(FITTED, tmp_path / "killed", k=5, part_users=20)
    assert made == [1, 2, 3, 4] and done.found == 1
    assert parts_of(tmp_path / "killed") == parts_of(tmp_path / "whole")
    assert (whole.rows, whole.users, whole.parts) == (done.rows, done.users, done.parts)


def test_a_process_killed_at_any_moment_leaves_whole_parts(tmp_path: Path):
    FITTED.save(tmp_path / "model")
    code = (
        "import greysheep as gs, time; from greysheep.serving.batch import Parts; write = Parts.write\n"
        "Parts.write = lambda *given: (write(*given), print(flush=True), time.sleep(0.05))\n"
        f"gs.write_lists(gs.load({str(tmp_path / 'model')!r}), {str(tmp_path / 'lists')!r}, part_users=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = parts_of(tmp_path / "lists")
    assert 3 <= len(before) < 48
    done = write_lists(gs.load(tmp_path / "model"), tmp_path / "lists", part_users=2)
    assert done.found >= 3 and read(done.folder).equals(FITTED.recommend())
    assert before.items() <= parts_of(done.folder).items()


def test_a_finished_folder_is_sealed_and_left_alone(tmp_path: Path):
    folder = tmp_path / "lists"
    write_lists(FITTED, folder, part_users=50)
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("part*")}
    again = write_lists(FITTED, folder, part_users=50)
    assert again.found == again.parts == 2
    assert before == {file.name: file.stat().st_mtime_ns for file in folder.glob("part*")}
    part = folder / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(SealError, match=r"part-000001\.parquet has changed"):
        write_lists(FITTED, folder, part_users=50)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"k": 4}, "k 5, not 4"),
        ({"users": ["001"]}, "other users"),
        ({"exclude_seen": False}, "exclude_seen True, not False"),
        ({"exclude_items": ["0001"]}, "other candidates or excluded items"),
        ({"candidates": {u: ["0001"] for u in world().user_ids}}, "other candidates"),
        ({"history": world().frame()}, "other rows"),
        ({"part_users": 7}, "part_users 20, not 7"),
    ],
)
def test_another_request_is_refused_unless_the_lists_may_go(other: dict[str, Any], why: str, tmp_path: Path):
    write_lists(FITTED, tmp_path / "lists", k=5, part_users=20)
    asked = {"k": 5, "part_users": 20} | other
    with pytest.raises(ConfigError, match=why):
        write_lists(FITTED, tmp_path / "lists", **asked)
    done = write_lists(FITTED, tmp_path / "lists", overwrite=True, **asked)
    assert read(done.folder).equals(FITTED.recommend(**{k: v for k, v in asked.items() if k != "part_users"}))


def test_another_model_is_refused(tmp_path: Path):
    write_lists(FITTED, tmp_path / "lists")
    for other in (gs.EASE(regularization=11.0).fit(world()), gs.Popular().fit(world())):
        with pytest.raises(ConfigError, match="holds lists of another model"):
            write_lists(other, tmp_path / "lists")
    loaded = gs.load(FITTED.save(tmp_path / "model"))
    write_lists(loaded, tmp_path / "of folder")
    assert write_lists(gs.load(tmp_path / "model"), tmp_path / "of folder").found == 1
    gs.EASE(regularization=12.0).fit(world()).save(tmp_path / "model")
    with pytest.raises(ConfigError, match="holds lists of another model"):
        write_lists(gs.load(tmp_path / "model"), tmp_path / "of folder")


def test_a_folder_of_other_things_is_refused(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "part-000000.parquet").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files but no _request.json"):
        write_lists(FITTED, tmp_path / "mine", overwrite=True)
    with pytest.raises(ConfigError, match="engine='dask'"):
        write_lists(FITTED, tmp_path / "new", engine="dask")
    assert not (tmp_path / "new").exists()


def test_two_at_once_are_refused(tmp_path: Path):
    from filelock import FileLock

    (tmp_path / "lists").mkdir()
    with FileLock(tmp_path / "lists" / ".lock"):
        (tmp_path / "lists" / "_request.json").write_text('{"fingerprint": ""}')
        with pytest.raises(ConfigError, match="another process writes lists"):
            write_lists(FITTED, tmp_path / "lists")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    FITTED.save("model")
    assert run(["recommend", "model", "-k", "5", "-o", "lists/"]) == 0
    captured = capsys.readouterr()
    assert "wrote 480 rows for 96 users in 1 parts to lists" in captured.out
    assert "lists: part 1 of 1" in captured.err
    assert read(Path("lists")).equals(FITTED.recommend(k=5))
    assert run(["recommend", "model", "-k", "5", "-o", "lists/"]) == 0
    assert "lists holds them already: 480 rows" in capsys.readouterr().out
    for line, why in (
        ("recommend model -k 6 -o lists/", "holds lists of k 5, not 6"),
        ("recommend model -k 6 -o model/", "would replace the input"),
        ("recommend model -k 6 -o lists.csv --engine ray", "-o DIR/"),
        ("recommend model -k 6 -o lists.parquet --overwrite", "-o DIR/"),
        ("recommend model -k 6 -o other/ --engine dask", "engine='dask'"),
    ):
        assert run(line.split()) == 2
        assert why in capsys.readouterr().err
    assert run(["recommend", "model", "-k", "6", "-o", "lists/", "--overwrite"]) == 0
    assert (
        run(["recommend", "model", "--user", "001", "--user", "12x", "--on-unknown", "skip", "-o", "few/"])
        == 0
    )
    assert "1 of 2 users get no list" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install greysheep\[ray\]"):
        write_lists(FITTED, tmp_path / "lists", engine="ray")


@pytest.mark.eval
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_ray_makes_the_same_parts_whatever_worker_is_killed(tmp_path: Path):
    from greysheep.serving.on_ray import write_parts

    here = write_lists(FITTED, tmp_path / "here", part_users=20)
    there = write_lists(FITTED, tmp_path / "there", part_users=20, engine="ray", workers=2)
    assert parts_of(here.folder) == parts_of(there.folder) and there.parts == 5
    flag = tmp_path / "flag"

    class Deadly(Parts):
        def write(self, model: Any, asked: Any, number: int) -> None:
            if number == 2 and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            super().write(model, asked, number)

    (tmp_path / "killed").mkdir()
    steps = list[float]()
    write_parts(FITTED, FITTED.asked(), Deadly(tmp_path / "killed", 96, 20), [*range(5)], 2,
                lambda: steps.append(time.monotonic()))  # fmt: skip
    assert flag.exists() and len(steps) == 5
    assert parts_of(tmp_path / "killed") == parts_of(here.folder)
    assert cluster.connect().is_initialized()
