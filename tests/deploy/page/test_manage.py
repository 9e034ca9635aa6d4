"""The collections of a store on the page: none, indexing, names, deleting; and jobs that denoise."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from lookalike.encoder.images import encode_png
from lookalike.indexer.open import open_store
from tests.deploy.page.test_results import ABOUT
from tests.fixtures.browser import chosen, drawn_width, in_browser, opened
from tests.fixtures.photos import NAME, cuttings, photograph, write_photos
from tests.fixtures.service import API, client_of

JOB: Final = {
    "id": "00000000-0000-4000-8000-000000000000",
    "kind": "denoise",
    "state": "running",
    "unit": "tiles",
    "total": 40,
    "done": 12,
    "rate": 3.5,
    "current": None,
    "failures": [],
    "failed": 0,
    "created": "2026-11-29T20:00:00Z",
    "started": "2026-11-29T20:00:00Z",
    "ended": None,
    "report": None,
    "problem": None,
    "collection": None,
    "source": None,
}
"""A job as the service tells of it."""


def managed(page: Page, **about: Any) -> None:
    """Have the service say that the page may change the store."""
    values = {**ABOUT, "can_write": True, **about}
    page.route(f"**{API}/service", lambda route: route.fulfill(json=values))
    page.reload()
    page.wait_for_selector("body[data-ready=true]")


@pytest.fixture
def empty(browser: Browser, tiny_model: Path, tmp_path: Path) -> Iterator[Page]:
    """The page of a store without a collection, beside a folder of photographs of which one is damaged."""
    write_photos(tmp_path / "photos")
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")
    with open_store(str(tmp_path / ".lookalike")):
        pass
    with client_of(tmp_path, tiny_model) as client:
        yield from opened(browser, str(client.base_url))


@in_browser
def test_an_empty_store_greets_with_three_steps(empty: Page) -> None:
    managed(empty, can_write=False)
    expect(empty.locator("#welcome li")).to_have_count(3)
    expect(empty.locator("#welcome")).to_contain_text("lookalike index photos/ --collection family")
    expect(empty.get_by_role("button", name="Index a folder here")).to_be_hidden()
    expect(empty.locator("#random")).to_be_disabled()
    expect(empty.locator("#drop")).to_be_hidden()
    empty.get_by_role("tab", name="Manage").click()
    expect(empty.locator("#index-form")).to_be_hidden()
    expect(empty.locator("#no-collections")).to_be_visible()


@pytest.mark.slow
@in_browser
def test_a_folder_is_indexed_and_searched(empty: Page, tmp_path: Path) -> None:
    folder = str(tmp_path.resolve() / "photos")
    managed(empty, roots=[folder])
    empty.get_by_role("button", name="Index a folder here").press("Enter")
    source = empty.get_by_label("Folder on the service's machine")
    expect(source).to_be_focused()
    expect(source).to_have_value(folder)
    empty.get_by_role("textbox", name="Collection").fill("family")
    empty.locator("#index-model").select_option("tiny")
    expect(empty.get_by_label("Find the faces in photographs")).to_be_hidden()  # not a model of faces
    empty.get_by_role("button", name="Index", exact=True).click()
    expect(empty.locator("#job-state")).to_contain_text("family: ")
    expect(empty.locator("#collection-list h3")).to_have_text(["family"])
    expect(empty.locator("#job-failed-count")).to_have_text("1 not read")
    empty.locator("#job-failed-count").click()
    expect(empty.locator("#job-failures li")).to_have_text([re.compile("bad.jpg: not an image")])
    expect(empty.get_by_role("button", name="Index", exact=True)).to_be_enabled()
    empty.get_by_role("button", name="Search family").click()
    expect(empty.locator("#welcome")).to_be_hidden()
    empty.set_input_files("#file", files=chosen(photograph(4)))
    expect(empty.locator("#results li")).to_have_count(9)
    empty.get_by_role("tab", name="Manage").click()
    source.fill("/etc")
    empty.get_by_role("button", name="Index", exact=True).click()
    expect(empty.get_by_role("alert")).to_contain_text("/etc")


@pytest.mark.slow
@in_browser
def test_a_job_that_runs_is_shown_and_cancelled(page: Page) -> None:
    states = [{**JOB, "kind": "index", "collection": NAME, "unit": "images", "current": "a.jpg"}]
    cancelled: list[str] = []

    def job(route: Route) -> None:
        if route.request.method == "DELETE":
            cancelled.append(route.request.url)
            states.append({**states[0], "state": "cancelled", "ended": "2026-11-29T20:00:09Z"})
        route.fulfill(json=states[-1])

    page.route(f"**{API}/jobs", lambda route: route.fulfill(json={"jobs": states}))
    page.route(f"**{API}/jobs/*", job)
    managed(page)
    page.get_by_role("tab", name="Manage").click()  # it was started by an earlier page
    line = f"{NAME}: running · 12 of 40 images · 3.5 a second · a.jpg"
    expect(page.locator("#job-state")).to_have_text(line)
    assert page.locator("#job-progress").evaluate("bar => bar.value / bar.max") == 0.3
    page.locator("#job-cancel").click()
    expect(page.locator("#job-state")).to_contain_text("cancelled")
    assert len(cancelled) == 1


@pytest.mark.slow
@in_browser
def test_a_collection_is_looked_at_named_and_deleted(page: Page, address: str) -> None:
    found = httpx.get(f"{address}{API}/items/random", params={"collection": NAME}).json()
    info = {"sample": [found["id"]], "fields": [], "people": [{"value": "Ada_Lovelace", "count": 3}]}
    page.route(f"**{API}/collections/*", lambda route: route.fulfill(json=info))
    sent: list[tuple[str, str, str | None]] = []

    def note(route: Route) -> None:
        request = route.request
        sent.append((request.method, httpx.URL(request.url).path.removeprefix(API), request.post_data))
        route.fulfill(status=204)

    managed(page)
    page.get_by_role("tab", name="Manage").click()
    look = page.get_by_role("button", name=f"Look at {NAME}")
    look.focus()
    page.keyboard.press("Enter")
    expect(look).to_have_attribute("aria-expanded", "true")
    assert drawn_width(page, ".sample img") == 128
    expect(page.locator(".details:visible dd").first).to_contain_text("tiny")
    page.route(f"**{API}/aliases/*", note)
    page.route(f"**{API}/collections/{NAME}", note)
    field = page.get_by_label("Another name").nth(0)
    field.fill("family")
    field.press("Enter")
    expect(page.locator("#waits")).to_have_text("")
    page.get_by_role("button", name=f"Delete {NAME}").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"Delete the collection {NAME} with 9 images?")
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"Delete {NAME}").click()
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name=f"Delete {NAME}").click()
    with page.expect_response(f"**{API}/collections/{NAME}"):
        page.get_by_role("button", name="Delete", exact=True).click()
    changes = [each for each in sent if each[0] != "GET"]
    assert changes == [
        ("PUT", "/aliases/family", f'{{"collection":"{NAME}"}}'),
        ("DELETE", f"/collections/{NAME}", None),
    ]


@pytest.mark.slow
@in_browser
def test_an_alias_is_removed_and_a_person_searched(page: Page) -> None:
    def named(route: Route) -> None:
        response = route.fetch()
        values = response.json()
        values["collections"][0]["aliases"] = ["family"]
        route.fulfill(response=response, json=values)

    page.route(f"**{API}/collections", named)
    page.route(f"**{API}/aliases/*", lambda route: route.fulfill(status=204))
    managed(page)
    page.get_by_role("tab", name="Manage").click()
    with page.expect_request(f"**{API}/aliases/family") as request:
        page.get_by_role("button", name="Remove the alias family").click()
    assert request.value.method == "DELETE"
    page.get_by_role("button", name=f"Look at {NAME}").click()
    page.get_by_role("button", name="Random image of Ada Lovelace").click()
    expect(page.get_by_role("button", name="Only Ada Lovelace")).to_have_attribute("aria-pressed", "true")
    assert set(page.locator("#results b").all_inner_texts()) == {"Ada Lovelace"}


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("ends", ["done", "cancelled", "failed"])
def test_a_slow_image_is_denoised_by_a_job(
    browser: Browser, home: Path, tiny_model: Path, tmp_path: Path, ends: str
) -> None:
    """The service refuses, the page starts a job; a fake one, so that it lasts as long as the test needs."""
    png = encode_png(cuttings()[4])
    asked: list[str] = []
    polls = itertools.count()
    over = {"state": ends, "ended": "2026-11-29T20:00:09Z", "done": 40}
    if ends == "failed":
        over["problem"] = {"detail": "the image is damaged"}

    def answer(route: Route) -> None:
        path = httpx.URL(route.request.url)
        asked.append(f"{route.request.method} {path.path.removeprefix(API)}?{path.query.decode()}")
        if path.path.endswith("/denoise") and not path.query:
            route.fulfill(status=413, json={"code": "too-slow", "detail": "it would take 90 s"})
        elif path.path.endswith("/denoise"):
            route.fulfill(status=202, json=JOB)
        elif path.path.endswith("/image"):
            route.fulfill(body=png, content_type="image/png")
        else:
            is_over = any(each.startswith("DELETE") for each in asked) or (
                ends != "cancelled" and next(polls) > 1
            )
            route.fulfill(json=JOB | over if is_over else JOB)

    (tmp_path / "home").mkdir()
    with open_store(str(tmp_path / "home" / ".lookalike")):
        pass
    with client_of(tmp_path / "home", tiny_model, "denoise") as client:
        for page in opened(browser, str(client.base_url)):
            page.route(f"**{API}/denoise*", answer)
            page.route(f"**{API}/jobs/**", answer)
            page.get_by_role("tab", name="Denoise").click()
            page.set_input_files("#denoise-file", files=chosen(photograph(4)))
            expect(page.locator("#waits")).to_contain_text(
                "Denoising: running · 12 of 40 tiles · 3.5 a second"
            )
            if ends == "cancelled":
                page.get_by_role("button", name="Cancel: Denoising").click()
                expect(page.locator("#denoise-status")).to_have_text("Cancelled.")
                assert sum(each.startswith("DELETE") for each in asked) == 1
            elif ends == "failed":
                expect(page.get_by_role("alert")).to_have_text("the image is damaged")
            else:
                expect(page.locator("#denoise-status")).to_have_text("Denoised")
                assert drawn_width(page, "#denoise-after") == 128
            assert asked[0].startswith("POST /denoise?")
            assert asked[1].startswith("POST /denoise?job=1")
