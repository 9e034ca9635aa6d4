"""``python -m tests.benchmarks.face_speed``: how fast faces of photographs are found and embedded.

Whole photographs through ``embed_files`` beside the steps measured alone, in turn in the same run, medians.
Never a pass or a fail: seconds on a shared machine say little, the share of what the cores allow says more.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation import background_files, open_labeled
from lookalike.deploy.evaluation.faces import plan_photographs
from lookalike.encoder.detect import LFW_FRAME, Face, Faces, cut_faces, face_finder
from lookalike.encoder.embed import PROCESSES_FROM, embed_files
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import decode_rgb, save_image
from lookalike.encoder.runtime import Model

BATCH = 128
T = TypeVar("T")
Pixels = NDArray[np.uint8]


@click.command()
@click.option("--pictures", type=click.IntRange(min=1), default=128, show_default=True, help="Photographs.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--processes", is_flag=True, help="Processes instead of threads; the photographs are repeated.")
def main(pictures: int, rounds: int, processes: bool) -> None:
    """Print photographs and faces a second, and the share of each step."""
    model = Model.open("faces", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        files = make_photographs(Path(folder), pictures)
        whole, steps, found = [], [], 0
        for _ in range(rounds):
            steps.append(alone(model, files))
            rate, found = together(model, files, processes=processes)
            whole.append(rate)
    cores = os.cpu_count() or 1
    each = {name: statistics.median(step[name] for step in steps) for name in steps[0]}
    seconds = sum(each.values())
    limit, rate = cores / seconds, statistics.median(whole)
    share = statistics.median(
        ours * sum(step.values()) / cores for ours, step in zip(whole, steps, strict=True)
    )
    for name, took in each.items():
        click.echo(
            f"{name + ' alone, one thread':<50} {1000 * took:6.1f} ms a photograph, {took / seconds:4.0%}"
        )
    click.echo(f"{f'limit of {cores} cores by these':<50} {limit:6.1f} photographs/s")
    click.echo(
        f"{'embed_files, end to end':<50} {rate:6.1f} photographs/s, {rate * found / pictures:.1f} faces/s"
    )
    click.echo(f"{'  share of the limit':<50} {share:6.2f}")


def make_photographs(folder: Path, count: int) -> list[Path]:
    """Write photographs of about two million pixels with one face each, and return the files."""
    images, files = open_labeled("lfw"), []
    for made in plan_photographs(images, background_files(None), count, seed=0):
        picture = decode_rgb(read_bounded(made.background), name=made.background.name)
        face = decode_rgb(read_bounded(images.files[made.face]), name="")
        files.append(folder / f"{made.number}.jpg")
        save_image(files[-1], made.draw(made.draw_background(picture), face))
    return files


def alone(model: Model, files: list[Path]) -> dict[str, float]:
    """Return the seconds of each step, in one thread, for one photograph."""
    finder, side = face_finder(), model.bundle.spec.image.size
    data = [file.read_bytes() for file in files]
    pixels, decode = timed(lambda: [decode_rgb(each, name="") for each in data])
    first, detect = timed(lambda: [finder.find(each, refined=False) for each in pixels])
    faces, refine = timed(
        lambda: [
            [better for face in some if (better := finder.refine(each, face)) is not None]
            for each, some in zip(pixels, first, strict=True)
        ]
    )
    cut, cutting = timed(lambda: cut_all(model, pixels, faces))
    batch = np.concatenate([np.concatenate(cut), np.zeros((BATCH, side, side, 3), np.uint8)])[:BATCH]
    count = sum(map(len, faces))
    _, embedding = timed(lambda: model.embed(batch))
    steps = {"decode": decode, "detect at two sizes": detect, "close looks": refine, "cut out": cutting}
    return {name: took / len(files) for name, took in steps.items()} | {
        "embed": embedding / BATCH * count / len(files)
    }


def cut_all(model: Model, pixels: list[Pixels], faces: list[list[Face]]) -> list[Pixels]:
    """Return the faces of each picture, uint8 (n, S, S, 3)."""
    frame, side = model.bundle.spec.frame or LFW_FRAME, model.bundle.spec.image.size
    return [cut_faces(each, some, frame, side) for each, some in zip(pixels, faces, strict=True)]


def together(model: Model, files: list[Path], *, processes: bool) -> tuple[float, int]:
    """Return photographs a second through ``embed_files``, and the faces of the files."""
    times = -(-PROCESSES_FROM // len(files)) if processes else max(1, 4 * BATCH // len(files))
    batches, took = timed(
        lambda: list(embed_files(model, enumerate(files * times), crop=Faces(), processes=processes))
    )
    return len(files) * times / took, sum(len(batch.embeddings) for batch in batches) // times


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result, and how long it took in seconds."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


if __name__ == "__main__":
    main()
