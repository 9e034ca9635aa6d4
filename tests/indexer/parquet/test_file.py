"""The file of latents: what was written comes back, damage is told, and only a few rows are in memory."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lookalike.encoder.errors import DataError
from lookalike.indexer.parquet import is_latents
from lookalike.indexer.parquet.file import ROWS, Entry, LatentsFile, Rows, write_latents
from lookalike.indexer.parquet.resume import regroup
from lookalike.indexer.store import CollectionSpec

SPEC = CollectionSpec(
    model_id="a" * 64,
    model_name="faces",
    dimension=8,
    crop="center:0.5",
    roots={"photos": "/p", "Ä 漢": "/\\xff"},
)


def some_rows(count: int, *, start: int = 0) -> Rows:
    entries = [
        Entry(
            f"Hypatia/{number}.jpg" if number % 3 else f"Ä {number}.jpg",
            "photos" if number % 5 else "Ä 漢",
            f"{number:064x}",
            number,
            1_700_000_000_000_000_000 + number,
            "Hypatia" if number % 3 else None,
        )
        for number in range(start, start + count)
    ]
    return Rows(entries, np.random.default_rng(start).normal(size=(count, 8)).astype(np.float32))


def write(file: Path, *rows: Rows, spec: CollectionSpec = SPEC) -> Path:
    write_latents(file, spec, rows, draft=file.with_suffix(".new"))
    return file


def read(file: Path) -> tuple[CollectionSpec, list[Rows]]:
    with LatentsFile.open(file) as opened:
        return opened.spec, list(opened.rows())


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    rows = some_rows(100)
    file = write(tmp_path / "a.parquet", rows)
    spec, (back,) = read(file)
    assert spec == SPEC
    assert back.entries == rows.entries
    assert back.vectors.dtype == np.float32
    np.testing.assert_array_equal(back.vectors, rows.vectors)
    with LatentsFile.open(file) as opened:
        assert (opened.count, list(opened.keys())) == (100, [entry.key for entry in rows.entries])
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_what_more_is_said_comes_back(tmp_path: Path) -> None:
    plain = some_rows(4)
    said = [{"Smiling": -0.25, "place": "Αλεξάνδρεια"}, {}, None, {"wide": [1, {"a": True}]}]
    rows = plain._replace(entries=[e._replace(payload=p) for e, p in zip(plain.entries, said, strict=True)])
    file = tmp_path / "a.parquet"
    write_latents(file, SPEC, [rows], draft=tmp_path / "new", payload=True)
    assert [field.name for field in pq.read_schema(file)][-1] == "payload"
    _, (back,) = read(file)
    assert back.entries == rows.entries
    with LatentsFile.open(file) as opened:
        assert list(opened.keys()) == [entry.key for entry in rows.entries]
    for text in ("[1]", "{", "3"):
        column = pa.array([text, None, None, None])
        rewritten(write(file, plain), lambda table, column=column: table.append_column("payload", column))
        with pytest.raises(DataError, match=r"a\.parquet must be a whole Parquet file, but: "):
            read(file)


def test_a_file_may_be_empty(tmp_path: Path) -> None:
    assert read(write(tmp_path / "none.parquet")) == (SPEC, [])
    assert read(write(tmp_path / "zero.parquet", some_rows(0))) == (SPEC, [])


def test_others_find_plain_columns_and_the_model_in_it(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", some_rows(10))
    schema = pq.read_schema(file)
    assert {field.name: str(field.type) for field in schema} == {
        "path": "string", "root": "string", "sha256": "string", "size": "int64", "mtime_ns": "int64",
        "person": "string", "vector": "fixed_size_list<element: float not null>[8]",
        "file": "string",
    }  # fmt: skip
    told = json.loads(schema.metadata[b"lookalike"])
    assert told.pop("latents") == 1
    assert told == SPEC.to_json()


def test_a_row_group_is_written_for_each_piece_and_no_more_is_held(tmp_path: Path) -> None:
    made: list[int] = []

    def pieces() -> Iterator[Rows]:
        for start in range(0, 10_000, 500):
            made.append(start)
            yield some_rows(500, start=start)

    held: list[int] = []

    def watched() -> Iterator[Rows]:
        for rows in regroup(pieces()):
            held.append(500 * len(made) - sum(written))
            written.append(len(rows.entries))
            yield rows

    written: list[int] = []
    file = tmp_path / "a.parquet"
    write_latents(file, SPEC, watched(), draft=tmp_path / "draft")
    assert written == [4096, 4096, 1808]
    assert max(held) < ROWS + 500
    groups = pq.ParquetFile(file).metadata
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == written


def test_rows_are_read_a_few_at_a_time_also_of_a_file_of_one_group(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", some_rows(10_000))
    _, back = read(file)
    assert [len(rows.entries) for rows in back] == [4096, 4096, 1808]
    assert [entry.size for rows in back for entry in rows.entries] == list(range(10_000))


def test_reading_holds_a_group_and_not_the_file(tmp_path: Path) -> None:
    wide = replace(SPEC, dimension=256)
    vectors = np.random.default_rng(0).normal(size=(1024, 256)).astype(np.float32)
    pieces = [some_rows(1024, start=1024 * group)._replace(vectors=vectors) for group in range(24)]
    file = write(tmp_path / "a.parquet", *pieces, spec=wide)
    before = pa.total_allocated_bytes()
    with LatentsFile.open(file) as opened:
        held = [pa.total_allocated_bytes() - before for _ in opened.rows()]
    assert len(held) == 24
    assert max(held) < 8 * vectors.nbytes < file.stat().st_size // 2


@pytest.mark.parametrize("counts", [(), (0,), (0, 3, 0), (4, 4), (5, 1), (1, 1, 1, 1, 1), (13, 2)])
def test_joining_changes_no_row(counts: tuple[int, ...]) -> None:
    starts = np.cumsum((0, *counts)).tolist()
    pieces = [some_rows(count, start=start) for start, count in zip(starts, counts, strict=False)]
    found = list(regroup(pieces, count=4))
    assert [entry for rows in found for entry in rows.entries] == [e for rows in pieces for e in rows.entries]
    assert all(len(rows.entries) == 4 for rows in found[:-1])
    assert all(len(rows.entries) == len(rows.vectors) > 0 for rows in found)


def rewritten(file: Path, change: Any) -> Path:
    """Write the table again as another program would, its metadata kept."""
    table = pq.read_table(file)
    changed = change(table)
    pq.write_table(changed.replace_schema_metadata(changed.schema.metadata or table.schema.metadata), file)
    return file


def test_another_program_may_write_lists_and_texts_of_other_widths(tmp_path: Path) -> None:
    rows = some_rows(50)
    file = write(tmp_path / "a.parquet", rows)
    wide = {"path": pa.large_string(), "vector": pa.list_(pa.float64()), "size": pa.int32()}

    def widened(table: Any) -> Any:
        fields = [pa.field(field.name, wide.get(field.name, field.type)) for field in table.schema]
        return table.cast(pa.schema(fields)).append_column("extra", pa.array(range(50)))

    spec, (back,) = read(rewritten(file, widened))
    assert (spec, back.entries) == (SPEC, rows.entries)
    np.testing.assert_array_equal(back.vectors, rows.vectors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda table: table.drop_columns(["sha256"]),
            "must have columns path, root, sha256, .* it has path",
        ),
        (lambda table: table.replace_schema_metadata({"x": "y"}), "must name the model of its vectors"),
        (lambda table: table.replace_schema_metadata({"lookalike": "{"}), "must name the model of its"),
        (lambda table: table.replace_schema_metadata({"lookalike": "[]"}), "must name the model of its"),
        (
            lambda table: table.replace_schema_metadata({"lookalike": '{"latents": 1}'}),
            "must name the model",
        ),
        (lambda table: table.replace_schema_metadata({"lookalike": '{"latents": 2}'}), "a later lookalike"),
        (
            lambda table: put(table, "path", "../../etc/passwd"),
            "a path leads from its root to an image, '../",
        ),
        (lambda table: put(table, "path", "/etc/passwd"), "a path leads from its root"),
        (lambda table: put(table, "path", ""), "a path leads from its root"),
        (lambda table: put(table, "path", None), "must be a whole Parquet file, but: .*null"),
        (lambda table: put(table, "root", "nobody's"), 'no root is called "nobody\'s"'),
        (lambda table: put(table, "size", "many"), "must be a whole Parquet file, but: Failed to parse"),
        (lambda table: put(table, "vector", None), "must be a whole Parquet file, but: "),
        (lambda table: put(table, "vector", [1.0]), "must be a whole Parquet file, but: "),
    ],
)
def test_what_a_file_may_not_be(tmp_path: Path, change: Any, said: str) -> None:
    file = rewritten(write(tmp_path / "a.parquet", some_rows(5)), change)
    with pytest.raises(DataError, match=said) as caught:
        read(file)
    assert "a.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def put(table: Any, column: str, value: Any) -> Any:
    """Change the first row of a column."""
    first = value if isinstance(value, list) else pc.cast(pa.scalar(value), pa.string()).as_py()
    values = [first, *table.column(column).to_pylist()[1:]]
    if isinstance(first, str):
        values = [str(each) for each in values]
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def test_a_vector_of_another_length_than_is_said_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", some_rows(5))
    told = json.dumps({"latents": 1, **replace(SPEC, dimension=9).to_json()})
    rewritten(file, lambda table: table.replace_schema_metadata({"lookalike": told}))
    with pytest.raises(DataError, match="must be a whole Parquet file"):
        read(file)


def test_damage_anywhere_is_told_or_harmless(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", some_rows(300), some_rows(300, start=300))
    whole = file.read_bytes()
    _, expected = read(file)
    rng = random.Random(0)
    told: list[str] = []
    for _ in range(300):
        place = rng.randrange(len(whole))
        bad = bytearray(whole)
        bad[place] ^= 1 << rng.randrange(8)
        file.write_bytes(bad if rng.random() < 0.7 else whole[:place])
        try:
            _, rows = read(file)
        except DataError as error:
            told.append(str(error))
        else:  # a bit of what is not read with the rows: statistics, the words about the model
            assert [each.entries for each in rows] == [each.entries for each in expected]
            assert all(np.array_equal(a.vectors, b.vectors) for a, b in zip(rows, expected, strict=True))
    assert len(told) > 200
    assert not any("\n" in line for line in told)


def test_a_file_is_known_by_its_name_or_its_first_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.parquet", some_rows(1)).rename("b.bin")
    (tmp_path / "c.Parquet").write_bytes(b"")
    (tmp_path / "d.parquet").mkdir()
    (tmp_path / "e.jpg").write_bytes(b"\xff\xd8\xff")
    named = ("b.bin", "c.Parquet", "gone.parquet", "d.parquet", "e.jpg", "lfw", ".", "", "gone.jpg")
    assert [is_latents(each) for each in named] == [True] * 3 + [False] * 6


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_bytes(b"no\n")
    for name, said in (
        ("text.parquet", "must be a whole"),
        ("gone.parquet", "is not a file"),
        (".", "is not a file"),
    ):
        with pytest.raises(DataError, match=said):
            LatentsFile.open(tmp_path / name)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", some_rows(5))

    def broken() -> Iterator[Rows]:
        yield some_rows(5)
        raise OSError(28, "No space left on device")

    with pytest.raises(
        DataError, match=r"a\.parquet cannot be written \(No space left on device\); make room"
    ):
        write_latents(file, SPEC, broken(), draft=tmp_path / "draft")
    assert read(file)[1][0].entries == some_rows(5).entries
