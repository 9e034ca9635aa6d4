"""Bundles on disk: whole, checked, replaced at once; whatever is wrong with one is said by name."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder import bundle as bundle_module
from encoder.bundle import (
    AffineMap,
    Bundle,
    BundleSpec,
    Golden,
    LatentStatistics,
    check_target,
    shipped_bundles,
)
from encoder.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleTooNewError,
    GoldenMismatchError,
    OptionError,
)
from encoder.images import Crop
from encoder.model import Model
from tests.models import forge, pictures, save_again

FILES = ("bundle.json", "decoder.onnx", "encoder.onnx", "golden.npz", "latents.npz")


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "faces"))


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Bundle:
    return Bundle.open(tiny_model)


def npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def arrays_of(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    with np.load(folder / name) as archive:
        return dict(archive)


def assert_same(one: Bundle, other: Bundle) -> None:
    assert (one.model_id, one.spec, one.graphs) == (other.model_id, other.spec, other.graphs)
    for part in ("statistics", "affine", "golden"):
        for name in getattr(one, part).__slots__:
            ours, theirs = getattr(getattr(one, part), name), getattr(getattr(other, part), name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    for graph in one.graphs:
        name = graph.removesuffix(".onnx")
        assert one.graph(name) == other.graph(name)


def nothing_left(folder: Path, *, but: set[str]) -> None:
    assert {path.name for path in folder.iterdir()} == but


def opened_or_refused(folder: Path) -> Bundle | None:
    """The bundle, or None where it is refused by name on one line; any other exception is a failure."""
    try:
        return Bundle.open(folder)
    except BundleError as error:
        message = str(error)
    assert str(folder) in message
    assert "\n" not in message
    return None


# Round trip and identity


def test_what_is_saved_opens_equal(tiny: Bundle, tmp_path: Path) -> None:
    saved = save_again(tiny, tmp_path / "copy")
    assert saved.folder == (tmp_path / "copy").resolve()
    assert_same(saved, tiny)
    assert_same(Bundle.open(tmp_path / "copy"), tiny)
    nothing_left(tmp_path / "copy", but=set(FILES))


def test_description_survives_json(tiny: Bundle) -> None:
    spec = replace(tiny.spec, classes=("null", "eins", "β"), training={"a": [1, {"b": None}]}, kind="cvae")
    assert BundleSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_names_are_exported() -> None:
    for name in bundle_module.__all__:
        assert hasattr(bundle_module, name)


def test_model_id_is_that_of_the_content_alone(tiny: Bundle, tmp_path: Path) -> None:
    saved = save_again(tiny, tmp_path / "elsewhere" / "ünder a näme")
    os.utime(saved.folder / "encoder.onnx", (0, 0))
    assert Bundle.open(saved.folder).model_id == tiny.model_id
    assert len(tiny.model_id) == 64


def test_model_id_changes_with_every_part(tiny: Bundle, tmp_path: Path) -> None:
    graphs = {name: tiny.graph(name) for name in ("encoder", "decoder")}
    golden, statistics, affine = tiny.golden, tiny.statistics, tiny.affine
    changes: list[dict[str, Any]] = [
        {},
        {"graphs": graphs | {"encoder": graphs["encoder"] + b"\0"}},
        {"graphs": graphs | {"decoder": graphs["decoder"] + b"\0"}},
        {"golden": replace(golden, pixels=255 - golden.pixels)},
        {"statistics": replace(statistics, mean=statistics.mean + 1)},
        {"affine": replace(affine, matrix=-affine.matrix)},
    ]
    words: dict[str, Any] = {
        "kind": "vae",
        "image": replace(tiny.spec.image, crop=Crop()),
        "mirror": False,
        "opset": 19,
        "classes": ("7",),
        "training": {},
        "figures": {},
    }
    changes += [{"spec": replace(tiny.spec, **{name: word})} for name, word in words.items()]
    ids = {save_again(tiny, tmp_path / "faces", **change).model_id for change in changes}
    assert len(ids) == len(changes)


# Damage


def test_any_changed_word_of_bundle_json_is_found(copy: Path) -> None:
    def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(inner, dict | list) and inner:
                yield from leaves(inner)
            else:
                yield value, key

    content = json.loads((copy / "bundle.json").read_bytes())
    found = list(leaves(content))
    assert len(found) > 15
    for holder, key in found:
        for other in ("x", 0.5, None):
            kept, holder[key] = holder[key], other
            (copy / "bundle.json").write_text(json.dumps(content))
            with pytest.raises(BundleError, match="faces"):
                Bundle.open(copy)
            holder[key] = kept
    (copy / "bundle.json").write_text(json.dumps(content))
    Bundle.open(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "longer", "folder"])
def test_spoilt_files_are_refused_by_name(copy: Path, name: str, damage: str) -> None:
    file = copy / name
    data = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "missing":
        file.write_bytes({"empty": b"", "half": data[: len(data) // 2], "longer": data + b"x"}[damage])
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy)
    message = str(caught.value)
    assert str(copy) in message
    assert name in message
    assert "\n" not in message


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_flipped_byte_is_refused_or_changes_nothing(tiny: Bundle, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    file = tiny.folder.parent / "flipped" / name
    shutil.copytree(tiny.folder, file.parent, dirs_exist_ok=True)
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    opened = opened_or_refused(file.parent)
    if opened is not None:  # one kind of space in bundle.json became another
        assert name == "bundle.json"
        assert_same(opened, tiny)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    (),
    ("format",),
    ("model_id",),
    ("files",),
    ("files", "golden.npz"),
    ("model",),
    ("model", "unheard"),
]
PLACES += [("model", "image", key) for key in ("size", "channels", "crop")]
PLACES += [("model", field.name) for field in fields(BundleSpec)]


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_json_of_any_shape_gives_only_our_errors(tiny: Bundle, place: tuple[str, ...], value: object) -> None:
    folder = tiny.folder.parent / "shapes"
    shutil.copytree(tiny.folder, folder, dirs_exist_ok=True)

    def change(content: dict[str, Any]) -> None:
        holder = content
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1] if place else str(value)] = value

    if place == ("model_id",):
        content = json.loads((folder / "bundle.json").read_bytes())
        (folder / "bundle.json").write_text(json.dumps(content | {"model_id": value}))
    else:
        forge(folder, change=change)
    opened = opened_or_refused(folder)
    if opened is not None:
        assert place[-1] in {"kind", "mirror", "opset", "classes", "training", "figures", "crop", "format"}
        assert opened.spec == BundleSpec.from_json(json.loads(json.dumps(opened.spec.to_json())))
        assert opened.spec.latent == tiny.spec.latent


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"format"',
        b"{}",
        b"{",
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"format": ' + b"9" * 5_000 + b"}",
        b'{"format": NaN}',
        b'{"format": 1e999, "model": 1, "files": {}, "model_id": ""}',
        b'{"format": true, "model": {}, "files": {}, "model_id": ""}',
        b'{"format": 1, "model": "\\ud800", "files": {}, "model_id": ""}',
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_bundle_json_that_is_no_description_is_refused(copy: Path, text: bytes) -> None:
    (copy / "bundle.json").write_bytes(text)
    with pytest.raises(BundleCorruptError, match="faces"):
        Bundle.open(copy)


def test_newer_format_is_refused_whatever_else_it_says(copy: Path) -> None:
    (copy / "bundle.json").write_text('{"format": 2, "anything": "else"}')
    with pytest.raises(BundleTooNewError, match=r"faces has format 2, this lookalike reads up to 1; upgrade"):
        Bundle.open(copy)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None])
def test_formats_that_never_were_are_refused(copy: Path, version: object) -> None:
    forge(copy, change=lambda content: content.update(format=version))
    with pytest.raises(BundleCorruptError, match="format 1"):
        Bundle.open(copy)


def test_unknown_keys_are_refused(copy: Path) -> None:
    original = (copy / "bundle.json").read_bytes()
    (copy / "bundle.json").write_bytes(original)
    forge(copy, change=lambda content: content.update(colour="red"))
    with pytest.raises(BundleCorruptError, match="files, format, model, model_id and no more"):
        Bundle.open(copy)
    (copy / "bundle.json").write_bytes(original)
    forge(copy, change=lambda content: content["model"].update(colour="red"))
    with pytest.raises(BundleCorruptError, match="unknown or missing: colour"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "name", ["../secret.npz", "/etc/passwd", "..", "", ".", "a/../golden.npz", "a\0b", "x" * 300, "notes.txt"]
)
def test_table_of_files_cannot_name_others(copy: Path, name: str) -> None:
    (copy.parent / "secret.npz").write_bytes(b"")
    (copy / "notes.txt").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    forge(copy, change=lambda content: content["files"].update({name: empty}))
    with pytest.raises(BundleCorruptError, match="the files of a bundle are"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "golden.npz", "latents.npz"])
def test_table_of_files_must_name_what_is_read(copy: Path, name: str) -> None:
    forge(copy, change=lambda content: content["files"].pop(name))
    with pytest.raises(BundleCorruptError, match="the files of a bundle are"):
        Bundle.open(copy)


def test_files_beside_the_table_are_ignored(copy: Path, tiny: Bundle) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "cleaner.onnx").write_text("not theirs")
    assert_same(Bundle.open(copy), tiny)


@pytest.mark.parametrize(
    ("file", "name", "other"),
    [
        ("golden.npz", "pixels", np.zeros((4, 16, 16, 1), np.uint8)),
        ("golden.npz", "pixels", np.zeros((0, 16, 16, 3), np.uint8)),
        ("golden.npz", "pixels", np.uint8(3)),
        ("golden.npz", "latents", np.zeros((4, 4), np.float64)),
        ("golden.npz", "decoded", np.full((4, 16, 16, 3), np.nan, np.float32)),
        ("latents.npz", "mean", np.zeros(5, np.float32)),
        ("latents.npz", "covariance", np.zeros(4, np.float32)),
        ("latents.npz", "matrix", np.zeros((3, 4), np.float32)),
        ("latents.npz", "offset", np.full(4, np.inf, np.float32)),
        ("latents.npz", "offset", np.array(["a"] * 4)),
        ("latents.npz", "offset", np.zeros(4, ">f4")),
    ],
)
def test_arrays_that_do_not_fit_are_refused(copy: Path, file: str, name: str, other: NDArray[Any]) -> None:
    forge(copy, files={file: npz(**(arrays_of(copy, file) | {name: other}))})
    with pytest.raises(BundleCorruptError, match=f"faces is damaged: (golden )?{name} must be finite"):
        Bundle.open(copy)


def _npy(header: str) -> bytes:
    body = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def _zipped(content: bytes) -> bytes:
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("pixels", "latents", "decoded"):
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        b"text",
        pickle.dumps([1]),
        _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }"),
        _zipped(_npy("")),
        _zipped(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }")),
        _zipped(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }")),
        _zipped(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }")),
        _zipped(_npy("{'descr': 'V9999999999', 'fortran_order': False, 'shape': (1,), }")),
        _zipped(_npy("((((((")),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_files_that_hold_no_arrays_are_refused(copy: Path, data: bytes) -> None:
    forge(copy, files={"golden.npz": data})
    with pytest.raises(BundleCorruptError, match=r"golden\.npz does not hold the arrays"):
        Bundle.open(copy)


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickles_are_refused_and_never_run(copy: Path, tmp_path: Path) -> None:
    trap = _Trap(tmp_path / "sprung")
    pickle.loads(pickle.dumps(trap))  # noqa: S301 (it is ours: to see that the trap works)
    (tmp_path / "sprung").rmdir()
    arrays = arrays_of(copy, "golden.npz") | {"pixels": np.array([trap], dtype=object)}
    for data in (npz(**arrays), pickle.dumps(trap)):
        forge(copy, files={"golden.npz": data})
        with pytest.raises(BundleCorruptError, match=r"golden\.npz"):
            Bundle.open(copy)
        assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["latents", "decoded"])
def test_other_golden_values_are_refused_by_name(copy: Path, name: str) -> None:
    arrays = arrays_of(copy, "golden.npz")
    forge(copy, files={"golden.npz": npz(**(arrays | {name: arrays[name][::-1]}))})
    model = Model(Bundle.open(copy))
    for _ in range(2):  # it stays refused
        with pytest.raises(GoldenMismatchError, match=r"faces does not reproduce its golden values here"):
            model.check()


# Opening


def test_folder_is_found_however_it_is_written(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_again(tiny, tmp_path / "mein Modell ✓").folder
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for where in (folder, str(folder), f"{folder}/", "mein Modell ✓", "./mein Modell ✓/", "link", "link/."):
        opened = Bundle.open(where)
        assert (opened.folder, opened.name, opened.address) == (folder, "mein Modell ✓", str(folder))
    monkeypatch.chdir(folder)
    assert Bundle.open(".").folder == folder


def test_read_only_folder_opens(copy: Path, tiny: Bundle) -> None:
    for path in (*copy.iterdir(), copy):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert_same(Bundle.open(copy), tiny)
    copy.chmod(0o755)


@pytest.mark.parametrize("where", ["nowhere", "no\nwhere", "x" * 300, "a\0b", "\udcff", "~"])
def test_what_is_not_there_is_not_found(where: str) -> None:
    with pytest.raises(BundleNotFoundError) as caught:
        Bundle.open(where)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_folder_without_bundle_json_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    for where in (tmp_path, tmp_path / "circle", tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(BundleNotFoundError, match="shipped: "):
            Bundle.open(where)


def test_shipped_bundles_open_by_name_and_say_it(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in shipped_bundles().items():
        assert Bundle.open(name).folder == folder.resolve()
        assert Bundle.open(folder).address == name
    monkeypatch.setattr(bundle_module, "files", lambda package: tmp_path / package)
    shutil.move(copy, tmp_path / "encoder" / "shipped" / "tiny-faces")
    (tmp_path / "encoder" / "shipped" / "unfinished").mkdir()
    assert list(shipped_bundles()) == ["tiny-faces"]
    opened = Bundle.open("tiny-faces")
    assert (opened.name, opened.address) == ("tiny-faces", "tiny-faces")
    Model(opened).check()
    with pytest.raises(BundleNotFoundError, match="shipped: tiny-faces"):
        Bundle.open("huge-faces")


def test_graph_that_changes_while_the_bundle_is_open_is_refused(copy: Path, tiny: Bundle) -> None:
    opened = Bundle.open(copy)
    assert opened.graph("encoder") == tiny.graph("encoder")
    (copy / "encoder.onnx").write_bytes(tiny.graph("decoder"))
    with pytest.raises(BundleCorruptError, match=r"has changed since it was opened: encoder\.onnx"):
        opened.graph("encoder")
    shutil.rmtree(copy)
    with pytest.raises(BundleCorruptError, match=r"decoder\.onnx cannot be read"):
        opened.graph("decoder")


@pytest.mark.parametrize("name", ["cleaner", "../encoder", "", "bundle.json"])
def test_graph_it_does_not_have_is_an_option_error(tiny: Bundle, name: str) -> None:
    with pytest.raises(OptionError, match=r"it has decoder\.onnx, encoder\.onnx"):
        tiny.graph(name)


# Saving


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
    with pytest.raises(OptionError, match="mine"):
        save_again(tiny, target)
    with pytest.raises(OptionError, match="mine"):
        check_target(target)
    assert sorted(tmp_path.rglob("*")) == before


def test_bundle_to_which_something_was_added_is_not_replaced(copy: Path, tiny: Bundle) -> None:
    check_target(copy)
    (copy / "thesis.odt").write_text("years of work")
    with pytest.raises(OptionError, match=r"holds thesis\.odt too"):
        save_again(tiny, copy)
    assert (copy / "thesis.odt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"training": {"a": Path("x")}}, "finite JSON values"),
        ({"training": {"a": float("nan")}}, "finite JSON values"),
        ({"figures": {"a": "\ud800"}}, "finite JSON values"),
        ({"latent": 5}, "mean must be finite float32 (5,), got float32 (4,)"),
        ({"embedding": 3}, "matrix must be"),
        ({"opset": 0}, "the opset of a model cannot be 0"),
        ({"kind": "gan"}, "the kind of a model cannot be 'gan'"),
        ({"mirror": 1}, "the mirror of a model cannot be 1"),
    ],
)
def test_parts_that_do_not_fit_leave_the_old_bundle(
    copy: Path, tiny: Bundle, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(OptionError) as caught:
        save_again(tiny, copy, spec=replace(tiny.spec, **change))
    assert reason in str(caught.value)
    assert_same(Bundle.open(copy), tiny)
    nothing_left(copy.parent, but={"faces"})


def test_graphs_must_have_known_names(copy: Path, tiny: Bundle) -> None:
    for graphs in ({}, {"decoder": b""}, {"encoder": b"", "../x": b""}):
        with pytest.raises(OptionError, match="the files of a bundle are"):
            save_again(tiny, copy, graphs=graphs)
    save_again(tiny, copy, graphs={"encoder": tiny.graph("encoder")})
    assert Bundle.open(copy).graphs == ("encoder.onnx",)


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
        with pytest.raises((BundleError, OptionError)) as caught:
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
from encoder.bundle import Bundle
from tests.models import save_again
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


def test_opening_needs_neither_torch_nor_onnxruntime(tiny: Bundle) -> None:
    code = (
        f"import sys; from encoder.bundle import Bundle; Bundle.open({str(tiny.folder)!r}); "
        "print(*sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_golden_values_are_what_the_graphs_gave(tiny: Bundle) -> None:
    golden, image = tiny.golden, tiny.spec.image
    assert isinstance(golden, Golden)
    assert isinstance(tiny.affine, AffineMap)
    assert isinstance(tiny.statistics, LatentStatistics)
    assert golden.pixels.shape[1:] == pictures(1).shape[1:] == image.shape
    assert np.ptp(golden.pixels) > 50  # pictures, not a flat grey
    model = Model(tiny)
    np.testing.assert_allclose(model.encode(golden.pixels), golden.latents, atol=1e-5)
    np.testing.assert_allclose(model.decode(golden.latents), golden.decoded, atol=1e-5)
