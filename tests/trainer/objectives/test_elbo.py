"""What a VAE is taught: the loss is the bound, and the label is made to matter by the decoder alone.

Legend: N images, Z latent size, K classes, M draws of the latent for each image.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import ElboConfig, VAESpec
from lookalike.trainer.data import to_floats
from lookalike.trainer.models import CVAE, VAE
from lookalike.trainer.objectives import VAEObjective, evaluate_elbo
from lookalike.trainer.objectives.elbo import VAEOutput, grad_reverse
from lookalike.trainer.objectives.losses import bernoulli_nll, kl_divergence
from tests.fixtures.class_images import shapes

CPU = torch.device("cpu")
IMAGES = shapes(4)
LABELS = np.repeat(np.arange(3), 4)
TOLD = torch.from_numpy(LABELS)
BATCH = to_floats(IMAGES)


def made(classes: int = 0, *, shape: dict[str, Any] | None = None, **changes: Any) -> VAEObjective:
    torch.manual_seed(0)
    spec = VAESpec(
        size=16, channels=1, latent=3, hidden=8, down=(4, 4), up=(4, 4), classes=classes, **(shape or {})
    )
    return VAEObjective(CVAE(spec) if classes else VAE(spec), ElboConfig(**changes))


def gradients(module: nn.Module) -> list[Tensor]:
    return [weights.grad for weights in module.parameters() if weights.grad is not None]


def test_loss_of_one_draw_is_the_negative_elbo() -> None:
    model = made()
    drawn = model(BATCH)
    assert drawn.image.shape == (1, 12, 1, 16, 16)
    torch.testing.assert_close(drawn.latents, drawn.mean + (drawn.log_variance / 2).exp() * drawn.noise)
    expected = bernoulli_nll(drawn.image[0], BATCH) + kl_divergence(drawn.mean, drawn.log_variance).sum(1)
    torch.testing.assert_close(model.loss(drawn, BATCH, 1.0), expected.mean())


def test_weight_of_the_divergence_rises_over_the_warm_up() -> None:
    model = made(beta=2.0, beta_warmup=0.5)
    drawn = model(BATCH)
    lost = bernoulli_nll(drawn.image[0], BATCH).mean().item()
    kl = kl_divergence(drawn.mean, drawn.log_variance).sum(1).mean().item()
    for progress, weight in ((0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (1.0, 2.0)):
        assert model.loss(drawn, BATCH, progress).item() == pytest.approx(lost + weight * kl, rel=1e-5)


def test_several_draws_are_weighed_by_importance() -> None:
    model = made(importance=5)
    drawn = model(BATCH)
    assert drawn.image.shape == (5, 12, 1, 16, 16)
    weights = torch.distributions.Normal(0.0, 1.0).log_prob(drawn.latents).sum(2)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    posterior = torch.distributions.Normal(drawn.mean, (drawn.log_variance / 2).exp())
    weights = weights - posterior.log_prob(drawn.latents).sum(2) - bernoulli_nll(drawn.image, BATCH)  # type: ignore[no-untyped-call]  # the same
    expected = -(weights.logsumexp(0) - math.log(5)).mean()
    torch.testing.assert_close(model.loss(drawn, BATCH, 1.0), expected)


def test_deviation_that_is_not_given_is_that_of_the_batch() -> None:
    model = made(shape={"likelihood": "gaussian"}, beta=0.0)
    drawn = model(BATCH)
    squared = (drawn.image[0] - BATCH).square().mean()
    expected = 256 * (squared.log() + math.log(2 * math.pi) + 1) / 2
    torch.testing.assert_close(model.loss(drawn, BATCH, 1.0), expected)
    after = 0.9 * math.log(0.2) + 0.1 * squared.log().item() / 2
    assert model.network.log_deviation.item() == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize("given", [None, 0.1])
def test_deviation_runs_only_where_it_is_learned_and_down_to_a_floor(given: float | None) -> None:
    model = made(shape={"likelihood": "gaussian", "deviation": given})
    drawn = model(BATCH)
    for _ in range(200):
        model.loss(drawn, drawn.image[0].detach(), 1.0)
    assert model.network.log_deviation.exp().item() == pytest.approx(given or 0.01, rel=1e-3)


def test_label_weighs_as_much_in_a_large_picture_as_in_a_digit() -> None:
    torch.manual_seed(0)
    spec = VAESpec(size=56, channels=3, latent=3, hidden=8, down=(4, 4), up=(4, 4), classes=3)
    weights: dict[str, Any] = {"label_weight": 2.0, "consistency": 3.0, "adversarial_weight": 5.0}
    model = VAEObjective(CVAE(spec), ElboConfig(**weights))
    images = torch.rand(6, 3, 56, 56)
    drawn = model(images, TOLD[:6])
    bare = model.loss(drawn._replace(scores=None, generated_scores=None), images, 1.0)
    times = 12  # values of this picture for each of a digit's
    expected = 2.0 * times * cross_entropy(drawn.scores, TOLD[:6])
    expected = expected + 3.0 * times * cross_entropy(drawn.generated_scores, drawn.generated_labels)
    torch.testing.assert_close(model.loss(drawn, images, 1.0) - bare, expected, rtol=1e-3, atol=1e-2)
    assert model.adversary is not None
    told = TOLD[:6]
    weights_of_mean = model.network.encoder.mean.weight
    turned, plain = (
        torch.autograd.grad(cross_entropy(guessed, told), weights_of_mean, retain_graph=True)[0]
        for guessed in (drawn.adversary_scores, model.adversary(drawn.latents[0]))
    )
    torch.testing.assert_close(turned, -5.0 * times * plain)


def test_labels_teach_the_encoder_and_consistency_the_decoder_alone() -> None:
    model = made(3, label_weight=1.0, consistency=1.0)
    model.network.decoder.eval()  # statistics of the batch would be shared with what is reconstructed
    drawn = model(BATCH, TOLD)
    assert isinstance(drawn, VAEOutput)
    assert drawn.scores is not None
    assert drawn.generated_scores is not None
    assert drawn.generated_labels is not None
    assert drawn.image.shape == (1, 12, 1, 16, 16)
    assert drawn.generated_scores.shape == (12, 3)
    assert set(drawn.generated_labels.tolist()) <= {0, 1, 2}
    cross_entropy(drawn.generated_scores, drawn.generated_labels).backward(retain_graph=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert not any(bool(gradient.any()) for gradient in gradients(model.network.encoder))
    assert any(bool(gradient.any()) for gradient in gradients(model.network.decoder))
    model.zero_grad()
    cross_entropy(drawn.scores, TOLD).backward()  # type: ignore[no-untyped-call]  # the same
    assert any(bool(gradient.any()) for gradient in gradients(model.network.encoder))
    assert not gradients(model.network.decoder)


def test_pictures_to_be_recognised_are_of_the_same_latents_where_these_will_be_aligned() -> None:
    model = made(3, align=True).eval()
    drawn = model(BATCH, TOLD)
    assert isinstance(model.network, CVAE)
    assert drawn.generated_labels is not None
    pictures = model.network.decoder(drawn.latents[0], torch.eye(3)[drawn.generated_labels]).sigmoid()
    torch.testing.assert_close(drawn.generated_scores, model.network.classify_frozen(pictures))


def test_guesser_learns_the_class_of_a_latent_and_the_encoder_to_hide_it() -> None:
    found = {}
    for weight in (0.5, 1.0):
        model = made(3, label_weight=0.0, consistency=0.0, beta=0.0, adversarial_weight=weight)
        assert model.adversary is not None
        drawn = model(BATCH, TOLD)
        loss = cross_entropy(drawn.adversary_scores, TOLD)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        found[weight] = [gradients(model.adversary), gradients(model.network.encoder)]
        assert not gradients(model.network.decoder)
        plain = cross_entropy(model.adversary(drawn.latents[0].detach()), TOLD)
        torch.testing.assert_close(loss, plain)
    for half, whole in zip(found[0.5][0], found[1.0][0], strict=True):
        torch.testing.assert_close(half, whole)
    for half, whole in zip(found[0.5][1], found[1.0][1], strict=True):
        torch.testing.assert_close(2 * half, whole)


def test_latents_are_turned_only_on_the_way_back() -> None:
    latents = torch.randn(4, 3, requires_grad=True)
    turned = grad_reverse(latents, 2.0)
    torch.testing.assert_close(turned, latents)
    turned.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    torch.testing.assert_close(latents.grad, torch.full((4, 3), -2.0))


def test_class_is_guessed_of_a_conditional_model_only_and_if_wanted() -> None:
    assert made(adversarial_weight=1.0).adversary is None
    assert made(3, adversarial_weight=0.0).adversary is None
    assert made(3, adversarial_weight=0.0)(BATCH, TOLD).adversary_scores is None


def test_reconstruction_teaches_the_class_head_nothing() -> None:
    model = made(3, label_weight=0.0, consistency=0.0)
    drawn = model(BATCH, TOLD)
    assert drawn.generated_scores is None
    model.loss(drawn, BATCH, 1.0).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    head = model.network.encoder.label
    assert head is not None
    assert not any(bool(gradient.any()) for gradient in gradients(head))


def test_decoder_is_told_the_true_label() -> None:
    model = made(3, consistency=0.0).eval()
    for name, weights in model.network.decoder.named_parameters():
        if "told" in name:
            nn.init.normal_(weights)
    drawn = model(BATCH, TOLD)
    expected = model.network.decoder(drawn.latents[0], torch.eye(3)[TOLD])
    torch.testing.assert_close(drawn.image[0], expected)


def test_conditional_model_without_labels_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="with labels"):
        made(3)(BATCH)


@pytest.mark.parametrize("classes", [0, 3])
def test_measured_bound_is_the_elbo_over_all_images_whatever_the_pieces(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(classes)
    rows = np.arange(12)
    negative, apart = evaluate_elbo(model, IMAGES, rows, LABELS, device=CPU)
    with torch.no_grad():
        mean, log_variance, _ = model.network.encoder(BATCH)
        noise = torch.randn(1, 12, 3, generator=torch.Generator().manual_seed(0))[0]
        told = (torch.eye(3)[TOLD],) if classes else ()
        image = model.network.decoder(mean + (log_variance / 2).exp() * noise, *told)
        kl = kl_divergence(mean, log_variance).sum(1)
        expected = bernoulli_nll(image, BATCH) + kl
    assert negative == pytest.approx(expected.mean().item(), rel=1e-5)
    assert apart == pytest.approx(kl.mean().item(), rel=1e-5)
    monkeypatch.setattr("lookalike.trainer.objectives.elbo._EVAL_SAMPLES", 5)
    assert evaluate_elbo(model, IMAGES, rows, LABELS, device=CPU)[1] == pytest.approx(apart, rel=1e-5)
    assert model.training is False


def test_more_draws_give_a_higher_bound() -> None:
    model = made()
    nn.init.constant_(model.network.encoder.log_variance.bias, 2.0)
    rows = np.arange(12)
    one, two, many = (
        evaluate_elbo(model, IMAGES, rows, LABELS, device=CPU, samples=draws)[0] for draws in (1, 2, 100)
    )
    assert one > two + 1 > many + 2  # z hardly matters yet: the divergence of 6.6 nats is all for nothing
    assert evaluate_elbo(model, IMAGES, rows, LABELS, device=CPU, samples=1000)[0] == pytest.approx(
        many, abs=0.3
    )


def test_binarised_pixels_are_the_same_each_time_and_not_the_grey_ones() -> None:
    rows = np.arange(12)
    drawn = made(binarise="dynamic")
    first, again = (evaluate_elbo(drawn, IMAGES, rows, LABELS, device=CPU)[0] for _ in range(2))
    assert first == again != evaluate_elbo(made(), IMAGES, rows, LABELS, device=CPU)[0]
    assert first != evaluate_elbo(drawn, IMAGES, rows, LABELS, device=CPU, seed=1)[0]


def test_gaussian_pixels_are_measured_by_their_deviation() -> None:
    model = made(shape={"likelihood": "gaussian", "deviation": 0.5})
    drawn = model(BATCH)
    apart = ((drawn.image - BATCH) / 0.5).square() / 2 + math.log(0.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(model.nll(drawn.image, BATCH), apart.sum((2, 3, 4)))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"importance": 0}, "importance must be 1 to 10,000, not 0"),
        ({"beta": -1.0}, "beta must be 0 or more"),
        ({"beta_warmup": 2.0}, "beta_warmup must be 0 to 1"),
        ({"free_bits": math.nan}, "free_bits must be 0 or more"),
        ({"label_weight": -1.0}, "label_weight"),
        ({"consistency": math.inf}, "consistency"),
        ({"binarise": "static"}, "one of dynamic, none, not static"),
        ({"importance": 5, "free_bits": 0.1}, r"needs the ELBO \(importance 1\), got importance 5"),
    ],
)
def test_bounds_that_cannot_be_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rule):
        ElboConfig(**changes)
