"""The results on the page: verdicts, filters, more of them, and the dialog."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.fixtures.browser import chosen, drawn_width, in_browser, on_each_screen, opened
from tests.fixtures.photos import photograph

ABOUT: Final = {
    "version": "1",
    "can_write": False,
    "roots": [],
    "max_pixels_denoise": 16_000_000,
    "body_bytes": 1 << 24,
    "seconds": 30,
    "root_path": "",
}
"""What GET /service says."""

Json = dict[str, Any]


def changing(page: Page, change: Callable[[Json], object]) -> None:
    """Have each answer of a search changed."""

    def handle(route: Route) -> None:
        response = route.fetch()
        values = response.json()
        for answer in values.get("answers", []):
            change(answer)
        route.fulfill(response=response, json=values)

    page.route("**/api/v1/search", handle)


def values_of(request: Any) -> Json:
    values: Json = json.loads(request.post_data or "{}")
    return values


def search(page: Page, work: Callable[[], object]) -> Json:
    """The JSON of the search that something leads to, from an item."""
    with page.expect_request("**/api/v1/search") as request:
        work()
    return values_of(request.value)


def random(page: Page) -> None:
    page.get_by_role("button", name="Random image").click()
    expect(page.locator("#results li").first).to_be_visible()


@in_browser
def test_each_result_has_one_verdict_and_labeled_numbers(page: Page) -> None:
    def judge(answer: Json) -> None:
        kinds = [(True, 0.999, True), (False, 0.9, True), (False, 0.11, False), (False, 0.004, False)]
        for result, (same, probability, match) in zip(answer["results"], kinds, strict=False):
            result |= {"same_file": same, "probability": probability, "match": match, "score": 0.523}

    def warn(answer: Json) -> None:
        judge(answer)
        answer["warning"] = "it is unlike all images"
        for result in answer["results"][:4]:
            result |= {"probability": None, "match": False}

    changing(page, judge)
    random(page)
    texts = [text.split("\n") for text in page.locator("#results li div").all_inner_texts()[:5]]
    assert [text[1] for text in texts[:4]] == ["same file", "match", "possible", "possible"]
    assert texts[2][2:] == ["score 0.523", "probability 11 %"]
    assert texts[3][3] == "probability <1 %"
    assert len(texts[4]) == 2  # not calibrated: a score alone
    page.unroute("**/api/v1/search")
    changing(page, warn)
    page.set_input_files("#file", files=chosen(photograph(5)))
    expect(page.locator("#verdict")).to_contain_text("it is unlike all images")
    assert page.locator("#results .kind").all_inner_texts()[1:] == ["possible"] * 3


@pytest.mark.slow
@in_browser
@on_each_screen
def test_the_same_file_is_told_by_its_bytes(page: Page) -> None:
    page.set_input_files("#file", files=chosen(photograph(4)))
    expect(page.locator("#results .kind")).to_have_text(["same file"])
    expect(page.locator("#results li").first.locator(".kind")).to_have_text("same file")
    page.locator("#results .more").first.click()
    expect(page.locator("#results li")).to_have_count(8)
    expect(page.locator("#results .kind")).to_have_count(0)


@pytest.mark.slow
@in_browser
@on_each_screen
def test_people_are_kept_and_left_out(page: Page, browser: Browser) -> None:
    random(page)
    names = page.locator("#results b").all_inner_texts()
    person = names[0]
    only = page.get_by_role("button", name=f"Only {person}", exact=True)
    ground = "each => getComputedStyle(each).backgroundColor"
    before = only.evaluate(ground)
    only.focus()
    values = search(page, lambda: page.keyboard.press("Enter"))
    assert values["where"] == f'person="{person.replace(" ", "_")}"'
    expect(only).to_have_attribute("aria-pressed", "true")
    expect(only).to_be_focused()
    assert only.evaluate(ground) != before  # it looks pressed
    expect(page.locator("#results b")).to_have_text([person] * names.count(person))
    url = page.url
    for other in opened(browser, url):
        expect(other.locator("#results b")).to_have_text([person] * names.count(person))
        expect(other.get_by_role("button", name=f"Only {person}", exact=True)).to_have_attribute(
            "aria-pressed", "true"
        )
    left_out = page.get_by_role("button", name=f"Not {person}", exact=True)
    assert search(page, left_out.click)["where"] == f'person!="{person.replace(" ", "_")}"'
    expect(page.locator("#results b")).to_have_text([name for name in names if name != person])
    page.go_back()
    expect(page.locator("#results b")).to_have_text([person] * names.count(person))
    page.get_by_role("button", name="Remove the filters").click()
    expect(page.locator("#results b")).to_have_text(names)


@pytest.mark.slow
@in_browser
def test_the_best_of_each_person_is_the_default_where_people_are_many(page: Page) -> None:
    random(page)
    expect(page.get_by_label("Only the best of each person")).not_to_be_checked()
    people = [{"value": f"Person {number}", "count": 2} for number in range(13)]
    page.route("**/api/v1/collections/*", lambda route: route.fulfill(json={"people": people, "fields": []}))
    page.reload()
    page.wait_for_selector("body[data-ready=true]")
    expect(page.get_by_label("Only the best of each person")).to_be_checked()
    expect(page.locator("#results li")).to_have_count(3)
    expect(page.locator("#verdict")).to_contain_text("the best of each person")
    values = search(page, page.get_by_label("Only the best of each person").uncheck)
    assert "group_by" not in values
    expect(page.locator("#results li")).to_have_count(8)
    assert "each=0" in page.url


@pytest.mark.slow
@in_browser
def test_numbers_are_filtered_by_range(page: Page, browser: Browser) -> None:
    page.select_option("#collection", "rated")
    page.set_input_files("#file", files=chosen(photograph(4)))
    expect(page.locator("#results li")).to_have_count(9)
    start = page.get_by_role("spinbutton", name="Smiling from")
    expect(start).to_have_attribute("placeholder", "-1.5")
    start.fill("-0.5")
    end = page.get_by_role("spinbutton", name="Smiling to")
    end.focus()
    expect(page.locator("#results li")).to_have_count(6)
    expect(end).to_be_focused()
    end.fill("0")
    end.press("Enter")
    expect(page.locator("#results li")).to_have_count(3)
    page.locator("#results .more").first.click()
    expect(page.locator("#results li")).to_have_count(2)
    for other in opened(browser, page.url):
        expect(other.get_by_role("spinbutton", name="Smiling from")).to_have_value("-0.5")
        expect(other.locator("#results li")).to_have_count(2)


@pytest.mark.slow
@in_browser
def test_fields_are_known_from_the_collection(page: Page) -> None:
    field = {"name": "Smiling", "kind": "number", "min": -9, "max": 9}
    text = {"name": "path", "kind": "text", "values": [{"value": "Hypatia/0.jpg", "count": 1}]}
    info = {"sample": [], "fields": [field, text], "people": [{"value": "Hypatia", "count": 3}]}
    page.route("**/api/v1/collections/*", lambda route: route.fulfill(json=info))
    page.reload()
    page.wait_for_selector("body[data-ready=true]")
    page.select_option("#collection", "rated")
    expect(page.get_by_role("spinbutton", name="Smiling to")).to_have_attribute("placeholder", "9")
    random(page)
    choice = page.get_by_role("combobox", name="path")
    values = search(page, lambda: choice.select_option("Hypatia/0.jpg"))
    assert values["where"] == 'path="Hypatia/0.jpg"'


@pytest.mark.slow
@in_browser
def test_more_results_are_shown(page: Page) -> None:
    page.get_by_label("Results on a page").select_option("6")
    page.set_input_files("#file", files=chosen(photograph(4)))
    expect(page.locator("#results li")).to_have_count(6)
    first = page.locator("#results b").all_inner_texts()
    page.locator("#results li").first.evaluate("card => (card.dataset.kept = 1)")
    more = page.get_by_role("button", name="Show more")
    more.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#results li")).to_have_count(9)
    assert page.locator("#results b").all_inner_texts()[:6] == first
    expect(page.locator("#results li[data-kept]")).to_have_count(1)  # it stayed
    expect(more).to_be_hidden()
    expect(page.locator("#results li").nth(6).locator(".whole")).to_be_focused()
    expect(page.locator("#verdict")).to_contain_text("the 9 most similar")


@pytest.mark.slow
@in_browser
def test_more_results_start_after_the_first(page: Page) -> None:
    page.get_by_label("Results on a page").select_option("6")
    random(page)
    expect(page.locator("#results li")).to_have_count(6)
    values = search(page, page.get_by_role("button", name="Show more").click)
    assert (values["offset"], values["k"]) == (6, 6)
    expect(page.locator("#results li")).to_have_count(8)


@pytest.mark.slow
@in_browser
@on_each_screen
def test_results_below_a_probability_are_hidden(page: Page, browser: Browser) -> None:
    def judge(answer: Json) -> None:
        for number, result in enumerate(answer["results"]):
            result["probability"] = 0.9 - 0.1 * number

    expect(page.get_by_role("slider", name="Hide below")).to_be_hidden()
    changing(page, judge)
    random(page)
    page.get_by_role("slider", name="Hide below").fill("65")
    expect(page.locator("#results li:visible")).to_have_count(3)
    expect(page.locator("#hidden-count")).to_have_text("5 of 8 results hidden")
    page.get_by_role("slider", name="Hide below").blur()
    assert "least=65" in page.url


@in_browser
def test_the_dialog_leads_through_the_results(page: Page) -> None:
    random(page)
    names = page.locator("#results b").all_inner_texts()
    page.locator("#results .whole").nth(1).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=names[1])
    expect(dialog).to_be_visible()
    assert drawn_width(page, "#large-image") == 128
    score = page.locator("#results .score").nth(1).inner_text()
    expect(page.locator("#large-facts")).to_contain_text(f"Score{score}")
    expect(page.locator("#large-facts")).to_contain_text("Modified")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#large-place")).to_have_text("3 of 8")
    expect(page.locator("#large-name")).to_have_text(names[2])
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#large-place")).to_have_text("8 of 8")
    path = page.locator("#large-facts dd").filter(has_text=".jpg").first.inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy path").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == path
    expect(page.get_by_role("link", name="Open in full")).to_have_attribute("target", "_blank")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save").click()
    assert download.value.suggested_filename == Path(path).name
    values = search(page, page.locator("#large-search").click)
    assert values["item"]
    expect(page.locator("#large")).to_be_hidden()
    expect(page.locator("#query-name")).to_have_text(names[-1])


@pytest.mark.slow
@in_browser
@on_each_screen
def test_a_generated_image_is_searched_with(page: Page) -> None:
    page.get_by_role("tab", name="Generate").click()
    page.fill("#generate-n", "3")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_role("button", name="Show in full: image 2").first.click()
    expect(page.locator("#large-place")).to_have_text("2 of 3")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save").click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    page.get_by_role("button", name="Search with this image").click()
    expect(page.locator("#results li")).to_have_count(9)
    expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
    square = page.get_by_role("button", name="A square", exact=True)
    expect(square).to_have_attribute("aria-pressed", "true")  # all of it
    page.get_by_role("button", name="Show in full: The query as the model sees it").click()
    page.get_by_role("button", name="Search with this image").click()
    name = re.compile("^image-2-class-.-as-the-model-sees-it.png$")
    expect(page.locator("#query-name")).to_have_text(name)


@pytest.mark.slow
@in_browser
@on_each_screen
def test_a_reconstruction_is_searched_with(page: Page) -> None:
    page.get_by_role("tab", name="Reconstruct").click()
    page.select_option("#reconstruct-model", "tiny")
    page.set_input_files("#reconstruct-file", files=chosen(photograph(4)))
    page.get_by_role("button", name="Show in full").click()
    expect(page.locator("#large-facts")).to_contain_text("PSNR")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Search with the reconstruction").click()
    expect(page.locator("#results li")).to_have_count(9)
    expect(page.locator("#results b").first).to_have_text("Émilie du Châtelet")
