"""Labeled Faces in the Wild: 13,233 photographs of 5,749 people, 250 x 250 px JPEG.

G. B. Huang, M. Ramesh, T. Berg, E. Learned-Miller: Labeled Faces in the Wild: A Database for Studying Face
Recognition in Unconstrained Environments. University of Massachusetts, Amherst, TR 07-49, 2007.
Deep funneling (the alignment we train on): G. B. Huang, M. Mattar, H. Lee, E. Learned-Miller: Learning to
Align from Scratch. NIPS 2012. Attributes: N. Kumar, A. C. Berg, P. N. Belhumeur, S. K. Nayar: Attribute and
Simile Classifiers for Face Verification. ICCV 2009.

An image is `<folder>/<variant>/<Person>/<Person>_0001.jpg`; the label files lie in `<folder>` itself.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

from lookalike.encoder.datasets.download import RemoteFile, cache_folder, fetch, only_one, unpack
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.files import read_bounded

_UMASS: Final = "http://vis-www.cs.umass.edu/lfw"
_FIGSHARE: Final = "https://ndownloader.figshare.com/files"

# Folder names of the three alignments, the one we train on first; the funneled archive unpacks with "_".
VARIANTS: Final = ("lfw-deepfunneled", "lfw-funneled", "lfw_funneled", "lfw")

# SHA-256 as in scikit-learn's sklearn/datasets/_lfw.py, MD5 as in torchvision's datasets/lfw.py.
LABEL_FILES = (
    RemoteFile(
        name="pairs.txt",
        urls=(f"{_FIGSHARE}/5976006", f"{_UMASS}/pairs.txt"),
        sha256="ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
    ),
    RemoteFile(
        name="pairsDevTrain.txt",
        urls=(f"{_FIGSHARE}/5976012", f"{_UMASS}/pairsDevTrain.txt"),
        sha256="1d454dada7dfeca0e7eab6f65dc4e97a6312d44cf142207be28d688be92aabfa",
    ),
    RemoteFile(
        name="pairsDevTest.txt",
        urls=(f"{_FIGSHARE}/5976009", f"{_UMASS}/pairsDevTest.txt"),
        sha256="7cb06600ea8b2814ac26e946201cdb304296262aad67d046a16a7ec85d0ff87c",
    ),
)
# By the variant each becomes, in the order of preference.
ARCHIVES = {
    "lfw-deepfunneled": RemoteFile(
        name="lfw-deepfunneled.tgz",
        urls=(f"{_UMASS}/lfw-deepfunneled.tgz",),
        md5="68331da3eb755a505a502b5aacb3c201",
    ),
    "lfw-funneled": RemoteFile(
        name="lfw-funneled.tgz",
        urls=(f"{_FIGSHARE}/5976015", f"{_UMASS}/lfw-funneled.tgz"),
        sha256="b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
    ),
}
_ATTRIBUTES_FROM: Final = "https://www.cs.columbia.edu/CAVE/databases/pubfig/download/lfw_attributes.txt"


@final
@dataclass(frozen=True, slots=True)
class Pair:
    """Two images (complete paths) and whether they show the same person."""

    first: Path
    second: Path
    same: bool


@final
@dataclass(frozen=True)
class LFW:
    """The data set in a folder: paths and labels, no pixels. Files are read when needed.

    Args:
        folder: Holds the label files and the folder of images.
        variant: Name of that folder, which tells the alignment (`lfw-deepfunneled`, ...).
    """

    folder: Path
    variant: str

    @property
    def root(self) -> Path:
        """The folder of images, with one folder for each person in it."""
        return self.folder / self.variant

    def images(self) -> list[Path]:
        """Return every JPEG file, sorted by its path below `root` in POSIX form.

        Raises:
            DataError: There is none.
        """
        # All share the root, so whole paths sort as relative ones.
        images = sorted(self.root.glob("*/*.jpg"), key=Path.as_posix)
        if not images:
            raise DataError(
                f"{self.root} must hold <Person>/<Person>_0001.jpg, but holds no image; unpack it again"
            )
        return images

    def person_of(self, path: Path) -> str:
        """Return the person in an image of this data set, as the folder is named: `Aaron_Eckhart`.

        Raises:
            InvalidArgumentError: The path is not in a person's folder.
        """
        person = person_from_folder(path, self.root)
        if person is None:
            raise InvalidArgumentError(
                f"an image must lie in a person's folder of {self.root}, not at {path}"
            )
        return person

    def pairs(self) -> list[list[Pair]]:
        """Return view 2, for reporting: 10 folds of 300 matched, then 300 mismatched pairs, from `pairs.txt`.

        Raises:
            DataError: The file is missing or malformed (with its line).
        """
        path = self.folder / "pairs.txt"
        lines = _lines(path)
        where, header = next(lines, (f"{path}:1", ""))
        counts = header.split()
        if len(counts) != 2 or not all(count.isdecimal() and int(count) for count in counts):
            raise _malformed(where, "give the numbers of folds and of pairs (10 300)", repr(header))
        folds, size = map(int, counts)
        pairs: list[Pair] = []
        for where, line in lines:
            pair = self._pair(line, where)
            if pair.same != (len(pairs) % (2 * size) < size):
                raise _malformed(where, f"keep to {size} matched, then {size} mismatched pairs", repr(line))
            pairs.append(pair)
        if len(pairs) != folds * 2 * size:
            raise _malformed(path, f"hold {folds * 2 * size} pairs", str(len(pairs)))
        return [pairs[start : start + 2 * size] for start in range(0, len(pairs), 2 * size)]

    def view1(self, split: Literal["train", "test"]) -> list[Pair]:
        """Return view 1, for development: the pairs of `pairsDevTrain.txt` or `pairsDevTest.txt`.

        The official files begin with the number of matched pairs; copies without it are accepted.

        Raises:
            DataError: The file is missing or malformed (with its line).
            InvalidArgumentError: No such split.
        """
        if split not in ("train", "test"):
            raise InvalidArgumentError(f"the split of view 1 must be 'train' or 'test', not {split!r}")
        path = self.folder / f"pairsDev{split.capitalize()}.txt"
        lines = list(_lines(path))
        count = int(lines.pop(0)[1]) if lines and lines[0][1].strip().isdecimal() else None
        pairs = [self._pair(line, where) for where, line in lines]
        matched = sum(pair.same for pair in pairs)
        if not pairs or (count is not None and (matched, len(pairs)) != (count, 2 * count)):
            expected = "pairs" if count is None else f"{count} matched and {count} mismatched pairs"
            raise _malformed(path, f"hold {expected}", f"{matched} and {len(pairs) - matched}")
        return pairs

    def held_out_people(self) -> frozenset[str]:
        """Return everybody in folds 1 to 5 of view 2: exclude them from training to test on those folds."""
        pairs = [pair for fold in self.pairs()[:5] for pair in fold]
        return frozenset(path.parent.name for pair in pairs for path in (pair.first, pair.second))

    def attributes(self) -> dict[str, dict[str, float]]:
        """Return the scores of `lfw_attributes.txt` (Kumar et al. 2009): path below `root` -> name -> score.

        A score above 0 means present, further from 0 is more certain. Unknown attributes are missing.
        The keys are POSIX paths, `Aaron_Eckhart/Aaron_Eckhart_0001.jpg`.

        Raises:
            DataError: The file is missing or malformed (with its line).
        """
        path = self.folder / "lfw_attributes.txt"
        if not path.is_file():
            raise DataError(f"attributes not found at {path}; get the file from {_ATTRIBUTES_FROM}")
        return read_scores(path)

    def _pair(self, line: str, where: str) -> Pair:
        """Parse a line: `name i j` is a matched pair, `name i name j` a mismatched one."""
        match line.split():
            case [name, i, j]:
                first, second, same = _image(name, i, where), _image(name, j, where), True
            case [name, i, other, j]:
                first, second, same = _image(name, i, where), _image(other, j, where), False
            case _:
                raise _malformed(where, "be 'name i j' or 'name i name j'", repr(line))
        return Pair(self.root / first, self.root / second, same)


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Read scores from a table in the format of `lfw_attributes.txt`, like :meth:`LFW.attributes`.

    Raises:
        DataError: The file is missing or malformed (with its line).
    """
    names: list[str] = []
    scores: dict[str, dict[str, float]] = {}
    for where, line in _lines(path):
        if line.startswith("#"):
            if line.split("\t")[1:3] == ["person", "imagenum"]:
                names = [name.strip() for name in line.rstrip().split("\t")[3:]]
            continue
        if not names:
            raise _malformed(where, "come after '#<TAB>person<TAB>imagenum<TAB>...'", repr(line))
        # One more empty field, in case an editor trimmed the tab before a last unknown score.
        person, number, *values = [*line.split("\t"), ""]
        image = _image(person.replace(" ", "_"), number, where)
        scores[image] = _scores(names, values, where)
    return scores


