"""``make bench-million``: a million vectors in the embedded store. Never a pass or a fail.

The vectors are those of :mod:`tests.benchmarks.million_vectors`; they go into a file of latents and from
there into a store by ``lookalike.indexer.parquet.load``, which is what ``lookalike index latents.parquet``
calls. Every stage runs in a process of its own.

Which memory is whose. The *loader's* is what Python (``tracemalloc``: numpy's arrays are in it) and Arrow
(the peak of its pool) allocate while it runs, the points on their way to the store among it; that must not
grow with the number of rows. What Qdrant Edge allocates beside that is the *store's*: where each point lies,
and its files, which the system maps into memory as long as there is room. A process's resident memory has
both, the mapped files told apart. Tracing makes a run slower, so speeds are of runs without.

Seconds on a shared machine say little: rates are given by the clock and by the processor time of the process.

``--quantization`` (several times: one after the other, of the same file) compares what quantized vectors cost
in recall; the original vectors of these layouts are kept on disk, as ``--expect`` above ten million has it.
With ``QDRANT_URL`` or ``--url`` the store is that server, whose memory and disk are not seen from here.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import click
import numpy as np
import pyarrow as pa

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import load_latents
from lookalike.indexer.parquet.file import LatentsFile, Rows, write_latents
from lookalike.indexer.sources.source import open_source
from lookalike.indexer.store import (
    CollectionSpec,
    Condition,
    Filter,
    Quantization,
    StorageConfig,
)
from lookalike.indexer.sync import collection, new_spec, sync
from tests.benchmarks.million_vectors import Nearest, People, entry, unit
from tests.fixtures.tiny_models import COMMITTED

NAME: Final = "people"
K: Final = 10
QUERIES: Final = 300
SMILES: Final = 40
"""Of the queries are asked among those who smile: without an index of that each takes a second or more."""
BEFORE: Final = "search before the index"
AFTER: Final = "search after it"
MEMORY_AT: Final = (10_000, 100_000)
LAYOUTS: Final[dict[Quantization, StorageConfig]] = {
    "none": StorageConfig(),
    "int8": StorageConfig(quantization="int8", on_disk=True),
    "binary": StorageConfig(quantization="binary", on_disk=True),
}

Figures = dict[str, Any]


def apart(work: Callable[..., Figures], *words: object) -> Figures:
    """Do it in a process of its own; what it returns, its processor seconds and its peak memory with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work, words).result()


def _measured(work: Callable[..., Figures], words: tuple[object, ...]) -> Figures:
    began, busy = time.perf_counter(), time.process_time()
    figures = work(*words)
    own = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}
    return {**own, **resident(), **figures}


def resident() -> Figures:
    """Resident memory of this process in MB: the most so far, and what of the present is no file."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        f"{ours}_mb": int(status[theirs].split()[0]) / 1024
        for ours, theirs in (("peak", "VmHWM"), ("anonymous", "RssAnon"), ("mapped", "RssFile"))
    }


def write(people: People, file: Path) -> Figures:
    """Write the file of latents."""
    write_latents(file, people.spec, people.rows(), draft=file.with_suffix(".new"), payload=True)
    return {"disk_mb": file.stat().st_size / 2**20}


def load_file(file: Path, address: str, name: str = NAME, layout: Quantization = "none") -> Figures:
    """Load it, and build no index; what is stored already is compared only."""
    no_index = patch.object(collection, "INDEX_ABOVE", sys.maxsize)
    with open_store(address) as store, no_index:
        report = load_latents(store, name, [file], storage=LAYOUTS[layout])
    return {"rows": report.added + report.unchanged, "added": report.added}


def trace_file(file: Path, folder: Path) -> Figures:
    """Load it and return the most that Python and Arrow held meanwhile, in MB."""
    with open_store(str(folder)) as store:
        return _traced(lambda: load_latents(store, NAME, [file]))


def trace_folder(photos: Path, folder: Path, dry: bool) -> Figures:
    """Compare a folder with a collection, the same way."""
    model = Model.open(COMMITTED[0])
    no_index = patch.object(collection, "INDEX_ABOVE", sys.maxsize)
    with open_store(str(folder)) as store, no_index:
        if not store.list_collections():
            store.create(NAME, _spec_of(photos))
        source = open_source(str(photos), root_name=NAME, known_roots={})
        return _traced(lambda: sync(store, NAME, model, [source], dry_run=dry))


def _traced(work: Callable[[], Any]) -> Figures:
    tracemalloc.start()
    report = work()
    held = tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory()
    tracemalloc.stop()
    return {"added": report.added, "unchanged": report.unchanged, "held_mb": held / 2**20}


def search(people: People, truth: Figures, address: str, name: str = NAME) -> Figures:
    """Milliseconds of single searches, of all, of one person's and of those who smile, and their recall."""
    vectors, who = people.queries(QUERIES)
    smiles = Filter((Condition("Smiling", ">", 0),))
    asked: dict[str, list[Filter | None]] = {
        "all": [None] * QUERIES,
        "person": [Filter((Condition("person", "=", name),)) for name in who],
        "smiling": [smiles] * SMILES,
    }
    figures: Figures = {}
    with open_store(address) as store:
        state = store.index_state(name)
        figures |= {"indexed": state.indexed, "store_mb": (state.disk_bytes or 0) / 2**20}
        for kind, filters in asked.items():
            took, busy, recall = [], [], []
            for vector, where, best in zip(vectors, filters, truth[kind], strict=False):
                began, busy_before = time.perf_counter(), time.process_time()
                (hits,) = store.search(name, vector[None], k=K, where=where)
                took.append(1000 * (time.perf_counter() - began))
                busy.append(1000 * (time.process_time() - busy_before))
                found = {int(Path(hit.payload["path"]).stem) for hit in hits}
                recall.append(len(found & set(best)) / len(best) if best else 1.0)
            figures[f"{kind}_p50_ms"], figures[f"{kind}_p99_ms"] = np.quantile(took, (0.5, 0.99)).tolist()
            figures[f"{kind}_cpu_p50_ms"] = statistics.median(busy)
            figures[f"{kind}_recall"] = statistics.mean(recall)
    return figures


