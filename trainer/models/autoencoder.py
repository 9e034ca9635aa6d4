"""The vanilla autoencoder.

Legend: N images, C channels, H = W = S pixels, P = C*S*S values of an image, D latent size, F features.
Pixels are float32 in [0, 1]; latents have about unit variance.
"""

from __future__ import annotations

import itertools
from typing import Self, final

import torch
from torch import Tensor, nn

from lookalike.trainer.config import AESpec


@final
class AE(nn.Module):
    """The vanilla autoencoder: Linear > BatchNorm1d > ReLU down and up, plain Linear at both ends.

    The latent and the image have no activation: a ReLU there would throw half of the latent away. BatchNorm
    keeps its initial statistics and learns only scale and shift: batch statistics are noisy and cost a little
    PSNR (docs/experiments.md).
    """

    def __init__(self, spec: AESpec) -> None:
        super().__init__()
        self.spec = spec
        down = (spec.values, *spec.hidden)
        up = (spec.latent, *reversed(spec.hidden))
        self.encoder = nn.Sequential(
            nn.Flatten(), _Center(spec.values), *_layers(down), nn.Linear(down[-1], spec.latent)
        )
        self.decoder = nn.Sequential(
            *_layers(up),
            nn.Linear(up[-1], spec.values),
            nn.Unflatten(1, (spec.channels, spec.size, spec.size)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D) -> (N, C, H, W)."""
        image: Tensor = self.decoder(self.encoder(images))
        return image

    def train(self, mode: bool = True) -> Self:
        """Set training mode for all but the BatchNorm layers."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.eval()
        return self

    @classmethod
    def from_pca(cls, spec: AESpec, images: Tensor, *, seed: int = 0) -> Self:
        """Return a network that computes the PCA of its latent size, as the start of a training.

        A linear map passes through ReLU in pairs, relu(x) - relu(-x) = x: each hidden layer carries the
        first F/2 principal components and their negatives. BatchNorm starts neutral, scaled to the statistics
        of the images. Components that the latent does not hold start at zero where they would do harm.

        Args:
            spec: The network's shape.
            images: float32 (N, C, H, W) in [0, 1] to fit the components to.
            seed: Of the features that PCA leaves free.
        """
        mean, axes, spread = principal_axes(images.flatten(1), max(spec.hidden) // 2, seed=seed)
        network = cls(spec)
        with torch.no_grad():
            network.encoder.get_buffer("1.mean").copy_(mean)
            generator = torch.Generator().manual_seed(seed)
            network._encoder_from(axes, spread, generator)
            network._decoder_from(mean, axes, spread, generator)
            network._neutral_norms(images)
        return network

    def _encoder_from(self, axes: Tensor, spread: Tensor, generator: torch.Generator) -> None:
        """Set Linear layers so that latent[i] = component[i] / spread[i]."""
        linears = [layer for layer in self.encoder if isinstance(layer, nn.Linear)]
        first, *middle, last = linears
        half = first.out_features // 2
        first.weight.copy_(torch.cat([axes[:half], -axes[:half]]))  # (F, P)
        first.bias.zero_()
        for layer in middle:
            _keep_pairs(layer, generator)
        _from_pairs(last, 1 / spread[: last.out_features])

    def _decoder_from(self, mean: Tensor, axes: Tensor, spread: Tensor, generator: torch.Generator) -> None:
        """Set Linear layers so that image = mean + sum of latent[i] * spread[i] * axis[i]."""
        linears = [layer for layer in self.decoder if isinstance(layer, nn.Linear)]
        first, *middle, last = linears
        latent = first.in_features
        half = first.out_features // 2
        mixtures = torch.randn(half, latent, generator=generator) * latent**-0.5
        rows = mixtures * spread[:half, None]  # features that PCA leaves free
        rows[:latent] = torch.diag(spread[:latent])
        first.weight.copy_(torch.cat([rows, -rows]))  # (F, D)
        first.bias.zero_()
        for layer in middle:
            _keep_pairs(layer, generator)
        half = last.in_features // 2
        last.weight.zero_()  # (P, F)
        last.weight[:, :latent] = axes[:latent].T
        last.weight[:, half : half + latent] = -axes[:latent].T
        last.bias.copy_(mean)

    def _neutral_norms(self, images: Tensor) -> None:
        """Let each BatchNorm scale its input to unit deviation, and the Linear after it undo that.

        relu((x - m) / s + m / s) = relu(x) / s: the function stays the same, its weights get similar scales.
        """
        features = images
        scale: Tensor | None = None
        for layer in itertools.chain(self.encoder, self.decoder):
            if isinstance(layer, nn.Linear) and scale is not None:
                layer.weight.mul_(scale)
                scale = None
            if isinstance(layer, nn.BatchNorm1d):
                variance, mean = torch.var_mean(features, dim=0, correction=0)
                scale = (variance + layer.eps).sqrt()
                start = {"running_mean": mean, "running_var": variance, "bias": mean / scale}
                layer.load_state_dict(start, strict=False)
            features = layer.eval()(features)


@final
class _Center(nn.Module):
    """(N, P) minus the mean training image: otherwise each step of the first weights moves all features."""

    mean: Tensor

    def __init__(self, values: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(values))

    def forward(self, flat: Tensor) -> Tensor:
        return flat - self.mean


def principal_axes(flat: Tensor, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (P,), the first ``count`` principal axes (count, P) and their deviations (count,).

    By randomized subspace iteration (Halko, Martinsson & Tropp, SIAM Review 53, 2011), without a P x P
    matrix. If the data have fewer dimensions than ``count``, the rest are zero axes of deviation 1.

    Args:
        flat: float32 (N, P).
        count: Number of axes.
        seed: Of the random start.
    """
    mean = flat.mean(0)
    rank = min(count, *flat.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, singular, right = torch.svd_lowrank(flat - mean, q=min(rank + 64, *flat.shape), niter=4)
    real = singular[:rank] > singular[0] * 1e-5
    axes, spread = torch.zeros(count, flat.shape[1]), torch.ones(count)
    axes[:rank] = torch.where(real[:, None], right.T[:rank], 0)
    spread[:rank] = torch.where(real, singular[:rank] / len(flat) ** 0.5, 1)
    return mean, axes, spread


def _layers(features: tuple[int, ...]) -> list[nn.Module]:
    return [
        layer
        for i, o in itertools.pairwise(features)
        for layer in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())
    ]


def _keep_pairs(layer: nn.Linear, generator: torch.Generator) -> None:
    """Pass on pairs (a, -a) after ReLU; a wider layer adds random mixtures: at zero they would be dead."""
    inputs, outputs = layer.in_features // 2, layer.out_features // 2
    eye = torch.eye(outputs, inputs)
    eye[inputs:] = torch.randn(max(0, outputs - inputs), inputs, generator=generator) * inputs**-0.5
    layer.weight.copy_(torch.cat([torch.cat([eye, -eye], 1), torch.cat([-eye, eye], 1)]))
    layer.bias.zero_()


def _from_pairs(layer: nn.Linear, scale: Tensor) -> None:
    """Join pairs after ReLU: out[i] = scale[i] * (relu(a[i]) - relu(-a[i]))."""
    outputs, half = layer.out_features, layer.in_features // 2
    layer.weight.zero_()
    layer.weight[:, :outputs] = torch.diag(scale)
    layer.weight[:, half : half + outputs] = -torch.diag(scale)
    layer.bias.zero_()
