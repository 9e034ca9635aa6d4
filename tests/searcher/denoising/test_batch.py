"""A batch of images: killed anywhere and run again it is whole; a bad image costs only itself."""

import errno
import os
import random
import resource
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.files import atomic_write, remove_stale
from lookalike.encoder.metrics import psnr_from_mse
from lookalike.encoder.runtime import Denoiser
from lookalike.indexer.sources import SourceFilter
from lookalike.searcher.denoising import (
    BatchReport,
    Destination,
    Outcome,
    Task,
    UNetDenoiser,
    batch,
    check_tasks,
    denoise_all,
    find_tasks,
)
from tests.fixtures.command import COMMAND, lookalike, one_line
from tests.fixtures.handmade_models import make_denoiser
from tests.fixtures.photos import cuttings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_denoiser(tmp_path_factory.mktemp("model") / "box").folder


@pytest.fixture(scope="module")
def denoiser(model: Path) -> UNetDenoiser:
    return UNetDenoiser(denoiser=Denoiser.open(model, threads=1), max_pixels=10**7)


def write_noisy(folder: Path, count: int, *, sigma: float = 25) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        file = folder / f"{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noisy = cuttings()[number % 16] + rng.normal(size=(128, 128, 3)) * sigma
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, compress_level=1)


def tasks_of(source: Path, out: Path) -> list[Task]:
    tasks = find_tasks([str(source)], [], root=None, reading=SourceFilter(), destination=Destination(out=out))
    check_tasks(tasks)
    return tasks


def pixels_of(file: Path) -> NDArray[np.float64]:
    with Image.open(file) as image:
        return np.asarray(image, np.float64)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_every_picture_is_written_in_its_place_and_told_in_order(
    denoiser: UNetDenoiser, tmp_path: Path
) -> None:
    write_noisy(tmp_path / "in", 20)
    tasks, told = tasks_of(tmp_path / "in", tmp_path / "out"), list[Outcome]()
    before = contents(tmp_path / "in")
    report = denoise_all(tasks, denoiser, on_outcome=told.append)
    assert (report.cleaned, report.clean, report.skipped, report.failed) == (20, 0, 0, [])
    assert [outcome.task for outcome in told] == tasks
    for outcome in told:
        assert outcome.sigmas is not None
        median, low, high = (255 * sigma for sigma in outcome.sigmas)
        assert 12 < median < 40
        assert low < median < high
        assert outcome.changed is not None
        assert outcome.changed > 0.9
        old, new = pixels_of(outcome.task.source), pixels_of(outcome.task.target)
        assert outcome.changed == (old != new).any(2).mean()
        assert outcome.psnr == pytest.approx(psnr_from_mse(((old - new) ** 2).mean() / 255**2))
    assert set(contents(tmp_path / "out")) == set(before)
    assert contents(tmp_path / "in") == before
    noisy, clean = (pixels_of(tmp_path / where / "0" / "0.png") for where in ("in", "out"))
    original = cuttings()[0]
    assert ((clean - original) ** 2).mean() < ((noisy - original) ** 2).mean()


