"""A real browser: Debian's Chromium without a window. It is found as chromium or in CHROMIUM. Not a test."""

import os
import shutil
from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, FilePayload, Page, sync_playwright

CHROMIUM: Final = os.environ.get("CHROMIUM") or shutil.which("chromium")
CARRY: Final = """([bytes, kind]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "me.jpg", {type: "image/jpeg"}));
  const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
                                 : new DragEvent("drop", {dataTransfer: data, bubbles: true});
  const place = document.querySelector("[role=tabpanel]:not([hidden]) .drop");
  (kind === "paste" ? document : place).dispatchEvent(event);
}"""
"""Script: drop or paste a picture, given its bytes and which."""

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium; apt-get install chromium")


def launched() -> Iterator[Browser]:
    """A browser, until the fixture that yields from this ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """The page, opened; in the end nothing was wrong with it."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.goto(address)
    page.wait_for_selector("body[data-ready=true]")
    yield page
    context.close()
    told = [line for line in wrong if "Failed to load resource" not in line]  # refusals that we ask for
    assert told == []


def chosen(data: bytes, name: str = "me.jpg") -> list[FilePayload]:
    """A file as one picks it."""
    return [{"name": name, "mimeType": "image/jpeg", "buffer": data}]


def drawn_width(page: Page, selector: str) -> int:
    """Return how wide a picture is in itself, once drawn; our policy forbids `wait_for_function` its eval."""
    width: int = page.locator(selector).evaluate(
        """async image => {
          image.loading = "eager";
          while (!image.complete || !image.naturalWidth) { await new Promise(go => setTimeout(go, 20)); }
          return image.naturalWidth;
        }"""
    )
    return width


def contrast(page: Page, selector: str) -> float:
    """Return the contrast of an element's text with what lies behind it (WCAG 2.2, 1.4.3)."""
    text, ground = page.locator(selector).first.evaluate(
        """element => {
          const paint = document.createElement("canvas").getContext("2d");
          const rgba = colour => {
            paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
            return [...paint.getImageData(0, 0, 1, 1).data];
          };
          let behind = element, ground = [0, 0, 0, 0];
          while (behind && ground[3] < 255) {
            ground = rgba(getComputedStyle(behind).backgroundColor); behind = behind.parentElement;
          }
          return [rgba(getComputedStyle(element).color), ground];
        }"""
    )
    light, dark = sorted((luminance(colour) for colour in (text, ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[int]) -> float:
    parts = [value / 255 for value in colour[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
