"""Bundles are saved whole or not at all, replaced at once, and nothing else is ever replaced."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.bundle import Bundle, BundleSpec, check_target
from lookalike.encoder.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    InvalidArgumentError,
)
from lookalike.encoder.images import NoiseSpec
from tests.fixtures.tiny_models import FILES, assert_same, forge, nothing_left, save_again


def test_bundle_is_replaced_whole(copy: Path, tiny: Bundle) -> None:
    changed = save_again(tiny, copy, spec=replace(tiny.spec, mirror=False))
    assert Bundle.open(copy).model_id == changed.model_id != tiny.model_id
    nothing_left(copy.parent, but={"faces"})
    nothing_left(copy, but=set(FILES))


def test_bundle_is_saved_however_the_folder_is_written(
    copy: Path, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.parent)
    (copy.parent / "link").symlink_to("faces")
    (copy.parent / "empty").mkdir()
    for where in ("deep/er/a b", "./faces/", "link", "empty"):
        saved = save_again(tiny, Path(where), spec=replace(tiny.spec, training={"where": where}))
        assert Bundle.open(where).model_id == saved.model_id
        assert saved.folder == Path(where).resolve()
    assert Path("link").is_symlink()
    nothing_left(copy.parent, but={"faces", "link", "empty", "deep"})


def test_saved_folder_can_be_read_by_others(tiny: Bundle, tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        folder = save_again(tiny, tmp_path / "faces").folder
    finally:
        os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def _project(folder: Path) -> None:
    folder.mkdir()
    (folder / "bundle.json").write_text('{"name": "a web page"}')
    (folder / "index.js").touch()


@pytest.mark.parametrize(
    "make",
    [
        Path.touch,
        lambda folder: (folder / "photos").mkdir(parents=True),
        _project,
        lambda folder: folder.symlink_to(folder),
    ],
    ids=["file", "photos", "another bundle.json", "circle"],
)
def test_what_is_no_bundle_is_never_replaced(
    tiny: Bundle, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    target = tmp_path / "mine"
    make(target)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidArgumentError, match="mine"):
        save_again(tiny, target)
    with pytest.raises(InvalidArgumentError, match="mine"):
        check_target(target)
    assert sorted(tmp_path.rglob("*")) == before


def test_bundle_to_which_something_was_added_is_not_replaced(copy: Path, tiny: Bundle) -> None:
    check_target(copy)
    (copy / "thesis.odt").write_text("years of work")
    with pytest.raises(InvalidArgumentError, match=r"also holds thesis\.odt"):
        save_again(tiny, copy)
    assert (copy / "thesis.odt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"training": {"a": Path("x")}}, "finite JSON values"),
        ({"training": {"a": float("nan")}}, "finite JSON values"),
        ({"figures": {"a": "\ud800"}}, "finite JSON values"),
        ({"latent": 5}, "golden latents must be finite float32 (4, 5), got float32 (4, 4)"),
        ({"embedding": 3}, "matrix must be"),
        ({"opset": 0}, "invalid opset of a model: 0"),
        ({"kind": "gan"}, "invalid kind of a model: 'gan'"),
        ({"mirror": 1}, "invalid mirror of a model: 1"),
    ],
)
def test_parts_that_do_not_fit_leave_the_old_bundle(
    copy: Path, tiny: Bundle, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        save_again(tiny, copy, spec=replace(tiny.spec, **change))
    assert reason in str(caught.value)
    assert_same(Bundle.open(copy), tiny)
    nothing_left(copy.parent, but={"faces"})


def test_a_model_with_a_decoder_needs_golden_pictures_and_one_without_does_not(
    copy: Path, tiny: Bundle
) -> None:
    blind = {name: array for name, array in tiny.golden.items() if name != "decoded"}
    with pytest.raises(InvalidArgumentError, match="a model with a decoder must have golden decoded"):
        save_again(tiny, copy, golden=blind)
    graphs = {"encoder": tiny.graph("encoder")}
    saved = save_again(tiny, copy, golden=blind, graphs=graphs, spec=replace(tiny.spec, kind="encoder"))
    assert (saved.graphs, list(saved.golden)) == (("encoder",), ["pixels", "latents"])
    with pytest.raises(InvalidArgumentError, match=r"it has encoder; it can search, not generate"):
        saved.graph("decoder")


def test_graphs_must_have_known_names(copy: Path, tiny: Bundle) -> None:
    for graphs in ({}, {"decoder": b""}, {"encoder": b"", "../x": b""}):
        with pytest.raises(InvalidArgumentError, match="the files of this bundle must be"):
            save_again(tiny, copy, graphs=graphs)
    save_again(tiny, copy, graphs={"encoder": tiny.graph("encoder")})
    assert Bundle.open(copy).graphs == ("encoder",)


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full: writing on fails with EFBIG."""
    resource = pytest.importorskip("resource", reason="limits on files are POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_old_bundle_and_nothing_else(copy: Path, tiny: Bundle) -> None:
    with (
        _files_of_at_most(8192),
        pytest.raises(BundleError, match=r"faces cannot be written \(File too large"),
    ):
        save_again(tiny, copy)
    assert_same(Bundle.open(copy), tiny)
    nothing_left(copy.parent, but={"faces"})


def test_folder_that_cannot_be_made_is_an_error_by_name(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (tmp_path / "file" / "faces", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises((BundleError, InvalidArgumentError)) as caught:
            save_again(tiny, where)
        assert "\n" not in str(caught.value)
    nothing_left(tmp_path, but={"file"})


def test_longest_name_that_a_folder_may_have_can_be_saved(tiny: Bundle, tmp_path: Path) -> None:
    assert save_again(tiny, tmp_path / ("x" * 255)).name == "x" * 255


def test_save_at_once_by_several_leaves_one_whole(tiny: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "faces"
    specs = [replace(tiny.spec, training={"writer": writer}) for writer in range(4)]
    errors: list[BaseException] = []
    done = threading.Event()

    def write(spec: BundleSpec) -> None:
        try:
            for _ in range(8):
                save_again(tiny, target, spec=spec)
        except BaseException as error:  # shown by the assertion below
            errors.append(error)

    def read() -> None:
        while not done.is_set():
            try:
                assert Bundle.open(target).spec in specs
            except BundleError:  # between two; never half of one and half of another
                pass
            except BaseException as error:
                errors.append(error)

    writers = [threading.Thread(target=write, args=(spec,)) for spec in specs]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert not errors
    assert Bundle.open(target).spec in specs
    nothing_left(tmp_path, but={"faces"})


def test_killed_while_saving_leaves_a_bundle_or_none(copy: Path, tiny: Bundle) -> None:
    writer = f"""
import sys
from lookalike.encoder.bundle.bundle import Bundle
from tests.fixtures.tiny_models import save_again
bundle = Bundle.open({str(tiny.folder)!r})
print("go", flush=True)
while True:
    save_again(bundle, sys.argv[1])
"""
    for wait in (0.02, 0.05):
        with subprocess.Popen([sys.executable, "-c", writer, str(copy)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            threading.Event().wait(wait)
            process.kill()
        try:
            assert_same(Bundle.open(copy), tiny)
        except BundleNotFoundError:  # killed between two renames; the old one is in .lookalike-*
            assert not copy.exists()
        assert_same(save_again(tiny, copy), tiny)


def test_a_bundle_that_cleans_says_what_and_others_stay_as_they_were(tiny: Bundle, tmp_path: Path) -> None:
    before = (tiny.folder / "bundle.json").read_bytes()
    assert b"denoises" not in before
    noise = NoiseSpec.parse("0:50")
    taught = save_again(tiny, tmp_path / "taught", spec=replace(tiny.spec, denoises=noise))
    assert Bundle.open(taught.folder).spec.denoises == noise
    again = save_again(taught, tmp_path / "again", spec=replace(taught.spec, denoises=None))
    assert (again.folder / "bundle.json").read_bytes() == before


@pytest.mark.parametrize("value", [None, "0:50", {"kind": "snow", "low": 0, "high": 1}, {"kind": "gaussian"}])
def test_a_bundle_that_cleans_what_cannot_be_is_damaged(copy: Path, value: object) -> None:
    forge(copy, change=lambda content: content["model"].update(denoises=value))
    with pytest.raises(BundleCorruptError, match="noise"):
        Bundle.open(copy)
