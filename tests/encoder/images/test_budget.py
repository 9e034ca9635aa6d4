"""A budget of pixels: large images wait for each other, and nobody waits for ever."""

import contextlib
import io
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.images import DECODING, ImageSpec, PixelBudget, read_image_file, read_pixels
from tests.encoder.images.test_samples import png


def test_who_fits_enters_and_who_is_too_large_runs_alone() -> None:
    budget, log = PixelBudget(100), list[int]()
    inside, lock = [0], threading.Lock()

    def work(pixels: int) -> None:
        with budget.acquire() as wait_for:
            wait_for(pixels)
            with lock:
                inside[0] += pixels
                log.append(inside[0])
            time.sleep(0.002)
            with lock:
                inside[0] -= pixels

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [10, 60, 90, 250, 1, 100, 40] * 6))
    assert len(log) == 42
    assert {total for total in log if total > 100} == {250}
    assert inside == [0]


def test_a_large_image_is_not_passed_by_small_ones() -> None:
    budget, order = PixelBudget(100), list[str]()
    entered = threading.Event()

    def hold(name: str, pixels: int) -> None:
        with budget.acquire() as wait_for:
            entered.set()
            wait_for(pixels)
            order.append(name)

    with budget.acquire() as wait_for:
        wait_for(10)
        threads = []
        for name, pixels in (("large", 100), ("small", 1)):
            entered.clear()
            threads.append(threading.Thread(target=hold, args=(name, pixels)))
            threads[-1].start()
            entered.wait(5)
            time.sleep(0.05)  # it now waits for room, or for its turn
        assert order == []
    for thread in threads:
        thread.join(5)
    assert order == ["large", "small"]


def test_what_fails_gives_its_room_back() -> None:
    budget = PixelBudget(10)
    for _ in range(3):
        with contextlib.suppress(ZeroDivisionError), budget.acquire() as wait_for:
            wait_for(10 // 1)
            wait_for(10 // 0)
    with budget.acquire() as wait_for:
        wait_for(10)  # and none waits


@contextmanager
def limited(pixels: int) -> Iterator[None]:
    DECODING.limit = pixels
    try:
        yield
    finally:
        DECODING.limit = None


def saved(kind: str, pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "pixels"),
    [
        ("PNG", {}, 400 * 300),
        ("JPEG", {}, 400 * 300 // 64),
        ("JPEG", {"progressive": True}, 400 * 300 // 64 + 400 * 300),
    ],
)
def test_every_image_is_counted_while_it_is_decoded(
    kind: str, options: dict[str, object], pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    budget = PixelBudget(None)
    original = budget.acquire

    @contextmanager
    def acquire():  # type: ignore[no-untyped-def]  # as the original
        with original() as wait_for:

            def count(pixels: int) -> None:
                counted.append(pixels)
                wait_for(pixels)

            yield count

    monkeypatch.setattr(budget, "acquire", acquire)
    monkeypatch.setattr("lookalike.encoder.images.preprocess.DECODING", budget)
    data = saved(kind, np.zeros((300, 400, 3), np.uint8), **options)
    read_pixels(data, ImageSpec(size=16), name="it")
    assert counted == [pixels]


def test_images_wait_for_each_other_and_come_out_the_same() -> None:
    rng = np.random.default_rng(0)
    files = [saved("PNG", rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)) for _ in range(12)]
    spec = ImageSpec(size=16)
    alone = [read_pixels(data, spec, name="it") for data in files]
    with limited(5000), ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: read_pixels(data, spec, name="it"), files))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("bits", "color"), [(16, 0), (16, 2), (16, 4), (16, 6), (8, 0), (8, 2), (8, 4), (8, 6)]
)
def test_conversion_takes_few_bytes_beside_the_image(
    bits: int, color: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's own 1 to 4 bytes a pixel are not seen here: what numpy and bytes take beside them is."""
    monkeypatch.setattr("lookalike.encoder.images.samples._STRIP", 1 << 15)
    side, channels = 700, {0: 1, 2: 3, 4: 2, 6: 4}[color]
    data = png(np.full((side, side, channels), 3 << bits - 8), bits, color)
    read_pixels(data, ImageSpec(size=16), name="it")  # loads what it needs once
    tracemalloc.start()
    try:
        read_pixels(data, ImageSpec(size=16), name="it")
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < (4 if color else 3) * side**2 + (1 << 20)
        tracemalloc.reset_peak()
        read_image_file(data, max_pixels=10**7, name="it")
        assert tracemalloc.get_traced_memory()[1] < (2 * channels * bits // 8 + 1) * side**2 + (1 << 20)
    finally:
        tracemalloc.stop()


def test_who_asks_twice_gives_the_first_back() -> None:
    budget = PixelBudget(100)

    def work(_: int) -> None:
        with budget.acquire() as wait_for:
            wait_for(60)
            time.sleep(0.001)
            wait_for(90)  # held together, two of these would wait for each other

    with ThreadPoolExecutor(8) as pool:
        done = pool.map(work, range(32))
        assert sum(1 for _ in done) == 32
