"""What ``lookalike demo`` does: index, search, denoise and generate on real data, and save the images.

Legend: H, W = height and width of an image, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lookalike.encoder.images import Crop
    from lookalike.encoder.runtime import Denoiser, Model
    from lookalike.indexer.sources import Source
    from lookalike.indexer.store import VectorStore
    from lookalike.indexer.sync import SyncReport
    from lookalike.searcher.search import QueryResult, Searcher

    Pixels = NDArray[np.uint8]

Sheets = dict[str, tuple["Pixels", str]]
"""By file name: uint8 (H, W, 3), and what it shows."""
_QUERIES: Final = 6
_GENERATED: Final = 200
_GENERATED_QUERIES: Final = (11, 76, 88, 146, 3, 58)
_ADDED: Final = {"Smiling": 3.0}
_SMILES: Final = 8
_SEED: Final = 11
_PHOTOGRAPHS: Final = ("chelsea", "coffee")
_NOISY_FACES: Final = 4
_MORE_PHOTOGRAPHS: Final = ("astronaut", *_PHOTOGRAPHS)
"""Where LFW is missing."""
_SIGMAS: Final = (25, 50)
"""Noise of the images in turn, of 255."""
_SMALL: Final = 64
"""Images of fewer rows get the first sigma only: the second would hide everything."""
_TILE: Final = 192
_DIGITS: Final = 20
_NOISY_DIGITS: Final = 10
_DIGIT_SIGMA: Final = 127
_DIGIT_TILE: Final = 84


class Bar(Protocol):
    """A progress bar."""

    def on_total(self, count: int) -> None:
        """Set the total."""

    def on_progress(self, count: int) -> None:
        """Add images that are done."""


@dataclass(frozen=True, slots=True)
class _Faces:
    """The faces of the demo.

    Attributes:
        source: Where they are.
        crop: Their crop; None: the model's own.
        queries: Files to search for.
        queried: What these are, for people.
        note: A warning about them; empty: none.
    """

    source: Source
    crop: Crop | None
    queries: list[Path]
    queried: str
    note: str = ""


def run_demo(
    out: Path,
    *,
    train_epochs: int | None,
    say: Callable[[str], object],
    log: Callable[[str], None],
    progress: Callable[[str], AbstractContextManager[Bar]],
) -> None:
    """Index LFW, search, denoise and generate, and save the images in a folder.

    Where LFW is neither found nor downloadable, faces that the shipped model generates take its place, with
    100 small sample faces beside them, if scikit-image is installed.

    Args:
        out: The folder; made if it does not exist.
        train_epochs: Train the model first, for so many epochs; None: use the shipped model.
        say: Gets the lines of the result.
        log: Gets messages about what is missing, and the lines of the training.
        progress: Opens a progress bar with a description.
    """
    from lookalike.encoder.runtime import Model
    from lookalike.indexer.open import open_store
    from lookalike.searcher.figures import results_sheet
    from lookalike.searcher.search import Searcher

    out.mkdir(parents=True, exist_ok=True)
    faces, *beside = _find_faces(out, log)
    if faces.note:
        say(faces.note)
    name = "faces"
    if train_epochs is not None and faces.crop is not None:
        say("No data to train on: the shipped model is used.")
    elif train_epochs is not None:
        name = _trained(out, train_epochs, log)
    model = Model.open(name)
    with open_store(str(out / "store")) as store:
        for each in (faces, *beside):
            with progress("indexing") as bar:
                report = _index(store, model, each, bar)
            say(_summary(report, model, each))
        searcher = Searcher(store, faces.source.root_name, model)
        answers = list(searcher.similar(faces.queries, k=10, exclude_self=True))
        sheets = _face_sheets(searcher, answers, model, faces)
        for each in beside:
            others = Searcher(store, each.source.root_name, model)
            found = list(others.similar(each.queries, k=10, exclude_self=True))
            sheets[f"search-{each.source.root_name}.png"] = (
                results_sheet(others, found),
                f"the same: {each.note}",
            )
    say(f"Searched for {faces.queried}: {median(answer.took_ms for answer in answers):.1f} ms per query.")
    sheets["denoised.png"] = (
        _denoised_photographs(faces.queries, more=bool(faces.note)),
        "noisy images, denoised, and the originals",
    )
    saved = [*_save(out, sheets), *_save(out, _digit_sheets(say))]
    say("Look at")
    for path, what in saved:
        say(f"  {path!s:<28} {what}")


def _save(out: Path, sheets: Mapping[str, tuple[Pixels, str]]) -> list[tuple[Path, str]]:
    from lookalike.encoder.images import save_image

    for name, (pixels, _) in sheets.items():
        save_image(out / name, pixels)
    return [(out / name, what) for name, (_, what) in sheets.items()]


def _find_faces(out: Path, log: Callable[[str], None]) -> list[_Faces]:
    """Return the faces of the demo, and others that are searched beside them."""
    from lookalike.encoder.datasets import find_lfw
    from lookalike.encoder.errors import DataError
    from lookalike.indexer.sources import Source

    try:
        lfw = find_lfw(progress=True)
    except DataError as error:
        log(f"LFW not found: {error}")
        return [_generated_faces(out / "generated-faces"), *_sample_faces(out / "sample-faces")]
    held_out = lfw.held_out_people()
    people: dict[str, list[Path]] = {}
    for path in lfw.images():
        people.setdefault(lfw.person_of(path), []).append(path)
    many = sorted(person for person, images in people.items() if person in held_out and len(images) >= 5)
    chosen = random.Random(_SEED).sample(many, _QUERIES)  # noqa: S311  # which faces to show is no secret
    faces = _Faces(
        Source("lfw", lfw.root.resolve()),
        None,
        [people[person][0] for person in chosen],
        f"{_QUERIES} random people the model never saw",
    )
    return [faces]


def _generated_faces(folder: Path) -> _Faces:
    """Write faces of people who do not exist."""
    from lookalike.encoder.images import Crop, save_image
    from lookalike.encoder.runtime import Model
    from lookalike.indexer.sources import Source
    from lookalike.searcher.generation import sample

    files = [folder / f"{number:03d}.png" for number in range(_GENERATED)]
    if not all(file.is_file() for file in files):
        for file, pixels in zip(files, sample(Model.open("faces"), _GENERATED), strict=True):
            save_image(file, pixels)
    return _Faces(
        Source(folder.name, folder.resolve()),
        Crop(),
        [files[number] for number in _GENERATED_QUERIES],
        f"{_QUERIES} of them",
        f"Generated faces only: the model faces drew {_GENERATED} people who do not exist, so no two images "
        "show one person. Set LOOKALIKE_DATA to a folder with lfw/ for real ones.",
    )


def _sample_faces(folder: Path) -> list[_Faces]:
    """Write the small faces that come with scikit-image, if it is installed."""
    from lookalike.encoder.datasets import write_sample_faces
    from lookalike.encoder.errors import DataError
    from lookalike.encoder.images import Crop
    from lookalike.indexer.sources import Source

    try:
        files = write_sample_faces(folder)
    except DataError:  # the generated ones are enough
        return []
    crop = Crop(fraction=0.7)  # these faces are closer: this is the crop that the model was trained on
    note = f"{len(files)} real faces of 25x25 pixels (smaller than the model was trained on), without names"
    return [
        _Faces(Source(folder.name, folder.resolve()), crop, files[:_QUERIES], f"{_QUERIES} of them", note)
    ]


def _trained(out: Path, epochs: int, log: Callable[[str], None]) -> str:
    """Train a model on LFW, or continue an interrupted training, and return its folder."""
    from lookalike.encoder.images import ImageSpec
    from lookalike.trainer.config import AESpec, TrainingSpec
    from lookalike.trainer.data import open_dataset
    from lookalike.trainer.models import DescriptorSpec
    from lookalike.trainer.recipes import train_autoencoder

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
        log=log,
    )
    return str(out / "my-faces")


def _index(store: VectorStore, model: Model, faces: _Faces, bar: Bar) -> SyncReport:
    """Fill the collection named as the source; one of another model is deleted first."""
    from lookalike.encoder.errors import ModelMismatchError
    from lookalike.indexer.sync import sync

    name = faces.source.root_name
    run = partial(
        sync,
        store,
        name,
        model,
        faces.source,
        crop=faces.crop,
        prune=True,
        processes=True,
        on_total=bar.on_total,
        on_progress=bar.on_progress,
    )
    try:
        return run()
    except ModelMismatchError:
        store.delete_collection(name)
        return run()


def _summary(report: SyncReport, model: Model, faces: _Faces) -> str:
    spec, name = model.bundle.spec, faces.source.root_name
    with_model = f"with model {model.bundle.name} ({spec.kind}, {spec.embedding} dimensions)"
    count = report.added + report.changed
    if not count:
        return f"{report.unchanged:,} faces of {name} were already indexed {with_model}."
    return (
        f"Indexed {count:,} faces of {name} {with_model} in {report.seconds:.1f} s: "
        f"{report.images_per_second:,.0f} images/s."
    )


def _face_sheets(searcher: Searcher, answers: list[QueryResult], model: Model, faces: _Faces) -> Sheets:
    from lookalike.encoder.images import grid
    from lookalike.searcher.figures import caption, reconstruction_sheet, results_sheet, smile_sheet
    from lookalike.searcher.generation import read_all, reconstruct, sample

    hits = [
        Path(searcher.spec.roots[hit.payload["root"]], hit.path)
        for answer in answers
        for hit in answer.results[:4]
    ]
    files, pixels, _ = read_all(model, list(dict.fromkeys([*faces.queries, *hits]))[:20], crop=faces.crop)
    captions = list(map(caption, files))
    sheets: Sheets = {
        "search.png": (results_sheet(searcher, answers), "each query and the ten most similar faces"),
        "reconstructions.png": (
            reconstruction_sheet(model, pixels, reconstruct(model, pixels), captions),
            "originals above their reconstructions",
        ),
        "generated.png": (grid(list(sample(model, 40, temperature=0.8)), columns=10), "generated faces"),
    }
    attributes = model.bundle.attributes
    if attributes is not None and set(_ADDED) <= set(attributes.names):
        smiling = list(searcher.similar(faces.queries, k=10, exclude_self=True, add=_ADDED))
        sheets["smile.png"] = (
            smile_sheet(model, pixels[:_SMILES], captions[:_SMILES], _ADDED),
            "originals, reconstructions, with a smile, without",
        )
        sheets["search-smiling.png"] = (
            results_sheet(searcher, smiling, add=_ADDED),
            f"the same queries with {', '.join(_ADDED)} added, the edited face, and the most similar faces",
        )
    return sheets


def _denoised_photographs(faces: Sequence[Path], *, more: bool) -> Pixels:
    """Return a sheet of whole images of faces, and of (more) photographs if scikit-image is installed."""
    from lookalike.deploy.evaluation import open_test_set
    from lookalike.encoder.errors import MissingExtraError
    from lookalike.encoder.images import decode_rgb
    from lookalike.encoder.runtime import Denoiser
    from lookalike.searcher.figures import caption

    images = [_one_channel_if_gray(decode_rgb(f.read_bytes(), name=f.name)) for f in faces[:_NOISY_FACES]]
    captions = [caption(file) for file in faces[:_NOISY_FACES]]
    try:
        photographs = open_test_set("skimage")
    except MissingExtraError:
        pass  # the faces are enough
    else:
        for name, pixels in zip(photographs.titles, photographs.clean, strict=True):
            if name in (_MORE_PHOTOGRAPHS if more else _PHOTOGRAPHS):
                images.append(pixels)
                captions.append(name)
    sigmas = [
        _SIGMAS[index % len(_SIGMAS)] if len(pixels) >= _SMALL else _SIGMAS[0]
        for index, pixels in enumerate(images)
    ]
    return denoising_sheet(Denoiser.open("denoise"), images, captions, sigmas, side=_TILE)


def denoising_sheet(
    denoiser: Denoiser, images: Sequence[Pixels], captions: Sequence[str], sigmas: Sequence[int], *, side: int
) -> Pixels:
    """Return a sheet of noisy images, denoised (blind: noise level estimated), and the originals.

    The noise is Gaussian with fixed seeds; it is clipped and rounded to bytes as in a file.

    Args:
        denoiser: The model.
        images: uint8 (H, W, C) each.
        captions: Of the images.
        sigmas: Standard deviation of the noise of each image, of 255.
        side: Of a tile, in pixels.

    Returns:
        uint8 (H, W, 3).
    """
    import numpy as np

    from lookalike.encoder.images import Tile, add_noise, contact_sheet, to_uint8
    from lookalike.encoder.metrics import psnr_from_mse
    from lookalike.searcher.denoising import denoise_pixels

    columns = []
    for seed, (pixels, name, sigma) in enumerate(zip(images, captions, sigmas, strict=True)):
        clean = pixels[None].astype(np.float32) / np.float32(255)  # (1, H, W, C)
        level, rng = np.array([sigma / 255], np.float32), np.random.default_rng(seed)
        noisy = to_uint8(add_noise(clean, level, kind="gaussian", rng=rng))[0]
        denoised = noisy.copy()
        noise = denoise_pixels(denoiser, denoised).noise
        before, after = (
            f"{psnr_from_mse(float(np.square(x / np.float32(255) - clean).mean())):.1f} dB"
            for x in (noisy.astype(np.float32), denoised.astype(np.float32))
        )
        columns.append(
            (
                Tile(pixels=noisy, caption=f"sigma {sigma}", subcaption=before),
                Tile(pixels=denoised, caption=f"estimate {255 * noise.percentile(50):.0f}", subcaption=after),
                Tile(pixels=pixels, caption=name),
            )
        )
    rows = [list(row) for row in zip(*columns, strict=True)]
    title = f"Denoised with {denoiser.bundle.name} (blind: noise level estimated)"
    return contact_sheet(rows, title=title, row_labels=("noisy", "denoised", "original"), side=side)


def _one_channel_if_gray(pixels: Pixels) -> Pixels:
    """Return one channel of an image that is gray, so that its noise is gray too."""
    return pixels[:, :, :1] if (pixels == pixels[:, :, :1]).all() else pixels


def _digit_sheets(say: Callable[[str], object]) -> Sheets:
    """Return the sheets of digits; without MNIST those that need no test digits."""
    from lookalike.encoder.datasets import find_mnist
    from lookalike.encoder.errors import DataError
    from lookalike.encoder.images import grid
    from lookalike.encoder.runtime import Denoiser, Model
    from lookalike.searcher.figures import classes_sheet
    from lookalike.searcher.generation import sample, sample_classes

    model = Model.open("digits")
    sheets: Sheets = {}
    try:
        digits = find_mnist(progress=True).images("test")[:_DIGITS]
    except DataError as error:
        say(f"MNIST not found, so no digit is reconstructed or denoised: {error}")
    else:
        sheets["digits-reconstructions.png"] = (
            _reconstructed_digits(model, digits),
            "test digits above their reconstructions",
        )
        images = list(digits[:_NOISY_DIGITS, :, :, None])
        count = len(images)
        sheets["digits-denoised.png"] = (
            denoising_sheet(
                Denoiser.open("denoise-digits"),
                images,
                [""] * count,
                [_DIGIT_SIGMA] * count,
                side=_DIGIT_TILE,
            ),
            "noisy test digits, denoised, and the originals",
        )
    sheets["digits-generated.png"] = grid(list(sample(model, 40)), columns=10), "generated digits"
    rows = sample_classes(model, 6, seed=1)
    sheets["digits-classes.png"] = classes_sheet(model, rows), "the same latents in all ten classes"
    return sheets


def _reconstructed_digits(model: Model, digits: Pixels) -> Pixels:
    from lookalike.searcher.figures import reconstruction_sheet
    from lookalike.searcher.generation import most_likely_classes, reconstruct

    pixels = digits[..., None]
    classes = most_likely_classes(model, model.encode(pixels))
    return reconstruction_sheet(model, pixels, reconstruct(model, pixels), classes or [""] * len(pixels))
