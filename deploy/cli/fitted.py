"""``lookalike attributes`` and ``lookalike calibrate``: what is fitted to bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from lookalike.deploy.cli.options import (
    Group,
    LocalPath,
    Provider,
    command,
    crop_option,
    json_option,
    model_option,
    option,
    provider_option,
)
from lookalike.deploy.cli.output import (
    log,
    log_failed,
    print_json,
    print_path,
    progress_bar,
    save_sheet,
    warn,
)

if TYPE_CHECKING:
    from lookalike.deploy.evaluation import MeasuredPeople, Reliability, ScoredImages
    from lookalike.encoder.bundle import Attributes, Calibration
    from lookalike.encoder.images import Crop
    from lookalike.trainer.fitting import Method

_FOLDER: Final = LocalPath(file_okay=False)
_NEW_BUNDLE: Final = LocalPath()


@click.group(cls=Group)
def attributes() -> None:
    """Fit or list attributes of faces, such as Smiling."""


@attributes.command(epilog="Example: lookalike attributes fit --model faces --data lfw --out my-faces")
@model_option()
@option("--data", default="lfw", show_default=True, metavar="lfw|FOLDER", help="Images that --table scores.")
@option(
    "--table",
    type=LocalPath(dir_okay=False),
    help="Scores: a file like lfw_attributes.txt, or CSV or JSONL with a column 'path'; empty: unknown.",
    show_default="the table of lfw",
)
@option("--positive", type=_FOLDER, help="Folder of images with the attribute; needs --negative.")
@option("--negative", type=_FOLDER, help="Folder of images without the attribute; needs --positive.")
@option("--name", metavar="NAME", help="Name of that attribute.", show_default="folder name of --positive")
@option("--only", metavar="NAME,...", help="Fit only these attributes of the table.")
@option(
    "--method",
    type=click.Choice(["partial", "plain"]),
    default="partial",
    show_default=True,
    help="Edit direction: partial keeps other attributes and the mean color fixed, plain is the difference "
    "of the means.",
)
@option(
    "--out",
    required=True,
    type=_NEW_BUNDLE,
    metavar="BUNDLE",
    help="Folder of the new bundle; may be the model's own folder.",
)
@crop_option()
@json_option()
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
    crop: Crop | None,
    as_json: bool,
    provider: Provider,
) -> None:
    """Fit attributes to labeled images.

    The new bundle keeps the model's other attributes, and searches collections indexed with the model. AUC is
    measured on people left out of the fit: for lfw those that no shipped model saw, else one in five.
    """
    from lookalike.deploy.evaluation import encode_examples
    from lookalike.encoder.runtime import Model
    from lookalike.trainer.fitting import fit_attributes

    scored = _scored(data, table, positive, negative, name)
    scored = scored.only(tuple(part.strip() for part in only.split(",")) if only else ())
    opened = Model.open(model, provider=provider)
    with progress_bar("Encoding", total=len(scored.images)) as bar:
        examples, failures = encode_examples(opened, scored, crop=crop, on_progress=bar.on_progress)
    log_failed(failures)
    known = opened.bundle.attributes
    fitted = fit_attributes(examples, opened.bundle.affine, method=method, known=known)
    bundle = opened.bundle.with_attributes(fitted if known is None else known.joined(fitted), out)
    if as_json:
        record = {"bundle": str(out), "model_id": bundle.model_id, "method": method}
        print_json(record | {"attributes": [each.to_json() for each in fitted.each]})
    else:
        _print_attributes(fitted)
        print_path(out)
    ctx.exit(3 if failures else 0)


@attributes.command("list", epilog="Example: lookalike attributes list --model faces")
@model_option()
@json_option("Print a list of objects as JSON on stdout.")
def list_attributes(model: str, as_json: bool) -> None:
    """List a model's attributes: number of examples, and AUC on people left out of the fit."""
    from lookalike.encoder.bundle import Bundle

    known = Bundle.open(model).attributes
    if as_json:
        print_json([] if known is None else [each.to_json() for each in known.each])
    elif known is None:
        log(f"{model} has no attributes; add some with lookalike attributes fit")
    else:
        _print_attributes(known)


def _scored(
    data: str, table: Path | None, positive: Path | None, negative: Path | None, name: str | None
) -> ScoredImages:
    from lookalike.deploy.evaluation import read_scored_images, scored_folders

    if (positive is None) != (negative is None):
        raise click.UsageError(
            "--positive and --negative need each other: images with and without the attribute"
        )
    if positive is None or negative is None:
        if name is not None:
            raise click.UsageError("--name needs --positive and --negative; for a table use --only")
        return read_scored_images(data, table)
    if table is not None:
        raise click.UsageError("--table does not work with --positive and --negative; leave one out")
    return scored_folders(name or positive.resolve().name, positive, negative)


