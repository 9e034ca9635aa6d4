"""``python -m tests.benchmarks.serve_denoising``: the service while it denoises. Never a pass or a fail.

``lookalike serve`` with two workers, in a process of its own. First searches alone; then four large images
are sent to be denoised by clients that give up after a second, and the same searches at once after that, in
the same run; then one large image is denoised to its end, for what memory a worker takes that denoises.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import click
import httpx
import numpy as np
from PIL import Image

from tests.benchmarks.serve import Memory
from tests.fixtures.photos import NAME, cuttings, make_home, photograph
from tests.fixtures.service import API, Running, running

ABANDONED: Final = 4
SEARCHES: Final = 16
SIGMA: Final = 25.0


def noisy(pixels: int) -> bytes:
    """Return a square photograph with noise as JPEG, as many pixels large."""
    side = round(pixels**0.5)
    clean = np.asarray(Image.fromarray(cuttings()[4]).resize((side, side)), np.float32)
    values = clean + np.random.default_rng(0).normal(size=clean.shape).astype(np.float32) * SIGMA
    out = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def search_seconds(service: Running) -> float:
    """Return the median seconds of a search."""
    took = []
    with service.client() as client:
        for number in range(SEARCHES):
            began = time.perf_counter()
            files = {"image": photograph(number)}
            client.post(f"{API}/search", data={"collection": NAME}, files=files).raise_for_status()
            took.append(time.perf_counter() - began)
    return statistics.median(took[1:])  # the first opens the connection


def abandon(service: Running, image: bytes) -> None:
    """Send an image, and give up after a second."""
    try:
        httpx.post(
            f"{service.url}{API}/denoise",
            files={"image": image},
            timeout=httpx.Timeout(60, read=1),
            trust_env=False,
        )
    except httpx.ReadTimeout:
        return


def denoised(service: Running, image: bytes) -> dict[str, float]:
    """Denoise an image to its end; return MB of anonymous memory before, at the peak, and after."""
    pid = service.process.pid
    before, peak, over = Memory.of(pid).anonymous, [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], Memory.of(pid).anonymous)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    with service.client() as client:
        client.timeout = 3600
        client.post(f"{API}/denoise", files={"image": image}).raise_for_status()
    seconds = time.perf_counter() - began
    over.set()
    watcher.join()
    time.sleep(1)
    return {"before": before, "peak": peak[0], "after": Memory.of(pid).anonymous, "seconds": seconds}


@click.command()
@click.option("--megapixels", default=4.0, show_default=True, type=click.FloatRange(0.5, 16))
def main(megapixels: float) -> None:
    """Print a few lines."""
    image = noisy(round(1e6 * megapixels))
    options: list[Any] = ["--model", "denoise", "--workers", "2", "--timeout", "3600"]
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder), Path("faces"))
        with running(home, Path("faces"), *options) as service:
            search_seconds(service)
            quiet = search_seconds(service)
            clients = [threading.Thread(target=abandon, args=[service, image]) for _ in range(ABANDONED)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            beside = search_seconds(service)
            memory = denoised(service, image)
    times = f"{beside / quiet:.1f} times as long (wanted: at most 3)"
    click.echo(f"a search alone {1000 * quiet:.1f} ms")
    click.echo(f"  after {ABANDONED} images were given up {1000 * beside:.1f} ms, {times}")
    click.echo(
        f"denoising {megapixels:g} million pixels: {memory['seconds']:.0f} s; memory that is no file "
        f"{memory['before']:.0f} MB before, {memory['peak']:.0f} at most, {memory['after']:.0f} after"
    )


if __name__ == "__main__":
    main()
