"""Units on Ray: as here, on one core, and with a worker that dies or fails. Starting Ray takes long."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lookalike.encoder.errors import DataError
from lookalike.encoder.runtime import Model
from lookalike.indexer.units import run_on_ray
from tests.fixtures.parts import embed, some_photos, table_of, write_image_rows, write_tar
from tests.fixtures.photos import write_many

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """A cluster of one core: what needs two at once would hang."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


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


def fail(unit: int) -> int:
    raise DataError(f"unit {unit} is broken; mend it")


def test_an_error_of_ours_arrives_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^unit 0 is broken; mend it$"):
        run_on_ray([0], fail, lambda _: None)
