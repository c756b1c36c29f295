"""The service over real HTTP: what it answers, and what it refuses, in one line each."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import polars as pl
import pytest

import greysheep as gs
from contract import world
from greysheep.cli import run
from greysheep.errors import ConfigError, DataError, ModelFolderError
from greysheep.mainstream.groups import GROUPS
from greysheep.models.autoencoders.index import Index
from greysheep.models.autoencoders.kept_index import keep_index, kept_index
from greysheep.models.recommender import Recommender
from greysheep.serving.loaded import Loaded, version_of
from greysheep.serving.served import Shelf
from greysheep.serving.settings import KEY, ServeSettings, api_key
from greysheep.serving.titles import Titles
from running import service

LARGE = 2**63
"""Item ids of the integer log begin here: they fit uint64 alone, and no float."""


def integers() -> gs.Interactions:
    """A weighted and timed log with integer ids, users from 0 up, items beyond int64."""
    random = np.random.default_rng(4)
    rows = [
        (u, LARGE + int(i), float(random.integers(1, 5)), int(random.integers(10_000)))
        for u in range(60)
        for i in random.choice(np.arange(u % 2, 40, 2), 9, replace=False)
    ]
    schema = {"user_id": pl.Int64, "item_id": pl.UInt64, "weight": pl.Float64, "timestamp": pl.Int64}
    return gs.Interactions.read(pl.DataFrame(rows, schema=schema, orient="row"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders: `text` (EASE on a log of texts), `whole` (EASE on one of integers), `bare` (without rows)."""
    place = tmp_path_factory.mktemp("served")
    model = gs.EASE(regularization=5.0).fit(world())
    model.save(place / "text")
    model.serving_mainstream  # noqa: B018 - so that the groups are saved, too
    model.save(place / "bare", include_history=False)
    gs.EASE(regularization=5.0).fit(integers()).save(place / "whole")
    return place


@pytest.fixture(scope="module")
def text(place: Path) -> Any:
    with service(place / "text") as client:
        yield client


@pytest.fixture(scope="module")
def whole(place: Path) -> Any:
    with service(place / "whole") as client:
        yield client


def items_of(reply: dict[str, Any]) -> list[Any]:
    return [(one["item_id"], one["rank"]) for one in reply["items"]]


def wanted_of(frame: pl.DataFrame, user: Any) -> list[Any]:
    return list(frame.filter(pl.col("user_id") == user).select("item_id", "rank").iter_rows())