def find_lfw(*, download: bool = True, progress: bool = False) -> LFW:
    """Find Labeled Faces in the Wild at `$LOOKALIKE_DATA/lfw` or in the cache, else download it there.

    The deep-funneled images (about 100 MB) are preferred; when no mirror has them, the funneled ones
    (about 230 MB) are used: see `LFW.variant`. Attributes are a separate file, see `LFW.attributes`.

    Args:
        download: Download it if it is not found.
        progress: Show bars on stderr, if that is a terminal.

    Raises:
        DataError: It is not found and cannot be downloaded; says what was tried.
    """
    data, cache = os.environ.get("LOOKALIKE_DATA"), cache_folder() / "lfw"
    places = [Path(data).expanduser() / "lfw", cache] if data else [cache]
    for place in places:
        if found := _lfw_at(place):
            return found
    failed = "downloading is off"
    if download:
        try:
            return _download(cache, progress=progress)
        except DataError as error:
            failed = str(error)
    raise DataError(
        f"Labeled Faces in the Wild not found at {' or '.join(map(str, places))} as "
        f"lfw-deepfunneled/<Person>/*.jpg, and {failed}; "
        "or set LOOKALIKE_DATA to the folder that holds lfw/"
    )


def person_from_folder(path: Path, root: Path) -> str | None:
    """Return the name of the folder that holds the image, if that is below `root`; else None."""
    return path.parent.name if path.is_relative_to(root) and path.parent != root and path != root else None


