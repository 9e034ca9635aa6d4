"""README and docs keep their word: their commands and Python blocks run, their links lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest

from lookalike.deploy.cli.main import VERBS
from tests.fixtures.command import lookalike
from tests.fixtures.face_photos import group, write
from tests.fixtures.photos import photograph, write_photos

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
README: Final = PAGES[0].read_text(encoding="utf-8")
COMMANDS: Final = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
TEXTS: Final = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
RUN_BY_HAND: Final = {"train", "demo", "serve", "evaluate", "calibrate", "embed"}
"""Verbs that take minutes, never end, or need data sets; other tests run them."""


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def console_lines(text: str) -> list[str]:
    lines = [line for block in blocks("console", text) for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `photos/`, `me.jpg`, `you.jpg` and `group.jpg`, as a reader may have them."""
    write_photos(tmp_path / "photos")
    write(tmp_path / "photos" / "together.jpg", group(2))
    write(tmp_path / "group.jpg", group(3))
    for number, name in enumerate(("me.jpg", "you.jpg")):
        (tmp_path / name).write_bytes(photograph(number))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOOKALIKE_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md", "docs/faces.md"])
def test_every_command_runs_in_the_order_shown(page: str, folder: Path) -> None:
    ran = 0
    for line in console_lines(TEXTS[page]):
        program, *words = shlex.split(line)
        if program == "lookalike" and words[0] not in RUN_BY_HAND:
            done = lookalike(*words, cwd=folder)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            ran += 1
            for file in (word for word in words if word.endswith(".png")):
                assert (folder / file).is_file(), line
    assert ran >= 5


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if blocks("python", text)])
def test_every_python_block_runs_in_the_order_shown(
    page: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python", TEXTS[page]):
        exec(compile(block, page, "exec"), names)  # noqa: S102  # our own pages
        for file in re.findall(r'\.save\("([^"]+)"\)', block):
            assert (folder / file).is_file(), file
    if "store" in names:
        names["store"].close()
    assert capsys.readouterr().out


def test_every_console_line_is_a_command_that_there_is() -> None:
    for page, text in TEXTS.items():
        for line in console_lines(text):
            program, *words = shlex.split(line)
            assert program in {"lookalike", "make", "pip"}, f"{page}: {line}"
            assert program != "lookalike" or words[0] in VERBS, f"{page}: {line}"


def test_every_verb_named_anywhere_is_there() -> None:
    for page, text in TEXTS.items():
        assert set(re.findall(r"`lookalike ([a-z]+)", text)) <= {*VERBS, "help", "version"}, page


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_table_of_commands(verb: str) -> None:
    assert re.search(rf"^\| `lookalike {verb}[ `]", COMMANDS, flags=re.MULTILINE)


def test_every_chore_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    chores = {chore for text in TEXTS.values() for chore in re.findall(r"`make ([a-z-]+)", text)}
    assert {"demo", "test", "check", "figures"} <= chores
    for chore in chores:
        assert re.search(rf"^{chore}:", makefile, flags=re.MULTILINE), chore
        assert re.search(rf"^#   make {chore} ", makefile, flags=re.MULTILINE), f"{chore} is not explained"


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#]+)", text):
            if not target.startswith(("http://", "https://")):
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_files_that_the_architecture_page_names_are_there() -> None:
    for file in re.findall(
        r"`((?:encoder|trainer|indexer|searcher|deploy)/[\w/]+\.py)`", TEXTS["docs/architecture.md"]
    ):
        assert (ROOT / file).is_file(), file


def test_the_readme_is_short_and_shows_an_image_first() -> None:
    lines = README.splitlines()
    assert len(lines) < 150
    assert any(line.startswith("![") for line in lines[:15])
    assert blocks("text", README), "the quickstart shows its output"


def test_the_readme_states_the_limits_and_what_is_owed() -> None:
    assert "## Limits" in README
    assert "Similarity is not proof of identity" in README
    assert "delete" in README.split("What you owe")[1].split("##")[0]
