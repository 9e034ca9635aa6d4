"""Damaged bundles: whatever is wrong with one is said by name, on one line, and never run."""

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle, BundleSpec
from lookalike.encoder.errors import BundleCorruptError, BundleError, BundleTooNewError
from tests.fixtures.tiny_models import FILES, arrays_of, assert_same, forge, npz


def opened_or_refused(folder: Path) -> Bundle | None:
    """The bundle, or None where it is refused by name on one line; any other exception is a failure."""
    try:
        return Bundle.open(folder)
    except BundleError as error:
        message = str(error)
    assert str(folder) in message
    assert "\n" not in message
    return None


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
        assert place[-1] in {
            "kind",
            "mirror",
            "labels",
            "opset",
            "classes",
            "training",
            "figures",
            "crop",
            "format",
        }
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
        b'{"format": 5, "model": "\\ud800", "files": {}, "model_id": ""}',
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_bundle_json_that_is_no_description_is_refused(copy: Path, text: bytes) -> None:
    (copy / "bundle.json").write_bytes(text)
    with pytest.raises(BundleCorruptError, match="faces"):
        Bundle.open(copy)


def test_newer_format_is_refused_whatever_else_it_says(copy: Path) -> None:
    (copy / "bundle.json").write_text('{"format": 6, "anything": "else"}')
    with pytest.raises(
        BundleTooNewError, match=r"faces has format 6, this lookalike reads format 5; upgrade"
    ):
        Bundle.open(copy)


@pytest.mark.parametrize("version", [-1, 0, 1, 4])
def test_earlier_formats_are_refused(copy: Path, version: int) -> None:
    forge(copy, change=lambda content: content.update(format=version))
    with pytest.raises(BundleError, match=rf"faces has format {version}, .* reads format 5; train it again"):
        Bundle.open(copy)


@pytest.mark.parametrize("version", [True, 5.0, "5", None])
def test_formats_that_are_no_whole_number_are_refused(copy: Path, version: object) -> None:
    forge(copy, change=lambda content: content.update(format=version))
    with pytest.raises(BundleCorruptError, match="the format a whole number"):
        Bundle.open(copy)


def test_labels_that_never_were_are_refused(copy: Path) -> None:
    forge(copy, change=lambda content: content["model"].update(labels="pets"))
    with pytest.raises(BundleCorruptError, match="invalid labels of a model: 'pets'"):
        Bundle.open(copy)


def test_unknown_keys_are_refused(copy: Path) -> None:
    original = (copy / "bundle.json").read_bytes()
    (copy / "bundle.json").write_bytes(original)
    forge(copy, change=lambda content: content.update(colour="red"))
    with pytest.raises(BundleCorruptError, match="exactly files, format, model, model_id"):
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
    with pytest.raises(BundleCorruptError, match="the files of this bundle must be"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "golden.npz", "latents.npz"])
def test_table_of_files_must_name_what_is_read(copy: Path, name: str) -> None:
    forge(copy, change=lambda content: content["files"].pop(name))
    with pytest.raises(BundleCorruptError, match="the files of this bundle must be"):
        Bundle.open(copy)


def test_files_beside_the_table_are_ignored(copy: Path, tiny: Bundle) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "denoiser.onnx").write_text("not theirs")
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
