"""``lookalike models``: bundles listed, shown and described, and made of networks from elsewhere."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lookalike.deploy.cli.face_options import frame_option
from lookalike.deploy.cli.hub import SHIPPED_LICENCE, models_folder, pull, push
from lookalike.deploy.cli.options import Group, LocalPath, crop_option, json_option, option, store_option
from lookalike.deploy.cli.output import log, print_json, print_path

if TYPE_CHECKING:
    from lookalike.encoder.bundle import Bundle, BundleSpec, DenoiserSpec
    from lookalike.encoder.detect import Frame
    from lookalike.encoder.export.preprocessing import Preprocessing
    from lookalike.encoder.export.text_tower import TextFiles
    from lookalike.encoder.images import Crop, Resampling

_MAX_CLASSES: Final = 20
_LABELS: Final = {
    "none": "trained without labels",
    "person": "trained with identity labels",
    "class": "trained with class labels",
    "unknown": "how it was trained is not known",
}
_PRESETS: Final = ("clip", "imagenet", "arcface", "sface", "dinov2")


class _ListByDefault(Group):
    """Lists when no command is named, and shows the models that are: ``models``, ``models NAME``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            named = any(not each.startswith("-") for each in args) and args[:1] != ["--store"]
            args = ["show" if named else "list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def models() -> None:
    """List models, or import an encoder from elsewhere."""


models.add_command(push)
models.add_command(pull)


@models.command("list", epilog="Example: lookalike models list")
@store_option
@json_option("Print a list of objects as JSON on stdout.")
def list_models(store: str, as_json: bool) -> None:
    """List models, a line each: those that are shipped, your own, and those of collections.

    Your own lie in the folder LOOKALIKE_MODELS or, without it, in your user data folder. Any of them can be
    used by its name: --model NAME.
    """
    from lookalike.encoder.bundle import own_bundles, read_manifest, shipped_bundles
    from lookalike.encoder.errors import BundleError, printable

    places = [(name, folder, "shipped") for name, folder in shipped_bundles().items()]
    places += [(name, folder, str(folder)) for name, folder in own_bundles().items()]
    used = _models_of_collections(store)
    known = {folder.resolve() for _, folder, _ in places}
    places += [(folder.name, folder, str(folder)) for folder in used if folder not in known]
    records: list[dict[str, Any]] = []
    width = max((len(printable(name)) for name, _, _ in places), default=0)
    for name, folder, where in places:
        collections = used.get(folder.resolve(), [])
        try:
            manifest = read_manifest(folder)
        except BundleError as error:
            log(str(error))
            continue
        shown = {"name": name, "model_id": manifest.model_id, **manifest.spec.to_json()}
        records.append({**shown, "folder": str(folder), "collections": collections})
        if not as_json:
            uses = f"; collections: {', '.join(map(printable, collections))}" if collections else ""
            click.echo(f"{printable(name):<{width}}  {_in_short(manifest.spec)}; {printable(where)}{uses}")
    if as_json:
        print_json(records)


def _models_of_collections(address: str) -> dict[Path, list[str]]:
    """Return the bundles that made the collections of a store, folder to collections; no store is made."""
    from lookalike.encoder.bundle import resolve_model
    from lookalike.encoder.errors import BundleError, StoreError, printable
    from lookalike.indexer.open import open_store

    found: dict[Path, list[str]] = {}
    if not address.startswith(("http://", "https://")) and not Path(address).is_dir():
        return found
    try:
        with open_store(address) as store:
            made_by = {name: store.info(name).model_name for name in store.list_collections()}
    except StoreError as error:
        log(f"models of collections are not listed: {error}")
        return found
    for name, model in made_by.items():
        try:
            found.setdefault(resolve_model(model), []).append(name)
        except BundleError:
            log(f"collection {name} was made by {printable(model)}, which is not here any more")
    return found


def _in_short(spec: BundleSpec | DenoiserSpec) -> str:
    """Return kind, input and size of a model in some words."""
    from lookalike.encoder.bundle import BundleSpec

    if not isinstance(spec, BundleSpec):
        return "denoiser, images of any size"
    image = spec.image
    words = [spec.kind, f"{image.size}x{image.size}x{image.channels}", f"vectors of {spec.embedding}"]
    if spec.text is not None:
        words.append("takes text")
    if spec.frame is not None:
        words.append("for faces")
    return ", ".join(words)


@models.command("show", epilog="Example: lookalike models show faces")
@click.argument("bundles", nargs=-1, required=True, metavar="NAME...")
@json_option("Print a list of objects as JSON on stdout.")
def show_models(bundles: tuple[str, ...], as_json: bool) -> None:
    """Show all that models say of themselves, with their figures. NAME is a name or a folder."""
    from lookalike.encoder.bundle import Bundle

    opened = [Bundle.open(name) for name in bundles]
    if as_json:
        print_json([_to_json(bundle) for bundle in opened])
        return
    for bundle in opened:
        _print_bundle(bundle)


@models.command("card", epilog="Example: lookalike models card faces")
@click.argument("bundle", metavar="NAME")
def card(bundle: str) -> None:
    """Print the card of a model: what it is, what it was trained on, its figures and limits, in Markdown.

    It is made of the model's bundle.json. NAME is a name or a folder.
    """
    from lookalike.encoder.bundle import is_shipped, model_card, read_manifest, resolve_model

    folder = resolve_model(bundle)
    licence = SHIPPED_LICENCE if is_shipped(folder) else None
    click.echo(model_card(folder.name, read_manifest(folder), licence=licence), nl=False)


_out_option: Final = option(
    "--out",
    type=LocalPath(),
    metavar="FOLDER",
    help="Folder to create the model's folder in.",
    show_default="LOOKALIKE_MODELS, or models in your user data folder",
)


@models.command("add", epilog="Example: lookalike models add clip-vit-b-32")
@click.argument("name", required=False)
@_out_option
@json_option("Print a list of objects as JSON on stdout: what can be downloaded.")
def add(name: str | None, out: Path | None, as_json: bool) -> None:
    """Download a public model by its name; without NAME, list what there is.

    Each is shown with its size and licence, which applies to you. Files are taken only with the digest that
    is known here, from the address of their publisher or from LOOKALIKE_MIRRORS.
    """
    from lookalike.encoder.export.import_model import need_extra

    need_extra()
    from lookalike.encoder.export.public_models import add_model, public_models

    known = public_models()
    if name is None:
        if as_json:
            print_json([model.to_json() for model in known.values()])
            return
        width = max(map(len, known))
        for model in known.values():
            click.echo(
                f"{model.name:<{width}}  {model.bytes / 1e6:>4.0f} MB  {model.licence:<10}  {model.about}"
            )
        return
    if name in known:
        model = known[name]
        log(f"{name}: {model.bytes / 1e6:.0f} MB, licence {model.licence}, from {model.page}")
    folder = models_folder(out) / name
    _report_import(add_model(name, folder, progress=True), folder)


@models.command("import", epilog="Example: lookalike models import my.onnx --preset clip --name my-clip")
@click.argument("network", metavar="FILE.onnx|FOLDER|torchvision:NAME", type=LocalPath(path_type=str))
@option("--name", metavar="NAME", help="Name of the model and of its folder.", show_default="as the network")
@_out_option
@option(
    "--preset",
    type=click.Choice(_PRESETS),
    help="How images are prepared, as for networks of this family; the options below override it.",
)
@option("--size", type=click.IntRange(8, 1024), help="Input side in pixels, if the network accepts any.")
@option("--mean", metavar="M[,M,M]", help="Subtract this from pixel values of 0 to 255, per channel.")
@option("--std", metavar="S[,S,S]", help="Then divide by this, per channel.")
@option("--rgb/--bgr", "rgb", default=None, help="Order of the input channels.", show_default="RGB")
@option("--gray", is_flag=True, help="Convert images to gray, even if the network takes three channels.")
@crop_option("Crop of the images.", show_default="full")
@option(
    "--resampling",
    type=click.Choice(["bilinear", "bicubic", "lanczos"]),
    help="Filter that resizes images.",
    show_default="bilinear",
)
@option("--output", metavar="NAME", help="Output to use, if the network has several.")
@option(
    "--mirror/--no-mirror",
    default=None,
    help="Average the vectors of an image and its mirror image.",
    show_default="yes, if no preset, folder or torchvision says otherwise",
)
@frame_option(
    "Where the network expects the landmarks of a face, so that faces of photographs can be cut out for it."
)
@option("--text", "text_graph", type=LocalPath(), metavar="FILE.onnx", help="Its text tower.")
@option("--tokenizer", type=LocalPath(), metavar="FILE.json", help="tokenizer.json of the text tower.")
@option(
    "--weights",
    type=LocalPath(dir_okay=False),
    metavar="FILE",
    help="Weights of a torchvision network, instead of downloading them.",
)
def import_(
    network: str,
    name: str | None,
    out: Path | None,
    preset: str | None,
    size: int | None,
    mean: str | None,
    std: str | None,
    rgb: bool | None,
    gray: bool,
    crop: Crop | None,
    resampling: Resampling | None,
    output: str | None,
    mirror: bool | None,
    frame: Frame | None,
    text_graph: Path | None,
    tokenizer: Path | None,
    weights: Path | None,
) -> None:
    """Make a model of a network from elsewhere.

    It can index and search, but not generate images. The network is an ONNX file, a folder of a Hugging Face
    export (its preprocessor_config.json says how images are prepared, and its text tower is taken too), or
    torchvision:NAME, a classification network of torchvision, such as torchvision:resnet50.

    An ONNX file takes float images, (N, C, H, W) or (N, H, W, C), and returns one vector per image. Say how
    they are prepared with --preset, or with --mean and --std: one number or three, in the order of its
    channels.
    """
    from lookalike.encoder.bundle import check_name
    from lookalike.encoder.export.import_model import import_onnx, need_extra

    need_extra()
    with tempfile.TemporaryDirectory() as scratch:
        found = _find(network, Path(scratch), preset, weights=weights)
        name = check_name(found.name if name is None else name)
        usual = _preprocessing(found.preprocessing, mean, std, rgb=rgb, gray=gray)
        folder = models_folder(out) / name
        bundle = import_onnx(
            found.file,
            folder,
            size=size,
            normalization=usual.normalization,
            crop=usual.crop if crop is None else crop,
            output=output,
            mirror=usual.mirror if mirror is None else mirror,
            frame=frame or usual.frame,
            usual_size=usual.size,
            resampling=resampling or usual.resampling,
            text=_text_files(text_graph, tokenizer) or found.text,
            source=found.source,
        )
    _report_import(bundle, folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A network to import: its file, name, what is known of it, and what to call its origin."""

    file: Path
    name: str
    preprocessing: Preprocessing | None
    text: TextFiles | None = None
    source: str | None = None


def _find(network: str, scratch: Path, preset: str | None, *, weights: Path | None) -> _Found:
    """Return the network that an argument of ``models import`` names."""
    from lookalike.encoder.errors import OnnxImportError, printable
    from lookalike.encoder.export.export_folder import ExportFolder
    from lookalike.encoder.export.preprocessing import PRESETS
    from lookalike.encoder.export.torchvision_model import PREFIX, export_torchvision

    chosen = None if preset is None else PRESETS[preset]
    if network.startswith(PREFIX):
        exported = export_torchvision(network.removeprefix(PREFIX), scratch, weights=weights)
        return _Found(
            file=exported.file,
            name=exported.file.stem,
            preprocessing=chosen or exported.preprocessing,
            source=f"{network}, {exported.weights}",
        )
    if weights is not None:
        raise click.UsageError("--weights is for torchvision:NAME; leave it out")
    path = Path(network)
    if path.is_dir():
        folder = ExportFolder.open(path)
        name = path.resolve().name
        return _Found(
            file=folder.network, name=name, preprocessing=chosen or folder.preprocessing, text=folder.text
        )
    if not path.exists():  # said before what else is missing
        raise OnnxImportError(
            f"{printable(network)}: cannot be read (there is no such file or folder); check the path"
        )
    return _Found(file=path, name=path.stem, preprocessing=chosen)


def _preprocessing(
    known: Preprocessing | None, mean: str | None, std: str | None, *, rgb: bool | None, gray: bool
) -> Preprocessing:
    """Return how images are prepared: as is known, changed by what was given."""
    from lookalike.encoder.export.onnx_graph import Normalization
    from lookalike.encoder.export.preprocessing import Preprocessing

    means = None if mean is None else _numbers("--mean", mean)
    deviations = None if std is None else _numbers("--std", std)
    if known is None:
        if means is None or deviations is None:
            raise click.UsageError(
                "say how images are prepared for this network: --preset, or --mean and --std"
            )
        normalization = Normalization(mean=means, std=deviations, rgb=rgb is not False, gray=gray)
        return Preprocessing(normalization=normalization, mirror=True)
    usual = known.normalization
    normalization = Normalization(
        mean=means or usual.mean,
        std=deviations or usual.std,
        rgb=usual.rgb if rgb is None else rgb,
        gray=gray,
    )
    return replace(known, normalization=normalization)


def _text_files(graph: Path | None, tokenizer: Path | None) -> TextFiles | None:
    from lookalike.encoder.export.text_tower import TextFiles

    if (graph is None) != (tokenizer is None):
        raise click.UsageError("--text and --tokenizer need each other: a text tower and its tokenizer.json")
    return None if graph is None or tokenizer is None else TextFiles(graph, tokenizer)


def _report_import(bundle: Bundle, folder: Path) -> None:
    log(f"{bundle.name}: {_describe(bundle)}")
    if bundle.spec.frame is not None:
        log(_describe_frame(bundle.spec.frame))
    if bundle.spec.text is not None:
        log("it takes text, too: lookalike search 'two parrots on a branch'")
    if bundle.spec.batch is not None:
        log("it takes one image at a time, which is slower than batches; export it with a dynamic batch")
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
    if bundle.spec.text is not None:
        click.echo("  takes text, too: lookalike search 'two parrots on a branch'")
    if bundle.spec.denoises is not None:
        click.echo(f"  trained to remove noise {bundle.spec.denoises}: lookalike reconstruct")
    likeness = None if bundle.calibration is None else bundle.calibration.scores
    if likeness is not None:
        click.echo(
            f"  calibrated on {likeness.people} people: {likeness.matched} matched, "
            f"{likeness.mismatched} mismatched pairs"
        )
