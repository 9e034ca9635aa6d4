"""``lookalike attributes``: fit and list what a picture can be given, asked for and read by."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.deploy.cli.search import crop_option, provider_option

if TYPE_CHECKING:
    from lookalike.deploy.evaluation.fit_data import ScoredImages
    from lookalike.encoder.bundle.attributes import Attributes
    from lookalike.encoder.runtime.model import Provider
    from lookalike.trainer.fitting.attributes import Method

__all__ = ["attributes"]

_folder = click.Path(path_type=Path, file_okay=False)


@click.group()
def attributes() -> None:
    """Fit or list attributes: Smiling and what else can be told."""


@attributes.command(epilog="Example: lookalike attributes fit --model faces --data lfw --out my-faces")
@click.option("--model", default="faces", show_default=True, help="Bundle folder or shipped model.")
@click.option("--data", default="lfw", show_default=True, metavar="lfw|FOLDER", help="Pictures of a --table.")
@click.option(
    "--table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Scores in the form of lfw_attributes.txt, or CSV or JSONL with a column path; empty is unknown. "
    "Default: the table beside lfw.",
)
@click.option("--positive", type=_folder, help="Pictures that have the attribute; with --negative.")
@click.option("--negative", type=_folder, help="Pictures that have it not.")
@click.option("--name", metavar="NAME", help="Of that attribute; default: as the folder of --positive.")
@click.option("--only", metavar="NAME,...", help="These attributes of the table; all when left out.")
@click.option(
    "--method",
    type=click.Choice(["partial", "plain"]),
    default="partial",
    show_default=True,
    help="How it is moved: other attributes and mean colour held fixed, or the plain difference of means.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Where the bundle goes with its attributes; may be the model's own folder.",
)
@crop_option
@click.option("--json", "as_json", is_flag=True, help="An object on stdout.")
@provider_option
@click.pass_context
def fit(
    ctx: click.Context,
    /,
    model: str,
    data: str,
    table: Path | None,
    positive: Path | None,
    negative: Path | None,
    name: str | None,
    only: str | None,
    method: Method,
    out: Path,
    crop: str | None,
    as_json: bool,
    provider: Provider,
) -> None:  # fmt: skip
    """Fit attributes to pictures that are known to have them or not.

    Attributes that the model has already stay, those of the same names excepted. The model itself stays too:
    what is indexed with it can be searched with the copy. AUC is of people left out: of lfw those that no
    shipped model saw, else one in five.
    """
    from tqdm import tqdm

    from lookalike.deploy.evaluation.fit_data import encode_examples
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.encoder.runtime.model import Model
    from lookalike.trainer.fitting.attributes import fit_attributes

    scored = _scored(data, table, positive, negative, name)
    scored = scored.only(tuple(part.strip() for part in only.split(",")) if only else ())
    opened = Model.open(model, provider=provider)
    framing = None if crop is None else Crop.parse(crop)
    with tqdm(desc="encoding", total=len(scored.images), unit="image", disable=None, leave=False) as bar:
        examples, failures = encode_examples(opened, scored, crop=framing, on_progress=bar.update)
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)
    known = opened.bundle.attributes
    fitted = fit_attributes(examples, opened.bundle.affine, method=method, known=known)
    written = opened.bundle.with_attributes(fitted if known is None else known.joined(fitted), out)
    if as_json:
        told = {"bundle": str(out), "model_id": written.model_id, "method": method}
        click.echo(json.dumps(told | {"attributes": [one.to_json() for one in fitted.each]}))
    else:
        _print(fitted)
        click.echo(os.fsencode(out))  # as it is: made to be read by the next program
    ctx.exit(3 if failures else 0)


@attributes.command("list", epilog="Example: lookalike attributes list --model faces")
@click.option("--model", default="faces", show_default=True, help="Bundle folder or shipped model.")
@click.option("--json", "as_json", is_flag=True, help="A list on stdout.")
def list_attributes(model: str, as_json: bool) -> None:
    """List a model's attributes: examples, and how well each is read of people left out of the fit."""
    from lookalike.encoder.bundle.bundle import Bundle

    there = Bundle.open(model).attributes
    if as_json:
        click.echo(json.dumps([] if there is None else [one.to_json() for one in there.each]))
    elif there is None:
        click.echo(f"{model} has no attributes; lookalike attributes fit makes some", err=True)
    else:
        _print(there)


def _scored(
    data: str, table: Path | None, positive: Path | None, negative: Path | None, name: str | None
) -> ScoredImages:
    from lookalike.deploy.evaluation.fit_data import read_scored_images, scored_folders

    if (positive is None) != (negative is None):
        raise click.UsageError("--positive and --negative go together: pictures with it and without it")
    if positive is None or negative is None:
        if name is not None:
            raise click.UsageError("--name is of --positive and --negative; of a table take --only")
        return read_scored_images(data, table)
    if table is not None:
        raise click.UsageError("attributes are fitted to --table or to two folders, not to both")
    return scored_folders(name or positive.resolve().name, positive, negative)


def _print(attributes: Attributes) -> None:
    from lookalike.encoder.images.preprocess import printable

    width = max(9, *(len(printable(name)) for name in attributes.names))
    click.echo(f"{'attribute':<{width}}  {'with':>6} {'without':>7}  {'AUC':>6} {'left out':>8}")
    for one in attributes.each:
        area = "-" if one.auc is None else f"{one.auc:.3f}"
        click.echo(
            f"{printable(one.name):<{width}}  {one.positive:>6} {one.negative:>7}  {area:>6} {one.tested:>8}"
        )
