"""Versions that take each other's place under clients, and whatever the service's own OpenAPI page allows."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import greysheep as gs
from contract import world
from greysheep.models.autoencoders.kept_index import keep_index
from greysheep.serving.lists import ListsAsk
from greysheep.serving.loaded import Loaded, version_of
from greysheep.serving.lookups import GroupAsk, SimilarAsk
from greysheep.serving.microbatch import answers
from greysheep.serving.schemas import ListsRequest
from greysheep.serving.served import Served, Shelf
from greysheep.system.drafts import exchange
from running import service

ITEMS = [f"0{i:03d}" for i in range(48)]
Request = tuple[str, Any]
Swap = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two EASE of different strength, and of a mixture with an index, on logs of their own."""
    place = tmp_path_factory.mktemp("versions")
    for strength in (5, 500):
        gs.EASE(regularization=float(strength)).fit(world(seed=strength)).save(place / f"ease{strength}")
    keywords: dict[str, Any] = {"latent": 8, "epochs": 2, "batch_size": 16, "progress": False}
    mixture = gs.LMoE(n_experts=3, seed=0, **keywords).fit(world())
    keep_index(gs.compile_index(mixture, rank=8), mixture.save(place / "lmoe"))
    return sorted(place.iterdir())


def some_request(draw: random.Random) -> Request:
    """A request that can be answered: its path, and its body or None."""
    user, k = f"{draw.randrange(96):03d}", draw.randint(1, 30)
    kind = draw.randrange(5)
    if kind == 0:
        return f"/v1/users/{user}/group", None
    if kind == 1:
        return f"/v1/items/{draw.choice(ITEMS)}/similar?k={k}", None
    if kind == 2:
        histories = [{"items": draw.sample(ITEMS, draw.randint(1, 9))} for _ in range(draw.randint(0, 3))]
        return "/v1/recommendations", {"users": [user, "000"], "histories": histories, "k": k}
    if kind == 3:
        return "/v1/recommendations", {"users": [user], "candidates": draw.sample(ITEMS, 20), "k": k}
    return f"/v1/users/{user}/recommendations?k={k}", None


def alone(request: Request, served: Served) -> Any:
    """The answer of one version to one request, asked alone."""
    path, body = request
    parts, _, query = path.partition("?")
    k, name = int(query[2:] or 20), parts.split("/")[3] if body is None else ""
    if body is not None:
        ask: Any = ListsAsk(ListsRequest(**body))
    elif parts.endswith("/group"):
        ask = GroupAsk(name)
    elif parts.endswith("/similar"):
        ask = SimilarAsk(name, k)
    else:
        ask = ListsAsk(ListsRequest.model_construct(k=k), name)
    return json.loads(json.dumps(answers([ask], served)[0]))


def assert_same(found: Any, wanted: Any) -> None:
    """Equal but for the last digits of scores, which depend on how many are computed together."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, float):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    else:
        assert found == wanted


def by_rename(source: Path, place: Path) -> None:
    """Put a copy of a folder in the place of another, in one step."""
    draft = place.with_name("draft")
    shutil.copytree(source, draft)
    assert exchange(draft, place)
    shutil.rmtree(draft)


def by_link(source: Path, place: Path) -> None:
    """Let a link point to another folder, in one step."""
    link = place.with_name("link")
    link.symlink_to(source)
    os.replace(link, place)


def swap_under_clients(
    versions: list[Path],
    place: Path,
    swap: Swap,
    clients: int,
    requests: int,
    swaps: int,
) -> int:
    """Swap while clients ask; returns how many replies they compared with the sequential ones."""
    expected = {version_of(folder): Served(Loaded.read(folder)) for folder in versions}
    assert len(expected) == len(versions)
    swap(versions[0], place) if swap is by_link else shutil.copytree(versions[0], place)
    done, faults, compared = threading.Event(), [], [0] * clients
    known: dict[tuple[str, str], Any] = {}

    def ask(number: int, url: httpx.URL) -> None:
        draw = random.Random(number)
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                while compared[number] < requests or not done.is_set():
                    path, body = request = some_request(draw)
                    reply = client.get(path) if body is None else client.post(path, json=body)
                    assert reply.status_code == 200, reply.text
                    found = reply.json()
                    key = found["version"], json.dumps(request)
                    if key not in known:
                        known[key] = alone(request, expected[found["version"]])
                    assert_same(found, known[key])
                    compared[number] += 1
        except BaseException as error:
            faults.append(error)

    with service(place) as client:
        crew = [threading.Thread(target=ask, args=(n, client.base_url)) for n in range(clients)]
        for one in crew:
            one.start()
        for step in range(1, swaps + 1):
            wanted = versions[step % len(versions)]
            swap(wanted, place)
            while client.get("/health/ready").json()["version"] != version_of(wanted) and not faults:
                pass
        done.set()
        for one in crew:
            one.join()
    if faults:
        raise faults[0]
    return sum(compared)


@pytest.mark.parametrize("swap", [by_rename, by_link])
def test_no_reply_mixes_versions(versions: list[Path], tmp_path: Path, swap: Any) -> None:
    assert swap_under_clients(versions, tmp_path / "model", swap, clients=4, requests=25, swaps=4) >= 100


@pytest.mark.eval
@pytest.mark.parametrize("swap", [by_rename, by_link])
def test_no_reply_mixes_versions_under_load(versions: list[Path], tmp_path: Path, swap: Any) -> None:
    compared = swap_under_clients(versions, tmp_path / "model", swap, clients=16, requests=2000, swaps=50)
    assert compared >= 32_000


def test_a_folder_that_cannot_be_read_leaves_the_old_version(
    versions: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "model"
    shutil.copytree(versions[0], place)
    shelf = Shelf(place)
    first = shelf.served
    shelf.refresh()
    assert shelf.served is first and shelf.swaps == 0
    (place / "manifest.json").write_text("{}")
    for _ in range(3):
        shelf.refresh()
    assert shelf.served is first and len(caplog.records) == 1  # said once, not at every look
    assert str(place) in caplog.text and "/proc/" not in caplog.text
    shutil.rmtree(place)
    shelf.refresh()
    assert shelf.served is first
    shutil.copytree(versions[1], place)
    shelf.refresh()
    assert shelf.served.main.version == version_of(versions[1]) and shelf.swaps == 1


def check_against_openapi(versions: list[Path], examples: int) -> int:
    """Send what the OpenAPI page allows, and half the time ids that are known; returns how many cases."""
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    sent = 0
    users = st.none() | st.integers(0, 95).map(lambda u: f"{u:03d}")
    with service(versions[0]) as client:
        schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
        for operation in (found.ok() for found in schema.get_all_operations()):

            @given(case=operation.as_strategy(), user=users, item=st.none() | st.sampled_from(ITEMS))
            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def check(case: Any, user: str | None, item: str | None) -> None:
                nonlocal sent
                if user is not None and item is not None and "id" in (case.path_parameters or {}):
                    case.path_parameters["id"] = item if "items" in case.path else user
                if user is not None and isinstance(case.body, dict) and "users" in case.body:
                    case.body["users"] = [user]
                reply = case.call(timeout=30)
                case.validate_response(reply, checks=checks)
                assert "Traceback" not in reply.text and ".py" not in reply.text
                sent += 1

            check()
    return sent


def test_the_service_does_what_its_openapi_page_says(versions: list[Path]) -> None:
    assert check_against_openapi(versions, examples=5) >= 25


@pytest.mark.eval
def test_the_service_does_what_its_openapi_page_says_in_thousands_of_cases(versions: list[Path]) -> None:
    assert check_against_openapi(versions, examples=600) >= 2_000
