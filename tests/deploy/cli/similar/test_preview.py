"""Pictures on terminals: which protocol, what is sent, and ``search --preview`` on a terminal of its own."""

import base64
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lookalike.deploy.cli.similar.preview import Protocol, protocol, sequences
from lookalike.encoder.images import decode_rgb
from tests.fixtures.command import lookalike
from tests.fixtures.photos import photograph

PLAIN = {"TERM": "xterm-256color"}
NOISE = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        (PLAIN | {"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        (PLAIN | {"TERM_PROGRAM": "ghostty"}, "kitty"),
        (PLAIN | {"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        (PLAIN | {"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        (PLAIN | {"TERM_PROGRAM": "mintty"}, "iterm2"),
        (PLAIN | {"LC_TERMINAL": "iTerm2"}, "iterm2"),
        (PLAIN | {"TERM_PROGRAM": "Apple_Terminal"}, None),
        (PLAIN, None),
        ({}, None),
        ({"TERM": "dumb", "TERM_PROGRAM": "iTerm.app"}, None),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
        (PLAIN | {"KITTY_WINDOW_ID": "1", "TMUX": "/run/tmux"}, None),
    ],
)
def test_the_protocol_is_that_of_the_terminal(
    environment: dict[str, str], expected: Protocol | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert protocol(environment) == expected
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert protocol(environment) is None


def of_kitty(text: str) -> tuple[list[str], bytes]:
    """The keys of each sequence, and the file that they hold together."""
    parts = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", text)
    assert all(len(part) <= 4096 for _, part in parts)
    return [keys for keys, _ in parts], base64.b64decode("".join(part for _, part in parts))


def of_iterm2(text: str) -> tuple[str, bytes]:
    (found,) = re.findall("\x1b]1337;File=([^:]*):([^\x07]*)\x07", text)
    return found[0], base64.b64decode(found[1])


def test_what_is_sent_is_the_picture_no_wider_than_the_terminal() -> None:
    keys, png = of_kitty(sequences(NOISE, "kitty", columns=80))
    assert np.array_equal(decode_rgb(png, name=""), NOISE)
    assert keys == ["a=T,f=100,c=10,m=1", *["m=1"] * (len(keys) - 2), "m=0"]
    assert of_kitty(sequences(NOISE, "kitty", columns=7))[0][0] == "a=T,f=100,c=7,m=1"
    assert of_kitty(sequences(NOISE[:2, :2], "kitty", columns=7))[0] == ["a=T,f=100,c=1,m=0"]
    keys2, png = of_iterm2(sequences(NOISE, "iterm2", columns=7))
    assert keys2 == f"inline=1;size={len(png)};width=7"
    assert np.array_equal(decode_rgb(png, name=""), NOISE)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "photos").mkdir()
    for number in range(3):
        (home / "photos" / f"{number}.jpg").write_bytes(photograph(number))
    assert lookalike("index", "photos", "--crop", "full", "-c", "family", cwd=home).returncode == 0
    return home


def on_a_terminal(home: Path, *words: str, **environment: str) -> str:
    """What a command writes on a terminal that is this."""
    reader, terminal = pty.openpty()
    command = [sys.executable, "-c", "from lookalike.deploy.cli.main import main; main()", *words]
    with subprocess.Popen(
        command, cwd=home, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "LOOKALIKE_STORE": ".lookalike", **environment},
    ) as process:  # fmt: skip
        os.close(terminal)
        shown = bytearray()
        try:
            while part := os.read(reader, 1 << 16):
                shown += part
        except OSError:  # the other end was closed
            pass
        os.close(reader)
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    return shown.decode()


def test_a_search_shows_its_sheet_on_the_terminal(home: Path) -> None:
    words = ("search", "photos/1.jpg", "--preview", "--sheet", "hits.png")
    shown = on_a_terminal(home, *words, TERM="xterm-kitty")
    sheet = decode_rgb((home / "hits.png").read_bytes(), name="")
    assert np.array_equal(decode_rgb(of_kitty(shown)[1], name=""), sheet)
    assert shown.index("score") < shown.index("\x1b_G")
    shown = on_a_terminal(home, *words[:3], TERM_PROGRAM="WezTerm")
    assert np.array_equal(decode_rgb(of_iterm2(shown)[1], name=""), sheet)


def test_where_nothing_can_be_shown_the_results_and_the_way_out_are(home: Path) -> None:
    done = lookalike("search", "photos/1.jpg", "--preview", cwd=home)
    assert done.returncode == 0
    assert "score" in done.stdout
    assert "\x1b" not in done.stdout
    assert "--preview shows pictures on the terminals kitty, Ghostty" in done.stderr
    done = lookalike("search", "photos/1.jpg", "--preview", "--json", cwd=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--preview does not work with --json" in done.stderr
