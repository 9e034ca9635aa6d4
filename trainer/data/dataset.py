"""Training data: images, the person on each, and splits in which each person is in one part only.

Batches of them are shuffled, mirrored, shifted, and given noise.

Legend: N images, B of them in a batch, S side of the input, C channels, K classes.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lookalike.encoder.datasets import (
    CLASSES,
    SIDE,
    SPLITS,
    cache_folder,
    find_lfw,
    find_mnist,
    only_one,
    person_from_folder,
    select,
    share_of,
    validation_people,
)
from lookalike.encoder.detect import LFW_FRAME, Faces, Frame, face_finder, labeled_face, read_faces
from lookalike.encoder.errors import DataError, ImageError, printable
from lookalike.encoder.files import atomic_write, read_bounded
from lookalike.encoder.images import (
    IMAGE_SUFFIXES,
    LFW_CROP,
    Crop,
    ImageSpec,
    NoiseSpec,
    find_images,
    read_pixels,
)
from lookalike.trainer.data.noise import make_noisy

HELD_OUT_SHARE: Final = 0.15
_MNIST_VALIDATION: Final = 5_000
_CHUNK: Final = 64  # images that one thread decodes at a time

Part = Literal["train", "validation", "held_out"]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices, int64 and ascending, of three parts that share no person.

    Attributes:
        train: The network is fitted to these.
        validation: 8 % of the other people, at least one: used to choose the best checkpoint and to calibrate
            scores.
        held_out: Used to report metrics; nothing is fitted to or chosen on them.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images under one root.

    Attributes:
        name: ``lfw``, or the folder's name.
        root: Folder of the images.
        paths: Relative to the root, sorted by their POSIX form.
        people: One per image: the person, or the image's own path where no person is known.
        held_out: People whose images are never trained on.
        crop: Default crop of these images.
        validation: People of the validation part; None: 8 % of those not held out, by a hash of the name.
        classes: K names, each once; empty without classes.
        labels: The class of each image as an index into ``classes``; -1: unknown; empty without classes.
        mirrored: Whether a mirror image is a valid image of its kind (a face is, a digit is not).
        contents: Index to the bytes of an image, for images that are not separate files.
        frame: Where the landmarks of a face lie in the images with their default crop; None: not known.
        faces: Whether the main face of each image is found and turned upright, into ``frame``.
    """

    name: str
    root: Path
    paths: tuple[Path, ...]
    people: tuple[str, ...]
    held_out: frozenset[str]
    crop: Crop
    validation: frozenset[str] | None = None
    classes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    mirrored: bool = True
    contents: Callable[[int], bytes] | None = None
    frame: Frame | None = None
    faces: bool = False

    def read(self, index: int) -> bytes:
        """Return the bytes of an image.

        Raises:
            OSError: it cannot be read.
        """
        if self.contents is not None:
            return self.contents(index)
        path = self.root / self.paths[index]
        if not path.is_file():  # reading a pipe would block
            raise OSError("it is not a file or a broken link")
        return read_bounded(path)

    def frame_within(self, crop: Crop) -> Frame | None:
        """Return where the landmarks of a face lie in the images with this crop; None: not known."""
        return self.frame if self.faces or crop == self.crop else None

    def with_faces(self, frame: Frame = LFW_FRAME) -> Dataset:
        """Return a data set of the main face of each image, found and turned upright.

        Images without a face cannot be used, and say so when they are read.

        Raises:
            MissingExtraError: the extra ``faces`` is not installed.
        """
        face_finder()
        return replace(self, frame=frame, faces=True)

    def pixels(self, index: int, spec: ImageSpec) -> NDArray[np.uint8]:
        """Read an image as a model sees it, uint8 (S, S, C).

        Raises:
            OSError: it cannot be read.
            ImageError: it is no readable image, or has no face where faces are wanted.
        """
        name = str(self.root / self.paths[index])
        if not self.faces or self.frame is None:
            return read_pixels(self.read(index), spec, name=name)
        faces, cut = read_faces(self.read(index), spec, self.frame, Faces(), name=name)
        if (main := labeled_face(faces, centered=self.name == "lfw")) is None:
            raise ImageError(f"{printable(name)}: no face was found")
        return np.asarray(cut[main], np.uint8)

    def split(self, usable: Iterable[int]) -> Split:
        """Split the images at the indices ``usable`` by person.

        Raises:
            DataError: a part has no image, or only one is left to train on.
        """
        usable = list(usable)
        validation = self.validation
        if validation is None:
            others = {self.people[index] for index in usable} - self.held_out
            validation = validation_people(others)
        parts: dict[Part, list[int]] = {"train": [], "validation": [], "held_out": []}
        for index in usable:
            person = self.people[index]
            part: Part = (
                "held_out" if person in self.held_out else "validation" if person in validation else "train"
            )
            parts[part].append(index)
        counts = ", ".join(f"{len(indices)} {part.replace('_', '-')}" for part, indices in parts.items())
        if len(parts["train"]) < 2 or not parts["validation"] or not parts["held_out"]:
            raise DataError(
                "training needs images of three people or more (a file is one where no folder names them), "
                f"{printable(str(self.root))} gives {counts} images; add images"
            )
        return Split(**{part: np.array(indices, np.int64) for part, indices in parts.items()})


