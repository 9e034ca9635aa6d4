"""The command as people meet it: quick help, one-line errors, exit codes, clean outputs."""

import json
import os
import pty
import re
import shlex
import subprocess
import termios
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from lookalike.deploy.cli.main import VERBS, group
from lookalike.indexer.open import open_store
from tests.fixtures.command import COMMAND, lookalike, lookalike_process, one_line
from tests.fixtures.photos import NAME, make_home, write_photos


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every verb and every verb below it, by its words."""
    for verb in VERBS:
        command = group.get_command(click.Context(group), verb)
        assert command is not None
        yield verb, command
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", below) for name, below in command.commands.items())


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with indexed photographs. Leave it as it is."""
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    done = lookalike_process("--help", cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"click", "lookalike.deploy.cli.main"} <= loaded
    heavy = {"numpy", "torch", "onnxruntime", "qdrant_client", "qdrant_edge", "PIL", "requests", "tqdm"}
    assert not heavy & {name.split(".")[0] for name in loaded}


def test_help_lists_every_verb_in_its_own_words() -> None:
    for verb, (_, line) in VERBS.items():
        command = group.get_command(click.Context(group), verb)
        assert command is not None
        assert command.get_short_help_str(limit=200) == line


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_a_short_flag_everywhere(flag: str) -> None:
    for words, _ in commands():
        assert group.main([*words.split(), flag], prog_name="lookalike", standalone_mode=False) == 0


def test_every_verb_ends_its_help_with_an_example_of_itself() -> None:
    for words, command in commands():
        if isinstance(command, click.Group):
            continue
        assert command.epilog is not None, words
        start, program, *rest = shlex.split(command.epilog)
        assert (start, program) == ("Example:", "lookalike")
        assert rest[: len(words.split())] == words.split()
        # The example's options and arguments are there.
        command.make_context(words, rest[len(words.split()) :]).close()


def test_every_verb_says_what_it_does_and_every_option_what_it_is_for() -> None:
    told = {"collection", "provider", "device", "json_"}
    for words, command in commands():
        assert command.help, words
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in told:
                assert option.help, f"{words} {option.opts}"


def test_an_unknown_verb_gets_a_suggestion(tmp_path: Path) -> None:
    done = lookalike("serch", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("Error: no verb 'serch'; did you mean search?\n")
    assert "did you mean" not in lookalike("xyzzy", cwd=tmp_path).stderr


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    assert lookalike("--version", cwd=tmp_path).stdout == f"lookalike {version('lookalike')}\n"


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (1, "search me.jpg --collection nothing", "no collection 'nothing' in .*; it has: photos"),
        (1, "search bad.jpg --collection photos", "failed: bad.jpg: "),
        (1, "search me.jpg --collection photos --store me.jpg", "me.jpg: Not a directory; check"),
        (1, "search me.jpg --collection photos --store http://127.0.0.1:9", "no Qdrant server answers"),
        (1, "search me.jpg --collection photos --model nowhere", "no model 'nowhere'"),
        (2, "search me.jpg --collection photos --where persn=Bill", "has a field 'persn'; .* example person"),
        (
            2,
            "search me.jpg --collection photos --where persn!=Bill",
            "has a field 'persn'; .* example person",
        ),
        (2, "facets person --collection photos --where persn=Bill", "has a field 'persn'; .* example person"),
        (2, r"search me.jpg --collection photos --where a\\b=1", "has a quote or a backslash"),
        (1, "index nowhere --collection new --model MODEL", "'nowhere' does not exist"),
        (
            1,
            "index photos --collection photos --model photos",
            "no model in folder photos: it has no bundle.json",
        ),
        (1, "index photos --collection photos --model MODEL --crop full", "pass --crop center:0.5 or"),
        (1, "reconstruct bad.jpg --model MODEL --out new.png", "failed: bad.jpg: "),
        (1, "collections show nothing", "it has: photos"),
        (1, "collections verify nothing", "it has: photos"),
        (1, "collections copy nothing other", "it has: photos"),
        (1, "collections optimize nothing", "it has: photos"),
        (1, "models nowhere", "no model 'nowhere'"),
        (1, "evaluate retrieval --collection nothing", "it has: photos"),
        (2, "search me.jpg --collection photos --crop middle", "write full, center:FRACTION or X,Y,W,H"),
        (2, "search me.jpg --collection photos --sheet new.txt", "an image is saved as .png"),
        (2, "index photos --collection a/b --model MODEL", "a collection name is 1 to 64 letters"),
        (2, "generate --model MODEL --out new.bmp", "change the file name"),
        (2, "generate --model MODEL --out me.jpg/new.png", "cannot write here"),
    ],
)
def test_errors_are_one_line_with_a_code(
    home: Path, tiny_model: Path, code: int, words: str, said: str
) -> None:
    done = lookalike(*words.replace("MODEL", str(tiny_model)).split(), cwd=home)
    line = one_line(done)
    assert done.returncode == code
    assert len(line) < 400
    assert re.search(said, line)
    assert not (home / "new.png").exists()