def nearest(people: People, file: Path) -> dict[str, list[list[int]]]:
    """Return the numbers of the K best rows of each query, by numpy, under each of the conditions."""
    vectors, who = people.queries(QUERIES)
    found = {kind: Nearest(vectors, K) for kind in ("all", "person", "smiling")}
    names, start = np.array(who)[:, None], 0
    with LatentsFile.open(file) as opened:
        for rows in opened.rows():
            smiling = np.array([(each.payload or {})["Smiling"] > 0 for each in rows.entries])
            persons = np.array([each.person for each in rows.entries])
            found["all"].show(rows.vectors, start)
            found["person"].show(rows.vectors, start, names == persons)
            found["smiling"].show(rows.vectors, start, smiling)
            start += len(rows.entries)
    return {kind: [[n for n in row if n >= 0] for row in each.rows.tolist()] for kind, each in found.items()}


def build(address: str, name: str = NAME) -> Figures:
    """Build the index; the peak is that of the process that builds it."""
    with open_store(address) as store:
        store.build_index(name)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"peak_mb": usage.ru_maxrss / 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def write_photos(photos: Path, file: Path, count: int) -> Figures:
    """Write as many links to one small picture, and latents that know them."""
    picture = b"P5\n1 1\n255\n\0"
    for number in range(count):
        link = photos / f"{number // 1000:04d}" / f"{number:08d}.pgm"
        if number % 1000 == 0:
            link.parent.mkdir(parents=True)
        if number % 50_000 == 0:  # a file system has its most links of a file
            (first := link).write_bytes(picture)
        else:
            os.link(first, link)
    write_latents(file, _spec_of(photos), _rows_of(photos), draft=file.with_suffix(".new"))
    return {}


def _spec_of(photos: Path) -> CollectionSpec:
    """A collection of the small model of the tests, of 4 dimensions."""
    return replace(new_spec(Bundle.open(COMMITTED[0]), crop=None), roots={NAME: str(photos)})


def _rows_of(photos: Path) -> Iterator[Rows]:
    rng = np.random.default_rng(0)
    for below in sorted(photos.iterdir()):
        entries = []
        for link in sorted(below.iterdir()):
            status = link.stat()
            known = entry(0, 0, 0, 0)._replace(
                path=f"{below.name}/{link.name}", root=NAME, size=status.st_size, mtime_ns=status.st_mtime_ns
            )
            entries.append(known._replace(person=below.name, payload=None))
        yield Rows(entries, unit(rng.normal(size=(len(entries), 4))))


