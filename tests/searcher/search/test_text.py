"""Words find pictures where the model has a text tower, alone and together with pictures."""

import json
from pathlib import Path

import numpy as np
import pytest

import lookalike as la
from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import BundleCorruptError, InvalidArgumentError
from lookalike.encoder.runtime import Model
from tests.fixtures.command import lookalike
from tests.fixtures.two_towers import make_two_towers, write_colors


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with colors/ (a model), photos/ and their collection."""
    folder = tmp_path_factory.mktemp("words")
    make_two_towers(folder)
    write_colors(folder / "photos")
    store = la.open_store(str(folder / ".lookalike"))
    la.index(folder / "photos", model=folder / "colors", store=store, collection="photos")
    store.close()
    return folder


def found(home: Path, *words: str | Path) -> list[str]:
    done = lookalike("search", *words, "-n", "3", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    return [result["path"] for result in answer["results"]]


@pytest.mark.parametrize("color", ["red", "green", "blue"])
def test_words_find_pictures(home: Path, color: str) -> None:
    for text in (color, color.upper(), f"a {color} {color} thing"):
        assert {path.partition("-")[0] for path in found(home, text)[:2]} == {color}


def test_words_and_pictures_are_one_query(home: Path) -> None:
    assert found(home, "red", "--like", "photos/blue-0.png")[0].startswith(("red", "blue"))
    assert found(home, "red", "--like", "green", "--unlike", "red red")[0].startswith("green")
    mixed = lookalike("search", "red", "--like", "blue", "--json", cwd=home)
    (answer,) = json.loads(mixed.stdout)
    assert (answer["query"], answer["like"]) == ("red + blue", ["red", "blue"])


def test_a_name_of_an_image_that_is_missing_is_no_text(home: Path) -> None:
    done = lookalike("search", "red.png", cwd=home)
    assert done.returncode == 1
    assert "red.png: cannot be read (No such file or directory)" in done.stderr


def test_a_sheet_and_a_table_are_made_of_words(home: Path) -> None:
    done = lookalike("search", "two red parrots", "--sheet", "hits.png", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("two red parrots  (")
    assert "probability" not in done.stdout
    assert (home / "hits.png").stat().st_size > 0


def test_a_model_without_a_text_tower_says_so(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    write_colors(tmp_path / "photos")
    lookalike("index", "photos", "--model", tiny_model, "-c", "plain", cwd=tmp_path)
    done = lookalike("search", "two parrots", "-c", "plain", cwd=tmp_path)
    assert done.returncode == 1
    failed, hint = done.stderr.splitlines()
    assert failed == "failed: two parrots: cannot be read (No such file or directory)"
    assert "takes no words" in hint
    assert "models add clip-vit-b-32" in hint
    with pytest.raises(InvalidArgumentError, match="takes no text, images only"):
        Model.open(tiny_model).embed_text("two parrots")


def test_text_in_python(home: Path) -> None:
    with la.open_store(str(home / ".lookalike")) as store:
        searcher = la.Searcher(store, "photos")
        results = searcher.search(text="red", k=2)
        assert results.query == "red"
        assert [hit.path.partition("-")[0] for hit in results] == ["red", "red"]
        assert results.match is None
        assert results.sheet().ndim == 3
        both = searcher.search(home / "photos" / "gray-0.png", text="blue", k=2)
        assert both[0].path.startswith("blue")
        with pytest.raises(InvalidArgumentError, match="an image or text"):
            searcher.search()


def test_vectors_of_words_have_unit_length_and_ignore_what_is_too_long(home: Path) -> None:
    model = Model.open(home / "colors")
    vector = model.embed_text("red")
    assert vector.dtype == np.float32
    assert vector.shape == (3,)
    assert float(np.linalg.norm(vector)) == pytest.approx(1)
    # Six words are the most that its tokenizer_config.json allows.
    long = model.embed_text("red red red red red red" + " blue" * 50)
    np.testing.assert_allclose(long, vector, atol=1e-6)
    with pytest.raises(InvalidArgumentError, match="must hold a word"):
        model.embed_text("  ")
    model.check()


def test_a_changed_tokenizer_is_found_out(home: Path, tmp_path: Path) -> None:
    bundle = make_two_towers(tmp_path)
    (bundle.folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleCorruptError, match=r"tokenizer\.json does not match"):
        Bundle.open(bundle.folder)
