"""The objective of a VAE: a bound on the likelihood of its images; for a CVAE also terms of the labels.

Legend: N images, C channels, S pixels a side, Z latent size, K classes, M latent samples for each image.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from lookalike.encoder.images import NoiseSpec
from lookalike.trainer.config import ElboConfig
from lookalike.trainer.data import make_noisy, to_floats
from lookalike.trainer.models import CVAE, VAE, to_pixels
from lookalike.trainer.objectives.losses import (
    bernoulli_nll,
    free_bits,
    gaussian_nll,
    importance_bound,
    kl_divergence,
    log_importance_weights,
)

Images = NDArray[np.uint8]
DIGIT_VALUES: Final = 28 * 28
"""Values of an MNIST digit: weights and tolerances in nats are for such an image, and grow with its size."""
_ADVERSARY_FEATURES: Final = 256
_MIN_DEVIATION: Final = 0.01
"""Of Gaussian pixels, if it is not given: without a limit, flat images would gain ever more nats from
differences that nobody sees."""
_MOMENTUM: Final = 0.1  # of the running deviation, the same as BatchNorm's
_EVAL_SAMPLES: Final = 1024
"""Images decoded at once by :func:`evaluate_elbo`: bounds the memory."""


class VAEOutput(NamedTuple):
    """The output of a network in training for a batch.

    Attributes:
        image: (M, N, C, S, S), logits or means.
        latents: (M, N, Z), sampled from q(z|x).
        noise: (M, N, Z), the standard normal samples behind them.
        mean: (N, Z), of q(z|x).
        log_variance: (N, Z), of q(z|x).
        labels: int64 (N,), the true classes; None for a VAE.
        scores: (N, K), logits of q(y|x); None for a VAE.
        generated_scores: (N, K), logits of q(y|x) for images generated from N(0, I) (or from the batch's
            latents, if these will be whitened) and the class ``generated_labels``; None without consistency.
        generated_labels: int64 (N,).
        adversary_scores: (N, K), the adversary's logits of the class, given a latent; None without adversary.
    """

    image: Tensor
    latents: Tensor
    noise: Tensor
    mean: Tensor
    log_variance: Tensor
    labels: Tensor | None = None
    scores: Tensor | None = None
    generated_scores: Tensor | None = None
    generated_labels: Tensor | None = None
    adversary_scores: Tensor | None = None


@final
class VAEObjective(nn.Module):
    """A network in training: samples latents and decodes them; computes the loss.

    Attributes:
        network: The network to train.
        spec: The objective.
        adversary: Latents (N, Z) to logits of the class (N, K); a conditional model learns to make it fail,
            which keeps the class out of its latents; None: without. It is no part of the model.
    """

    def __init__(self, network: VAE | CVAE, spec: ElboConfig) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        classes = network.spec.classes if spec.adversarial_weight else 0
        self.adversary = _adversary(network.spec.latent, classes) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> VAEOutput:
        """Sample M latents of each image (N, C, S, S) and decode them; a CVAE has labels int64 (N,)."""
        mean, log_variance, scores = self.network.encoder(images)
        mean, log_variance = mean.float(), log_variance.float()  # bfloat16 is too coarse for the samples
        noise = torch.randn(self.spec.importance, *mean.shape, device=mean.device)  # (M, N, Z)
        latents = mean + (log_variance / 2).exp() * noise
        if isinstance(self.network, VAE):
            image = self.network.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
            return VAEOutput(image, latents, noise, mean, log_variance)
        if labels is None:
            raise TypeError("a conditional model is trained with labels")
        output = VAEOutput(torch.empty(0), latents, noise, mean, log_variance, labels, scores)
        return self._decode_conditional(self.network, labels, output)

    def _decode_conditional(self, network: CVAE, labels: Tensor, output: VAEOutput) -> VAEOutput:
        """Decode latents with the true labels and, for consistency, others with random classes.

        Both are in one batch, so that BatchNorm's statistics are those of reconstructed and of generated
        images, in training as in evaluation. The encoder learns from the generated ones through these
        statistics only.
        """
        count = network.spec.classes
        samples, images, _ = output.latents.shape
        if self.adversary is not None:
            reversed_ = grad_reverse(output.latents[0], self._scale * self.spec.adversarial_weight)
            output = output._replace(adversary_scores=self.adversary(reversed_))
        latents, classes = output.latents.flatten(0, 1), labels.repeat(samples)  # (M N, Z), (M N,)
        random_labels = None
        if self.spec.consistency:
            random_labels = torch.randint(count, (images,), device=labels.device)
            prior = latents[:images].detach() if self.spec.align else torch.randn_like(latents[:images])
            latents = torch.cat([latents, prior])
            classes = torch.cat([classes, random_labels])
        decoded = network.decoder(latents, one_hot(classes, count).to(latents.dtype))
        output = output._replace(image=decoded[: samples * images].unflatten(0, (samples, images)))
        if random_labels is None:
            return output
        generated = to_pixels(decoded[samples * images :], network.spec.likelihood)
        return output._replace(
            generated_scores=network.classify_frozen(generated), generated_labels=random_labels
        )

    @property
    def _scale(self) -> float:
        """Scale of the label terms: the likelihood they compete with grows with the values of an image."""
        spec = self.network.spec
        return max(1.0, spec.channels * spec.size**2 / DIGIT_VALUES)

    def loss(self, output: VAEOutput, images: Tensor, progress: float) -> Tensor:
        """Return the loss in nats an image: a scalar.

        Args:
            output: From :meth:`forward`.
            images: (N, C, S, S), the targets.
            progress: Share of the training that is done.
        """
        spec = self.spec
        beta = spec.beta * (min(1.0, progress / spec.beta_warmup) if spec.beta_warmup else 1.0)
        nll = self.nll(output.image, images, self._deviation(output.image, images))  # (M, N)
        if spec.importance == 1:
            loss = nll.mean() + beta * free_bits(
                kl_divergence(output.mean, output.log_variance), spec.free_bits
            )
        else:
            ratio = log_importance_weights(output.latents, output.noise, output.log_variance)
            loss = -importance_bound(beta * ratio - nll).mean()
        if output.scores is not None and output.labels is not None:
            loss = loss + self._scale * spec.label_weight * cross_entropy(output.scores, output.labels)
        if output.adversary_scores is not None and output.labels is not None:
            loss = loss + cross_entropy(output.adversary_scores, output.labels)
        if output.generated_scores is not None and output.generated_labels is not None:
            consistency = cross_entropy(output.generated_scores, output.generated_labels)
            loss = loss + self._scale * spec.consistency * consistency
        return loss

    def nll(self, image: Tensor, target: Tensor, log_deviation: Tensor | None = None) -> Tensor:
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
        """Return the most likely log-deviation of a batch, and update the network's running one."""
        spec = self.network.spec
        if spec.likelihood == "bernoulli" or spec.deviation is not None:
            return None
        squared = (image - target).square().mean()
        log_deviation = squared.clamp(min=_MIN_DEVIATION**2).log() / 2
        self.network.log_deviation.lerp_(log_deviation, _MOMENTUM)
        return log_deviation


