"""A file of latents from anybody: it opens no image that the user did not name; bad rows store nothing."""

import json
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.indexer.maintenance import copy_collection, verify
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import is_latents, latents_files, load_latents
from lookalike.indexer.parquet.file import Entry, LatentsFile, Rows, write_latents
from lookalike.indexer.store import CollectionSpec, VectorStore
from lookalike.indexer.sync import new_spec
from lookalike.searcher.search import Searcher
from tests.fixtures import stores
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import NAME, index, photograph, write_photos

store = stores.store


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


def spec_of(model: Model, **roots: Path | str) -> CollectionSpec:
    return replace(new_spec(model.bundle, crop=None), roots={name: str(each) for name, each in roots.items()})


def rows_of(spec: CollectionSpec, *entries: tuple[str, str, dict[str, Any] | None], seed: int = 0) -> Rows:
    vectors = np.random.default_rng(seed).normal(size=(len(entries), spec.dimension)).astype(np.float32)
    return Rows([Entry(path, root, "0" * 64, 1, seed, None, extra) for root, path, extra in entries], vectors)


def write(
    file: Path, spec: CollectionSpec, *entries: tuple[str, str, dict[str, Any] | None], seed: int = 0
) -> Path:
    write_latents(
        file, spec, [rows_of(spec, *entries, seed=seed)], draft=file.with_suffix(".new"), payload=True
    )
    return file


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def said_payload(file: Path, text: str) -> Path:
    """Give the last row of a file a payload in these words."""
    table = pq.read_table(file)
    texts = [*table.column("payload").to_pylist()[:-1], text]
    at = table.column_names.index("payload")
    pq.write_table(table.set_column(at, "payload", pa.array(texts)), file)
    return file


def of(key: str, *values: Any) -> list[dict[str, Any]]:
    return [{key: value} for value in values]


@pytest.mark.parametrize(
    "path", ["\\x2fetc\\x2fpasswd", "a/\\x2e\\x2e/\\x2e\\x2e/b.jpg", "\\x2e\\x2e/b.jpg", "a\\x00.jpg"]
)
def test_a_path_is_checked_after_it_is_decoded(
    store: VectorStore, model: Model, tmp_path: Path, path: str
) -> None:
    spec = spec_of(model, photos=tmp_path)
    file = write(tmp_path / "a.parquet", spec, ("photos", "a.jpg", None), ("photos", path, None))
    with pytest.raises(DataError, match="a path leads from its root to an image"):
        load_latents(store, NAME, [file])
    assert store.list_collections() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({"x": deep(33)}), "row 5001 .*field 'x' is nested more than 32"),
        (json.dumps({"ok": 1, "x": deep(124)}), "row 5001 .*field 'x' is nested more than 32"),
        ('{"x": ' + "[" * 50_000 + "]" * 50_000 + "}", "row 5001 .*nested too deeply"),
        ('{"x": 1e999}', "row 5001 .*field 'x' is not a JSON value"),
        ('{"x": 99999999999999999999}', "row 5001 .*field 'x' is not a JSON value"),
        ('{"x": "\\ud800"}', "row 5001 .*field 'x' is not a JSON value"),
        ('{"person": [1]}', r"row 5001 .*\[1\] is not text"),
        ("[1]", "row 5001 .*a payload is a JSON object"),
        ("{", "row 5001 .*"),
    ],
)
def test_a_row_that_cannot_be_stored_is_named_and_nothing_is(
    store: VectorStore, model: Model, tmp_path: Path, text: str, said: str
) -> None:
    spec = spec_of(model, photos=tmp_path)
    file = write(tmp_path / "a.parquet", spec, *(("photos", f"{n}.jpg", None) for n in range(5001)))
    with pytest.raises(DataError, match=f"a.parquet: {said}") as caught:
        load_latents(store, NAME, [said_payload(file, text)])
    assert "\n" not in str(caught.value)
    assert store.list_collections() == []


def test_a_person_that_is_a_number_is_text(store: VectorStore, model: Model, tmp_path: Path) -> None:
    spec = spec_of(model, photos=tmp_path)
    file = said_payload(write(tmp_path / "a.parquet", spec, ("photos", "a.jpg", None)), '{"person": 123}')
    load_latents(store, NAME, [file])
    assert [record.payload["person"] for record in store.scroll(NAME)] == ["123"]


