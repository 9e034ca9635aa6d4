"""The rules of axe, in each view of the page and of the reference: both themes, on a desk and on a phone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from lookalike.encoder.detect import INDEX_THRESHOLD, Faces
from lookalike.encoder.images import encode_png
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import SourceFilter, SourceList
from lookalike.indexer.sync import sync
from tests.deploy.page.test_manage import managed
from tests.fixtures.browser import SCREENS, chosen, in_browser, opened
from tests.fixtures.face_photos import group, write
from tests.fixtures.photos import PEOPLE, index, photograph, write_photos
from tests.fixtures.service import KEY, client_of


@dataclass
class Audit:
    """What axe says of a page, view by view."""

    page: Page
    wrong: list[str] = field(default_factory=list)

    def look(self, view: str) -> None:
        response: dict[str, Any] = Axe().run(self.page).response
        assert len(response["passes"]) > 5, view
        self.wrong += [
            f"{view}: {each['id']}: {node['html'][:150]}: {node['failureSummary']}"
            for each in response["violations"]
            for node in each["nodes"]
        ]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with rated squares of a portrait in photos, and the faces of two photographs in people."""
    home = tmp_path_factory.mktemp("home")
    write_photos(home / "photos")
    write(home / "groups" / "2.jpg", group(2))
    rows = {f"{person}/{n}.jpg": {"Smiling": n - 1.5, "camera": "old"} for person in PEOPLE for n in range(3)}
    rated = SourceList(sources=[home / "photos"], filter=SourceFilter(payload=rows))
    model = Model.open(Path("faces"))
    with open_store(str(home / ".lookalike")) as store:
        sync(store, "photos", model, rated)
        index(store, model, home / "groups", name="people", crop=Faces(INDEX_THRESHOLD))
        store.set_alias("family", "photos")
    with client_of(home, Path("faces"), "denoise") as client:
        yield str(client.base_url).rstrip("/")


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def searched(page: Page) -> None:
    page.select_option("#collection", "photos")
    page.set_input_files("#file", files=chosen(photograph(4)))
    expect(page.locator("#results li").first).to_be_visible()


def filtered(page: Page) -> None:
    page.locator("#options").evaluate("each => each.open = true")
    page.get_by_role("button", name="Only Hypatia").click()
    expect(page.get_by_role("button", name="Remove the filters")).to_be_visible()
    expect(page.locator("#results li")).to_have_count(3)


def faces_found(page: Page) -> None:
    page.select_option("#collection", "people")
    page.set_input_files("#file", files=chosen(encode_png(group(2))))
    expect(page.locator("#part .face")).to_have_count(2)
    expect(page.locator("#results li").first).to_be_visible()


def shown_large(page: Page) -> None:
    page.locator("#results .whole").first.click()
    expect(page.locator("#large")).to_be_visible()


def square(page: Page) -> None:
    page.get_by_role("button", name="A square", exact=True).click()
    expect(page.locator("#part .square")).to_be_visible()


def refused(page: Page) -> None:
    page.keyboard.press("Escape")
    page.set_input_files("#file", files=chosen(b"no"))
    expect(page.get_by_role("alert")).to_be_visible()


def generated(page: Page) -> None:
    tab(page, "Generate")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#generated img").first).to_be_visible()


def denoised(page: Page) -> None:
    tab(page, "Denoise")
    page.set_input_files("#denoise-file", files=chosen(photograph(4)))
    expect(page.locator("#denoised")).to_be_visible()
    expect(page.locator("#waits")).to_have_text("")


def reconstructed(page: Page) -> None:
    tab(page, "Reconstruct")
    page.set_input_files("#reconstruct-file", files=chosen(encode_png(group(2))))
    expect(page.locator("#wipe")).to_be_visible()


def mapped(page: Page) -> None:
    tab(page, "Map")
    page.select_option("#map-collection", "photos")  # two faces make no map
    expect(page.locator(".dot")).to_have_count(9)
    page.locator(".dot").first.focus()
    expect(page.locator("#map-tip img")).to_be_visible()


def managing(page: Page) -> None:
    managed(page, roots=["/photos"])
    tab(page, "Manage")
    page.get_by_role("button", name="Look at photos").click()
    expect(page.locator(".sample img").first).to_be_visible()


def deleting(page: Page) -> None:
    page.get_by_role("button", name="Delete photos").click()
    expect(page.get_by_role("dialog")).to_be_visible()


VIEWS: Final[tuple[Callable[[Page], None], ...]] = (
    searched,
    filtered,
    square,
    faces_found,
    shown_large,
    refused,
    generated,
    denoised,
    reconstructed,
    mapped,
    managing,
    deleting,
)


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing_in_any_view(browser: Browser, address: str, screen: dict[str, Any]) -> None:
    for page in opened(browser, address, **screen):
        audit = Audit(page)
        audit.look("search")
        for view in VIEWS:
            view(page)
            audit.look(view.__name__)
        page.goto(f"{address}/reference")
        audit.look("reference")
        assert audit.wrong == []


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing_before_there_is_anything(
    browser: Browser, tiny_model: Path, tmp_path: Path, screen: dict[str, Any]
) -> None:
    with open_store(str(tmp_path / ".lookalike")):
        pass
    with client_of(tmp_path, tiny_model, key=KEY) as client:
        for page in opened(browser, str(client.base_url), **screen):
            audit = Audit(page)
            expect(page.locator("#key-form")).to_be_visible()
            audit.look("key")
            page.fill("#key", KEY)
            page.get_by_role("button", name="Use it").click()
            expect(page.locator("#welcome")).to_be_visible()
            audit.look("empty store")
            for name in ("Generate", "Denoise", "Reconstruct", "Map", "Manage"):
                tab(page, name)
                audit.look(name)
            assert audit.wrong == []


@in_browser
def test_axe_sees_what_is_wrong(page: Page) -> None:
    page.evaluate("document.getElementById('random').textContent = ''")
    audit = Audit(page)
    audit.look("search")
    assert any("button-name" in each for each in audit.wrong)
