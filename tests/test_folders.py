"""Folders of models: damage is found and named, what is made to harm refused, an output never lands amiss."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import greysheep as gs
from contract import world
from greysheep.cli import app
from greysheep.errors import DataError, GreysheepError, GreysheepWarning, ModelFolderError, SealError
from greysheep.mainstream.groups import GROUPS, Mainstream
from greysheep.models import derived, folder_checks
from greysheep.models.registry import parse

CHAOS = Path(__file__).resolve().parents[1] / "benchmarks" / "chaos"
if not CHAOS.is_dir():
    pytest.skip("the benchmarks are not in this copy", allow_module_level=True)
sys.path.insert(0, str(CHAOS))
import folders  # noqa: E402
import hostile  # noqa: E402

QUICK = [case for case in hostile.CASES if "bomb" not in case]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the chaos, whole."""
    place = tmp_path_factory.mktemp("good")
    folders.prepare(place)
    return place


def refusal(*words: Any) -> str:
    """What a command is refused with, which `main` prints; exit code 2."""
    error = CliRunner().invoke(app, [str(word) for word in words]).exception
    assert isinstance(error, GreysheepError), error
    return str(error)


@pytest.mark.parametrize("verify", [True, False])
def test_folders_made_to_harm_are_refused_though_their_seal_is_right(
    good: Path, tmp_path: Path, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, case in enumerate(QUICK):
        place = hostile.make(case, good, tmp_path / f"h{number}")
        with pytest.raises(ModelFolderError, match=r"\.(json|jsonl|parquet|safetensors|sha256)") as caught:
            gs.load(place, verify=verify)
            pytest.fail(f"{case} was loaded")
        assert "\n" not in str(caught.value), case
    assert not (tmp_path / hostile.CANARY).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1), ("seed", 1 << 64), ("epochs", -1), ("best_epoch", -1), ("train_seconds", -1.0),
        ("peak_memory_bytes", -1), ("protocol", "other"), ("metrics", {"ndcg@20": "high"}),
        ("epochs", 1.5), ("has_history", 1), ("strange", 0),
        ("options", {"seed": -1, "precision": "float32"}),
        ("options", {"seed": 0, "precision": "float16"}),
    ],
    ids=str,
)  # fmt: skip
def test_facts_of_a_folder_are_held_to_their_bounds(
    name: str, value: Any, good: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(good / "ease", tmp_path / "it")
    change, file = (hostile.about, "config") if name == "options" else (hostile.manifest, "manifest")
    change(**{name: value})(place)
    with pytest.raises(ModelFolderError, match=rf"{file}\.json cannot be used"):
        gs.load(place)


def test_a_table_that_grows_in_memory_is_refused_by_its_footer(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = hostile.make("ids are fractions", good, tmp_path / "it")
    hostile.bomb("items.parquet", 3)(place)
    hostile.seal(place)

    def read(*arguments: Any, **keywords: Any) -> None:
        pytest.fail("a table was read before its footer was looked at")

    shutil.copy(good / "ease" / "users.parquet", place)
    users = pl.read_parquet(place / "users.parquet")
    hostile.seal(place)
    monkeypatch.setattr(pl, "read_parquet", lambda path, **rest: users if "users" in str(path) else read())
    with pytest.raises(ModelFolderError, match=r"items\.parquet .* would become 75,000,000 in memory"):
        gs.load(place)


def test_turned_bits_and_cut_files_are_found_and_named(good: Path) -> None:
    facts = folders.damage(good, 60, 30, seed=1)
    assert facts["missed"] == [] and facts["named"] == {"flips": 60, "cuts": 30}


def test_verify_is_what_finds_a_changed_weight(good: Path, tmp_path: Path) -> None:
    place = shutil.copytree(good / "ease", tmp_path / "it")
    data = bytearray((place / "model.safetensors").read_bytes())
    data[-3] ^= 1  # another finite number
    (place / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelFolderError, match=r"model\.safetensors has changed"):
        gs.load(place)
    assert gs.load(place, verify=False).recommend(k=3).height == 180
    assert "has changed" in refusal("recommend", place)
    assert CliRunner().invoke(app, ["recommend", str(place), "-k", "3", "--no-verify"]).exit_code == 0


def test_loaded_weights_are_those_saved_and_can_be_trained_on(good: Path, tmp_path: Path) -> None:
    model = gs.load(good / "tall")
    again = gs.load(model.save(tmp_path / "again"))
    assert {key: value.tolist() for key, value in model._state().items()} == {
        key: value.tolist() for key, value in again._state().items()
    }
    assert all(weight.requires_grad and not weight.is_meta for weight in again.net.parameters())
    assert again.fit(world(24)).recommend(k=2).height == 48


def test_a_model_that_nobody_has_validation_rows_for_is_read_again(tmp_path: Path) -> None:
    log = gs.Interactions.read(pl.DataFrame({"user_id": [1, 2, 3], "item_id": [1, 1, 2]}))
    with pytest.warns(GreysheepWarning, match="no user has a validation row"):
        model = gs.TALL(n_experts=2, latent=3, epochs=1, progress=False).fit(log)
    assert model.history[-1]["objective"] is None
    loaded = gs.load(model.save(tmp_path / "m"))
    assert loaded.recommend(k=2).equals(model.recommend(k=2))


@pytest.mark.parametrize("text", ["lft[latent=4]", "enlft[latent=4]", "ensemble[members=lft+ease]"])
def test_what_needs_its_rows_says_so_before_it_is_trained(text: str, tmp_path: Path) -> None:
    model = parse(text, progress=False)
    with pytest.raises(DataError, match="cannot be saved without its rows"):
        model.check_without_rows()
    world(24).frame().write_parquet(tmp_path / "log.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "fit", lambda *a, **k: pytest.fail("it was trained"))
        said = refusal("fit", tmp_path / "log.parquet", "--model", text, "-o", tmp_path / "m", "--no-history")
    assert "cannot be saved without its rows" in said
    assert not (tmp_path / "m").exists()


def test_an_output_never_lands_in_an_input(good: Path, tmp_path: Path) -> None:
    place = shutil.copytree(good / "tall", tmp_path / "m")
    (tmp_path / "link").symlink_to(place)
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    for target in (place, tmp_path / "link", place / "index"):
        assert "the input" in refusal("compile", place, "-o", target)
    for target in (place / "items.parquet", tmp_path / "link" / "lists.csv"):
        assert "the input" in refusal("recommend", place, "-o", target)
    assert "the input" in refusal("evaluate", place, "--json", place / "manifest.json")
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before


def test_a_link_as_output_leads_to_the_place(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    gs.Popular().fit(world(24)).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and gs.load(tmp_path / "there").name == "popular"
    for place in ("/proc", "/dev/null"):  # a mount, a device
        with pytest.raises(ModelFolderError):
            gs.Popular().fit(world(24)).save(place)


def test_drafts_of_killed_saves_are_swept_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from greysheep.system.files import new_folder\n"
    code += "with new_folder(Path('m')) as draft: (draft / 'x').write_text('x'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".m.")
    other = tmp_path / ".mm.00000000.tmp"
    other.mkdir()
    gs.Popular().fit(world(24)).save(tmp_path / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"m", other.name}


def test_a_full_disk_is_one_line_and_the_earlier_file_stays(good: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists.csv"
    out.write_text("earlier")
    command = [sys.executable, "-m", "greysheep", "recommend", str(good / "ease"), "-o", str(out)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))  # noqa: E731
    said = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, env=os.environ)
    assert said.returncode == 2 and "Traceback" not in said.stderr and "cannot be written" in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lists.csv"] and out.read_text() == "earlier"


# What files must be before they are believed


def tensors_file(folder: Path, header: Any, data: bytes, size: int | None = None) -> None:
    """A file of tensors with any header."""
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes((size or len(text)).to_bytes(8, "little") + text + data)


def of(shape: list[Any], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_tensors_that_lie_end_to_end_are_read(tmp_path: Path) -> None:
    header = {"b": of([2, 1], 4, 12), "__metadata__": {"x": "y"}, "c": of([0, 3], 12, 12), "a": of([], 0, 4)}
    tensors_file(tmp_path, header, np.arange(3, dtype=np.float32).tobytes())
    found = folder_checks.read_tensors(tmp_path)
    assert {name: values.tolist() for name, values in found.items()} == {"a": 0, "b": [[1], [2]], "c": []}


@pytest.mark.parametrize(
    ("header", "n_bytes", "says"),
    [
        ({"a": of([2], 0, 8), "b": of([1], 4, 8)}, 8, "overlap"), ({"a": of([1], 4, 8)}, 8, "overlap, or"),
        ({"a": of([1], 0, 4)}, 8, "gaps"), ({"a": of([2], 0, 8)}, 4, "gaps"),
        ({"a": of([3], 0, 8)}, 8, "8 bytes"),
        ({"a": of([-2, -1], 0, 8)}, 8, "shape"), ({"a": of([2.0], 0, 8)}, 8, "shape"),
        ({"a": of([True], 0, 4)}, 4, "shape"), ({"a": of([1], 0, 4, "F128")}, 4, "type"), ({"a": 1}, 0, ""),
        ([], 0, "JSON object"),
    ],
    ids=range(11),
)  # fmt: skip
def test_tensors_that_do_not_are_refused(header: Any, n_bytes: int, says: str, tmp_path: Path) -> None:
    tensors_file(tmp_path, header, bytes(n_bytes))
    with pytest.raises(SealError, match=rf"model\.safetensors .*{says}"):
        folder_checks.read_tensors(tmp_path)


def test_a_header_of_tensors_has_at_most_so_many_bytes(tmp_path: Path) -> None:
    tensors_file(tmp_path, {}, b"", size=1 << 62)  # reading so much would ask for as much memory
    with pytest.raises(SealError, match="has a header of 4,611,686,018,427,387,904 bytes"):
        folder_checks.read_tensors(tmp_path)


def test_numbers_must_be_finite() -> None:
    for fine in ([3e38, 3e38], [-1.0], [], [0.0]):
        folder_checks.check_finite(np.array(fine, np.float32), "it")  # the sum of large ones is infinite
    folder_checks.check_finite(np.array([1, 2]), "it")
    for bad in ([np.inf], [1, -np.inf], [np.nan], [np.inf, -np.inf]):
        with pytest.raises(ValueError, match="it holds NaN or infinity"):
            folder_checks.check_finite(np.array(bad, np.float32), "it")
    with pytest.raises(SealError, match="train_seconds"):  # JSON may say 1e999
        facts = {"train_seconds": float("inf")}
        folder_checks.check_fields(folder_checks.Manifest, Path("it"), "manifest.json", facts)


def test_ids_must_be_unique_ascending_and_of_one_type() -> None:
    for fine, kind in (([1, 2, 9], "Int64"), (["a", "b"], "String"), ([5], "Int64")):
        folder_checks.check_ids(pl.Series(fine), kind)
    for bad, kind, says in (
        ([1, 1, 2], "Int64", "unique"), ([2, 1], "Int64", "ascending"), (["b", "a"], "String", "ascending"),
        ([1, 2], "String", "type"), ([1, 2], "Int32", "type"), ([1.0, 2.0], "Float64", "type"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            folder_checks.check_ids(pl.Series(bad), kind)
    with pytest.raises(ValueError, match="no rows"):
        folder_checks.check_ids(pl.Series([], dtype=pl.Int64), "Int64")


def test_gates_must_be_shares_of_each_user() -> None:
    for fine in ([[0.5, 0.5], [1.0, 0.0]], [[0.3, 0.7004], [0.3, 0.6996]]):
        folder_checks.check_gates(np.array(fine, np.float32), 2, 2)
    folder_checks.check_gates(np.empty((0, 2)), 0, 2)
    half = [0.5, 0.5]
    for bad in (
        None,
        [half],
        [half] * 3,
        [[1.0]] * 2,
        [half, [1.5, -0.5]],
        [half, [0.5, 0.51]],
        [half, [0, 0]],
    ):
        with pytest.raises(ValueError, match="gates"):
            folder_checks.check_gates(None if bad is None else np.array(bad, np.float32), 2, 2)


def test_tables_have_their_columns_and_no_gaps(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1, 2], "b": [1, None]}).write_parquet(tmp_path / "t.parquet")
    assert folder_checks.read_table(tmp_path, "t.parquet", "a").height == 2
    with pytest.raises(SealError, match=r"t\.parquet .* no column 'c'"):
        folder_checks.read_table(tmp_path, "t.parquet", "a", "c")
    with pytest.raises(SealError, match=r"t\.parquet .* column 'b' has rows without a value"):
        folder_checks.read_table(tmp_path, "t.parquet", "a", "b")
    with (
        pytest.raises(SealError, match=r"x\.parquet cannot be used: once"),
        folder_checks.reading(tmp_path, "x.parquet"),
    ):
        raise pl.exceptions.PanicException("once\nmore")


# Groups beside a model


class Groups:
    """Scores of six users, made when they are asked for and not kept in a folder; counts how often."""

    def __init__(self, folder: Path | None):
        self.folder, self.made, self.users = folder, 0, pl.Series([3, 5, 9, 11, 20, 21])
        scores = np.array([0.3, 0.1, 0.2, 0.6, 0.5, 0.4])
        self.known = replace(Mainstream.from_scores(scores, self.users), sampled=2, bound=0.25)

    def make(self) -> Mainstream:
        self.made += 1
        return self.known

    def ask(self, rows: str = "ab") -> None:
        found = derived.kept(self.folder, "mainstream", rows, self.users, self.make)
        for one, other in zip(astuple(found), astuple(self.known), strict=True):
            np.testing.assert_array_equal(one, other)

    def put(self, table: Any, **about: Any) -> None:
        """Put a table in the place of that written, with its digest."""
        assert self.folder is not None
        file, facts = self.folder / "mainstream.parquet", self.folder / "mainstream.json"
        pl.DataFrame({"score": table}).write_parquet(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        known = {**json.loads(facts.read_text()), "sha256": digest, **about}
        facts.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))


def test_groups_beside_a_model_are_made_once(tmp_path: Path) -> None:
    groups = Groups(tmp_path)
    groups.ask()
    groups.ask()
    assert groups.made == 1
    table = pl.read_parquet(tmp_path / "mainstream.parquet")
    assert table["user_id"].equals(groups.users) and table["score"].to_list() == groups.known.scores.tolist()
    assert table["group"].to_list() == [GROUPS[code] for code in groups.known.groups]
    groups.ask("cd")  # of other rows
    groups.ask("cd")
    assert groups.made == 2


@pytest.mark.parametrize(
    ("table", "about"),
    [
        ([0.3, 0.1, 0.2, 0.6, 0.5, 0.7], {"sha256": "0" * 64}), ([0.5] * 5, {}), ([0.5] * 7, {}),
        ([1] * 6, {}), ([0.5] * 5 + [float("nan")], {}), ([0.5] * 5 + [float("inf")], {}),
        ([0.5] * 6, {"rows": None}), ([0.5] * 6, {"bound": None}), ([0.5] * 6, {"sampled": "many"}),
        ([0.5] * 6, {"sampled": []}),
    ],
    ids=range(10),
)  # fmt: skip
def test_groups_beside_a_model_that_are_not_as_written_are_made_anew(
    table: Any, about: dict[str, Any], tmp_path: Path
) -> None:
    groups = Groups(tmp_path)
    groups.ask()
    groups.put(table, **about)
    groups.ask()
    groups.ask()
    assert groups.made == 2


def test_groups_of_a_model_need_no_folder_that_can_be_written(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "gone", tmp_path / "full"):
        if folder is not None and folder.name == "full":
            (folder / "mainstream.parquet" / "something").mkdir(parents=True)
        groups = Groups(folder)
        groups.ask()
        groups.ask()
        assert groups.made == 2
    assert not (tmp_path / "gone").exists()
