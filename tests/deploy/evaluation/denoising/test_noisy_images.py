"""What denoisers are measured on: sets of clean images, and noise that is the same for all methods."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.deploy.evaluation import InputNoise, open_test_set, open_test_sets
from lookalike.deploy.evaluation.denoising import DenoisingTestSet
from lookalike.deploy.evaluation.denoising.noisy_images import PHOTOGRAPHS
from lookalike.encoder.datasets import LFW, MNIST
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.metrics import psnr

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
WHITE = InputNoise("white", 0.1)


def scene(seed: int, *, size: tuple[int, int] = (96, 120), channels: int = 3) -> Pixels:
    """Blotches of 12 pixels of any brightness, black and white too."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[0] // 12, size[1] // 12, channels), dtype=np.uint8)
    coarse[0, 0], coarse[-1, -1] = 0, 255
    return coarse.repeat(12, axis=0).repeat(12, axis=1)


def test_photographs_of_scikit_image_are_their_middle() -> None:
    found = open_test_set("skimage")
    assert found.titles == PHOTOGRAPHS
    channels = {name: pixels.shape[2] for name, pixels in zip(found.titles, found.clean, strict=True)}
    assert {name for name, count in channels.items() if count == 1} == {"camera", "coins"}
    for pixels in found.clean:
        assert pixels.shape[:2] == (256, 256)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 12


@pytest.mark.parametrize("noise", [WHITE, InputNoise("camera", 80)])
def test_noise_depends_on_seed_level_and_index_alone(noise: InputNoise) -> None:
    images = DenoisingTestSet("photographs", ("a", "b"), (scene(0), scene(0)))
    once = images.noisy(noise)
    assert once.noise is noise
    (alone,) = images.first(1).noisy(noise).noisy
    np.testing.assert_array_equal(alone, once.noisy[0])
    for one, other in zip(once.noisy, images.noisy(noise).noisy, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(once.noisy[0], once.noisy[1])  # the same image at another index
    assert not np.array_equal(once.noisy[0], images.noisy(noise, seed=1).noisy[0])
    assert {(pixels.dtype, pixels.shape) for pixels in (*once.noisy, *once.clean)} == {
        (np.dtype(np.uint8), (96, 120, 3))
    }


@pytest.mark.parametrize("sigma", [5, 25, 50])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_noise_is_that_of_a_file(sigma: int, channels: int) -> None:
    gray = np.full((100, 100, channels), 127, np.uint8)
    given = DenoisingTestSet("photographs", ("a",), (gray,)).noisy(InputNoise("white", sigma / 255))
    assert given.clean[0] is gray
    difference = given.noisy[0].astype(float) - gray
    assert difference.std() == pytest.approx(sigma, rel=0.03)
    assert difference.mean() == pytest.approx(0, abs=1.5)
    assert given.noisy[0].shape == gray.shape


def as_in_the_case(picture: Pixels, photons: float, seed: int) -> tuple[Pixels, Pixels]:
    """Photons on a mosaic, the mean of each color's nearest pixels, JPEG 90: with noise, and without."""
    rng = np.random.default_rng(seed)
    height, width, _ = picture.shape
    rows, columns = np.mgrid[:height, :width] % 2
    masks = [(rows == 0) & (columns == 0), rows != columns, (rows == 1) & (columns == 1)]
    raw = sum(picture[..., color] * mask for color, mask in enumerate(masks)).astype(float)

    def developed(light: Floats) -> Floats:
        colors = np.zeros(picture.shape)
        for color, mask in enumerate(masks):
            weight, total = np.zeros((height + 2, width + 2)), np.zeros((height + 2, width + 2))
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    share = (2 - abs(down)) * (2 - abs(right))
                    place = np.s_[1 + down : 1 + down + height, 1 + right : 1 + right + width]
                    weight[place] += share * mask
                    total[place] += share * mask * light
            inside = np.s_[1:-1, 1:-1]
            colors[..., color] = total[inside] / weight[inside]
        return colors

    noisy = developed(rng.poisson(raw / 255 * photons) / photons * 255).clip(0, 255)
    file = io.BytesIO()
    Image.fromarray(noisy.round().astype(np.uint8)).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file)), developed(raw).round().astype(np.uint8)


