"""Attributes: fitted, beside the model, undone by their opposite, searched with."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.bundle import Attribute, Attributes, Bundle
from lookalike.encoder.bundle.storage import ATTRIBUTES
from lookalike.encoder.errors import BundleCorruptError, DataError, InvalidArgumentError
from lookalike.encoder.images import encode_png
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.store import VectorStore, parse_where
from lookalike.searcher.figures import results_sheet
from lookalike.searcher.generation import edit, edit_steps, parse_steps, parse_strengths, read_all
from lookalike.searcher.search import Searcher, SearchParams
from lookalike.searcher.search.results import combine_examples
from lookalike.trainer.fitting import Examples, fit_attributes
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import NAME, PEOPLE, make_home, photograph
from tests.fixtures.tiny_models import LATENT, SIZE, pictures

Floats = NDArray[np.float32]


def examples(count: int = 400, *, seed: int = 0) -> Examples:
    """Latents of six numbers: the first tells A, the second B, and who has A mostly has B."""
    rng = np.random.default_rng(seed)
    has = rng.random(count) < 0.5
    also = np.where(rng.random(count) < 0.8, has, ~has)
    latents = rng.normal(size=(count, 6)).astype(np.float32)
    latents[:, 0] += 4 * has
    latents[:, 1] += 4 * also
    return Examples(
        latents,
        embed(latents),
        {
            "A": np.where(has, 1.0, -1.0),
            "B": np.where(rng.random(count) < 0.3, np.nan, np.where(also, 1, -1)),
        },
        [f"p{row // 2}" for row in range(count)],
        np.arange(count) % 4 == 0,
        np.zeros((count, 0)),
    )


def embed(latents: Floats) -> Floats:
    centred = latents - np.array([2, 2, 0, 0, 0, 0], np.float32)
    return np.asarray(centred / np.linalg.norm(centred, axis=1, keepdims=True), np.float32)


def test_a_partial_move_leaves_the_other_attribute_alone() -> None:
    given = examples()
    leaks = {}
    for method in ("plain", "partial"):
        found = fit_attributes(given, embed, method=method)
        assert found.names == ("A", "B")
        rows = given.latents[~given.tested]
        moved = embed(rows + np.float32(0.1) * found["A"].edit_direction)
        raised = {
            name: float((found[name].read(moved) - found[name].read(embed(rows))).mean())
            / found[name].deviation
            for name in found.names
        }
        assert raised["A"] == pytest.approx(0.1, abs=0.02)  # one of it is one standard deviation
        leaks[method] = abs(raised["B"])
        assert found["A"].auc is not None
        assert found["A"].auc > 0.9
        assert (found["A"].positive + found["A"].negative, found["A"].tested) == (300, 100)
    assert leaks["partial"] < leaks["plain"] / 2


def test_too_few_examples_are_refused() -> None:
    given = examples()
    scores = {"A": np.where(np.arange(400) < 7, 1.0, -1.0)}
    with pytest.raises(DataError, match="needs 8 images with it and 8 without"):
        fit_attributes(replace(given, scores=scores), embed)


def hand_made(*, latent: int = LATENT, embedding: int = LATENT) -> Attributes:
    rng = np.random.default_rng(5)
    return Attributes(
        tuple(
            Attribute(
                name=name,
                edit_direction=rng.normal(size=latent).astype(np.float32),
                probe=rng.normal(size=embedding).astype(np.float32),
                offset=0.25,
                deviation=1.5,
                positive=3,
                negative=4,
                auc=0.75,
                tested=2,
            )
            for name in ("Eyes Open", "Smiling")
        )
    )


@pytest.fixture(scope="module")
def bundle(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with two attributes. Leave it as it is."""
    folder = tmp_path_factory.mktemp("with") / "model"
    opened = Bundle.open(tiny_model)
    made = hand_made(embedding=opened.spec.embedding)
    assert opened.with_attributes(made, folder).model_id == opened.model_id
    return folder


