"""``sampling.npz``: what is saved opens equal, old bundles open without, damage is a BundleError by name."""

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.encoder.bundle import Bundle, Calibration, GaussianMixture, LatentPrior
from lookalike.encoder.errors import BundleCorruptError, BundleError, InvalidArgumentError
from tests.encoder.bundle.test_damage import opened_or_refused
from tests.fixtures.tiny_models import FILES, LATENT, arrays_of, assert_same, forge, npz, save_again

FILE = "sampling.npz"


def mixture(components: int, size: int = LATENT, seed: int = 0) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((components, size, size))
    weights = rng.random(components)
    return GaussianMixture.from_arrays(
        weights / weights.sum(), rng.standard_normal((components, size)), roots @ roots.swapaxes(1, 2)
    )


@pytest.fixture
def rich(tiny: Bundle, tmp_path: Path) -> Bundle:
    """A bundle with two classes, a Gaussian for each, and a mixture of three."""
    sampling = LatentPrior(mixture=mixture(3), by_class=mixture(2))
    spec = replace(tiny.spec, classes=("cats", "dogs"), labels="class")
    return save_again(tiny, tmp_path / "faces", sampling=sampling, spec=spec)


def assert_equal(one: LatentPrior | None, other: LatentPrior | None) -> None:
    assert one is not None
    assert other is not None
    for name in ("mixture", "by_class"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        for part in GaussianMixture.__slots__ if ours is not None else ():
            np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))


def test_what_is_saved_opens_equal(rich: Bundle, tmp_path: Path) -> None:
    assert_equal(rich.sampling, LatentPrior(mixture=mixture(3), by_class=mixture(2)))
    assert {path.name for path in rich.folder.iterdir()} == {*FILES, FILE}
    again = save_again(Bundle.open(rich.folder), tmp_path / "again")
    assert_equal(again.sampling, rich.sampling)
    assert_same(again, rich)
    # Also over itself: it is known for a part of a bundle.
    assert save_again(rich, rich.folder).model_id == rich.model_id


@pytest.mark.parametrize(
    "sampling", [LatentPrior(), LatentPrior(mixture=mixture(1)), LatentPrior(mixture=mixture(1, 2))]
)
def test_parts_may_be_missing_and_shorter_than_the_latent(
    tiny: Bundle, tmp_path: Path, sampling: LatentPrior
) -> None:
    assert_equal(save_again(tiny, tmp_path / "x", sampling=sampling).sampling, sampling)


def test_it_is_part_of_the_model_id(rich: Bundle, tiny: Bundle, tmp_path: Path) -> None:
    without = save_again(rich, tmp_path / "without", sampling=None)
    plain = save_again(without, tmp_path / "plain", spec=replace(rich.spec, labels="none"))
    other = save_again(rich, tmp_path / "other", sampling=LatentPrior(mixture=mixture(3, seed=1)))
    assert len({bundle.model_id for bundle in (rich, without, plain, other)}) == 4
    assert (tiny.sampling, without.sampling) == (None, None)


def test_calibrating_keeps_it(rich: Bundle, tmp_path: Path) -> None:
    calibration = Calibration()
    assert_equal(rich.recalibrated(calibration, tmp_path / "again").sampling, rich.sampling)