@pytest.mark.parametrize("photons", [40, 80, 150])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_camera_noise_is_that_of_photons_on_a_mosaic(photons: int, seed: int) -> None:
    picture = scene(seed, size=(240, 240))
    expected, reference = as_in_the_case(picture, photons, seed)
    noisy, clean = InputNoise("camera", photons).add(picture, np.random.default_rng(seed))
    inside = np.s_[2:-2, 2:-2]
    assert np.abs(clean[inside].astype(int) - reference[inside]).max() <= 1
    assert psnr(noisy[inside], clean[inside]) == pytest.approx(
        psnr(expected[inside], reference[inside]), abs=0.25
    )
    errors = [
        given[inside].astype(float) - to[inside] for given, to in ((noisy, clean), (expected, reference))
    ]
    brightness = reference[inside].mean(axis=2)
    for low in range(0, 256, 64):  # the brighter, the noisier; white is not cut before it is averaged
        place = (brightness >= low) & (brightness < low + 64)
        ours, theirs = (error[place].std() for error in errors)
        assert ours == pytest.approx(theirs, rel=0.1), low
    spectra = [np.square(np.diff(error, axis=0)).mean() / np.square(error).mean() for error in errors]
    assert spectra[0] == pytest.approx(spectra[1], rel=0.05)  # correlated as much between neighbors


def test_camera_noise_of_gray_images_is_gray() -> None:
    gray = scene(0, channels=1)
    noisy, clean = InputNoise("camera", 80).add(gray, np.random.default_rng(0))
    assert noisy.shape == clean.shape == gray.shape
    np.testing.assert_array_equal(clean, gray)  # there is no mosaic


def test_real_noise_cannot_be_added() -> None:
    with pytest.raises(InvalidArgumentError, match="real noise comes with its images"):
        DenoisingTestSet("photographs", ("a",), (scene(0),)).noisy(InputNoise("real"))


@pytest.mark.parametrize(
    ("noise", "text", "values"),
    [
        (InputNoise("white", 25 / 255), "sigma 25", ("white", 25, None)),
        (InputNoise("white", 127.5 / 255), "sigma 127.5", ("white", 127.5, None)),
        (InputNoise("camera", 80), "camera noise of 80 photons", ("camera", None, 80)),
        (InputNoise("real"), "real camera noise", ("real", None, None)),
    ],
)
def test_noise_says_what_it_is(noise: InputNoise, text: str, values: tuple[object, ...]) -> None:
    assert str(noise) == text
    assert noise.to_json() == dict(zip(("noise", "sigma", "photons"), values, strict=True))
    assert (noise.sigma is None) == (noise.kind != "white")


def test_noises_are_those_named_or_the_usual_ones() -> None:
    some = scene(0)
    plain, digits, cbsd68 = (
        DenoisingTestSet(name, ("a",), (some,)) for name in ("skimage", "mnist", "cbsd68")
    )
    real = DenoisingTestSet("polyu", ("a",), (some,), (some,))
    assert [str(each) for each in plain.noises()] == ["sigma 25", "sigma 50"]
    assert [str(each) for each in digits.noises()] == ["sigma 127.5"]
    assert [str(each) for each in cbsd68.noises()] == ["sigma 15", "sigma 25", "sigma 50"]
    assert [str(each) for each in plain.noises([10], [40, 80])] == [
        "sigma 10",
        "camera noise of 40 photons",
        "camera noise of 80 photons",
    ]
    assert [str(each) for each in digits.noises((), [40])] == ["camera noise of 40 photons"]
    assert [each.kind for each in real.noises([10], [40])] == ["real"]


def test_the_first_are_a_part_of_all() -> None:
    images = DenoisingTestSet("polyu", ("a", "b", "c"), 3 * (scene(0),), (scene(1), scene(2), scene(3)))
    assert len(images) == len(images.first(None)) == 3
    assert images.first(2).titles == ("a", "b")
    assert len(images.first(2).real) == len(images.first(2)) == 2


def test_a_set_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'cats' is not one"):
        open_test_set("cats")  # type: ignore[arg-type]  # wrong on purpose


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def save(file: Path, pixels: Pixels) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=95)


def test_photographs_are_every_fifth_by_name_and_whole(data: Path) -> None:
    for number in range(12):
        save(data / "photos" / f"{number:02d}.jpg", scene(number, size=(24, 24 + 12 * (number % 3))))
    (data / "photos" / "0.txt").write_text("not an image")
    found = open_test_set("photographs")
    assert found.titles == ("04", "09")
    assert [pixels.shape for pixels in found.clean] == [(24, 36, 3), (24, 24, 3)]
    assert len(open_test_set("photographs", 1)) == 1


def test_gray_photographs_have_one_channel(data: Path) -> None:
    for number in range(5):
        save(data / "photos" / f"{number}.png", scene(0, channels=1).repeat(3, axis=2))
    assert open_test_set("photographs").clean[0].shape == (96, 120, 1)


def test_cbsd68_keeps_three_channels_and_the_order_of_names(data: Path) -> None:
    for name in ("b", "a"):
        save(data / "cbsd68" / f"{name}.jpg", scene(0))
    found = open_test_set("cbsd68")
    assert found.titles == ("a", "b")
    assert not found.real
    assert found.clean[0].shape == (96, 120, 3)


