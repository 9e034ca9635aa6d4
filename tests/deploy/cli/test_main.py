"""The command as people meet it: quick help, one-line errors, exit codes, clean outputs."""

import contextlib
import io
import json
import os
import pty
import re
import shlex
import subprocess
import termios
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from tqdm import tqdm

from lookalike.deploy.cli.main import VERBS, group
from lookalike.deploy.cli.output import Bar, in_words
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
    assert done.stderr.endswith("Error: No such command 'serch'. Did you mean 'search'?\n")
    assert "Did you mean" not in lookalike("xyzzy", cwd=tmp_path).stderr


@pytest.mark.parametrize("word", ["--version", "-V", "version"])
def test_the_version_is_the_packages(word: str, tmp_path: Path) -> None:
    assert lookalike(word, cwd=tmp_path).stdout == f"lookalike {version('lookalike')}\n"


@pytest.mark.parametrize("verb", ["", "search", "collections copy"])
def test_help_is_a_word_too(verb: str, tmp_path: Path) -> None:
    words = verb.split()
    assert lookalike("help", *words, cwd=tmp_path).stdout == lookalike(*words, "-h", cwd=tmp_path).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_what_completes_words(shell: str, tmp_path: Path) -> None:
    done = lookalike("completion", shell, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_LOOKALIKE_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("sea", {"search"}),
        ("search me.jpg --coll", {"--collection"}),
        ("search me.jpg -c ph", {NAME}),
        ("search me.jpg -c photos --group-by pers", {"person"}),
        ("facets pers", {"person"}),
        ("collections show ", {NAME}),
        ("generate --model dig", {"digits", "digits-vae"}),
        ("search me.jpg --store nowhere -c ", set()),
        ("search me.jpg --store http://127.0.0.1:9 -c ", set()),
    ],
)
def test_what_a_shell_completes(words: str, completed: set[str], home: Path) -> None:
    typed = ["lookalike", *words.split()] + [""] * words.endswith(" ")
    asked = {"_LOOKALIKE_COMPLETE": "bash_complete", "COMP_WORDS": shlex.join(typed)}
    done = lookalike(cwd=home, env={**asked, "COMP_CWORD": str(len(typed) - 1)})
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.partition(",")[2] for line in done.stdout.split()} == completed
    assert not (home / "nowhere").exists()


def test_quiet_leaves_warnings_and_results(home: Path) -> None:
    loud = lookalike("search", "me.jpg", "bad.jpg", "--sheet", "hits.png", cwd=home)
    quiet = lookalike("search", "me.jpg", "bad.jpg", "--sheet", "hits.png", "-q", cwd=home)
    (home / "hits.png").unlink()
    assert quiet.returncode == loud.returncode == 3
    assert quiet.stdout.count("\n") == loud.stdout.count("\n") > 0
    assert "image written" in loud.stderr
    assert one_line(subprocess.CompletedProcess([], 3, "", quiet.stderr)).startswith("failed: bad.jpg")
    assert "image written" in lookalike("search", "me.jpg", "--sheet", "hits.png", cwd=home).stderr
    (home / "hits.png").unlink()


def test_every_command_can_be_quiet_or_verbose() -> None:
    for words, command in commands():
        names = {name for option in command.params for name in option.opts}
        if not isinstance(command, click.Group) and words not in ("demo", "completion"):
            assert {"-q", "-v"} <= names, words


def test_verbose_says_what_it_took_and_where_an_error_comes_from(home: Path) -> None:
    done = lookalike("collections", "list", "-v", cwd=home)
    assert re.fullmatch(r"it took [\d.]+ s and [\d,]+ MB of memory(, a worker [\d,]+ MB)?\n", done.stderr)
    failed = lookalike("search", "me.jpg", "-c", "nothing", "-v", cwd=home)
    assert failed.stderr.startswith("Traceback")
    assert failed.stderr.splitlines()[-1].startswith("lookalike: no collection")
    assert "Traceback" not in lookalike("search", "me.jpg", "-c", "nothing", cwd=home).stderr


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
    assert done.stderr.splitlines()[1].startswith(
        "no images found; looked for .apng, .arw, .avif, .avifs, .bmp, "
    )
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
    assert "\rScanning… 9 images" in said
    assert "\rIndexing 0/9" in said
    assert said.rpartition("\r")[0].endswith("images/s") or said.endswith("images/s\r\n")


