"""``python -m tests.benchmarks.layouts FILE.parquet``: what quantization costs and saves, embedded.

The file is one that ``lookalike embed`` wrote, or, with ``--count``, made here of the vectors of
:mod:`tests.benchmarks.million_vectors`. Never a pass or a fail.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import load_latents
from lookalike.indexer.parquet.file import LatentsFile, write_latents
from lookalike.indexer.store import Quantization, StorageConfig
from tests.benchmarks.million_vectors import People

K: Final = 10
QUERIES: Final = 300
NAME: Final = "c"
LAYOUTS: Final[dict[Quantization, bool]] = {"none": False, "int8": True, "binary": True}


def vectors_of(file: Path) -> tuple[NDArray[np.float32], list[str]]:
    """All vectors, unit length, and their paths."""
    with LatentsFile.open(file) as opened:
        rows = list(opened.rows())
    found = np.concatenate([piece.vectors for piece in rows])
    paths = [f"{entry.root}/{entry.path}" for piece in rows for entry in piece.entries]
    return found / np.linalg.norm(found, axis=1, keepdims=True), paths


def measured(file: Path, folder: Path, quantization: Quantization) -> Iterator[str]:
    """Yield a line before the index, and one after it."""
    vectors, paths = vectors_of(file)
    drawn = np.random.default_rng(0).choice(len(vectors), min(QUERIES, len(vectors)), replace=False)
    best = [{paths[n] for n in np.argsort(-row)[:K]} for row in vectors[drawn] @ vectors.T]
    options = StorageConfig(quantization=quantization, on_disk=LAYOUTS[quantization])
    with open_store(str(folder / quantization)) as store:
        load_latents(store, NAME, [file], storage=options)
        for built in (False, True):
            began = time.perf_counter()
            if built:
                store.build_index(NAME)
            seconds, took, found = time.perf_counter() - began, [], []
            for vector in vectors[drawn]:
                asked = time.perf_counter()
                (hits,) = store.search(NAME, vector[None], k=K)
                took.append(1000 * (time.perf_counter() - asked))
                found.append({f"{hit.payload['root']}/{hit.payload['path']}" for hit in hits})
            recall = np.mean([len(a & b) / K for a, b in zip(best, found, strict=True)])
            disk = (store.index_state(NAME).disk_bytes or 0) / 1e6
            state = f"with the index, built in {seconds:.0f} s" if built else "without"
            yield (
                f"{len(vectors)} x {vectors.shape[1]} {quantization:<7} recall@{K} {recall:.4f}, "
                f"{np.median(took):.2f} ms a search, {disk:.1f} MB on disk, {state}"
            )


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--count", type=click.IntRange(min=1000), help="So many made vectors, in place of a file.")
@click.option("--dimension", default=512, show_default=True)
@click.option("--only", type=click.Choice(list(LAYOUTS)), multiple=True)
def main(file: Path | None, count: int | None, dimension: int, only: tuple[Quantization, ...]) -> None:
    """Print two lines for each kind of quantization."""
    with tempfile.TemporaryDirectory() as place:
        if file is None:
            people = People(count or 100_000, dimension)
            file = Path(place) / "made.parquet"
            write_latents(file, people.spec, people.rows(), draft=file.with_suffix(".new"), payload=True)
        for quantization in only or LAYOUTS:
            for line in measured(file, Path(place), quantization):
                click.echo(line)


if __name__ == "__main__":
    main()
