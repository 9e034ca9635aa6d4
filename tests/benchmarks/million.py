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
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import pyarrow as pa

from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import load_latents
from lookalike.indexer.parquet.file import LatentsFile, Rows, write_latents
from lookalike.indexer.sources.source import open_source
from lookalike.indexer.store import CollectionSpec, Condition, Filter
from lookalike.indexer.sync import sync
from tests.benchmarks.million_vectors import Nearest, People, entry, unit

NAME: Final = "people"
K: Final = 10
QUERIES: Final = 300
SMILES: Final = 40
"""Of the queries are asked among those who smile: without an index of that each takes a second or more."""
MEMORY_AT: Final = (10_000, 100_000)

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


def load_file(file: Path, folder: Path) -> Figures:
    """Load it; what is stored already is compared only."""
    with open_store(str(folder)) as store:
        report = load_latents(store, NAME, [file])
    return {"rows": report.added + report.unchanged, "added": report.added}


def trace_file(file: Path, folder: Path) -> Figures:
    """Load it and return the most that Python and Arrow held meanwhile, in MB."""
    with open_store(str(folder)) as store:
        return _traced(lambda: load_latents(store, NAME, [file]))


def trace_folder(photos: Path, folder: Path, dry: bool) -> Figures:
    """Compare a folder with a collection, the same way."""
    model = Model.open("faces")
    with open_store(str(folder)) as store:
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


def search(people: People, truth: Figures, folder: Path) -> Figures:
    """Milliseconds of single searches, of all, of one person's and of those who smile, and their recall."""
    vectors, who = people.queries(QUERIES)
    smiles = Filter((Condition("Smiling", ">", 0),))
    asked: dict[str, list[Filter | None]] = {
        "all": [None] * QUERIES,
        "person": [Filter((Condition("person", "=", name),)) for name in who],
        "smiling": [smiles] * SMILES,
    }
    figures: Figures = {}
    with open_store(str(folder)) as store:
        state = store.index_state(NAME)
        figures |= {"indexed": state.indexed, "store_mb": (state.disk_bytes or 0) / 2**20}
        for kind, filters in asked.items():
            took, busy, recall = [], [], []
            for vector, where, best in zip(vectors, filters, truth[kind], strict=False):
                began, busy_before = time.perf_counter(), time.process_time()
                (hits,) = store.search(NAME, vector[None], k=K, where=where)
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


def build(folder: Path) -> Figures:
    """Build the index; the peak is that of the process that builds it."""
    with open_store(str(folder)) as store:
        store.build_index(NAME)
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
    return CollectionSpec(
        model_id="5" * 64, model_name="synthetic", dimension=4, crop="full", roots={NAME: str(photos)}
    )


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

    def speeds(self, count: int) -> dict[str, Figures]:
        """Write, load, load again, search, build the index, search again."""
        people, file, store = People(count, self.dimension), self.folder / "all.parquet", self.folder / "all"
        done = {
            "write the file": apart(write, people, file),
            "load": apart(load_file, file, store),
            "load again, nothing new": apart(load_file, file, store),
        }
        truth = nearest(people, file)
        done["search before the index"] = apart(search, people, truth, store)
        done["build the index"] = apart(build, store)
        done["search after it"] = apart(search, people, truth, store)
        shutil.rmtree(store)
        file.unlink()
        return done

    def memory(self, count: int) -> dict[str, Figures]:
        """What the loader holds of a file, and of a folder, at first and when all is stored."""
        people, file, store = People(count, self.dimension), self.folder / "m.parquet", self.folder / "m"
        apart(write, people, file)
        done = {"file": apart(trace_file, file, store), "file again": apart(trace_file, file, store)}
        photos, known = self.folder / "photos", self.folder / "photos.parquet"
        apart(write_photos, photos, known, count)
        done["folder, all new"] = apart(trace_folder, photos, self.folder / "empty", True)
        apart(load_file, known, self.folder / "full")
        done["folder, all stored"] = apart(trace_folder, photos, self.folder / "full", False)
        for left in self.folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return done


def table(count: int, speeds: dict[str, Figures], memory: dict[int, dict[str, Figures]]) -> Iterator[str]:
    """Yield the lines for people."""
    for name, of in speeds.items():
        line = f"{of['seconds']:8.1f} s {of['cpu_seconds']:8.1f} s of processor"
        if "build" not in name and "search" not in name:
            line += f" {count / of['seconds']:10,.0f}/s {count / of['cpu_seconds']:10,.0f}/s of processor"
        yield f"{name:<26}{line}, at most {of['peak_mb']:,.0f} MB resident, {of['anonymous_mb']:,.0f} no file"
    before, after = speeds["search before the index"], speeds["search after it"]
    yield f"on disk, MB: {before['store_mb']:,.0f} before the index, {after['store_mb']:,.0f} after it"
    for kind in ("all", "person", "smiling"):
        for told in ("p50_ms", "p99_ms", "cpu_p50_ms", "recall"):
            one, two = before[f"{kind}_{told}"], after[f"{kind}_{told}"]
            ratio = "" if told == "recall" else f"  {one / two:6.1f} times faster"
            yield f"search {kind:<8} {told:<10} {one:10.3f} before {two:10.3f} after{ratio}"
    for name in next(iter(memory.values())):
        told = ", ".join(f"{of[name]['held_mb']:.1f} MB at {at:,}" for at, of in memory.items())
        yield f"the loader holds, {name:<20} {told}"


@click.command()
@click.option("--count", default=1_000_000, show_default=True, type=click.IntRange(min=1000))
@click.option("--dimension", default=128, show_default=True, type=click.IntRange(min=2))
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False, exists=True), help="With room.")
@click.option("--json", "as_json", is_flag=True)
def main(count: int, dimension: int, folder: Path | None, as_json: bool) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        bench = Bench(Path(place), dimension)
        speeds = bench.speeds(count)
        memory = {at: bench.memory(at) for at in (*(n for n in MEMORY_AT if n < count), count)}
    if as_json:
        click.echo(json.dumps({"count": count, "dimension": dimension, "speeds": speeds, "memory": memory}))
    else:
        click.echo("\n".join(table(count, speeds, memory)))


if __name__ == "__main__":
    main()