def test_real_noise_comes_in_pairs(data: Path) -> None:
    for number in (10, 2):
        save(data / "polyu" / f"Camera_{number}_real.JPG", scene(number))
        save(data / "polyu" / f"Camera_{number}_mean.JPG", scene(number) // 2)
    (data / "polyu" / "License.txt").write_text("for research")
    found = open_test_set("polyu")
    assert found.titles == ("Camera_10", "Camera_2")
    given = found.noisy(InputNoise("real"))
    assert given.noisy is found.real
    assert given.clean is found.clean
    for noisy, clean in zip(given.noisy, given.clean, strict=True):
        assert noisy.mean() == pytest.approx(2 * clean.mean(), rel=0.05)


def incomplete(folder: Path) -> None:
    save(folder / "polyu" / "a_real.JPG", scene(0))


def unequal(folder: Path) -> None:
    incomplete(folder)
    save(folder / "polyu" / "a_mean.JPG", scene(0, size=(48, 48)))


def unnamed(folder: Path) -> None:
    save(folder / "polyu" / "a.jpg", scene(0))


def too_few(folder: Path) -> None:
    for number in range(4):
        save(folder / "photos" / f"{number}.jpg", scene(0))


@pytest.mark.parametrize(
    ("name", "prepare", "message"),
    [
        ("cbsd68", Path.mkdir, r"cbsd68 needs the 68 color images of CBSD68, 0 images at .*cbsd68; put them"),
        ("polyu", Path.mkdir, r"polyu needs pairs of .*, 0 images at .*polyu; put them into a folder polyu/"),
        (
            "photographs",
            Path.mkdir,
            r"photographs needs 5 photographs or more, 0 images at .*photos; put them",
        ),
        ("photographs", too_few, "4 images at "),
        ("polyu", incomplete, "'a_real' has no _mean; get the files"),
        ("polyu", unequal, r"those of 'a' are \(96, 120, 3\) and \(48, 48, 3\); get them again"),
        ("polyu", unnamed, r"no file ends so at .*; get the files"),
    ],
)
def test_data_that_are_missing_or_wrong_are_one_line_that_helps(
    data: Path, name: str, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(data)
    with pytest.raises(DataError, match=message) as caught:
        open_test_sets([name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cbsd68", "polyu", "photographs"])
def test_without_the_variable_it_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOKALIKE_DATA", raising=False)
    with pytest.raises(DataError, match=r"LOOKALIKE_DATA is not set; put them into a folder .*/ and set"):
        open_test_set(name)  # type: ignore[arg-type]  # a parameter of a test


def test_all_are_those_that_are_found(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        save(data / "photos" / f"{number}.jpg", scene(0))
    module = "lookalike.deploy.evaluation.denoising.noisy_images"

    def missing(**_: object) -> None:
        raise DataError("not found; get it")

    monkeypatch.setattr(f"{module}.find_lfw", missing)
    monkeypatch.setattr(f"{module}.find_mnist", missing)
    found, left_out = open_test_sets(["all"], 2)
    assert [images.name for images in found] == ["photographs", "skimage"]
    assert [line.split(":")[0] for line in left_out] == [
        f"{name} is left out" for name in ("cbsd68", "polyu", "lfw-64", "lfw-250", "mnist")
    ]
    with pytest.raises(DataError):
        open_test_sets(["all", "cbsd68"])
    assert [images.name for images in open_test_sets(["skimage", "skimage"])[0]] == ["skimage"]


@pytest.mark.lfw
def test_faces_are_of_held_out_people_one_each(lfw: LFW) -> None:
    small, whole = open_test_set("lfw-64", 12), open_test_set("lfw-250", 5)
    people = [name.removesuffix("_0001") for name in small.titles]
    assert len(set(people)) == 12
    assert set(people) <= lfw.held_out_people()
    assert whole.titles == small.titles[:5]  # nested, also over sizes
    assert {pixels.shape for pixels in small.clean} == {(64, 64, 3)}
    assert {pixels.shape for pixels in whole.clean} == {(250, 250, 3)}
    assert open_test_set("lfw-64", 3).titles == small.titles[:3]
    tight = whole.clean[0][80:170, 80:170]  # 80 of 250 pixels off each side
    assert small.clean[0].mean() == pytest.approx(tight.mean(), abs=2.5)


@pytest.mark.mnist
def test_digits_are_the_first_of_the_test_set(mnist: MNIST) -> None:
    found = open_test_set("mnist", 20)
    images = mnist.images("test")
    assert len(found) == 20
    np.testing.assert_array_equal(found.clean[19][:, :, 0], images[19])
    given = found.noisy(InputNoise("white", 0.5))
    error = (np.array(given.noisy, np.float64) - np.array(given.clean)) / 255
    assert 9 < -10 * np.log10(np.square(error).mean()) < 10  # half of it is clipped
