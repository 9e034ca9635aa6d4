"""Contact sheets of results, and images saved one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Face, cut_for_model
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import Crop, Tile, contact_sheet, decode_rgb, save_image
from lookalike.encoder.metrics import psnr
from lookalike.encoder.runtime import Model
from lookalike.indexer.store import VectorStore
from lookalike.searcher.clusters import Cluster
from lookalike.searcher.duplicates import DuplicateGroup
from lookalike.searcher.faces import SHEET_SIDE, FoundFaces
from lookalike.searcher.generation import edit, read_all
from lookalike.searcher.search import QueryResult, Searcher, format_score

Pixels = NDArray[np.uint8]
_COLUMNS = 10
_PAIR_COLUMNS = 6
_FACE_COLUMNS = 6
_MAX_FACES = 30
MAX_ROWS = 50
_MAX_RESULTS = 20
_MAX_EXAMPLES = 5
_MAX_CLASS_NAME = 40
_FEW_CLASSES = 5


def is_folder(out: str) -> bool:
    """Whether ``--out`` means a folder: it ends in a slash or is one."""
    return out.endswith(("/", "\\")) or (out != "" and Path(out).is_dir())


def save_each(folder: Path, names: Sequence[str], pictures: Sequence[Pixels]) -> list[Path]:
    """Write one PNG each, ``name.png``, and return the paths.

    Raises:
        InvalidArgumentError: the folder cannot be written to.
    """
    paths = [folder / f"{name}.png" for name in names]
    for path, pixels in zip(paths, pictures, strict=True):
        save_image(path, pixels)
    return paths


def unique_names(files: Sequence[Path]) -> list[str]:
    """Return the files' stems, numbered where two are the same (or are on a disk that ignores case)."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        name, number = file.stem, 2
        while name.casefold() in taken:
            name, number = f"{file.stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def safe_names(classes: Sequence[str]) -> list[str]:
    """Return names of classes as safe file names: letters, digits, ``_`` and ``-``; unique.

    A bundle may call its classes anything, ``../..`` for instance.
    """
    plain = [re.sub(r"[^\w-]+", "_", name)[:_MAX_CLASS_NAME].strip("_") for name in classes]
    return unique_names([Path(name or "class") for name in plain])


def caption(file: Path) -> str:
    """Return a caption for an image: the person for `Ada_Lovelace/Ada_Lovelace_0001.jpg`, else its stem."""
    person, numbered = file.parent.name, file.stem.rpartition("_")
    name = person if numbered[0] == person and numbered[2].isdecimal() else file.stem
    return name.replace("_", " ")


def results_sheet(
    searcher: Searcher,
    answers: Sequence[QueryResult],
    *,
    crop: Crop | None = None,
    side: int = 128,
    add: Mapping[str, float] | None = None,
) -> Pixels:
    """Return a row for each query: its image, then the hits with names and scores, uint8 (H, W, 3).

    With a calibrated model, verdicts follow the scores, names of hits that are no match are gray, and a row
    without any match says so, as does a query unlike what the model was trained on. Where attributes
    were added to the queries, the edited face follows each, if the model has a decoder. At most 50 queries
    and 20 hits of each are shown.

    Raises:
        InvalidArgumentError: there is no query.
    """
    if not answers:
        raise InvalidArgumentError("a sheet needs at least one query that could be read, got none")
    some = answers[:MAX_ROWS]
    rows = []
    for answer in some:
        row = _query_tiles(searcher, answer, crop, side, dict(add or {}))
        row += [
            Tile(
                pixels=searcher.item_image(result.payload, side=side),
                caption=(result.name or Path(result.path).stem).replace("_", " "),
                subcaption=format_score(result),
                faded=result.verdict == "possible",
            )
            for result in answer.results[:_MAX_RESULTS]
        ]
        rows.append(row)
    labels = ["no good match" if answer.match is False else "" for answer in some]
    title = "Similar images: similarity, not identity"
    return contact_sheet(rows, title=title, row_labels=labels if any(labels) else None, side=side)


def duplicates_sheet(
    store: VectorStore, name: str, groups: Sequence[DuplicateGroup], *, side: int = 128
) -> Pixels:
    """Return a row for each group of copies, largest file first, uint8 (H, W, 3).

    At most 50 groups and 20 copies of each are shown.

    Raises:
        InvalidArgumentError: there is no group.
        BundleError: the model of the collection cannot be opened.
    """
    if not groups:
        raise InvalidArgumentError("a sheet of copies needs at least one group, got none")
    searcher = Searcher.open(store, name)
    rows = [
        [
            Tile(
                pixels=searcher.item_image(dict(copy.payload), side=side),
                caption=Path(copy.path).name,
                subcaption=f"{copy.bytes / 1000:,.0f} kB",
                accent=first,
            )
            for first, copy in zip(
                (True, *[False] * len(group.copies)), group.copies[:_MAX_RESULTS], strict=False
            )
        ]
        for group in groups[:MAX_ROWS]
    ]
    labels = ["identical" if group.identical else f"{group.similarity:.3f}" for group in groups[:MAX_ROWS]]
    return contact_sheet(rows, title="Copies, the largest file first", row_labels=labels, side=side)