@pytest.mark.parametrize(
    "words",
    [
        "search",
        "embed photos",
        "search me.jpg --collection photos -n 0",
        "search me.jpg --collection photos -n 99999999999999999999",
        "search me.jpg --collection photos --provider tpu",
        "generate --out new.png -n 0",
        "generate --out new.png --temperature -1",
        "collections delete photos",
        "collections drop photos",
        "collections copy photos",
        "collections verify photos --sample -1",
        "index photos --collection photos --max-pixels 0",
    ],
)
def test_wrong_usage_is_told_with_the_way_to_help(home: Path, words: str) -> None:
    done = lookalike(*words.split(), cwd=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    usage, hint, _, error = done.stderr.splitlines()
    assert usage.startswith("Usage: lookalike ")
    assert hint.endswith("--help' for help.")
    assert error.startswith("Error: ")


def test_a_failed_index_leaves_no_collection_behind(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    lookalike("index", "nowhere", "--collection", "new", "--model", tiny_model, cwd=tmp_path)
    assert lookalike("collections", "list", "--json", cwd=tmp_path).stdout == "[]\n"


def test_a_busy_store_says_so_at_once(home: Path) -> None:
    with open_store(str(home / ".lookalike")) as store:
        store.count(NAME)
        done = lookalike("search", "me.jpg", "--collection", NAME, cwd=home)
    assert done.returncode == 1
    assert "in use by another process; wait until it ends" in one_line(done)


def test_index_reports_on_stderr_and_nothing_else_without_a_terminal(
    tiny_model: Path, tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos")
    words = ["index", "photos", "--model", str(tiny_model), "--collection", NAME]
    first = lookalike(*words, cwd=tmp_path)
    assert first.returncode == 0
    line = one_line(first)
    assert line.startswith("photos: 9 added, 0 changed, 0 unchanged, 0 missing, 0 failed; ")
    assert line.endswith(" images/s")
    assert "images/s" not in one_line(lookalike(*words, cwd=tmp_path))
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    (tmp_path / "photos" / "Hypatia" / "0.jpg").unlink()
    done = lookalike(*words, "--prune", "--json", cwd=tmp_path)
    assert done.returncode == 3
    failed, summary = done.stderr.splitlines()
    assert failed.startswith("failed: ")
    assert "1 missing and removed, 1 failed" in summary
    report = json.loads(done.stdout)
    assert report.pop("seconds") > 0
    assert report.pop("failed")[0].keys() == {"path", "reason"}
    assert report == {
        "collection": NAME, "store": ".lookalike", "added": 0, "changed": 0, "unchanged": 8, "missing": 1,
        "pruned": True, "dry": False, "moved": 0, "relabelled": 0, "passed_over": {},
        "images_per_second": 0.0, "provider": "CPUExecutionProvider",
    }  # fmt: skip


def test_a_folder_without_pictures_is_said(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.xyz").write_bytes(b"")
    done = lookalike("index", "photos", "--model", tiny_model, "--collection", NAME, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.splitlines()[1].startswith("no images found; looked for .apng, .avif, .avifs, .bmp, ")
    assert done.stderr.splitlines()[2:] == ["1 file skipped: 1 .xyz"]


def test_a_terminal_gets_a_bar_that_is_wiped_at_the_end(tiny_model: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 100))
    words = ["index", "photos", "--model", str(tiny_model), "--collection", NAME]
    done = subprocess.run([COMMAND, *words], cwd=tmp_path, stderr=side, stdout=subprocess.PIPE, check=True)
    os.close(side)
    said = os.read(main, 1 << 16).decode()
    os.close(main)
    assert done.stdout == b""
    assert "image/s" in said
    assert said.rpartition("\r")[0].endswith("images/s") or said.endswith("images/s\r\n")


def test_json_is_all_there_is_on_stdout(home: Path, tiny_model: Path) -> None:
    for words in (
        "search me.jpg bad.jpg --collection photos --json --sheet SHEET",
        "collections list --json",
        "collections show photos --json",
        "collections verify photos --json",
        "evaluate retrieval --collection photos --json",
        "models MODEL --json",
        "models list MODEL --json",
        "models --json",
    ):
        filled = words.replace("MODEL", str(tiny_model)).replace("SHEET", str(tiny_model.parent / "s.png"))
        done = lookalike(*filled.split(), cwd=home)
        assert done.returncode in (0, 3), done.stderr
        json.loads(done.stdout)
        assert len(done.stdout.splitlines()) == 1


def test_models_are_listed_with_and_without_saying_list(home: Path, tiny_model: Path) -> None:
    listed = lookalike("models", "list", tiny_model, cwd=home)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.startswith("tiny  ae, 16x16x3, latent 4, crop center:0.5, id ")
    assert listed.stdout.splitlines()[1] == "  trained without labels"
    assert lookalike("models", tiny_model, cwd=home).stdout == listed.stdout
    assert lookalike("models", cwd=home).stdout == lookalike("models", "list", cwd=home).stdout
    (model,) = json.loads(lookalike("models", tiny_model, "--json", cwd=home).stdout)
    assert (model["name"], model["labels"], model["calibration"]) == ("tiny", "none", None)


def test_collections_are_listed_shown_and_deleted(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    empty = lookalike("collections", "list", cwd=tmp_path)
    assert (empty.returncode, empty.stdout) == (0, "")
    assert one_line(empty) == "no collection in .lookalike; lookalike index creates one"
    assert not (tmp_path / ".lookalike").exists()  # looking makes nothing
    words = ["index", str(home / "photos"), "--model", str(tiny_model), "--collection", "family"]
    assert lookalike(*words, cwd=tmp_path).returncode == 0
    assert lookalike("collections", "list", cwd=tmp_path).stdout.split()[:2] == ["family", "9"]
    shown = lookalike("collections", "show", "family", cwd=tmp_path).stdout
    assert f"photos     {(home / 'photos').resolve()}" in shown
    gone = lookalike("collections", "delete", "family", "--yes", cwd=tmp_path)
    assert one_line(gone) == "deleted family: 9 items"
    assert lookalike("collections", "list", "--json", cwd=tmp_path).stdout == "[]\n"


def test_the_store_may_come_from_the_environment(home: Path, tmp_path: Path) -> None:
    done = lookalike("collections", "list", cwd=tmp_path, env={"LOOKALIKE_STORE": str(home / ".lookalike")})
    assert done.stdout.startswith("photos ")


@pytest.mark.parametrize("words", ["--help", "collections list", "search me.jpg --collection photos --json"])
def test_a_reader_that_left_is_no_reason_for_a_traceback(home: Path, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [COMMAND, *words.split()], cwd=home, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_cannot_be_written_is_one_line(home: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "collections", "list"],
            cwd=home,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "lookalike: No space left on device\n")