def test_the_bar_says_what_is_done_how_fast_and_how_long_it_takes() -> None:
    shown = io.StringIO()
    tqdm.monitor_interval = 0
    with tqdm(desc="Indexing…", bar_format="{desc}", total=None, mininterval=0, file=shown) as line:
        bar = Bar(line, "Indexing", "images")
        bar.on_found(3120)
        bar.on_progress(64)
        line.start_t -= 10  # so long ago
        bar.on_total(5102)
        bar.on_progress(1248)
    lines = [drawn.rstrip() for drawn in shown.getvalue().split("\r")]
    assert lines[1:3] == ["Indexing…", "Scanning… 3,120 images"]
    assert re.fullmatch(r"Indexing 64 of 3,120 found so far · [\d.e+]+ images/s", lines[3])
    assert re.fullmatch(r"Indexing 1,312/5,102 · [\d.e+]+ images/s · \d+ s left", lines[-1])


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (4800, "80 min"), (7260, "2 h 1 min")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("answer", "code", "said"), [("n", 1, "Aborted."), ("y", 0, "deleted photos: 9 items")]
)
def test_deleting_asks_and_takes_no_for_an_answer(
    answer: str, code: int, said: str, tiny_model: Path, tmp_path: Path
) -> None:
    make_home(tmp_path, tiny_model)
    main, side = pty.openpty()
    os.write(main, f"{answer}\n".encode())
    words = [str(COMMAND), "collections", "delete", NAME]
    done = subprocess.run(
        words, cwd=tmp_path, stdin=side, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(side)
    os.close(main)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].endswith(said)
    assert (NAME in lookalike("collections", "list", cwd=tmp_path).stdout) == (code == 1)


@pytest.mark.parametrize("no_color", [False, True])
def test_an_error_is_in_color_on_a_terminal_unless_no_color_is_set(no_color: bool, tmp_path: Path) -> None:
    main, side = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    env |= {"NO_COLOR": "1"} if no_color else {}
    subprocess.run(
        [COMMAND, "models", "nowhere"], cwd=tmp_path, stderr=side, env=env, timeout=60, check=False
    )
    os.close(side)
    said = os.read(main, 1 << 16).decode()
    os.close(main)
    assert ("\x1b[" in said) != no_color
    assert "no model 'nowhere'" in said


def test_the_store_is_that_of_the_project_else_of_the_user(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOKALIKE_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    write_photos(tmp_path / "photos")
    words = ["index", "photos", "--model", str(tiny_model), "--collection"]
    first, second = (lookalike(*words, name, cwd=tmp_path) for name in ("one", "two"))
    own = tmp_path / "data" / "lookalike" / "store"
    assert first.stderr.splitlines()[-1] == (
        f"new store: {own}; to keep it elsewhere, name it with --store or make a folder .lookalike here"
    )
    assert "store" not in second.stderr
    other = tmp_path / "other"
    monkeypatch.setenv("XDG_DATA_HOME", str(other))
    assert "store" not in lookalike("index", "nowhere", "--collection", "one", cwd=tmp_path).stderr
    assert not other.exists()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert {"one", "two"} <= {folder.name for folder in own.iterdir()}

    (tmp_path / ".lookalike").mkdir()
    below = tmp_path / "photos" / "2024"
    below.mkdir()
    assert "store" not in lookalike(*words, "three", cwd=tmp_path).stderr
    for folder in (tmp_path, below):
        assert lookalike("collections", "list", cwd=folder).stdout.split()[0] == "three"
    with contextlib.chdir(below), open_store() as store:
        assert store.list_collections() == ["three"]


def test_json_is_all_there_is_on_stdout(home: Path, tiny_model: Path) -> None:
    for words in (
        "search me.jpg bad.jpg --collection photos --json --sheet SHEET",
        "collections list --json",
        "collections show photos --json",
        "collections verify photos --json",
        "evaluate retrieval --collection photos --json",
        "models MODEL --json",
        "models show MODEL --json",
        "models --json",
    ):
        filled = words.replace("MODEL", str(tiny_model)).replace("SHEET", str(tiny_model.parent / "s.png"))
        done = lookalike(*filled.split(), cwd=home)
        assert done.returncode in (0, 3), done.stderr
        json.loads(done.stdout)
        assert len(done.stdout.splitlines()) == 1


def test_models_are_listed_and_shown_with_and_without_saying_so(home: Path, tiny_model: Path) -> None:
    listed = lookalike("models", "show", tiny_model, cwd=home)
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


@pytest.mark.parametrize("words", ["search me.jpg --sheet SHEET", "generate --model MODEL -n 2 --out SHEET"])
def test_open_shows_the_written_image(words: str, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Linux opens files with xdg-open, which is whatever stands first in the path."""
    opener, told = tmp_path / "xdg-open", tmp_path / "told"
    opener.write_text(f'#!/bin/sh\necho "$1" > {told}\n')
    opener.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    filled = words.replace("MODEL", str(tiny_model)).replace("SHEET", str(tmp_path / "s.png")).split()
    assert lookalike_process(*filled, cwd=home, env=env).returncode == 0
    assert not told.exists()
    assert lookalike_process(*filled, "--open", cwd=home, env=env).returncode == 0
    waited = time.monotonic() + 10
    while not told.exists() and time.monotonic() < waited:
        time.sleep(0.01)
    assert told.read_text() == f"{tmp_path / 's.png'}\n"


def test_results_lead_to_their_files_on_a_terminal(home: Path) -> None:
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 200))
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    subprocess.run([COMMAND, "search", "me.jpg"], cwd=home, stdout=side, env=env, timeout=60, check=True)
    os.close(side)
    said = os.read(main, 1 << 16).decode()
    os.close(main)
    first = (home / "photos" / "Ada").resolve().as_uri().rpartition("/")[0]
    assert f"\x1b]8;;{first}/" in said
    assert "\x1b]8" not in lookalike("search", "me.jpg", cwd=home).stdout
