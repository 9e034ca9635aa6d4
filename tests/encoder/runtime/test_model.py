"""The model that answers: the same numbers however it is asked, and refusals that say why."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import BundleCorruptError, InvalidArgumentError, ProviderError
from lookalike.encoder.runtime import Model
from tests.fixtures.tiny_models import CHANNELS, LATENT, SIZE, forge, negated, pictures, save_again

SHAPE = (SIZE, SIZE, CHANNELS)
PIXELS = arrays(np.uint8, st.tuples(st.integers(1, 4)).map(lambda rows: (*rows, *SHAPE)))


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.open(tiny_model)


def test_shapes_and_dtypes(model: Model) -> None:
    pixels = pictures(3)
    latents, embeddings = model.encode(pixels), model.embed(pixels)
    images = model.decode(latents)
    assert latents.shape == (3, LATENT)
    assert embeddings.shape == (3, model.bundle.spec.embedding)
    assert images.shape == model.reconstruct(pixels).shape == (3, *SHAPE)
    assert latents.dtype == embeddings.dtype == images.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_reconstruction_resembles_the_picture(model: Model) -> None:
    pixels = pictures(64)
    apart = np.abs(model.reconstruct(pixels) - pixels / 255).mean()
    unlike = np.abs(model.reconstruct(pixels[::-1]) - pixels / 255).mean()
    assert apart < 0.8 * unlike


def test_model_id_and_provider(model: Model, tiny_model: Path) -> None:
    assert model.model_id == Bundle.open(tiny_model).model_id
    assert model.provider in onnxruntime.get_available_providers()
    assert Model.open(tiny_model, provider="cpu", threads=1).provider == "CPUExecutionProvider"


def test_no_pictures_give_no_rows(model: Model) -> None:
    pixels = np.empty((0, *SHAPE), np.uint8)
    assert model.encode(pixels).shape == (0, LATENT)
    assert model.embed(pixels).shape == (0, model.bundle.spec.embedding)
    assert model.decode(np.empty((0, LATENT), np.float32)).shape == (0, *SHAPE)
    assert model.reconstruct(pixels).shape == (0, *SHAPE)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, *SHAPE), np.float32),
        np.zeros((1, *SHAPE), np.int8),
        np.zeros(SHAPE, np.uint8),
        np.zeros((1, SIZE, SIZE, 1), np.uint8),
        np.zeros((1, SIZE, SIZE), np.uint8),
        np.zeros((1, CHANNELS, SIZE, SIZE), np.uint8),
        np.zeros((1, SIZE + 1, SIZE, CHANNELS), np.uint8),
        np.zeros((1, 1, *SHAPE), np.uint8),
        np.zeros(0, np.uint8),
        np.uint8(0),
    ],
    ids=lambda pixels: f"{pixels.dtype} {pixels.shape}",
)
def test_other_pixels_are_refused(model: Model, pixels: NDArray[np.uint8]) -> None:
    got = re.escape(f"got {pixels.dtype} {pixels.shape}")
    for ask in (model.encode, model.embed, model.reconstruct):
        with pytest.raises(InvalidArgumentError, match=rf"model tiny takes uint8 \(N, 16, 16, 3\), {got}"):
            ask(pixels)


@pytest.mark.parametrize(
    "latents",
    [
        np.zeros((1, LATENT + 1), np.float32),
        np.zeros(LATENT, np.float32),
        np.zeros((1, 1, LATENT), np.float32),
        np.zeros((1, LATENT), np.int64),
        np.zeros((1, LATENT), np.complex64),
        np.zeros((1, LATENT), object),
    ],
    ids=lambda latents: f"{latents.dtype} {latents.shape}",
)
def test_other_latents_are_refused(model: Model, latents: NDArray[Any]) -> None:
    got = re.escape(f"got {latents.dtype} {latents.shape}")
    with pytest.raises(InvalidArgumentError, match=rf"takes latents float32 \(N, 4\), {got}"):
        model.decode(latents)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_latents_that_are_not_finite_are_refused(model: Model, value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="latents must be finite"):
        model.decode(np.full((2, LATENT), value))


@settings(max_examples=40, deadline=None)
@given(pixels=PIXELS)
def test_one_by_one_is_as_together(model: Model, pixels: NDArray[np.uint8]) -> None:
    for ask in (model.encode, model.embed, model.reconstruct):
        alone = np.concatenate([ask(pixels[row : row + 1]) for row in range(len(pixels))])
        np.testing.assert_allclose(alone, ask(pixels), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(pixels=PIXELS)
def test_mirror_image_has_the_same_embedding(model: Model, pixels: NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(model.embed(pixels[:, :, ::-1]), model.embed(pixels), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(latents=arrays(np.float32, (3, LATENT), elements=st.floats(-1e6, 1e6, width=32)))
def test_decoded_images_lie_between_black_and_white(model: Model, latents: NDArray[np.float32]) -> None:
    images = model.decode(latents)
    assert images.min() >= 0
    assert images.max() <= 1


def test_embedding_averages_the_latents_of_both_sides(model: Model) -> None:
    pixels = pictures(5)
    both = (model.encode(pixels) + model.encode(np.ascontiguousarray(pixels[:, :, ::-1]))) / np.float32(2)
    np.testing.assert_allclose(model.embed(pixels), model.bundle.affine(both), atol=1e-6)


def test_latents_and_their_mean_come_from_one_run(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (5, *model.bundle.spec.image.shape), np.uint8)
    expected = model.encode(pixels), model.mean_latents(pixels)
    runs: list[int] = []
    encode = model.encode

    def counted(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        runs.append(len(rows))
        return encode(rows)

    monkeypatch.setattr(model, "encode", counted)
    latents, means = model.encode_with_mean(pixels)
    many = np.concatenate([pixels] * 2)
    np.testing.assert_allclose(model.encode_with_mean(many)[1][5:], means, atol=1e-5)
    assert runs == [10, 10, 10]  # few with their mirror images, many one after the other
    np.testing.assert_allclose(latents, expected[0], atol=1e-5)
    np.testing.assert_allclose(means, expected[1], atol=1e-5)
    assert model.why_unlike(pixels, latents=latents) == model.why_unlike(pixels)


def test_without_mirror_the_embedding_is_that_of_the_latent(model: Model, tmp_path: Path) -> None:
    bundle = save_again(model.bundle, tmp_path / "one-sided", spec=replace(model.bundle.spec, mirror=False))
    pixels = pictures(5)
    np.testing.assert_array_equal(Model(bundle).embed(pixels), bundle.affine(model.encode(pixels)))


def test_more_rows_than_one_internal_batch_keep_their_order(model: Model) -> None:
    pixels = pictures(600)
    some = [0, 255, 256, 511, 512, 599]
    for ask in (model.encode, model.embed, model.reconstruct):
        np.testing.assert_allclose(ask(pixels)[some], ask(pixels[some]), atol=1e-5)


@pytest.mark.parametrize(
    "view",
    [
        lambda rows: rows[::-1],
        lambda rows: rows[::2],
        np.asfortranarray,
        lambda rows: np.broadcast_to(rows[:1], rows.shape),
    ],
    ids=["reversed", "every second", "columns first", "broadcast"],
)
def test_arrays_may_lie_in_memory_as_they_like(
    model: Model, view: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    pixels = pictures(4)
    latents = model.encode(pixels)
    for ask, rows in ((model.encode, pixels), (model.embed, pixels), (model.decode, latents)):
        seen = view(rows)
        kept = seen.copy()
        np.testing.assert_array_equal(ask(seen), ask(np.ascontiguousarray(kept)))
        np.testing.assert_array_equal(seen, kept)


def test_read_only_pixels_are_taken(model: Model) -> None:
    pixels = pictures(2)
    pixels.flags.writeable = False
    model.embed(pixels)


def test_double_precision_latents_are_taken(model: Model) -> None:
    # float32 latents times a numpy number are float64
    latents: Any = model.encode(pictures(2)) * np.float64(1)
    assert latents.dtype == np.float64
    np.testing.assert_array_equal(model.decode(latents), model.reconstruct(pictures(2)))


def test_threads_at_once_get_the_same_answers(tiny_model: Path) -> None:
    model, pixels = Model.open(tiny_model), pictures(40)
    expected = Model.open(tiny_model).embed(pixels)
    with ThreadPoolExecutor(8) as pool:  # the graph is loaded by one of them
        for found in pool.map(lambda _: model.embed(pixels), range(40)):
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cuda_is_never_silently_the_cpu(tiny_model: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    model = Model.open(tiny_model, provider="cuda")
    with pytest.raises(
        ProviderError, match=r"provider cuda is not available, this onnxruntime has .*CPUExecutionProvider"
    ):
        model.embed(pictures(1))
    with pytest.raises(ProviderError):
        model.check()


@pytest.mark.parametrize("provider", ["gpu", "", "CPU", "CUDAExecutionProvider"])
def test_unknown_provider_is_refused(tiny_model: Path, provider: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="provider must be auto, cpu or cuda"):
        Model.open(tiny_model, provider=provider)


@pytest.mark.parametrize("threads", [0, -1, 1 << 40])
def test_impossible_numbers_of_threads_are_refused(tiny_model: Path, threads: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"threads must be 1 to 1024, not {threads}"):
        Model.open(tiny_model, threads=threads)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "cannot load encoder"), (b"no graph", "cannot load encoder"), (None, "encoder.onnx does not run")],
    ids=["empty", "text", "the decoder's"],
)
def test_graphs_that_are_none_are_refused(
    copy: Path, data: bytes | None, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    forge(copy, files={"encoder.onnx": (copy / "decoder.onnx").read_bytes() if data is None else data})
    with pytest.raises(BundleCorruptError, match=reason) as caught:
        Model.open(copy).encode(pictures(1))
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_model_without_a_decoder_encodes_and_says_that_it_cannot_decode(model: Model, tmp_path: Path) -> None:
    graphs = {"encoder": model.bundle.graph("encoder")}
    half = Model(save_again(model.bundle, tmp_path / "half", graphs=graphs))
    half.check()
    latents = half.encode(pictures(2))
    with pytest.raises(
        InvalidArgumentError, match=r"half has no decoder; it has encoder; it can search, not generate"
    ):
        half.decode(latents)


def test_replaced_bundle_does_not_change_an_open_model(copy: Path) -> None:
    model = Model.open(copy)
    before = model.embed(pictures(3))
    bundle = model.bundle
    save_again(bundle, copy, graphs={"encoder": negated(bundle.graph("encoder")), "decoder": b"other"})
    np.testing.assert_array_equal(model.embed(pictures(3)), before)
    with pytest.raises(BundleCorruptError, match="has changed since it was opened"):
        model.decode(bundle.golden["latents"])


def test_nothing_that_answers_brings_torch(tiny_model: Path) -> None:
    code = f"""
import sys
import numpy as np
from lookalike.encoder.runtime.model import Model
model = Model.open({str(tiny_model)!r})
pixels = np.zeros((2, *model.bundle.spec.image.shape), np.uint8)
model.embed(pixels), model.reconstruct(pixels), model.check()
print(*sorted({{"torch", "torchvision", "onnx", "onnxscript", "trainer"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_onnxruntime_keeps_no_device_id_and_no_diary(tiny_model: Path, tmp_path: Path) -> None:
    code = f"from lookalike.encoder.runtime.model import Model; Model.open({str(tiny_model)!r}).check()"
    ours = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, env=environment | {"HOME": str(tmp_path)}, cwd=root)
    assert not list(tmp_path.iterdir())
