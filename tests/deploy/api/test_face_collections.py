"""Collections of faces from Python: filled and searched with whole photographs."""

from pathlib import Path

import pytest

import lookalike
from lookalike.encoder.errors import ImageError, InvalidArgumentError, MissingExtraError
from tests.fixtures.face_photos import without_extra
from tests.fixtures.face_pictures import face_picture, write_picture

LOOKS = {"Ada/one.png": (0,), "none.png": (), "three.png": (1, 8, 11)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/, and a store with a collection ``c`` of its faces. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    for name, looks in LOOKS.items():
        write_picture(home / "photos" / name, looks)
    with lookalike.open_store(str(home / "store")) as store:
        report = lookalike.index(home / "photos", store=store, collection="c", faces=True)
        assert (report.added, report.faces, report.without_face) == (3, 4, 1)
        with pytest.raises(InvalidArgumentError, match="leave one of the two out"):
            lookalike.index(home / "photos", store=store, collection="d", faces=True, crop="full")
        with without_extra(), pytest.raises(MissingExtraError, match=r"lookalike\[faces\]"):
            lookalike.index(home / "photos", store=store, collection="d", faces=True)
    return home


def test_a_photograph_is_searched_for_by_one_of_its_faces(home: Path, tmp_path: Path) -> None:
    pixels = face_picture(1, 8, 11)
    with lookalike.open_store(str(home / "store")) as store:
        searcher = lookalike.Searcher(store, "c")
        (hit,) = found = searcher.search(pixels, 1, face=2)
        assert hit.payload["face"]["number"] == 2
        assert hit.file == home / "photos" / "three.png"
        assert found.face is not None
        assert (found.face.number, found.face.count) == (2, 3)
        assert len(searcher.search(pixels, 50)) == len(searcher.search(pixels, 50, faces=True)) == 4
        found.save(tmp_path / "found.png")
        assert searcher.search(pixels, 1, face=2, add={"Smiling": 1})[0].score < hit.score
        whole = searcher.search(pixels, 1, crop="full")
        assert whole.face is None
        with pytest.raises(ImageError, match="no face was found"):
            searcher.search(face_picture())
        with pytest.raises(ImageError, match="it has 3 faces, not 4"):
            searcher.search(pixels, face=4)
        with pytest.raises(InvalidArgumentError, match="from 1 at the left"):
            searcher.search(pixels, face=0)
        with pytest.raises(InvalidArgumentError, match="leave one of the two out"):
            searcher.search(pixels, face=1, crop="full")
