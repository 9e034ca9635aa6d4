"""The README keeps its word: its commands run, its files are there, its verbs are all."""

import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from lookalike.deploy.cli.main import VERBS
from tests.fixtures.photos import lookalike, photograph, write_photos

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
LINES: Final = [line for block in BLOCKS for line in block.splitlines() if line and not line.startswith("#")]


def test_every_command_runs_in_the_order_it_is_told(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    for number, name in enumerate(("me.jpg", "you.jpg")):
        (tmp_path / name).write_bytes(photograph(number))
    ran = 0
    for line in LINES:
        program, *words = shlex.split(line)
        if program == "lookalike" and words[0] not in ("train", "demo"):
            done = lookalike(*words, cwd=tmp_path)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            ran += 1
            for file in (word for word in words if word.endswith(".png")):
                assert (tmp_path / file).is_file(), line
    assert ran >= 5


def test_every_chore_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    chores = {words[1] for line in LINES if (words := line.split())[0] == "make"}
    chores |= set(re.findall(r"`make ([a-z]+)", README))
    assert {"demo", "test", "check"} <= chores
    for chore in chores:
        assert re.search(rf"^{chore}:", makefile, flags=re.MULTILINE), chore
        assert re.search(rf"^#   make {chore} ", makefile, flags=re.MULTILINE), f"{chore} is not explained"


def test_every_console_line_is_one_of_ours() -> None:
    assert {line.split()[0] for line in LINES} <= {"make", "lookalike"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_table(verb: str) -> None:
    assert re.search(rf"^\| `lookalike {verb}[ `]", README, flags=re.MULTILINE)


def test_every_verb_that_is_told_is_there() -> None:
    assert set(re.findall(r"lookalike ([a-z]+)", README)) <= set(VERBS)


def test_every_link_to_a_file_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        if not target.startswith(("http://", "https://")):
            assert (ROOT / target).exists(), target


def test_it_is_short_and_shows_a_picture_first() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert any(line.startswith("![") for line in lines[:15])


def test_it_says_what_it_cannot_do_and_what_is_owed() -> None:
    assert "## What it cannot do" in README
    assert "Likeness is not proof of identity" in README
    assert "delete" in README.split("What you owe")[1].split("##")[0]
