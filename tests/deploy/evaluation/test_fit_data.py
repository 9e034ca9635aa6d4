"""What a calibration is fitted to: embeddings of labeled people, and the errors of reconstructing them."""

from pathlib import Path

import numpy as np
import pytest

from lookalike.deploy.evaluation import find_people, measure_people
from lookalike.encoder.runtime import Model
from tests.fixtures.people import write_people


@pytest.mark.parametrize("reconstruct", [True, False])
def test_images_are_reconstructed_only_where_it_is_asked_for(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reconstruct: bool
) -> None:
    write_people(tmp_path / "people", people=3, each=2)
    model = Model.open(tiny_model, threads=1)
    decoded: list[int] = []
    decode = model.decode

    def counted(latents: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
        decoded.append(len(latents))
        return decode(latents)

    monkeypatch.setattr(model, "decode", counted)
    measured = measure_people(model, find_people(str(tmp_path / "people"), model), reconstruct=reconstruct)
    assert measured.embeddings.shape == (6, model.bundle.spec.embedding)
    assert (sum(decoded), measured.errors is not None) == ((6, True) if reconstruct else (0, False))
    assert (measured.off_axis is not None) == reconstruct
