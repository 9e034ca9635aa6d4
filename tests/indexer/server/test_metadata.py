"""A key of metadata for each root: of two runs that write at once nothing is lost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.encoder.errors import CollectionExistsError, ModelMismatchError, StoreError
from lookalike.encoder.runtime import Model
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.metadata import KEY, ROOT_KEY, metadata_changes, spec_values, to_metadata
from lookalike.indexer.store import CollectionSpec, VectorStore, create_or_open
from lookalike.indexer.sync.collection import prepare_collection
from tests.fixtures import stores
from tests.fixtures.photos import index, write_photos
from tests.fixtures.qdrant_stub import Answer, Asked, Stub, serving
from tests.fixtures.stores import SPEC, everything, fill

store, name = stores.store, stores.name
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
specs = st.builds(
    lambda roots, foreign, unlike: replace(
        SPEC,
        roots=roots,
        foreign_roots=tuple(root for root in sorted(roots) if root in foreign),
        unlike_training=unlike,
    ),
    st.dictionaries(names, names, max_size=4),
    st.sets(names),
    st.booleans(),
)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as made:
        yield made


def read(metadata: dict[str, object]) -> CollectionSpec:
    return CollectionSpec.from_json(spec_values(metadata) or {}, where="here")


def merged(metadata: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    """As the server does."""
    return {key: value for key, value in (metadata | changes).items() if value is not None}


def old(spec: CollectionSpec) -> dict[str, object]:
    """What earlier releases wrote."""
    return {KEY: spec.to_json()}


@settings(max_examples=40)
@given(specs)
def test_a_spec_is_read_back(spec: CollectionSpec) -> None:
    assert read(to_metadata(spec)) == spec
    assert read(old(spec)) == spec


@settings(max_examples=40)
@given(specs, specs)
def test_changes_lead_from_one_spec_to_the_other(one: CollectionSpec, other: CollectionSpec) -> None:
    for metadata in (to_metadata(one), old(one)):
        after = merged(metadata, metadata_changes(metadata, one, other))
        assert (read(after), after) == (other, to_metadata(other))
    assert metadata_changes(to_metadata(one), one, one) == {}


@settings(max_examples=40)
@given(specs, specs, specs)
def test_of_two_that_write_at_once_both_count(
    start: CollectionSpec, one: CollectionSpec, other: CollectionSpec
) -> None:
    """Both read the same; what each then writes is merged in any order."""
    changed = (
        {root for root in (*one.roots, *other.roots) if one.roots.get(root) != other.roots.get(root)}
        & {*one.roots}
        & {*other.roots}
    )
    both = {root for root in changed if start.roots.get(root) not in (one.roots[root], other.roots[root])}
    if both:
        return  # two folders under one new name: the later one is refused
    for metadata in (to_metadata(start), old(start)):
        after = merged(metadata, metadata_changes(metadata, start, one))
        current = read(after)
        after = merged(after, metadata_changes(after, current, current.with_changes("c", start, other)))
        late = merged(metadata, metadata_changes(metadata, start, one))  # before the first one was written
        late = merged(late, metadata_changes(metadata, start, start.with_changes("c", start, other)))
        added = {*one.roots, *other.roots} - {*start.roots}
        assert added <= {*read(after).roots}
        assert added <= {*read(late).roots}
        folders = {root: {one.roots.get(root), other.roots.get(root)} for root in start.roots}
        gone = {root for root, two in folders.items() if None in two and two <= {None, start.roots[root]}}
        assert not gone & {*read(after).roots}


def test_a_root_that_another_run_has_named_meanwhile_is_refused() -> None:
    mine, theirs = (replace(SPEC, roots={**SPEC.roots, "new": folder}) for folder in ("/mine", "/theirs"))
    with pytest.raises(
        StoreError, match="called /theirs the root 'new' of 'c' meanwhile, this one /mine"
    ) as told:
        theirs.with_changes("c", SPEC, mine)
    assert "\n" not in str(told.value)
    assert mine.with_changes("c", SPEC, mine) == mine


def test_two_runs_add_a_root_each(store: VectorStore, name: str) -> None:
    before = store.info(name)
    for root in ("one", "two"):  # neither knows of the other
        store.update_info(name, replace(before, roots={**before.roots, root: f"/{root}"}), before=before)
    assert store.info(name).roots == {**SPEC.roots, "one": "/one", "two": "/two"}
    current = store.info(name)
    store.update_info(name, replace(current, roots={"two": "/two"}))
    assert store.info(name).roots == {"two": "/two"}


def test_what_is_written_is_the_changed_keys_alone(stub: Stub) -> None:
    with ServerStore.connect(stub.url) as store:
        store.create("c", SPEC)
        store.update_info("c", replace(SPEC, roots={**SPEC.roots, "new": "/new"}))
        (asked,) = stub.of("/collections/c", "PATCH")
        assert asked.body["metadata"] == {f"{ROOT_KEY}new": {"folder": "/new", "foreign": False}}
        store.update_info("c", store.info("c"))
        assert len(stub.of("/collections/c", "PATCH")) == 1


def test_a_collection_of_an_earlier_release(stub: Stub) -> None:
    with ServerStore.connect(stub.url) as store:
        spec = replace(SPEC, foreign_roots=("lfw",))
        store.create("c", spec)
        fill(store, "c", 5)
        ids = {each[0] for each in everything(store, "c")}
        stub.collections["c"]["metadata"] = {**old(spec), "another program": 1}
    with ServerStore.connect(stub.url) as store:
        assert (store.list_collections(), store.info("c")) == (["c"], spec)
        assert {each[0] for each in everything(store, "c")} == ids
        new = replace(spec, roots={**spec.roots, "new": "/new"}, foreign_roots=())
        store.update_info("c", new)
        assert store.info("c") == new
        assert stub.collections["c"]["metadata"] == {**to_metadata(new), "another program": 1}


def racing(stub: Stub) -> None:
    """Make the collection that is about to be made, just before it is."""
    real = stub.answer

    def answer(asked: Asked) -> Answer:
        if (asked.method, asked.path) == ("PUT", "/collections/c") and "c" not in stub.collections:
            status, value = real(asked)
            assert (status, value["status"]) == (200, "ok")
        return real(asked)

    stub.answer = answer  # type: ignore[method-assign]  # for this test


def test_when_two_make_it_at_once_both_go_on(stub: Stub, tiny_model: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    racing(stub)
    model = Model.open(tiny_model)
    with ServerStore.connect(stub.url) as store:
        report = index(store, model, tmp_path / "photos", name="c")
        assert (report.added, store.count("c"), [*store.info("c").roots]) == (9, 9, ["photos"])


def test_a_peer_that_makes_it_and_loses_the_answer_is_asked_past(stub: Stub) -> None:
    real = stub.answer

    def answer(asked: Asked) -> Answer:
        made = (asked.method, asked.path) == ("PUT", "/collections/c") and "c" not in stub.collections
        told = real(asked)
        return (500, {"status": {"error": "lost"}, "time": 0.0}) if made else told

    stub.answer = answer  # type: ignore[method-assign]  # for this test
    with ServerStore.connect(f"{stub.url},{stub.url}") as store:
        store.create("c", SPEC)
        assert store.info("c") == SPEC


def test_who_finds_it_made_for_another_model_is_told(stub: Stub, tiny_model: Path) -> None:
    model = Model.open(tiny_model)
    with ServerStore.connect(stub.url) as store, ServerStore.connect(stub.url) as other:
        spec = replace(SPEC, dimension=model.bundle.spec.embedding)
        assert create_or_open(other, "c", spec) == spec
        with pytest.raises(CollectionExistsError):
            store.create("c", spec)
        assert create_or_open(store, "c", replace(spec, model_id="c" * 64)) == spec
        with pytest.raises(ModelMismatchError, match="holds vectors of model faces"):
            prepare_collection(store, "c", model)
