"""``lookalike evaluate groups`` and ``small-faces``: which queries a model finds less well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.evaluate.group import evaluate, print_failures, provider_option, show_progress
from lookalike.deploy.cli.options import combine
from lookalike.deploy.cli.output import print_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lookalike.deploy.evaluation import ImageVectors, LabeledImages
    from lookalike.encoder.images import Crop
    from lookalike.encoder.runtime import Model, Provider

_OPTIONS = (
    click.option("--model", default="faces", show_default=True, metavar="BUNDLE",
                 help="Bundle folder or shipped model."),
    click.option("--data", default="lfw", show_default=True, metavar="lfw|FOLDER",
                 help="Images by person. Of lfw, people search whom no shipped model was trained on; of a "
                 "folder, all."),
    click.option("--crop", metavar="full|center:F|X,Y,W,H",
                 help="How the images are framed, if not as the model expects."),
    click.option("--json", "as_json", is_flag=True, help="Print a list of JSON objects."),
    provider_option,
)  # fmt: skip


@evaluate.command(epilog="Example: lookalike evaluate groups --by Male --by brightness")
@combine(
    click.option("--by", multiple=True, required=True, metavar="brightness|ATTRIBUTE",
                 help="How images are grouped: by the brightness of the face or, of lfw, by an attribute "
                 "such as Male. Repeatable."),
    click.option("--fmr", type=float, default=0.001, show_default=True, metavar="RATE",
                 help="False match rate of the threshold, by the model's calibration."),
    *_OPTIONS,
)  # fmt: skip
@click.pass_context
def groups(
    ctx: click.Context,
    by: tuple[str, ...],
    fmr: float,
    model: str,
    data: str,
    crop: str | None,
    as_json: bool,
    provider: Provider,
) -> None:
    """Compare groups of people: is each found as well as the others, and taken for others as rarely?

    False matches are pairs of two people whose score is above a threshold: within the group, and of one of
    the group with anyone.
    """
    from lookalike.deploy.evaluation import (
        BRIGHTNESS,
        attribute_groups,
        brightness_groups,
        group_table,
        measure_groups,
        read_scored_images,
    )
    from lookalike.encoder.errors import InvalidArgumentError

    opened, images, framing = _open(model, data, crop, provider)
    fitted = opened.bundle.calibration_of(faces=False)
    attributes = [name for name in by if name != BRIGHTNESS]
    if attributes and images.lfw is None:
        raise InvalidArgumentError(
            f"only lfw comes with attributes, {images.name} has no '{attributes[0]}'; use --by {BRIGHTNESS}"
        )
    threshold = None if fitted is None or fitted.scores is None else fitted.scores.threshold(fmr)
    if threshold is None:
        raise InvalidArgumentError(
            f"groups are compared at the threshold of a calibrated model, {model} is not calibrated; run "
            "lookalike calibrate first"
        )
    members: dict[str, NDArray[np.bool_]] = {}
    for name in by:
        members |= (
            brightness_groups(opened, images, crop=framing, progress=show_progress)
            if name == BRIGHTNESS
            else attribute_groups(read_scored_images(data, None).scores, name)
        )
    vectors, asking = _embed(opened, images, framing)
    present = vectors.present
    people = [person or f"/{path}" for person, path in zip(images.people, images.paths, strict=True)]
    measured = measure_groups(
        vectors.rows[present],
        [person for person, there in zip(people, present, strict=True) if there],
        {name: chosen[present] for name, chosen in members.items()},
        queries=asking[present],
        threshold=threshold,
    )
    failed = print_failures(vectors.failures)
    if as_json:
        print_json([row.to_json() | {"threshold": threshold} for row in measured])
    else:
        click.echo(group_table(opened.bundle.name, measured, threshold))
    ctx.exit(3 if failed else 0)


@evaluate.command("small-faces", epilog="Example: lookalike evaluate small-faces --pixels 32 --pixels 16")
@combine(
    click.option("--pixels", "sides", multiple=True, type=click.IntRange(min=1), default=(64, 32, 24, 16),
                 show_default=True, metavar="N",
                 help="Reduce what the model sees to N x N pixels. Repeatable."),
    *_OPTIONS,
)  # fmt: skip
@click.pass_context
def small_faces(
    ctx: click.Context,
    sides: tuple[int, ...],
    model: str,
    data: str,
    crop: str | None,
    as_json: bool,
    provider: Provider,
) -> None:
    """Search with queries of few pixels, enlarged again: is the person still found first?"""
    from lookalike.deploy.evaluation import measure_small_queries, small_query_table

    opened, images, framing = _open(model, data, crop, provider)
    vectors, asking = _embed(opened, images, framing)
    measured = measure_small_queries(
        opened, images, vectors.rows, sides, queries=asking, crop=framing, progress=show_progress
    )
    failed = print_failures(vectors.failures)
    if as_json:
        print_json([row.to_json() for row in measured])
    else:
        click.echo(small_query_table(opened.bundle.name, measured))
    ctx.exit(3 if failed else 0)


def _open(
    model: str, data: str, crop: str | None, provider: Provider
) -> tuple[Model, LabeledImages, Crop | None]:
    from lookalike.deploy.evaluation import open_labeled
    from lookalike.encoder.images import Crop
    from lookalike.encoder.runtime import Model

    framing = None if crop is None else Crop.parse(crop)
    return Model.open(model, provider=provider), open_labeled(data, progress=True), framing


def _embed(model: Model, images: LabeledImages, crop: Crop | None) -> tuple[ImageVectors, NDArray[np.bool_]]:
    """Return the vectors of all images, and which images search."""
    import numpy as np

    from lookalike.deploy.evaluation import embed_images, held_out_people

    vectors = embed_images(model, images, crop=crop, progress=show_progress)
    held_out = None if images.lfw is None else held_out_people(images, seed=0)
    asking = [person is not None and (held_out is None or person in held_out) for person in images.people]
    return vectors, np.array(asking, np.bool_) & vectors.present
