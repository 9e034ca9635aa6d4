"""Files to embeddings: in order, each bad one named, nothing lost, nothing held for long."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.embed import EmbeddedBatch, embed_files
from lookalike.encoder.embed.workers import read_file
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import Crop, encode_png, read_pixels
from lookalike.encoder.runtime import Model
from tests.fixtures.tiny_models import SIZE, pictures

BATCH = 128


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, 00.png to 19.png, twice the model's size for its crop."""
    root = tmp_path_factory.mktemp("bilder ✓")
    for number, pixels in enumerate(pictures(20, size=2 * SIZE, seed=3)):
        (root / f"{number:02}.png").write_bytes(encode_png(pixels))
    return root


def keyed(paths: list[Path]) -> list[tuple[int, Path]]:
    return list(enumerate(paths))


def cycle(folder: Path, total: int) -> list[Path]:
    return [folder / f"{number % 20:02}.png" for number in range(total)]


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("embed")]


def joined(batches: list[EmbeddedBatch[int]]) -> NDArray[np.float32]:
    return np.concatenate([batch.embeddings for batch in batches])


def test_order_is_kept_over_batches(model: Model, folder: Path) -> None:
    batches = list(embed_files(model, keyed(cycle(folder, 300))))
    assert [len(batch.keys) for batch in batches] == [BATCH, BATCH, 300 - 2 * BATCH]
    assert [key for batch in batches for key in batch.keys] == list(range(300))
    assert not any(batch.failures for batch in batches)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_embeddings_are_those_of_reading_one_by_one(model: Model, folder: Path, threads: int | None) -> None:
    paths = cycle(folder, 150)
    found = joined(list(embed_files(model, keyed(paths), threads=threads)))
    spec = model.bundle.spec.image
    alone = [
        model.embed(read_pixels(path.read_bytes(), spec, name=path.name)[None])[0] for path in paths[:20]
    ]
    for row, embedding in enumerate(found):
        np.testing.assert_allclose(embedding, alone[row % 20], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_crop_replaces_that_of_the_model(model: Model, folder: Path) -> None:
    (batch,) = embed_files(model, keyed(cycle(folder, 3)), crop=Crop())
    for path, embedding in zip(cycle(folder, 3), batch.embeddings, strict=True):
        whole = read_pixels(path.read_bytes(), model.bundle.spec.image, crop=Crop(), name=path.name)
        np.testing.assert_allclose(embedding, model.embed(whole[None])[0], atol=1e-5)


def test_facts_are_those_of_the_bytes_that_were_read(model: Model, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes((folder / "00.png").read_bytes())
    os.utime(file, ns=(1, 1_234_567_890_123_456_789))
    (batch,) = embed_files(model, [("a", file)])
    (facts,) = batch.facts
    assert batch.keys == ["a"]
    assert facts.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert facts.size == file.stat().st_size
    assert facts.mtime_ns == 1_234_567_890_123_456_789


def test_bad_files_are_named_and_cost_only_themselves(model: Model, folder: Path, tmp_path: Path) -> None:
    good = (folder / "00.png").read_bytes()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "noise.jpg").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken.png").symlink_to("nowhere")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "two\nlines.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate((1 << 30) + 1)
    bad = [*sorted(tmp_path.iterdir()), tmp_path / "vanished.png", Path("/dev/zero"), tmp_path / ("x" * 300)]
    paths = [path for pair in zip(bad, cycle(folder, len(bad)), strict=True) for path in pair]
    (batch,) = embed_files(model, keyed(paths))
    assert batch.keys == list(range(1, len(paths), 2))
    assert [key for key, _ in batch.failures] == list(range(0, len(paths), 2))
    for key, reason in batch.failures:
        assert paths[key].name.replace("\n", r"\n") in reason
        assert "\n" not in reason
        assert "None" not in reason
    expected = joined(list(embed_files(model, keyed(paths[1::2]))))
    np.testing.assert_array_equal(batch.embeddings, expected)
    reasons = {paths[key].name: reason for key, reason in batch.failures}
    assert "it is a folder" in reasons["folder.png"]
    assert "No such file" in reasons["vanished.png"]
    assert "not a file" in reasons["pipe.png"]
    assert "bytes" in reasons["huge.png"]


def test_picture_over_the_pixel_limit_fails(model: Model, folder: Path) -> None:
    (batch,) = embed_files(model, keyed(cycle(folder, 2)), max_pixels=100)
    assert batch.keys == []
    assert len(batch.failures) == 2


def test_batch_of_nothing_but_failures_has_no_rows(model: Model, tmp_path: Path) -> None:
    batches = list(embed_files(model, keyed([tmp_path / f"{number}.png" for number in range(BATCH + 1)])))
    assert [len(batch.failures) for batch in batches] == [BATCH, 1]
    for batch in batches:
        assert (batch.keys, batch.facts) == ([], [])
        assert batch.embeddings.shape == (0, model.bundle.spec.embedding)


def test_no_files_give_no_batches(model: Model) -> None:
    assert list(embed_files(model, [])) == []
    assert list(embed_files(model, iter(()))) == []


def test_files_that_vanish_underway_are_named(model: Model, folder: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5 * BATCH)]
    for path in paths:
        path.hardlink_to(folder / "00.png")
    stream = embed_files(model, keyed(paths), threads=1)
    first = next(stream)
    for path in paths:
        path.unlink()
    rest = list(stream)
    assert first.keys == list(range(BATCH))
    keys = [key for batch in rest for key in batch.keys]
    lost = [key for batch in rest for key, _ in batch.failures]
    assert sorted(keys + lost) == list(range(BATCH, 5 * BATCH))
    assert set(range(4 * BATCH, 5 * BATCH)) <= set(lost)


