"""README and docs keep their word: their commands and Python blocks run, their links lead somewhere."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import yaml

from lookalike.deploy.cli.main import VERBS
from lookalike.encoder.images import IMAGE_SUFFIXES
from lookalike.indexer.open import open_store
from tests.fixtures.command import lookalike
from tests.fixtures.face_photos import group, write
from tests.fixtures.face_pictures import write_picture
from tests.fixtures.pages import ROOT, RUN_BY_HAND, TEXTS, blocks, commands, console_lines, parses, section
from tests.fixtures.photos import cuttings, make_home, photograph, write_photos
from tests.fixtures.service import client_of
from tests.fixtures.tiny_models import make_bundle

COMMANDS: Final = TEXTS["docs/reference/commands.md"]
HOW_TO: Final = (
    "search-photos",
    "find-a-person",
    "denoise",
    "train",
    "own-network",
    "duplicates-groups-map",
    "generate-edit",
    "python",
    "service",
    "keep-and-delete",
)
WITH_A_TEST_OF_ITS_OWN: Final = "docs/howto/keep-and-delete.md"
SHOWN: Final = [
    page
    for page, text in TEXTS.items()
    if page != WITH_A_TEST_OF_ITS_OWN
    and any(
        line.startswith("lookalike ") and line.split()[1] not in RUN_BY_HAND for line in console_lines(text)
    )
]


def test_the_pages_with_commands_to_run() -> None:
    pages = ("search-photos", "find-a-person", "denoise", "duplicates-groups-map", "generate-edit", "service")
    assert {"README.md", *(f"docs/howto/{page}.md" for page in pages)} <= set(SHOWN)


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


@pytest.mark.parametrize("page", SHOWN)
def test_every_command_runs_in_the_order_shown(page: str, folder: Path) -> None:
    for line in console_lines(TEXTS[page]):
        program, *words = shlex.split(line)
        if program == "lookalike" and words[0] not in RUN_BY_HAND:
            done = lookalike(*words, cwd=folder)
            # Two different pictures are no match, which compare tells by its exit code.
            assert done.returncode in ((0, 4) if words[0] == "compare" else (0,)), f"{line}\n{done.stderr}"
            for file in (word for word in words if word.endswith((".png", ".jsonl"))):
                assert (folder / file).is_file(), line


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


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_is_one_that_the_program_takes(page: str) -> None:
    for words in commands(TEXTS[page]):
        parses(words)


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
    assert {"demo", "test", "check", "figures", "docs", "release"} <= chores
    for chore in chores:
        assert re.search(rf"^{chore}:", makefile, flags=re.MULTILINE), chore
        assert re.search(rf"^#   make {chore} ", makefile, flags=re.MULTILINE), f"{chore} is not explained"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as forges and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_to_a_file_and_a_heading_leads_somewhere() -> None:
    for page, text in TEXTS.items():
        for target, anchor in re.findall(
            r"\]\(([^)#]*)#?([^)]*)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        ):
            if target.startswith(("http://", "https://")):
                continue
            file = (ROOT / page).parent.joinpath(target) if target else ROOT / page
            assert file.exists(), f"{page}: {target}"
            if anchor:
                assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page}: {target}#{anchor}"


def test_files_that_the_architecture_page_names_are_there() -> None:
    for file in re.findall(
        r"`((?:encoder|trainer|indexer|searcher|deploy)/[\w/]+\.py)`", TEXTS["docs/architecture.md"]
    ):
        assert (ROOT / file).is_file(), file


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python objects, without loading any."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda _loader, suffix, _node: suffix)


def pages_of(nav: Any) -> list[str]:
    """The files that a part of the navigation names."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(part)]


def test_every_page_is_in_the_site_once_and_ten_say_how_to_do_something() -> None:
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  # a safe one
    pages = pages_of(site["nav"])
    assert len(pages) == len(set(pages))
    assert set(pages) == {*TEXTS, "CHANGELOG.md"}
    assert [page for page in pages if "/howto/" in page] == [f"docs/howto/{name}.md" for name in HOW_TO]


def test_the_formats_that_the_page_names_are_those_that_are_read() -> None:
    rows = re.findall(
        r"^\|.*\|$", section(TEXTS["docs/reference/files.md"], "## Images that are read"), re.MULTILINE
    )
    assert {suffix for row in rows for suffix in re.findall(r"`(\.\w+)`", row)} == IMAGE_SUFFIXES


