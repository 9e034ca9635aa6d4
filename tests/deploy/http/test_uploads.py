"""Base64 in all forms that programs write."""

import base64
import textwrap
from collections.abc import Callable

import pytest

from lookalike.deploy.http.uploads import decode_base64

DATA = bytes(range(256)) + b"\xfb\xff\xbf\xfe"  # with both characters in which the alphabets differ
FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "data URI": lambda text: f"data:image/png;base64,{text}",
    "data URI with a parameter": lambda text: f"DATA:image/svg+xml;charset=utf-8;base64,{text}",
    "data URI without a type": lambda text: f"data:;base64,{text}",
    "lines": lambda text: "\r\n".join(textwrap.wrap(text, 76)) + "\n",
    "URL-safe": lambda text: text.replace("+", "-").replace("/", "_"),
    "without padding": lambda text: text.rstrip("="),
    "spaces": lambda text: f" {text}\t",
}


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_every_form_of_base64_is_read(first: str, second: str) -> None:
    if "data" in first and "data" in second:
        return
    inner, outer = sorted((first, second), key=lambda name: "data" in name)
    for length in range(250, len(DATA) + 1):
        text = base64.b64encode(DATA[:length]).decode()
        assert decode_base64(FORMS[outer](FORMS[inner](text))) == DATA[:length]


@pytest.mark.parametrize(
    "text",
    [
        "%",
        "AAAAA",
        "A===A",
        "AA=A",
        "data:image/png,AAAA",
        "data:image/png;base64AAAA",
        "é",
        "AAA\x00A",
        "\U0001d7d8AAA",
    ],
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not Base64"):
        decode_base64(text)
