"""Statistics of latents and the map to embeddings, against values worked out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.bundle import AffineMap, LatentStatistics
from lookalike.encoder.errors import InvalidArgumentError

RNG = np.random.default_rng(0)


def test_statistics_of_three_latents_worked_by_hand() -> None:
    # Mean (2, 1); deviations (-1, -1), (0, 0), (1, 1); divided by N - 1 = 2.
    found = LatentStatistics.from_latents(np.array([[1, 0], [2, 1], [3, 2]], np.float32))
    np.testing.assert_array_equal(found.mean, np.array([2, 1], np.float32))
    np.testing.assert_array_equal(found.covariance, np.ones((2, 2), np.float32))
    assert found.mean.dtype == found.covariance.dtype == np.float32


def test_statistics_of_latents_of_size_one() -> None:
    found = LatentStatistics.from_latents(np.array([[1], [3]], np.float32))
    np.testing.assert_array_equal(found.mean, [2])
    np.testing.assert_array_equal(found.covariance, [[2]])


@pytest.mark.parametrize(
    "latents", [np.zeros((1, 2)), np.zeros((0, 2)), np.zeros(2), np.array([[0.0], [np.nan]])]
)
def test_statistics_need_two_finite_latents(
    latents: NDArray[np.float64],
) -> None:
    with pytest.raises(InvalidArgumentError, match="two or more finite latents"):
        LatentStatistics.from_latents(latents.astype(np.float32))


def test_whitening_worked_by_hand() -> None:
    # [[5, 3], [3, 5]] has the axes (1, 1)/sqrt 2 of variance 8 and (1, -1)/sqrt 2 of variance 2,
    # so M = diag(8, 2)^-1/2 U^T has the rows (1, 1)/4 and (1, -1)/2, each up to its sign.
    statistics = LatentStatistics(np.array([1, 2], np.float32), np.array([[5, 3], [3, 5]], np.float32))
    affine = AffineMap.whitening(statistics)
    np.testing.assert_allclose(
        affine.matrix * np.sign(affine.matrix[:, :1]), [[0.25, 0.25], [0.5, -0.5]], atol=1e-7
    )
    np.testing.assert_array_equal(affine.offset, statistics.mean)
    # (3, 4) - (1, 2) = (2, 2) lies on the first axis: (+-1, 0), of unit length already.
    np.testing.assert_allclose(np.abs(affine(np.array([[3, 4]], np.float32))), [[1, 0]], atol=1e-6)


def test_whitened_latents_have_identity_covariance_before_unit_length() -> None:
    mixing = RNG.normal(size=(6, 6))
    latents = (RNG.normal(size=(500, 6)) @ mixing + 3).astype(np.float32)
    affine = AffineMap.whitening(LatentStatistics.from_latents(latents))
    mapped = (latents - affine.offset).astype(np.float64) @ affine.matrix.T
    np.testing.assert_allclose(np.cov(mapped, rowvar=False), np.eye(6), atol=1e-4)


def test_degenerate_axes_are_dropped() -> None:
    latents = RNG.normal(size=(100, 3)).astype(np.float32)
    latents = np.concatenate([latents, latents[:, :1], np.zeros((100, 1), np.float32)], axis=1)
    affine = AffineMap.whitening(LatentStatistics.from_latents(latents))
    assert affine.matrix.shape == (3, 5)
    assert np.isfinite(affine.matrix).all()


def test_keep_takes_the_axes_of_largest_variance() -> None:
    statistics = LatentStatistics(np.zeros(3, np.float32), np.diag([1, 16, 4]).astype(np.float32))
    affine = AffineMap.whitening(statistics, keep=2)
    np.testing.assert_allclose(np.abs(affine.matrix), [[0, 0.25, 0], [0, 0, 0.5]], atol=1e-7)
    assert AffineMap.whitening(statistics, keep=9).matrix.shape == (3, 3)
    for keep in (0, -1):
        with pytest.raises(InvalidArgumentError, match="1 axis or more"):
            AffineMap.whitening(statistics, keep=keep)


def test_latents_that_are_all_alike_cannot_be_whitened() -> None:
    with pytest.raises(InvalidArgumentError, match="latents that vary"):
        AffineMap.whitening(LatentStatistics.from_latents(np.ones((5, 2), np.float32)))


def test_embeddings_have_unit_length_and_the_offset_stays_zero() -> None:
    affine = AffineMap(RNG.normal(size=(3, 5)).astype(np.float32), RNG.normal(size=5).astype(np.float32))
    latents = np.concatenate([RNG.normal(size=(9, 5)).astype(np.float32) * 1e3, affine.offset[None]])
    embeddings = affine(latents)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (10, 3)
    np.testing.assert_allclose(np.linalg.norm(embeddings[:9], axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(embeddings[9], 0)
    assert affine(latents[:0]).shape == (0, 3)


def test_cosines_do_not_depend_on_the_basis_of_the_latents() -> None:
    # Cosine between whitened latents does not depend on the basis that the latents came in.
    latents = (RNG.normal(size=(200, 4)) * [1, 2, 3, 4]).astype(np.float32)
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0].astype(np.float32)
    cosines = [
        (found := AffineMap.whitening(LatentStatistics.from_latents(basis))(basis)) @ found.T
        for basis in (latents, latents @ turn)
    ]
    np.testing.assert_allclose(cosines[0], cosines[1], atol=1e-4)
