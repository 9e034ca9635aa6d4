"""Models go to a hub or a folder and come back as they were, or not at all."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.encoder.bundle import Bundle
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.hub import Hub, hub_here

REPOSITORY = "ada/mine"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on this machine, with none of the user's tokens."""
    with hub_here() as here:
        monkeypatch.setenv("HF_ENDPOINT", here.url)
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("LOOKALIKE_MODELS", str(tmp_path / "models"))
        yield here


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_model_goes_to_a_hub_with_its_card_and_comes_back_as_it_was(
    hub: Hub, tiny_model: Path, tmp_path: Path
) -> None:
    done = lookalike("models", "push", tiny_model, f"hf://{REPOSITORY}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{hub.url}/{REPOSITORY}/commit/")
    there = hub.repositories[REPOSITORY]
    card = there["README.md"].decode()
    assert Bundle.open(tiny_model).model_id in card
    assert "# mine" in card
    assert {name: data for name, data in there.items() if name != "README.md"} == files_of(tiny_model)
    back = lookalike("models", "pull", f"hf://{REPOSITORY}", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert back.stdout.strip() == str(tmp_path / "models" / "mine")
    assert files_of(tmp_path / "models" / "mine") == files_of(tiny_model)
    there["README.md"] = b"edited"
    assert lookalike("models", "push", tiny_model, f"hf://{REPOSITORY}", cwd=tmp_path).returncode == 0
    assert there["README.md"] == b"edited"


@pytest.mark.parametrize("name", ["bundle.json", "encoder.onnx", "golden.npz", "latents.npz"])
def test_a_file_that_was_changed_on_the_way_is_not_taken(
    hub: Hub, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    hub.repositories[REPOSITORY] = files_of(tiny_model)
    data = hub.repositories[REPOSITORY][name]
    hub.sent[name] = data[:-1] + bytes([data[-1] ^ 1])
    shutil.copytree(tiny_model, tmp_path / "models" / "mine")  # what was good stays
    error = one_line(lookalike("models", "pull", f"hf://{REPOSITORY}", cwd=tmp_path))
    assert f"hf://{REPOSITORY} was not taken" in error
    assert tempfile.gettempdir() not in error
    assert files_of(tmp_path / "models" / "mine") == files_of(tiny_model)


def test_what_is_no_model_or_too_large_is_not_downloaded(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY] = {"README.md": b"hello"}
    assert "no bundle.json" in one_line(lookalike("models", "pull", f"hf://{REPOSITORY}", cwd=tmp_path))
    hub.repositories[REPOSITORY] = {**files_of(tiny_model), "pickle.pt": b"evil", "run.py": b"evil"}
    hub.sizes["encoder.onnx"] = 1 << 40
    assert "encoder.onnx has" in one_line(lookalike("models", "pull", f"hf://{REPOSITORY}", cwd=tmp_path))
    assert not [path for path in hub.asked if "resolve" in path]
    hub.sizes.clear()
    assert lookalike("models", "pull", f"hf://{REPOSITORY}@main", cwd=tmp_path).returncode == 0
    assert not [path for path in hub.asked if path.endswith((".pt", ".py"))]


@pytest.mark.parametrize("given", ["hub", "folder"])
def test_a_model_that_is_another_than_was_asked_for_is_not_taken(
    hub: Hub, tiny_model: Path, tmp_path: Path, given: str
) -> None:
    hub.repositories[REPOSITORY] = files_of(tiny_model)
    source = f"hf://{REPOSITORY}" if given == "hub" else str(tiny_model)
    right = Bundle.open(tiny_model).model_id
    wrong = "0123456789ab"
    error = one_line(lookalike("models", "pull", source, "--name", "mine", "--model-id", wrong, cwd=tmp_path))
    assert right[:12] in error
    assert wrong in error
    assert not (tmp_path / "models" / "mine").exists()
    for known in (right[:12], right):
        done = lookalike("models", "pull", source, "--name", "mine", "--model-id", known, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert lookalike("models", "pull", source, "--model-id", "be66", cwd=tmp_path).returncode == 2


def test_a_model_is_not_called_as_a_shipped_one(tiny_model: Path, tmp_path: Path) -> None:
    faces = Bundle.open(tiny_model).copied(tmp_path / "faces").folder
    for name in ((), ("--name", "digits")):
        done = lookalike("models", "pull", faces, *name, cwd=tmp_path)
        assert done.returncode == 2
        assert "is the name of a shipped model" in one_line(done)
    assert lookalike("models", "pull", faces, "--name", "mine", cwd=tmp_path).returncode == 0


def test_a_folder_serves_as_a_hub_and_keeps_its_card(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    there = tmp_path / "shelf" / "mine"
    for card in (None, b"edited"):
        if card is not None:
            (there / "README.md").write_bytes(card)
        done = lookalike("models", "push", tiny_model, there, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(there)
        assert card in (None, (there / "README.md").read_bytes())
    assert lookalike("models", "pull", there, cwd=tmp_path).returncode == 0
    assert files_of(tmp_path / "models" / "mine") == files_of(tiny_model)
    listed = json.loads(lookalike("models", "list", "--json", cwd=tmp_path).stdout)
    assert "mine" in [each["name"] for each in listed]
    (there / "letter.txt").write_text("mine")
    assert "letter.txt" in one_line(lookalike("models", "push", tiny_model, there, cwd=tmp_path))
    assert (there / "letter.txt").read_text() == "mine"
    assert not hub.asked


@pytest.mark.parametrize("status", [401, 403, 404, 500])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_what_a_hub_refuses_is_one_line(
    hub: Hub, tiny_model: Path, tmp_path: Path, verb: str, status: int
) -> None:
    hub.refuses = status
    words = (verb, tiny_model, f"hf://{REPOSITORY}") if verb == "push" else (verb, f"hf://{REPOSITORY}")
    done = lookalike("models", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert f"hf://{REPOSITORY}: " in one_line(done)
    assert len(one_line(done)) < 400


def test_a_hub_that_is_not_there_is_one_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert f"hf://{REPOSITORY}: " in one_line(lookalike("models", "pull", f"hf://{REPOSITORY}", cwd=tmp_path))


@pytest.mark.parametrize(
    "address", ["hf://", "hf://ada", "hf://ada/mine/more", "hf://../x", "hf://ada/mine@", "hf://a b/c"]
)
def test_an_address_without_a_repository_is_refused(hub: Hub, tmp_path: Path, address: str) -> None:
    done = lookalike("models", "pull", address, cwd=tmp_path)
    assert done.returncode == 2
    assert "hf://OWNER/NAME" in one_line(done)
    assert not hub.asked


def test_without_the_extra_the_message_says_what_to_install(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for words in (("push", tiny_model, "hf://ada/mine"), ("pull", "hf://ada/mine")):
        assert "pip install 'lookalike[hub]'" in one_line(lookalike("models", *words, cwd=tmp_path))
