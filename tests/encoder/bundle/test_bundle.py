"""Bundles on disk: what is saved opens equal, its id is that of its content, path or name finds it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.bundle import Bundle, BundleSpec, shipped_bundles, storage
from lookalike.encoder.errors import BundleCorruptError, BundleNotFoundError, InvalidArgumentError
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from tests.fixtures.tiny_models import FILES, assert_same, nothing_left, save_again

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
        {"golden": {**golden, "pixels": 255 - golden["pixels"]}},
        {"statistics": replace(statistics, mean=statistics.mean + 1)},
        {"affine": replace(affine, matrix=-affine.matrix)},
    ]
    words: dict[str, Any] = {
        "kind": "vae",
        "image": replace(tiny.spec.image, crop=Crop()),
        "mirror": False,
        "opset": 19,
        "labels": "person",
        "classes": ("7",),
        "training": {},
        "figures": {},
    }
    changes += [{"spec": replace(tiny.spec, **{name: word})} for name, word in words.items()]
    ids = {save_again(tiny, tmp_path / "faces", **change).model_id for change in changes}
    assert len(ids) == len(changes)


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
        with pytest.raises(BundleNotFoundError, match="shipped models: "):
            Bundle.open(where)


def test_shipped_bundles_open_by_name_and_say_it(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in shipped_bundles().items():
        assert Bundle.open(name).folder == folder.resolve()
        assert Bundle.open(folder).address == name
    monkeypatch.setattr(storage, "files", lambda package: tmp_path / package)
    shutil.move(copy, tmp_path / "lookalike.encoder" / "shipped" / "tiny-faces")
    (tmp_path / "lookalike.encoder" / "shipped" / "unfinished").mkdir()
    assert list(shipped_bundles()) == ["tiny-faces"]
    opened = Bundle.open("tiny-faces")
    assert (opened.name, opened.address) == ("tiny-faces", "tiny-faces")
    Model(opened).check()
    with pytest.raises(BundleNotFoundError, match="shipped models: tiny-faces"):
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


@pytest.mark.parametrize("name", ["denoiser", "../encoder", "", "bundle.json"])
def test_graph_it_does_not_have_is_an_option_error(tiny: Bundle, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"it has decoder, encoder"):
        tiny.graph(name)


def test_opening_needs_neither_torch_nor_onnxruntime(tiny: Bundle) -> None:
    code = (
        f"import sys; from lookalike.encoder.bundle.bundle import Bundle; Bundle.open({str(tiny.folder)!r}); "
        "print(*sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