def test_they_come_back_equal_and_change_no_model(bundle: Path, tiny_model: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.model_id == Bundle.open(tiny_model).model_id
    assert opened.attributes is not None
    made = hand_made(embedding=opened.spec.embedding)
    assert opened.attributes.to_bytes("a") == made.to_bytes("a")
    assert Attributes.from_bytes(made.to_bytes("a"), model_id="a")["Smiling"].to_json() == {
        "name": "Smiling",
        "offset": 0.25,
        "deviation": 1.5,
        "positive": 3,
        "negative": 4,
        "auc": 0.75,
        "tested": 2,
    }
    with pytest.raises(InvalidArgumentError, match="belongs to model a"):
        Attributes.from_bytes(made.to_bytes("a"), model_id="b")


def test_a_damaged_file_is_named(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    data = bytearray((copy / ATTRIBUTES).read_bytes())
    (copy / ATTRIBUTES).write_bytes(data[: len(data) // 2])
    with pytest.raises(
        BundleCorruptError, match=r"attributes\.npz.*fit it again with lookalike attributes fit"
    ):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["", " a", "a=b", "a,b", "a.b", 'a"', "a\n"])
def test_names_that_no_condition_could_hold_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        replace(hand_made().each[0], name=name)


def test_an_edit_and_its_opposite_give_back_the_latent(bundle: Path) -> None:
    model = Model.open(bundle)
    attributes = model.bundle.attributes
    assert attributes is not None
    latents = model.encode(pictures(20))
    there = latents + attributes.change({"Smiling": 2.5, "Eyes Open": -1})
    back = there + attributes.change({"Smiling": -2.5, "Eyes Open": 1})
    np.testing.assert_allclose(back, latents, rtol=0, atol=1e-5)
    assert np.abs(there - latents).max() > 0.1


def test_nothing_added_gives_back_the_very_picture(bundle: Path) -> None:
    model, pixels = Model.open(bundle), pictures(3)
    np.testing.assert_array_equal(edit(model, pixels, {"Smiling": 0}), pixels)
    np.testing.assert_array_equal(
        edit(model, pixels, {}, keep_detail=False), np.rint(model.reconstruct(pixels) * 255)
    )
    rows = edit_steps(model, pixels, {"Smiling": 2}, [0, 1])
    assert rows.shape == (3, 2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(rows[:, 1], edit(model, pixels, {"Smiling": 2}))


def test_strengths_and_steps_are_read() -> None:
    assert parse_strengths(["Smiling=1.5", "Eyes Open", "Male=-1"]) == {
        "Smiling": 1.5,
        "Eyes Open": 1,
        "Male": -1,
    }
    assert parse_steps("-2:2:5") == [-2, -1, 0, 1, 2]
    for bad in ("=1", "Smiling=", "Smiling=x", "Smiling=inf"):
        with pytest.raises(InvalidArgumentError, match="an edit is NAME=STRENGTH"):
            parse_strengths([bad])
    with pytest.raises(InvalidArgumentError, match="twice"):
        parse_strengths(["a=1", "a=2"])
    for bad in ("1:2", "1:2:1", "a:2:3", "0:inf:3"):
        with pytest.raises(InvalidArgumentError, match="steps are"):
            parse_steps(bad)


@pytest.fixture(scope="module")
def home(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nine indexed photographs. Leave it as it is."""
    return make_home(tmp_path_factory.mktemp("home"), bundle)


@pytest.fixture
def store(home: Path) -> Iterator[VectorStore]:
    with open_store(str(home / ".lookalike")) as opened:
        yield opened


def test_edit_draws_strips_sheets_and_folders(home: Path, bundle: Path) -> None:
    words = ("edit", "me.jpg", "--model", str(bundle), "--add", "Smiling=2")
    assert lookalike(*words, "--out", "smile.png", cwd=home).returncode == 0
    done = lookalike(*words, "--steps", "-1:1:3", "--out", "each/", cwd=home)
    assert done.stdout.split() == ["each/me-0.png", "each/me-1.png", "each/me-2.png"]
    assert lookalike(*words, "--steps", "-1:1:3", "--out", "strip.png", cwd=home).returncode == 0
    done = lookalike(
        "edit", "me.jpg", "--model", str(bundle), "--add", "Frowning", "--out", "x.png", cwd=home
    )
    assert done.returncode == 2
    assert "no attribute 'Frowning'; the model has Eyes Open, Smiling" in one_line(done)


def test_a_search_can_be_for_an_edited_face(store: VectorStore, home: Path) -> None:
    searcher = Searcher.open(store, NAME)
    (plain,) = searcher.similar([home / "me.jpg"])
    (same,) = searcher.similar([home / "me.jpg"], add={"Smiling": 0})
    assert [r.id for r in same.results] == [r.id for r in plain.results]
    (moved,) = searcher.similar([home / "me.jpg"], add={"Smiling": 3})
    assert moved.results[0].score < 1 - 1e-3 or moved.results[0].id != plain.results[0].id
    sheets = [results_sheet(searcher, [plain], add=add) for add in ({}, {"Smiling": 3.0})]
    assert sheets[1].shape[1] > sheets[0].shape[1]  # the face that was meant


def test_groups_are_exact_and_conditions_hold(store: VectorStore, home: Path) -> None:
    searcher = Searcher.open(store, NAME)
    (everything,) = searcher.similar([home / "me.jpg"], k=9)
    best: dict[str | None, str] = {}
    for result in everything.results:
        best.setdefault(result.person, result.id)
    for k in (1, 2, 3, 9):
        (grouped,) = searcher.similar([home / "me.jpg"], k=k, group_by="person")
        assert [r.id for r in grouped.results] == list(best.values())[:k]
    assert len(best) == len(PEOPLE)
    (others,) = searcher.similar([home / "me.jpg"], where=parse_where("person!=Hypatia"), exclude_self=True)
    own = everything.results[0].id
    expected = [r.id for r in everything.results if r.person != "Hypatia" and r.id != own]
    assert [r.id for r in others.results] == expected
    (alone,) = searcher.similar([home / "me.jpg"], group_by="nothing")
    assert [r.id for r in alone.results] == [r.id for r in everything.results]


def test_likes_and_unlikes_are_one_query(store: VectorStore, home: Path) -> None:
    (home / "you.jpg").write_bytes(photograph(7))
    searcher = Searcher.open(store, NAME)
    (plain,) = searcher.similar([home / "me.jpg"])
    assert [r.id for r in searcher.similar_to_examples([home / "me.jpg"]).results] == [
        r.id for r in plain.results
    ]
    answer = searcher.similar_to_examples([home / "me.jpg"], [home / "you.jpg"], params=SearchParams(k=9))
    vectors = searcher.model.embed(read_all(searcher.model, [home / "me.jpg", home / "you.jpg"])[1])
    (results,) = searcher.similar_to_vectors(2 * vectors[:1] - vectors[1:], k=9)
    assert [r.id for r in answer.results] == [r.id for r in results]
    assert answer.to_json()["unlike"] == [str(home / "you.jpg")]
    bad = searcher.similar_to_examples([home / "me.jpg"], [home / "bad.jpg"])
    assert bad.error is not None
    assert bad.results == ()
    with pytest.raises(InvalidArgumentError, match="--unlike needs at least one IMAGE"):
        searcher.similar_to_examples([], [home / "me.jpg"])
    # Hand-worked: (1, 0) doubled less (0, 1).
    np.testing.assert_array_equal(
        combine_examples(np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)), [[2, -1]]
    )


def test_the_command_searches_so_too(home: Path) -> None:
    words = ("search", "--collection", NAME, "--json", "-n", "2")
    done = lookalike(*words, "me.jpg", "--add", "Smiling=1", "--where", "path~/1", cwd=home)
    (answer,) = json.loads(done.stdout)
    assert all("/1" in result["path"] for result in answer["results"])
    done = lookalike(*words, "--like", "me.jpg", "--like", "photos/Hypatia/0.jpg", cwd=home)
    assert json.loads(done.stdout)[0]["like"] == ["me.jpg", "photos/Hypatia/0.jpg"]
    assert lookalike(*words, "--unlike", "me.jpg", cwd=home).returncode == 2


def test_fit_takes_two_folders_and_tables(tmp_path: Path, tiny_model: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["path,Bright"]
    for number in range(60):
        bright = number % 2
        picture = rng.integers(150 * bright, 100 + 150 * bright, (32, 32, 3), dtype=np.uint8)
        folder = tmp_path / ("bright" if bright else "dark")
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(encode_png(picture))
        rows.append(f"{folder.name}/{number}.png,{2 * bright - 1}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    fit = ("attributes", "fit", "--model", str(tiny_model), "--json", "--out")
    done = lookalike(*fit, "one", "--positive", "bright", "--negative", "dark", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["attributes"]
    assert told["name"] == "bright"
    assert told["auc"] == 1
    (tmp_path / "all").mkdir()
    for name in ("bright", "dark"):
        (tmp_path / name).rename(tmp_path / "all" / name)
    words = ("attributes", "fit", "--model", "one", "--table", "table.csv", "--data", "all", "--out", "two")
    done = lookalike(*words, cwd=tmp_path)
    # Of two "people" nobody is left to test on.
    assert done.returncode == 0, done.stderr
    listed = lookalike("attributes", "list", "--model", "two", cwd=tmp_path).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["attribute", "Bright", "bright"]
    assert lookalike(*fit, "x", "--positive", "all", cwd=tmp_path).returncode == 2
    done = lookalike("attributes", "list", "--model", str(tiny_model), cwd=tmp_path)
    assert "has no attributes" in done.stderr


def test_the_shipped_model_knows_a_smile() -> None:
    there = Bundle.open("faces").attributes
    assert there is not None
    assert there.names == ("Male", "Smiling")
    assert min(one.auc or 0 for one in there.each) > 0.95
