"""The page in a real browser, by keyboard alone; and what it is drawn from."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

import greysheep as gs
from contract import world
from greysheep.serving.served import Shelf
from greysheep.serving.titles import Titles
from running import service

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browsing = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
TITLES = {f"0{i:03d}": f"Film {i} <b>&amp;" for i in range(48)}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """A mixture, beside EASE on the same log and on one whose ids are integers."""
    place, log = tmp_path_factory.mktemp("page"), world()
    keywords: dict[str, Any] = {"latent": 8, "epochs": 2, "batch_size": 16, "progress": False}
    gs.LMoE(n_experts=3, seed=0, **keywords).fit(log).save(place / "lmoe")
    gs.EASE(regularization=5.0, label="ease <i>").fit(log).save(place / "ease")
    whole = log.frame().with_columns(
        pl.col("user_id").cast(pl.Int64), pl.col("item_id").cast(pl.Int64) + 2**60
    )
    gs.EASE(regularization=5.0).fit(whole).save(place / "whole")
    return Shelf(place / "lmoe", [place / "ease", place / "whole"], Titles(TITLES))


@pytest.fixture(scope="module")
def client(shelf: Shelf) -> Iterator[httpx.Client]:
    with service(shelf) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # without a sandbox of its own, as tests may run as root
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, client: httpx.Client) -> Iterator[Page]:
    """The page; whatever it asks of another host, or complains of, fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda asked: asked.url.startswith((str(client.base_url), "data:")) or faults.append(asked.url),
    )
    page.on("console", lambda said: "Security Policy" in said.text and faults.append(said.text))
    page.goto(str(client.base_url))
    yield page
    page.close()
    assert not faults


def test_a_profile_is_the_models_word(client: httpx.Client, shelf: Shelf) -> None:
    model, ease = shelf.served.main.model, shelf.served.baselines[0].model
    told = client.get("/v1/users/003/profile", params={"k": 6}).json()
    ours, theirs, strange = told["lists"]
    items = model.recommend(["003"], k=6)["item_id"].to_list()
    assert [one["item_id"] for one in ours["items"]] == items
    assert [one["item_id"] for one in theirs["items"]] == ease.recommend(["003"], k=6)["item_id"].to_list()
    assert strange["items"] == [] and "without leading zeros" in strange["error"]
    assert (
        told["n_rows"] == len(told["rows"]) == 12
        and told["rows"][0]["title"] == TITLES[told["rows"][0]["item_id"]]
    )
    words = model.contributions("003", items)
    assert {one["voice"]: pytest.approx(one["weight"]) for one in told["voices"]} == dict(
        words.voices.iter_rows()
    )
    for one in ours["items"]:
        best = words.rows.filter((pl.col("item_id") == one["item_id"]) & (pl.col("contribution") > 0)).head(5)
        assert [why["item_id"] for why in one["because"]] == best["history_item_id"].to_list()
    assert told["exact"] is False


def test_a_profile_of_somebody_new(client: httpx.Client, shelf: Shelf) -> None:
    body = {"history": {"items": ["0002", "0004", "x"], "times": [1, 2, 3]}, "k": 3}
    told = client.post("/v1/profile", json=body).json()
    assert [one["item_id"] for one in told["rows"]] == ["0004", "0002"]  # the newest first
    assert (told["user_id"], told["unknown_items"], told["n_rows"]) == (None, 1, 2)
    rows = pl.DataFrame({"user_id": ["n", "n"], "item_id": ["0002", "0004"], "timestamp": [1, 2]})
    items = shelf.served.main.model.recommend(history=rows, k=3)["item_id"].to_list()
    assert [one["item_id"] for one in told["lists"][0]["items"]] == items
    assert {why["item_id"] for one in told["lists"][0]["items"] for why in one["because"]} <= {"0002", "0004"}
    for bad, status in (
        ({"history": {"items": ["x"]}}, 404),
        ({"history": {"items": [2]}}, 422),
        ({"history": {"items": ["0002"] * 501}}, 422),
        ({**body, "k": 101}, 422),
    ):
        assert client.post("/v1/profile", json=bad).status_code == status
    assert client.get("/v1/users/x/profile").status_code == 404