def open_dataset(source: str, *, progress: bool = False) -> Dataset:
    """Open ``lfw``, ``mnist`` or a folder of images (one subfolder a person, or all in one).

    For LFW the held-out people are those in a pair of View 2's folds 1 to 5, for any other folder 15 % of
    the people by a hash of the name, at least one. For MNIST the test digits are held out and the last 5,000
    training digits are the validation part.

    Raises:
        DataError: the source does not exist or has no images.
    """
    if source == "lfw":
        lfw = find_lfw(progress=progress)
        paths = tuple(path.relative_to(lfw.root) for path in lfw.images())
        people = tuple(lfw.person_of(lfw.root / path) for path in paths)
        return Dataset("lfw", lfw.root, paths, people, lfw.held_out_people(), LFW_CROP, frame=LFW_FRAME)
    if source == "mnist":
        return _open_mnist(progress=progress)
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"--data is lfw, mnist or a folder of images, {source!r} is none; check the path")
    paths = tuple(sorted(find_images(root), key=lambda path: path.as_posix()))
    if not paths:
        raise DataError(
            f"--data needs images ({', '.join(sorted(IMAGE_SUFFIXES))}), {printable(source)} holds none; "
            "check the path"
        )
    people = tuple(person_from_folder(root / path, root) or path.as_posix() for path in paths)
    held_out = select({person: share_of(person) for person in people}, HELD_OUT_SHARE)
    return Dataset(printable(root.resolve().name), root, paths, people, held_out, Crop())


def default_shape(source: str) -> tuple[int, Literal[1, 3]]:
    """Return the default side in pixels and number of channels for a source of :func:`open_dataset`."""
    return (SIDE, 1) if source == "mnist" else (64, 3)


