"""MNIST: found, fetched and read; made-up digits and the real ones."""

import dataclasses
import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.datasets import MNIST, SPLITS, find_mnist
from lookalike.encoder.datasets import mnist as module
from lookalike.encoder.datasets.download import RemoteFile
from lookalike.encoder.errors import DataError, InvalidArgumentError
from tests.conftest import FileServer
from tests.fixtures.digit_files import idx, idx_files, made_up_images, made_up_labels, write_digits

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("packed", [False, True])
def test_digits_are_read_as_written(packed: bool, tmp_path: Path) -> None:
    data = MNIST(write_digits(tmp_path, packed=packed))
    for split in SPLITS:
        images, labels = data.images(split), data.labels(split)
        assert images.dtype == labels.dtype == np.uint8
        assert np.array_equal(images, made_up_images(split))
        assert np.array_equal(labels, made_up_labels(split))
        images[0] = 0  # the caller's own, and the next caller's whole again
        assert data.images(split)[0].any()


def test_what_is_not_packed_comes_first(tmp_path: Path) -> None:
    data = MNIST(write_digits(tmp_path))
    (tmp_path / f"{IMAGES}.gz").write_bytes(b"no gzip")
    assert data.images_file("test") == tmp_path / IMAGES
    assert len(data.images("test")) == 20


def test_there_are_two_splits(tmp_path: Path) -> None:
    data = MNIST(write_digits(tmp_path))
    for ask in (data.images, data.labels):
        with pytest.raises(InvalidArgumentError, match="'train' or 'test', not 'all'"):
            ask("all")  # type: ignore[arg-type]  # what an untyped caller may do


FEW = made_up_images("test")[:3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "be an IDX file that begins with 00000803 and 3 sizes, not empty"),
        (b"\x1f\x8b\x08\x00", "begins with 00000803 and 3 sizes, not 1f8b0800"),
        (idx(FEW)[:15], "begins with 00000803 and 3 sizes"),
        (idx(made_up_labels("test")), "begins with 00000803 and 3 sizes"),
        (idx(FEW)[:-1], "hold 3x28x28 bytes behind its header, not 2351"),
        (idx(FEW) + b"x", "hold 3x28x28 bytes behind its header, not 2353"),
        (idx(FEW[:, :, :27]), "hold digits of 28x28 pixels, not 3x28x27"),
        (idx(FEW[:0]), "hold digits of 28x28 pixels, not 0x28x28"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_malformed_images_are_told(packed: bool, content: bytes, message: str, tmp_path: Path) -> None:
    data = MNIST(write_digits(tmp_path, packed=packed))
    data.images_file("test").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=rf"{IMAGES}.* must .*{message}") as caught:
        data.images("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(FEW), "be an IDX file that begins with 00000801 and 1 sizes"),
        (idx(np.array([10] * 20, np.uint8)), "hold labels of 0 to 9, not 10"),
        (idx(made_up_labels("test")[:-1]), "hold a label for each of 20 images, not 19"),
    ],
)
def test_malformed_labels_are_told(content: bytes, message: str, tmp_path: Path) -> None:
    data = MNIST(write_digits(tmp_path))
    (tmp_path / LABELS).write_bytes(content)
    with pytest.raises(DataError, match=f"{LABELS} must {message}"):
        data.labels("test")


def test_images_and_labels_are_as_many_whichever_is_asked_for(tmp_path: Path) -> None:
    data = MNIST(write_digits(tmp_path))
    (tmp_path / LABELS).write_bytes(idx(made_up_labels("test")[:-1]))
    with pytest.raises(DataError, match="a label for each of 20 images, not 19"):
        data.images("test")


def test_damaged_and_missing_files_are_told(tmp_path: Path) -> None:
    data = MNIST(write_digits(tmp_path, packed=True))
    packed = tmp_path / f"{IMAGES}.gz"
    whole = packed.read_bytes()
    for content in (b"no gzip", whole[:-20], whole[:-2000] + bytes(2000)):
        packed.write_bytes(content)
        with pytest.raises(DataError, match=r"must be a readable IDX file, but: .*; fetch it again"):
            data.images("test")
    packed.unlink()
    with pytest.raises(DataError, match=f"{IMAGES} must be a readable IDX file, but: .*No such file"):
        data.images("test")


