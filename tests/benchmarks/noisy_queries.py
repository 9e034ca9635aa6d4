"""How much recall a search loses to noisy queries, and how much denoising them gives back.

Legend: N images, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lookalike.deploy.evaluation import LabeledImages, embed_images, temporary_collection
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import DataError
from lookalike.encoder.images import add_noise, decode_rgb, encode_png, to_uint8
from lookalike.encoder.runtime import Model
from lookalike.indexer.store import CollectionSpec
from lookalike.searcher.search import QueryDenoiser, Searcher


@dataclass(frozen=True, slots=True)
class Recall:
    """How often queries find their person first.

    Attributes:
        sigma: Standard deviation of the noise on the queries, of 255; 0: none.
        denoiser: What denoised them; None: nothing.
        queries: Their number.
        others: Images that each was compared with, its own left out.
        recall_at_1: Share whose first hit shows their person, in [0, 1].
        unchanged: Share that the denoiser left as they are; None without one.
        regained: Of what noise took, the share that denoising gives back; None where noise took nothing.
    """

    sigma: float
    denoiser: str | None
    queries: int
    others: int
    recall_at_1: float
    unchanged: float | None = None
    regained: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(self).items()}


def noisy_recall(
    model: Model,
    images: LabeledImages,
    held_out: frozenset[str],
    *,
    denoiser: QueryDenoiser | None,
    sigmas: Sequence[float],
    count: int,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[Recall]:
    """Measure it on images of held-out people, among all images.

    Noise is put on the whole photograph, which is saved as PNG and searched with as any file is; the
    photograph itself does not count as a hit.

    Args:
        model: The model that compares.
        images: N images and the person in each.
        held_out: People whose images are queries, where there are two of them or more.
        denoiser: Denoises the queries; None: they are compared as they are.
        sigmas: Standard deviations of the noise, of 255.
        count: Q at most, chosen by the seed.
        seed: Of the queries and of the noise.
        progress: Shows the progress.

    Raises:
        DataError: no held-out person has two images.
    """
    candidates = sorted(
        index
        for person, own in images.by_person().items()
        if person in held_out and len(own) > 1
        for index in own
    )
    if not candidates:
        raise DataError(f"queries need held-out people with two images, {images.name} has none")
    chosen = np.random.default_rng(seed).permutation(candidates)[:count].tolist()
    bundle = model.bundle
    spec = CollectionSpec(
        model_id=model.model_id,
        model_name=bundle.name,
        dimension=bundle.spec.embedding,
        crop=str(bundle.spec.image.crop),
    )
    vectors = embed_images(model, images, progress=progress)
    recalls: list[Recall] = []
    with (
        temporary_collection(vectors, images, spec) as (store, name),
        TemporaryDirectory(prefix="lookalike-") as folder,
    ):
        searcher = Searcher(store, name, model)
        for sigma in (0.0, *sigmas):
            files = _noisy_files(images, chosen, sigma, Path(folder), seed)
            for each in (None, denoiser) if denoiser is not None else (None,):
                task = "searching" if each is None else "denoising"
                with progress(f"{task}, sigma {sigma:g}", len(chosen)) as advance:
                    recalls.append(_recall(searcher, images, chosen, files, sigma, each, advance))
    clean = recalls[0].recall_at_1
    return [_with_regained(recall, clean, recalls) for recall in recalls]


def recall_lines(recalls: Sequence[Recall]) -> str:
    """Return a table."""
    first = recalls[0]
    lines = [
        f"search, {first.queries:,} queries among {first.others:,} others",
        f"{'sigma':>5}  {'Recall@1':>8}  {'regained':>10}  queries",
    ]
    for each in recalls:
        regained = "-" if each.regained is None else f"{each.regained:.0%}"
        how = (
            "as they are"
            if each.denoiser is None
            else f"denoised by {each.denoiser} ({each.unchanged:.0%} left as they are)"
        )
        lines.append(f"{each.sigma:>5g}  {each.recall_at_1:>8.3f}  {regained:>10}  {how}")
    return "\n".join(lines)


def _noisy_files(
    images: LabeledImages, chosen: Sequence[int], sigma: float, folder: Path, seed: int
) -> list[Path]:
    """Return the files to search with: the images' own, or noisy ones that are written for it."""
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
    denoiser: QueryDenoiser | None,
    advance: Callable[[int], object],
) -> Recall:
    right = unchanged = 0
    results = searcher.similar(files, k=2, denoiser=denoiser)
    for index, result in zip(chosen, results, strict=True):
        others = [hit for hit in result.results if hit.path != images.paths[index]]
        right += bool(others) and others[0].person == images.people[index]
        unchanged += result.denoise_info is not None and not result.denoise_info.denoised
        advance(1)
    return Recall(
        sigma,
        None if denoiser is None else denoiser.denoiser.bundle.name,
        len(chosen),
        searcher.size - 1,
        right / len(chosen),
        None if denoiser is None else unchanged / len(chosen),
    )


def _with_regained(recall: Recall, clean: float, recalls: Sequence[Recall]) -> Recall:
    """Add what denoising gave back of what noise took."""
    noisy = next(
        other.recall_at_1 for other in recalls if other.sigma == recall.sigma and other.denoiser is None
    )
    if recall.denoiser is None or not recall.sigma or noisy >= clean:
        return recall
    return replace(recall, regained=(recall.recall_at_1 - noisy) / (clean - noisy))