def test_items_are_found_by_words_or_by_their_ids(client: httpx.Client) -> None:
    def found(words: str, n: int = 20) -> list[str]:
        return [
            one["item_id"]
            for one in client.get("/v1/items", params={"search": words, "n": n}).json()["items"]
        ]

    assert found("film 17") == ["0017"] and found("000", 3) == ["0000", "0001", "0002"]
    assert found("  ") == found("nothing") == [] and len(found("FILM", 5)) == 5
    assert client.get("/v1/items", params={"search": "x" * 201}).status_code == 422


def test_pages_load_nothing_from_elsewhere_and_may_not_be_framed(client: httpx.Client) -> None:
    for path in ("/", "/docs", "/page/page.css", "/page/page.js", "/page/docs.js"):
        reply = client.get(path)
        policy = reply.headers["content-security-policy"]
        assert (
            reply.status_code == 200 and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        )
        assert not re.search(r"https?://|innerHTML|insertAdjacent|eval\(|style=", reply.text)


@browsing
def test_a_user_is_looked_up_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")  # the link to the lists
    page.keyboard.press("Tab")
    page.keyboard.type("003")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="User 003")).to_be_visible()
    expect(page.locator("#lists > div")).to_have_count(3)
    expect(page.locator("#lists > div").first.locator("ol > li")).to_have_count(10)
    expect(page.get_by_role("heading", name="ease <i> (beside it)")).to_be_visible()  # as text
    expect(page.locator("#voices li")).to_have_count(3)
    expect(page.locator("#rows li").first).to_contain_text("<b>&amp;")
    expect(page.locator("#scale li[aria-current]")).to_have_count(1)
    expect(page.locator("#shown")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # opens the first item
    expect(page.locator("#lists details[open] .bars li").first).to_be_visible()
    assert page.url.endswith("#user=003")
    page.reload()
    expect(page.get_by_role("heading", name="User 003")).to_be_visible()


@browsing
def test_somebody_new_is_composed_by_keyboard_alone(page: Page) -> None:
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.locator("#search")).to_be_focused()
    for word, down in (("film 1", 2), ("0004", 0)):
        page.keyboard.type(word)
        expect(page.locator("#found [role=option]").first).to_be_visible()
        for _ in range(down):
            page.keyboard.press("ArrowDown")
        if down:
            expect(page.locator("#found [aria-selected=true]")).to_have_count(1)
        page.keyboard.press("Enter")
        expect(page.locator("#found")).to_be_hidden()
    expect(page.locator("#chosen li")).to_have_count(2)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Somebody new")).to_be_visible()
    expect(page.locator("#rows li")).to_have_count(2)
    page.locator("#search").focus()
    page.keyboard.press("Backspace")
    expect(page.locator("#chosen li")).to_have_count(1)
    page.keyboard.type("nothing like it")
    expect(page.locator("#found")).to_contain_text("nothing found")
    page.keyboard.press("Escape")
    expect(page.locator("#found")).to_be_hidden()


@browsing
def test_a_mistake_is_told_in_the_page(page: Page) -> None:
    page.fill("#user", "nobody")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("unknown")
    expect(page.locator("#shown")).to_be_hidden()


@browsing
def test_the_page_asks_for_the_key_and_large_ids_keep_their_digits(browser: Browser, shelf: Shelf) -> None:
    whole = Shelf(shelf.folders[2])
    with service(whole, b"sesame") as client:
        page = browser.new_page()
        page.goto(str(client.base_url))
        page.fill("#user", "3")
        page.keyboard.press("Enter")
        expect(page.locator("#key")).to_be_focused()
        page.keyboard.type("sesame")
        page.keyboard.press("Enter")
        log = whole.served.main.log
        mine = log.decode_items(log.items[log.users == 3]).cast(pl.String)
        expect(page.locator("#rows li")).to_have_text(mine.to_list())
        assert any(int(item) != int(float(item)) for item in mine)
        page.fill("#search", str(2**60 + 3))
        expect(page.locator("#found [role=option]")).to_have_count(1)
        page.keyboard.press("Enter")
        page.click("#compose")
        expect(page.locator("#rows li")).to_have_text([str(2**60 + 3)])
        page.close()


@browsing
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_the_page_fits_and_axe_finds_no_fault(
    browser: Browser, client: httpx.Client, width: int, scheme: Any
) -> None:
    # axe is put into the page, which the page's own policy forbids
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    for path in ("/#user=003", "/docs"):
        page.goto(f"{client.base_url}{path}")
        expect(page.locator("#lists li, .call").first).to_be_visible()
        for summary in page.locator("summary").all()[:3]:
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = Axe().run(page).response["violations"]
        assert not found, [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found]
    context.close()
