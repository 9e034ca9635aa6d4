"""Public models are downloaded by name, here from a local server, checked by digest, and become bundles."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.datasets import RemoteFile, cache_folder
from lookalike.encoder.datasets import download as downloads
from lookalike.encoder.export import public_models as listed
from lookalike.encoder.export.preprocessing import PRESETS
from lookalike.encoder.export.public_models import PublicModel, public_models
from lookalike.encoder.runtime import Model
from tests.conftest import FileServer
from tests.encoder.export.test_import_model import network
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.two_towers import text_tower, tokenizer, vision_tower


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "PAUSE", 0.0)


@pytest.fixture
def known(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, PublicModel]:
    """Two models on the server: one of images, one that takes text."""
    contents = {
        "faces.onnx": network(side=112).SerializeToString(),
        "colors.onnx": vision_tower().SerializeToString(),
        "colors.text.onnx": text_tower().SerializeToString(),
        "colors.tokenizer.json": tokenizer().to_str().encode(),
    }
    server.files.update(contents)

    def remote(name: str) -> RemoteFile:
        data = contents[name]
        digest = hashlib.sha256(data).hexdigest()
        return RemoteFile(name=name, urls=(f"{server.url}/{name}",), sha256=digest, most=len(data))

    common: dict[str, Any] = {"about": "for a test", "licence": "MIT", "page": server.url}
    made = {
        "colors": PublicModel(
            name="colors",
            preset="clip",
            image=remote("colors.onnx"),
            text=remote("colors.text.onnx"),
            tokenizer=remote("colors.tokenizer.json"),
            **common,
        ),
        "plain": PublicModel(name="plain", preset="imagenet", image=remote("colors.onnx"), **common),
    }
    monkeypatch.setattr(listed, "public_models", lambda: made)
    return made


def test_a_model_is_added_by_its_name_and_used_by_it(known: dict[str, PublicModel], tmp_path: Path) -> None:
    done = lookalike("models", "add", "colors", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'models' / 'colors'}\n"), done.stderr
    assert "licence MIT" in done.stderr
    bundle = Bundle.open("colors")
    assert bundle.spec.training["imported"] == known["colors"].page
    assert Model(bundle).takes_text
    assert bundle.spec.image.resampling == "bicubic"
    assert not (cache_folder() / "models" / "colors").exists()


def test_mirrors_replace_the_publisher(
    known: dict[str, PublicModel], server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["mirror/colors.onnx"] = server.files.pop("colors.onnx")
    monkeypatch.setenv("LOOKALIKE_MIRRORS", f"{server.url}/mirror")
    assert lookalike("models", "add", "plain", cwd=tmp_path).returncode == 0
    assert [path for path, *_ in server.served] == ["mirror/colors.onnx"]


def test_another_file_than_the_listed_one_is_refused(
    known: dict[str, PublicModel], server: FileServer, tmp_path: Path
) -> None:
    server.files["colors.onnx"] = server.files["colors.onnx"][:-1] + b"!"
    done = lookalike("models", "add", "plain", cwd=tmp_path)
    assert done.returncode == 1
    assert "instead of" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "models" / "plain").exists()


def test_a_name_that_is_not_listed_is_refused(known: dict[str, PublicModel], tmp_path: Path) -> None:
    done = lookalike("models", "add", "nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert "no public model 'nothing'; there are colors, plain" in one_line(done)


def test_the_list_is_whole_and_says_size_and_licence(tmp_path: Path) -> None:
    models = public_models()
    assert {"clip-vit-b-32", "dinov2-small", "sface"} <= set(models)
    names = [file.name for model in models.values() for file in model.files]
    assert len(set(names)) == len(names)  # on a mirror all lie side by side
    for model in models.values():
        assert model.preset in PRESETS
        assert model.licence in {"MIT", "Apache-2.0", "BSD-3-Clause"}
        assert (model.text is None) == (model.tokenizer is None)
        for file in model.files:
            assert file.sha256 is not None
            assert len(bytes.fromhex(file.sha256)) == 32
            assert all(url.startswith("https://") for url in file.urls)
            assert 0 < file.most < 1 << 31
    done = lookalike("models", "add", cwd=tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(models)
    assert "608 MB  MIT" in done.stdout
    shown = json.loads(lookalike("models", "add", "--json", cwd=tmp_path).stdout)
    assert [each["name"] for each in shown] == list(models)
    raw = json.loads((files("lookalike.encoder.export") / "public_models.json").read_bytes())
    assert [each["name"] for each in raw] == list(models)
