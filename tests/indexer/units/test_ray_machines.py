"""Machines that join a Ray cluster in the middle of a run, and are lost. Starting Ray takes long."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lookalike.encoder.runtime import Model
from lookalike.indexer.parts.embed_unit import EmbedJob
from lookalike.indexer.units import Done, Unit, do_units, run_on_ray
from tests.fixtures.parts import embed, plan_of, some_photos, table_of, write_tar
from tests.fixtures.ray_cluster import ray_cluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own
UNITS = 40


@pytest.fixture
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


@dataclass(frozen=True)
class Slow:
    """A job that takes a second for each unit, and notes on which machine it begins."""

    job: Callable[[tuple[str, Unit]], Done]
    notes: Path

    def __call__(self, task: tuple[str, Unit]) -> Done:
        import ray

        node = ray.get_runtime_context().get_node_id()
        with self.notes.open("a") as file:
            file.write(f"{task[1].name} {node} {time.time()}\n")
        time.sleep(1)
        return self.job(task)

    def begun(self) -> list[list[str]]:
        """The unit, node and time of each beginning."""
        return [line.split() for line in self.notes.read_text().splitlines()]


@pytest.mark.parametrize("what", ["its raylet", "the whole machine"])
def test_a_machine_that_joins_does_units_and_is_lost_with_one_unit(
    what: str, cluster: Any, tiny_model: Path, tmp_path: Path
) -> None:
    for number in range(UNITS):
        write_tar(tmp_path / "s" / f"{number:02d}.tar", some_photos(2))
    model = Model.open(tiny_model, threads=1)
    plan = plan_of(model, tmp_path / "parts", tmp_path / "s")
    job = Slow(EmbedJob(plan.folder, plan.settings, str(tiny_model)), tmp_path / "begun")
    node: list[Any] = []
    joined: list[float] = []
    is_busy = os.getloadavg()[0] > 1 + (os.cpu_count() or 1)
    lost: list[float] = []

    def run(
        units: Iterable[Any], function: Any, on_done: Callable[[Any], object], on_killed: Any = None
    ) -> None:
        done: list[Any] = []

        def note(result: Any) -> None:
            on_done(result)
            done.append(result)
            if len(done) == 3:
                node.append(cluster.add_node(num_cpus=1))
                joined.append(time.time())
            of_other = Counter(other for _, other, _ in job.begun() if node and other == node[0].node_id)
            if of_other.total() >= 4 and not lost:
                if what == "its raylet":
                    node[0].kill_raylet()
                else:
                    cluster.remove_node(node[0], allow_graceful=False)
                lost.append(time.time())

        run_on_ray(units, function, note, on_killed)
        if what == "its raylet":
            cluster.remove_node(node[0], allow_graceful=False)  # what it left running

    report = do_units(plan, job, run)
    assert (report.finished, report.status.left, report.unfinished) == (UNITS, 0, [])
    of_other = [float(begun) for _, other, begun in job.begun() if other == node[0].node_id]
    assert lost
    if not is_busy:  # a process of Ray's takes six seconds of a core to start
        assert of_other[0] - joined[0] < 30
    begun = Counter(unit for unit, _, _ in job.begun())
    assert len(begun) == UNITS
    assert begun.total() <= UNITS + 1  # the machine had one core
    for part in (tmp_path / "parts").glob("[0-9a-f]*.parquet"):
        assert pq.read_table(part).num_rows == 2
    embed(model, tmp_path / "here", tmp_path / "s")
    assert table_of(tmp_path / "parts").equals(table_of(tmp_path / "here"))
