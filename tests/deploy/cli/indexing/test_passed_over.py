"""What folders hold beside images is counted, by kind, by every command; every kind of image is taken."""

import json
from pathlib import Path
from typing import Any

import pytest

from lookalike.indexer.sources import as_sources
from tests.encoder.images.test_formats import FILES
from tests.fixtures.command import lookalike
from tests.fixtures.handmade_models import make_denoiser
from tests.fixtures.photos import NAME, photograph

SKIPPED = {".zip": 3, ".txt": 1, "without a suffix": 1, "link to a folder": 1}
SUMMARY = "6 files skipped: 3 .zip, 1 .txt, 1 without a suffix, 1 link to a folder"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`photos/` with two images and other things."""
    inner = tmp_path / "photos" / "inner"
    inner.mkdir(parents=True)
    for name in ("a.jpg", "inner/b.jpg"):
        (tmp_path / "photos" / name).write_bytes(photograph(len(name)))
    for name in ("a.zip", "b.ZIP", "inner/c.zip", "notes.txt", "inner/Makefile", ".hidden.zip"):
        (tmp_path / "photos" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    return tmp_path


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_denoiser(tmp_path_factory.mktemp("denoiser") / "model").folder


def run(words: list[str], folder: Path) -> tuple[list[str], dict[str, Any]]:
    done = lookalike(*words, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines(), json.loads(done.stdout)


def commands(tiny_model: Path, denoiser: Path) -> dict[str, list[str]]:
    return {
        "index": ["index", "photos", "--collection", NAME, "--model", str(tiny_model)],
        "embed": ["embed", "photos", "--out", "out.parquet", "--model", str(tiny_model)],
        "denoise": ["denoise", "photos", "--out", "clean", "--model", str(denoiser)],
    }


@pytest.mark.parametrize("command", ["index", "embed", "denoise"])
def test_every_command_counts_the_same(command: str, folder: Path, tiny_model: Path, denoiser: Path) -> None:
    words = commands(tiny_model, denoiser)[command]
    for _ in range(2):  # also where nothing is left to do
        lines, record = run(words, folder)
        assert lines.count(SUMMARY) == 1
        assert record["passed_over"] == SKIPPED
    lines, record = run([*words, "photos/inner"], folder) if command == "index" else (lines, record)
    assert record["passed_over"] == SKIPPED  # once, also where sources overlap
    lines, record = run(
        [*words, "--exclude", "*.zip", "--exclude", "*.ZIP"] + ["--overwrite"] * (command != "index"), folder
    )
    assert record["passed_over"] == {kind: count for kind, count in SKIPPED.items() if kind != ".zip"}
    (folder / "only").mkdir()
    (folder / "only" / "a.jpg").write_bytes(photograph(1))
    others = {"photos": "only", "out.parquet": "two.parquet", "clean": "two"}
    words = [others.get(word, word) for word in words]
    lines, record = run(words, folder)
    assert record["passed_over"] == {}
    assert not any("skipped:" in line for line in lines)


def test_every_kind_of_image_in_a_folder_is_taken_as_when_it_is_named(
    tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "photos").mkdir()
    names = [f"photos/x{suffix}" for suffix in FILES]
    for name, content in zip(names, FILES.values(), strict=True):
        (tmp_path / name).write_bytes(content())
    for number, sources in enumerate((["photos"], names)):
        words = ["index", *sources, "--collection", f"c{number}", "--model", str(tiny_model)]
        _, record = run(words, tmp_path)
        assert (record["added"], record["failed"], record["passed_over"]) == (len(FILES), [], {})


@pytest.mark.parametrize("name", ["photo", "photo.HEIC"])
def test_a_file_whose_name_lies_is_read_when_it_is_named(
    name: str, tmp_path: Path, tiny_model: Path, denoiser: Path
) -> None:
    (tmp_path / name).write_bytes(photograph(3))
    for words in commands(tiny_model, denoiser).values():
        run([words[0], name, *words[2:]], tmp_path)
    done = lookalike("search", name, "--collection", NAME, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clean" / name).read_bytes().startswith(b"\xff\xd8\xff")


def test_a_file_that_was_named_itself_is_not_missing_while_it_is_there(
    tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "odd"):
        (tmp_path / "photos" / name).write_bytes(photograph(len(name)))
    words = ["--collection", NAME, "--model", str(tiny_model)]
    run(["index", "photos", "photos/odd", *words], tmp_path)
    _, record = run(["index", "photos", "--prune", *words], tmp_path)
    assert (record["missing"], record["unchanged"], record["passed_over"]) == (0, 1, {"without a suffix": 1})
    (tmp_path / "photos" / "odd").unlink()
    _, record = run(["index", "photos", "--prune", *words], tmp_path)
    assert record["missing"] == 1


def test_a_source_tells_what_it_passes_over_by_its_path(folder: Path) -> None:
    passed: dict[str, str] = {}
    for source in as_sources(str(folder / "photos"), {}):
        list(source.items(on_skipped=lambda path, kind: passed.setdefault(path, kind)))
    assert passed["inner/c.zip"] == ".zip"
    assert passed["link"] == "link to a folder"