def error_of(reply: httpx.Response, status: int) -> str:
    """The one line of a refusal."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    said = reply.json()
    assert list(said) == ["error"] and len(said["error"].splitlines()) == 1
    assert "Traceback" not in reply.text and "site-packages" not in reply.text
    return str(said["error"])


def test_a_known_user_gets_the_models_list(text: httpx.Client, place: Path) -> None:
    model = gs.load(place / "text")
    reply = text.get("/v1/users/003/recommendations", params={"k": 7}).json()
    frame = model.recommend(["003"], k=7)
    assert items_of(reply) == wanted_of(frame, "003")
    np.testing.assert_allclose([one["score"] for one in reply["items"]], frame["score"], rtol=1e-6)
    group = model.groups_of(model.log.frame()).filter(pl.col("user_id") == "003")["group"][0]
    assert reply["version"] == version_of(place / "text") and len(reply["version"]) == 64
    assert (reply["model"], reply["user_id"], reply["known"], reply["group"]) == ("ease", "003", True, group)
    seen = text.get("/v1/users/003/recommendations", params={"k": 48, "exclude_seen": "false"}).json()
    assert len(seen["items"]) == 48 and len(reply["items"]) == 7


def test_many_users_and_unseen_people_in_one_call(whole: httpx.Client, place: Path) -> None:
    model = gs.load(place / "whole")
    items = model.log.item_ids.to_list()
    mine = {"items": [items[0], items[2], items[4], 5], "weights": [1, 3, 2.5, 1], "times": [4, 3, 2, 1]}
    body = {"users": [7, 1, 7], "histories": [mine, {"items": items[1:6:2]}], "k": 5}
    reply = whole.post("/v1/recommendations", json=body).json()
    lists = reply["lists"]
    assert [one["user_id"] for one in lists] == [7, 1, 7, None, None]
    frame = model.recommend([7, 1], k=5)
    assert [items_of(one) for one in lists[:3]] == [wanted_of(frame, u) for u in (7, 1, 7)]
    rows = pl.DataFrame(
        {
            "user_id": [100, 100, 100, 101, 101, 101],
            "item_id": [items[0], items[2], items[4], *items[1:6:2]],
            "weight": [1.0, 3.0, 2.5, 1.0, 1.0, 1.0],
        }
    )
    frame = model.recommend(history=rows, k=5)
    assert [items_of(one) for one in lists[3:]] == [wanted_of(frame, u) for u in (100, 101)]
    groups = dict(model.groups_of(rows).select("user_id", "group").iter_rows())
    assert [one["group"] for one in lists[3:]] == [groups[100], groups[101]]
    assert [one["unknown_items"] for one in lists] == [0, 0, 0, 1, 0]


def test_candidates_and_exclusions_are_the_calls_own(text: httpx.Client, place: Path) -> None:
    model = gs.load(place / "text")
    some = [f"0{i:03d}" for i in range(0, 20)]
    body = {"users": ["000", "001"], "candidates": [*some, "strange"], "exclude_items": [some[3]], "k": 9}
    frame = model.recommend(["000", "001"], candidates=some, exclude_items=[some[3]], k=9)
    lists = text.post("/v1/recommendations", json=body).json()["lists"]
    assert [items_of(one) for one in lists] == [wanted_of(frame, user) for user in ("000", "001")]
    none = {**body, "candidates": ["strange"]}
    assert "none of the candidates" in error_of(text.post("/v1/recommendations", json=none), 422)


def test_who_is_unknown_is_refused_skipped_or_given_popular_items(text: httpx.Client, place: Path) -> None:
    body: dict[str, Any] = {"users": ["000", "x"], "histories": [{"items": ["y"]}], "k": 3}
    assert "1 of 2 users are unknown" in error_of(text.post("/v1/recommendations", json=body), 404)
    said = error_of(text.post("/v1/recommendations", json={**body, "users": []}), 404)
    assert said == "1 of 1 histories hold no item that this model knows"
    skipped = text.post("/v1/recommendations", json={**body, "on_unknown": "skip"}).json()["lists"]
    assert [len(one["items"]) for one in skipped] == [3, 0, 0]
    popular = text.post("/v1/recommendations", json={**body, "on_unknown": "popular"}).json()["lists"]
    best = gs.load(place / "text").recommend(["x"], on_unknown="popular", k=3)
    assert items_of(popular[1]) == items_of(popular[2]) == wanted_of(best, "x")
    assert [one["known"] for one in popular] == [True, False, False]
    assert "'x'" in error_of(text.get("/v1/users/x/recommendations"), 404)
    assert "user 'x'" in error_of(text.get("/v1/users/x/group"), 404)


def test_ids_are_of_the_logs_type(text: httpx.Client, whole: httpx.Client) -> None:
    for path in ("/v1/users/007/group", "/v1/users/+7/group", "/v1/users/7.0/group", "/v1/users//group"):
        assert "without leading zeros" in error_of(whole.get(path), 422)
    assert "without leading zeros" in error_of(whole.get(f"/v1/users/{'9' * 5000}/group"), 422)
    assert error_of(whole.get(f"/v1/users/{'9' * 38}/group"), 404)
    assert whole.get("/v1/users/7/group").json()["user_id"] == 7
    assert error_of(text.get("/v1/users/3/group"), 404)  # '003' is another
    for client, strange in ((whole, "7"), (text, 3)):
        for body in (
            {"users": [strange]},
            {"histories": [{"items": [strange]}]},
            {"users": [7 if client is whole else "003"], "candidates": [strange]},
            {"users": [7 if client is whole else "003"], "exclude_items": [strange]},
        ):
            assert "give them in that type" in error_of(client.post("/v1/recommendations", json=body), 422)
    for wrong in (True, 1.0, None, [], {}, 2**130):
        error_of(whole.post("/v1/recommendations", json={"users": [wrong]}), 422)


def test_ids_may_hold_anything_that_a_path_can_say(tmp_path: Path) -> None:
    users = ["a/b", "a/b/group", "ü ?#%2F", "recommendations", "日本"]
    rows = [(user, f"i{n}") for user in users for n in range(3)] + [("z", f"i{n}") for n in range(6)]
    log = gs.Interactions.read(pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row"))
    gs.Popular().fit(log).save(tmp_path / "model")
    with service(tmp_path / "model") as client:
        for user in users:
            reply = client.get(f"/v1/users/{quote(user, safe='')}/recommendations").json()
            assert reply["user_id"] == user and len(reply["items"]) == 3
        broken = client.post("/v1/recommendations", content=b'{"users": ["\\ud800"]}')
        assert error_of(broken, 422)
        assert error_of(client.get("/v1/users/%ff/group"), 404)


def test_similar_items(text: httpx.Client, place: Path) -> None:
    reply = text.get("/v1/items/0004/similar", params={"k": 4}).json()
    frame = gs.load(place / "text").similar_items(["0004"], 4)
    assert [one["item_id"] for one in reply["similar"]] == frame["similar_item_id"].to_list()
    assert "item 'x'" in error_of(text.get("/v1/items/x/similar"), 404)


def test_a_model_without_rows_serves_histories_and_groups(place: Path) -> None:
    with service(place / "bare") as client:
        assert client.get("/v1/users/003/group").json()["group"] in GROUPS
        assert "saved without" in error_of(client.get("/v1/users/003/recommendations"), 404)
        body = {"histories": [{"items": ["0000", "0002", "0004"]}], "k": 3}
        (one,) = client.post("/v1/recommendations", json=body).json()["lists"]
        assert one["group"] is None and len(one["items"]) == 3


BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"{", 400, "JSON"),
    (b"", 422, "required"),
    (b"[]", 422, "body"),
    (b"[" * 20_000, 400, ""),
    (b'{"users": []}', 422, "nobody"),
    (b'{"users": ["003"], "k": 0}', 422, "k"),
    (b'{"users": ["003"], "k": "3"}', 422, "k"),
    (b'{"users": ["003"], "k": 501}', 422, "at most 500"),
    (b'{"users": ["003"], "K": 3}', 422, "K"),
    (b'{"users": ["003"], "on_unknown": "drop"}', 422, "on_unknown"),
    (b'{"users": ["003"], "exclude_seen": 1}', 422, "exclude_seen"),
    (b'{"histories": [{"items": []}]}', 422, "items"),
    (b'{"histories": [{"items": ["0001"], "weights": [1, 2]}]}', 422, "2 weights for 1 items"),
    (b'{"histories": [{"items": ["0001"], "weights": [-1]}]}', 422, "weights"),
    (b'{"histories": [{"items": ["0001"], "weights": [NaN]}]}', 422, "weights"),
    (b'{"histories": [{"items": ["0001"], "times": [1e999]}]}', 422, "times"),
    (b'{"histories": [{"items": [' + b'"0001",' * 5000 + b'"0001"]}]}', 422, "at most 5,000"),
    (b'{"users": [' + b'"003",' * 1000 + b'"003"]}', 422, "at most 1,000"),
    (b'{"users": [' + b"1" * 5000 + b"]}", 400, ""),
]


@pytest.mark.parametrize(("body", "status", "word"), BAD_BODIES, ids=lambda value: str(value)[:40])
def test_a_bad_body_is_refused_in_one_line(text: httpx.Client, body: bytes, status: int, word: str) -> None:
    reply = text.post("/v1/recommendations", content=body, headers={"content-type": "application/json"})
    assert word in error_of(reply, status)


def test_other_paths_and_methods(text: httpx.Client) -> None:
    assert "/v2" in error_of(text.get("/v2"), 404)
    assert error_of(text.delete("/health/live"), 405)
    assert error_of(text.get("/v1/users/003/recommendations", params={"k": "many"}), 422)


def test_large_and_slow_bodies(place: Path) -> None:
    with service(place / "text", max_body=2048, body_seconds=0.2) as client:
        assert "2,048 bytes" in error_of(client.post("/v1/recommendations", content=b" " * 3000), 413)
        pieces = (b" " * 500 for _ in range(10))  # without a length
        assert "2,048 bytes" in error_of(client.post("/v1/recommendations", content=pieces), 413)

        def slow() -> Any:
            yield b"{"
            threading.Event().wait(0.5)
            yield b"}"

        assert "0.2 seconds" in error_of(client.post("/v1/recommendations", content=slow()), 408)


def test_the_key_is_asked_for_where_people_are_told_of(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sesame ö")
    key = api_key()
    with service(place / "text", key) as client:
        for path in ("/v1/users/003/group", "/metrics", "/v1/users/x/group", "/v1/nothing"):
            for header in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": b"Basic " + (key or b"")},
            ):
                reply = client.get(path, headers=header)
                assert KEY in error_of(reply, 401) and reply.headers["www-authenticate"] == "Bearer"
        assert client.get("/health/live").status_code == client.get("/openapi.json").status_code == 200
        good = {"Authorization": b"Bearer " + (key or b"")}
        assert client.get("/v1/users/003/group", headers=good).status_code == 200
    monkeypatch.setenv(KEY, " ")
    with pytest.raises(ConfigError, match="empty"):
        api_key()
    monkeypatch.delenv(KEY)
    assert api_key() is None


def test_another_hosts_name_is_not_answered(place: Path) -> None:
    with service(place / "text", allowed_hosts=("lists.example",)) as client:
        assert "--allow-host" in error_of(
            client.get("/health/live", headers={"Host": "evil.example:80"}), 421
        )
        for name in ("localhost", "127.0.0.1:1", "[::1]:80", "lists.example", "LISTS.example:8000"):
            assert client.get("/health/live", headers={"Host": name}).status_code == 200
    assert ServeSettings(host="0.0.0.0").is_open and not ServeSettings().is_open  # nosec B104


def test_numbers_count_requests_and_lists_by_group(place: Path) -> None:
    with service(place / "text") as client:
        group = client.get("/v1/users/003/recommendations").json()["group"]
        client.get("/v1/users/x/recommendations")
        client.get("/secret-path")
        body = {"histories": [{"items": ["y"]}], "on_unknown": "popular"}
        client.post("/v1/recommendations", json=body)
        said = client.get("/metrics").text
    route = 'route="/v1/users/{id:path}/recommendations"'
    assert f'greysheep_requests_total{{{route},status="200"}} 1.0' in said
    assert f'greysheep_requests_total{{{route},status="404"}} 1.0' in said
    assert f"greysheep_request_seconds_count{{{route}}} 2.0" in said
    assert f'greysheep_list_seconds_count{{group="{group}"}} 1.0' in said
    assert 'greysheep_list_seconds_count{group="unknown"} 1.0' in said
    assert '"003' not in said and "/003" not in said and "secret" not in said


def test_a_fault_of_ours_tells_nothing_and_stops_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Recommender.recommend

    def faulty(self: Any, users: Any = None, **rest: Any) -> Any:
        if "001" in users.to_list():
            raise RuntimeError("/secret/path")
        if "003" in users.to_list():
            raise pl.exceptions.PanicException("/secret/path")
        return whole(self, users, **rest)

    monkeypatch.setattr(Recommender, "recommend", faulty)
    with service(place / "text", batch_wait=0.05) as client:
        replies: dict[str, httpx.Response] = {}
        threads = [
            threading.Thread(
                target=lambda user=user: replies.update(
                    {user: client.get(f"/v1/users/{user}/recommendations")}
                )
            )
            for user in ("000", "001", "002", "003")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for user in ("001", "003"):
        assert "secret" not in error_of(replies[user], 500)
    assert replies["000"].status_code == replies["002"].status_code == 200


def test_too_many_that_wait_are_told_to_come_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    whole = Recommender.recommend
    monkeypatch.setattr(Recommender, "recommend", lambda self, *a, **k: go.wait(20) and whole(self, *a, **k))
    with service(place / "text", queue=2, batch=1, batch_wait=0) as client:
        replies: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: replies.append(client.get("/v1/users/003/recommendations")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        while len(replies) < 5:
            go.wait(0.01)
        assert all("come again" in error_of(one, 503) for one in replies)
        assert replies[0].headers["retry-after"] == "1"
        assert client.get("/health/live").status_code == 200
        go.set()
        for thread in threads:
            thread.join()
    assert sorted(one.status_code for one in replies) == [200] * 3 + [503] * 5


def test_titles_come_with_the_items(place: Path, tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text('item_id,title\n"0000","Über Alien (1979)"\n"0002","Aliens"\n"0004",\n')
    titles = Titles.read(table)
    assert titles.search("alien", 9) == ["0002", "0000"] and titles.search("über 1979", 9) == ["0000"]
    assert titles.search("", 9) == titles.search("alien alf", 9) == []
    with service(Shelf(place / "text", titles=titles)) as client:
        reply = client.post(
            "/v1/recommendations", json={"users": ["001"], "candidates": ["0000", "0004", "0007"]}
        ).json()
        found = {one["item_id"]: one["title"] for one in reply["lists"][0]["items"]}
        assert found.items() >= {"0000": "Über Alien (1979)", "0004": None}.items()
    for content, why in (("item_id\n1\n", "title"), ("item_id,title\n1,a\n1,b\n", "more than once")):
        table.write_text(content)
        with pytest.raises(DataError, match=why):
            Titles.read(table)


@pytest.fixture(scope="module")
def mixture() -> Any:
    keywords: dict[str, Any] = {"latent": 8, "epochs": 3, "batch_size": 16, "progress": False}
    return gs.TALL(n_experts=3, start_epoch=1, seed=0, **keywords).fit(world())


def test_an_index_in_the_models_folder_is_what_serves(
    mixture: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    mixture.save(folder)
    assert run(["compile", str(folder), "--rank", "6"]) == 0
    assert str(folder) in capsys.readouterr().out
    loaded = Loaded.read(folder)
    assert isinstance(loaded.ranker, Index) and loaded.ranker.length == 6 and "+" in loaded.version
    again = gs.compile_index(mixture, rank=6)
    np.testing.assert_array_equal(again.user_vectors, loaded.ranker.user_vectors)
    with service(folder) as client:
        reply = client.get("/v1/users/005/recommendations", params={"k": 5}).json()
        assert items_of(reply) == wanted_of(again.recommend(["005"], k=5), "005")
        history = {"histories": [{"items": ["0000", "0002", "0004"]}], "k": 5}
        (one,) = client.post("/v1/recommendations", json=history).json()["lists"]
    rows = pl.DataFrame({"user_id": ["n"] * 3, "item_id": ["0000", "0002", "0004"]})
    assert items_of(one) == wanted_of(again.recommend(history=rows, k=5), "n")
    mixture.save(folder)  # a new model takes the index away with the old one
    assert Loaded.read(folder).ranker is not None and not (folder / "index.json").exists()


def test_an_index_of_another_model_or_a_damaged_one_is_refused(mixture: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    mixture.save(folder)
    keep_index(gs.compile_index(mixture, rank=6), folder)
    model = gs.load(folder)
    assert kept_index(model, folder) is not None
    whole = (folder / "index.safetensors").read_bytes()
    (folder / "index.safetensors").write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(ModelFolderError, match="compile it again"):
        kept_index(model, folder)
    (folder / "index.safetensors").write_bytes(whole[:-8])
    with pytest.raises(ModelFolderError, match="compile it again"):
        kept_index(model, folder, verify=False)
    (folder / "index.safetensors").write_bytes(whole)
    about = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**about, "model": "0" * 64}))
    with pytest.raises(ModelFolderError, match="another model"):
        Loaded.read(folder)


def test_mapped_weights_stay_in_their_file(mixture: Any, tmp_path: Path) -> None:
    for model in (mixture, gs.EASE().fit(world(24))):
        folder = model.save(tmp_path / model.name)
        before = (folder / "model.safetensors").read_bytes()
        mapped, copied = gs.load(folder, mapped=True), gs.load(folder)
        assert str(folder / "model.safetensors") in Path("/proc/self/maps").read_text()
        for key, values in copied._state().items():
            np.testing.assert_array_equal(np.asarray(values), np.asarray(mapped._state()[key]))
        users = model.log.user_ids[:5]
        assert mapped.recommend(users).equals(copied.recommend(users))
        if model is not mixture:
            continue
        with __import__("torch").no_grad():
            mapped.net.bank.decoder_bias.zero_()  # its own copy of the page, not the file's
        assert (folder / "model.safetensors").read_bytes() == before


def test_the_command_serves_until_it_is_told_to_stop(place: Path) -> None:
    command = [sys.executable, "-m", "greysheep", "serve", str(place / "text"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        said = process.stdout.readline()
        found = re.fullmatch(r"serving ease, version [0-9a-f]{12}, at (http://127\.0\.0\.1:\d+)\n", said)
        assert found, said
        assert httpx.get(f"{found[1]}/v1/users/003/group").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere"], "is no saved model"),
        (["{}", "--baseline", "nowhere"], "is no saved model"),
        (["{}", "--items", "nowhere.csv"], "does not exist"),
        (["{}", "--host", "203.0.113.9"], "name another --host or --port"),
        (["{}", "--host", "no such name"], "name another --host or --port"),
        (["{}", "--port", "70000"], "--port"),
    ],
)
def test_a_service_that_cannot_begin_says_why(
    place: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", *(argument.format(place / "text") for argument in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and why in line


DOC = Path(__file__).parents[1] / "docs" / "serving.md"


def test_the_commands_of_its_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = DOC.read_text(encoding="utf-8").replace("data get ml-100k", "data simulate")
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S)).splitlines()
    assert len(lines) == 14
    for line in lines:
        words = shlex.split(line.replace("ml-100k", "simulated"))
        if words[1] == "serve":
            serving = words
        elif words[0] == "greysheep":
            assert run(words[1:]) == 0, line
        elif words[0] != "curl":
            subprocess.run(words, check=True)
    assert (tmp_path / "models" / "current" / "manifest.json").is_file()
    model = gs.load("models/first")
    user, *items = model.log.user_ids[0], *model.log.item_ids[:3]
    command = [sys.executable, "-m", "greysheep", *serving[1:], "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        base = process.stdout.readline().split()[-1]
        try:
            for words in (shlex.split(line) for line in lines if line.startswith("curl")):
                # the ids of ML-100K, for those of the log that the simulator made
                path = words[-1].removeprefix("http://127.0.0.1:8000")
                path = path.replace("users/1/", f"users/{user}/").replace("items/50/", f"items/{items[0]}/")
                body = json.loads(words[words.index("--json") + 1]) if "--json" in words else None
                if body is not None:
                    body.update(
                        {"users": [user] * 2} if "users" in body else {"histories": [{"items": items}]}
                    )
                    body.update({"exclude_items": items[:1]} if "exclude_items" in body else {})
                reply = httpx.get(base + path) if body is None else httpx.post(base + path, json=body)
                assert reply.status_code == 200, reply.text
        finally:
            process.terminate()
