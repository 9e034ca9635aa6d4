"""The map of a collection on the page: looked at, walked through by keyboard, and searched from."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.deploy.page.test_results import search
from tests.fixtures.browser import SCREENS, drawn_width, in_browser, opened, shot

CENTER = """dot => {
  const {x, y, width, height} = dot.getBoundingClientRect();
  return [x + width / 2, y + height / 2];
}"""


def opened_map(page: Page) -> None:
    page.get_by_role("tab", name="Map").click()
    expect(page.locator(".dot")).to_have_count(9)
    expect(page.locator("#map-note")).to_have_text("9 images, placed by two principal components (coarse)")


def center(page: Page) -> list[float]:
    """Where the dot with the focus is."""
    found: list[float] = page.locator(".dot:focus").evaluate(CENTER)
    return found


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("screen", SCREENS)
def test_a_dot_shows_its_image_and_is_searched_with(
    browser: Browser, address: str, screen: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    for page in opened(browser, address, reduced_motion="reduce", **screen):
        width = screen["viewport"]["width"]
        with page.expect_request(f"**/map?limit={500 if width == 390 else 2000}"):
            opened_map(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for n in range(9):
            page.locator(".dot").nth(n).hover(force=True)
            expect(page.locator("#map-tip")).to_be_visible()
            left, right = page.locator("#map-tip").evaluate(
                "tip => { const {left, right} = tip.getBoundingClientRect(); return [left, right]; }"
            )
            assert left >= 0
            assert right <= width
        assert drawn_width(page, "#map-tip img") == 128
        shot(page, f"map-{request.node.callspec.id}")
        page.locator(".dot").first.click(force=True)
        expect(page.get_by_role("dialog")).to_be_visible()
        expect(page.locator("#map-tip")).to_be_hidden()
        expect(page.locator("#large-facts")).to_contain_text(".jpg")
        values = search(page, page.locator("#large-search").click)
        assert values["collection"] == "photos"
        expect(page.locator("#results li")).to_have_count(8)
        page.go_back()
        expect(page.locator("#map")).to_be_visible()


@in_browser
def test_the_keyboard_leads_through_the_map(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    opened_map(page)
    assert page.locator(".dot[tabindex='0']").count() == 1
    page.locator("#map-collection").focus()
    page.keyboard.press("Tab")
    expect(page.locator(".dot:focus")).to_have_count(1)
    expect(page.locator("#map-tip")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#map-tip")).to_be_hidden()
    seen = set[str]()
    for key, axis, sign in (("Right", 0, 1), ("Down", 1, 1), ("Left", 0, -1), ("Up", 1, -1)):
        moved = 0
        for _ in range(9):  # to the edge
            before = center(page)
            page.keyboard.press(f"Arrow{key}")
            after = center(page)
            assert after == before or sign * (after[axis] - before[axis]) > 0
            moved += after != before
            seen.add(str(page.locator(".dot:focus").get_attribute("aria-label")))
        assert moved < 9
        assert page.locator(".dot[tabindex='0']").count() == 1
    assert len(seen) > 1
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()


@pytest.mark.slow
@in_browser
def test_a_better_map_takes_the_place_of_the_first(page: Page) -> None:
    def better(route: Route) -> None:
        response = route.fetch()
        values = response.json()
        for n, point in enumerate(values["points"]):
            point |= {"x": n / 8, "y": 0.25}
        route.fulfill(response=response, json={**values, "method": "umap", "total": 12345})

    page.emulate_media(reduced_motion="reduce")
    page.route(re.compile(r"/photos/map\?limit=2000$"), better)
    page.get_by_role("tab", name="Map").click()
    expect(page.locator("#map-note")).to_have_text("9 of 12,345 images, placed by their neighbors (UMAP)")
    assert page.locator(".dot").nth(4).evaluate("dot => [dot.style.left, dot.style.top]") == ["50%", "25%"]


@pytest.mark.slow
@in_browser
def test_a_map_can_be_shared_and_is_of_the_collection_that_is_searched(page: Page, browser: Browser) -> None:
    page.select_option("#collection", "rated")
    page.get_by_role("tab", name="Map").click()
    expect(page.locator(".dot")).to_have_count(9)
    expect(page.locator("#map-collection")).to_have_value("rated")
    for other in opened(browser, page.url):
        expect(other.locator("#map-collection")).to_have_value("rated")
        expect(other.locator(".dot")).to_have_count(9)
        other.locator(".dot").first.click(force=True)
        assert search(other, other.locator("#large-search").click)["collection"] == "rated"


@pytest.mark.slow
@in_browser
def test_a_map_that_cannot_be_made_says_why(page: Page, home: Path) -> None:
    page.route("**/map?*", lambda route: route.fulfill(status=422, json={"detail": "it has 2 images"}))
    page.get_by_role("tab", name="Map").click()
    expect(page.get_by_role("alert")).to_have_text("it has 2 images")
    page.unroute("**/map?*")
    page.get_by_role("tab", name="Manage").click()
    opened_map(page)
    expect(page.get_by_role("alert")).to_be_hidden()
