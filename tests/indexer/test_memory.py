"""Memory that does not grow with the collection: bytes of each item, measured in processes of their own.

The bounds are of a million items in 100 MB, or less. ``pytest -m slow -s`` prints what was measured.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet.export import export_latents
from lookalike.indexer.parquet.file import Entry, LatentsFile, Rows, write_latents
from lookalike.indexer.sources import FileList, SourceList, item_id, read_payload
from lookalike.indexer.store import CollectionSpec
from lookalike.indexer.sync import new_spec, sync
from lookalike.indexer.sync.plan import SourceScan
from lookalike.indexer.sync.predict import predict_attributes
from tests.fixtures import stores
from tests.fixtures.memory import growth, per_item
from tests.fixtures.stores import D, point_ids, random_vectors
from tests.fixtures.tiny_models import COMMITTED
from tests.indexer.sync.test_predict import reader

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

FEW, MANY = 10_000, 90_000
EACH: Final = 1000
"""Files in a folder."""


def path_of(number: int) -> str:
    return f"{number // EACH:04d}/{number:08d}.pgm"


def link_files(folder: Path, count: int) -> None:
    """Write as many files: links to a few of one pixel, as a file system has its most links of a file."""
    for number in range(count):
        file = folder / path_of(number)
        if number % EACH == 0:
            file.parent.mkdir(parents=True)
        if number % (30 * EACH) == 0:
            (first := file).write_bytes(b"P5\n1 1\n255\n\0")
        else:
            os.link(first, file)


def write_list(file: Path, folder: Path, count: int) -> Path:
    with file.open("w") as out:
        out.writelines(f"{folder / path_of(number)}\n" for number in range(count))
    return file


def spec_of(folder: Path) -> CollectionSpec:
    return replace(new_spec(Bundle.open(COMMITTED[0]), crop=None), roots={"photos": str(folder)})


def rows_of(folder: Path, count: int) -> Iterator[Rows]:
    """What ``embed`` would write of the files of a folder, but for the vectors."""
    sha256 = hashlib.sha256(b"P5\n1 1\n255\n\0").hexdigest()
    for start in range(0, count, EACH):
        entries = []
        for number in range(start, min(count, start + EACH)):
            status = (folder / path_of(number)).stat()
            path = path_of(number)
            entries.append(Entry(path, "photos", sha256, status.st_size, status.st_mtime_ns, path[:4]))
        yield Rows(entries, np.random.default_rng(start).normal(size=(len(entries), 4)).astype(np.float32))


def read_list_into_items(count: int, place: Path) -> Iterator[None]:
    folder = place / "photos"
    listed = SourceList(files=FileList(str(write_list(place / "list", folder, count)), nul=False))
    yield
    (source,) = listed.open({})
    assert sum(1 for _ in source.items()) == count


def scan_twice(count: int, place: Path) -> Iterator[None]:
    names = FileList(str(write_list(place / "list", place / "photos", count)), nul=False)
    (source,) = SourceList(files=names).open({})
    yield
    assert sum(len(items) for _, items in SourceScan([source, source])) == count


def read_table(count: int, place: Path) -> Iterator[None]:
    file = place / "table.csv"
    with file.open("w") as out:
        out.write("path,person,age,note,Smiling\n")
        for number in range(count):
            out.write(f"{path_of(number)},Person {number // 20},{number % 90},note {number},{number / 7}\n")
    yield
    table = read_payload(file)
    assert sum(len(table.get(path_of(number), {})) for number in range(0, count, 7)) == 4 * len(
        range(0, count, 7)
    )


def resume(count: int, place: Path) -> Iterator[None]:
    """All but one row of a file are reused."""
    folder, out = place / "photos", place / f"{count}.parquet"
    write_latents(out, spec_of(folder), rows_of(folder, count - 1), draft=place / "new")
    names = FileList(str(write_list(place / "list", folder, count)), nul=False)
    sources = SourceList(files=names, root=folder).open({})
    model = Model.open(COMMITTED[0])
    few = SourceList(files=[folder / path_of(0)], root=folder).open({})
    export_latents(model, few, place / "warm.parquet")
    yield
    report = export_latents(model, sources, out, overwrite=True)
    assert (report.kept, report.embedded) == (count - 1, 1)
    with LatentsFile.open(out) as opened:
        assert opened.count == count


def fill(address: str, folder: Path, count: int) -> None:
    with open_store(address) as store:
        store.create("photos", spec_of(folder))
        for rows in rows_of(folder, count):
            store.upsert(
                "photos",
                [item_id("photos", entry.path) for entry in rows.entries],
                rows.vectors,
                [{k: v for k, v in entry._asdict().items() if v is not None} for entry in rows.entries],
            )


def compare(count: int, address: str, folder: Path) -> Iterator[None]:
    model = Model.open(COMMITTED[0])
    with open_store(address) as store:
        store.count("photos")
        yield
        report = sync(store, "photos", model, [folder])
    assert (report.unchanged, report.added, report.missing) == (count, 0, 0)


def predict(count: int, address: str) -> Iterator[None]:
    with open_store(address) as store:
        store.create("a", stores.SPEC)
        ids, vectors = point_ids(count), random_vectors(count)
        for start in range(0, count, EACH):
            part = slice(start, start + EACH)
            payloads = [{"path": path_of(number), "note": "x" * 200} for number in range(start, start + EACH)]
            store.upsert("a", ids[part], vectors[part], payloads)
    del ids, vectors
    with open_store(address) as store:
        store.count("a")
        yield
        assert predict_attributes(store, "a", [reader("A", 0), reader("B", D - 1)]) == count


def within(told: str, measured: float, bound: float) -> None:
    sys.stdout.write(f"{told}: {measured:.0f} bytes an item\n")
    assert measured < bound, f"{told}: {measured:.0f} bytes an item"


def test_names_of_a_list(tmp_path: Path) -> None:
    within("--files-from", per_item(read_list_into_items, FEW, 10 * MANY, tmp_path), 25)


def test_several_sources(tmp_path: Path) -> None:
    within("several sources", per_item(scan_twice, FEW, 4 * MANY, tmp_path), 50)


def test_tables_of_metadata(tmp_path: Path) -> None:
    within("--payload", per_item(read_table, FEW, 2 * MANY, tmp_path), 10)


def test_going_on_with_a_file(tmp_path: Path) -> None:
    link_files(tmp_path / "photos", MANY)
    within("resuming", per_item(resume, FEW, MANY, tmp_path), 60)


def test_comparing(tmp_path: Path) -> None:
    measured: dict[int, Any] = {}
    for count in (FEW, MANY):
        folder = tmp_path / f"{count}" / "photos"
        link_files(folder, count)
        fill(str(tmp_path / f"store-{count}"), folder, count)
        measured[count] = growth(compare, count, str(tmp_path / f"store-{count}"), folder)
    within("comparing", (measured[MANY] - measured[FEW]) / (MANY - FEW), 100)


def test_predicting_for_200_000(tmp_path: Path) -> None:
    grown = growth(predict, 200_000, str(tmp_path / "store"))
    sys.stdout.write(f"--predict: {grown / 1e6:.0f} MB for 200,000 points\n")
    assert grown < 100e6