def _lfw_at(folder: Path) -> LFW | None:
    return next((LFW(folder, variant) for variant in VARIANTS if (folder / variant).is_dir()), None)


def _download(folder: Path, *, progress: bool) -> LFW:
    """Download labels first: once the images are in place, the data set is complete."""
    with only_one(folder):
        if found := _lfw_at(folder):  # another process was faster
            return found
        for labels in LABEL_FILES:
            fetch(labels, folder, progress=progress)
        reasons = []
        for variant, file in ARCHIVES.items():
            try:
                archive = fetch(file, folder, progress=progress)
            except DataError as error:
                reasons.append(str(error))
                continue
            unpack(archive, folder / variant)
            archive.unlink()
            return LFW(folder, variant)
        raise DataError("; ".join(reasons))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield `file:number` and text of each line that is not blank."""
    try:
        text = read_bounded(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be a readable text file, but: {error}; fetch it again") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line


def _malformed(where: str | Path, rule: str, value: str) -> DataError:
    return DataError(f"{where} must {rule}, not {value}; fetch the file again")


def _image(person: str, number: str, where: str) -> str:
    """Return `Aaron_Eckhart/Aaron_Eckhart_0001.jpg` for `Aaron_Eckhart`, `1`."""
    if not person or "/" in person or not number.isdecimal():
        raise _malformed(where, "name a person and the number of an image", f"{person!r} {number!r}")
    return f"{person}/{person}_{int(number):04d}.jpg"


def _scores(names: list[str], values: list[str], where: str) -> dict[str, float]:
    """Return the filled fields by name; extra fields must be empty."""
    try:
        known = {index: float(value) for index, value in enumerate(values) if value.strip()}
    except ValueError as error:
        raise _malformed(where, "hold numbers", repr(values)) from error
    if len(values) < len(names) or any(
        index >= len(names) or not math.isfinite(known[index]) for index in known
    ):
        raise _malformed(where, f"hold {len(names)} finite scores", repr(values))
    return {names[index]: score for index, score in known.items()}