def clusters_sheet(store: VectorStore, name: str, clusters: Sequence[Cluster], *, side: int = 128) -> Pixels:
    """Return a row for each group, with its number, name and size, uint8 (H, W, 3).

    At most 50 groups and 20 images of each are shown.

    Raises:
        InvalidArgumentError: there is no group.
        BundleError: the model of the collection cannot be opened.
    """
    if not clusters:
        raise InvalidArgumentError("a sheet of groups needs at least one group, got none")
    searcher = Searcher.open(store, name)
    rows, labels = [], []
    for cluster in clusters[:MAX_ROWS]:
        records = store.get(name, cluster.examples)
        payloads = [dict(records[each].payload) for each in cluster.examples if each in records]
        rows.append(
            [
                Tile(
                    pixels=searcher.item_image(payload, side=side),
                    caption=Path(payload["path"]).stem.replace("_", " "),
                )
                for payload in payloads
            ]
        )
        labels.append(f"{cluster.number} {cluster.name or ''}".strip() + f" ({cluster.size})")
    title = "Groups of similar images: similarity, not identity"
    return contact_sheet(rows, title=title, row_labels=labels, side=side)


def _query_tiles(
    searcher: Searcher, answer: QueryResult, crop: Crop | None, side: int, add: Mapping[str, float]
) -> list[Tile]:
    """Return the query images, each followed by its edited image where attributes were added."""
    label = "query" if answer.warning is None else "unlike its training"
    examples = {file: kind for kind, files in answer.examples.items() for file in files[:_MAX_EXAMPLES]}
    tiles = []
    for name, kind in (examples or {answer.query: label}).items():
        file = Path(name)
        compared = answer.example_faces.get(name, answer.face)
        face = None if compared is None else compared.face
        pixels = searcher.query_image(file, side=side, crop=crop, face=face)
        tiles.append(Tile(pixels=pixels, caption=caption(file), subcaption=kind, accent=True))
        if add and kind != "unlike" and searcher.model.has_decoder:
            loaded = _as_model_sees(searcher, file, crop, face)
            if len(loaded):
                edited = edit(searcher.model, loaded, add)[0]
                text = _edit_text(add)
                tiles.append(Tile(pixels=edited, caption=text, subcaption="edited query", accent=True))
    return tiles


def _as_model_sees(searcher: Searcher, file: Path, crop: Crop | None, face: Face | None) -> Pixels:
    """Return the query image, uint8 (1, S, S, C), or an empty array (0, S, S, C)."""
    spec = searcher.model.bundle.spec.image
    if face is None:
        framing = Crop.parse(searcher.spec.crop) if crop is None and not searcher.spec.has_faces else crop
        return read_all(searcher.model, [file], crop=framing)[1]
    pixels = decode_rgb(read_bounded(file), max_pixels=searcher.max_pixels, name=str(file))
    return cut_for_model(pixels, [face], searcher.model.bundle.face_frame, spec)


def reconstruction_sheet(model: Model, originals: Pixels, back: Pixels, captions: Sequence[str]) -> Pixels:
    """Return originals above reconstructions, ten in a row, with the PSNR of each, uint8 (H, W, 3).

    For a model that was trained to denoise there is no PSNR: removing noise is not an error.
    """
    spec, name = model.bundle.spec, model.bundle.name
    title = f"Originals above reconstructions by {name}: {spec.latent} dimensions"
    if spec.denoises is not None:
        title = f"Inputs above denoised reconstructions by {name}: {spec.latent} dimensions"
    rows: list[list[Tile]] = []
    for start in range(0, len(originals), _COLUMNS):
        part = range(start, min(start + _COLUMNS, len(originals)))
        rows.append([Tile(pixels=originals[i], caption=captions[i]) for i in part])
        decibels = [f"{psnr(originals[i], back[i]):.1f} dB" if spec.denoises is None else "" for i in part]
        rows.append([Tile(pixels=back[i], caption=text) for i, text in zip(part, decibels, strict=True)])
    return contact_sheet(rows, title=title, side=112)


def denoised_sheet(views: Sequence[tuple[Path, str, tuple[Pixels, ...]]]) -> Pixels:
    """Return the middle of images before and after, and their noise maps, six in a row, uint8 (H, W, 3).

    Args:
        views: File, what was found, and uint8 (h, w, 1 or 3) before, after and, where it was estimated, of
            the noise: black is clean, white a sigma of 50 of 255 and more.
    """
    rows: list[list[Tile]] = []
    for start in range(0, len(views), _PAIR_COLUMNS):
        part = views[start : start + _PAIR_COLUMNS]
        rows.append(
            [Tile(pixels=view[0], caption=caption(file), subcaption=text) for file, text, view in part]
        )
        rows += [[Tile(pixels=view[row]) for _, _, view in part] for row in range(1, len(part[0][2]))]
    title = "Before, after, noise (white: 50)"
    return contact_sheet(rows, title=title if len(views[0][2]) > 2 else "Before and after", side=160)


