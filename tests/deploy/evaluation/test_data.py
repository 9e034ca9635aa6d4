"""What cleaning is measured on: held-out people, test digits, photographs; the same noise for everybody."""

import numpy as np
import pytest

from lookalike.deploy.evaluation import open_test_set
from lookalike.deploy.evaluation.data import PHOTOGRAPHS, DenoisingTestSet
from lookalike.encoder.datasets import LFW, MNIST
from lookalike.encoder.errors import InvalidArgumentError


def test_photographs_are_the_middle_of_scikit_images() -> None:
    found = open_test_set("photographs")
    assert found.titles == PHOTOGRAPHS
    channels = {name: picture.shape[2] for name, picture in zip(found.titles, found.clean, strict=True)}
    assert {name for name, count in channels.items() if count == 1} == {"camera", "coins"}
    for picture in found.clean:
        assert picture.shape[:2] == (256, 256)
        assert picture.dtype == np.float32
        assert 0 <= picture.min() < picture.max() <= 1
        assert picture.std() > 0.05


def test_noise_hangs_on_seed_sigma_and_place_alone() -> None:
    few, more = open_test_set("photographs", 2), open_test_set("photographs", 3)
    noisy = more.noisy(0.1)
    for one, other in zip(few.noisy(0.1), noisy, strict=False):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(noisy[0], more.noisy(0.1, seed=1)[0])
    assert not np.array_equal(noisy[0] - more.clean[0], more.noisy(0.2)[0] - more.clean[0])
    apart = noisy[2] - more.clean[2]
    assert apart.std() == pytest.approx(0.1, rel=0.1)  # less where it is clipped
    assert min(picture.min() for picture in noisy) >= 0
    assert max(picture.max() for picture in noisy) <= 1


def test_the_first_are_a_part_of_all() -> None:
    grey = np.zeros((2, 2, 1), np.float32)
    pictures = DenoisingTestSet("mnist", ("a", "b", "c"), (grey, grey + 1, grey))
    assert len(pictures) == len(pictures.first(None)) == 3
    assert pictures.first(2).titles == ("a", "b")
    assert pictures.first(2).clean[1].max() == 1


def test_a_set_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'cats' is not one"):
        open_test_set("cats")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.lfw
def test_faces_are_of_held_out_people_one_each(lfw: LFW) -> None:
    small, whole = open_test_set("lfw-64", 12), open_test_set("lfw-250", 5)
    people = [name.removesuffix("_0001") for name in small.titles]
    assert len(set(people)) == 12
    assert set(people) <= lfw.held_out_people()
    assert whole.titles == small.titles[:5]  # nested, also over sizes
    assert {picture.shape for picture in small.clean} == {(64, 64, 3)}
    assert {picture.shape for picture in whole.clean} == {(250, 250, 3)}
    assert open_test_set("lfw-64", 3).titles == small.titles[:3]
    tight = whole.clean[0][80:170, 80:170]  # 80 of 250 pixels off each side
    assert small.clean[0].mean() == pytest.approx(tight.mean(), abs=0.01)


@pytest.mark.mnist
def test_digits_are_the_first_of_the_test_set(mnist: MNIST) -> None:
    found = open_test_set("mnist", 20)
    images = mnist.images("test")
    assert len(found) == 20
    np.testing.assert_allclose(found.clean[19][:, :, 0] * 255, images[19], atol=1e-4)
    apart = np.array(found.noisy(0.5)) - np.array(found.clean)
    assert 9 < -10 * np.log10(np.square(apart).mean()) < 10  # half of it is clipped
