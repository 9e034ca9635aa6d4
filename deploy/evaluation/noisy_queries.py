"""What noise takes from a search, and what cleaning the queries gives back: Recall@1, through the store.

Legend: N images, Q queries, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.vectors import Progress, embed_images, no_progress
from lookalike.encoder.errors import DataError
from lookalike.encoder.images.noise import add_noise
from lookalike.encoder.images.preprocess import decode_rgb, encode_png, to_uint8
from lookalike.encoder.runtime.model import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources.source import item_id
from lookalike.indexer.store.spec import CollectionSpec
from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.searcher import Searcher

__all__ = ["Recall", "noisy_recall"]

_NAME: Final = "searched"


@dataclass(frozen=True, slots=True)
class Recall:
    """How often queries find their person first.

    Attributes:
        sigma: Deviation of the noise on the queries, of 255; 0: none.
        cleaner: What they were cleaned with first; None: nothing.
        queries: How many there were.
        others: Pictures that each was compared with, its own left out.
        recall_at_1: Share whose first hit shows their person, in [0, 1].
        left: Share that the cleaner left as they are; None without one.
        regained: Of what noise took, the share that cleaning gives back; None where that says nothing.
    """

    sigma: float
    cleaner: str | None
    queries: int
    others: int
    recall_at_1: float
    left: float | None = None
    regained: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(self).items()}


def noisy_recall(
    model: Model,
    images: LabeledImages,
    held: frozenset[str],
    *,
    cleaner: QueryDenoiser | None,
    sigmas: Sequence[float],
    count: int,
    seed: int = 0,
    steps: Progress = no_progress,
) -> list[Recall]:
    """Measure it on pictures of people that nothing was fitted to, among all pictures.

    Noise is put on the whole photograph, which is saved as PNG and searched with as any file is; the
    photograph itself is left out of what is found.

    Args:
        model: What compares.
        images: N pictures and who is on them.
        held: Whose pictures are queries, where there are two of them or more.
        cleaner: What cleans queries; None: they are compared as they are.
        sigmas: Deviations of the noise, of 255.
        count: Q at most, drawn by the seed.
        seed: Of the queries and of the noise.
        steps: Told of the progress.

    Raises:
        DataError: nobody is held out with two pictures.
    """
    asking = sorted(
        index
        for person, own in images.by_person().items()
        if person in held and len(own) > 1
        for index in own
    )
    if not asking:
        raise DataError(
            f"queries need people with two pictures that nothing was fitted to, {images.name} has none"
        )
    chosen = np.random.default_rng(seed).permutation(asking)[:count].tolist()
    found: list[Recall] = []
    with _searcher(model, images, steps) as searcher, TemporaryDirectory(prefix="lookalike-") as folder:
        for sigma in (0.0, *sigmas):
            files = _queries(images, chosen, sigma, Path(folder), seed)
            for way in (None, cleaner) if cleaner is not None else (None,):
                what = "searching" if way is None else "cleaning"
                with steps(f"{what}, sigma {sigma:g}", len(chosen)) as advance:
                    found.append(_recall(searcher, images, chosen, files, sigma, way, advance))
    clean = found[0].recall_at_1
    return [_with_regained(each, clean, found) for each in found]


def _queries(
    images: LabeledImages, chosen: Sequence[int], sigma: float, folder: Path, seed: int
) -> list[Path]:
    """Return the files to search with: the pictures' own, or noisy ones that are written for it."""
    if not sigma:
        return [images.files[index] for index in chosen]
    files = []
    for index in chosen:
        clean = decode_rgb(images.files[index].read_bytes(), name=images.paths[index])
        pixels = clean.astype(np.float32)[None] / np.float32(255)
        level = np.array([sigma / 255], np.float32)
        rng = np.random.default_rng((seed, round(1000 * sigma), index))
        files.append(folder / f"{sigma:g}-{index}.png")
        files[-1].write_bytes(encode_png(to_uint8(add_noise(pixels, level, kind="gaussian", rng=rng)[0])))
    return files


def _recall(
    searcher: Searcher,
    images: LabeledImages,
    chosen: Sequence[int],
    files: Sequence[Path],
    sigma: float,
    cleaner: QueryDenoiser | None,
    advance: Callable[[int], object],
) -> Recall:
    right = left = 0
    answers = searcher.similar(files, k=2, denoiser=cleaner)
    for index, answer in zip(chosen, answers, strict=True):
        others = [hit for hit in answer.results if hit.path != images.paths[index]]
        right += bool(others) and others[0].person == images.people[index]
        left += answer.denoise_info is not None and not answer.denoise_info.denoised
        advance(1)
    return Recall(
        sigma,
        None if cleaner is None else cleaner.denoiser.bundle.name,
        len(chosen),
        searcher.size - 1,
        right / len(chosen),
        None if cleaner is None else left / len(chosen),
    )


def _with_regained(each: Recall, clean: float, found: Sequence[Recall]) -> Recall:
    """Add what cleaning gave back of what noise took."""
    noisy = next(other.recall_at_1 for other in found if other.sigma == each.sigma and other.cleaner is None)
    if each.cleaner is None or not each.sigma or noisy >= clean:
        return each
    values = asdict(each) | {"regained": (each.recall_at_1 - noisy) / (clean - noisy)}
    return Recall(**values)


@contextmanager
def _searcher(model: Model, images: LabeledImages, steps: Progress) -> Iterator[Searcher]:
    """Give a search among all the pictures, in an embedded store that goes again."""
    vectors = embed_images(model, images, steps=steps)
    there = np.flatnonzero(vectors.there)
    bundle = model.bundle
    spec = CollectionSpec(
        model_id=model.model_id,
        model_name=bundle.name,
        dimension=bundle.spec.embedding,
        crop=str(bundle.spec.image.crop),
    )
    payloads = [
        {"path": images.paths[index], "root": images.name}
        | ({} if (who := images.people[index]) is None else {"person": who})
        for index in there
    ]
    with TemporaryDirectory(prefix="lookalike-") as folder, open_store(folder) as store:
        store.create(_NAME, spec)
        ids = [item_id(images.name, images.paths[index]) for index in there]
        store.upsert(_NAME, ids, vectors.rows[there], payloads)
        yield Searcher(store, _NAME, model)
