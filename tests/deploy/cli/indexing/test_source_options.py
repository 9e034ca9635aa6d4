"""The options that choose pictures are the same for index and for embed, and do the same."""

import io
import os
import re
import tarfile
from pathlib import Path

import click
import pytest

from lookalike.deploy.cli.indexing.index import index
from lookalike.deploy.cli.indexing.latents import embed
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.embedding import content
from tests.fixtures.photos import photograph, write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine of three people, one hidden."""
    write_photos(tmp_path / "photos")
    (tmp_path / "photos" / ".hidden.jpg").write_bytes(photograph(12))
    return tmp_path / "photos"


def paths(file: Path) -> dict[str, str | None]:
    return {entry.path: entry.person for entry in content(file)}


def embed_(tiny_model: Path, *words: str, cwd: Path, stdin: bytes = b"") -> dict[str, str | None]:
    """Embed into a new file and return path and person of its rows."""
    (cwd / "l.parquet").unlink(missing_ok=True)
    done = lookalike("embed", *words, "--model", tiny_model, "--out", "l.parquet", cwd=cwd, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return paths(cwd / "l.parquet")


def test_both_commands_have_the_same_options_to_choose() -> None:
    def chosen(command: click.Command) -> list[tuple[str | None, list[str], str | None]]:
        options = [each for each in command.params if isinstance(each, click.Option)]
        first, last = (
            [each.name for each in options].index("split"),
            [each.name for each in options].index("person_from"),
        )
        return [(each.name, each.opts, each.help) for each in options[first : last + 1]]

    assert chosen(index) == chosen(embed)
    assert len(chosen(index)) == 9


def test_embed_chooses_among_what_is_in_a_folder(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    everything = embed_(tiny_model, "photos", cwd=tmp_path)
    assert len(everything) == 9
    some = embed_(tiny_model, "photos", "--include", "Ada*", "--exclude", "*/1.jpg", cwd=tmp_path)
    assert some == {f"Ada_Lovelace/{number}.jpg": "Ada_Lovelace" for number in (0, 2)}
    hidden = embed_(tiny_model, "photos", "--hidden", "--person-from", "^([A-ZÉ])", cwd=tmp_path)
    assert hidden.keys() - everything.keys() == {".hidden.jpg"}
    assert set(hidden.values()) == {"A", "H", "É", None}


def test_embed_takes_a_list_of_files(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    names = ["photos/Hypatia/0.jpg", "photos/Ada_Lovelace/1.jpg"]
    lines = "\n".join(names).encode()
    found = embed_(tiny_model, "--files-from", "-", cwd=tmp_path, stdin=lines)
    assert found == {"Hypatia/0.jpg": "Hypatia", "Ada_Lovelace/1.jpg": "Ada_Lovelace"}
    above = embed_(tiny_model, "--files-from", "-", "--root", ".", cwd=tmp_path, stdin=lines)
    assert above.keys() == set(names)
    nul = b"\0".join(map(os.fsencode, names))
    assert embed_(tiny_model, "--files-from", "-", "-0", cwd=tmp_path, stdin=nul) == found
    (tmp_path / "list.txt").write_bytes(lines)
    both = embed_(tiny_model, "photos/Hypatia", "--files-from", "list.txt", "--root", "photos", cwd=tmp_path)
    assert both.keys() == {"0.jpg", "1.jpg", "2.jpg", *found}


@pytest.mark.parametrize("verb", ["index --collection new", "embed --out new.parquet"])
@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (2, "", "Error: name a source: a folder, .*, lfw, mnist, or --files-from"),
        (2, "photos --root photos", "Error: --root works only with --files-from"),
        (2, "photos --split test", "Error: --split works only with mnist"),
        (2, "mnist photos --split test", "Error: --split works only with mnist"),
        (2, "lfw --split test", "Error: --split works only with mnist"),
        (2, "mnist --split test --files-from list.txt", "Error: --split works only with mnist"),
        (2, "mnist --split dev", "'dev' is not one of 'train', 'test', 'all'"),
        (2, "photos --person-from (", "--person-from is a regular expression"),
        (1, "--files-from gone.txt", "gone.txt cannot be read"),
        (1, "a.tar.gz", r"an uncompressed tar file, a\.tar\.gz is compressed; unpack it first"),
    ],
)
def test_what_cannot_be_chosen_is_told(
    verb: str, code: int, words: str, said: str, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = len(photograph(0))
        tar.addfile(info, io.BytesIO(photograph(0)))
    done = lookalike(*verb.split(), *words.split(), "--model", tiny_model, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert re.search(said, last), last
    assert not (tmp_path / "new.parquet").exists()
    assert not (tmp_path / ".lookalike").exists()


def test_what_would_do_nothing_to_a_file_of_latents_is_refused(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("photos/Hypatia/0.jpg\n")
    embed_(tiny_model, "photos/Hypatia", cwd=tmp_path)
    for words in (
        "--dry-run",
        "--exclude *",
        "--person-from .",
        "--files-from list.txt",
        "--report new.jsonl",
    ):
        done = lookalike("index", "l.parquet", "--collection", "new", *words.split(), cwd=tmp_path)
        assert done.returncode == 2
        option = words.split()[0]
        assert f"{option} does not work with a file of latents, which is indexed whole" in one_line(done)
        assert not (tmp_path / ".lookalike").exists()
