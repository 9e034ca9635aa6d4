"""``lookalike evaluate generation``: what a model of digits draws is worth.

It stands here and not in the searcher because the judge is trained, and the searcher never imports the
trainer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lookalike.deploy.evaluation.handwriting import MnistData
    from lookalike.deploy.evaluation.yardstick import GenerationPlan
    from lookalike.encoder.runtime.model import Model
    from lookalike.encoder.runtime.session import Provider

__all__ = ["generation"]

_PARTS = ("likelihood", "accuracy", "diversity", "distance", "neighbours")


def _parts(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...]:
    named = _PARTS if text is None else tuple(part.strip() for part in text.split(","))
    unknown = [part for part in named if part not in _PARTS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(_PARTS)}; join several with commas")
    return named


@click.command(epilog="Example: lookalike evaluate generation --model digits --only likelihood --images 500")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="BUNDLE",
    required=True,
    help="Bundle folder or shipped model of digits. Again for more.",
)
@click.option(
    "--only",
    "parts",
    metavar="PART,...",
    callback=_parts,
    help=f"Some of {', '.join(_PARTS)}; all when left out.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Test digits whose likelihood is measured, drawn at random when fewer than all.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=5_000,
    show_default=True,
    help="Of each digit, for its likelihood.",
)
@click.option(
    "--few",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Samples of all other digits: with --images 1000 --few 200 the figure speaks of all.",
)
@click.option(
    "--drawn",
    type=click.IntRange(min=50),
    default=10_000,
    show_default=True,
    help="Pictures that the judge sees of each sampler.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is drawn."
)
@click.option("--markdown", is_flag=True, help="A table for a README, published figures beside.")
@click.option("--json", "as_json", is_flag=True, help="An object on stdout.")
@click.option("--provider", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.pass_context
def generation(
    ctx: click.Context,
    /,
    models: tuple[str, ...],
    parts: tuple[str, ...],
    images: int,
    samples: int,
    few: int,
    drawn: int,
    seed: int,
    markdown: bool,
    as_json: bool,
    provider: Provider,
) -> None:  # fmt: skip
    """How likely a model finds test digits, and what its own are worth.

    Likelihood in nats of binary digits by two protocols; how often a classifier sees the digit that was asked
    for, and how much digits of a class differ; how near drawn digits come to real ones; how often the nearest
    neighbours of a latent are right. The classifier is trained once (some 15 minutes, with the [train] extra)
    and kept in the cache; it never saw a drawn digit. 5,000 samples of all 10,000 digits are 50 million
    drawings, hours by each protocol; --images 1000 --few 200 comes within some 0.02 nats in a seventh of it.
    """
    from lookalike.deploy.evaluation.generation import generation as measured
    from lookalike.deploy.evaluation.generation_tables import generation_lines, generation_markdown
    from lookalike.deploy.evaluation.handwriting import MnistData
    from lookalike.deploy.evaluation.yardstick import GenerationPlan, prepare_benchmark
    from lookalike.encoder.runtime.model import Model

    if markdown and as_json:
        raise click.UsageError("--markdown and --json are two forms of one answer; take one")
    plan = GenerationPlan(parts=parts, images=images, samples=samples, few=few, drawn=drawn, seed=seed)  # type: ignore[arg-type]
    opened = [Model.open(name, provider=provider) for name in models]
    digits = MnistData.mnist(progress=True)
    for model in opened:
        digits.require(model)
    beside = prepare_benchmark(plan, digits, _judge(plan, digits, provider), opened, steps=_steps)
    found = [measured(model, beside, steps=_steps) for model in opened]
    for remark in (remark for each in found for remark in each.remarks):
        click.echo(remark, err=True)
    if as_json:
        click.echo(json.dumps(beside.to_json() | {"models": [each.to_json() for each in found]}))
    else:
        click.echo(generation_markdown(beside, found) if markdown else generation_lines(beside, found))
    ctx.exit(3 if any(each.remarks for each in found) else 0)


def _judge(plan: GenerationPlan, digits: MnistData, provider: Provider) -> Model | None:
    """Return the judge from the cache, trained first where it is not there; None where no part needs it."""
    from lookalike.encoder.errors import MissingExtraError
    from lookalike.encoder.runtime.model import Model

    if not plan.judged:
        return None
    try:
        from lookalike.trainer.recipes.classifier import cached_classifier
    except ImportError as error:
        raise MissingExtraError(
            "the judge is trained with PyTorch; pip install 'lookalike[train]', or measure "
            "--only likelihood,neighbours"
        ) from error
    train = digits.train
    bundle = cached_classifier(
        train.images, train.labels, digits.classes, log=lambda line: click.echo(line, err=True)
    )
    return Model(bundle, provider=provider)


@contextmanager
def _steps(what: str, total: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(desc=what, total=total, unit_scale=True, disable=None, leave=False) as bar:
        yield bar.update
