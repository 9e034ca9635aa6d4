"""The query on the page: its part, how it is sent, and the way back to it."""

import io
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FileChooser, Locator, Page, Route, expect
from playwright.sync_api import TimeoutError as Late

from lookalike.encoder.detect import INDEX_THRESHOLD, Faces
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from tests.fixtures.browser import chosen, drawn_width, in_browser, opened
from tests.fixtures.face_photos import group, write
from tests.fixtures.photos import NAME, cuttings, index, photograph, write_photos
from tests.fixtures.service import API, client_of


def jpeg(pixels: Any, *, turned: int = 1) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(pixels).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def spy(page: Page) -> None:
    """Note what the page sends: Chromium tells nobody the bodies of forms with files."""
    page.evaluate(
        """() => {
          window.sent = [];
          const send = window.fetch;
          window.fetch = (url, options = {}) => {
            const form = options.body instanceof FormData ? [...options.body] : [];
            const fields = Object.fromEntries(form.filter(([, value]) => typeof value === "string"));
            const bytes = form.reduce((sum, [, value]) => sum + (value.size || 0), 0);
            sent.push({url, fields, bytes});
            return send(url, options);
          };
        }"""
    )


def requests(page: Page) -> list[str]:
    """The paths of the API that are asked for from now on."""
    paths: list[str] = []
    page.on("request", lambda each: paths.append(httpx.URL(each.url).path))
    return paths


def poll(holds: Callable[[], bool]) -> None:
    """Wait until something holds; our policy forbids `wait_for_function` its eval."""
    due = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < due
        time.sleep(0.05)


def scores(page: Page) -> list[str]:
    return page.locator("#results .score").all_inner_texts()


def asked(page: Page, work: Callable[[], object]) -> dict[str, str]:
    """The fields of the search that something leads to."""
    with page.expect_request("**/api/v1/search"):
        work()
    fields: dict[str, str] = page.evaluate("sent.filter(each => each.url.endsWith('/search')).at(-1).fields")
    return fields


@in_browser
def test_a_square_is_moved_and_resized_with_the_keyboard(page: Page, address: str) -> None:
    spy(page)
    page.set_input_files("#file", files=chosen(photograph(4)))
    expect(page.locator("#results li")).to_have_count(9)
    assert drawn_width(page, "#seen") == 16  # as the tiny model sees it
    before = page.locator("#seen").get_attribute("src")
    choice = page.get_by_role("button", name="A square", exact=True)
    expect(page.get_by_role("button", name="As in the collection")).to_have_attribute("aria-pressed", "true")
    choice.focus()
    page.keyboard.press("Enter")
    square = page.get_by_role("button", name=re.compile("^The square that is used: 25 % from the left"))
    expect(square).to_be_focused()
    expect(choice).to_have_attribute("aria-pressed", "true")

    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "+", "+"):
        page.keyboard.press(key)
    crop = "0.175,0.2,0.55,0.55"
    last = "sent.filter(each => each.url.endsWith('/search')).at(-1).fields.crop"
    poll(lambda: page.evaluate(last) == crop)
    sent = {"collection": NAME, "k": "12", "crop": crop}
    files = {"image": photograph(4)}
    (answer,) = httpx.post(f"{address}{API}/search", data=sent, files=files).json()["answers"]
    expect(page.locator("#results .score").first).to_have_text(f"{answer['results'][0]['score']:.3f}")
    assert scores(page) == [f"{each['score']:.3f}" for each in answer["results"]]
    expect(page.locator("#seen")).not_to_have_attribute("src", before or "")
    page.keyboard.press("End")  # nothing else is taken
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#part .square")).to_have_attribute("aria-label", re.compile("45 % from the left"))


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("width", [390, 1440])
def test_a_square_is_dragged(browser: Browser, address: str, width: int) -> None:
    for page in opened(browser, address, viewport={"width": width, "height": 844}):
        spy(page)
        page.set_input_files("#file", files=chosen(photograph(4)))
        page.get_by_role("button", name="A square", exact=True).click()
        expect(page.locator("#part .square")).to_be_visible()
        for selector, to, crop in (
            ("#part .square", (0.5, 0.25), (0.25, 0.0, 0.5)),
            ("#part .corner", (1, 1), (0.25, 0, 0.75)),
        ):
            frame, box = (page.locator(each).bounding_box() for each in ("#part .query", selector))
            assert frame is not None
            assert box is not None
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.down()
            x, y = frame["x"] + to[0] * frame["width"], frame["y"] + to[1] * frame["height"]
            page.mouse.move(x, y, steps=4)
            values = [float(text) for text in asked(page, page.mouse.up)["crop"].split(",")]
            np.testing.assert_allclose(values, [*crop, crop[2]], atol=0.06)


