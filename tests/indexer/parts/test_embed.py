"""Images to parts: by any runner, killed, changed or broken, the rows are those of one file."""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lookalike.encoder.detect import Faces, parse_framing
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import export_latents
from lookalike.indexer.parts import EmbedSettings, embed_job, load_parts, make_plan, require_plan
from lookalike.indexer.sources import FileList, SourceFilter, SourceList, person_pattern
from lookalike.indexer.units import Folder, LocalRun, Shard, UnitSize, do_units, units_status
from tests.fixtures.face_photos import group, write
from tests.fixtures.parts import (
    embed,
    names_of,
    plan_of,
    run_in_order,
    same_but_file,
    some_photos,
    table_of,
    write_image_rows,
    write_tar,
)
from tests.fixtures.photos import photograph, write_many, write_photos
from tests.fixtures.processes import child_env
from tests.fixtures.tiny_models import make_bundle


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model, threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 60 photographs and three files that cannot be read."""
    write_many(tmp_path / "photos", 60)
    (tmp_path / "photos" / "00000a.jpg").write_bytes(b"")
    (tmp_path / "photos" / "00031a.png").write_bytes(b"no image")
    (tmp_path / "photos" / "zz.jpg").symlink_to("nowhere")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbedSettings, "unit_size", UnitSize(first=16))


def as_one_file(model: Model, out: Path, *sources: Path, **reading: object) -> Path:
    listed = SourceList(sources=[*map(str, sources)], **reading)  # type: ignore[arg-type]
    export_latents(model, listed.open({}), out)
    return out


@pytest.mark.parametrize("how", ["in order", "processes", "shares"])
def test_parts_have_the_rows_and_failures_of_one_file(
    how: str, model: Model, photos: Path, tmp_path: Path
) -> None:
    report = export_latents(model, SourceList(sources=[str(photos)]).open({}), tmp_path / "one.parquet")
    out = tmp_path / "parts"
    if how == "shares":
        for number in (1, 3, 2, 4):
            embed(model, out, photos, shard=Shard(number, 4))
    elif how == "processes":
        with closing(LocalRun(model, processes=2)) as run:
            embed(model, out, photos, run=run)
    else:
        embed(model, out, photos)
    before = names_of(out)
    assert len(before) > 3
    whole, expected = (
        pq.read_table(out).sort_by("path"),
        pq.read_table(tmp_path / "one.parquet").sort_by("path"),
    )
    assert whole.combine_chunks().equals(expected.combine_chunks())
    again = embed(model, out, photos)
    assert (again.finished, again.status.left) == (0, 0)
    assert sorted(again.status.failed) == sorted(report.failed)
    assert len(again.status.failed) == 3
    assert names_of(out) == before
    manifest = json.loads((out / "_manifest.json").read_text())
    assert (manifest["rows"], manifest["units"]) == (60, len(before))


def test_archives_and_rows_of_images_are_units(model: Model, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    write_tar(shards / "a" / "0.tar", some_photos(5))
    write_tar(shards / "1.tar", {**some_photos(3), "notes.txt": b"no image"})
    write_image_rows(shards / "rows.parquet", some_photos(10))
    write_photos(shards / "plain")
    pq.write_table(pq.read_table(shards / "rows.parquet").select([]), shards / "other.parquet")
    report = embed(model, tmp_path / "parts", shards)
    assert report.status.units == 1 + 2 + 3
    assert report.status.rows == 5 + 3 + 10 + 9
    assert report.skipped == {".parquet": 1}
    rows = {row["path"]: row for row in table_of(tmp_path / "parts").to_pylist()}
    assert rows["a/0.tar/Ada/04.jpg"]["person"] == "Ada"
    assert rows["rows.parquet/00000009/Ada/09.jpg"]["person"] == "Ada"
    assert {row["root"] for row in rows.values()} == {"shards"}
    one, other = rows["1.tar/Ada/02.jpg"], rows["rows.parquet/00000002/Ada/02.jpg"]
    assert (one["sha256"], one["size"]) == (other["sha256"], other["size"])


def test_an_archive_has_the_rows_of_one_file(model: Model, tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "shards" / "0.tar", {**some_photos(12), "Ada/bad.jpg": b"", "../out.jpg": b"x"}
    )
    expected = as_one_file(model, tmp_path / "one.parquet", tar)
    report = embed(model, tmp_path / "parts", tar)
    assert table_of(tmp_path / "parts").equals(table_of(expected))
    assert sorted(Path(path).name for path, _ in report.status.failed) == ["%2E.%2Fout.jpg", "bad.jpg"]


def test_of_a_name_twice_in_an_archive_the_last_counts(model: Model, tmp_path: Path) -> None:
    one = write_tar(tmp_path / "s" / "0.tar", {"a.jpg": photograph(0), "b.jpg": photograph(1)})
    with tarfile.open(one, "a") as archive:
        (tmp_path / "a.jpg").write_bytes(photograph(2))
        archive.add(tmp_path / "a.jpg", "a.jpg")
    expected = as_one_file(model, tmp_path / "one.parquet", one)
    embed(model, tmp_path / "parts", one)
    assert table_of(tmp_path / "parts").equals(table_of(expected))


@pytest.mark.parametrize("damage", ["cut", "garbage", "compressed"])
def test_a_damaged_archive_is_told_each_time_and_what_came_before_is_kept(
    damage: str, model: Model, tmp_path: Path
) -> None:
    tar = write_tar(tmp_path / "shards" / "0.tar", some_photos(8))
    write_tar(tmp_path / "shards" / "1.tar", some_photos(2))
    data = tar.read_bytes()
    half = len(data) // 2
    tar.write_bytes(
        {"cut": data[:half], "garbage": data[:half] + b"\xff" * half, "compressed": b"\x1f\x8b" + data}[
            damage
        ]
    )
    for _ in range(2):
        report = embed(model, tmp_path / "parts", tmp_path / "shards")
        (told,) = [reason for path, reason in report.status.failed if path.endswith("0.tar")]
        assert "an archive is a whole, uncompressed tar file" in told
        assert report.status.rows >= 2 + (damage != "compressed")


def test_filters_and_persons_hold_in_every_kind_of_unit(model: Model, tmp_path: Path) -> None:
    write_tar(tmp_path / "s" / "0.tar", some_photos(4))
    write_image_rows(tmp_path / "s" / "1.parquet", some_photos(4))
    for name, data in some_photos(4).items():
        (tmp_path / "s" / "Ada").mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_bytes(data)
    chosen = SourceFilter(exclude=("*02.jpg",), person=person_pattern(r"(\d\d)\.jpg"))
    report = embed(model, tmp_path / "parts", tmp_path / "s", reading={"filter": chosen})
    assert report.status.rows == 9
    assert set(table_of(tmp_path / "parts")["person"].to_pylist()) == {"00", "01", "03"}


def test_faces_have_rows_of_their_own(tmp_path: Path) -> None:
    model = Model.open("faces", threads=1)
    write(tmp_path / "s" / "together.jpg", group(2))
    (tmp_path / "s" / "none.jpg").write_bytes(photograph(15))
    faces = Faces(0.8)
    export_latents(
        model, SourceList(sources=[str(tmp_path / "s")]).open({}), tmp_path / "one.parquet", crop=faces
    )
    embed(model, tmp_path / "parts", tmp_path / "s", crop=faces)
    assert same_but_file(table_of(tmp_path / "parts"), table_of(tmp_path / "one.parquet"))


def test_listed_files_are_a_source(model: Model, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("\n".join(str(photos / f"{number:05d}.jpg") for number in (3, 1, 7)))
    listed = SourceList(files=FileList(str(tmp_path / "list"), nul=False))
    plan = make_plan(Folder(str(tmp_path / "parts")), model, listed)
    report = do_units(plan, embed_job(model, plan), run_in_order)
    assert (report.status.rows, plan.settings.spec.roots) == (3, {"photos": str(photos)})
    outside = SourceList(files=[tmp_path / "list"], root=photos)
    with pytest.raises(InvalidArgumentError, match="listed files lie under --root"):
        make_plan(Folder(str(tmp_path / "other")), model, outside)
    assert not any((tmp_path / "other").glob("*"))


def test_a_change_is_seen_with_overwrite_and_costs_its_own_unit(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "parts"
    embed(model, out, photos)
    (photos / "00020.jpg").unlink()  # it is a link
    (photos / "00020.jpg").write_bytes(photograph(14))
    assert embed(model, out, photos).finished == 0  # the plan stands
    assert embed(model, out, photos, overwrite=True).finished == 1
    (photos / "00040.jpg").unlink()
    before = names_of(out)
    report = embed(model, out, photos, overwrite=True)
    assert (report.status.rows, report.status.left) == (59, 0)
    assert len(names_of(out)) == report.status.units == report.finished + len({*before} & {*names_of(out)})
    assert report.finished < report.status.units - 1
    expected = as_one_file(model, tmp_path / "one.parquet", photos)
    assert table_of(out).equals(table_of(expected))


def test_with_overwrite_a_source_may_come_go_or_move_and_all_is_loaded(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "parts"
    write_photos(tmp_path / "others")
    embed(model, out, photos)
    assert embed(model, out, photos, tmp_path / "others", overwrite=True).finished == 1
    with open_store(tmp_path / "store") as store:
        report = load_parts(store, "both", require_plan(Folder(str(out))))
        assert report.rows.added == store.count("both") == table_of(out).num_rows > 60
    embed(model, out, photos, overwrite=True)
    (tmp_path / "elsewhere").mkdir()
    moved = photos.rename(tmp_path / "elsewhere" / "photos")
    assert embed(model, out, moved, overwrite=True).finished == 0
    with open_store(tmp_path / "store") as store:
        load_parts(store, "moved", require_plan(Folder(str(out))))
        assert (store.count("moved"), store.info("moved").roots) == (60, {"photos": str(moved)})


def test_a_parquet_file_that_cannot_be_read_is_named(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.parquet").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"a/x\.parquet cannot be read \(.*No such file or directory"):
        embed(model, tmp_path / "parts", tmp_path / "a")


def test_the_name_of_a_root_is_checked_for_urls_and_lists_too(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text(str(photos / "00001.jpg"))
    for listed in (
        SourceList(sources=[f"file://{photos}"], root_name="\n"),
        SourceList(files=FileList(str(tmp_path / "list"), nul=False), root_name="\n"),
    ):
        with pytest.raises(InvalidArgumentError, match="a root name is one or more printable characters"):
            make_plan(Folder(str(tmp_path / "parts")), model, listed)


@pytest.mark.parametrize("what", ["model", "crop", "source", "filter", "max_pixels"])
def test_a_plan_of_something_else_is_refused(what: str, model: Model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    embed(model, out, photos)
    before = names_of(out)
    write_photos(tmp_path / "others")
    other = Model(make_bundle(tmp_path / "other", seed=1)) if what == "model" else model
    source = tmp_path / "others" if what == "source" else photos
    options: dict[str, Any] = {}
    if what == "crop":
        options["crop"] = parse_framing("full")
    elif what == "filter":
        options["reading"] = {"filter": SourceFilter(exclude=("0*",))}
    elif what == "max_pixels":
        options["max_pixels"] = 5
    with pytest.raises(
        InvalidArgumentError, match=r"was planned with another model, --crop, source or filter"
    ):
        embed(other, out, source, **options)
    assert names_of(out) == before
    report = embed(other, out, source, overwrite=True, **options)
    assert report.status.left == 0
    assert len(names_of(out)) == report.status.units


def test_units_that_cannot_be_read_now_are_left_for_later(model: Model, tmp_path: Path) -> None:
    write_tar(tmp_path / "s" / "0.tar", some_photos(3))
    tar = write_tar(tmp_path / "s" / "1.tar", some_photos(2))
    plan_of(model, tmp_path / "parts", tmp_path / "s")
    data = tar.read_bytes()
    tar.unlink()
    report = embed(model, tmp_path / "parts", tmp_path / "s")
    (told,) = report.unfinished
    assert told.startswith(f"{tar}: cannot be read")
    assert (report.status.rows, report.status.left) == (3, 1)
    assert not (tmp_path / "parts" / "_manifest.json").exists()
    tar.write_bytes(data)
    report = embed(model, tmp_path / "parts", tmp_path / "s")
    assert (report.finished, report.unfinished, report.status.rows) == (1, [], 5)


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_whole_parts_and_is_gone_on_with(
    tiny_model: Path, model: Model, tmp_path: Path
) -> None:
    write_many(tmp_path / "photos", 1500)
    out = tmp_path / "parts"
    command = [str(Path(sys.executable).with_name("lookalike"))]
    words = ["embed", str(tmp_path / "photos"), "--model", str(tiny_model), "--out", f"{out}/"]
    running = subprocess.Popen([*command, *words], env=child_env(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(names_of(out)) < 2 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = names_of(out)
    for name in before:
        assert pq.read_table(out / name).num_rows
    plan = require_plan(Folder(str(out)))
    left = units_status(plan).left  # its workers may end the units that they had begun
    assert plan.count - len(names_of(out)) <= left <= plan.count - len(before)
    done = subprocess.run([*command, *words], env=child_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {name: time for name, time in names_of(out).items() if name in before} == before
    assert table_of(out).num_rows == 1500
    assert not [file for file in out.iterdir() if file.name.startswith(".")]


def test_what_is_no_plan_is_refused(model: Model, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    for content in (b"", b"PAR1 dear to me", None):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if content is None:
            pq.write_table(table_of(as_one_file(model, tmp_path / "one.parquet", photos)), out / "_plan")
        else:
            (out / "_plan").write_bytes(content)
        with pytest.raises(DataError, match=r"_plan (must be a plan|cannot be read)") as caught:
            embed(model, out, photos)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="a folder of parts is written by lookalike embed"):
        require_plan(Folder(str(photos)))


@pytest.mark.mnist
def test_digits_are_not_split(model: Model, tmp_path: Path, data_root: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="mnist is small"):
        plan_of(model, tmp_path / "digits", "mnist")
