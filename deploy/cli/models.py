"""``lookalike models``, ``attributes`` and ``calibrate``: bundles, and what is fitted to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from lookalike.deploy.cli.face_options import frame_option
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
    from lookalike.deploy.evaluation import Reliability, ScoredImages
    from lookalike.encoder.bundle import Attributes, Bundle, Calibration
    from lookalike.encoder.detect import Frame
    from lookalike.encoder.images import Crop
    from lookalike.trainer.fitting import Method

_MAX_CLASSES: Final = 20
_LABELS: Final = {
    "none": "trained without labels",
    "person": "trained with identity labels",
    "class": "trained with class labels",
    "unknown": "trained with unknown labels",
}
_FOLDER: Final = LocalPath(file_okay=False)
_NEW_BUNDLE: Final = LocalPath()


class _ListByDefault(Group):
    """Lists when no command is named: ``models``, ``models --json``, ``models BUNDLE``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if known else ["list", *args])


@click.group(cls=_ListByDefault)
def models() -> None:
    """List models, or import an ONNX encoder."""


@models.command("list", epilog="Example: lookalike models list")
@click.argument("bundles", nargs=-1, metavar="[BUNDLE]...")
@json_option("Print a list of objects as JSON on stdout.")
def list_models(bundles: tuple[str, ...], as_json: bool) -> None:
    """List bundles with their metrics: the shipped ones, or those given."""
    from lookalike.encoder.bundle import Bundle, shipped_bundles

    opened = [Bundle.open(name) for name in bundles or shipped_bundles()]
    if as_json:
        print_json([_to_json(bundle) for bundle in opened])
        return
    if not opened:
        log("no shipped bundle; lookalike train makes one")
    for bundle in opened:
        _print_bundle(bundle)


@models.command(
    "import", epilog="Example: lookalike models import my.onnx --mean 127.5 --std 127.5 --bgr --name arcface"
)
@click.argument("network", metavar="FILE.onnx", type=LocalPath())
@option("--name", required=True, metavar="NAME", help="Name of the model and of its folder.")
@option(
    "--out",
    type=LocalPath(),
    default=".",
    show_default=True,
    metavar="FOLDER",
    help="Folder to create the model's folder in.",
)
@option("--size", type=click.IntRange(8, 1024), help="Input side in pixels, if the network accepts any.")
@option(
    "--mean",
    required=True,
    metavar="M[,M,M]",
    help="Subtract this from pixel values of 0 to 255, per channel.",
)
@option("--std", required=True, metavar="S[,S,S]", help="Then divide by this, per channel.")
@option("--rgb/--bgr", "rgb", default=True, show_default=True, help="Order of the input channels.")
@option("--gray", is_flag=True, help="Convert images to gray, even if the network takes three channels.")
@crop_option("Crop of the images.", default="full", show_default=True)
@option("--output", metavar="NAME", help="Output to use, if the network has several.")
@option(
    "--mirror/--no-mirror",
    default=True,
    show_default=True,
    help="Average the vectors of an image and its mirror image.",
)
@frame_option(
    "Where the network expects the landmarks of a face, so that faces of photographs can be cut out for it."
)
def import_(
    network: Path,
    name: str,
    out: Path,
    size: int | None,
    mean: str,
    std: str,
    rgb: bool,
    gray: bool,
    crop: Crop,
    output: str | None,
    mirror: bool,
    frame: Frame | None,
) -> None:
    """Wrap an ONNX encoder as a bundle.

    The model can index and search, but not generate images. The network takes float images, (N, C, H, W) or
    (N, H, W, C), and returns one vector per image; --mean and --std are one number or three, in the order of
    its channels.
    """
    from lookalike.encoder.errors import InvalidArgumentError, printable
    from lookalike.encoder.export.import_model import import_onnx, need_extra

    need_extra()
    from lookalike.encoder.export.onnx_graph import Normalization

    if name in ("", ".", "..") or Path(name).name != name:
        raise InvalidArgumentError(
            f"--name must be a folder name, '{printable(name)}' is not; choose the folder with --out"
        )
    normalization = Normalization(
        mean=_numbers("--mean", mean), std=_numbers("--std", std), rgb=rgb, gray=gray
    )
    folder = out / name
    bundle = import_onnx(
        network,
        folder,
        size=size,
        normalization=normalization,
        crop=crop,
        output=output,
        mirror=mirror,
        frame=frame,
    )
    log(f"{bundle.name}: {_describe(bundle)}")
    if bundle.spec.frame is not None:
        log(_describe_frame(bundle.spec.frame))
    print_path(folder)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise click.BadParameter(
            f"{text!r} must be one number, or three with commas between them", param_hint=name
        )
    return values