def faces_sheet(photographs: Sequence[FoundFaces]) -> Pixels:
    """Return each photograph with numbered boxes and its faces beside it, six in a row, uint8 (H, W, 3).

    Of a photograph at most 30 faces are shown; those without a view are left out.

    Raises:
        InvalidArgumentError: no photograph has a view.
    """
    rows: list[list[Tile]] = []
    for found in photographs:
        if found.view is None:
            continue
        count = len(found.faces)
        text = "no face" if not count else "1 face" if count == 1 else f"{count} faces"
        row = [Tile(pixels=found.view.photograph, caption=Path(found.path).name, subcaption=text)]
        pairs = zip(found.faces[:_MAX_FACES], found.view.faces, strict=False)
        for number, (face, pixels) in enumerate(pairs, start=1):
            if len(row) > _FACE_COLUMNS:
                rows.append(row)
                row = []
            score = f"score {face.score:.2f}, {face.width} px wide"
            row.append(Tile(pixels=pixels, caption=str(number), subcaption=score))
        rows.append(row)
    return contact_sheet(rows, title="Faces found, from left to right", side=SHEET_SIDE)


def classes_sheet(model: Model, rows: Pixels) -> Pixels:
    """Return a contact sheet of uint8 (N, K, H, W, C) of :func:`sample_classes`, uint8 (H, W, 3)."""
    few = rows.shape[1] <= _FEW_CLASSES  # and a narrow sheet
    title = f"{model.bundle.name}: one latent in a row{'' if few else ', one class in a column'}"
    tiles = [[Tile(pixels=pixels) for pixels in row] for row in rows]
    return contact_sheet(tiles, title=title, column_labels=model.bundle.spec.classes, side=168 if few else 84)


def interpolation_sheet(model: Model, originals: Pixels, rows: Pixels, captions: Sequence[str]) -> Pixels:
    """Return a row from each original to the next, with those two at its ends, uint8 (H, W, 3).

    Args:
        model: The model.
        originals: uint8 (N, H, W, C).
        rows: uint8 (N - 1, steps, H, W, C), as :func:`interpolate` makes it.
        captions: N.
    """
    ends = [
        Tile(pixels=pixels, caption=text, accent=True)
        for pixels, text in zip(originals, captions, strict=True)
    ]
    tiles = [
        [start, *(Tile(pixels=pixels) for pixels in row), end]
        for start, row, end in zip(ends, rows, ends[1:], strict=False)
    ]
    return contact_sheet(tiles, title=f"{model.bundle.name}: from one image to the next", side=112)


def edits_sheet(
    model: Model,
    originals: Pixels,
    rows: Pixels,
    captions: Sequence[str],
    *,
    title: str,
    heads: Sequence[str] = (),
) -> Pixels:
    """Return originals and edited images, uint8 (H, W, 3).

    With heads, each original is followed by its steps; without, originals are above, ten in a row.

    Args:
        model: The model.
        originals: uint8 (N, H, W, C).
        rows: uint8 (N, S, H, W, C), as :func:`edit_steps` makes it; S is 1 without heads.
        captions: N.
        title: The edit.
        heads: S strengths, or none.
    """
    tiles: list[list[Tile]] = []
    heading = f"{model.bundle.name}: {title}"
    if heads:
        for pixels, row, text in zip(originals, rows, captions, strict=True):
            first = Tile(pixels=pixels, caption=text, accent=True)
            tiles.append([first, *(Tile(pixels=step) for step in row)])
        return contact_sheet(tiles, title=heading, column_labels=["", *heads], side=96)
    for start in range(0, len(originals), _COLUMNS):
        part = range(start, min(start + _COLUMNS, len(originals)))
        tiles.append([Tile(pixels=originals[i], caption=captions[i]) for i in part])
        tiles.append([Tile(pixels=rows[i, 0]) for i in part])
    return contact_sheet(tiles, title=heading, side=112)


def smile_sheet(model: Model, originals: Pixels, captions: Sequence[str], add: Mapping[str, float]) -> Pixels:
    """Return four rows: originals, reconstructions, and faces with attributes added and removed.

    Args:
        model: With a decoder and the attributes.
        originals: uint8 (N, H, W, C).
        captions: N.
        add: Attribute to strength.
    """
    less = {name: -strength for name, strength in add.items()}
    plain = edit(model, originals, {}, keep_detail=False)
    rows = {"original": originals, "reconstruction": plain, _edit_text(add): edit(model, originals, add)}
    rows[_edit_text(less)] = edit(model, originals, less)
    tiles = [[Tile(pixels=pixels) for pixels in row] for row in rows.values()]
    title = f"{model.bundle.name}: the same faces, {_edit_text(add)} and {_edit_text(less)}"
    return contact_sheet(tiles, title=title, row_labels=list(rows), column_labels=captions, side=112)


def _edit_text(add: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {strength:+g}" for name, strength in add.items())