@pytest.mark.slow
@in_browser
def test_a_large_photograph_is_turned_and_scaled_down_once(browser: Browser, address: str) -> None:
    rng = np.random.default_rng(0)
    pixels = np.asarray(Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8)).resize((6000, 4000)))
    photo = jpeg(pixels, turned=6)
    context = browser.new_context()
    context.add_init_script(
        "window.scalings = 0; const toBlob = HTMLCanvasElement.prototype.toBlob;"
        "HTMLCanvasElement.prototype.toBlob = function (...rest) { scalings++; toBlob.apply(this, rest); };"
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready=true]")
    spy(page)
    page.set_input_files("#file", files=chosen(photo))
    expect(page.locator("#results li")).to_have_count(9)
    page.get_by_role("button", name="A square", exact=True).click()
    for _ in range(5):
        page.keyboard.press("ArrowUp")
    expect(page.locator("#results li")).to_have_count(9)
    assert page.evaluate("toSend(searching.picture, {denoise: true}).size") == len(
        photo
    )  # it has other noise
    sizes = page.evaluate("sent.map(each => each.bytes)")
    assert 0 < max(sizes) < len(photo) / 3
    assert page.evaluate("scalings") == 1
    sides = page.locator("#query").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert sides == [853, 1280]  # upright
    context.close()


@in_browser
def test_back_restores_a_picture_of_ones_own_and_its_results(page: Page) -> None:
    page.set_input_files("#file", files=chosen(photograph(4)))
    expect(page.locator("#results li")).to_have_count(9)
    before = scores(page)
    more = page.locator("#results li").nth(2).get_by_role("button", name="More like this")
    more.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#results li")).to_have_count(8)
    expect(page.locator("#results li").nth(2).locator(".more")).to_be_focused()  # where it was
    paths = requests(page)
    page.go_back()
    expect(page.locator("#results li")).to_have_count(9)
    expect(page.locator("#query-name")).to_have_text("me.jpg")
    assert drawn_width(page, "#query") == 128
    assert scores(page) == before
    assert f"{API}/search" not in paths
    page.go_forward()
    expect(page.locator("#results li")).to_have_count(8)
    page.go_back()
    page.reload()
    expect(page.locator("#empty")).to_have_text(re.compile("choose it once more"))


@pytest.mark.slow
@in_browser
def test_the_same_file_is_chosen_twice(page: Page, home: Path) -> None:
    spy(page)
    for _ in range(2):
        asked(page, lambda: page.set_input_files("#file", home / "me.jpg"))
        expect(page.locator("#results li")).to_have_count(9)


@pytest.mark.slow
@in_browser
def test_a_wait_is_shown_and_cancelled(page: Page) -> None:
    held: list[Route] = []
    page.route("**/api/v1/search", lambda route: held.append(route))
    page.set_input_files("#file", files=chosen(photograph(4)))
    expect(page.locator("#waits")).to_contain_text("Searching…")
    expect(page.locator("#skeletons li")).to_have_count(12)
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Cancel: Searching…").click()
    expect(page.locator("#verdict")).to_have_text("Cancelled.")
    expect(page.locator("#skeletons")).to_be_hidden()
    expect(page.locator("#waits")).to_have_text("")
    expect(page.get_by_role("alert")).to_be_hidden()
    page.unroute("**/api/v1/search")
    page.set_input_files("#file", files=chosen(photograph(4)))
    expect(page.locator("#results li")).to_have_count(9)