def test_a_new_model_takes_over_and_what_is_deleted_leaves_no_byte(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    (tmp_path / "me.jpg").write_bytes(photograph(4))
    newer = make_bundle(tmp_path / "models" / "newer", seed=1)
    page, read = TEXTS[WITH_A_TEST_OF_ITS_OWN], []
    for line in console_lines(section(page, "## Swap the model")):
        words = shlex.split(line)[1:]
        done = lookalike(*words, cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if words[0] == "search":
            assert "Hypatia" in done.stdout or "Lovelace" in done.stdout
            shown = json.loads(lookalike("collections", "show", "family", "--json", cwd=tmp_path).stdout)
            read.append((shown["name"], shown["model_name"], shown["aliases"]))
    assert read == [
        ("family-1", "faces", ["family"]),
        ("family-2", str(newer.folder), ["family"]),
    ]
    with open_store(str(tmp_path / ".lookalike")) as store:
        gone = [
            each.vector
            for each in store.scroll("family", with_vectors=True)
            if "Hypatia" in each.payload["path"]
        ]
    vectors = [np.asarray(vector, np.float32).tobytes() for vector in gone]
    assert len(vectors) == 3
    assert all(remains(tmp_path, vector) for vector in vectors)
    shutil.rmtree(tmp_path / "photos" / "Hypatia")
    for line in console_lines(section(page, "## Delete")):
        done = lookalike(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert not any(remains(tmp_path, part) for part in (*vectors, b"Hypatia"))
    listed = json.loads(lookalike("collections", "list", "--json", cwd=tmp_path).stdout)
    assert [row["name"] for row in listed] == ["family-3"]
    assert lookalike("search", "me.jpg", "-c", "family", cwd=tmp_path).returncode == 0


def remains(folder: Path, part: bytes) -> list[Path]:
    """The files of the store that hold some bytes."""
    return [
        file for file in (folder / ".lookalike").rglob("*") if file.is_file() and part in file.read_bytes()
    ]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_lines_for_curl_denoise_a_photograph_as_a_job(tmp_path: Path, tiny_model: Path) -> None:
    make_home(tmp_path, tiny_model)
    (tmp_path / "photo.jpg").write_bytes(photograph(0))
    shown = [line for block in blocks("sh", TEXTS["docs/howto/service.md"]) for line in block.splitlines()]
    lines = [line for line in shown if line.startswith("curl ")]
    assert len(lines) == 4
    job = ""
    with client_of(tmp_path, tiny_model, "denoise") as client:
        for line in lines:
            there = line.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/")).replace(
                "/ID", f"/{job}"
            )
            done = subprocess.run(
                [*shlex.split(there), "-sS", "--fail"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            # What has ended cannot be cancelled: the last line is for a job that runs.
            expected = (22, "409") if "DELETE" in line else (0, "")
            assert (done.returncode, expected[1] in done.stderr) == (expected[0], True), (
                f"{line}\n{done.stderr}"
            )
            job = job or json.loads(done.stdout)["id"]
    assert (tmp_path / "clean.png").is_file()


@pytest.mark.slow
@pytest.mark.trains
def test_the_page_of_training_trains_as_it_says(folder: Path) -> None:
    for number, pixels in enumerate(cuttings() * 3):
        write(folder / "photos" / f"{number}.png", np.roll(pixels, 5 * number, axis=1))
    for number in range(24):
        write_picture(folder / "portraits" / f"person{number}" / "a.png", (number,), turned=number % 4)
    for words in commands(TEXTS["docs/howto/train.md"]):
        done = lookalike(*words, cwd=folder)
        assert done.returncode == 0, f"{words}\n{done.stderr}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_holds_the_whole_reference(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = tmp_path / "site" / "docs" / "reference"
    commands_page = (reference / "commands.html").read_text(encoding="utf-8")
    assert all(f"lookalike {verb}" in commands_page for verb in VERBS)
    assert "--face-threshold" in commands_page
    python_page = (reference / "python.html").read_text(encoding="utf-8")
    import lookalike as la

    assert all(f'id="lookalike.{name}"' in python_page for name in la.__all__ if not name.startswith("_"))
    assert "POST</b> /api/v1/search" in (reference / "http.html").read_text(encoding="utf-8")
    assert (tmp_path / "site" / "index.html").is_file()
