"""Torch to ONNX: the same numbers, half the bytes, nothing said, nothing written when they disagree."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lookalike.encoder.bundle import AffineMap, Bundle, BundleSpec, DenoiserSpec, LatentStatistics
from lookalike.encoder.errors import ExportError, InvalidArgumentError
from lookalike.encoder.export.parity import PARITY
from lookalike.encoder.export.torch_export import (
    OPSET,
    Exported,
    export_denoiser,
    export_graphs,
    quantize_weights,
    save_bundle,
)
from lookalike.encoder.images import ImageSpec
from lookalike.encoder.runtime import Denoiser, Model, save_denoiser
from lookalike.trainer.config import AESpec
from lookalike.trainer.models import AE
from tests.fixtures.tiny_models import pictures

SIZE, LATENT = 8, 4
GRAPHS = ("encoder", "decoder")


def network(hidden: int = 64) -> AE:
    """192 values times 64 hidden features: weights large enough to be halved."""
    torch.manual_seed(0)
    return AE(AESpec(size=SIZE, channels=3, latent=LATENT, hidden=(hidden,))).eval()


def export(encoder: nn.Module, decoder: nn.Module) -> Exported:
    return export_graphs(encoder, decoder, size=SIZE, channels=3, latent=LATENT)


def run(graph: bytes, rows: NDArray[np.generic]) -> NDArray[np.float32]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: rows})
    made: NDArray[np.float32] = out
    return made


@pytest.fixture(scope="module")
def rounded() -> AE:
    made = network()
    quantize_weights(made)
    return made


@pytest.fixture(scope="module")
def exported(rounded: AE) -> Exported:
    return export(rounded.encoder, rounded.decoder)


def test_parity_is_recorded_and_small(exported: Exported) -> None:
    assert set(exported.graphs) == set(exported.parity) == set(GRAPHS)
    assert all(0 <= apart <= PARITY for apart in exported.parity.values())


def test_stored_weights_are_the_rounded_torch_weights_exactly(rounded: AE, exported: Exported) -> None:
    for name in GRAPHS:
        stored = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in onnx.load_from_string(exported.graphs[name]).graph.initializer
        }
        for key, weight in getattr(rounded, name).named_parameters():
            values = weight.detach().numpy()
            kept = stored.pop(f"{name}.{key}.half" if values.size >= 4096 else f"{name}.{key}")
            assert kept.dtype == (np.float16 if values.size >= 4096 else np.float32)
            np.testing.assert_array_equal(kept.astype(np.float32), values)
        assert not any(values.size >= 4096 for values in stored.values())


@pytest.fixture(scope="module")
def whole() -> Exported:
    """Not rounded, and with a weight that float16 does not reach."""
    plain = network()
    with torch.no_grad():
        list(plain.decoder.parameters())[-2][0, 0] = 1e5  # the last Linear layer
    return export(plain.encoder, plain.decoder)


def test_rounding_halves_the_file(exported: Exported, whole: Exported) -> None:
    large = sum(weight.numel() for weight in network().parameters() if weight.numel() >= 4096)
    saved = sum(len(whole.graphs[name]) - len(exported.graphs[name]) for name in GRAPHS)
    assert large == 2 * 192 * 64
    assert abs(saved - 2 * large) < 500
    assert max(whole.parity.values()) <= PARITY


def test_only_large_weights_are_rounded_and_only_where_float16_reaches() -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 2))
    before = [weight.detach().clone() for weight in module.parameters()]
    with torch.no_grad():
        list(module.parameters())[2][0, 0] = before[2][0, 0] = 1e5
    quantize_weights(module)
    first, *others = module.parameters()
    torch.testing.assert_close(first, before[0].half().float(), rtol=0, atol=0)
    assert not torch.equal(first, before[0])
    for weight, kept in zip(others, before[1:], strict=True):
        torch.testing.assert_close(weight, kept, rtol=0, atol=0)
    again = first.detach().clone()
    quantize_weights(module)
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_eight_bits_quarter_the_file_and_are_stored_exactly(whole: Exported) -> None:
    small = network()
    quantize_weights(small, bits=8)
    exported = export(small.encoder, small.decoder)
    large = 2 * 192 * 64
    saved = sum(len(whole.graphs[name]) - len(exported.graphs[name]) for name in GRAPHS)
    assert 3 * large - 3000 < saved < 3 * large  # a float for each row is kept
    assert max(exported.parity.values()) <= PARITY
    for name in GRAPHS:
        for tensor in onnx.load_from_string(exported.graphs[name]).graph.initializer:
            assert onnx.numpy_helper.to_array(tensor).size < 4096 or tensor.data_type == onnx.TensorProto.INT8


def test_eight_bits_are_within_half_a_step_and_rounding_again_changes_nothing() -> None:
    module = nn.Linear(64, 65)
    with torch.no_grad():
        module.weight[3] = 0
        module.weight[4] *= 1e-6
    before = module.weight.detach().clone()
    quantize_weights(module, bits=8)
    after = module.weight.detach().clone()
    steps = before.abs().amax(1, keepdim=True) / 127 * (1 + 2**-10)
    assert ((after - before).abs() <= steps / 2 + 1e-12).all()
    assert not after[3].any()
    quantize_weights(module, bits=8)
    assert torch.equal(module.weight, after)


def test_graphs_say_what_they_take_and_give(exported: Exported) -> None:
    def shapes(values: object) -> list[tuple[str, int, list[object]]]:
        return [
            (
                value.name,
                value.type.tensor_type.elem_type,
                [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
            )
            for value in values  # type: ignore[attr-defined]  # onnx's repeated fields have no public type
        ]

    kinds, size = onnx.TensorProto, SIZE
    models = {name: onnx.load_from_string(exported.graphs[name]) for name in GRAPHS}
    for model in models.values():
        assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    encoder, decoder = (models[name].graph for name in GRAPHS)
    assert shapes(encoder.input) == [("pixels", kinds.UINT8, ["N", size, size, 3])]
    assert shapes(encoder.output) == [("latent", kinds.FLOAT, ["N", LATENT])]
    assert shapes(decoder.input) == [("latent", kinds.FLOAT, ["N", LATENT])]
    assert shapes(decoder.output) == [("image", kinds.FLOAT, ["N", size, size, 3])]


@pytest.mark.parametrize("count", [1, 2, 5, 33])
def test_any_number_of_rows_gives_what_torch_gives(rounded: AE, exported: Exported, count: int) -> None:
    pixels = pictures(count, size=SIZE, seed=1)
    with torch.no_grad():
        latents = rounded.encoder(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
        images = rounded.decoder(latents).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(run(exported.graphs["encoder"], pixels), latents.numpy(), atol=1e-5)
    np.testing.assert_allclose(run(exported.graphs["decoder"], latents.numpy()), images.numpy(), atol=1e-5)


def test_same_network_gives_the_same_bytes_quietly_and_is_left_as_it_is(
    rounded: AE, exported: Exported, capfd: pytest.CaptureFixture[str]
) -> None:
    again = copy.deepcopy(rounded).train()
    assert export(again.encoder, again.decoder).graphs == exported.graphs
    assert capfd.readouterr() == ("", "")
    assert again.encoder.training
    for name, value in rounded.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


def test_graphs_name_no_folder_of_this_machine(exported: Exported) -> None:
    for graph in exported.graphs.values():
        for word in (b".py", b"site-packages", str(Path.cwd()).encode(), b"stack_trace"):
            assert word not in graph


class _Centred(nn.Module):
    """Depends on the rest of the batch: alone, a row gives another latent than in company."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)[:, :LATENT]
        return flat - flat.mean(0)


