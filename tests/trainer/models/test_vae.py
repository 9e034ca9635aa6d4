"""The variational networks: shapes at every size, what learns from what, and specs that cannot be.

Legend: N images, C channels, S side, Z latent size, K classes.
"""

from typing import Any

import pytest
import torch
from torch import nn

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import VAESpec
from lookalike.trainer.models import CVAE, VAE

SLIM: dict[str, Any] = {"latent": 3, "hidden": 8}


def made(**changes: Any) -> VAE | CVAE:
    torch.manual_seed(0)
    spec = VAESpec(**({"size": 16, "channels": 1} | SLIM | changes))
    return CVAE(spec) if spec.classes else VAE(spec)


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "side"), [(28, 7), (32, 4), (36, 9), (64, 4), (80, 5), (96, 6), (128, 4)])
def test_shapes_there_and_back(size: int, side: int, channels: int, classes: int) -> None:
    network = made(size=size, channels=channels, classes=classes)
    assert network.spec.side == side
    images = torch.rand(2, channels, size, size)
    mean, log_variance, labels = network.encoder(images)
    assert mean.shape == log_variance.shape == (2, 3)
    told = (torch.eye(4)[:2],) if classes else ()
    assert network.decoder(mean, *told).shape == images.shape
    assert (labels is None) if not classes else labels.shape == (2, 4)
    back = network(images)
    assert back.shape == images.shape
    assert (back >= 0).all()
    assert (back <= 1).all()


def test_layers_are_convolution_norm_relu_down_and_transposed_up() -> None:
    network = made(size=28)
    down = [type(layer) for layer in network.encoder.convolutions]
    assert down == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2 + [nn.Flatten]
    up = [layer for layer in network.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in up] == [32, 1]


def test_parameters_are_counted_by_hand() -> None:
    network = made(size=16, down=(4, 6), up=(6, 5))
    features = 6 * 4 * 4
    encoder = 16 * 4 + 8 + 16 * 4 * 6 + 12 + features * 8 + 16 + 2 * (8 * 3 + 3)
    decoder = 3 * 8 + 16 + 8 * features + 2 * features + 16 * 6 * 5 + 10 + 16 * 5 + 1
    assert sum(weights.numel() for weights in network.parameters()) == encoder + decoder


def test_log_variance_stays_within_what_exponentials_bear() -> None:
    network = made()
    nn.init.constant_(network.encoder.log_variance.bias, 1e6)
    _, log_variance, _ = network.encoder(torch.rand(4, 1, 16, 16))
    assert log_variance.unique().tolist() == [8.0]


def test_class_changes_the_picture_by_way_of_each_stage() -> None:
    network = made(size=28, classes=4).eval()
    assert len(network.decoder.stages) == 1
    for stage in network.decoder.stages:
        nn.init.normal_(stage.get_submodule("modulation").get_parameter("weight"))
    latents, classes = torch.zeros(4, 3), torch.eye(4)
    pictures = network.decoder(latents, classes)
    assert len(pictures.flatten(1).unique(dim=0)) == 4
    plain = made(classes=4, modulated=False)
    assert all(stage.modulation is None for stage in plain.decoder.stages)


def test_recognition_of_drawn_pictures_teaches_the_decoder_alone() -> None:
    network = made(classes=4)
    assert isinstance(network, CVAE)
    before = {name: values.clone() for name, values in network.encoder.named_buffers()}
    drawn = network.decoder(torch.randn(8, 3), torch.eye(4).repeat(2, 1)).sigmoid()
    scores = network.classify_frozen(drawn)
    assert scores.shape == (8, 4)
    scores.square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert all(weights.grad is None for weights in network.encoder.parameters())
    assert network.decoder.last.weight.grad is not None
    assert network.decoder.last.weight.grad.any()
    assert network.encoder.training
    after = dict(network.encoder.named_buffers())
    assert all(torch.equal(values, after[name]) for name, values in before.items())


def test_recognition_is_what_the_encoder_says_in_evaluation() -> None:
    network = made(classes=4)
    assert isinstance(network, CVAE)
    images = torch.rand(5, 1, 16, 16)
    scores = network.classify_frozen(images)
    _, _, expected = network.eval().encoder(images)
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(
    ("changes", "deviation", "grey"),
    [
        ({"likelihood": "gaussian"}, 0.2, True),
        ({"likelihood": "gaussian", "deviation": 0.1}, 0.1, True),
        ({}, 0.2, False),
    ],
)
def test_pixels_begin_grey_with_a_deviation_that_no_gradient_reaches(
    changes: dict[str, Any], deviation: float, grey: bool
) -> None:
    network = made(**changes)
    assert network.log_deviation.exp().item() == pytest.approx(deviation)
    assert not network.log_deviation.requires_grad
    bias = network.decoder.last.bias
    assert bias is not None
    assert (bias == 0.5).all() if grey else (bias != 0.5).all()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"latent": 0}, "latent 0"),
        ({"hidden": 0}, "hidden 0"),
        ({"down": (4, -1), "up": (4, 4)}, r"down \(4, -1\)"),
        ({"size": 30}, "must be divisible by 4 .* 30 is not"),
        ({"size": 45}, "must be divisible by 8"),
        ({"size": 256}, "at most 160, 256 is not"),
        ({"down": (4, 4, 4), "up": (4, 4)}, "same number of stages, got 3 widths down"),
        ({"classes": 1}, "2 classes or more, not 1"),
        ({"likelihood": "laplace"}, "bernoulli or gaussian, not 'laplace'"),
        ({"deviation": 0.0}, "above 0"),
    ],
)
def test_shapes_that_cannot_be_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rule):
        VAESpec(**({"size": 16, "channels": 1} | changes))


def test_network_of_the_other_kind_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="a VAE has no classes, got 4"):
        VAE(VAESpec(size=16, channels=1, classes=4))
    with pytest.raises(InvalidArgumentError, match="2 classes or more, got none"):
        CVAE(VAESpec(size=16, channels=1))


def test_spec_becomes_json_values_with_its_widths() -> None:
    values = VAESpec(size=28, channels=1).to_json()
    assert (values["down"], values["up"]) == ([32, 64], [64, 32])
    assert VAESpec(size=128, channels=3).to_json()["down"] == [32, 64, 128, 128, 128]
