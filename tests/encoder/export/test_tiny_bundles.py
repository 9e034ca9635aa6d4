"""The committed tiny bundles are what their program makes: most tests stand on them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.runtime import Model
from tests.fixtures.tiny_models import COMMITTED, pictures, train_bundle


@pytest.mark.trains
@pytest.mark.parametrize("seed", COMMITTED)
def test_committed_bundle_is_what_its_program_makes(tmp_path: Path, seed: int) -> None:
    committed, again = Bundle.open(COMMITTED[seed]), train_bundle(tmp_path / "again", seed=seed)
    # Bytes, and with them ids and rounding errors, may differ between processors and versions of torch.
    assert again.graphs == committed.graphs
    assert dataclasses.replace(again.spec, figures={}) == dataclasses.replace(committed.spec, figures={})
    assert list(again.golden) == list(committed.golden)
    for name, kept in committed.golden.items():
        np.testing.assert_allclose(again.golden[name], kept, rtol=1e-3, atol=1e-3, err_msg=f"golden.{name}")
    for part in ("statistics", "affine"):
        for name in getattr(committed, part).__slots__:
            made, kept = (getattr(getattr(bundle, part), name) for bundle in (again, committed))
            np.testing.assert_allclose(made, kept, rtol=1e-3, atol=1e-3, err_msg=f"{part}.{name}")
    models = [Model(bundle) for bundle in (again, committed)]
    images = pictures(16, seed=100)
    latents = [model.encode(images) for model in models]
    np.testing.assert_allclose(latents[0], latents[1], rtol=0, atol=2e-3 * float(latents[1].std()))
    drawn = [model.decode(latents[1]).astype(int) for model in models]
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