@pytest.fixture
def mirror(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A mirror with made-up digits, an empty cache, and nothing at LOOKALIKE_DATA."""
    monkeypatch.delenv("LOOKALIKE_DATA", raising=False)
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOKALIKE_MIRRORS", server.url)
    server.files = {f"{name}.gz": gzip.compress(content) for name, content in idx_files().items()}

    def made_here(file: RemoteFile) -> RemoteFile:
        md5 = hashlib.md5(server.files[file.name], usedforsecurity=False).hexdigest()
        return dataclasses.replace(file, md5=md5)

    monkeypatch.setattr(module, "FILES", tuple(map(made_here, module.FILES)))
    return server


def test_it_is_downloaded_once(mirror: FileServer, tmp_path: Path) -> None:
    data = find_mnist()
    assert data == MNIST(tmp_path / "cache" / "MNIST" / "raw")
    assert np.array_equal(data.images("train"), made_up_images("train"))
    assert np.array_equal(data.labels("test"), made_up_labels("test"))
    assert {file.name for file in data.folder.iterdir() if file.name != ".lock"} == set(idx_files())
    assert find_mnist() == data == find_mnist(download=False)
    assert len(mirror.served) == 4


def test_what_a_kill_left_is_gone_on_with(mirror: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    packed = f"{IMAGES}.gz"
    (folder / f".{IMAGES}.unpacking").write_bytes(b"half")
    (folder / packed).write_bytes(mirror.files[packed])  # fetched whole, not unpacked
    (folder / f"{LABELS}.gz.part").write_bytes(mirror.files[f"{LABELS}.gz"][:10])
    data = find_mnist()
    assert np.array_equal(data.images("test"), made_up_images("test"))
    assert {file.name for file in folder.iterdir() if file.name != ".lock"} == set(idx_files())
    assert packed not in {name for name, _, _ in mirror.served}
    assert (f"{LABELS}.gz", 206, len(mirror.files[f"{LABELS}.gz"]) - 10) in mirror.served


def test_what_is_no_gzip_file_becomes_nothing(
    mirror: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.files[f"{IMAGES}.gz"] = content = b"no gzip file, though its digest is as expected"
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    files = [dataclasses.replace(f, md5=md5) if f.name == f"{IMAGES}.gz" else f for f in module.FILES]
    monkeypatch.setattr(module, "FILES", tuple(files))
    with pytest.raises(DataError, match=f"{IMAGES}.gz must be a gzip file"):
        find_mnist()
    folder = tmp_path / "cache" / "MNIST" / "raw"
    assert not {IMAGES, f".{IMAGES}.unpacking"} & {file.name for file in folder.iterdir()}


def test_what_was_tried_is_told_on_one_line(
    mirror: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path))
    write_digits(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / IMAGES).unlink()
    mirror.files.clear()
    with pytest.raises(DataError) as caught:
        find_mnist()
    message = str(caught.value)
    assert "\n" not in message
    raw = Path("MNIST") / "raw"
    for part in (f"{tmp_path / raw} lacks {IMAGES};", str(tmp_path / "cache" / raw), "404", "MIRRORS"):
        assert part in message
    asked = len(mirror.served)
    with pytest.raises(DataError, match="downloading is off"):
        find_mnist(download=False)
    assert len(mirror.served) == asked


@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_at_hand_comes_first(
    packed: bool, mirror: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_digits(tmp_path / "data" / "MNIST" / "raw", packed=packed)
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "data"))
    assert find_mnist() == MNIST(folder)
    assert mirror.served == []


def test_importing_is_light() -> None:
    code = "import lookalike.encoder.datasets.mnist, sys; print(*sys.modules)"
    root = Path(__file__).parents[3]
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True
    )
    assert not {"torch", "requests", "skimage", "tqdm", "PIL"} & set(loaded.stdout.split())


@pytest.mark.mnist
def test_the_real_digits(mnist: MNIST) -> None:
    # MD5 of the files as published.
    digests = {"train": ("6bbc9ace", "a25bea73"), "test": ("2646ac64", "27ae3e4e")}
    for split, count in (("train", 60_000), ("test", 10_000)):
        assert split in SPLITS
        images, labels = mnist.images(split), mnist.labels(split)
        assert (images.shape, labels.shape) == ((count, 28, 28), (count,))
        found = [hashlib.md5(idx(a), usedforsecurity=False).hexdigest()[:8] for a in (images, labels)]
        assert tuple(found) == digests[split]
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.labels("test")).tolist() == counts
