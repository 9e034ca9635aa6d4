"""Recall worked out by hand, in a plane where every angle is chosen."""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from lookalike.deploy.evaluation import LabeledImages, rank_all, temporary_collection
from lookalike.deploy.evaluation.retrieval import Retrieval
from lookalike.deploy.evaluation.vectors import ImageVectors
from lookalike.encoder.errors import CollectionNotFoundError, InvalidArgumentError
from lookalike.indexer.open import open_store
from lookalike.indexer.store import VectorStore
from tests.fixtures.command import lookalike
from tests.fixtures.stores import SPEC, D

# Degrees, who. Of each query the five nearest others, nearest first:
#   A   0: A 10 ...                            first is A
#   A  10: B 18, A 0 ...                       A among five
#   B  18: A 10, A 0, s 80, s 84, s 87 | B 90  B is the sixth
#   B  90: s 87, s 94, s 95.5, s 84, s 80      no B
#   E 180: E 185;  E 185: E 180                first is E
HAND = [
    (0.0, "A"), (10.0, "A"), (18.0, "B"), (90.0, "B"), (180.0, "E"), (185.0, "E"),
    (95.5, "s1"), (94.0, "s2"), (87.0, "s3"), (84.0, "s4"), (80.0, None),
]  # fmt: skip

WORDS = ["evaluate", "retrieval", "--collection", "hand", "--json"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    with open_store(str(tmp_path / ".lookalike")) as opened:
        yield opened


def fill(store: VectorStore, name: str, placed: Sequence[tuple[float, str | None]]) -> None:
    store.create(name, replace(SPEC, roots={}))
    angles = np.deg2rad([angle for angle, _ in placed])
    vectors = np.zeros((len(placed), D), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    ids = [str(uuid.UUID(int=number)) for number in range(1, len(placed) + 1)]
    store.upsert(name, ids, vectors, [{"person": who} if who else {} for _, who in placed])


def test_recall_of_a_collection_worked_out_by_hand(store: VectorStore) -> None:
    fill(store, "hand", HAND)
    assert rank_all(store, "hand").metrics() == Retrieval(
        queries=6,
        recall_at_1=3 / 6,
        recall_at_5=4 / 6,
        mean_average_precision=(1 + 1 / 2 + 1 / 6 + 1 / 6 + 1 + 1) / 6,
        others=10,
    )


def test_only_the_people_asked_for_query_but_all_are_searched(store: VectorStore) -> None:
    fill(store, "hand", HAND)
    assert rank_all(store, "hand", people={"B"}).metrics() == Retrieval(2, 0.0, 0.0, 1 / 6, 10)
    assert rank_all(store, "hand").metrics({"A", "E", "s1"}) == Retrieval(4, 3 / 4, 1.0, 3.5 / 4, 10)


def test_of_equal_pictures_the_five_are_five_others(store: VectorStore) -> None:
    # All in one place, so the ids decide: five strangers come before both pictures of P. The query itself is
    # not always among the six that are fetched; then the sixth must not count.
    fill(store, "six", [(0.0, f"s{number}") for number in range(5)] + [(0.0, "P"), (0.0, "P")])
    assert rank_all(store, "six").metrics() == Retrieval(2, 0.0, 0.0, 1 / 6, 6)
    fill(store, "five", [(0.0, f"s{number}") for number in range(4)] + [(0.0, "P"), (0.0, "P")])
    assert rank_all(store, "five").metrics() == Retrieval(2, 0.0, 1.0, 1 / 5, 5)


def test_many_queries_go_in_batches_and_are_counted(store: VectorStore) -> None:
    fill(store, "pairs", [(number // 2 * 2.0 + number % 2 * 0.5, f"p{number // 2}") for number in range(150)])
    totals: list[int] = []
    steps: list[int] = []

    @contextmanager
    def progress(_task: str, total: int) -> Iterator[Callable[[int], object]]:
        totals.append(total)
        yield steps.append

    assert rank_all(store, "pairs", progress=progress).metrics() == Retrieval(150, 1.0, 1.0, 1.0, 149)
    assert (totals, sum(steps)) == ([150], 150)
    assert len(steps) > 1


def test_nobody_with_two_pictures_is_said(store: VectorStore) -> None:
    fill(store, "alone", [(0.0, "A"), (1.0, "B"), (2.0, None), (3.0, None)])
    with pytest.raises(
        InvalidArgumentError, match="people with two or more images, collection 'alone' has none"
    ):
        rank_all(store, "alone").metrics()
    with pytest.raises(CollectionNotFoundError):
        rank_all(store, "nothing")


def test_the_command_prints_a_row_or_json(store: VectorStore, tmp_path: Path) -> None:
    fill(store, "hand", HAND)
    store.close()
    table = lookalike("evaluate", "retrieval", "--collection", "hand", cwd=tmp_path)
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout.split() == [
        "row", "people", "queries", "others", "Recall@1", "Recall@5", "mAP",
        "hand", "everybody", "6", "10", "0.500", "0.667", "0.639",
    ]  # fmt: skip
    said = lookalike(*WORDS, cwd=tmp_path)
    assert said.stderr == ""
    assert json.loads(said.stdout) == [
        {
            "name": "hand", "kind": "collection", "faces": False, "people": "everybody", "queries": 6,
            "recall_at_1": 0.5, "recall_at_5": 4 / 6, "mean_average_precision": pytest.approx(23 / 36),
            "others": 10,
        }
    ]  # fmt: skip


def test_without_the_data_set_the_rest_is_still_measured(store: VectorStore, tmp_path: Path) -> None:
    fill(store, "hand", HAND)
    store.update_info("hand", replace(SPEC, roots={"lfw": "/gone"}))
    store.close()
    done = lookalike(*WORDS, cwd=tmp_path, env={"LOOKALIKE_DATA": str(tmp_path)})
    assert done.returncode == 0
    assert [row["people"] for row in json.loads(done.stdout)] == ["everybody"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("rows of held-out people are left out: Labeled Faces in the Wild not found at")


def test_average_precision_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    who = rng.integers(0, 12, 90)
    rows = rng.normal(size=(90, 5)) + 0.8 * rng.normal(size=(12, 5))[who]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    paths = tuple(f"p{person}/{number}.jpg" for number, person in enumerate(who))
    images = LabeledImages("made", tuple(map(Path, paths)), paths, tuple(f"p{person}" for person in who))
    with temporary_collection(ImageVectors("made", rows, np.ones(90, np.bool_)), images) as (store, name):
        found = rank_all(store, name)
    index = {path: number for number, path in enumerate(paths)}
    for query in found.queries:
        me = index[query.record.payload["path"]]
        others = np.arange(90) != me
        scores, same = rows @ rows[me], who == who[me]
        assert query.precision == pytest.approx(average_precision_score(same[others], scores[others]))
        right = index[query.match.payload["path"]]
        assert same[right]
        assert right != me
        assert query.match_score == pytest.approx(scores[right], abs=1e-6)
        assert query.best == 1 + (scores[others] > scores[right] + 1e-7).sum()
        assert (query.best == 1) == query.found_in_first(1)


@pytest.mark.lfw
def test_own_folder_called_lfw_is_measured_without_a_held_out_row(
    store: VectorStore, tmp_path: Path, data_root: Path
) -> None:
    fill(store, "hand", HAND)
    store.update_info("hand", replace(SPEC, roots={"lfw": "/my/lfw"}))
    store.close()
    done = lookalike(*WORDS, cwd=tmp_path, env={"LOOKALIKE_DATA": str(data_root.absolute())})
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["people"] for row in json.loads(done.stdout)] == ["everybody"]
