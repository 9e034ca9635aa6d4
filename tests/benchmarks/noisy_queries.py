"""How much recall a search loses to noisy queries, and how much denoising them gives back.

Legend: N images, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lookalike.deploy.evaluation import InputNoise, LabeledImages, embed_images, temporary_collection
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import DataError
from lookalike.encoder.images import decode_rgb, encode_png
from lookalike.encoder.runtime import Model
from lookalike.indexer.store import CollectionSpec
from lookalike.searcher.search import QueryDenoiser, Searcher


@dataclass(frozen=True, slots=True)
class Recall:
    """How often queries find their person first.

    Attributes:
        noise: On the queries; None: none.
        denoiser: What denoised them; None: nothing.
        queries: Their number.
        others: Images that each was compared with, its own left out.
        recall_at_1: Share whose first hit shows their person, in [0, 1].
        unchanged: Share that the denoiser left as they are; None without one.
        regained: Of what noise took, the share that denoising gives back; None where noise took nothing.
    """

    noise: InputNoise | None
    denoiser: str | None
    queries: int
    others: int
    recall_at_1: float
    unchanged: float | None = None
    regained: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        none = {"noise": "none", "sigma": None, "photons": None}
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "noise"}
        rounded = {name: round(v, 4) if isinstance(v, float) else v for name, v in values.items()}
        return (none if self.noise is None else self.noise.to_json()) | rounded


def noisy_recall(
    model: Model,
    images: LabeledImages,
    held_out: frozenset[str],
    *,
    denoiser: QueryDenoiser | None,
    noises: Sequence[InputNoise],
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
        noises: What the queries get.
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
        for noise in (None, *noises):
            files = _noisy_files(images, chosen, noise, Path(folder), seed)
            for each in (None, denoiser) if denoiser is not None else (None,):
                task = "searching" if each is None else "denoising"
                with progress(f"{task}, {noise or 'no noise'}", len(chosen)) as advance:
                    recalls.append(_recall(searcher, images, chosen, files, noise, each, advance))
    clean = recalls[0].recall_at_1
    return [_with_regained(recall, clean, recalls) for recall in recalls]


def recall_lines(recalls: Sequence[Recall]) -> str:
    """Return a table."""
    first = recalls[0]
    width = max(len("noise of the queries"), *(len(str(each.noise)) for each in recalls))
    lines = [
        f"search, {first.queries:,} queries among {first.others:,} others",
        f"{'noise of the queries':<{width}}  {'Recall@1':>8}  {'regained':>8}  queries",
    ]
    for each in recalls:
        regained = "-" if each.regained is None else f"{each.regained:.0%}"
        how = (
            "as they are"
            if each.denoiser is None
            else f"denoised by {each.denoiser} ({each.unchanged:.0%} left as they are)"
        )
        lines.append(f"{each.noise or 'none'!s:<{width}}  {each.recall_at_1:>8.3f}  {regained:>8}  {how}")
    return "\n".join(lines)


def _noisy_files(
    images: LabeledImages, chosen: Sequence[int], noise: InputNoise | None, folder: Path, seed: int
) -> list[Path]:
    """Return the files to search with: the images' own, or noisy ones that are written for it."""
    if noise is None:
        return [images.files[index] for index in chosen]
    files = []
    for index in chosen:
        clean = decode_rgb(images.files[index].read_bytes(), name=images.paths[index])
        rng = np.random.default_rng((seed, noise.kind == "camera", round(1e6 * noise.level), index))
        files.append(folder / f"{noise.kind}-{noise.level:g}-{index}.png")
        files[-1].write_bytes(encode_png(noise.add(clean, rng)[0]))
    return files


def _recall(
    searcher: Searcher,
    images: LabeledImages,
    chosen: Sequence[int],
    files: Sequence[Path],
    noise: InputNoise | None,
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
        noise,
        None if denoiser is None else denoiser.denoiser.bundle.name,
        len(chosen),
        searcher.size - 1,
        right / len(chosen),
        None if denoiser is None else unchanged / len(chosen),
    )


def _with_regained(recall: Recall, clean: float, recalls: Sequence[Recall]) -> Recall:
    """Add what denoising gave back of what noise took."""
    noisy = next(
        other.recall_at_1 for other in recalls if other.noise == recall.noise and other.denoiser is None
    )
    if recall.denoiser is None or recall.noise is None or noisy >= clean:
        return recall
    return replace(recall, regained=(recall.recall_at_1 - noisy) / (clean - noisy))
