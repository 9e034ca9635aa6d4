"""``make bench``: speeds on LFW, measured in turn (A B A B ...), medians. Never a pass or a fail.

Seconds on a shared machine say little; the ratios to the rates measured alone, in the same run, say more.
"""

from __future__ import annotations

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

from encoder.images import read_pixels
from encoder.lfw import LFW, find_lfw
from encoder.model import Model
from indexer.load import load, prepare_collection
from indexer.report import Report
from indexer.sources import Source
from indexer.store import open_store
from searcher.search import Searcher

ROUNDS = 3
SOME = 2_000


def main() -> None:
    """Print a table."""
    lfw = find_lfw(download=False)
    model = Model.open("faces", threads=1)
    decode, encode, first, second, query, cold = [], [], [], [], [], []
    for _ in range(ROUNDS):
        decode.append(decode_rate(lfw, model))
        encode.append(encode_rate(model))
        with tempfile.TemporaryDirectory() as folder:
            runs = [index(lfw, model, folder) for _ in range(2)]
            first.append(runs[0].images_per_second)
            second.append(runs[0].seconds / runs[1].seconds)
            query.append(query_ms(lfw, model, folder))
            cold.append(seconds(["search", str(lfw.images()[0]), "--collection", "faces", "--store", folder]))
    cores = os.cpu_count() or 1
    limit = cores / (1 / statistics.median(decode) + 1 / statistics.median(encode))
    lines = [
        ("decode, crop, resize alone, one thread", f"{statistics.median(decode):,.0f} images/s"),
        ("embed alone (image and mirror image), one thread", f"{statistics.median(encode):,.0f} images/s"),
        (f"limit of {cores} cores by these two", f"{limit:,.0f} images/s"),
        ("index LFW, end to end", f"{statistics.median(first):,.0f} images/s"),
        ("  share of the limit", f"{statistics.median(first) / limit:.2f}"),
        ("second run, times faster", f"{statistics.median(second):.0f}"),
        ("search in process, p50 (read, embed, search)", f"{statistics.median(query):.1f} ms"),
        ("lookalike search, cold", f"{statistics.median(cold):.2f} s"),
        ("lookalike --help", f"{statistics.median(seconds(['--help']) for _ in range(ROUNDS)):.2f} s"),
    ]
    for name, value in lines:
        click.echo(f"{name:<50} {value}")


def decode_rate(lfw: LFW, model: Model) -> float:
    """Return images per second of one thread, bytes in memory."""
    data = [path.read_bytes() for path in lfw.images()[:SOME]]
    image = model.bundle.spec.image
    return SOME / timed(lambda: [read_pixels(one, image, name="") for one in data])


def encode_rate(model: Model) -> float:
    """Return images per second of one thread in batches of 128."""
    pixels = np.random.default_rng(0).integers(0, 256, (128, *model.bundle.spec.image.shape), np.uint8)
    return 128 * 16 / timed(lambda: [model.embed(pixels) for _ in range(16)])


def index(lfw: LFW, model: Model, folder: str) -> Report:
    """Index all of LFW into an embedded store."""
    with open_store(folder) as store:
        prepare_collection(store, "faces", model, crop=None)
        return load(store, "faces", model, [Source("lfw", lfw.root.resolve())])


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
