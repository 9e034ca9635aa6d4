"""The committed tiny bundles are what their program makes: most tests stand on them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.runtime import Model
from tests.fixtures.tiny_models import COMMITTED, pictures, train_bundle


@pytest.mark.trains
@pytest.mark.parametrize(
    "seed", [min(COMMITTED), *(pytest.param(seed, marks=pytest.mark.slow) for seed in sorted(COMMITTED)[1:])]
)
def test_committed_bundle_is_what_its_program_makes(tmp_path: Path, seed: int) -> None:
    committed, again = Bundle.open(COMMITTED[seed]), train_bundle(tmp_path / "again", seed=seed)
    # The latent space may be turned: components of nearly equal variance differ between processors.
    # What follows does not depend on that, nor do the tests that stand on these bundles.
    assert again.graphs == committed.graphs
    assert dataclasses.replace(again.spec, figures={}) == dataclasses.replace(committed.spec, figures={})
    shapes = [{name: (a.shape, a.dtype) for name, a in each.golden.items()} for each in (again, committed)]
    assert shapes[0] == shapes[1]
    variances = [np.linalg.eigvalsh(bundle.statistics.covariance) for bundle in (again, committed)]
    np.testing.assert_allclose(variances[0], variances[1], rtol=1e-3)
    models, images = [Model(bundle) for bundle in (again, committed)], pictures(16, seed=100)
    cosines = [each @ each.T for each in (model.embed(images) for model in models)]
    np.testing.assert_allclose(cosines[0], cosines[1], rtol=0, atol=5e-3)
    drawn = [model.reconstruct(images) * 255 for model in models]
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