class _Sampling(nn.Module):
    """Draws its latent, as an encoder must not: onnxruntime draws others."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)[:, :LATENT]
        return flat + torch.randn_like(flat)


class _NotFinite(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :LATENT] * torch.nan


class _Narrow(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :1]


class _Choosing(nn.Module):
    """Takes a way that depends on the values, which cannot be exported."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)[:, :LATENT]
        return flat if flat.sum() > 0 else -flat


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (_Centred, r"ONNX and torch must agree to 1e-04, the encoder differs by .*; nothing was written"),
        (_Sampling, "must agree"),
        (_NotFinite, "the encoder differs by nan"),
        (_Narrow, r"the encoder must return \(5, 4\) for \(5, 8, 8, 3\), it returned \(5, 1\)"),
    ],
    ids=["batch", "sampling", "nan", "shape"],
)
def test_modules_that_onnx_does_not_reproduce_are_refused(
    encoder: Callable[[], nn.Module], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=reason):
        export(encoder(), network().decoder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("encoder", [_Choosing(), nn.Linear(5, 5)], ids=["branch", "input"])
def test_modules_that_torch_cannot_export_are_refused_on_one_line(encoder: nn.Module) -> None:
    with pytest.raises(
        ExportError, match=r"torch cannot export the encoder \(.*\); nothing was written"
    ) as caught:
        export(encoder, network().decoder)
    assert "\n" not in str(caught.value)


def test_bundle_is_saved_with_golden_values_of_the_graphs(
    rounded: AE, exported: Exported, tmp_path: Path
) -> None:
    with torch.no_grad():
        images = torch.from_numpy(pictures(64, size=SIZE)).permute(0, 3, 1, 2).float() / 255
        statistics = LatentStatistics.from_latents(rounded.encoder(images).numpy())
    saved = _save(tmp_path / "faces", exported, statistics)
    assert len(saved.golden["pixels"]) == 4
    Model(saved).check()
    assert _save(tmp_path / "again", exported, statistics).model_id == saved.model_id
    with pytest.raises(InvalidArgumentError, match="only a bundle is replaced"):
        _save(tmp_path, exported, statistics)


def test_degenerate_statistics_give_golden_values_without_a_warning(
    exported: Exported, tmp_path: Path
) -> None:
    latents = np.random.default_rng(0).normal(size=(50, LATENT)).astype(np.float32) * 100
    latents[:, 3] = latents[:, 0] * 3  # rank 3: rounding leaves an eigenvalue under zero
    saved = _save(tmp_path / "faces", exported, LatentStatistics.from_latents(latents))
    assert np.isfinite(saved.golden["latents"]).all()


def _save(folder: Path, exported: Exported, statistics: LatentStatistics) -> Bundle:
    affine = AffineMap.whitening(statistics)
    spec = BundleSpec(
        kind="ae",
        image=ImageSpec(size=SIZE),
        latent=LATENT,
        embedding=len(affine.matrix),
        mirror=True,
        opset=OPSET,
    )
    return save_bundle(folder, exported, spec, statistics=statistics, affine=affine)


class Smoother(nn.Module):
    """Halves the sides twice and doubles them again: H and W must be multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(16, 64, 3, padding=1)
        self.up = nn.Conv2d(64, 12, 3, padding=1)
        self.further = nn.Sequential(nn.Conv2d(64, 64, 2, stride=2), nn.ConvTranspose2d(64, 64, 2, stride=2))

    def forward(self, pixels: Tensor, sigma: Tensor) -> Tensor:
        inner = nn.functional.pixel_unshuffle(torch.cat([pixels, sigma[:, None]], 1), 2)  # (N, 16, H/2, W/2)
        inner = self.down(inner).relu()
        return pixels - nn.functional.pixel_shuffle(self.up(inner + self.further(inner)), 2)


class Estimator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        cells = nn.functional.avg_pool2d(self.features(pixels), 4)  # (N, 8, H/4, W/4)
        return nn.functional.softplus(cells.mean(1) - 3)


def test_a_denoiser_of_any_size_goes_through(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, estimator = Smoother(), Estimator()
    quantize_weights(network)
    exported = export_denoiser(network, estimator, size_multiple=4, cell=4)
    assert set(exported.parity) == {"denoiser", "estimator"}
    assert max(exported.parity.values()) <= PARITY
    spec = DenoiserSpec(
        size_multiple=4,
        receptive_field=16,
        estimator_field=8,
        cell=4,
        deviations=(0, 0.3),
        clean_below=0.01,
        opset=OPSET,
    )
    denoiser = Denoiser(save_denoiser(tmp_path / "net", spec=spec, graphs=exported.graphs))
    denoiser.check()
    for height, width in ((4, 4), (12, 40), (52, 36)):
        pixels, sigma = torch.rand(2, height, width, 3), torch.rand(2, height, width)
        with torch.no_grad():
            image = pixels.permute(0, 3, 1, 2)
            expected, estimated = network(image, sigma).permute(0, 2, 3, 1), estimator(image)
        got = denoiser.denoise(pixels.numpy(), sigma.numpy())
        np.testing.assert_allclose(got, expected.numpy(), atol=PARITY)
        np.testing.assert_allclose(denoiser.estimate(pixels.numpy()), estimated.numpy(), atol=PARITY)


@pytest.mark.slow
def test_a_denoiser_that_is_none_is_refused() -> None:
    with pytest.raises(ExportError, match="the estimator must return"):
        export_denoiser(Smoother(), nn.Conv2d(3, 3, 1), size_multiple=4, cell=4)
    with pytest.raises(ExportError, match="the estimator must return"):
        export_denoiser(Smoother(), Estimator(), size_multiple=4, cell=2)
    with pytest.raises(ExportError, match="the denoiser"):
        export_denoiser(Smoother(), Estimator(), size_multiple=1, cell=1)
