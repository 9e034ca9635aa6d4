"""Units on Ray: as here, on one core, and with a worker that dies or fails. Starting Ray takes long."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from lookalike.encoder.errors import DataError, WorkerDiedError
from lookalike.encoder.runtime import Model
from lookalike.indexer.parts.embed_unit import EmbedJob
from lookalike.indexer.units import Done, Unit, do_units, run_on_ray
from tests.fixtures.parts import embed, plan_of, some_photos, table_of, write_image_rows, write_tar
from tests.fixtures.photos import write_many
from tests.fixtures.ray_cluster import ray_cluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """A cluster of one core: what needs two at once would hang."""
    with ray_cluster():
        yield


def test_parts_are_those_of_this_machine(tiny_model: Path, tmp_path: Path) -> None:
    model = Model.open(tiny_model, threads=1)
    write_many(tmp_path / "photos", 600)
    write_tar(tmp_path / "photos" / "0.tar", some_photos(5))
    write_image_rows(tmp_path / "photos" / "1.parquet", some_photos(9))
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    there = embed(model, tmp_path / "there", tmp_path / "photos", run=run_on_ray)
    here = embed(model, tmp_path / "here", tmp_path / "photos")
    assert (there.finished, there.status.left) == (here.finished, 0)
    assert there.status.failed == here.status.failed
    assert table_of(tmp_path / "there").equals(table_of(tmp_path / "here"))


def square(unit: int) -> int:
    return unit * unit


def test_each_unit_is_done_once_and_memory_holds_few() -> None:
    taken: list[int] = []
    done: list[int] = []

    def units() -> Iterator[int]:
        for unit in range(40):
            taken.append(unit)
            yield unit

    def note(result: int) -> None:
        done.append(result)
        assert len(taken) - len(done) <= 5

    run_on_ray(units(), square, note)
    assert sorted(done) == [unit * unit for unit in range(40)]


def die_once(mark: Path, unit: int) -> int:
    if unit == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return unit


def test_a_unit_whose_worker_was_killed_is_done_again(tmp_path: Path) -> None:
    done: list[int] = []
    run_on_ray(range(8), partial(die_once, tmp_path / "died"), done.append)
    assert (tmp_path / "died").exists()
    assert sorted(done) == list(range(8))


def die_always(mark: Path, unit: int) -> int:
    if unit == 3:
        with mark.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return unit


def test_a_unit_that_kills_its_worker_each_time_is_given_up(tmp_path: Path) -> None:
    done: list[int] = []
    killed: list[tuple[int, str]] = []
    work = partial(die_always, tmp_path / "died")
    run_on_ray(range(8), work, done.append, lambda unit, reason: killed.append((unit, reason)))
    assert sorted(done) == [0, 1, 2, 4, 5, 6, 7]
    ((unit, reason),) = killed
    assert unit == 3
    assert reason.startswith("the process that did it was killed 3 times")
    assert (tmp_path / "died").read_text() == "xxx"
    with pytest.raises(WorkerDiedError, match="was killed 3 times"):
        run_on_ray([3], work, done.append)


@dataclass(frozen=True)
class Deadly:
    """A job whose process is killed at one unit."""

    job: EmbedJob
    victim: str

    def __call__(self, task: tuple[str, Unit]) -> Done:
        if task[1].name == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.job(task)


def test_such_a_unit_of_images_is_reported_and_left_for_a_later_run(tiny_model: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "s" / "0.tar", some_photos(2))
    write_tar(tmp_path / "s" / "1.tar", some_photos(3))
    plan = plan_of(Model.open(tiny_model, threads=1), tmp_path / "parts", tmp_path / "s")
    job = EmbedJob(plan.folder, plan.settings, str(tiny_model))
    report = do_units(plan, Deadly(job, "0.tar"), run_on_ray)
    assert (report.status.rows, report.status.left) == (3, 1)
    (told,) = report.unfinished
    assert told.startswith("0.tar: the process that did it was killed 3 times")
    assert (do_units(plan, job, run_on_ray).status.rows, report.unfinished) == (5, [told])


def fail(unit: int) -> int:
    raise DataError(f"unit {unit} is broken; mend it")


def test_an_error_of_ours_arrives_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^unit 0 is broken; mend it$"):
        run_on_ray([0], fail, lambda _: None)