def test_a_root_that_only_a_file_tells_opens_no_picture(
    store: VectorStore, model: Model, tmp_path: Path
) -> None:
    secret = tmp_path / "private" / "secret.jpg"
    secret.parent.mkdir()
    secret.write_bytes(photograph(7))
    file = write(tmp_path / "a.parquet", spec_of(model, home=tmp_path), ("home", "private/secret.jpg", None))
    lines: list[str] = []
    load_latents(store, NAME, [file], warn=lines.append)
    assert lines == [
        f"images of home will not be shown: only the file says that they are in {tmp_path}; if they are, "
        "index it again with --root and that folder"
    ]
    (record,) = store.scroll(NAME)
    assert store.info(NAME).folder_of("home") is None
    assert Searcher(store, NAME, model).item_image(dict(record.payload), side=32) is None
    checked = verify(store, NAME)
    assert (checked.without_file, checked.issues) == (1, [])
    # A copy does not make it the user's own.
    store.create("other", store.info(NAME))
    copy_collection(store, NAME, store, "copy")
    copy_collection(store, NAME, store, "other")
    for name in ("copy", "other"):
        assert store.info(name).foreign_roots == ("home",)
    # The user says where it is.
    load_latents(store, NAME, [file], root=tmp_path)
    assert Searcher(store, NAME, model).item_image(dict(record.payload), side=32) is not None
    assert store.info(NAME).foreign_roots == ()
    # Once it is known, a later file changes nothing about it.
    load_latents(store, NAME, [file], warn=lines.append)
    assert store.info(NAME).roots == {"home": str(tmp_path)}
    assert len(lines) == 1


