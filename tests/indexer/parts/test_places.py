"""Sources and targets by URL: an S3 server of this machine (moto), and file://."""

import os
from pathlib import Path
from typing import Any

import pytest

from lookalike.encoder.errors import DataError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parts import load_parts, require_plan
from lookalike.indexer.units import Folder, units_status
from tests.fixtures import s3_server
from tests.fixtures.command import lookalike
from tests.fixtures.parts import (
    embed,
    same_but_file,
    some_photos,
    table_of,
    write_image_rows,
    write_tar,
)
from tests.fixtures.photos import photograph
from tests.fixtures.s3_server import S3, upload

s3 = s3_server.s3


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model, threads=1)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with images, an archive, a Parquet file of images, and a bad image."""
    folder = tmp_path / "photos"
    write_tar(folder / "a" / "0.tar", some_photos(6))
    write_image_rows(folder / "rows.parquet", some_photos(6))
    for name, data in {**some_photos(5), "bad.jpg": b"no image"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_a_file_url_is_a_path(model: Model, sources: Path, tmp_path: Path) -> None:
    report = embed(model, f"file://{tmp_path}/parts", f"file://{sources}")
    assert (report.status.rows, len(report.status.failed)) == (17, 1)
    embed(model, tmp_path / "others", sources)
    assert table_of(tmp_path / "parts").equals(table_of(tmp_path / "others"))


def test_a_place_that_is_not_there_is_told_on_one_line(model: Model, tmp_path: Path) -> None:
    for address in ("s3://", "hdfs://nowhere.invalid/x"):
        with pytest.raises(DataError, match=r"cannot be reached .*check the address, the keys") as caught:
            Folder(address).listed()
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_object_store_holds_sources_and_parts(s3: S3, model: Model, sources: Path, tmp_path: Path) -> None:
    embed(model, tmp_path / "parts", sources)
    upload(sources, Folder("s3://bucket/photos"))
    report = embed(model, "s3://bucket/parts", "s3://bucket/photos/")
    assert (report.status.rows, report.status.left) == (17, 0)
    ((path, reason),) = report.status.failed
    assert path == "s3://bucket/photos/bad.jpg"
    assert path in reason
    ours = rows_at(Folder("s3://bucket/parts"), tmp_path / "fetched")
    expected = table_of(tmp_path / "parts")
    of_objects = ["mtime_ns"]  # an object has the time at which it was put there
    assert same_but_file(ours.drop_columns(of_objects), expected.drop_columns(of_objects))
    before = len(s3.requests)
    again = embed(model, "s3://bucket/parts", "s3://bucket/photos/")
    assert (again.finished, len(again.status.failed)) == (0, 1)
    assert not [path for _, path in s3.requests[before:] if "/photos/" in path]
    status = units_status(require_plan(Folder("s3://bucket/parts")))
    assert (status.rows, status.left) == (17, 0)


def rows_at(folder: Folder, fetched: Path) -> Any:
    fetched.mkdir()
    for each, _ in folder.listed():
        (fetched / each.name).write_bytes(folder.read(each.name))
    return table_of(fetched)


@pytest.mark.slow
def test_an_archive_is_read_as_one_stream(s3: S3, model: Model, tmp_path: Path) -> None:
    noise = {f"{number:04d}.txt": os.urandom(100_000) for number in range(200)}
    images = {f"{number:04d}.jpg": photograph(number % 16) for number in range(200)}
    mixed = dict(sorted({**noise, **images}.items()))
    tar = write_tar(tmp_path / "0.tar", mixed)
    upload(tmp_path, Folder("s3://bucket/stream"))
    s3.requests.clear()
    report = embed(model, "s3://bucket/stream-parts", "s3://bucket/stream/0.tar")
    assert report.status.rows == 200
    assert s3.gets("/0.tar") <= tar.stat().st_size / 1e6 + 2


@pytest.mark.slow
def test_the_commands_take_urls(s3: S3, sources: Path, tiny_model: Path, tmp_path: Path) -> None:
    upload(sources, Folder("s3://bucket/of-commands"))
    words = ("embed", "s3://bucket/of-commands", "--model", tiny_model, "--out", "s3://bucket/latents")
    assert lookalike(*words, cwd=tmp_path).returncode == 3
    done = lookalike("latents", "status", "s3://bucket/latents", cwd=tmp_path)
    assert "0 left; 17 rows" in done.stdout
    for _ in range(2):
        done = lookalike("index", "s3://bucket/latents", "--collection", "a", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "4 were stored before" in done.stderr
    refused = lookalike("embed", "s3://bucket/of-commands", "--out", "x.parquet", cwd=tmp_path)
    assert "--out FOLDER/" in refused.stderr
    with open_store(str(tmp_path / ".lookalike")) as store:
        assert store.count("a") == 17
        report = load_parts(store, "a", require_plan(Folder("s3://bucket/latents")))
        assert (report.rows.added, report.parts) == (0, 0)
