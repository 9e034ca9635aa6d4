"""Who looks like this? The same answers from Python and from the command, each query for itself."""

import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.bundle import AffineMap
from lookalike.encoder.errors import (
    CollectionNotFoundError,
    ImageError,
    InvalidArgumentError,
    ItemNotFoundError,
    ModelMismatchError,
    VectorError,
)
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import item_id
from lookalike.indexer.store import Condition, Filter, VectorStore
from lookalike.indexer.sync import DEGENERATE
from lookalike.indexer.sync.collection import prepare_collection
from lookalike.searcher.figures import results_sheet
from lookalike.searcher.search import QueryDenoiser, QueryResult, Searcher, SearchHit
from tests.fixtures.command import lookalike, lookalike_process, one_line
from tests.fixtures.handmade_models import make_denoiser
from tests.fixtures.photos import NAME, index, make_home, photograph, write_photos
from tests.fixtures.tiny_models import make_bundle, save_again


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nine indexed photographs, a copy of one and one that is no picture. Leave it as it is."""
    return make_home(tmp_path_factory.mktemp("home"), tiny_model)


@pytest.fixture
def store(home: Path) -> Iterator[VectorStore]:
    with open_store(str(home / ".lookalike")) as opened:
        yield opened


def test_ranks_follow_the_cosine(tmp_path: Path, tiny_model: Path) -> None:
    model = Model.open(tiny_model)
    with open_store(str(tmp_path)) as store:
        prepare_collection(store, "hand", model, crop=None)
        angles = {"same": 0.0, "near": 30.0, "far": 60.0, "across": 90.0, "against": 180.0}
        ids = [item_id("hand", name) for name in angles]
        vectors = np.zeros((5, model.bundle.spec.embedding), np.float32)
        vectors[:, 0], vectors[:, 1] = zip(
            *((np.cos(np.deg2rad(a)), np.sin(np.deg2rad(a))) for a in angles.values()), strict=True
        )
        payloads = [{"root": "hand", "path": name, "person": name[:1]} for name in angles]
        store.upsert("hand", ids, vectors, payloads)
        searcher = Searcher(store, "hand", model)
        (results,) = searcher.similar_to_vectors(vectors[:1] * 7, k=9)
        assert [(r.rank, r.path, r.person) for r in results] == [
            (1, "same", "s"),
            (2, "near", "n"),
            (3, "far", "f"),
            (4, "across", "a"),
            (5, "against", "a"),
        ]
        # cos 0, 30, 60, 90, 180 degrees
        assert [r.score for r in results] == pytest.approx([1, 0.8660254, 0.5, 0, -1], abs=1e-6)
        (some,) = searcher.similar_to_vectors(
            vectors[:1], k=2, where=Filter((Condition("person", "=", "a"),))
        )
        assert [(r.rank, r.path) for r in some] == [(1, "across"), (2, "against")]
        (two,) = searcher.similar_to_vectors(vectors[:1], k=2)
        assert [r.path for r in two] == ["same", "near"]


def test_a_stored_picture_finds_itself_first_unless_left_out(store: VectorStore, home: Path) -> None:
    searcher = Searcher.open(store, NAME)
    (answer,) = searcher.similar([home / "me.jpg"])
    assert answer.error is None
    assert len(answer.results) == searcher.size == 9  # k is 10, there are 9
    assert answer.results[0].score == pytest.approx(1, abs=1e-5)
    own = answer.results[0].path
    (others,) = searcher.similar([home / "me.jpg"], exclude_self=True, k=8)
    assert [r.path for r in others.results] == [r.path for r in answer.results[1:]]
    assert own not in {r.path for r in others.results}
    assert [r.rank for r in others.results] == list(range(1, 9))


def test_all_copies_of_a_query_are_left_out(tmp_path: Path, tiny_model: Path) -> None:
    write_photos(tmp_path / "photos")
    for number in range(4):
        (tmp_path / "photos" / f"copy-{number}.jpg").write_bytes(photograph(0))
    with open_store(str(tmp_path / "store")) as opened:
        index(opened, Model.open(tiny_model), tmp_path / "photos")
        searcher = Searcher.open(opened, NAME)
        query = tmp_path / "photos" / "copy-0.jpg"
        (everything,) = searcher.similar([query], k=20)
        for k in (1, 3, 8, 20):
            (others,) = searcher.similar([query], k=k, exclude_self=True)
            assert [r.path for r in others.results] == [r.path for r in everything.results[5:]][:k]
            assert [r.rank for r in others.results] == list(range(1, min(k, 8) + 1))


def test_many_queries_are_answered_as_each_alone(store: VectorStore, home: Path) -> None:
    searcher = Searcher.open(store, NAME)
    files = (sorted((home / "photos").rglob("*.jpg")) * 8)[:70]  # more than are answered together
    together = list(searcher.similar(files, k=3))
    alone = [next(searcher.similar([file], k=3)) for file in files]
    assert [a.query for a in together] == [str(file) for file in files]
    for one, other in zip(together, alone, strict=True):
        assert [r.path for r in one.results] == [r.path for r in other.results]
        assert [r.score for r in one.results] == pytest.approx([r.score for r in other.results], abs=1e-5)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_an_unreadable_query_fails_alone(store: VectorStore, home: Path, exclude_self: bool) -> None:
    searcher = Searcher.open(store, NAME)
    queries = [home / "bad.jpg", home / "me.jpg", home / "nowhere.jpg", home, home / "me.jpg"]
    answers = list(searcher.similar(queries, k=2, exclude_self=exclude_self))
    assert [len(a.results) for a in answers] == [0, 2, 0, 0, 2]
    assert answers[1].results == answers[4].results
    for answer in (answers[0], answers[2], answers[3]):
        assert isinstance(answer.error, ImageError)
        assert answer.query in str(answer.error)
        assert "\n" not in str(answer.error)
    assert [str(a.error) for a in searcher.similar([home / "bad.jpg"])] == [str(answers[0].error)]


def test_a_query_without_direction_fails_alone(tmp_path: Path, tiny_model: Path) -> None:
    plain = Model.open(tiny_model)
    black = plain.encode(np.zeros((1, *plain.bundle.spec.image.shape), np.uint8))[0]
    blind = Model(
        save_again(plain.bundle, tmp_path / "blind", affine=AffineMap(plain.bundle.affine.matrix, black))
    )
    write_photos(tmp_path / "photos")
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with open_store(str(tmp_path / "store")) as opened:
        index(opened, blind, tmp_path / "photos")
        searcher = Searcher(opened, NAME, blind)
        queries = [tmp_path / "black.png", tmp_path / "photos" / "Hypatia" / "0.jpg"]
        bad, good = searcher.similar(queries)
    assert (str(bad.error), bad.results) == (f"{queries[0]}: {DEGENERATE}", ())
    assert isinstance(bad.error, VectorError)
    assert good.results[0].path == "Hypatia/0.jpg"


def test_more_like_an_item_is_a_search_with_its_file(store: VectorStore, home: Path, tmp_path: Path) -> None:
    steps: list[str] = []

    def timer(step: str) -> AbstractContextManager[None]:
        steps.append(step)
        return nullcontext()

    searcher = Searcher(store, NAME, Model.open(store.info(NAME).model_name), timer=timer)
    (own, *_) = next(searcher.similar([home / "me.jpg"])).results
    assert steps == ["embed", "search"]
    (by_file,) = searcher.similar([home / "photos" / own.path], k=4, exclude_self=True)
    steps.clear()
    by_item = searcher.similar_to_item(own.id, k=4)
    assert steps == ["search"]  # the stored vector is the query
    assert (by_item.query, by_item.error) == (own.path, None)
    assert [r.id for r in by_item.results] == [r.id for r in by_file.results]
    assert [r.score for r in by_item.results] == pytest.approx([r.score for r in by_file.results], abs=1e-5)
    assert searcher.similar_to_item(own.id, exclude_self=False).results[0].id == own.id
    with pytest.raises(ItemNotFoundError, match="has no item 00000000"):
        searcher.similar_to_item("00000000-0000-0000-0000-000000000000")


def test_an_item_is_denoised_from_its_file(store: VectorStore, tmp_path: Path) -> None:
    searcher = Searcher.open(store, NAME)
    denoiser = QueryDenoiser(Denoiser.open(make_denoiser(tmp_path / "box").folder))
    item = item_id(next(iter(searcher.spec.roots)), "Hypatia/0.jpg")
    answer = searcher.similar_to_item(item, k=2, denoiser=denoiser)
    assert answer.denoise_info is not None
    assert len(answer.results) == 2
    broken = searcher.similar_to_item(item, denoiser=denoiser, read=lambda payload: b"no image")
    assert isinstance(broken.error, ImageError)
    assert "Hypatia/0.jpg" in str(broken.error)


def test_queries_are_framed_as_the_collection_unless_told_otherwise(
    store: VectorStore, home: Path, tmp_path: Path
) -> None:
    searcher = Searcher.open(store, NAME)
    # The middle half of the picture is all that this model sees: cut out, it is framed "full".
    with Image.open(home / "photos" / "Hypatia" / "1.jpg") as picture:
        picture.crop((32, 32, 96, 96)).save(tmp_path / "close.png")
    (close,) = searcher.similar([tmp_path / "close.png"], crop=Crop.parse("full"))
    assert close.results[0].path == "Hypatia/1.jpg"
    assert close.results[0].score > 0.999
    (wrong,) = searcher.similar([tmp_path / "close.png"])
    assert max(r.score for r in wrong.results if r.path == "Hypatia/1.jpg") < close.results[0].score - 1e-4


def test_no_results_can_be_asked_for_no_more(store: VectorStore, home: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="k must be at least 1"):
        list(Searcher.open(store, NAME).similar([home / "me.jpg"], k=0))


def test_an_empty_collection_answers_with_nothing(tmp_path: Path, tiny_model: Path, home: Path) -> None:
    with open_store(str(tmp_path / "store")) as opened:
        prepare_collection(opened, "empty", Model.open(tiny_model), crop=None)
        searcher = Searcher.open(opened, "empty")
        (answer,) = searcher.similar([home / "me.jpg"])
        assert (answer.results, answer.error) == ((), None)
    done = lookalike(
        "search", home / "me.jpg", "--collection", "empty", "--store", tmp_path / "store", cwd=home
    )
    assert done.returncode == 0
    assert done.stderr == "collection empty is empty; fill it with lookalike index\n"


def test_another_model_of_the_same_dimension_is_refused(store: VectorStore, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    with pytest.raises(ModelMismatchError, match="use that model"):
        Searcher(store, NAME, Model(other))
    with pytest.raises(ModelMismatchError, match="use that model"):
        Searcher.open(store, NAME, model=str(other.folder))


def test_a_model_that_moved_can_be_named(tmp_path: Path, tiny_model: Path, home: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    with open_store(str(tmp_path / "store")) as opened:
        index(opened, Model.open(tmp_path / "model"), home / "photos")
        (tmp_path / "model").rename(tmp_path / "moved")
        with pytest.raises(ModelMismatchError, match="pass --model with the folder it is in"):
            Searcher.open(opened, NAME)
        assert Searcher.open(opened, NAME, model=str(tmp_path / "moved")).size == 9
    words = ["search", str(home / "me.jpg"), "--collection", NAME, "--store", str(tmp_path / "store")]
    line = one_line(failed := lookalike(*words, cwd=tmp_path))
    assert failed.returncode == 1
    assert "--model" in line
    assert lookalike(*words, "--model", "moved", cwd=tmp_path).returncode == 0


def test_a_missing_collection_is_named_with_those_there_are(store: VectorStore) -> None:
    with pytest.raises(CollectionNotFoundError, match="it has: photos"):
        Searcher.open(store, "nothing")


def test_json_is_a_list_of_what_was_promised_and_equals_python(home: Path) -> None:
    done = lookalike(
        "search",
        "me.jpg",
        "bad.jpg",
        "photos/Hypatia/0.jpg",
        "--collection",
        NAME,
        "-n",
        "3",
        "--json",
        cwd=home,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("failed: bad.jpg: ")
    said = json.loads(done.stdout)
    with open_store(str(home / ".lookalike")) as opened:
        searcher = Searcher.open(opened, NAME)
        queries = ["me.jpg", "bad.jpg", "photos/Hypatia/0.jpg"]
        answers = list(searcher.similar([home / query for query in queries], k=3))
    assert [each["query"] for each in said] == queries
    for each, answer in zip(said, answers, strict=True):
        promised = {"query", "model_id", "took_ms", "match", "warning", "results"}
        assert each.keys() == promised | ({"error"} if answer.error else set())
        assert (each["match"], each["warning"]) == (None, None)  # not calibrated
        assert each["model_id"] == searcher.model.model_id
        assert each["took_ms"] > 0
        files = [str(home / "photos" / result.path) for result in answer.results]
        assert [result.pop("file") for result in each["results"]] == files
        assert each["results"] == answer.to_json()["results"]
        for rank, result in enumerate(each["results"], start=1):
            assert list(result) == [
                *("rank", "score", "probability", "match", "same_file", "path", "person", "payload")
            ]
            assert (result["probability"], result["match"]) == (None, None)
            assert result["same_file"] == (rank == 1)
            assert result["rank"] == rank
            assert result["person"] == result["path"].split("/")[0]
            assert result["payload"].keys() >= {"root", "path", "sha256", "size", "mtime_ns", "person"}


def test_the_table_holds_rank_score_person_and_path(home: Path) -> None:
    done = lookalike(
        "search", "me.jpg", "me.jpg", "--collection", NAME, "-n", "2", "--exclude-self", cwd=home
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.split("\n\n")
    head, *rows = first.splitlines()
    assert head.startswith("me.jpg  (")
    assert second.splitlines()[1:] == rows
    for rank, row in enumerate(rows, start=1):
        number, label, score, person, path = row.split()
        assert label == "score"
        assert (number, Path(path).parts[:2]) == (str(rank), ("photos", person))
        assert -1 <= float(score) <= 1
    assert len({row.index(row.split()[4]) for row in rows}) == 1  # paths stand below each other


def test_a_sheet_shows_queries_and_results_in_rows(home: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "hits.png"
    done = lookalike(
        "search", "me.jpg", "bad.jpg", "me.jpg", "--collection", NAME, "-n", "4", "--sheet", sheet, cwd=home
    )
    assert done.returncode == 3
    assert f"image written: {sheet}\n" in done.stderr
    with Image.open(sheet) as picture:
        width, height = picture.size
        blue = (np.asarray(picture) == (26, 104, 214)).all(axis=2)
    assert 5 * 128 < width < 6 * 160
    assert 2 * 128 < height < 3 * 190
    # Only the queries, at the left, are framed.
    assert blue[:, : width // 4].any()
    assert not blue[:, width // 4 :].any()


def test_a_sheet_of_very_many_stays_a_picture(store: VectorStore, home: Path) -> None:
    searcher = Searcher.open(store, NAME)
    (answer,) = searcher.similar([home / "me.jpg"])
    many = QueryResult("me.jpg", "", 0, tuple(list(answer.results) * 100))
    rows, columns, _ = results_sheet(searcher, [many] * 60, side=32).shape
    assert rows < 60 * 90  # a caption and two lines below it: score and verdict
    assert columns < 22 * 60


def test_a_result_whose_file_is_gone_or_of_odd_name_is_no_error(
    tmp_path: Path, tiny_model: Path, home: Path
) -> None:
    odd = tmp_path / "photos" / "a\udcff\nb.jpg"
    odd.parent.mkdir()
    odd.write_bytes(photograph(0))
    (tmp_path / "photos" / "gone.jpg").write_bytes(photograph(1))
    with open_store(str(tmp_path / "store")) as opened:
        index(opened, Model.open(tiny_model), tmp_path / "photos")
        (tmp_path / "photos" / "gone.jpg").unlink()
        searcher = Searcher.open(opened, NAME)
        (answer,) = searcher.similar([odd])
        pictures = {r.path: searcher.item_image(r.payload, side=32) for r in answer.results}
    assert pictures["gone.jpg"] is None
    assert pictures["a\\xff\nb.jpg"] is not None
    words = ["--collection", NAME, "--store", str(tmp_path / "store"), "--sheet", str(tmp_path / "s.png")]
    done = lookalike("search", odd, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_a_result_says_no_person_where_none_is_known() -> None:
    result = SearchHit(1, 0.5, "id", {"root": "photos", "path": "a.jpg"})
    assert result.person is None
    assert result.to_json()["person"] is None


def test_a_search_loads_neither_torch_nor_the_servers_client(home: Path, tmp_path: Path) -> None:
    done = lookalike_process(
        "search", "me.jpg", "--collection", NAME, "--sheet", tmp_path / "s.png", cwd=home,
        env={"PYTHONPROFILEIMPORTTIME": "1"},
    )  # fmt: skip
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert {"onnxruntime", "qdrant_edge"} <= loaded
    assert not {"torch", "qdrant_client", "trainer", "requests"} & loaded
    assert not {"torch", "onnx", "sklearn", "matplotlib"} & {name.split(".")[0] for name in loaded}