def test_what_lies_in_a_root_that_a_file_tells_is_not_part_of_it(
    store: VectorStore, model: Model, tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", each=1)
    file = write(tmp_path / "a.parquet", spec_of(model, everything="/"), ("everything", "etc/a.jpg", None))
    load_latents(store, NAME, [file])
    report = index(store, model, tmp_path / "photos")
    assert report.added == 3
    spec = store.info(NAME)
    assert (spec.roots["photos"], spec.foreign_roots) == (str(tmp_path / "photos"), ("everything",))


def test_a_folder_that_is_indexed_becomes_the_users_own(
    store: VectorStore, model: Model, tmp_path: Path
) -> None:
    write_photos(tmp_path / "photos", each=1)
    folder = tmp_path / "photos"
    file = write(tmp_path / "a.parquet", spec_of(model, photos=folder), ("photos", "Hypatia/0.jpg", None))
    load_latents(store, NAME, [file])
    assert store.info(NAME).foreign_roots == ("photos",)
    index(store, model, folder)
    assert (store.info(NAME).folder_of("photos"), store.count(NAME)) == (str(folder), 3)


def test_a_sheet_shows_no_picture_below_a_strangers_root(
    tiny_model: Path, model: Model, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64), (255, 0, 255)).save(tmp_path / "secret.png")
    (tmp_path / "me.jpg").write_bytes(photograph(1))
    write(tmp_path / "a.parquet", spec_of(model, home=tmp_path), ("home", "secret.png", None))
    words = ("search", "me.jpg", "--collection", NAME, "--model", tiny_model, "--sheet", "out.png")
    for more, shown in (((), False), (("--root", "."), True)):
        done = lookalike("index", "a.parquet", "--collection", NAME, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert lookalike(*words, cwd=tmp_path).returncode == 0
        pixels = np.asarray(Image.open(tmp_path / "out.png").convert("RGB")).reshape(-1, 3)
        assert bool((pixels == (255, 0, 255)).all(axis=1).any()) is shown


@pytest.mark.parametrize("crop", ["", "x", "center:0", "center:nan", "1,2", "0,0,2,2"])
def test_a_crop_that_cannot_be_read_is_refused(
    store: VectorStore, model: Model, tmp_path: Path, crop: str
) -> None:
    spec = replace(spec_of(model, photos=tmp_path), crop=crop)
    file = write(tmp_path / "a.parquet", spec, ("photos", "a.jpg", None))
    with pytest.raises(DataError, match="names a crop that cannot be read"):
        load_latents(store, NAME, [file])
    assert store.list_collections() == []


@pytest.mark.parametrize(
    "change",
    [
        *of("dimension", 0, -1, 65_537, 2**31, 2**70, 1.5, "8", None),
        *of("roots", [], "x", None, {"a": 1}, {"a": None}),
        *of("crop", None, 1, []),
        *({"model_id": 5}, {"metric": "dot"}, {"format": "x"}, {"more": 1}),
    ],
)
def test_metadata_of_any_kind_is_read_or_refused(
    store: VectorStore, model: Model, tmp_path: Path, change: dict[str, Any]
) -> None:
    spec = spec_of(model, photos=tmp_path)
    file = write(tmp_path / "a.parquet", spec, ("photos", "a.jpg", None))
    record = {"latents": 1, **spec.to_json(), **change}
    pq.write_table(pq.read_table(file).replace_schema_metadata({"lookalike": json.dumps(record)}), file)
    with pytest.raises(DataError) as caught:
        load_latents(store, NAME, [file])
    assert "\n" not in str(caught.value)
    assert store.list_collections() == []


def test_deep_metadata_is_refused(tmp_path: Path, model: Model) -> None:
    file = write(tmp_path / "a.parquet", spec_of(model, photos=tmp_path), ("photos", "a.jpg", None))
    deep_text = '{"latents": 1, "x": ' + "[" * 50_000 + "]" * 50_000 + "}"
    pq.write_table(pq.read_table(file).replace_schema_metadata({"lookalike": deep_text}), file)
    with pytest.raises(DataError):
        LatentsFile.open(file)


def test_rows_that_name_an_image_again_count_once_and_the_last_is_stored(
    store: VectorStore, model: Model, tmp_path: Path
) -> None:
    spec = spec_of(model, photos=tmp_path)
    one = [("photos", path, {"n": n}) for n, path in enumerate(("a.jpg", "b.jpg", "a.jpg", "a.jpg"))]
    first = write(tmp_path / "1.parquet", spec, *one)
    second = write(
        tmp_path / "2.parquet", spec, ("photos", "b.jpg", {"n": 10}), ("photos", "c.jpg", {"n": 11})
    )
    for counts in ((3, 0, 0), (0, 0, 3)):
        lines: list[str] = []
        report = load_latents(store, NAME, [first, second], warn=lines.append)
        assert (report.added, report.changed, report.unchanged) == counts
        assert lines[0] == "3 rows name an image that a later row names again; the last of them counts"
        assert {r.payload["path"]: r.payload["n"] for r in store.scroll(NAME)} == {
            "a.jpg": 3,
            "b.jpg": 10,
            "c.jpg": 11,
        }


def test_a_folder_of_parts_is_one_set_and_one_of_pictures_is_not(
    store: VectorStore, model: Model, tmp_path: Path
) -> None:
    spec, parts = spec_of(model, photos=tmp_path), tmp_path / "parts"
    parts.mkdir()
    for number in range(3):
        write(parts / f"part-{number}.parquet", spec, ("photos", f"{number}.jpg", None))
    for name in ("_SUCCESS", "_metadata.parquet", ".part.parquet", ".part.parquet.crc", "notes.txt"):
        (parts / name).write_bytes(b"x")
    assert is_latents(str(parts))
    assert [file.name for file in latents_files(str(parts))] == [f"part-{n}.parquet" for n in range(3)]
    done = lookalike("index", "parts", "--collection", NAME, cwd=tmp_path)
    assert "photos: 3 added, 0 changed, 0 unchanged" in done.stderr
    spark = parts.rename(tmp_path / "table.parquet")  # as Spark calls such a folder
    again = lookalike("index", spark.name, "--collection", NAME, cwd=tmp_path)
    assert one_line(again).startswith("photos: 0 added, 0 changed, 3 unchanged")
    (spark / "deeper").mkdir()
    (spark / "deeper" / "a.jpg").write_bytes(photograph(0))
    assert not is_latents(str(spark))
    (tmp_path / "empty").mkdir()
    assert not is_latents(str(tmp_path / "empty"))


def test_more_files_than_may_be_open_are_loaded(store: VectorStore, model: Model, tmp_path: Path) -> None:
    spec = spec_of(model, photos=tmp_path)
    first = write(tmp_path / "0.parquet", spec, ("photos", "0.jpg", None))
    files = [first, *(tmp_path / f"{number}.parquet" for number in range(1, 60))]
    for file in files[1:]:
        os.link(first, file)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 40, hard))
    try:
        assert load_latents(store, NAME, files).added == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_system_error_is_not_told_as_damage(tmp_path: Path, model: Model) -> None:
    file = write(tmp_path / "a.parquet", spec_of(model, photos=tmp_path), ("photos", "a.jpg", None))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    LatentsFile.open(file).close()  # what is imported on the way
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(DataError, match=r"a.parquet cannot be read \(Too many open files\)"):
            LatentsFile.open(file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_large_file_gets_a_search_index(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookalike.indexer.sync.collection.INDEX_ABOVE", 500)
    spec = spec_of(model, photos=tmp_path)
    file = write(tmp_path / "a.parquet", spec, *(("photos", f"{n}.jpg", None) for n in range(600)))
    with open_store(str(tmp_path / "store")) as opened:
        lines: list[str] = []
        load_latents(opened, NAME, [file], root=tmp_path, log=lines.append)
        assert lines == [f"{NAME}: building the search index of 600 vectors"]
        assert opened.index_state(NAME).indexed == 600


def test_root_names_one_root(store: VectorStore, model: Model, tmp_path: Path) -> None:
    spec = spec_of(model, one=tmp_path, two="/two")
    file = write(tmp_path / "a.parquet", spec, ("one", "a.jpg", None), ("two", "a.jpg", None))
    with pytest.raises(InvalidArgumentError, match=r"--root names one root, .* has one, two; leave"):
        load_latents(store, NAME, [file], root=tmp_path)