def _open_mnist(*, progress: bool) -> Dataset:
    mnist = find_mnist(progress=progress)
    images = np.concatenate([mnist.images(split) for split in SPLITS])
    labels = [mnist.labels(split) for split in SPLITS]
    paths = [
        f"{split}/{row:05d}" for split, some in zip(SPLITS, labels, strict=True) for row in range(len(some))
    ]
    train = len(labels[0])
    header = b"P5 %d %d 255\n" % (SIDE, SIDE)
    return Dataset(
        "mnist",
        mnist.folder,
        tuple(map(Path, paths)),
        people=tuple(paths),  # the writers are not known
        held_out=frozenset(paths[train:]),
        crop=Crop(),
        validation=frozenset(paths[train - min(_MNIST_VALIDATION, train // 3) : train]),
        classes=CLASSES,
        labels=tuple(np.concatenate(labels).tolist()),
        mirrored=False,
        contents=lambda index: header + images[index].tobytes(),
    )


@dataclass(frozen=True, slots=True)
class Pixels:
    """The decoded images of a data set.

    Attributes:
        images: uint8 (N, S, S, C), memory-mapped; rows that could not be read are black.
        failures: Index to the reason, one line each.
        fingerprint: SHA-256 of the paths below the root, the pixels and the ImageSpec: that of a copy of the
            data set is the same.
    """

    images: NDArray[np.uint8]
    failures: dict[int, str]
    fingerprint: str

    @property
    def usable(self) -> list[int]:
        """Indices of the rows that could be read."""
        return [index for index in range(len(self.images)) if index not in self.failures]


def read_pixel_cache(dataset: Dataset, spec: ImageSpec, *, progress: bool = False) -> Pixels:
    """Decode all images once into a memory-mapped file in the user's cache, or open the existing one.

    The files are keyed by the listing (paths, sizes, times), so that no image is read again, and renamed into
    place when complete; of several processes one decodes and the others wait.

    Raises:
        DataError: the cache cannot be written, or the disk has no room.
    """
    folder = cache_folder() / "pixels" / _listing_key(dataset, spec)
    pixels, failed, digest = folder / "pixels.npy", folder / "failed.tsv", folder / "fingerprint.txt"
    with only_one(folder):
        if not pixels.is_file():  # it is written last
            digest.unlink(missing_ok=True)
            _write_pixels(dataset, spec, pixels, failed, progress=progress)
        images = np.load(pixels, mmap_mode="r")
        lines = [line.split("\t", 1) for line in failed.read_text(encoding="utf-8").splitlines()]
        failures = {int(index): reason for index, reason in lines}
        if not digest.is_file():
            atomic_write(digest, _fingerprint(dataset, spec, images, failures).encode())
    return Pixels(
        images=images,
        failures=failures,
        fingerprint=digest.read_text(encoding="ascii"),
    )


def _write_pixels(dataset: Dataset, spec: ImageSpec, pixels: Path, failed: Path, *, progress: bool) -> None:
    count = len(dataset.paths)
    _check_room(pixels.parent, count * math.prod(spec.shape))
    fresh = pixels.with_suffix(".part")
    images = np.lib.format.open_memmap(fresh, mode="w+", dtype=np.uint8, shape=(count, *spec.shape))

    def read(rows: range) -> list[str]:
        reasons = []
        for row in rows:
            path = dataset.root / dataset.paths[row]
            try:
                images[row] = dataset.pixels(row, spec)
            except ImageError as error:
                reasons.append(f"{row}\t{error}\n")
            except OSError as error:
                reasons.append(f"{row}\t{printable(str(path))}: cannot be read ({error.strerror or error})\n")
        return reasons

    reasons: list[str] = []
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(
            desc=f"decoding {dataset.name}",
            total=count,
            unit="image",
            disable=None if progress else True,
            leave=False,
        ) as bar,
    ):
        for chunk, failed_rows in zip(chunks, pool.map(read, chunks), strict=True):
            reasons += failed_rows
            bar.update(len(chunk))
    images.flush()
    failed.write_text("".join(reasons), encoding="utf-8")
    fresh.replace(pixels)


def _check_room(folder: Path, needed: int) -> None:
    # Writing to a memory-mapped file on a full disk kills the process without a message.
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the decoded images need {needed / 1e9:.1f} GB in {printable(str(folder))}, "
            f"{free / 1e9:.1f} GB are free; make room, take a smaller --size, or choose another folder in "
            "LOOKALIKE_CACHE"
        )


def _fingerprint(dataset: Dataset, spec: ImageSpec, images: NDArray[np.uint8], failed: Iterable[int]) -> str:
    digest = hashlib.sha256(repr((sorted(spec.to_json().items()), sorted(failed))).encode())
    for path in dataset.paths:
        digest.update(f"{path.as_posix()}\0".encode(errors="surrogateescape"))
    for start in range(0, len(images), _CHUNK):
        digest.update(np.ascontiguousarray(images[start : start + _CHUNK]).data)
    return digest.hexdigest()


def _listing_key(dataset: Dataset, spec: ImageSpec) -> str:
    digest = hashlib.sha256(repr(sorted(spec.to_json().items())).encode())
    if dataset.faces:
        digest.update(f"{Faces()} {dataset.frame}".encode())
    for index, path in enumerate(dataset.paths):
        if dataset.contents is not None:
            digest.update(dataset.contents(index))
            continue
        try:
            status = (dataset.root / path).stat()
            stat = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError:  # a broken link: reported as a failure when it is read
            stat = "missing"
        digest.update(f"{path.as_posix()}\0{stat}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


Images = NDArray[np.uint8]
EVAL_BATCH: Final = 256
"""Images in a batch of evaluation: bounds the memory."""


def batches(
    images: Images,
    indices: NDArray[np.int64],
    *,
    size: int,
    shift: int,
    noise: NoiseSpec | None = None,
    mirror: bool = True,
    seed: int,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield input and target, both float32 (B, C, S, S); the target is clean and in [0, 1].

    All randomness comes from (seed, epoch): the same epoch is always the same.

    Args:
        images: uint8 (N, S, S, C).
        indices: The images to show, each once.
        size: Largest B; the batches of an epoch differ by at most one image.
        shift: Each image is shifted by up to this many pixels each way.
        noise: Noise added to the input, with a level drawn for each image.
        mirror: Whether half of them are mirrored.
        seed: Of the run.
        epoch: From 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(indices)
    for chosen in np.array_split(order, -(-len(order) // size)):
        target = to_floats(_varied(images, np.sort(chosen), rng, mirror=mirror, shift=shift))  # (B, C, S, S)
        yield (target if noise is None else make_noisy(target, noise, rng)), target


def labelled_batches(
    images: Images,
    labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    *,
    size: int,
    shift: int,
    mirror: bool,
    binarise: bool,
    noise: NoiseSpec | None = None,
    seed: int,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield input and target, both float32 (B, C, S, S) in [0, 1], and labels int64 (B,).

    Other arguments are those of :func:`batches`. With ``binarise`` each pixel becomes 1 with its brightness
    as the probability, else 0; with noise only the target's pixels, and the noise is added to the gray image.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(indices)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for chosen in np.array_split(order, -(-len(order) // size)):
        rows = np.sort(chosen)
        plain = to_floats(_varied(images, rows, rng, mirror=mirror, shift=shift))  # (B, C, S, S)
        target = torch.bernoulli(plain, generator=generator) if binarise else plain
        inputs = target if noise is None else make_noisy(plain, noise, rng)
        yield inputs, target, torch.from_numpy(labels[rows])


def _varied(
    images: Images, rows: NDArray[np.int64], rng: np.random.Generator, *, mirror: bool, shift: int
) -> Images:
    """Read rows, ascending (the file is read forwards), mirror half of them and shift each."""
    batch = images[rows]  # (B, S, S, C)
    if mirror:
        mirrored = rng.random(len(batch)) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
    if shift:
        batch = shift_images(batch, rng.integers(-shift, shift + 1, (len(batch), 2)))
    return batch


def to_floats(rows: Images) -> Tensor:
    """Return float32 (B, C, S, S) in [0, 1], the networks' input, of uint8 (B, S, S, C)."""
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255


def shift_images(images: Images, by: NDArray[np.int64]) -> Images:
    """Shift uint8 (B, S, S, C) down and right by int (B, 2) pixels; the edge is repeated."""
    side = np.arange(images.shape[1])
    down, right = (np.clip(side - step[:, None], 0, side[-1]) for step in by.T)  # (B, S) each
    shifted: Images = images[np.arange(len(images))[:, None, None], down[:, :, None], right[:, None, :]]
    return shifted


def chunked(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split indices into chunks of at most :data:`EVAL_BATCH`, in order."""
    return np.array_split(indices, -(-len(indices) // EVAL_BATCH))


def subsample(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of the indices, and at least one, in order and evenly spaced."""
    count = min(len(indices), max(1, most))
    chosen: NDArray[np.int64] = indices[np.arange(count) * len(indices) // count]
    return chosen
