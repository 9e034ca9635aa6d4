"""``lookalike demo``: the whole tour on real faces, ending in pictures."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from lookalike.encoder.runtime.model import Model
    from lookalike.indexer.sources.source import Source
    from lookalike.indexer.store.base import VectorStore
    from lookalike.indexer.sync.report import SyncReport
    from lookalike.searcher.search.searcher import QueryResult, Searcher

__all__ = ["demo"]

_QUERIES: Final = 6
_ADDED: Final = {"Smiling": 3.0}
_SHOWN: Final = 8
_SEED: Final = 11


@dataclass(frozen=True, slots=True)
class _Faces:
    """What the tour is made on: a source, how it is framed, who may be asked for, what to say of it."""

    source: Source
    crop: str | None
    queries: list[Path]
    asked: str
    note: str = ""


@click.command(epilog="Example: lookalike demo --out demo")
@click.option(
    "--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="Folder for it all."
)
@click.option("--train", is_flag=True, help="Train the model first (minutes; needs the [train] extra).")
@click.option("--epochs", default=60, show_default=True, help="Of that training.")
def demo(out: Path, train: bool, epochs: int) -> None:
    """The whole tour on real data, with pictures.

    It indexes LFW, finds who looks like whom, takes noise off pictures, and draws faces and digits that
    never were. Where LFW is neither at hand nor to be had, a hundred tiny faces of scikit-image stand in:
    a taste only.
    """
    from lookalike.deploy.demo_cleaning import draw_cleaned
    from lookalike.deploy.demo_digits import draw_digits
    from lookalike.encoder.runtime.model import Model
    from lookalike.indexer.store.base import open_store
    from lookalike.searcher.search.searcher import Searcher

    out.mkdir(parents=True, exist_ok=True)
    faces = _find_faces(out)
    if faces.note:
        click.echo(faces.note)
    if train and faces.crop is not None:
        click.echo("There is nothing to train on either: the shipped model is used.")
    model = Model.open(_trained(out, epochs) if train and faces.crop is None else "faces")
    with open_store(str(out / "store")) as store:
        report = _index(store, model, faces)
        click.echo(_indexed(report, model, faces))
        searcher = Searcher(store, faces.source.root_name, model)
        answers = list(searcher.similar(faces.queries, k=10, exclude_self=True))
        pictures = _draw(out, searcher, answers, model, faces)
    click.echo(f"Asked for {faces.asked}: {median(a.took_ms for a in answers):.1f} ms a query.")
    pictures += draw_cleaned(out, faces.queries)
    digits, missing = draw_digits(out)
    if missing:
        click.echo(missing)
    click.echo("Look at")
    for path, what in [*pictures, *digits]:
        click.echo(f"  {path!s:<28} {what}")


def _find_faces(out: Path) -> _Faces:
    from lookalike.encoder.datasets.lfw import find_lfw
    from lookalike.encoder.datasets.sample_faces import write_sample_faces
    from lookalike.encoder.errors import DataError
    from lookalike.indexer.sources.source import Source

    try:
        lfw = find_lfw(progress=True)
    except DataError as error:
        click.echo(f"LFW is not to be had: {error}", err=True)
        files = write_sample_faces(out / "taste")
        return _Faces(
            Source("taste", (out / "taste").resolve()),
            "centre:0.7",  # the model's own framing, found in these closer pictures
            files[:_QUERIES],
            f"{_QUERIES} of them",
            "Only a taste: 100 grey faces of 25x25 pixels that scikit-image ships, far below what the model "
            "was trained on and without names. Set LOOKALIKE_DATA to a folder with lfw/ for the real tour.",
        )
    held_out = lfw.held_out_people()
    people: dict[str, list[Path]] = {}
    for path in lfw.images():
        people.setdefault(lfw.person_of(path), []).append(path)
    many = sorted(person for person, images in people.items() if person in held_out and len(images) >= 5)
    chosen = random.Random(_SEED).sample(many, _QUERIES)  # noqa: S311  # which faces to show is no secret
    return _Faces(
        Source("lfw", lfw.root.resolve()),
        None,
        [people[person][0] for person in chosen],
        f"{_QUERIES} people the model never saw, drawn by lot",
    )


def _trained(out: Path, epochs: int) -> str:
    from lookalike.deploy.cli.train import need_extra

    need_extra()
    from lookalike.encoder.images.preprocess import ImageSpec
    from lookalike.trainer.config import AESpec, TrainingSpec
    from lookalike.trainer.data.dataset import open_dataset
    from lookalike.trainer.models.descriptor import DescriptorSpec
    from lookalike.trainer.recipes.ae import train_autoencoder

    dataset = open_dataset("lfw", progress=True)
    image = ImageSpec(size=64, channels=3, crop=dataset.crop)
    train_autoencoder(
        dataset,
        out / "my-faces",
        image=image,
        network=AESpec(size=image.size, channels=image.channels),
        spec=TrainingSpec(epochs=epochs),
        descriptor=DescriptorSpec(size=image.size),
        resume=True,
        log=lambda line: click.echo(line, err=True),
    )
    return str(out / "my-faces")


def _index(store: VectorStore, model: Model, faces: _Faces) -> SyncReport:
    """Fill the demo's collection, called as its source; one that another model made is begun again."""
    from lookalike.deploy.cli.bar import progress_bar
    from lookalike.encoder.errors import ModelMismatchError
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.indexer.sync.sync import prepare_collection, sync

    name = faces.source.root_name
    crop = None if faces.crop is None else Crop.parse(faces.crop)
    try:
        prepare_collection(store, name, model, crop=crop)
    except ModelMismatchError:
        store.drop(name)
        prepare_collection(store, name, model, crop=crop)
    with progress_bar("indexing") as bar:
        return sync(
            store,
            name,
            model,
            [faces.source],
            on_total=bar.on_total,
            on_progress=bar.on_progress,
            prune=True,
            processes=True,
        )


