"""The variational autoencoders.

D. P. Kingma, M. Welling: Auto-Encoding Variational Bayes. ICLR 2014. The label is used as in model M2 of
D. P. Kingma et al.: Semi-Supervised Learning with Deep Generative Models. NIPS 2014.

Legend: N images, C channels, H = W = S pixels, F features, Z latent size, K classes.
Pixels are float32 in [0, 1]. Decoders give logits of Bernoulli pixels, or means of Gaussian ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import Likelihood, VAESpec

_LOG_VARIANCE: Final = 8.0
"""Log-variances of q(z|x) are clamped to this, so that exponentials do not overflow early in a training."""
_DEVIATION: Final = 0.2
"""Initial standard deviation of Gaussian pixels that is not given."""


@final
class VAE(nn.Module):
    """The variational autoencoder: Conv2d > BatchNorm2d > ReLU down, ConvTranspose2d > BatchNorm2d > ReLU up.

    BatchNorm uses the statistics of the batch in training, running ones in evaluation.

    Attributes:
        encoder: (N, C, S, S) to mean and log-variance of q(z|x), both (N, Z).
        decoder: (N, Z) to logits or means (N, C, S, S).
        log_deviation: Scalar, of Gaussian pixels: given, or a running average over the training batches.
    """

    log_deviation: Tensor

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        if spec.classes:
            raise InvalidArgumentError(f"a VAE has no classes, got {spec.classes}; a CVAE has")
        self.spec = spec
        self.encoder = _Encoder(spec)
        self.decoder = _Decoder(spec)
        self.register_buffer("log_deviation", torch.tensor(spec.deviation or _DEVIATION).log())

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, Z), the mean -> (N, C, S, S) in [0, 1]."""
        mean, _, _ = self.encoder(images)
        return to_pixels(self.decoder(mean), self.spec.likelihood)


@final
class CVAE(nn.Module):
    """The conditional VAE: p(x|z, y) with q(z|x) and q(y|x), so that an image without label can be encoded.

    Attributes:
        encoder: (N, C, S, S) to mean and log-variance of q(z|x), both (N, Z), and logits of q(y|x) (N, K).
        decoder: (N, Z) and class weights (N, K) to logits or means (N, C, S, S).
        log_deviation: Scalar, of Gaussian pixels: given, or a running average over the training batches.
    """

    log_deviation: Tensor

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        if not spec.classes:
            raise InvalidArgumentError("a conditional model needs 2 classes or more, got none")
        self.spec = spec
        self.encoder = _Encoder(spec)
        self.decoder = _Decoder(spec)
        self.register_buffer("log_deviation", torch.tensor(spec.deviation or _DEVIATION).log())

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, Z), the mean, and (N, K), class probabilities -> (N, C, S, S) in [0, 1]."""
        mean, _, scores = self.encoder(images)
        return to_pixels(self.decoder(mean, scores.softmax(1)), self.spec.likelihood)

    def classify_frozen(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of q(y|x) of images (N, C, S, S), with gradients to the images alone.

        The encoder is frozen: its weights get no gradient, and its BatchNorm keeps its statistics.
        """
        fixed = {name: values.detach() for name, values in _named_values(self.encoder)}
        training = self.encoder.training
        self.encoder.eval()
        _, _, scores = functional_call(self.encoder, fixed, (images,))
        self.encoder.train(training)
        logits: Tensor = scores
        return logits


def to_pixels(outputs: Tensor, likelihood: Likelihood) -> Tensor:
    """Return pixels in [0, 1] for a decoder's outputs: probabilities, or clipped means."""
    return outputs.sigmoid() if likelihood == "bernoulli" else outputs.clamp(0, 1)


class _Encoder(nn.Module):
    """(N, C, S, S) -> mean (N, Z), log-variance (N, Z), class logits (N, K): None without classes.

    Attributes:
        mixing: (Z, Z), the squared entries of the whitening map of the latents (``trainer/publish/vae.py``);
            None in training.
    """

    mixing: Tensor | None

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for before, after in itertools.pairwise((spec.channels, *spec.down)):
            steps += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.convolutions = nn.Sequential(*steps, nn.Flatten())
        self.features = _dense(spec.down[-1] * spec.side**2, spec.hidden)
        self.mean = nn.Linear(spec.hidden, spec.latent)
        self.log_variance = nn.Linear(spec.hidden, spec.latent)
        self.label = nn.Linear(spec.hidden, spec.classes) if spec.classes else None
        self.register_buffer("mixing", None)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        features = self.features(self.convolutions(images))  # (N, C, S, S) -> (N, F)
        log_variance = self.log_variance(features).clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
        if self.mixing is not None:
            log_variance = (log_variance.exp() @ self.mixing.T).log()
        return self.mean(features), log_variance, None if self.label is None else self.label(features)


class _Decoder(nn.Module):
    """(N, Z), and (N, K) of a conditional one -> (N, C, S, S)."""

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        first = spec.up[0]
        self.features = nn.Sequential(
            *_dense(spec.latent + spec.classes, spec.hidden),
            *_dense(spec.hidden, first * spec.side**2),
            nn.Unflatten(1, (first, spec.side, spec.side)),
        )
        classes = spec.classes if spec.modulated else 0
        self.stages = nn.ModuleList(_Stage(i, o, classes) for i, o in itertools.pairwise(spec.up))
        self.last = nn.ConvTranspose2d(spec.up[-1], spec.channels, 4, 2, 1)
        if spec.likelihood == "gaussian":
            nn.init.constant_(self.last.get_parameter("bias"), 0.5)  # gray, as logits of 0 are

    @property
    def first_layer(self) -> tuple[nn.Linear, nn.BatchNorm1d]:
        """The layer that reads the latents, followed by the classes, and its BatchNorm."""
        first, norm = self.features[0], self.features[1]
        if not isinstance(first, nn.Linear) or not isinstance(norm, nn.BatchNorm1d):
            raise TypeError(type(first).__name__)
        return first, norm

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        if classes is not None:
            latents = torch.cat([latents, classes], 1)  # (N, Z + K)
        features = self.features(latents)  # -> (N, F, side, side)
        for stage in self.stages:
            features = stage(features, classes)  # -> (N, F', S/2, S/2) in the end
        outputs: Tensor = self.last(features)  # -> (N, C, S, S)
        return outputs


class _Stage(nn.Module):
    """Double the side; with classes, scale and shift the channels by a linear map of them (FiLM)."""

    def __init__(self, before: int, after: int, classes: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.modulation = nn.Linear(classes, 2 * after, bias=False) if classes else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)

    def forward(self, features: Tensor, classes: Tensor | None) -> Tensor:
        features = self.norm(self.up(features))  # (N, F, S, S) -> (N, F', 2S, 2S)
        if self.modulation is not None and classes is not None:
            scale, shift = self.modulation(classes)[:, :, None, None].chunk(2, 1)  # (N, F', 1, 1) each
            features = features * (1 + scale) + shift
        return features.relu()


def _dense(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())


def _named_values(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(module.named_parameters(), module.named_buffers())