def _print_attributes(attributes: Attributes) -> None:
    from lookalike.encoder.errors import printable

    width = max(9, *(len(printable(name)) for name in attributes.names))
    click.echo(f"{'attribute':<{width}}  {'with':>6} {'without':>7}  {'AUC':>6} {'left out':>8}")
    for each in attributes.each:
        area = "-" if each.auc is None else f"{each.auc:.3f}"
        name = f"{printable(each.name):<{width}}"
        click.echo(f"{name}  {each.positive:>6} {each.negative:>7}  {area:>6} {each.tested:>8}")


@command(epilog="Example: lookalike calibrate people/ --model faces --out my-faces")
@click.argument("source", metavar="FOLDER|lfw")
@model_option()
@option(
    "--out",
    required=True,
    type=_NEW_BUNDLE,
    metavar="BUNDLE",
    help="Folder of the new bundle; may be the model's own folder.",
)
@crop_option()
@option(
    "--faces",
    is_flag=True,
    help="Fit the calibration of faces that are found in whole photographs and turned upright; the other one "
    "stays. Of several faces the most prominent counts, for lfw that in the middle.",
)
@option(
    "--reliability",
    type=LocalPath(),
    metavar="FILE.png",
    help="Save a reliability diagram: predicted probability against observed frequency.",
)
@json_option()
@provider_option
@click.pass_context
def calibrate(
    ctx: click.Context,
    source: str,
    model: str,
    out: Path,
    crop: Crop | None,
    faces: bool,
    reliability: Path | None,
    as_json: bool,
    provider: Provider,
) -> None:
    """Fit match probabilities and thresholds to labeled people.

    FOLDER has one subfolder per person; the model must not have been trained on these people. With lfw, only
    people outside our reported test results are used. The new bundle searches collections indexed with the
    model: search --model BUNDLE. The printed metrics are cross-validated over people.
    """
    from lookalike.deploy.evaluation import (
        cross_validate,
        find_bystanders,
        find_people,
        measure_people,
        plot_reliability,
    )
    from lookalike.encoder.errors import CalibrationError
    from lookalike.encoder.runtime import Model
    from lookalike.trainer.fitting import fit_calibration

    if faces and crop is not None:
        raise click.UsageError("--crop does not work with --faces, which frames each face; leave one out")
    opened = Model.open(model, provider=provider)
    images = find_people(source, opened)
    face: Literal["centered", "prominent"] = "centered" if source == "lfw" else "prominent"

    def measure(task: str, chosen: list[tuple[Path, str]], *, reconstruct: bool) -> MeasuredPeople:
        with progress_bar(task, total=len(chosen)) as bar:
            return measure_people(
                opened,
                chosen,
                crop=crop,
                faces=face if faces else None,
                reconstruct=reconstruct,
                on_progress=bar.on_progress,
            )

    measured = measure("Measuring", images, reconstruct=True)
    failures, others = measured.failures, None
    if source == "lfw":
        more = measure("Measuring other people", find_bystanders(images), reconstruct=False)
        failures, others = failures + more.failures, more.embeddings
    log_failed(failures)
    # Faces that were found are faces: there the errors are enough.
    off_axis = None if faces else measured.off_axis
    fitted = fit_calibration(
        measured.embeddings, measured.people, measured.errors, off_axis=off_axis, others=others
    )
    try:
        validated = cross_validate(measured.embeddings, measured.people, others)
    except CalibrationError as error:
        if reliability is not None:
            raise
        warn(f"not cross-validated: {error}")
        validated = None
    if reliability is not None and validated is not None:
        log(save_sheet(reliability, plot_reliability(validated)))
    bundle = opened.bundle.recalibrated(fitted, out, faces=faces)
    if as_json:
        print_json(_calibration_json(fitted, validated) | {"bundle": str(out), "model_id": bundle.model_id})
    else:
        _print_calibration(fitted, validated)
        print_path(out)
    ctx.exit(3 if failures else 0)


def _calibration_json(fitted: Calibration, validated: Reliability | None) -> dict[str, object]:
    likeness, errors = fitted.scores, fitted.reconstruction_errors
    return {
        "likeness": None if likeness is None else likeness.to_json(),
        "errors": None if errors is None else errors.to_json(),
        "reliability": None if validated is None else validated.to_json(),
    }


def _print_calibration(fitted: Calibration, validated: Reliability | None) -> None:
    likeness = fitted.scores
    if likeness is None:
        raise AssertionError("a calibration fitted to people has a score calibration")
    click.echo(
        f"{likeness.people} people, {likeness.matched} matched and {likeness.mismatched} mismatched pairs"
    )
    for rate in sorted(likeness.thresholds, reverse=True):
        click.echo(f"  false match rate {rate:<6g} above {likeness.thresholds[rate]:.3f}")
    if validated is not None:
        right = "" if validated.sure_right is None else f", {validated.sure_right:.3f} of them right"
        click.echo(f"  Cllr of pairs          {validated.cllr:.3f} bits")
        click.echo(
            f"  calibration error      {validated.pair_error:.3f} of pairs, {validated.hit_error:.3f} of hits"
        )
        click.echo(f"  log loss of hits       {validated.hit_log_loss:.4f}")
        click.echo(f"  hits with p over 0.5   {validated.sure} of {validated.hits}{right}")