@in_browser
def test_nothing_can_be_pressed_before_the_collections_are_there(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    held: list[Route] = []
    page.route("**/api/v1/collections", lambda route: held.append(route))
    page.goto(address)
    for selector in ("#random", "#file", "#collection", "#denoise-file", "#reconstruct-file"):
        expect(page.locator(selector)).to_be_disabled()
    expect(page.locator("#waits")).to_contain_text("Loading the collections…")
    held[0].continue_()
    page.wait_for_selector("body[data-ready=true]")
    for selector in ("#random", "#file", "#collection", "#reconstruct-file"):
        expect(page.locator(selector)).to_be_enabled()
    context.close()


@pytest.mark.slow
@in_browser
def test_a_file_that_is_gone_leaves_no_broken_image_and_a_message_ends_with_its_view(page: Page) -> None:
    page.route("**/thumbnail?*", lambda route: route.fulfill(status=410, json={"detail": "the file is gone"}))
    page.get_by_role("button", name="Random image").click()
    expect(page.locator("#results li")).to_have_count(8)
    expect(page.locator("#results .missing")).to_have_text(["Not shown: the file is gone"] * 8)
    broken = "each => each.checkVisibility({visibilityProperty: true}) && !each.naturalWidth"
    assert page.locator("img").evaluate_all(f"all => all.filter({broken}).length") == 0
    page.set_input_files("#file", files=chosen(b"no"))
    expect(page.get_by_role("alert")).to_contain_text("not an image")
    page.get_by_role("tab", name="Generate").click()
    expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("helps", [True, False])
def test_a_link_is_copied_on_plain_http(browser: Browser, address: str, helps: bool) -> None:
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
        f"document.execCommand = () => {str(helps).lower()};"
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready=true]")
    page.get_by_role("button", name="Random image").click()
    button = page.locator("#share")
    button.click()
    if helps:
        expect(button).to_have_text("Copied")
        expect(button).to_be_focused()
        expect(page.locator(".copy")).to_have_count(0)
    else:
        expect(page.locator(".copy")).to_be_focused()
        selected = page.locator(".copy").evaluate("field => field.value.slice(0, field.selectionEnd)")
        assert selected == page.url
    context.close()