def _adversary(latent: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent, _ADVERSARY_FEATURES),
        nn.ReLU(),
        nn.Linear(_ADVERSARY_FEATURES, _ADVERSARY_FEATURES),
        nn.ReLU(),
        nn.Linear(_ADVERSARY_FEATURES, classes),
    )


def grad_reverse(latents: Tensor, weight: float) -> Tensor:
    """Return the latents unchanged, with their gradient multiplied by -weight.

    What the adversary learns to read, the encoder unlearns to write (Y. Ganin et al.: Domain-Adversarial
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
    samples: int = 1,
    noise: NoiseSpec | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the negative bound and the divergence in it, both in nats an image, means over ``images[rows]``.

    With one sample it is the negative ELBO, its divergence in closed form; with more the negative
    importance-weighted bound. A conditional model is given the true label. Pixels are binarised as in
    training; noise and binarisation come from the seed, so that every network is measured on the same pixels.

    With noise the encoder sees noisy images, and the bound is still one on the likelihood of the clean ones
    (D. J. Im et al.: Denoising Criterion for Variational Auto-Encoding Framework. AAAI 2017).

    Args:
        model: Network and objective.
        images: uint8 (N, S, S, C).
        rows: Which of them.
        labels: int64 (N,).
        device: Where the network is.
        samples: M.
        noise: Noise added to the input.
        seed: Of noise, binarisation and samples.
    """
    model.eval()
    network = model.network
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    total = divergence = 0.0
    for chosen in np.array_split(rows, -(-len(rows) // max(1, _EVAL_SAMPLES // samples))):
        plain = to_floats(images[chosen])
        target = torch.bernoulli(plain, generator=generator) if model.spec.binarise == "dynamic" else plain
        inputs = (target if noise is None else make_noisy(plain, noise, rng)).to(device)
        mean, log_variance, _ = network.encoder(inputs)
        epsilon = torch.randn(samples, *mean.shape, generator=generator).to(device)
        latents = mean + (log_variance / 2).exp() * epsilon  # (M, B, Z)
        args: tuple[Tensor, ...] = (latents.flatten(0, 1),)
        if isinstance(network, CVAE):
            classes = torch.from_numpy(labels[chosen]).to(device).repeat(samples)
            args += (one_hot(classes, network.spec.classes).float(),)
        decoded = network.decoder(*args).unflatten(0, (samples, len(chosen)))
        nll = model.nll(decoded, target.to(device))  # (M, B)
        kl = kl_divergence(mean, log_variance).sum(1)  # (B,)
        if samples == 1:
            negative = nll[0] + kl
        else:
            negative = -importance_bound(log_importance_weights(latents, epsilon, log_variance) - nll)
        total += negative.sum().item()
        divergence += kl.sum().item()
    return total / len(rows), divergence / len(rows)