@pytest.mark.parametrize(
    ("sampling", "reason"),
    [
        (LatentPrior(mixture=mixture(1, LATENT + 1)), "mixture of a model that samples 4 dimensions has 5"),
        (LatentPrior(by_class=mixture(2, LATENT + 1)), "by_class of a model that samples 4 dimensions has 5"),
        (LatentPrior(by_class=mixture(3)), "by_class of a model of 2 classes has 3 components"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    rich: Bundle, tmp_path: Path, sampling: LatentPrior, reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        save_again(rich, tmp_path / "x", sampling=sampling)
    assert not (tmp_path / "x").exists()
    forge(rich.folder, files={FILE: sampling.to_npz()})
    with pytest.raises(BundleCorruptError, match=f"is damaged: {reason}"):
        Bundle.open(rich.folder)


def test_class_weights_of_a_cvae_are_not_drawn(rich: Bundle, tmp_path: Path) -> None:
    cvae = replace(rich.spec, kind="cvae")
    assert (cvae.prior_dim, rich.spec.prior_dim) == (LATENT - 2, LATENT)
    with pytest.raises(InvalidArgumentError, match="mixture of a model that samples 2 dimensions has 4"):
        save_again(rich, tmp_path / "x", spec=cvae)
    fitting = LatentPrior(mixture=mixture(3, 2), by_class=mixture(2, 2))
    assert_equal(save_again(rich, tmp_path / "x", spec=cvae, sampling=fitting).sampling, fitting)


@pytest.mark.parametrize("classes", [["a", "a"], [""], [" "], ["a", 1], "ab", None])
def test_classes_are_names_each_once(rich: Bundle, classes: object) -> None:
    forge(rich.folder, change=lambda content: content["model"].update(classes=classes))
    with pytest.raises(BundleCorruptError, match="invalid classes of a model"):
        Bundle.open(rich.folder)


@pytest.mark.parametrize("classes", [[], ["1", "2", "3", "4"]])
def test_a_cvae_has_classes_and_numbers_besides(rich: Bundle, classes: list[str]) -> None:
    forge(rich.folder, change=lambda content: content["model"].update(classes=classes, kind="cvae"))
    with pytest.raises(
        BundleCorruptError, match=f"a latent longer than their number, got {len(classes)} and 4"
    ):
        Bundle.open(rich.folder)


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "longer", "folder"])
def test_a_spoilt_file_is_refused_by_name(rich: Bundle, damage: str) -> None:
    file = rich.folder / FILE
    data = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "missing":
        file.write_bytes({"empty": b"", "half": data[: len(data) // 2], "longer": data + b"x"}[damage])
    with pytest.raises(BundleError, match=r"sampling\.npz"):
        Bundle.open(rich.folder)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("mixture_weights", np.full(3, 0.5, np.float32), "sum to 1"),
        ("mixture_weights", np.ones(3), "must be float32"),
        ("mixture_weights", np.array(["a"] * 3), "must be float32"),
        ("mixture_means", np.full((3, 4), np.nan, np.float32), "must be finite"),
        ("mixture_means", np.zeros((2, 4), np.float32), "triangles of a mixture must be float32"),
        ("mixture_means", np.float32(3), "triangles of a mixture must be float32"),
        ("mixture_means", np.zeros((0, 0), np.float32), "triangles of a mixture must be float32"),
        ("mixture_triangles", np.full((3, 10), -1, np.float32), "variances of a mixture must be 0 or more"),
        ("mixture_triangles", np.full((3, 10), np.inf, np.float32), "must be finite"),
        ("mixture_triangles", np.zeros((3, 4, 4), np.float32), "triangles of a mixture must be float32"),
        ("by_class_triangles", np.zeros((2, 10), ">f4"), "triangles of a mixture must be float32"),
        ("colour", np.zeros(3, np.float32), "holds 'colour', which does not belong there"),
    ],
)
def test_arrays_that_are_no_mixture_are_refused(rich: Bundle, name: str, value: Any, reason: str) -> None:
    forge(rich.folder, files={FILE: npz(**(arrays_of(rich.folder, FILE) | {name: np.asarray(value)}))})
    with pytest.raises(BundleCorruptError, match=f"faces is damaged: .*{reason}"):
        Bundle.open(rich.folder)


@pytest.mark.parametrize("name", ["mixture_weights", "by_class_triangles"])
def test_a_mixture_is_there_whole_or_not_at_all(rich: Bundle, name: str) -> None:
    arrays = arrays_of(rich.folder, FILE)
    del arrays[name]
    forge(rich.folder, files={FILE: npz(**arrays)})
    with pytest.raises(BundleCorruptError, match=r"sampling\.npz does not hold the arrays"):
        Bundle.open(rich.folder)


def bomb() -> bytes:
    """A few kilobytes that unpack to half a gigabyte."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("mixture_means.npy", "w") as file,
    ):
        for _ in range(512):
            file.write(bytes(1 << 20))
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"text", pickle.dumps([1])], ids=repr)
def test_files_that_hold_no_arrays_are_refused(rich: Bundle, data: bytes) -> None:
    forge(rich.folder, files={FILE: data})
    with pytest.raises(BundleCorruptError, match=r"sampling\.npz does not hold the arrays of mixtures"):
        Bundle.open(rich.folder)


def test_what_unpacks_to_too_much_is_not_unpacked(rich: Bundle) -> None:
    forge(rich.folder, files={FILE: bomb()})
    with pytest.raises(BundleCorruptError, match=r"sampling\.npz unpacks to 536,870,912 bytes, the limit"):
        Bundle.open(rich.folder)


def test_pickles_are_refused(rich: Bundle) -> None:
    arrays = arrays_of(rich.folder, FILE) | {"mixture_means": np.array([{"a": 1}], dtype=object)}
    forge(rich.folder, files={FILE: npz(**arrays)})
    with pytest.raises(BundleCorruptError, match=r"sampling\.npz does not hold the arrays"):
        Bundle.open(rich.folder)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_that_no_digest_shows_gives_only_our_errors(
    tmp_path_factory: pytest.TempPathFactory, tiny: Bundle, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage") / "faces"
    save_again(tiny, folder, sampling=LatentPrior(mixture=mixture(2)))
    content = bytearray((folder / FILE).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    forge(folder, files={FILE: bytes(content)})
    opened_or_refused(folder)
