"""Images denoised in units: as one by one, from and to anywhere, by any runner, killed or broken."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookalike.encoder.bundle import BundleSpec
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import NoiseSpec
from lookalike.indexer.sources import SourceFilter, SourceList
from lookalike.indexer.units import Folder, LocalRun, Run, Shard, UnitSize, UnitsReport, do_units, run_on_ray
from lookalike.searcher.denoising import (
    DenoiseJob,
    DenoiseOptions,
    DenoiseSettings,
    Destination,
    check_tasks,
    denoise_all,
    find_tasks,
    keep_denoiser,
    plan_denoising,
)
from tests.fixtures import s3_server
from tests.fixtures.command import lookalike
from tests.fixtures.handmade_models import make_denoiser, make_digits
from tests.fixtures.parts import run_in_order, write_image_rows, write_tar
from tests.fixtures.photos import cuttings
from tests.fixtures.processes import child_env
from tests.fixtures.ray_cluster import ray_cluster
from tests.fixtures.s3_server import S3, upload
from tests.fixtures.tiny_models import save_again

s3 = s3_server.s3
OPTIONS = DenoiseOptions(max_pixels=10**7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_denoiser(tmp_path_factory.mktemp("model") / "box").folder


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DenoiseSettings, "unit_size", UnitSize(first=4))


def write_noisy(folder: Path, count: int, *, every_clean: int = 5) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        file = folder / f"{number % 3}" / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(size=(128, 128, 3)) * (0 if number % every_clean == 0 else 25)
        noisy = cuttings()[number % 16] + noise
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, compress_level=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 20 images, of which some have no noise, and three files that cannot be read."""
    write_noisy(tmp_path / "in", 20)
    (tmp_path / "in" / "0" / "bad.jpg").write_bytes(b"")
    (tmp_path / "in" / "1" / "worse.png").write_bytes(b"no image")
    (tmp_path / "in" / "zz.jpg").symlink_to("nowhere")
    return tmp_path / "in"


def denoise(
    model: Path,
    out: Path | str,
    *sources: Path | str,
    run: Run = run_in_order,
    shard: Shard | None = None,
    options: DenoiseOptions = OPTIONS,
    overwrite: bool = False,
    reading: SourceFilter | None = None,
) -> UnitsReport:
    denoiser, folder = options.open(str(model)), Folder(str(out))
    keep_denoiser(denoiser, options)
    listed = SourceList(sources=[*map(str, sources)], filter=reading or SourceFilter())
    plan = plan_denoising(folder, denoiser, options, listed, overwrite=overwrite)
    return do_units(plan, DenoiseJob(folder, plan.settings, str(model)), run, shard=shard, tidy=overwrite)