@pytest.mark.parametrize("threads", [1, 3])
def test_input_is_read_ahead_by_a_bounded_number_of_batches(model: Model, folder: Path, threads: int) -> None:
    taken = 0

    def endless() -> Iterator[tuple[int, Path]]:
        nonlocal taken
        for number in count():
            taken += 1
            yield number, folder / f"{number % 20:02}.png"

    stream = embed_files(model, endless(), threads=threads)
    assert taken == 0  # nothing is read before the first batch is asked for
    for turn, batch in enumerate(islice(stream, 6), start=1):
        assert batch.keys[-1] == turn * BATCH - 1
        assert taken <= (turn + threads + 1) * BATCH
        time.sleep(0.01)  # time in which it could run ahead
        assert taken <= (turn + threads + 1) * BATCH
    stream.close()


def test_closing_early_stops_the_threads(model: Model, folder: Path) -> None:
    stream = embed_files(model, keyed(cycle(folder, 50 * BATCH)), threads=3)
    next(stream)
    assert decoders()
    stream.close()
    assert not decoders()
    with pytest.raises(StopIteration):
        next(stream)


def test_threads_are_gone_when_all_is_read(model: Model, folder: Path) -> None:
    assert len(list(embed_files(model, keyed(cycle(folder, 5)), threads=4))) == 1
    assert not decoders()


def test_error_of_the_input_comes_through_and_stops_the_threads(model: Model, folder: Path) -> None:
    def failing() -> Iterator[tuple[int, Path]]:
        yield from keyed(cycle(folder, 10 * BATCH))
        raise LookupError("the list ends here")

    batches: list[EmbeddedBatch[int]] = []
    with pytest.raises(LookupError, match="the list ends here"):
        batches.extend(embed_files(model, failing(), threads=2))
    assert len(batches) >= 6
    assert not decoders()


@pytest.mark.parametrize("threads", [0, -1])
def test_impossible_numbers_of_threads_are_refused_at_once(model: Model, threads: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"threads must be 1 or more, not {threads}"):
        embed_files(model, [], threads=threads)


def test_files_whose_content_is_known_are_skipped(model: Model, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    paths: list[str | Path] = [
        folder / "00.png",
        str(folder / "01.png"),
        tmp_path / "text.png",
        folder / "02.png",
    ]
    sums = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    known = [{"0" * 64}, {"1" * 64, sums[1]}, {sums[2]}, set[str]()]
    (batch,) = embed_files(model, list(enumerate(paths)), known_hashes=known.__getitem__)
    assert (batch.keys, batch.failures) == ([0, 3], [])
    assert [(key, facts.sha256) for key, facts in batch.skipped] == [(1, sums[1]), (2, sums[2])]
    expected = joined(list(embed_files(model, [(0, folder / "00.png"), (3, folder / "02.png")])))
    np.testing.assert_allclose(batch.embeddings, expected, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no file that is longer than it says")
def test_a_file_is_read_to_its_end_however_long_it_was_said_to_be() -> None:
    data, facts = read_file("/proc/self/status")  # says 0 bytes, as one that is being written may say too few
    assert data.startswith(b"Name:")
    assert data.endswith(b"\n")
    assert facts.size == len(data) > 100


def test_keys_may_be_anything(model: Model, folder: Path) -> None:
    key = object()
    (batch,) = embed_files(model, [(key, folder / "00.png"), (key, folder / "01.png")])
    assert batch.keys == [key, key]
