"""The README: short, with what a stranger looks for."""

from typing import Final

from tests.fixtures.pages import TEXTS, blocks, commands, console_lines

README: Final = TEXTS["README.md"]
FIRST_SCREEN: Final = 30
"""Lines that are seen without scrolling."""


def test_the_readme_is_short_and_shows_an_image_first() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert any(line.startswith("![") for line in lines[:15])
    assert blocks("text", README), "the quickstart shows its output"


def test_the_readme_states_the_limits_and_what_is_owed() -> None:
    assert "## Limits" in README
    assert "Similarity is not proof of identity" in README
    assert "delete" in README.split("What you owe")[1].split("##")[0]


def test_the_first_screen_sets_everything_up_and_runs_the_tests() -> None:
    first = "\n".join(README.splitlines()[:FIRST_SCREEN])
    assert {"pip install .", "make test"} <= set(console_lines(first))


def test_the_readme_has_what_a_stranger_looks_for() -> None:
    headings = [line.removeprefix("## ") for line in README.splitlines() if line.startswith("## ")]
    assert headings == [
        "Install",
        "Sixty seconds",
        "The same in Python",
        "Which model for what",
        "What sets it apart",
        "Figures",
        "Limits",
        "More",
    ]
    apart = README.split("## What sets it apart")[1].split("## ")[0]
    assert [line[0] for line in apart.splitlines() if line[:1].isdigit()] == list("123456")
    assert README.count("![") == 2  # a search, and the page
    (python,) = blocks("python", README)
    assert len([line for line in python.splitlines() if line]) <= 10
    assert commands(README)[0][0] == "index"