def test_threads_change_nothing(
    denoiser: UNetDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noisy(tmp_path / "in", 12)
    monkeypatch.setattr(batch, "_MAX_PIXELS", 20_000)  # hardly more than one at a time
    for threads in (1, 4):
        denoise_all(tasks_of(tmp_path / "in", tmp_path / f"{threads}"), denoiser, threads=threads)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_what_is_clean_is_copied_byte_for_byte(denoiser: UNetDenoiser, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    flat = Image.new("RGB", (60, 40), (10, 200, 30))
    flat.save(tmp_path / "in" / "a.jpg", quality=71, comment=b"mine")
    flat.save(tmp_path / "in" / "b.png")
    report = denoise_all(tasks_of(tmp_path / "in", tmp_path / "out"), denoiser)
    assert (report.cleaned, report.clean, report.reasons) == (0, 2, {"few colors": 2})
    assert contents(tmp_path / "out") == contents(tmp_path / "in")


def test_why_images_are_left_is_counted_and_told(denoiser: UNetDenoiser, tmp_path: Path) -> None:
    write_noisy(tmp_path / "in", 2)
    Image.new("RGB", (60, 40), (10, 200, 30)).save(tmp_path / "in" / "drawn.png")
    slope = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    Image.fromarray(slope).save(tmp_path / "in" / "slope.png")
    Image.fromarray(np.stack([slope, slope.T, slope], 2)).save(tmp_path / "in" / "slopes.png")
    half = np.stack([slope] * 3, 2).astype(float)
    half[:, 128:] += np.random.default_rng(0).normal(0, 30, (256, 128, 3))
    Image.fromarray(half.clip(0, 255).astype(np.uint8)).save(tmp_path / "in" / "half.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no")
    told: dict[str, dict[str, Any]] = {}
    report = denoise_all(
        tasks_of(tmp_path / "in", tmp_path / "out"),
        denoiser,
        on_outcome=lambda outcome: told.__setitem__(outcome.task.path, outcome.to_json()),
    )
    assert report.summary() == "3 denoised, 3 left as they are (2 no noise, 1 few colors), 1 failed"
    assert report.to_json()["reasons"] == {"no noise": 2, "few colors": 1}
    left = {"status": "clean", "sigma": 0.0, "sigma_p10": 0.0, "sigma_p90": 0.0, "changed": 0.0}
    for name, reason in (("drawn", "few colors"), ("slope", "no noise")):
        path = f"{name}.png"
        assert told[path] == {"path": path, "out": str(tmp_path / "out" / path), **left, "reason": reason}
    of_half = told["half.png"]
    assert list(of_half) == [
        "path", "out", "status", "sigma", "sigma_p10", "sigma_p90", "changed", "psnr_to_input_db"
    ]  # fmt: skip
    assert of_half["status"] == "cleaned"
    assert of_half["sigma_p10"] == 0 < of_half["sigma"] < 30
    assert of_half["sigma_p90"] == pytest.approx(30, rel=0.2)
    assert of_half["changed"] == pytest.approx(0.5, abs=0.06)
    before, after = (pixels_of(tmp_path / where / "half.png") for where in ("in", "out"))
    decibels = psnr_from_mse(((before - after) ** 2).mean() / 255**2)
    assert of_half["psnr_to_input_db"] == pytest.approx(decibels, abs=0.006)
    assert set(told["bad.png"]) == {"path", "status", "reason"}


def test_an_image_that_would_come_out_the_same_is_copied(denoiser: UNetDenoiser, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noisy = 120 + np.random.default_rng(0).normal(size=(64, 96)) * 6
    Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / "in" / "a.jpg", quality=95)
    assert denoiser((tmp_path / "in" / "a.jpg").read_bytes(), "a").status == "cleaned"
    weak = replace(denoiser, strength=0.001)  # less than half a step of 255
    report = denoise_all(tasks_of(tmp_path / "in", tmp_path / "out"), weak)
    assert (report.cleaned, report.clean, report.reasons) == (0, 1, {"no noise": 1})
    assert contents(tmp_path / "out") == contents(tmp_path / "in")


def test_a_second_run_reads_nothing_and_overwriting_does_all_again(
    denoiser: UNetDenoiser, tmp_path: Path
) -> None:
    write_noisy(tmp_path / "in", 4)
    tasks = tasks_of(tmp_path / "in", tmp_path / "out")
    denoise_all(tasks, denoiser)
    first = contents(tmp_path / "out")
    tasks[0].target.write_bytes(b"edited")
    for task in tasks:
        task.source.chmod(0o644)
    assert denoise_all(tasks, denoiser).skipped == 4
    assert tasks[0].target.read_bytes() == b"edited"
    assert denoise_all(tasks, denoiser, overwrite=True).cleaned == 4
    assert contents(tmp_path / "out") == first


def test_bad_pictures_are_named_and_the_rest_goes_on(denoiser: UNetDenoiser, tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_noisy(source, 3)
    good = (source / "0" / "0.png").read_bytes()
    (source / "empty.png").touch()
    (source / "half.png").write_bytes(good[:2000])
    (source / "text.jpg").write_text("dear")
    (source / "line\nbreak.png").write_bytes(good)
    (source / "bad\nname.png").write_bytes(b"x")
    (source / "gone.png").symlink_to("nowhere")
    os.mkfifo(source / "pipe.png")
    (source / "folder.png").mkdir()
    (source / "one.png").write_bytes(good)
    (tmp_path / "out" / "one.png").mkdir(parents=True)
    Image.new("L", (1, 1), 7).save(source / "dot.png")
    Image.new("L", (5000, 5000), 7).save(source / "bomb.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1, 30_000), dtype=np.uint8)).save(
        source / "long.png"
    )
    report = denoise_all(tasks_of(source, tmp_path / "out"), denoiser, overwrite=True)
    reasons = dict(report.failed)
    assert set(reasons) == {
        "empty.png", "half.png", "text.jpg", "bad\nname.png", "gone.png", "pipe.png", "one.png", "bomb.png"
    }  # fmt: skip
    assert "0 bytes" in reasons["empty.png"]
    assert "cut short" in reasons["half.png"]
    assert "not a regular file" in reasons["pipe.png"]
    assert "No such file" in reasons["gone.png"]
    assert "Is a directory" in reasons["one.png"]
    assert "above the limit" in reasons["bomb.png"]
    assert not any("\n" in reason for reason in reasons.values())
    assert {"line\nbreak.png", "dot.png", "long.png"} <= set(contents(tmp_path / "out"))
    assert not [name for name in contents(tmp_path / "out") if "part" in name]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_what_may_not_be_read_is_named(denoiser: UNetDenoiser, tmp_path: Path) -> None:
    write_noisy(tmp_path / "in", 2)
    (tmp_path / "in" / "0" / "0.png").chmod(0)
    report = denoise_all(tasks_of(tmp_path / "in", tmp_path / "out"), denoiser)
    assert report.cleaned == 1
    assert report.failed == [("0/0.png", "cannot be read (Permission denied)")]


# Killed, interrupted, out of room


def start(model: Path, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [COMMAND, "denoise", "in", "--out", "out", "--model", model],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("kills", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_at_any_time_and_run_again_it_is_whole(
    model: Path, denoiser: UNetDenoiser, tmp_path: Path, kills: int
) -> None:
    write_noisy(tmp_path / "in", 20 * kills)
    denoise_all(tasks_of(tmp_path / "in", tmp_path / "whole"), denoiser)
    expected, chance = contents(tmp_path / "whole"), random.Random(0)
    for _ in range(kills):
        running = start(model, tmp_path)
        limit = time.monotonic() + 60
        here = len(contents(tmp_path / "out"))
        while len(contents(tmp_path / "out")) <= here and running.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        running.send_signal(signal.SIGKILL)
        running.communicate()
        finished = {name: data for name, data in contents(tmp_path / "out").items() if ".part" not in name}
        assert finished.items() <= expected.items()  # never a half file
    (tmp_path / "out" / "0" / ".lookalike-0123456789abcdef.part").write_bytes(b"half")
    done = lookalike("denoise", "in", "--out", "out", "--model", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == expected


def test_interrupted_it_ends_at_once_with_130(model: Path, tmp_path: Path) -> None:
    write_noisy(tmp_path / "in", 150)
    running = start(model, tmp_path)
    while not contents(tmp_path / "out") and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.strip().splitlines()[-1] == "lookalike: interrupted; run it again to continue"
    assert "Traceback" not in err
    assert not [name for name in contents(tmp_path / "out") if ".part" in name]


def test_a_disk_without_room_is_one_line_and_the_next_run_completes(model: Path, tmp_path: Path) -> None:
    write_noisy(tmp_path / "in", 5)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1024, 1024))
    done = subprocess.run(
        [COMMAND, "denoise", "in", "--out", "out", "--model", model],
        cwd=tmp_path,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert one_line(done).startswith("lookalike: out/")
    assert "File too large" in done.stderr
    assert contents(tmp_path / "out") == {}
    assert lookalike("denoise", "in", "--out", "out", "--model", model, cwd=tmp_path).returncode == 0
    assert len(contents(tmp_path / "out")) == 5


def test_an_error_of_the_whole_disk_stops_the_run(
    denoiser: UNetDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noisy(tmp_path / "in", 30)
    asked: list[Path] = []

    def full(target: Path, data: bytes) -> None:
        asked.append(target)
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(batch, "atomic_write", full)
    with pytest.raises(OSError, match="No space"):
        denoise_all(tasks_of(tmp_path / "in", tmp_path / "out"), denoiser, threads=1)
    assert len(asked) < 10


# Placing


def test_a_file_is_placed_whole_and_replaces_a_link_not_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("kept")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "kept").read_bytes() == b"kept"
    assert (tmp_path / "link").read_bytes() == b"new"
    atomic_write(tmp_path / "deep" / "er" / "file", b"x")
    with pytest.raises(OSError, match="Is a directory"):
        atomic_write(tmp_path / "deep", b"x")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["deep", "kept", "link"]


def test_only_what_nobody_holds_is_swept(tmp_path: Path) -> None:
    import fcntl

    held, left = (tmp_path / f".lookalike-{name}.part" for name in ("held", "left"))
    (tmp_path / "mine.part").touch()
    left.touch()
    with held.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_stale([tmp_path, tmp_path / "nowhere"]) == 1
        assert held.exists()
    assert not left.exists()
    assert remove_stale([tmp_path]) == 1
    assert (tmp_path / "mine.part").exists()


def test_a_report_counts_and_says() -> None:
    report = BatchReport(cleaned=3, clean=1, skipped=2, failed=[("a", "why")], seconds=2.0)
    assert report.summary() == "3 denoised, 1 left as they are, 2 skipped (exist), 1 failed"
    report.reasons = {"few colors": 1}
    assert report.summary() == "3 denoised, 1 left as they are (1 few colors), 2 skipped (exist), 1 failed"
    assert report.to_json()["images_per_second"] == 2.0