@dataclass(frozen=True)
class Bench:
    """One run in a folder that goes afterwards."""

    folder: Path
    dimension: int
    url: str | None = None
    exact: bool = True

    def speeds(self, count: int, layouts: Sequence[Quantization]) -> Iterator[tuple[str, dict[str, Figures]]]:
        """For each layout: load, load again, search, build the index, search again.

        Without ``exact`` what is done without the index is left out: at this size it takes minutes.
        """
        people, file = People(count, self.dimension), self.folder / "all.parquet"
        written = apart(write, people, file)
        truth = nearest(people, file)
        address = self.url or str(self.folder / "all")
        for layout in layouts:
            name = f"bench-{secrets.token_hex(4)}"
            done = {
                "write the file": written,
                "load": apart(load_file, file, address, name, layout),
            }
            if self.exact:
                done["load again, nothing new"] = apart(load_file, file, address, name, layout)
                done[BEFORE] = apart(search, people, truth, address, name)
            done["build the index"] = apart(build, address, name)
            done[AFTER] = apart(search, people, truth, address, name)
            with open_store(address) as store:
                store.delete_collection(name)
            yield layout, done
        file.unlink()

    def memory(self, count: int) -> dict[str, Figures]:
        """What the loader holds of a file, and of a folder, at first and when all is stored (embedded)."""
        people, file, store = People(count, self.dimension), self.folder / "m.parquet", self.folder / "m"
        apart(write, people, file)
        done = {"file": apart(trace_file, file, store), "file again": apart(trace_file, file, store)}
        photos, known = self.folder / "photos", self.folder / "photos.parquet"
        apart(write_photos, photos, known, count)
        done["folder, all new"] = apart(trace_folder, photos, self.folder / "empty", True)
        apart(load_file, known, str(self.folder / "full"))
        done["folder, all stored"] = apart(trace_folder, photos, self.folder / "full", False)
        for left in self.folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return done


def table(count: int, layout: str, speeds: dict[str, Figures]) -> Iterator[str]:
    """Yield the lines for people about one layout."""
    yield f"{layout}:"
    for name, of in speeds.items():
        line = f"{of['seconds']:8.1f} s {of['cpu_seconds']:8.1f} s of processor"
        if "build" not in name and "search" not in name:
            line += f" {count / of['seconds']:10,.0f}/s {count / of['cpu_seconds']:10,.0f}/s of processor"
        yield f"{name:<26}{line}, at most {of['peak_mb']:,.0f} MB resident, {of['anonymous_mb']:,.0f} no file"
    searched = {name: of for name, of in speeds.items() if name in (BEFORE, AFTER)}
    for name, of in searched.items():
        yield f"{name}: {of['store_mb']:,.0f} MB on disk"
    for kind in ("all", "person", "smiling"):
        for told in ("p50_ms", "p99_ms", "cpu_p50_ms", "recall"):
            figures = "".join(
                f" {of[f'{kind}_{told}']:10.4f} {name.split()[1]}" for name, of in searched.items()
            )
            yield f"search {kind:<8} {told:<10}{figures}"


def memory_table(memory: dict[int, dict[str, Figures]]) -> Iterator[str]:
    """Yield the lines for people about what the loader holds."""
    for name in next(iter(memory.values())):
        told = ", ".join(f"{of[name]['held_mb']:.1f} MB at {at:,}" for at, of in memory.items())
        yield f"the loader holds, {name:<20} {told}"


@click.command()
@click.option("--count", default=1_000_000, show_default=True, type=click.IntRange(min=1000))
@click.option("--dimension", default=128, show_default=True, type=click.IntRange(min=2))
@click.option("--quantization", "layouts", type=click.Choice([*LAYOUTS]), multiple=True, default=("none",))
@click.option("--memory/--no-memory", "with_memory", default=True, help="Whether to measure the loader's.")
@click.option("--exact/--no-exact", default=True, help="Whether to search without the index, too.")
@click.option("--url", envvar="QDRANT_URL", help="Server to load into, in place of a folder.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False, exists=True), help="With room.")
@click.option("--json", "as_json", is_flag=True)
def main(
    count: int,
    dimension: int,
    layouts: tuple[Quantization, ...],
    with_memory: bool,
    exact: bool,
    url: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Print tables: of each layout when it is done, then of the loader's memory."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        bench = Bench(Path(place), dimension, url, exact)
        speeds = {}
        for layout, done in bench.speeds(count, layouts):
            speeds[layout] = done
            if not as_json:
                click.echo("\n".join(table(count, layout, done)))
        counts = (*(n for n in MEMORY_AT if n < count), count) if with_memory else ()
        memory = {at: bench.memory(at) for at in counts}
    if as_json:
        click.echo(json.dumps({"count": count, "dimension": dimension, "speeds": speeds, "memory": memory}))
    elif memory:
        click.echo("\n".join(memory_table(memory)))


if __name__ == "__main__":
    main()
