"""``path~TEXT`` on servers that cannot: filtered here, with the same answers."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models
from qdrant_client.local.payload_filters import check_filter

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.substring import passes
from lookalike.indexer.store import Condition, Filter, parse_where
from tests.fixtures.qdrant_stub import Stub, serving
from tests.fixtures.stores import SPEC, D, point_ids, random_vectors

WHERES = ("path~/1", "path~b/, size>40", "path~a/,path~9", "person~x", "path~1, person!=p0", "tags~ee")


@pytest.fixture(scope="module")
def expected() -> Iterator[dict[str, tuple[list[str], int, list[str]]]]:
    """What a server that can do it answers."""
    with serving(version="1.20.1") as stub:
        yield answers(stub)


def answers(stub: Stub) -> dict[str, tuple[list[str], int, list[str]]]:
    """By condition: the ids of a scroll, the count, and the ids of a search."""
    found = {}
    with ServerStore.connect(stub.url) as store:
        store.create("c", SPEC)
        payloads = [
            {
                "root": "r",
                "path": f"{'ab'[n % 2]}/{n}.jpg",
                "size": n,
                "person": f"p{n % 3}",
                "tags": ["tree", "x"],
            }
            for n in range(150)
        ]
        store.upsert("c", point_ids(150), random_vectors(150), payloads)
        for where in WHERES:
            test = parse_where(where)
            scrolled = [record.id for record in store.scroll("c", where=test)]
            (hits,) = store.search("c", random_vectors(1, seed=3), k=7, where=test)
            found[where] = scrolled, store.count("c", where=test), [hit.id for hit in hits]
    return found


@pytest.mark.parametrize(
    "options",
    [{"version": "1.19.2"}, {"version": "1.16.0"}, {"strict": True}],
    ids=["1.19", "1.16", "strict"],
)
def test_a_server_that_cannot_answers_the_same(
    options: dict[str, object], expected: dict[str, tuple[list[str], int, list[str]]]
) -> None:
    with serving(**options) as stub:
        assert answers(stub) == expected
    assert [count for _, count, _ in expected.values()][3] == 0
    assert all(count for where, (_, count, _) in expected.items() if where != "person~x")


def test_what_lies_too_far_away_is_said_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.indexer.server.substring.MOST_HITS", 100)
    with serving(version="1.19.0") as stub, ServerStore.connect(stub.url) as store:
        store.create("c", SPEC)
        near, far = np.eye(D, dtype=np.float32)[:2]
        vectors = np.stack([near + n * far / 300 for n in range(300)])
        store.upsert("c", point_ids(300), vectors, [{"path": f"{n}.jpg"} for n in range(300)])
        assert [
            hit.payload["path"] for hit in store.search("c", near[None], k=1, where=parse_where("path~7"))[0]
        ] == ["7.jpg"]
        with pytest.raises(
            InvalidArgumentError, match=r"only 1 of the 100 nearest items have path~99\.jpg"
        ) as told:
            store.search("c", near[None], k=2, where=parse_where("path~99.jpg"))
        assert "that needs Qdrant 1.20" in str(told.value)
        assert "\n" not in str(told.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b c"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(["a", "b c"]), values, max_size=2),
    st.sampled_from(["a", "b c.a", "a.b c"]),
)
def test_it_means_what_the_engine_means(payload: dict[str, object], key: str) -> None:
    search = Condition(key, "~", "a")
    where = models.Filter.model_validate(Filter((search,)).to_json())
    assert passes(payload, [search]) == check_filter(where, payload, point_ids(1)[0], {"": True})