@pytest.mark.slow
@in_browser
def test_it_works_below_a_root_path(browser: Browser, address: str) -> None:
    def forward(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace("/lookalike", "")))

    context = browser.new_context()
    context.route(f"{address}/**", lambda route: route.fulfill(status=500))
    context.route(f"{address}/lookalike/**", forward)
    page = context.new_page()
    page.goto(f"{address}/lookalike/")
    page.wait_for_selector("body[data-ready=true]")
    page.get_by_role("button", name="Random image").click()
    expect(page.locator("#results li")).to_have_count(8)
    assert drawn_width(page, "#results li:first-child img") == 256
    context.close()


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_result_is_on_the_first_screen_of_a_phone(
    browser: Browser, address: str, scheme: Any
) -> None:
    phone = {"width": 390, "height": 844}
    for page in opened(browser, address, viewport=phone, color_scheme=scheme, has_touch=True):
        page.set_input_files("#file", files=chosen(photograph(4)))
        box = page.locator("#results li").first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 844
        expect(page.get_by_role("combobox", name="Results on a page")).to_be_hidden()
        page.get_by_text("Options", exact=True).click()
        expect(page.get_by_role("combobox", name="Results on a page")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with squares of a portrait in photos, and the faces of two photographs in people."""
    home = tmp_path_factory.mktemp("faces")
    write_photos(home / "photos")
    for count in (1, 2):
        write(home / "groups" / f"{count}.jpg", group(count))
    model = Model.open(Path("faces"))
    with open_store(str(home / ".lookalike")) as store:
        index(store, model, home / "photos")
        index(store, model, home / "groups", name="people", crop=Faces(INDEX_THRESHOLD))
    with client_of(home, Path("faces")) as client:
        yield str(client.base_url).rstrip("/")


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("collection", ["photos", "people"])
def test_faces_are_chosen_with_the_keyboard(
    browser: Browser, faces: str, collection: str, width: int
) -> None:
    photo = np.pad(group(3), ((200, 300), (0, 500), (0, 0)))
    for page in opened(browser, faces, viewport={"width": width, "height": 844}):
        spy(page)
        page.select_option("#collection", collection)
        first = asked(page, partial(page.set_input_files, "#file", files=chosen(jpeg(photo))))
        assert first.get("faces") == (None if collection == "people" else "true")
        boxes = page.get_by_role("group", name="Faces found in the image").get_by_role("button")
        expect(boxes).to_have_count(3)
        pressed = page.locator(".face[aria-pressed=true]")
        expect(pressed).to_have_count(1)  # the main one
        third = page.get_by_role("button", name="Face 3 of 3, from the left")
        third.focus()
        fields = asked(page, partial(page.keyboard.press, "Enter"))
        assert fields["face"] == "3"
        assert not {"crop", "faces"} & fields.keys()
        expect(third).to_have_attribute("aria-pressed", "true")
        expect(third).to_be_focused()
        expect(pressed).to_have_count(1)
        assert drawn_width(page, "#seen") == 64
        seen = {"model": "faces", "add": "Smiling=0", "face": "3"}
        sent = httpx.post(f"{faces}{API}/edit", data=seen, files={"image": jpeg(photo)}).json()
        expect(page.locator("#seen")).to_have_attribute("src", f"data:image/png;base64,{sent['rows'][0][0]}")
        spot, frame = third.bounding_box(), page.locator("#query").bounding_box()
        assert spot is not None
        assert frame is not None
        middle = (spot["x"] + spot["width"] / 2 - frame["x"]) / frame["width"]
        assert middle == pytest.approx((2.5 * 256) / (3 * 256 + 500), abs=0.05)


@pytest.mark.slow
@in_browser
def test_the_box_of_a_face_that_is_cut_off_stays_in_the_picture(browser: Browser, faces: str) -> None:
    for page in opened(browser, faces):
        page.set_input_files("#file", files=chosen(jpeg(group()[:150])))  # the box ends at 1.13 of the height
        face = page.locator(".face")
        expect(face).to_have_count(1)
        box, frame = face.bounding_box(), page.locator("#query").bounding_box()
        assert box is not None
        assert frame is not None
        assert box["y"] + box["height"] <= frame["y"] + frame["height"] + 1
        assert box["y"] > frame["y"]


def refuse(route: Route) -> None:
    """Answer as a service without the extra `faces` does."""
    route.fulfill(status=501, json={"code": "extra-missing", "detail": "faces are not found here"})


@pytest.mark.slow
@in_browser
def test_without_the_extra_a_square_is_offered(browser: Browser, faces: str) -> None:
    for page in opened(browser, faces):
        paths = requests(page)
        page.route("**/api/v1/faces", refuse)
        page.select_option("#collection", NAME)
        for number in (4, 5):
            page.set_input_files("#file", files=chosen(photograph(number)))
            expect(page.locator("#results li")).to_have_count(9)
        assert paths.count(f"{API}/faces") == 1
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.locator(".face")).to_have_count(0)
        expect(page.get_by_role("button", name="A square", exact=True)).to_be_visible()


@pytest.mark.slow
@in_browser
def test_two_requests_lead_to_the_first_results(browser: Browser, faces: str) -> None:
    for page in opened(browser, faces):
        page.select_option("#collection", "photos")
        page.wait_for_load_state("networkidle")
        paths = requests(page)
        page.set_input_files("#file", files=chosen(jpeg(cuttings()[4])))
        expect(page.locator("#results li")).to_have_count(9)
        before = paths[: paths.index(f"{API}/search") + 1]
        assert [each for each in before if each.startswith(API)] == [f"{API}/faces", f"{API}/search"]


@pytest.mark.slow
@in_browser
def test_the_face_that_is_reconstructed_is_the_pressed_one(browser: Browser, faces: str) -> None:
    photo = jpeg(np.pad(group(3), ((200, 300), (0, 500), (0, 0))))
    (told,) = httpx.post(f"{faces}{API}/faces", files={"image": photo}).json()["images"]
    for page in opened(browser, faces):
        page.get_by_role("tab", name="Reconstruct").click()
        page.set_input_files("#reconstruct-file", files=chosen(photo))
        expect(page.locator("#wipe")).to_be_visible()
        boxes = page.get_by_role("group", name="Faces found in the image").get_by_role("button")
        expect(boxes).to_have_count(3)
        pressed = page.locator(".face[aria-pressed=true]")
        expect(pressed).to_have_count(1)
        expect(pressed).to_have_attribute("aria-label", f"Face {told['main']} of 3, from the left")
        spy(page)
        with page.expect_response("**/api/v1/reconstruct"):
            boxes.nth(told["main"] % 3).press("Enter")
        assert page.evaluate("sent[0].fields") == {"model": "faces", "face": str(told["main"] % 3 + 1)}
        expect(pressed).to_have_attribute("aria-label", f"Face {told['main'] % 3 + 1} of 3, from the left")


@pytest.mark.slow
@in_browser
def test_a_collection_of_faces_counts_faces(browser: Browser, faces: str) -> None:
    for page in opened(browser, faces):
        page.get_by_role("tab", name="Manage").click()
        rows = page.locator("#collection-list .hint")
        expect(rows).to_have_text([re.compile("^3 faces · "), re.compile("^9 images · ")])


def tab_to(page: Page, target: Locator, *, back: bool = False) -> None:
    """Press Tab until an element has the focus, as someone without a mouse does."""
    for _ in range(80):
        if target.evaluate("each => each === document.activeElement"):
            return
        page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"{target} is not reached")


def chosen_by_key(page: Page) -> FileChooser:
    """Press Enter on the focused file field, again where headless Chromium opens no chooser, as happens."""
    for _ in range(10):
        try:
            with page.expect_file_chooser(timeout=2000) as chooser:
                page.keyboard.press("Enter")
        except Late:
            continue
        return chooser.value
    raise AssertionError("no file chooser opens")


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("width", [390, 1440])
def test_from_a_picture_to_a_filtered_result_with_the_keyboard_alone(
    browser: Browser, faces: str, width: int
) -> None:
    for page in opened(browser, faces, viewport={"width": width, "height": 844}):
        press = page.keyboard.press
        tab_to(page, page.locator("#collection"))
        page.keyboard.type("photos")
        expect(page.locator("#collection")).to_have_value("photos")
        tab_to(page, page.locator("#file"))
        chosen_by_key(page).set_files(chosen(jpeg(np.pad(group(3), ((200, 300), (0, 500), (0, 0))))))
        expect(page.locator("#results li")).to_have_count(9)
        third = page.get_by_role("button", name="Face 3 of 3, from the left")
        tab_to(page, third, back=True)
        with page.expect_response("**/api/v1/search"):
            press("Enter")
        expect(third).to_have_attribute("aria-pressed", "true")
        expect(third).to_be_focused()

        cards = page.locator("#results .whole")
        tab_to(page, cards.nth(1))
        press("Enter")
        dialog, place = page.get_by_role("dialog"), page.locator("#large-place")
        expect(dialog).to_be_visible()
        expect(place).to_have_text("2 of 9")
        press("ArrowRight")
        expect(place).to_have_text("3 of 9")
        press("ArrowLeft")
        press("ArrowLeft")
        expect(place).to_have_text("1 of 9")
        press("Escape")
        expect(dialog).to_be_hidden()
        expect(cards.nth(1)).to_be_focused()

        only = page.get_by_role("button", name="Only Hypatia")
        tab_to(page, only, back=True)
        press("Space")
        expect(page.locator("#results li")).to_have_count(3)
        expect(only).to_be_focused()
        expect(only).to_have_attribute("aria-pressed", "true")
        tab_to(page, page.get_by_role("button", name="Remove the filters"))
        press("Enter")
        expect(page.locator("#results li")).to_have_count(9)
        more = page.locator("#results .more").first
        tab_to(page, more)
        press("Enter")
        expect(page.locator("#results li")).to_have_count(8)
        assert "item=" in page.url
