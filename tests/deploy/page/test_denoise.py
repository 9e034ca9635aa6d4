"""The page's view that cleans, and what is done to queries first, in a real browser with shipped models."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from lookalike.encoder.images import encode_png
from tests.deploy.http.test_denoise import noisy
from tests.fixtures.browser import CARRY, chosen, contrast, drawn_width, in_browser, opened
from tests.fixtures.photos import NAME, cuttings, make_home, photograph
from tests.fixtures.service import API, client_of

NOISY: Final = encode_png(noisy(sigma=40))
SOURCE: Final = "image => image.src"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Photographs as `faces` sees them, all of it."""
    home = make_home(tmp_path_factory.mktemp("home"), Path("faces"))
    with client_of(home, Path("faces"), "denoise", "denoise-digits") as client:
        yield client


@pytest.fixture
def page(browser: Browser, client: httpx.Client) -> Iterator[Page]:
    yield from opened(browser, str(client.base_url))


@pytest.fixture
def denoised(page: Page) -> Page:
    """The page with a noisy image denoised."""
    page.get_by_role("tab", name="Denoise").click()
    page.set_input_files("#denoise-file", files=chosen(NOISY, "me.png"))
    expect(page.locator("#denoise-status")).to_contain_text("Denoised: estimated noise ")
    return page


def saved(page: Page) -> bytes:
    """The denoised image as one saves it."""
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the denoised image").click()
    assert download.value.suggested_filename == "me-denoised.png"
    return Path(download.value.path()).read_bytes()


def clipped(page: Page) -> str:
    path: str = page.locator("#denoise-after").evaluate("image => image.style.clipPath")
    return path


@pytest.mark.slow
@in_browser
def test_a_noisy_picture_is_cleaned_and_wiped(denoised: Page, client: httpx.Client) -> None:
    page = denoised
    found = re.search(r"estimated noise (\d+) of 255", page.locator("#denoise-status").inner_text())
    assert found
    assert 34 <= int(found[1]) <= 46
    assert drawn_width(page, "#denoise-after") == drawn_width(page, "#denoise-wipe img >> nth=0") == 128
    alone = client.post(f"{API}/denoise", files={"image": NOISY}, headers={"Accept": "image/png"})
    assert saved(page) == alone.content
    made, clean = np.asarray(Image.open(io.BytesIO(alone.content))).astype(float), cuttings()[4].astype(float)
    assert (made - clean).std() < (noisy(sigma=40) - clean).std() / 2
    wipe = page.get_by_role("slider", name="Before and after")
    wipe.fill("80")
    assert clipped(page) == "inset(0px 0px 0px 80%)"
    wipe.press("ArrowLeft")
    assert clipped(page) == "inset(0px 0px 0px 79%)"
    assert wipe.get_attribute("aria-valuetext") == "before: 79 %, after: 21 %"
    box = page.locator("#denoise-wipe").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 60)
    page.mouse.up()
    assert clipped(page) == "inset(0px 0px 0px 25%)"
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)  # let go: it stays
    assert wipe.input_value() == "25"


@pytest.mark.slow
@in_browser
def test_noise_and_strength_are_chosen_and_kept_in_the_address(denoised: Page, client: httpx.Client) -> None:
    page = denoised
    expect(page.get_by_label("Standard deviation, of 255")).to_be_hidden()
    page.get_by_role("combobox", name=re.compile("^Noise")).select_option(label="set by hand")
    page.get_by_label("Standard deviation, of 255").fill("60")
    page.get_by_role("slider", name=re.compile("Strength")).fill("0.5")
    expect(page.locator("#denoise-status")).to_have_text("Denoised: noise 60 of 255, as given, strength 50 %")
    asked = {"sigma": "60", "strength": "0.5"}
    alone = client.post(f"{API}/denoise", data=asked, files={"image": NOISY}, headers={"Accept": "image/png"})
    assert saved(page) == alone.content
    address = httpx.URL(page.url.replace("#", "?"))
    assert dict(address.params) == {"view": "denoise", "model": "denoise", **asked}
    page.reload()
    page.wait_for_selector("body[data-ready=true]")
    expect(page.get_by_label("Standard deviation, of 255")).to_have_value("60")
    expect(page.locator("#denoise-strength-value")).to_have_text("50 %")
    expect(page.locator("#denoised")).to_be_hidden()  # a picture of one's own is in no address
    page.get_by_label("Standard deviation, of 255").fill("90")  # more than the denoiser knows
    page.set_input_files("#denoise-file", files=chosen(NOISY))
    expect(page.get_by_role("alert")).to_contain_text("denoises sigma 0 to 75, not 90")
    page.get_by_role("combobox", name=re.compile("^Noise")).select_option(label="estimated")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#denoise-status")).to_contain_text("strength 50 %")
    page.get_by_role("slider", name=re.compile("Strength")).fill("2")  # as much as the API takes
    expect(page.locator("#denoise-strength-value")).to_have_text("200 %")
    expect(page.locator("#denoise-status")).to_have_text(
        re.compile(r"^Denoised: estimated .*, strength 200 %$")
    )
    more = client.post(
        f"{API}/denoise", data={"strength": "2"}, files={"image": NOISY}, headers={"Accept": "image/png"}
    )
    assert saved(page) == more.content


