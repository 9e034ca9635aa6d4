"""What the trainer learns from: images, who is on them, and splits that keep a person on one side.

Legend: N images, S side of the input, C channels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from encoder.downloads import cache_folder
from encoder.errors import DataError, ImageError
from encoder.folders import PICTURE_SUFFIXES, find_pictures
from encoder.images import Crop, ImageSpec, read_pixels, shown
from encoder.lfw import find_lfw, person_from_folder

__all__ = ["LFW_CROP", "Dataset", "Pixels", "Split", "open_dataset", "read_pixel_cache"]

LFW_CROP: Final = Crop(fraction=0.36)
"""80 of 250 pixels off each side, as the coursework that this autoencoder comes from has it."""

HELD_OUT_SHARE: Final = 0.15
VALIDATION_SHARE: Final = 0.05


Part = Literal["train", "validation", "held_out"]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices, int64 and ascending, of three parts that share no person.

    Attributes:
        train: The network is fitted to these.
        validation: 5 % of the other people: the best checkpoint is chosen on these.
        held_out: Figures are reported on these; nothing is fitted to or chosen on them.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images under one root.

    Attributes:
        name: ``lfw``, or the folder's name.
        root: Folder that the images lie under.
        paths: Relative to the root, sorted by their POSIX form.
        people: One per image: the person, or the image's own path where nobody is named.
        held_out: People whose images are never trained on.
        crop: The framing that suits these images.
    """

    name: str
    root: Path
    paths: tuple[Path, ...]
    people: tuple[str, ...]
    held_out: frozenset[str]
    crop: Crop

    def split(self, usable: Iterable[int]) -> Split:
        """Split the images at the indices ``usable`` by person.

        Raises:
            DataError: a part has no image left.
        """
        parts: dict[Part, list[int]] = {"train": [], "validation": [], "held_out": []}
        for index in usable:
            parts[self._part(self.people[index])].append(index)
        for part, indices in parts.items():
            if not indices:
                raise DataError(
                    f"training needs images of several people or in several files, {self.root} leaves the "
                    f"{part} part empty ({len(self.paths)} images); add images"
                )
        return Split(**{part: np.array(indices, np.int64) for part, indices in parts.items()})

    def _part(self, person: str) -> Part:
        if person in self.held_out:
            return "held_out"
        return "validation" if share_of(f"validation {person}") < VALIDATION_SHARE else "train"


def share_of(name: str) -> float:
    """Place a name in [0, 1) by its SHA-256: the same on every machine, whoever else is there."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8]) / 2**64


def open_dataset(source: str, *, progress: bool = False) -> Dataset:
    """Open ``lfw`` or a folder of images (one subfolder a person, or all in one).

    For LFW the held-out people are those in a pair of View 2's folds 1 to 5, for any other folder 15 % of
    the people by a hash of the name.

    Raises:
        DataError: nothing is there.
    """
    if source == "lfw":
        lfw = find_lfw(progress=progress)
        paths = tuple(path.relative_to(lfw.root) for path in lfw.images())
        people = tuple(lfw.person_of(lfw.root / path) for path in paths)
        return Dataset("lfw", lfw.root, paths, people, lfw.held_out_people(), LFW_CROP)
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"--data is lfw or a folder of images, {source!r} is neither; check the path")
    paths = tuple(sorted(find_pictures(root), key=lambda path: path.as_posix()))
    if not paths:
        raise DataError(
            f"--data needs images, {root} holds none ({', '.join(sorted(PICTURE_SUFFIXES))}); check the path"
        )
    people = tuple(person_from_folder(root / path, root) or path.as_posix() for path in paths)
    held_out = frozenset(person for person in people if share_of(person) < HELD_OUT_SHARE)
    return Dataset(root.resolve().name, root, paths, people, held_out, Crop())


@dataclass(frozen=True, slots=True)
class Pixels:
    """A data set as the network sees it.

    Attributes:
        images: uint8 (N, S, S, C), memory-mapped; rows that could not be read are black.
        failures: Index to the reason, one line each.
        fingerprint: SHA-256 of the listing (paths, sizes, times) and the ImageSpec.
    """

    images: NDArray[np.uint8]
    failures: dict[int, str]
    fingerprint: str

    @property
    def usable(self) -> list[int]:
        """Indices of the rows that could be read."""
        return [index for index in range(len(self.images)) if index not in self.failures]


def read_pixel_cache(dataset: Dataset, spec: ImageSpec, *, progress: bool = False) -> Pixels:
    """Decode all images once into a memory-mapped file in the user's cache, or open what is there.

    The file is keyed by the listing's fingerprint, written under a temporary name and renamed when whole.
    """
    fingerprint = _fingerprint(dataset, spec)
    folder = cache_folder() / "pixels"
    target = folder / f"{fingerprint}.npy"
    failed = folder / f"{fingerprint}.failed"
    if not (target.is_file() and failed.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        _write_pixels(dataset, spec, target, failed, progress=progress)
    lines = [line.split("\t", 1) for line in failed.read_text(encoding="utf-8").splitlines()]
    return Pixels(
        images=np.load(target, mmap_mode="r"),
        failures={int(index): reason for index, reason in lines},
        fingerprint=fingerprint,
    )


def _write_pixels(dataset: Dataset, spec: ImageSpec, target: Path, failed: Path, *, progress: bool) -> None:
    fresh = target.with_suffix(f".{os.getpid()}.part")
    images = np.lib.format.open_memmap(
        fresh, mode="w+", dtype=np.uint8, shape=(len(dataset.paths), *spec.shape)
    )
    reasons: list[str] = []

    def read(index: int) -> str | None:
        path = dataset.root / dataset.paths[index]
        try:
            images[index] = read_pixels(path.read_bytes(), spec, name=str(path))
        except ImageError as error:
            return f"{index}\t{error}"
        except OSError as error:
            return f"{index}\t{shown(str(path))}: {error.strerror}"
        return None

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(read, range(len(dataset.paths)))
            bar = tqdm(
                results,
                total=len(dataset.paths),
                desc=f"decoding {dataset.name}",
                unit="image",
                disable=None if progress else True,
                leave=False,
            )
            reasons = [reason for reason in bar if reason is not None]
        images.flush()
        failed.write_text("".join(f"{reason}\n" for reason in reasons), encoding="utf-8")
        fresh.rename(target)
    finally:
        fresh.unlink(missing_ok=True)


def _fingerprint(dataset: Dataset, spec: ImageSpec) -> str:
    digest = hashlib.sha256(repr(sorted(spec.to_json().items())).encode())
    for path in dataset.paths:
        status = (dataset.root / path).stat()
        line = f"{path.as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
