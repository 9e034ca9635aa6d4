"""What a VAE is taught: a bound on the likelihood of its images, a conditional one also what labels mean.

Legend: N images, C channels, S pixels a side, Z latent size, K classes, M draws of the latent for each image.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from lookalike.encoder.images.noise import NoiseSpec
from lookalike.trainer.config import ElboConfig
from lookalike.trainer.data.batches import to_floats
from lookalike.trainer.data.noise import make_noisy
from lookalike.trainer.models.vae import CVAE, VAE, to_pixels
from lookalike.trainer.objectives.losses import (
    bernoulli_nll,
    floored,
    gaussian_nll,
    importance_bound,
    kl_divergence,
    log_importance_weights,
)

Images = NDArray[np.uint8]
_DIGIT: Final = 28 * 28
_GUESSER: Final = 256
"""Features of each layer of the guesser."""
_LEAST_DEVIATION: Final = 0.01
"""Of Gaussian pixels, where it is not given: flat pictures would be worth ever more nats the nearer they are
met, where nobody sees a difference any more."""
_RUNNING: Final = 0.1  # as BatchNorm's statistics run
_PICTURES: Final = 1024
"""Pictures drawn at once when a bound is measured: they bound the memory."""


class VAEOutput(NamedTuple):
    """What a network in training makes of a batch.

    Attributes:
        image: (M, N, C, S, S), logits or means.
        latents: (M, N, Z), drawn from q(z|x).
        noise: (M, N, Z), that they were drawn with.
        mean: (N, Z), of q(z|x).
        log_variance: (N, Z), of q(z|x).
        labels: int64 (N,), the true classes; None of a VAE.
        scores: (N, K), logits of q(y|x); None of a VAE.
        recognised: (N, K), the same of pictures drawn of N(0, I), or of the same latents where they are to be
            aligned, and the class ``asked``; None where that is not taught.
        asked: int64 (N,).
        guessed: (N, K), logits of the class as a guesser reads it from a latent; None where that is not
            taught.
    """

    image: Tensor
    latents: Tensor
    noise: Tensor
    mean: Tensor
    log_variance: Tensor
    labels: Tensor | None = None
    scores: Tensor | None = None
    recognised: Tensor | None = None
    asked: Tensor | None = None
    guessed: Tensor | None = None


@final
class VAEObjective(nn.Module):
    """A network in training: it draws latents, and pictures of these.

    Attributes:
        network: What is trained.
        spec: What it is taught.
        guesser: Latents (N, Z) to logits of the class (N, K), against which a conditional model keeps the
            class out of its latents; None where that is not taught. It is no part of the model.
    """

    def __init__(self, network: VAE | CVAE, spec: ElboConfig) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        classes = network.spec.classes if spec.independence else 0
        self.guesser = _guesser(network.spec.latent, classes) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> VAEOutput:
        """Draw M latents of each image (N, C, S, S), and pictures of them; a CVAE has labels int64 (N,)."""
        mean, log_variance, scores = self.network.encoder(images)
        mean, log_variance = mean.float(), log_variance.float()  # small steps between draws matter
        noise = torch.randn(self.spec.importance, *mean.shape, device=mean.device)  # (M, N, Z)
        latents = mean + (log_variance / 2).exp() * noise
        if isinstance(self.network, VAE):
            image = self.network.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
            return VAEOutput(image, latents, noise, mean, log_variance)
        if labels is None:
            raise TypeError("a conditional model is taught with labels")
        return self._told(
            self.network,
            labels,
            VAEOutput(torch.empty(0), latents, noise, mean, log_variance, labels, scores),
        )

    def _told(self, network: CVAE, labels: Tensor, drawn: VAEOutput) -> VAEOutput:
        """Draw pictures of latents and the true labels; with them, some of any class.

        Both in one batch: BatchNorm's statistics are then those of what is reconstructed and of what is
        generated, in training as in evaluation. What the encoder learns of the second is by way of these
        statistics alone.
        """
        count = network.spec.classes
        draws, images, _ = drawn.latents.shape
        if self.guesser is not None:
            turned = grad_reverse(drawn.latents[0], self._worth * self.spec.independence)
            drawn = drawn._replace(guessed=self.guesser(turned))
        latents, told = drawn.latents.flatten(0, 1), labels.repeat(draws)  # (M N, Z), (M N,)
        asked = None
        if self.spec.consistency:
            asked = torch.randint(count, (images,), device=labels.device)
            other = latents[:images].detach() if self.spec.align else torch.randn_like(latents[:images])
            latents = torch.cat([latents, other])
            told = torch.cat([told, asked])
        pictures = network.decoder(latents, one_hot(told, count).to(latents.dtype))
        image = pictures[: draws * images].unflatten(0, (draws, images))
        if asked is None:
            return drawn._replace(image=image)
        imagined = to_pixels(pictures[draws * images :], network.spec.likelihood)
        return drawn._replace(image=image, recognised=network.recognised(imagined), asked=asked)

    @property
    def _worth(self) -> float:
        """How much likelihood is at stake beside that of a digit: the label is to count as much."""
        spec = self.network.spec
        return max(1.0, spec.channels * spec.size**2 / _DIGIT)

    def loss(self, drawn: VAEOutput, images: Tensor, progress: float) -> Tensor:
        """Return what is minimised, in nats an image: a scalar.

        Args:
            drawn: Of :meth:`forward`.
            images: (N, C, S, S), the targets.
            progress: Share of the training that is done.
        """
        spec = self.spec
        beta = spec.beta * (min(1.0, progress / spec.beta_warmup) if spec.beta_warmup else 1.0)
        lost = self.lost(drawn.image, images, self._deviation(drawn.image, images))  # (M, N)
        if spec.importance == 1:
            loss = lost.mean() + beta * floored(kl_divergence(drawn.mean, drawn.log_variance), spec.free_bits)
        else:
            ratio = log_importance_weights(drawn.latents, drawn.noise, drawn.log_variance)
            loss = -importance_bound(beta * ratio - lost).mean()
        if drawn.scores is not None and drawn.labels is not None:
            loss = loss + self._worth * spec.label_weight * cross_entropy(drawn.scores, drawn.labels)
        if drawn.guessed is not None and drawn.labels is not None:
            loss = loss + cross_entropy(drawn.guessed, drawn.labels)
        if drawn.recognised is not None and drawn.asked is not None:
            loss = loss + self._worth * spec.consistency * cross_entropy(drawn.recognised, drawn.asked)
        return loss

    def lost(self, image: Tensor, target: Tensor, log_deviation: Tensor | None = None) -> Tensor:
        """Return -log p(x|z) in nats, (M, N) of (M, N, C, S, S) and (N, C, S, S).

        Args:
            image: Logits or means.
            target: In [0, 1].
            log_deviation: Of Gaussian pixels; None: the network's.
        """
        if self.network.spec.likelihood == "bernoulli":
            return bernoulli_nll(image, target)
        if log_deviation is None:
            log_deviation = self.network.log_deviation
        return gaussian_nll(image, target, log_deviation)

    @torch.no_grad()
    def _deviation(self, image: Tensor, target: Tensor) -> Tensor | None:
        """Return the log-deviation at which a batch is likeliest, and let the network's run after it."""
        spec = self.network.spec
        if spec.likelihood == "bernoulli" or spec.deviation is not None:
            return None
        squared = (image - target).square().mean()
        found = squared.clamp(min=_LEAST_DEVIATION**2).log() / 2
        self.network.log_deviation.lerp_(found, _RUNNING)
        return found