@pytest.mark.slow
@in_browser
def test_what_is_clean_odd_or_no_picture_is_told(denoised: Page) -> None:
    page = denoised
    page.set_input_files("#denoise-file", files=chosen(photograph(4)))
    expect(page.locator("#denoise-status")).to_contain_text("Unchanged, hardly any noise: estimated noise ")
    page.set_input_files("#denoise-file", files=chosen(b"no"))
    expect(page.get_by_role("alert")).to_contain_text("not an image")
    expect(page.locator("#denoised")).to_be_hidden()
    out = io.BytesIO()
    Image.fromarray(noisy()).save(out, "TIFF")  # which browsers do not show
    page.set_input_files("#denoise-file", files=chosen(out.getvalue()))
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#denoise-wipe")).to_have_class("wipe alone")
    assert clipped(page) == "inset(0px 0px 0px 0%)"
    expect(page.get_by_role("slider", name="Before and after")).to_be_disabled()


@pytest.mark.slow
@in_browser
def test_pictures_are_dropped_and_pasted_into_the_view_that_is_open(page: Page) -> None:
    page.get_by_role("tab", name="Denoise").click()
    for kind, data, said in (("drop", NOISY, "Denoised"), ("paste", photograph(4), "Unchanged")):
        page.evaluate(CARRY, [list(data), kind])
        expect(page.locator("#denoise-status")).to_contain_text(said)
    expect(page.locator("#query")).to_be_hidden()
    page.get_by_role("tab", name="Generate").click()
    page.evaluate(CARRY, [list(photograph(4)), "paste"])
    expect(page.locator("#results li").first).to_be_visible()


@pytest.mark.slow
@in_browser
def test_a_slider_draws_the_face_and_searches_with_it(
    page: Page, browser: Browser, client: httpx.Client
) -> None:
    page.set_input_files("#file", files=chosen(photograph(4)))
    page.locator("#results li").first.get_by_role("button", name="More like this").click()
    expect(page.locator("#results li")).to_have_count(8)
    expect(page.locator("#edited")).to_be_hidden()
    slider = page.get_by_role("slider", name="Smiling")
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "+4 standard deviations")
    expect(page.locator("#changed-caption")).to_have_text("Smiling +4")
    assert drawn_width(page, "#changed") == drawn_width(page, "#seen") == 64
    expect(page).to_have_url(re.compile("add=Smiling%3D4"))
    item = httpx.URL(page.url.replace("#", "?")).params["item"]
    values: dict[str, Any] = {"collection": NAME, "item": item, "add": ["Smiling=4"]}
    (answer,) = client.post(f"{API}/search", json=values).json()["answers"]
    scores = [f"{each['score']:.3f}" for each in answer["results"]]
    first = page.locator("#results .score").first
    expect(first).to_contain_text(scores[0])
    assert [text[: len(scores[0])] for text in page.locator("#results .score").all_inner_texts()] == scores
    edit = client.post(f"{API}/edit", json={**values, "model": "faces", "steps": "0:1:2"}).json()["rows"][0]
    assert page.locator("#seen").evaluate(SOURCE) == f"data:image/png;base64,{edit[0]}"
    assert page.locator("#changed").evaluate(SOURCE) == f"data:image/png;base64,{edit[1]}"
    for other in opened(browser, page.url):  # the link shows the same
        expect(other.get_by_role("slider", name="Smiling")).to_have_value("4")
        expect(other.locator("#changed-caption")).to_have_text("Smiling +4")
        expect(other.locator("#results .score").first).to_contain_text(scores[0])
    page.go_back()  # before the slider was moved
    expect(slider).to_have_value("0")
    expect(page.locator("#edited")).to_be_hidden()
    expect(first).not_to_contain_text(scores[0])
    page.go_forward()
    expect(first).to_contain_text(scores[0])
    page.get_by_role("button", name="Reset").click()
    expect(slider).to_have_value("0")
    expect(page.locator("#edited")).to_be_hidden()
    expect(first).not_to_contain_text(scores[0])


