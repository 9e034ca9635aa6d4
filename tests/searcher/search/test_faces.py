"""Searching with whole photographs: which face is compared, and what is found among faces and pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.detect import Faces, face_finder
from lookalike.encoder.errors import ImageError, InvalidArgumentError, ItemNotFoundError, LookalikeError
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import item_id
from lookalike.indexer.store import VectorStore, parse_where
from lookalike.indexer.sync import sync
from lookalike.indexer.sync.faces import face_id
from lookalike.searcher.figures import results_sheet
from lookalike.searcher.search import QueryDenoiser, QueryFaces, QueryResult, Searcher
from tests.fixtures.face_pictures import SIDE, face_picture, write_picture
from tests.fixtures.handmade_models import make_denoiser

LOOKS = {"Ada/one.png": (0,), "Ada/two.png": (2, 3), "none.png": (), "three.png": (1, 8, 11)}
FACES = sum(map(len, LOOKS.values()))


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.open("faces", threads=1)


@pytest.fixture(scope="module")
def home(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/, indexed by its faces as ``faces``, and whole as ``whole``. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    for name, looks in LOOKS.items():
        write_picture(home / "photos" / name, looks)
    with open_store(str(home / "store")) as store:
        sync(store, "faces", model, [home / "photos"], crop=Faces())
        sync(store, "whole", model, [home / "photos"], crop=Crop())
    return home


@pytest.fixture
def store(home: Path) -> Iterator[VectorStore]:
    with open_store(str(home / "store")) as opened:
        yield opened


@pytest.fixture
def searcher(store: VectorStore, model: Model) -> Searcher:
    return Searcher(store, "faces", model)


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> QueryDenoiser:
    folder = tmp_path_factory.mktemp("box") / "box"
    make_denoiser(folder)
    return QueryDenoiser(Denoiser.open(folder))


def found(result: QueryResult) -> list[tuple[str, int]]:
    """Path and number of the face of each hit; the query did not fail."""
    assert result.error is None
    return [(hit.path, hit.payload["face"]["number"]) for hit in result.results]


def ask(searcher: Searcher, file: Path, **options: Any) -> QueryResult:
    (result,) = searcher.similar([file], **options)
    return result


def large_at_right(file: Path) -> Path:
    """A picture with a small face at the left and a large one, of another look, at its right."""
    small = np.asarray(Image.fromarray(face_picture(8)).resize((SIDE // 2, SIDE // 2)))
    picture = np.full((SIDE, 2 * SIDE, 3), 128, np.uint8)
    picture[: SIDE // 2, : SIDE // 2], picture[:, SIDE:] = small, face_picture(0)
    Image.fromarray(picture).save(file)
    return file


def test_the_most_prominent_face_is_searched_for_unless_another_is_named(
    searcher: Searcher, tmp_path: Path
) -> None:
    file = large_at_right(tmp_path / "both.png")
    main = ask(searcher, file, k=1)
    assert main.face is not None
    assert (main.face.number, main.face.count) == (2, 2)
    assert found(main) == [("Ada/one.png", 1)]
    assert main.to_json()["face"] == {"number": 2, "count": 2, **main.face.face.to_json()}
    for number, hit in ((1, ("three.png", 2)), (2, ("Ada/one.png", 1))):
        chosen = ask(searcher, file, k=1, faces=QueryFaces(number))
        assert chosen.face is not None
        assert (chosen.face.number, found(chosen)) == (number, [hit])
    every = list(searcher.similar([file, file], k=1, faces=QueryFaces(every=True)))
    assert [found(result)[0][0] for result in every] == ["three.png", "Ada/one.png"] * 2
    assert [result.face and result.face.number for result in every] == [1, 2, 1, 2]


@pytest.mark.parametrize("name", ["Ada/two.png", "three.png"])
def test_each_face_of_a_picture_finds_itself(searcher: Searcher, home: Path, name: str) -> None:
    results = list(searcher.similar([home / "photos" / name], k=1, faces=QueryFaces(every=True)))
    assert [found(result) for result in results] == [[(name, n)] for n in range(1, len(LOOKS[name]) + 1)]
    assert min(result.results[0].score for result in results) > 0.999


@pytest.mark.parametrize(
    ("name", "faces", "reason"),
    [
        ("none.png", None, "none.png: no face was found; pass --crop full"),
        ("none.png", QueryFaces(1), "none.png: no face was found; pass --crop full"),
        ("none.png", QueryFaces(every=True), "none.png: no face was found; pass --crop full"),
        ("three.png", QueryFaces(4), "three.png: it has 3 faces, not 4; choose 1 to 3"),
    ],
)
def test_a_query_without_the_face_fails_alone(
    searcher: Searcher, home: Path, name: str, faces: QueryFaces | None, reason: str
) -> None:
    good, bad = home / "photos" / "Ada" / "one.png", home / "photos" / name
    results = list(searcher.similar([bad, bad, good], faces=faces))
    failed = [result.error for result in results if result.error is not None]
    assert [type(error) for error in failed] == [ImageError] * (2 if faces != QueryFaces(4) else 3)
    assert reason in str(failed[0])
    if faces != QueryFaces(4):
        assert found(results[2])[0] == ("Ada/one.png", 1)
    whole = ask(searcher, bad, crop=Crop(), k=1)  # the way out that the message names
    assert whole.error is None
    assert whole.face is None


def test_faces_and_crops_that_contradict_each_other_are_refused(searcher: Searcher, home: Path) -> None:
    for number, every in ((0, False), (-1, False), (1, True)):
        with pytest.raises(InvalidArgumentError, match="from 1 at the left"):
            QueryFaces(number, every=every)
    with pytest.raises(InvalidArgumentError, match="leave one of the two out"):
        ask(searcher, home / "photos" / "three.png", crop=Crop(), faces=QueryFaces())


def test_a_picture_without_a_face_is_never_found(searcher: Searcher, home: Path) -> None:
    file = home / "photos" / "Ada" / "one.png"
    everything = [(name, number) for name, looks in LOOKS.items() for number in range(1, len(looks) + 1)]
    assert searcher.size == FACES
    for options in ({"k": 50}, {"k": 50, "where": parse_where("root=photos")}, {"k": FACES}):
        assert sorted(found(ask(searcher, file, **options))) == everything
    assert sorted(found(ask(searcher, file, k=50, crop=Crop()))) == everything
    (hits,) = searcher.similar_to_vectors(np.eye(1, searcher.spec.dimension, dtype=np.float32), k=50)
    assert len(hits) == FACES  # the vector of a picture without a face
    assert found(ask(searcher, file, k=50, where=parse_where("path=none.png"))) == []


def test_filters_groups_and_the_own_picture(searcher: Searcher, home: Path) -> None:
    file = home / "photos" / "three.png"
    assert found(ask(searcher, file, where=parse_where("person=Ada"))) == [("Ada/one.png", 1)]
    second = ask(searcher, file, k=9, where=parse_where("face.number=2"), faces=QueryFaces(2))
    assert found(second)[0] == ("three.png", 2)
    assert sorted(found(second)) == [("Ada/two.png", 2), ("three.png", 2)]
    groups = ask(searcher, file, k=9, group_by="path")
    assert sorted(hit.path for hit in groups.results) == ["Ada/one.png", "Ada/two.png", "three.png"]
    for k, group_by in ((1, None), (3, None), (9, None), (2, "path")):
        others = ask(searcher, file, k=k, group_by=group_by, exclude_self=True, faces=QueryFaces(1))
        assert "three.png" not in [path for path, _ in found(others)]
        assert len(others.results) == min(k, 3)


def test_a_collection_of_whole_pictures_is_searched_with_a_face_that_is_turned_upright(
    store: VectorStore, model: Model, home: Path, tmp_path: Path
) -> None:
    whole = Searcher(store, "whole", model)
    file = home / "photos" / "Ada" / "one.png"
    as_is = ask(whole, file, k=50)
    assert as_is.face is None
    assert len(as_is.results) == len(LOOKS)
    aligned = ask(whole, write_picture(tmp_path / "turned.png", (0,), turned=1), k=50, faces=QueryFaces())
    upright = ask(whole, file, k=50, faces=QueryFaces())
    assert aligned.face is not None
    assert aligned.face.count == 1
    scores = ({hit.path: hit.score for hit in result.results} for result in (aligned, upright, as_is))
    turned, straight, plain = scores
    assert straight == pytest.approx(turned, abs=0.05)
    assert straight != pytest.approx(plain, abs=0.05)


def test_a_model_that_does_not_know_where_faces_lie_says_so(
    tmp_path: Path, tiny_model: Path, home: Path
) -> None:
    with open_store(str(tmp_path / "store")) as store:
        sync(store, "tiny", (tiny := Model.open(tiny_model)), [home / "photos"], crop=Crop())
        with pytest.raises(LookalikeError, match="does not say where faces lie"):
            ask(Searcher(store, "tiny", tiny), home / "photos" / "three.png", faces=QueryFaces())


def test_more_like_an_item_is_more_like_its_face(searcher: Searcher, denoiser: QueryDenoiser) -> None:
    item = face_id("photos", "three.png", 2)
    plain = searcher.similar_to_item(item, exclude_self=False)
    assert found(plain)[0] == ("three.png", 2)
    assert plain.face is not None
    assert (plain.face.number, plain.face.count) == (2, 3)
    assert "three.png" not in [path for path, _ in found(searcher.similar_to_item(item))]
    asked = dict[str, Any](exclude_self=False, k=1)
    for options in ({"add": {"Smiling": 0.0}}, {"denoiser": denoiser}, {"add": {"Smiling": 0.01}}):
        result = searcher.similar_to_item(item, **asked, **options)
        assert found(result) == [("three.png", 2)]
        assert result.results[0].score > 0.95
        assert result.face is not None
        assert result.face.number == 2
    smiling = searcher.similar_to_item(item, **asked, add={"Smiling": 3.0})
    assert smiling.results[0].score < 0.99


def test_a_picture_without_a_face_is_no_item(searcher: Searcher) -> None:
    for add in (None, {"Smiling": 1.0}):
        with pytest.raises(ItemNotFoundError, match="no item"):
            searcher.similar_to_item(item_id("photos", "none.png"), add=add)


def test_queries_are_edited_and_denoised_by_their_face(
    searcher: Searcher, denoiser: QueryDenoiser, home: Path
) -> None:
    file = home / "photos" / "three.png"
    plain, edited, more = (
        ask(searcher, file, k=1, faces=QueryFaces(2), add=add)
        for add in (None, {"Smiling": 0.0}, {"Smiling": 2.0})
    )
    assert found(plain) == found(edited) == [("three.png", 2)]
    assert edited.results[0].score == pytest.approx(plain.results[0].score, abs=1e-4)
    assert more.results[0].score < plain.results[0].score - 0.01
    treated = ask(searcher, file, k=1, faces=QueryFaces(2), denoiser=denoiser)
    assert found(treated) == [("three.png", 2)]
    assert treated.denoise_info is not None


def test_examples_are_combined_by_their_faces(searcher: Searcher, home: Path) -> None:
    one, three = home / "photos" / "Ada" / "one.png", home / "photos" / "three.png"
    assert found(searcher.similar_to_examples([one, one]))[0] == ("Ada/one.png", 1)
    second = searcher.similar_to_examples([three], faces=QueryFaces(2))
    assert found(second)[0] == ("three.png", 2)
    apart = searcher.similar_to_examples([one], [three])
    assert found(apart)[0][0] != "three.png"
    failed = searcher.similar_to_examples([one], [home / "photos" / "none.png"])
    assert "no face was found" in str(failed.error)


def test_sheets_show_the_faces(searcher: Searcher, home: Path) -> None:
    file = home / "photos" / "three.png"
    every = list(searcher.similar([file], k=2, faces=QueryFaces(every=True)))
    sheet = results_sheet(searcher, every, add={"Smiling": 1.0})
    assert sheet.shape[0] > 3 * 128
    faces = face_finder().find(face_picture(*LOOKS["three.png"]), threshold=0.6)
    shown = searcher.query_image(file, side=64, face=faces[1])
    hit = searcher.item_image(dict(every[1].results[0].payload), side=64)
    assert shown is not None
    assert hit is not None
    assert np.abs(shown.astype(int) - hit.astype(int)).mean() < 4
    one = home / "photos" / "Ada" / "one.png"
    for number in (1, 2):
        combined = searcher.similar_to_examples([file], [], faces=QueryFaces(number))
        assert combined.example_faces[str(file)].number == number
        tiles = results_sheet(searcher, [combined], add={"Smiling": 1.0})
        (alone,) = searcher.similar([file], faces=QueryFaces(number))
        expected = results_sheet(searcher, [alone], add={"Smiling": 1.0})
        # The query and its edited image; below are words: like, not query.
        assert np.array_equal(tiles[:150, 30:250], expected[:150, 30:250])
    both = searcher.similar_to_examples([file], [one])
    assert set(both.example_faces) == {str(file), str(one)}