def images_of(folder: Path) -> dict[str, bytes]:
    """The images in a folder, by name: neither logs nor what is being written."""
    files = (file for file in folder.rglob("[!.]*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in files}
    return {name: file.read_bytes() for name, file in names.items() if not name.startswith("_log/")}


def one_by_one(model: Path, source: Path, out: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """What today's command writes, and what it says of each image."""
    tasks = find_tasks([str(source)], [], root=None, reading=SourceFilter(), destination=Destination(out=out))
    check_tasks(tasks)
    told: list[dict[str, Any]] = []
    denoise_all(tasks, OPTIONS.open(str(model)), on_outcome=lambda outcome: told.append(outcome.to_json()))
    return images_of(out), told


def log_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "_log").sort_by("path").to_pylist()
    return rows


@pytest.mark.parametrize("how", ["in order", "processes", "shares"])
def test_images_failures_and_figures_are_those_of_one_by_one(
    how: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    expected, told = one_by_one(model, photos, tmp_path / "one")
    out = tmp_path / "out"
    if how == "shares":
        for number in (1, 3, 2, 4):
            denoise(model, out, photos, shard=Shard(number, 4))
    elif how == "processes":
        with closing(LocalRun(OPTIONS.open(str(model)), processes=2)) as run:
            denoise(model, out, photos, run=run)
    else:
        denoise(model, out, photos)
    assert images_of(out) == expected
    rows = {Path(row["path"]).relative_to(photos).as_posix(): row for row in log_of(out)}
    assert len(rows) == len(told) == 23
    for each in told:
        row = rows[each["path"]]
        for key in ("status", "sigma", "sigma_p10", "sigma_p90", "changed", "psnr_to_input_db"):
            assert row[key] == each.get(key), (key, each)
        if each["status"] == "failed":
            assert row["reason"]
        else:
            assert row["bytes"] == len(expected[row["out"]])
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    again = denoise(model, out, photos)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    assert (again.finished, again.status.left, again.status.rows) == (0, 0, 20)
    reasons = Counter(each.get("reason", "cleaned") for each in told if each["status"] != "failed")
    assert again.status.counts == reasons
    assert reasons["no noise"] > 0
    assert sorted(Path(path).name for path, _ in again.status.failed) == ["bad.jpg", "worse.png", "zz.jpg"]


def some_noisy(tmp_path: Path, count: int = 6) -> dict[str, bytes]:
    write_noisy(tmp_path / "some", count)
    return images_of(tmp_path / "some")


def test_archives_and_rows_of_images_become_folders(model: Path, tmp_path: Path) -> None:
    some = some_noisy(tmp_path)
    expected, _ = one_by_one(model, tmp_path / "some", tmp_path / "one")
    write_tar(tmp_path / "in" / "a" / "0.tar", {**some, "bad.jpg": b"", "../out.png": b"x", "n.txt": b"x"})
    write_image_rows(tmp_path / "in" / "1.parquet", {**some, "../../../out.png": some["0/000.png"]})
    hidden = SourceFilter(hidden=True)  # else what begins with dots is passed over
    report = denoise(model, tmp_path / "out", tmp_path / "in", reading=hidden)
    rows = {f"1.parquet/{n:08d}/{name}": expected[name] for n, name in enumerate(some)}
    assert images_of(tmp_path / "out") == {f"a/0.tar/{name}": expected[name] for name in some} | rows
    reasons = {Path(path).name: reason for path, reason in report.status.failed}
    assert len(report.status.failed) == 3
    assert "leads out" in reasons["out.png"]
    assert "leads out" in reasons["%2E.%2Fout.png"]
    assert not list(tmp_path.glob("out.png"))


def test_rows_without_a_name_get_the_extension_of_their_format(model: Path, tmp_path: Path) -> None:
    some = some_noisy(tmp_path, 2)
    write_image_rows(tmp_path / "in" / "1.parquet", {"": some["0/000.png"]})
    denoise(model, tmp_path / "out", tmp_path / "in" / "1.parquet")
    assert [*images_of(tmp_path / "out")] == ["1.parquet/00000000.png"]


def test_of_a_name_twice_in_an_archive_the_last_counts(model: Path, tmp_path: Path) -> None:
    import tarfile

    some = [*some_noisy(tmp_path, 3).values()]
    tar = write_tar(tmp_path / "0.tar", {"a.png": some[0], "b.png": some[1]})
    (tmp_path / "a.png").write_bytes(some[2])
    with tarfile.open(tar, "a") as archive:
        archive.add(tmp_path / "a.png", "a.png")
    denoise(model, tmp_path / "out", tar)
    denoise(
        model, tmp_path / "last", write_tar(tmp_path / "x" / "0.tar", {"a.png": some[2], "b.png": some[1]})
    )
    assert images_of(tmp_path / "out") == images_of(tmp_path / "last")
    assert len(log_of(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [("", ["a.png", "b.tif.png", "b.tif.png.png"]), ("-x", ["a-x.png", "b-x.tif.png", "b.tif-x.png"])],
)
def test_another_format_is_added_to_the_name_so_that_all_differ(
    suffix: str, expected: list[str], model: Path, tmp_path: Path
) -> None:
    some = [*some_noisy(tmp_path, 3).values()]
    for name, data in zip(("a.png", "b.tif", "b.tif.png"), some, strict=True):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    options = DenoiseOptions(max_pixels=10**7, kind="PNG", suffix=suffix)
    denoise(model, tmp_path / "out", tmp_path / "in", options=options)
    assert sorted(images_of(tmp_path / "out")) == expected


def test_several_sources_have_folders_of_their_own(model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_noisy(tmp_path / name, 3)
    denoise(model, tmp_path / "out", tmp_path / "one", tmp_path / "two")
    assert {name.split("/")[0] for name in images_of(tmp_path / "out")} == {"one", "two"}
    assert len(images_of(tmp_path / "out")) == 6


@pytest.mark.parametrize("out", ["in", "in/clean", "."])
def test_images_are_never_written_among_their_sources(
    out: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    before = images_of(tmp_path)
    with pytest.raises(InvalidArgumentError, match="go into a folder of their own"):
        denoise(model, tmp_path / out, photos)
    assert images_of(tmp_path) == before


def test_what_changed_is_done_again_with_overwrite(model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    denoise(model, out, photos)
    stronger = DenoiseOptions(max_pixels=10**7, strength=0.5)
    with pytest.raises(
        InvalidArgumentError, match="was planned with another model, source, filter or option"
    ):
        denoise(model, out, photos, options=stronger)
    (photos / "0" / "bad.jpg").write_bytes((photos / "0" / "003.png").read_bytes())
    assert denoise(model, out, photos).finished == 0
    report = denoise(model, out, photos, overwrite=True)
    assert (report.finished, report.status.rows) == (1, 21)
    report = denoise(model, out, photos, overwrite=True, options=stronger)
    assert report.finished == report.status.units == len(list((out / "_log").glob("[0-9a-f]*")))


def test_a_unit_that_cannot_be_read_now_is_left_for_later(model: Path, tmp_path: Path) -> None:
    some = some_noisy(tmp_path, 2)
    write_tar(tmp_path / "in" / "0.tar", some)
    tar = write_tar(tmp_path / "in" / "1.tar", some)
    data = tar.read_bytes()

    def lose(units: Iterable[Any], function: Any, on_done: Any, on_killed: Any = None) -> None:
        tar.unlink()
        run_in_order(units, function, on_done)

    report = denoise(model, tmp_path / "out", tmp_path / "in", run=lose)
    (told,) = report.unfinished
    assert told.startswith(f"{tar}: cannot be read")
    tar.write_bytes(data)
    assert denoise(model, tmp_path / "out", tmp_path / "in").status.left == 0


def test_drafts_of_a_killed_run_are_removed_and_a_damaged_log_is_named(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    draft = tmp_path / "out" / "0" / ".lookalike-0123.part"
    draft.parent.mkdir(parents=True)
    draft.write_bytes(b"half")
    denoise(model, tmp_path / "out", photos)
    assert not draft.exists()
    victim = min((tmp_path / "out" / "_log").glob("[0-9a-f]*"))
    victim.write_bytes(b"PAR1")
    (tmp_path / "out" / "_log" / "_manifest.json").unlink()
    with pytest.raises(DataError, match="remove it to denoise its images again"):
        denoise(model, tmp_path / "out", photos)
    victim.unlink()
    assert denoise(model, tmp_path / "out", photos).finished == 1


def test_the_command_takes_shares_archives_and_a_file_url(model: Path, photos: Path, tmp_path: Path) -> None:
    words = ("denoise", "in", "--model", model, "--out", "out")
    planned = lookalike(*words, "--plan", cwd=tmp_path)
    assert (planned.returncode, "units, 23 images" in planned.stderr) == (0, True)
    codes = [lookalike(*words, "--shard", f"{n}/2", cwd=tmp_path).returncode for n in (2, 1)]
    assert 3 in codes
    done = lookalike(*words, "--json", cwd=tmp_path)  # there is a plan
    told = json.loads(done.stdout)
    assert (done.returncode, told["new_units"], told["rows"], len(told["failed"])) == (3, 0, 20, 3)
    assert re.search(r"\d+ denoised, \d left as they are \(\d no noise\), 3 failed in", done.stderr)
    assert done.stderr.count("failed: ") == 3
    expected, _ = one_by_one(model, photos, tmp_path / "one")
    assert images_of(tmp_path / "out") == expected
    url = lookalike("denoise", f"file://{photos}", "--model", model, "--out", "from-url", cwd=tmp_path)
    assert url.returncode == 3
    assert images_of(tmp_path / "from-url") == expected
    write_tar(tmp_path / "0.tar", some_noisy(tmp_path, 2))
    tar = lookalike("denoise", "0.tar", "--model", model, "--out", "from-tar", cwd=tmp_path)
    assert (tar.returncode, len(images_of(tmp_path / "from-tar"))) == (0, 2)


def test_an_autoencoder_writes_its_own_format_and_says_so(tmp_path: Path) -> None:
    plain = make_digits(tmp_path / "plain", kind="vae", classes=())
    spec: BundleSpec = replace(plain.spec, denoises=NoiseSpec(low=0.5, high=0.5))
    taught = save_again(plain, tmp_path / "taught", spec=spec)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    Image.new("RGB", (40, 40)).save(tmp_path / "b.png")
    words = ("denoise", "a.jpg", "b.png", "--model", taught.folder, "--out", "out", "--shard", "1/1")
    done = lookalike(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "taught works on 28x28 pixels, crop full: images are resized" in done.stderr
    assert "2 denoised" in done.stderr
    assert sorted(images_of(tmp_path / "out")) == ["a.jpg.png", "b.png"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("in --out out --shard 1/2 --sheet a.png", "--sheet is for the files of one machine"),
        ("in --out out --engine ray --threads 2", "--threads is for the files of one machine"),
        ("in --out out --shard 1/2 --overwrite", "--overwrite with --plan before"),
        ("in --out out --engine ray --provider cuda", "--engine ray works on CPUs"),
        ("in --out s3://bucket/me.png", "--out is a folder here"),
        ("in --out ftp://host/out", "a place is a path or a URL with s3"),
        ("in --out out --plan --suffix a/b", "--suffix is part of a file name"),
        ("nowhere.tar --out out", "nowhere.tar"),
        ("--out out --plan", "name a source"),
    ],
)
def test_wrong_words_are_told_with_the_way_out(
    words: str, told: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    done = lookalike("denoise", *words.split(), "--model", model, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert told in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_object_store_holds_sources_images_and_logs(
    s3: S3, model: Path, photos: Path, tmp_path: Path
) -> None:
    write_tar(photos / "a" / "0.tar", some_noisy(tmp_path))
    write_image_rows(photos / "1.parquet", some_noisy(tmp_path))
    (photos / "zz.jpg").unlink()  # a bucket has no links
    denoise(model, tmp_path / "out", photos)
    upload(photos, Folder("s3://bucket/in"))
    words = ("denoise", "s3://bucket/in", "--model", model, "--out", "s3://bucket/clean")
    done = lookalike(*words, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    found = {each.name: each for each in Folder("s3://bucket/clean").walk()}
    images = {name for name in found if not name.startswith("_log/")}
    expected = images_of(tmp_path / "out")
    assert images == expected.keys()
    assert all(Folder("s3://bucket/clean").read(name) == data for name, data in expected.items())
    s3.requests.clear()
    again = lookalike(*words, "--json", cwd=tmp_path)
    assert (again.returncode, json.loads(again.stdout)["new_units"]) == (3, 0)
    assert len(json.loads(again.stdout)["failed"]) == 2
    assert not [path for method, path in s3.requests if method == "PUT" or "/in/" in path]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_on_ray_the_images_are_the_same(model: Path, photos: Path, tmp_path: Path) -> None:
    with ray_cluster():
        report = denoise(model, tmp_path / "ray", photos, run=run_on_ray)
    denoise(model, tmp_path / "here", photos)
    assert images_of(tmp_path / "ray") == images_of(tmp_path / "here")
    assert log_of(tmp_path / "ray") == log_of(tmp_path / "here")
    assert len(report.status.failed) == 3


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_whole_files_and_is_gone_on_with(model: Path, tmp_path: Path) -> None:
    write_noisy(tmp_path / "in", 300)
    out = tmp_path / "out"
    command = [str(Path(sys.executable).with_name("lookalike")), "denoise", str(tmp_path / "in")]
    command += ["--model", str(model), "--out", str(out), "--plan"]
    subprocess.run(command, env=child_env(), check=True, capture_output=True)
    del command[-1]
    running = subprocess.Popen(command, env=child_env(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(images_of(out)) < 50 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    for name in images_of(out):
        with Image.open(out / name) as image:
            image.load()
    done = subprocess.run(command, env=child_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected, _ = one_by_one(model, tmp_path / "in", tmp_path / "one")
    assert images_of(out) == expected