@pytest.mark.slow
@in_browser
def test_a_noisy_query_is_cleaned_and_edited(page: Page, client: httpx.Client) -> None:
    page.set_input_files("#file", files=chosen(NOISY))
    expect(page.locator("#verdict")).to_contain_text("most similar")
    expect(page.locator("#verdict")).not_to_contain_text("query denoised")
    page.get_by_label("Denoise the query first").check()
    expect(page.locator("#verdict")).to_contain_text("query denoised (estimated noise ")
    expect(page.locator("#seen")).to_be_visible()
    expect(page.locator("#changed")).to_be_hidden()
    page.get_by_role("slider", name="Male").fill("-2")
    expect(page.locator("#changed-caption")).to_have_text("Male \N{MINUS SIGN}2")
    expect(page).to_have_url(re.compile("add=Male%3D-2&denoise=1$"))
    form = {"collection": NAME, "denoise": "true", "add": "Male=-2"}
    (answer,) = client.post(f"{API}/search", data=form, files={"image": NOISY}).json()["answers"]
    expect(page.locator("#results .score").first).to_contain_text(f"{answer['results'][0]['score']:.3f}")
    plain = client.post(f"{API}/edit", data={"add": "Male=0"}, files={"image": NOISY}).json()["rows"][0][0]
    assert page.locator("#seen").evaluate(SOURCE) != f"data:image/png;base64,{plain}"
    page.get_by_label("Denoise the query first").uncheck()
    expect(page.locator("#verdict")).not_to_contain_text("query denoised")
    expect(page).not_to_have_url(re.compile("denoise="))


@pytest.mark.slow
@in_browser
def test_what_is_not_served_is_not_offered(browser: Browser, tiny_model: Path, tmp_path: Path) -> None:
    with client_of(make_home(tmp_path, tiny_model), tiny_model) as client:
        for page in opened(browser, str(client.base_url)):
            expect(page.locator("#sliders")).to_be_hidden()  # the model has no attributes
            expect(page.get_by_label("Denoise the query first")).to_be_hidden()
            page.get_by_role("tab", name="Denoise").click()
            expect(page.locator("#denoise-empty")).to_contain_text("start the service with --model denoise")
            expect(page.locator("#denoise-file")).to_be_disabled()


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Browser, client: httpx.Client, width: int, scheme: Any) -> None:
    size = {"width": width, "height": 740}
    for page in opened(browser, str(client.base_url), viewport=size, color_scheme=scheme):
        page.set_input_files("#file", files=chosen(NOISY))
        if width == 360:
            page.get_by_text("Options", exact=True).click()  # on a phone they are folded
        page.get_by_role("slider", name="Smiling").fill("3")
        expect(page.locator("#changed-caption")).to_have_text("Smiling +3")
        found = ["legend", "#sliders label", "#changed-caption", "#denoise-first", "#sliders-reset"]
        check(page, width, found, f"edited-{width}-{scheme}.png")
        page.get_by_role("tab", name="Denoise").click()
        page.set_input_files("#denoise-file", files=chosen(NOISY))
        expect(page.locator("#denoise-status")).to_contain_text("Denoised")
        found = ["#denoise-status", "#denoise .controls label", "#denoise .drop", "#denoise-save", ".wide"]
        check(page, width, found, f"denoise-{width}-{scheme}.png")


def check(page: Page, width: int, selectors: list[str], name: str) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in selectors:
        assert contrast(page, selector) >= 4.5, selector
    tabs = page.get_by_role("tab").evaluate_all("tabs => tabs.map(tab => tab.getBoundingClientRect().top)")
    assert len(set(tabs)) == 1  # in one row
    unnamed = page.locator("input:visible, select:visible").evaluate_all(
        "all => all.filter(each => ![...each.labels].some(label => label.textContent.trim()))"
    )
    assert unnamed == []
    if "SCREENSHOTS" in os.environ:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(os.environ["SCREENSHOTS"]) / name, full_page=True)
