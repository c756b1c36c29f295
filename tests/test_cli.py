"""The command as a person runs it: what it writes, and one clear line for each kind of mistake."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from greysheep.cli import run

LARGE = 2**63  # an id that only fits uint64

Capture = pytest.CaptureFixture[str]


def call(line: str) -> int:
    return run(line.split())


def write_log(path: Path, *, times: bool = True) -> Path:
    """60 users named 000 to 059 and 40 items with ids beyond int64, 12 rows a user."""
    random = np.random.default_rng(5)
    rows = [(f"{u:03d}", LARGE + int(i)) for u in range(60) for i in random.choice(40, 12, replace=False)]
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.UInt64}, orient="row")
    if times:
        frame = frame.with_columns(timestamp=pl.int_range(pl.len()))
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path)
    return path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with log.csv, a model trained on it, and a split of it."""
    folder = tmp_path_factory.mktemp("house")
    log = write_log(folder / "log.csv")
    model = ["fit", str(log), "-o", str(folder / "model"), "--model", "ease", "--set", "regularization=5"]
    assert run([*model, "--protocol", "strict"]) == 0
    assert run(["split", str(log), "-o", str(folder / "split"), "--protocol", "strict"]) == 0
    return folder


@pytest.fixture
def desk(house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the house, as the working folder."""
    shutil.copytree(house, tmp_path / "desk")
    monkeypatch.setenv("GREYSHEEP_DATA", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def make(name: str, content: str | bytes) -> Callable[[], None]:
    def write() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def nothing() -> None:
    pass


def damaged_model() -> None:
    shutil.copytree("model", "damaged")
    tensors = Path("damaged/model.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:40])


ROWS = "user_id,item_id\n" + "".join(f"{u},{i}\n" for u in range(6) for i in range(u, u + 4))

MISTAKES: dict[str, tuple[Callable[[], None], str, str]] = {
    # name: (preparation, command line, a word the line must have)
    "no log": (nothing, "mainstream none.csv -o out.csv", "none.csv"),
    "empty log": (make("e.csv", ""), "mainstream e.csv -o out.csv", "empty"),
    "only a header": (make("h.csv", "user_id,item_id\n"), "mainstream h.csv -o out.csv", "no rows"),
    "no such column": (nothing, "mainstream log.csv --user-col who -o out.csv", "user_col (--user-col)"),
    "binary log": (make("b.csv", b"\x89PNG\x00\x01"), "fit b.csv -o out", "b.csv"),
    "not utf-8": (make("u.csv", b"user_id,item_id\n\xe9\xff,1\n"), "fit u.csv -o out", "UTF-8"),
    "not parquet": (make("p.parquet", "user_id,item_id"), "fit p.parquet -o out", "p.parquet"),
    "unknown kind of log": (make("x.xlsx", "a"), "fit x.xlsx -o out", ".xlsx"),
    "missing ids": (make("n.csv", "user_id,item_id\n1,\n2,3\n"), "split n.csv -o out", "item_id"),
    "negative weights": (
        make("w.csv", "user_id,item_id,w\n1,2,-1\n"), "split w.csv --weight-col w -o out", "negative"
    ),
    "no ratings": (nothing, "fit log.csv --min-rating 4 -o out", "rating"),
    "filter leaves nothing": (nothing, "fit log.csv --min-user-items 99 -o out", "min_user_items"),
    "no times": (make("t.csv", ROWS), "split t.csv --protocol temporal -o out", "time"),
    "unknown protocol": (nothing, "split log.csv --protocol loose -o out", "strict"),
    "unknown model": (nothing, "fit log.csv --model tal -o out", "tall"),
    "broken variant": (nothing, "fit log.csv --model tall[gate=uniform -o out", "tall["),
    "variant that is no yaml": (nothing, "fit log.csv --model tall[gate=[] -o out", "tall[gate=[]"),
    "unknown setting": (nothing, "fit log.csv --set n_expert=4 -o out", "n_experts"),
    "setting of a wrong type": (nothing, "fit log.csv --set n_experts=many -o out", "n_experts"),
    "setting out of range": (nothing, "fit log.csv --set dropout=2 -o out", "dropout"),
    "setting without value": (nothing, "fit log.csv --set n_experts -o out", "KEY=VALUE"),
    "setting that is no yaml": (nothing, "fit log.csv --set gate=[ -o out", "YAML"),
    "unknown preset": (nothing, "fit log.csv --preset netflix -o out", "netflix"),
    "no config": (nothing, "fit log.csv --config c.yaml -o out", "c.yaml"),
    "config that is no yaml": (make("c.yaml", "a: [1\nb: ]"), "fit log.csv --config c.yaml -o out", "YAML"),
    "config that is a list": (make("c.yaml", "- a\n- b\n"), "fit log.csv --config c.yaml -o out", "mapping"),
    **{
        f"setting named {key}": (nothing, f"fit log.csv --set {key}=foo -o out", f"no setting '{key}'")
        for key in ("name", "text", "self", "label")
    },
    "model that is none by --set": (nothing, "fit log.csv --set model=foo -o out", "no model 'foo'"),
    "name in a config": (make("c.yaml", "name: a"), "fit log.csv --config c.yaml -o out", "'name'"),
    "label in a variant": (nothing, "fit log.csv --model tall[label=a] -o out", "no setting 'label'"),
    # found out before the log is read: there is none
    "unknown objective": (nothing, "fit none.csv --set objective=auc@3 -o out", "auc@3"),
    "no such device": (nothing, "fit log.csv --device warp --set epochs=1 -o out", "warp"),
    "refit of a split": (nothing, "fit log.csv --refit --protocol strict -o out", "refit"),
    "full output folder": (nothing, "split log.csv -o model", "model"),
    "folder of another kind": (make("mine/a", "a"), "fit log.csv -o mine --overwrite", "mine"),
    "a file as output folder": (nothing, "fit log.csv -o log.csv", "log.csv"),
    "output below a file": (nothing, "split log.csv -o log.csv/out", "log.csv"),
    "output over the input": (nothing, "mainstream log.csv -o ./log.csv", "log.csv"),
    "unknown kind of output": (nothing, "recommend model -o recs.xlsx", ".xlsx"),
    "a folder as output file": (make("d.csv/a", "a"), "recommend model -o d.csv", "folder"),
    "no model": (nothing, "recommend nowhere -o out.csv", "nowhere"),
    "a folder that is no model": (nothing, "recommend split -o out.csv", "manifest.json"),
    "damaged model": (damaged_model, "recommend damaged -o out.csv", "damaged"),
    "unknown user": (nothing, "recommend model --user 7 -o out.csv", "7"),
    "users twice": (make("u.txt", "001"), "recommend model --user 001 --users u.txt", "--users"),
    "no file of users": (nothing, "recommend model --users u.csv -o out.csv", "u.csv"),
    "users without column": (make("u.csv", "id\n1\n"), "recommend model --users u.csv -o out.csv", "user_id"),
    "users of nobody": (make("u.txt", "\n\n"), "recommend model --users u.txt -o out.csv", "u.txt"),
    "items that are no numbers": (
        make("i.csv", "item_id\nabc\n"), "recommend model --candidates i.csv -o out.csv", "abc"
    ),
    "candidates nobody knows": (
        make("i.csv", "item_id\n1\n2\n"), "recommend model --candidates i.csv -o out.csv", "candidates"
    ),
    "unknown policy": (nothing, "recommend model --on-unknown guess -o out.csv", "guess"),
    "lists of length 0": (nothing, "recommend model -k 0 -o out.csv", "--k"),
    "nothing to evaluate": (nothing, "evaluate", "MODEL_DIR"),
    "lists without split": (nothing, "evaluate --recs log.csv", "--split"),
    "lists without order": (nothing, "evaluate --recs log.csv --split split", "rank"),
    "split that is none": (nothing, "evaluate --recs log.csv --split model", "split.json"),
    "report over the model": (nothing, "evaluate model --json model", "model"),
    "page of a wrong kind": (nothing, "evaluate model --html page.pdf", ".html"),
    "unknown command": (nothing, "serv model", "serv"),
    "unknown option": (nothing, "fit log.csv --sett a=1 -o out", "--sett"),
    "no output": (nothing, "mainstream log.csv", "--output"),
    "text for a number": (nothing, "fit log.csv --min-rating good -o out", "--min-rating"),
    "data set that is not here": (nothing, "data get yelp -o out/deep", "GREYSHEEP_DATA"),
    "impossible simulation": (nothing, "data simulate -o out --minority 2", "minority"),
    "data below a file": (nothing, "data simulate -o log.csv", "log.csv"),
    "demo of a wrong kind": (nothing, "demo -o report.pdf", ".pdf"),
    "demo of no data set": (nothing, "demo --data nowhere", "nowhere"),
    "unknown data set": (nothing, "data get nowhere -o out", "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(name: str, desk: Path, capfd: Capture):
    prepare, line, word = MISTAKES[name]
    prepare()
    before = snapshot(desk)
    assert call(line) == 2
    # A warning may come first: "2 of 2 candidates are unknown", then "none is known".
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ") and word in lines[0]
    assert snapshot(desk) == before


def test_ids_survive_csv_fit_recommend_csv(desk: Path, capfd: Capture):
    assert run(["recommend", "model", "-k", "3", "-o", "recs.csv"]) == 0
    text = Path("recs.csv").read_text()
    assert text.splitlines()[1].startswith('"000",92233720368547758')
    recs = pl.read_csv("recs.csv", infer_schema=False)
    assert set(recs["user_id"]) == {f"{u:03d}" for u in range(60)}
    assert {int(i) for i in recs["item_id"]} <= {LARGE + i for i in range(40)}
    assert run(["recommend", "model", "-k", "3", "-o", "new/recs.parquet"]) == 0
    schema = pl.read_parquet("new/recs.parquet").schema
    assert (schema["user_id"], schema["item_id"]) == (pl.String, pl.UInt64)
    # what was written can be read back as a log with the same ids
    assert run(["mainstream", "recs.csv", "-o", "scores.parquet"]) == 0
    assert pl.read_parquet("scores.parquet")["user_id"].to_list() == sorted(set(recs["user_id"]))
    assert not list(desk.rglob("*.tmp*"))


def test_user_is_read_as_the_stored_type(desk: Path, capfd: Capture):
    make("numbers.csv", ROWS)()
    assert run(["fit", "numbers.csv", "-o", "numbers", "--model", "ease"]) == 0
    capfd.readouterr()
    assert run(["recommend", "numbers", "--user", "3", "--user", "5", "-k", "2"]) == 0
    first_words = [line.split()[0] for line in capfd.readouterr().out.splitlines() if line.strip()]
    assert [word for word in first_words if word.isdigit()] == ["3", "3", "5", "5"]
    assert run(["recommend", "numbers", "--user", "03", "-k", "2"]) == 2
    assert "unknown, among them 03:" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["u.txt", "u.csv", "u.tsv", "u.parquet"])
def test_files_of_users(name: str, desk: Path, capfd: Capture):
    ids = pl.DataFrame({"user_id": ["010", "012"]})
    {
        ".txt": lambda: Path(name).write_text("010\n\n012\n"),
        ".csv": lambda: ids.write_csv(name),
        ".tsv": lambda: ids.write_csv(name, separator="\t"),
        ".parquet": lambda: ids.write_parquet(name),
    }[Path(name).suffix]()
    assert run(["recommend", "model", "--users", name, "-k", "2", "-o", "recs.parquet"]) == 0
    assert pl.read_parquet("recs.parquet")["user_id"].to_list() == ["010", "010", "012", "012"]


def test_history_of_a_text_file_takes_the_models_types(desk: Path, capfd: Capture):
    # all of these user ids look like numbers; the model's are text, among them 010
    rows = [(u, LARGE + i) for u in ("100", "200") for i in range(4)] + [("200", 3)]
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.UInt64}, orient="row")
    frame.write_csv("history.csv")
    assert run(["recommend", "model", "--history", "history.csv", "-k", "5", "-o", "recs.parquet"]) == 0
    recs = pl.read_parquet("recs.parquet")
    assert recs["user_id"].unique(maintain_order=True).to_list() == ["100", "200"]
    assert not set(recs["item_id"]) & {LARGE + i for i in range(4)}
    assert "1 of" in capfd.readouterr().err  # the item 3 is unknown: one warning, which counts it


@pytest.fixture
def numbers(desk: Path, capfd: Capture) -> Path:
    """A model whose ids are integers: users 0 to 5, and user u has the items u to u + 3 of 9."""
    make("numbers.csv", ROWS)()
    assert call("fit numbers.csv -o numbers --model ease --protocol strict") == 0
    assert call("split numbers.csv -o parts") == 0
    capfd.readouterr()
    return desk


def lists_of(line: str) -> dict[str, set[str]]:
    """The items of each user that `recommend` writes, as text."""
    assert call(f"recommend numbers {line} -k 9 -o recs.csv") == 0
    recs = pl.read_csv("recs.csv", infer_schema=False)
    return {user: set(recs.filter(user_id=user)["item_id"]) for user in recs["user_id"].unique()}


def test_people_of_a_history_with_mixed_ids_are_found(numbers: Path, capfd: Capture):
    make("h.csv", "user_id,item_id\n1,0\n1,8\nnew1,0\nnew1,1\n01,2\n")()
    everything = set("012345678")
    assert lists_of("--history h.csv") == {
        "1": everything - {"0", "8"}, "new1": everything - {"0", "1"}, "01": everything - {"2"}
    }  # fmt: skip
    assert lists_of("--history h.csv --user 1") == {"1": everything - {"0", "8"}}
    assert lists_of("--history h.csv --user new1 --user 2") == {
        "new1": everything - {"0", "1"}, "2": everything - set("2345")
    }  # fmt: skip
    pl.read_csv("h.csv", infer_schema=False).with_columns(pl.col("item_id").cast(int)).write_parquet(
        "h.parquet"
    )
    assert lists_of("--history h.parquet --user 1") == {"1": everything - {"0", "8"}}
    assert capfd.readouterr().err == ""
    assert call("recommend numbers --history h.csv --user new2") == 2
    assert "among them new2" in capfd.readouterr().err


def test_a_stray_id_leaves_the_others_in_use(numbers: Path, capfd: Capture):
    make("t.csv", "user_id,item_id\n0,8\n1,8\nx,8\n2,yy\n")()
    assert call("evaluate numbers --test t.csv -k 5 --json -") == 0
    found = capfd.readouterr()
    assert json.loads(found.out)["overall"]["n_users"] == 2
    assert "2 of 4 rows of the test log are left out: 1 of unknown users, 1 of unknown items" in found.err
    test = pl.read_parquet("parts/test.parquet")
    rows = "".join(f"{u},{i},1\n" for u, i in test[["user_id", "item_id"]].rows())
    make("r.csv", f"user_id,item_id,rank\n{rows}\nx,1,1\nx,2,2\ny,1,1\n0,i1,0\n0,i2,0\n")()
    assert call("evaluate --recs r.csv --split parts -k 9 --json -") == 0
    found = capfd.readouterr()
    assert json.loads(found.out)["overall"]["recall@9"]["mean"] == 1
    assert "the lists of 2 users who are not in the log" in found.err
    assert "2 places of the lists hold items that are not in the log" in found.err
    make("c.csv", "item_id\n7\n8\nx\n")()
    assert lists_of("--candidates c.csv --user 0") == {"0": {"7", "8"}}
    assert "1 of 3 candidates" in capfd.readouterr().err
    make("t.csv", "user_id,item_id\nx,8\ny,8\n")()
    assert call("evaluate numbers --test t.csv") == 2
    assert "none of the 2 ids" in capfd.readouterr().err


def test_brackets_in_names_are_no_patterns(numbers: Path, capfd: Capture):
    folder = Path("run[1]")
    shutil.copytree("parts", folder)
    test = pl.read_parquet("parts/test.parquet").with_columns(rank=1)
    for name in ("r[2].csv", "r[2].parquet"):
        (test.write_parquet if name.endswith("parquet") else test.write_csv)(folder / name)
        assert call(f"evaluate --recs {folder / name} --split {folder} -k 2 --json -") == 0
    make("run[1]/h[3].csv", "user_id,item_id\nnew,0\n")()
    make("run[1]/u[4].txt", "new\n")()
    assert lists_of(f"--history {folder}/h[3].csv --users {folder}/u[4].txt") == {"new": set("12345678")}


def test_an_empty_table_says_why(numbers: Path, capfd: Capture):
    make("u.txt", "new\n77\n")()
    assert lists_of("--users u.txt --on-unknown skip") == {}
    assert "2 of 2 users get no list: they are unknown, or no item is left" in capfd.readouterr().err
    make("c.csv", "item_id\n0\n")()
    assert lists_of("--user 0 --user 5 --candidates c.csv") == {"5": {"0"}}
    assert "1 of 2 users get no list: no item is left" in capfd.readouterr().err


def test_unknown_users_can_be_skipped_or_get_the_popular(desk: Path, capfd: Capture):
    Path("u.txt").write_text("001\nnew\n")
    assert call("recommend model --users u.txt -k 2 --on-unknown skip -o skip.csv") == 0
    assert set(pl.read_csv("skip.csv", infer_schema=False)["user_id"]) == {"001"}
    assert call("recommend model --users u.txt -k 2 --on-unknown popular -o popular.csv") == 0
    assert set(pl.read_csv("popular.csv", infer_schema=False)["user_id"]) == {"001", "new"}


def test_candidates_and_excluded_items(desk: Path, capfd: Capture):
    pl.DataFrame({"item_id": [LARGE + i for i in range(6)]}).write_csv("few.csv")
    pl.DataFrame({"item_id": [LARGE, LARGE + 1]}).write_parquet("never.parquet")
    line = "recommend model --candidates few.csv --exclude-items never.parquet --no-exclude-seen -o r.csv"
    assert call(line) == 0
    items = {int(i) for i in pl.read_csv("r.csv", infer_schema=False)["item_id"]}
    assert items == {LARGE + i for i in range(2, 6)}


def test_mainstream_scores_every_user(desk: Path, capfd: Capture):
    assert run(["mainstream", "log.csv", "-o", "scores.csv"]) == 0
    scores = pl.read_csv("scores.csv", schema_overrides={"user_id": pl.String})
    assert scores.columns == ["user_id", "score", "group"]
    assert scores["user_id"].to_list() == [f"{u:03d}" for u in range(60)]
    low, high = (scores.filter(pl.col("group") == g)["score"] for g in ("low", "high"))
    assert len(low) == len(high) == 12 and low.max() < high.min()
    out = capfd.readouterr().out
    assert [g for g in ("low", "med-low", "medium", "med-high", "high") if g in out] and "60 users" in out


def test_split_writes_parts_another_library_can_read(desk: Path, capfd: Capture):
    train, test = (pl.read_parquet(f"split/{part}.parquet") for part in ("train", "test"))
    assert train.join(test, on=["user_id", "item_id"], how="inner").height == 0
    before = snapshot(desk / "split")
    assert call("split log.csv -o split --protocol strict --overwrite") == 0
    assert snapshot(desk / "split") == before
    assert call("split log.csv -o split --protocol paper --seed 1 --overwrite") == 0
    assert json.loads(Path("split/split.json").read_text())["protocol"] == "paper"


def test_evaluate_writes_the_numbers(desk: Path, capfd: Capture):
    capfd.readouterr()
    assert call("evaluate model --k 5 --json -") == 0
    printed = json.loads(capfd.readouterr().out)  # nothing but JSON on stdout
    assert (printed["model"], printed["protocol"], printed["k"]) == ("ease", "strict", [5])
    assert [row["group"] for row in printed["by_group"]] == ["low", "med-low", "medium", "med-high", "high"]
    assert call("evaluate model -k 2,5, --json -") == 0
    several = json.loads(capfd.readouterr().out)
    assert several["k"] == [2, 5] and several["overall"]["ndcg@5"] == printed["overall"]["ndcg@5"]
    for wrong in ("0", "5,0", "5;10", ",", "x"):
        assert call(f"evaluate model -k {wrong}") == 2
        assert "--k" in capfd.readouterr().err
    assert call("evaluate model --k 5 --json out.json --html out.html") == 0
    assert "low" in capfd.readouterr().out
    assert json.loads(Path("out.json").read_text())["overall"] == printed["overall"]
    assert Path("out.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_lists_of_another_library_are_measured_like_our_own(desk: Path, capfd: Capture):
    from greysheep.models import load

    model = load("model")
    ranked = model.rank(np.arange(60), k=5)
    lists = pl.DataFrame(
        {
            "user_id": model.log.decode_users(np.repeat(np.arange(60), 5)),
            "item_id": model.log.decode_items(ranked.ravel()),
            "rank": np.tile(np.arange(1, 6), 60),
        }
    )
    lists.sample(fraction=1, shuffle=True, seed=1).write_csv("lists.csv")
    capfd.readouterr()
    assert call("evaluate --recs lists.csv --split split --k 5 --json -") == 0
    theirs = json.loads(capfd.readouterr().out)
    assert call("evaluate model --k 5 --json -") == 0
    ours = json.loads(capfd.readouterr().out)
    assert theirs["overall"] == ours["overall"] and theirs["by_group"] == ours["by_group"]
    lists.rename({"user_id": "u", "rank": "score"}).with_columns(-pl.col("score")).write_parquet("l.parquet")
    assert call("evaluate --recs l.parquet --user-col u --split split --k 5 --json -") == 0
    assert json.loads(capfd.readouterr().out)["overall"] == ours["overall"]


def test_fit_reads_config_then_set_then_options(desk: Path, capfd: Capture):
    Path("c.yaml").write_text("model: tall\nn_experts: 2\nlatent: 4\nepochs: 9\nseed: 3\n")
    line = "fit log.csv -o tall --config c.yaml --set epochs=2 --set learning_rate=1e-2 --seed 4"
    assert call(line) == 0
    config = json.loads(Path("tall/config.json").read_text())
    chosen = {key: config["config"][key] for key in ("n_experts", "latent", "epochs", "learning_rate")}
    assert chosen == {"n_experts": 2, "latent": 4, "epochs": 2, "learning_rate": 0.01}
    assert config["model"] == "tall" and config["options"]["seed"] == 4
    assert json.loads(Path("tall/manifest.json").read_text())["seed"] == 4
    assert "60 users" in capfd.readouterr().out


def test_fit_overwrites_a_model_and_can_leave_rows_out(desk: Path, capfd: Capture):
    assert call("fit log.csv -o model --model popular --no-history --overwrite") == 0
    assert json.loads(Path("model/config.json").read_text())["model"] == "popular"
    assert not Path("model/interactions.parquet").exists()
    history = {"user_id": ["new"] * 3, "item_id": [LARGE + i for i in range(3)]}
    pl.DataFrame(history).write_parquet("h.parquet")
    assert call("recommend model --history h.parquet -k 2 -o r.csv") == 0
    assert call("recommend model --user 001") == 2


def test_mainstream_of_a_sample_says_how_far_off_it_may_be(desk: Path, capfd: Capture):
    assert call("data simulate -o made --users 60 --items 30") == 0
    log = "made/simulated/interactions.parquet"
    assert call(f"mainstream {log} -o exact.parquet") == 0
    assert "compared with" not in capfd.readouterr().out
    assert call(f"mainstream {log} -o some.parquet --sample 50 --seed 3") == 0
    out = capfd.readouterr().out
    bound = re.search(r"each of the 60 users was compared with 50 others; a score is within (\S+) of", out)
    assert bound is not None
    some, exact = (pl.read_parquet(f"{name}.parquet")["score"] for name in ("some", "exact"))
    assert 0 < (some - exact).abs().max() <= float(bound[1])
    assert call(f"mainstream {log} -o all.parquet --sample 59") == 0
    assert "are exact" in capfd.readouterr().out
    assert pl.read_parquet("all.parquet").equals(pl.read_parquet("exact.parquet"))
    assert call(f"mainstream {log} -o none.parquet --sample 0") == 2


def test_simulated_data_can_be_used_at_once(desk: Path, capfd: Capture):
    assert call("data simulate -o made --users 40 --items 30 --seed 1") == 0
    assert call("mainstream made/simulated/interactions.parquet -o scores.parquet") == 0
    assert pl.read_parquet("scores.parquet").height == 40
    assert call("data get simulated -o got") == 0
    assert pl.read_parquet("got/simulated/items.parquet").columns == ["item_id", "title"]
    assert run(["data", "list"]) == 0
    assert {"ml-100k", "ml-1m", "simulated"} <= set(capfd.readouterr().out.split())


def test_data_sets_below_the_home_folder(desk: Path, monkeypatch: pytest.MonkeyPatch):
    from greysheep.data import datasets

    monkeypatch.setenv("HOME", str(desk))
    datasets.get("simulated", "~/got[1]")
    Path("got[1]/simulated").rename("got[1]/yelp")
    assert datasets.load("yelp", "~/got[1]").titles is not None
    monkeypatch.setenv("GREYSHEEP_DATA", "~/got[1]")
    assert len(datasets.load("yelp").log) == 12_000


def test_demo_writes_a_page(desk: Path, capfd: Capture):
    assert call("demo --data simulated --epochs 2 -o page.html") == 0
    out = capfd.readouterr().out
    assert "tall" in Path("page.html").read_text() and "page.html" in out
    assert re.search(r"^in .* items +simulated$", out, flags=re.M)


def test_interrupt_leaves_nothing(desk: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch):
    from greysheep.data.splitting import Split

    def interrupted(self: Split, folder: Path) -> None:
        (folder / "train.parquet").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Split, "_fill", interrupted)
    before = snapshot(desk)
    assert call("split log.csv -o a/b/out") == 130
    assert capfd.readouterr().err.splitlines() == ["interrupted"]
    assert snapshot(desk) == before


def test_a_bug_is_no_mistake_of_the_user(desk: Path, monkeypatch: pytest.MonkeyPatch):
    from greysheep.data.splitting import Split

    def bug(self: Split, directory: Path) -> None:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(Split, "write", bug)
    with pytest.raises(ZeroDivisionError):
        call("split log.csv -o out")


def test_doctor_names_the_fix(capfd: Capture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "512")
    assert run(["doctor"]) == 0
    out = capfd.readouterr().out
    for word in ("greysheep", "torch", "BLAS", "cores", "memory", "cuda", "extra report", "data folder"):
        assert word in out
    assert "export OMP_NUM_THREADS=" in out


@pytest.mark.parametrize(
    ("value", "fix"),
    [("1", "unset X"), ("9", "export X=4"), ("0", "unset X"), ("many", "unset X"), ("4", "")],
)
def test_thread_variables_are_judged(value: str, fix: str, monkeypatch: pytest.MonkeyPatch):
    from greysheep.cli import doctor

    monkeypatch.setattr(doctor, "THREAD_VARIABLES", ("X", "Y"))
    assert [fact.fix for fact in doctor.thread_facts({"X": value}, cores=4)] == [fix]


def test_one_thread_is_right_on_one_core():
    from greysheep.cli.doctor import thread_facts

    assert [fact.fix for fact in thread_facts({"OMP_NUM_THREADS": "1"}, cores=1)] == [""]


def test_installed_command_exits_as_it_should(desk: Path):
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "greysheep", *arguments]
        return subprocess.run(line, capture_output=True, text=True, cwd=desk, timeout=120)

    wrong = command("mainstream", "none.csv", "-o", "out.csv")
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1
    help_page = command()
    assert help_page.returncode == 0 and "recommend" in help_page.stdout


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no pipes here")
def test_a_reader_that_leaves_gets_no_complaint(desk: Path):
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "greysheep", "recommend", "model", "-k", "20"]
    done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=desk, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
