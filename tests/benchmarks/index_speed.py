"""``make bench``: speeds on LFW, measured in turn (A B A B ...), medians. Never a pass or a fail.

Seconds on a shared machine say little; the ratios to the rates measured alone, in the same run, say more.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from lookalike.encoder.datasets import LFW, find_lfw
from lookalike.encoder.images import read_pixels
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.searcher.search import Searcher
from tests.fixtures.plain_ae import plain_autoencoder, save_plain

ROUNDS = 3
SOME = 2_000


def main() -> None:
    """Print a table for each of the two models."""
    lfw = find_lfw(download=False)
    with tempfile.TemporaryDirectory() as folder:
        save_plain(Path(folder, "plain"), plain_autoencoder())
        for name, where, rival in (
            ("the shipped model faces", "faces", False),
            ("the plain autoencoder of 45x45 pixels, 6075-1024-512-128", str(Path(folder, "plain")), True),
        ):
            click.echo(f"{name}:")
            for line, value in rows(lfw, Model.open(where, threads=1), rival=rival):
                click.echo(f"  {line:<50} {value}")
    click.echo(f"lookalike --help: {statistics.median(seconds(['--help']) for _ in range(ROUNDS)):.2f} s")


def rows(lfw: LFW, model: Model, *, rival: bool) -> list[tuple[str, str]]:
    """Measure a model in turn with what it is compared with: name and value of each figure."""
    decode, encode, first, second, query, cold, theirs = [], [], [], [], [], [], []
    for _ in range(ROUNDS):
        decode.append(decode_rate(lfw, model))
        encode.append(encode_rate(model))
        with tempfile.TemporaryDirectory() as folder:
            runs = [index(model, folder) for _ in range(2)]
            first.append(runs[0]["images_per_second"])
            second.append(runs[0]["seconds"] / runs[1]["seconds"])
            query.append(query_ms(lfw, model, folder))
            cold.append(seconds(["search", str(lfw.images()[0]), "--collection", "faces", "--store", folder]))
        if rival:
            theirs.append(rival_rate(lfw))
    cores = os.cpu_count() or 1
    limit = cores / (1 / statistics.median(decode) + 1 / statistics.median(encode))
    twice = " (picture and mirror image)" if model.bundle.spec.mirror else ""
    lines = [
        ("decode, crop, resize alone, one thread", f"{statistics.median(decode):,.0f} images/s"),
        ("embed alone, one thread" + twice, f"{statistics.median(encode):,.0f} images/s"),
        (f"limit of {cores} cores by these two", f"{limit:,.0f} images/s"),
        ("index LFW, end to end", f"{statistics.median(first):,.0f} images/s"),
        ("  share of the limit", f"{statistics.median(first) / limit:.2f}"),
        ("second run, times faster", f"{statistics.median(second):.0f}"),
        ("search in process, p50 (read, embed, search)", f"{statistics.median(query):.1f} ms"),
        ("lookalike search, cold", f"{statistics.median(cold):.2f} s"),
    ]
    if rival:
        times = statistics.median(ours / other for ours, other in zip(first, theirs, strict=True))
        lines += [
            ("Pillow, DataLoader, eager torch, qdrant-client", f"{statistics.median(theirs):,.0f} images/s"),
            ("  index is faster, times", f"{times:.1f}"),
        ]
    return lines


def rival_rate(lfw: LFW) -> float:
    """Return images per second of what one would write without this project."""
    command = [sys.executable, "-m", "tests.benchmarks.handwritten_loader", str(lfw.root)]
    took, count = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(count) / float(took)


def decode_rate(lfw: LFW, model: Model) -> float:
    """Return images per second of one thread, bytes in memory."""
    data = [path.read_bytes() for path in lfw.images()[:SOME]]
    image = model.bundle.spec.image
    return SOME / timed(lambda: [read_pixels(one, image, name="") for one in data])


def encode_rate(model: Model) -> float:
    """Return images per second of one thread in batches of 128."""
    pixels = np.random.default_rng(0).integers(0, 256, (128, *model.bundle.spec.image.shape), np.uint8)
    return 128 * 16 / timed(lambda: [model.embed(pixels) for _ in range(16)])


def index(model: Model, folder: str) -> dict[str, float]:
    """Index all of LFW into an embedded store with the command, and return its report."""
    words = ["index", "lfw", "--model", str(model.bundle.folder), "--collection", "faces", "--store", folder]
    command = [str(Path(sys.executable).with_name("lookalike")), *words, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report: dict[str, float] = json.loads(done.stdout)
    return report


def query_ms(lfw: LFW, model: Model, folder: str) -> float:
    """Return the median milliseconds of a query that is a file."""
    with open_store(folder) as store:
        searcher = Searcher(store, "faces", model)
        return statistics.median(
            answer.took_ms for path in lfw.images()[::66] for answer in searcher.similar([path])
        )


def seconds(arguments: list[str]) -> float:
    """Return the seconds of a whole command."""
    command = [str(Path(sys.executable).with_name("lookalike")), *arguments]
    return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def timed(work: Callable[[], object]) -> float:
    """Return how long it takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