def _indexed(report: SyncReport, model: Model, faces: _Faces) -> str:
    spec = model.bundle.spec
    with_what = f"model {model.bundle.name} ({spec.kind}, {spec.embedding} numbers a face)"
    if not report.added + report.changed:
        return (
            f"{report.unchanged:,} faces of {faces.source.root_name} were indexed already with {with_what}."
        )
    return (
        f"Indexed {report.added + report.changed:,} faces of {faces.source.root_name} with {with_what} in "
        f"{report.seconds:.1f} s: {report.images_per_second:,.0f} images/s."
    )


def _draw(
    out: Path, searcher: Searcher, answers: list[QueryResult], model: Model, faces: _Faces
) -> list[tuple[Path, str]]:
    from lookalike.encoder.images.contact_sheet import grid, save_image
    from lookalike.encoder.images.preprocess import Crop
    from lookalike.searcher.figures import caption, reconstruction_sheet, results_sheet, smile_sheet
    from lookalike.searcher.generation.sample import read_all, reconstruct, sample

    crop = None if faces.crop is None else Crop.parse(faces.crop)
    shown = [
        Path(searcher.spec.roots[hit.payload["root"]], hit.path) for a in answers for hit in a.results[:4]
    ]
    files, pixels, _ = read_all(model, list(dict.fromkeys([*faces.queries, *shown]))[:20], crop=crop)
    sheets = {
        "search.png": (results_sheet(searcher, answers), "each query and its ten most alike"),
        "reconstructions.png": (
            reconstruction_sheet(model, pixels, reconstruct(model, pixels), list(map(caption, files))),
            "originals above what the model keeps of them",
        ),
        "generated.png": (
            grid(list(sample(model, 40, temperature=0.8)), columns=10),
            "people who never were",
        ),
    }
    there = model.bundle.attributes
    if there is not None and set(_ADDED) <= set(there.names):
        meant = list(searcher.similar(faces.queries, k=10, exclude_self=True, add=_ADDED))
        words = ", ".join(_ADDED)
        sheets |= {
            "smile.png": (
                smile_sheet(model, pixels[:_SHOWN], list(map(caption, files[:_SHOWN])), _ADDED),
                "originals, reconstructions, with a smile, without",
            ),
            "search-smiling.png": (
                results_sheet(searcher, meant, add=_ADDED),
                f"the same queries with {words} added, the face that is meant, and its most alike",
            ),
        }
    for name, (picture, _) in sheets.items():
        save_image(out / name, picture)
    return [(out / name, what) for name, (_, what) in sheets.items()]
