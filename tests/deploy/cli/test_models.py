"""The list of models: shipped ones, the user's own and those of collections, a line each."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from lookalike.encoder.bundle import models_folders
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sync import sync
from tests.fixtures.command import lookalike
from tests.fixtures.people import write_people


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    """A folder with own/mine, elsewhere/other and collections made by them."""
    home = tmp_path_factory.mktemp("home")
    for place in ("own/mine", "elsewhere/other"):
        (home / place).parent.mkdir()
        shutil.copytree(tiny_model, home / place)
    write_people(home / "people", people=2, each=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_MODELS", str(home / "own"))
        with open_store(str(home / ".lookalike")) as store:
            for name, model in (("a", "mine"), ("b", home / "elsewhere" / "other"), ("c", "mine")):
                sync(store, name, Model.open(model), [home / "people"])
        yield home


def test_each_model_has_a_line_that_says_where_it_is(home: Path) -> None:
    done = lookalike("models", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert len(lines) == len(done.stdout.splitlines())
    assert lines["faces"].split("  ")[-1].strip() == "ae, 64x64x3, vectors of 512, for faces; shipped"
    assert lines["denoise"].endswith("denoiser, images of any size; shipped")
    assert lines["mine"].endswith(f"ae, 16x16x3, vectors of 4; {home / 'own' / 'mine'}; collections: a, c")
    assert lines["other"].endswith(f"vectors of 4; {home / 'elsewhere' / 'other'}; collections: b")
    records = {each["name"]: each for each in json.loads(lookalike("models", "--json", cwd=home).stdout)}
    assert list(records) == list(lines)
    assert records["mine"]["collections"] == ["a", "c"]
    assert records["other"]["folder"] == str(home / "elsewhere" / "other")


def test_an_own_model_is_found_by_its_name(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shown = lookalike("models", "show", "mine", cwd=elsewhere)
    assert shown.stdout.startswith("mine  ae, 16x16x3, latent 4")
    assert lookalike("models", "mine", cwd=elsewhere).stdout == shown.stdout
    found = lookalike("search", "people/person-0/0.png", "-c", "a", "--model", "mine", cwd=home)
    assert found.returncode == 0, found.stderr
    wrong = lookalike("models", "show", "yours", cwd=elsewhere)
    assert "your own: mine" in wrong.stderr


def test_a_damaged_model_does_not_hide_the_others(home: Path) -> None:
    broken = home / "own" / "broken"
    broken.mkdir()
    (broken / "bundle.json").write_text("{")
    done = lookalike("models", cwd=home)
    shutil.rmtree(broken)
    assert done.returncode == 0
    assert "is damaged" in done.stderr
    assert "other" in done.stdout
    assert "broken" not in done.stdout


def test_a_model_that_has_gone_is_named(home: Path) -> None:
    (home / "elsewhere").rename(home / "away")
    done = lookalike("models", cwd=home)
    (home / "away").rename(home / "elsewhere")
    assert done.returncode == 0
    assert "collection b was made by" in done.stderr


def test_listing_makes_no_store(tmp_path: Path) -> None:
    assert lookalike("models", cwd=tmp_path).returncode == 0
    assert not (tmp_path / ".lookalike").exists()


def test_own_models_lie_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LOOKALIKE_MODELS")
    assert models_folders() == [Path(platformdirs.user_data_dir("lookalike")) / "models"]
    monkeypatch.setenv("LOOKALIKE_MODELS", f"{tmp_path}:{tmp_path / 'more'}")
    assert models_folders() == [tmp_path, tmp_path / "more"]
