"""A search with words on the page, where the model of the collection takes them; and duplicates folded."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

import lookalike as la
from tests.deploy.page.test_accessibility import Audit
from tests.deploy.page.test_results import random, search
from tests.fixtures.browser import SCREENS, chosen, in_browser, opened, shot
from tests.fixtures.photos import make_home, photograph
from tests.fixtures.service import client_of
from tests.fixtures.two_towers import make_two_towers, write_colors


@pytest.fixture(scope="module")
def words_address(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with colors, a collection of a model of two towers, and photos, of one without words."""
    home = make_home(tmp_path_factory.mktemp("words"), tiny_model)
    make_two_towers(home)
    write_colors(home / "colored")
    with la.open_store(str(home / ".lookalike")) as store:
        la.index(home / "colored", model=home / "colors", store=store, collection="colors")
    with client_of(home, tiny_model, home / "colors", "denoise") as client:
        yield str(client.base_url).rstrip("/")


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("screen", SCREENS)
def test_words_are_searched_with(
    browser: Browser, words_address: str, screen: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    for page in opened(browser, words_address, **screen):
        words = page.get_by_label("or words")
        page.select_option("#collection", "photos")
        expect(words).to_be_hidden()
        page.select_option("#collection", "colors")
        page.set_input_files("#file", files=chosen(photograph(4)))
        expect(page.locator("#results li")).to_have_count(8)
        words.fill("a red thing")
        values = search(page, partial(words.press, "Enter"))
        assert (values["text"], "item" in values) == ("a red thing", False)
        expect(page.locator("#results b").first).to_contain_text("red-")
        expect(page.locator("#part")).to_be_hidden()
        expect(words).to_have_value("a red thing")
        expect(page.locator("#share")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
        audit = Audit(page)
        audit.look("words")
        assert audit.wrong == []
        shot(page, f"words-{request.node.callspec.id}")
        for other in opened(browser, page.url, **screen):
            expect(other.locator("#results b").first).to_contain_text("red-")
            expect(other.get_by_label("or words")).to_have_value("a red thing")
        words.fill("blue")
        page.locator("#words-form button").click()
        expect(page.locator("#results b").first).to_contain_text("blue-")
        page.go_back()
        expect(page.locator("#results b").first).to_contain_text("red-")
        page.locator("#results .more").first.click()
        expect(page.locator("#part")).to_be_visible()
        expect(words).to_have_value("")
        page.go_back()
        expect(words).to_have_value("a red thing")
        page.select_option("#collection", "photos")
        expect(words).to_be_hidden()
        expect(page.locator("#results li")).to_have_count(0)


@pytest.mark.slow
@in_browser
def test_words_are_filtered_denoised_and_more_of_their_results_are_shown(
    browser: Browser, words_address: str
) -> None:
    for page in opened(browser, words_address):
        page.select_option("#collection", "colors")
        page.get_by_label("Results on a page").select_option("6")
        page.get_by_label("Denoise the query first").check()  # there is nothing to denoise in words
        page.get_by_label("or words").fill("green")
        page.locator("#words-form button").click()
        expect(page.locator("#results b").first).to_contain_text("green-")
        page.get_by_role("button", name="Show more").click()
        expect(page.locator("#results li")).to_have_count(8)


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("screen", SCREENS)
def test_duplicates_are_folded(browser: Browser, address: str, screen: dict[str, Any]) -> None:
    for page in opened(browser, address, **screen):
        random(page)
        page.locator("#options").evaluate("each => each.open = true")
        fold = page.get_by_label("Fold duplicates")
        assert search(page, fold.check)["fold_duplicates"]
        expect(page.locator("#verdict")).to_contain_text("duplicates folded")
        for other in opened(browser, page.url, **screen):
            expect(other.get_by_label("Fold duplicates", exact=True)).to_be_checked()
        values = search(page, page.get_by_label("Only the best of each person").check)
        assert (values["group_by"], "fold_duplicates" in values) == ("person", False)
        expect(fold).to_be_disabled()
        page.get_by_label("Only the best of each person").uncheck()
        expect(fold).to_be_enabled()
        fold.uncheck()
        expect(page.locator("#verdict")).not_to_contain_text("folded")
        assert "fold=" not in page.url