def _to_json(bundle: Bundle) -> dict[str, object]:
    likeness = None if bundle.calibration is None else bundle.calibration.scores
    return {
        "name": bundle.name,
        "model_id": bundle.model_id,
        **bundle.manifest.spec.to_json(),
        "calibration": None if likeness is None else likeness.to_json(),
    }


def _describe(bundle: Bundle) -> str:
    spec, image = bundle.spec, bundle.spec.image
    return (
        f"{spec.kind}, {image.size}x{image.size}x{image.channels}, latent {spec.latent}, crop {image.crop}, "
        f"id {bundle.model_id[:12]}"
    )


def _describe_frame(frame: Frame) -> str:
    return f"faces of photographs are cut out for it: frame {frame}"


def _describe_classes(bundle: Bundle) -> str:
    from lookalike.encoder.errors import printable

    names = bundle.spec.classes
    more = f" and {len(names) - _MAX_CLASSES} more" if len(names) > _MAX_CLASSES else ""
    return f"{len(names)} classes: {printable(', '.join(names[: _MAX_CLASSES if more else None]))}{more}"


def _describe_samplers(bundle: Bundle) -> str:
    """Return what ``lookalike generate`` can sample from."""
    spec, sampling = bundle.spec, bundle.sampling
    samplers = ["normal", "gaussian"] if spec.has_prior else ["gaussian"]
    if sampling is not None and sampling.mixture is not None:
        samplers.append(f"gmm ({sampling.mixture.components} Gaussians)")
    by_class = spec.conditional or (sampling is not None and sampling.by_class is not None)
    return f"samplers: {', '.join(samplers)}{'; each class on request' if by_class else ''}"


def _print_bundle(bundle: Bundle) -> None:
    if not bundle.is_denoiser:
        _print_model(bundle)
    else:
        spec = bundle.denoiser_spec
        low, high = (255 * sigma for sigma in spec.deviations)
        click.echo(
            f"{bundle.name}  denoiser, any size, gray or RGB, multiples of {spec.size_multiple}, "
            f"id {bundle.model_id[:12]}"
        )
        click.echo(f"  removes noise of sigma {low:g} to {high:g} (of 255): lookalike denoise")
    for key, value in bundle.manifest.spec.figures.items():
        rows = value if isinstance(value, list) else [value]
        for row in rows:  # a denoiser has one for each noise level of its test
            text = ", ".join(f"{k} {v}" for k, v in row.items()) if isinstance(row, dict) else row
            click.echo(f"  {key:<18} {text}")


def _print_model(bundle: Bundle) -> None:
    click.echo(f"{bundle.name}  {_describe(bundle)}")
    click.echo(f"  {_LABELS[bundle.spec.labels]}")
    if bundle.spec.classes:
        click.echo(f"  {_describe_classes(bundle)}")
    if bundle.spec.frame is not None:
        click.echo(f"  {_describe_frame(bundle.spec.frame)}")
    if "decoder" in bundle.graphs:
        click.echo(f"  {_describe_samplers(bundle)}")
    if bundle.spec.denoises is not None:
        click.echo(f"  trained to remove noise {bundle.spec.denoises}: lookalike reconstruct")
    likeness = None if bundle.calibration is None else bundle.calibration.scores
    if likeness is not None:
        click.echo(
            f"  calibrated on {likeness.people} people: {likeness.matched} matched, "
            f"{likeness.mismatched} mismatched pairs"
        )


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
    from lookalike.deploy.evaluation import cross_validate, find_people, measure_people, plot_reliability
    from lookalike.encoder.errors import CalibrationError
    from lookalike.encoder.runtime import Model
    from lookalike.trainer.fitting import fit_calibration

    if faces and crop is not None:
        raise click.UsageError("--crop does not work with --faces, which frames each face; leave one out")
    opened = Model.open(model, provider=provider)
    images = find_people(source, opened)
    face: Literal["centered", "prominent"] = "centered" if source == "lfw" else "prominent"
    with progress_bar("Measuring", total=len(images)) as bar:
        measured = measure_people(
            opened, images, crop=crop, faces=face if faces else None, on_progress=bar.on_progress
        )
    log_failed(measured.failures)
    fitted = fit_calibration(measured.embeddings, measured.people, measured.errors)
    try:
        validated = cross_validate(measured.embeddings, measured.people)
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
    ctx.exit(3 if measured.failures else 0)


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
