"""A folder of Hugging Face's layout becomes a model by its name alone, with its text tower."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import OnnxImportError
from lookalike.encoder.export.export_folder import ExportFolder
from lookalike.encoder.export.text_tower import TextFiles, import_text
from lookalike.encoder.runtime import Model
from tests.encoder.export.test_import_model import network
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.two_towers import CONFIG, make_two_towers, text_tower, tokenizer, write_export


@pytest.fixture(autouse=True)
def _models_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MODELS", str(tmp_path / "models"))


def test_a_folder_is_imported_without_a_flag(tmp_path: Path) -> None:
    write_export(tmp_path / "colors")
    done = lookalike("models", "import", "colors", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'models' / 'colors'}\n"), done.stderr
    bundle = Bundle.open("colors")
    image = bundle.spec.image
    assert (image.size, image.resampling, str(image.crop), bundle.spec.mirror) == (
        8,
        "bicubic",
        "full",
        False,
    )
    assert bundle.spec.text is not None
    assert (bundle.spec.text.length, bundle.spec.text.pad) == (6, None)
    assert "it takes text, too" in done.stderr
    assert "takes text, too" in lookalike("models", "show", "colors", cwd=tmp_path).stdout
    # The towers agree on what red is.
    model = Model(bundle)
    red = np.full((1, 8, 8, 3), (220, 30, 30), np.uint8)
    assert float(model.embed(red)[0] @ model.embed_text("red")) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx", "vision_model.onnx"])
def test_networks_are_found_where_exports_have_them(tmp_path: Path, place: str) -> None:
    folder = write_export(tmp_path / "e", text=False)
    (folder / "onnx" / "vision_model.onnx").rename(folder / place)
    found = ExportFolder.open(folder)
    assert (found.network, found.text) == (folder / place, None)


def test_a_row_of_tokens_gives_its_first(tmp_path: Path) -> None:
    tokens = helper.make_node("Unsqueeze", ["vector", "axis"], ["one"])
    axis = helper.make_node("Constant", [], ["axis"], value_ints=[1])
    twice = helper.make_node("Neg", ["one"], ["negative"])
    row = helper.make_node("Concat", ["one", "negative"], ["last_hidden_state"], axis=1)
    folder = tmp_path / "e"
    folder.mkdir()
    model = network(extra=[axis, tokens, twice, row], outputs=("last_hidden_state",))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "preprocessor_config.json").write_text(CONFIG)
    done = lookalike("models", "import", "e", "--name", "row", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Bundle.open("row").spec.latent == 6


@pytest.mark.parametrize(
    ("made", "length", "pad"),
    [
        ({}, 6, None),
        ({"mask": False}, 6, None),
        ({"integer": TensorProto.INT32}, 6, None),
        ({"tokens": 9}, 9, 0),
    ],
    ids=str,
)
def test_text_towers_of_many_kinds_are_taken(
    tmp_path: Path, made: dict[str, Any], length: int, pad: int | None
) -> None:
    files = TextFiles(tmp_path / "t.onnx", tmp_path / "tokenizer.json", tmp_path / "config.json")
    files.graph.write_bytes(text_tower(**made).SerializeToString())
    files.tokenizer.write_text(tokenizer().to_str())
    (tmp_path / "config.json").write_text('{"model_max_length": 6}')
    tower = import_text(files, 3)
    assert (tower.spec.length, tower.spec.pad) == (length, pad)


def test_the_tokenizer_itself_may_say_the_length(tmp_path: Path) -> None:
    files = TextFiles(tmp_path / "t.onnx", tmp_path / "tokenizer.json")
    files.graph.write_bytes(text_tower().SerializeToString())
    files.tokenizer.write_text(tokenizer(truncated=True).to_str())
    assert import_text(files, 3).spec.length == 5


def test_towers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_export(tmp_path / "e")
    (tmp_path / "e" / "tokenizer.json").write_text("{}")
    refused = lookalike("models", "import", "e", cwd=tmp_path)
    assert refused.returncode == 1
    assert "tokenizer.json cannot be read" in one_line(refused)
    (tmp_path / "e" / "tokenizer.json").write_text(tokenizer().to_str())
    (tmp_path / "e" / "onnx" / "text_model.onnx").write_bytes(network().SerializeToString())
    assert "a text tower takes input_ids" in one_line(lookalike("models", "import", "e", cwd=tmp_path))
    assert not (tmp_path / "models" / "e").exists()


def test_a_folder_without_a_network_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(OnnxImportError, match=r"holds no network; looked for onnx/vision_model\.onnx"):
        ExportFolder.open(tmp_path)


def test_a_model_of_two_towers_survives_saving(tmp_path: Path) -> None:
    bundle = make_two_towers(tmp_path)
    again = Bundle.open(bundle.folder)
    assert again.spec == bundle.spec
    assert again.graphs == ("encoder", "text")
    Model(again).check()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("my.onnx --name new", "--preset, or --mean and --std"),
        ("my.onnx --preset clip --text t.onnx", "--text and --tokenizer need each other"),
        ("my.onnx --preset clip --weights my.onnx", "--weights is for torchvision"),
        ("my.onnx --preset none", "is not one of"),
    ],
)
def test_options_that_cannot_be_are_said(tmp_path: Path, words: str, said: str) -> None:
    (tmp_path / "my.onnx").write_bytes(network().SerializeToString())
    done = lookalike("models", "import", *words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("preset", "shown"),
    [
        ("clip", ("bicubic", "full", False)),
        ("imagenet", ("bilinear", "center:0.875", False)),
        ("dinov2", ("bicubic", "center:0.875", False)),
        ("arcface", ("bilinear", "full", True)),
    ],
)
def test_presets_prepare_images_and_options_override_them(
    tmp_path: Path, preset: str, shown: tuple[str, str, bool]
) -> None:
    (tmp_path / "my.onnx").write_bytes(network().SerializeToString())
    done = lookalike("models", "import", "my.onnx", "--preset", preset, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = Bundle.open("my").spec
    assert (spec.image.resampling, str(spec.image.crop), spec.mirror) == shown
    assert (spec.frame is not None) == (preset == "arcface")
    words = f"models import my.onnx --preset {preset} --crop center:0.5 --resampling lanczos --bgr --mirror"
    assert lookalike(*words.split(), cwd=tmp_path).returncode == 0
    changed = Bundle.open("my").spec
    assert (changed.image.resampling, str(changed.image.crop)) == ("lanczos", "center:0.5")
    assert (changed.mirror, changed.training["order"]) == (True, "bgr")