def _guesser(latent: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent, _GUESSER),
        nn.ReLU(),
        nn.Linear(_GUESSER, _GUESSER),
        nn.ReLU(),
        nn.Linear(_GUESSER, classes),
    )


def grad_reverse(latents: Tensor, weight: float) -> Tensor:
    """Return the latents as they are, with their gradient turned round and weighted.

    What the guesser learns to read, the encoder unlearns to write (Y. Ganin et al.: Domain-Adversarial
    Training of Neural Networks, JMLR 17, 2016; for autoencoders G. Lample et al.: Fader Networks, NIPS 2017).
    """
    return (1 + weight) * latents.detach() - weight * latents


@torch.no_grad()
def evaluate_elbo(
    model: VAEObjective,
    images: Images,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    device: torch.device,
    draws: int = 1,
    noise: NoiseSpec | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the negative bound and the divergence in it, both in nats an image, means over ``images[rows]``.

    With one draw the negative ELBO, its divergence in closed form; with more the negative importance-weighted
    bound. Of a conditional model both are given the true label. Pixels are binarised as in training, noise
    and binarisation come from the seed: every network is measured on the same.

    With noise the encoder sees noisy images, and the bound is still one on the likelihood of the clean ones
    (D. J. Im et al.: Denoising Criterion for Variational Auto-Encoding Framework. AAAI 2017).

    Args:
        model: Network and what it is taught.
        images: uint8 (N, S, S, C).
        rows: Which of them.
        labels: int64 (N,).
        device: Where the network is.
        draws: M.
        noise: What is put on the input.
        seed: Of noise, binarisation and draws.
    """
    model.eval()
    network = model.network
    source, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    total = apart = 0.0
    for some in np.array_split(rows, -(-len(rows) // max(1, _PICTURES // draws))):
        plain = to_floats(images[some])
        target = torch.bernoulli(plain, generator=source) if model.spec.binarise == "dynamic" else plain
        shown = (target if noise is None else make_noisy(plain, noise, rng)).to(device)
        mean, log_variance, _ = network.encoder(shown)
        deviates = torch.randn(draws, *mean.shape, generator=source).to(device)
        latents = mean + (log_variance / 2).exp() * deviates  # (M, B, Z)
        given: tuple[Tensor, ...] = (latents.flatten(0, 1),)
        if isinstance(network, CVAE):
            told = torch.from_numpy(labels[some]).to(device).repeat(draws)
            given += (one_hot(told, network.spec.classes).float(),)
        drawn = network.decoder(*given).unflatten(0, (draws, len(some)))
        lost = model.lost(drawn, target.to(device))  # (M, B)
        kl = kl_divergence(mean, log_variance).sum(1)  # (B,)
        if draws == 1:
            negative = lost[0] + kl
        else:
            negative = -importance_bound(log_importance_weights(latents, deviates, log_variance) - lost)
        total += negative.sum().item()
        apart += kl.sum().item()
    return total / len(rows), apart / len(rows)
