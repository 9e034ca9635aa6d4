"""Find the image files under a folder, and tell what was passed over: formats, and the names each may have.

The first bytes of a file decide on its format, not its name; the name decides whether a file in a folder is
read. No module but this one and ``samples.py`` names a decoder of Pillow, and none but this one names
pi-heif and rawpy, which are optional (extras ``heic`` and ``raw``).

Camera raw files are read as the JPEG preview that the camera put into them; where there is none, or a small
one only, their sensor values are developed at half their width and height.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.images.samples import TiffFile

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    _AVIF = None
else:
    _AVIF = AvifImagePlugin.AvifImageFile

if TYPE_CHECKING:
    from rawpy import RawPy

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]

HEIC: Final = "HEIC"
RAW: Final = "RAW"
SIGNATURE_BYTES: Final = 64
"""So many bytes of a file decide on its format; of a TIFF file its directories tell whether it is raw."""
_LEAST_PREVIEW: Final = 640
"""Pixels of its longer side: some cameras embed one that is too small to see anything."""
_DIRECTORIES: Final = 16
_PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION = 262, 330, 50706
_SENSOR_VALUES: Final = (32803, 34892)
"""What PhotometricInterpretation says of a mosaic of colors, and of one that was interpolated."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be read.

    Attributes:
        kind: Its name.
        suffixes: Suffixes of its files in lower case, the usual one first.
        signature: What its files begin with.
        opener: Reads the header of a file.
        extra: The extra that is needed to read it, and the package that this installs; none.
    """

    kind: str
    suffixes: tuple[str, ...]
    signature: re.Pattern[bytes]
    opener: Opener
    extra: tuple[str, str] | None = None

    @property
    def hint(self) -> str:
        """What to install to read it; empty where nothing is missing."""
        return f"pip install 'lookalike[{self.extra[0]}]'" if self.extra else ""


def _open_heic(file: io.BytesIO) -> ImageFile.ImageFile:
    from pi_heif import HeifImageFile

    image: ImageFile.ImageFile = HeifImageFile(file)
    # It has turned the image upright, and says None where others say nothing.
    image.info = {key: value for key, value in image.info.items() if value is not None}
    return image


class RawFile:
    """A camera raw file, which LibRaw opens once: when its preview or its pixels are first asked for."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file
        self._opened: RawPy | None = None

    def preview(self) -> bytes | None:
        """Return its JPEG preview, which says how the camera was held (EXIF); None: none, or too small.

        Raises:
            ValueError: LibRaw cannot read it.
        """
        import rawpy

        with self._open() as raw:
            try:
                found = raw.extract_thumb()
            except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
                return None
        if not isinstance(found.data, bytes):
            return None
        with JpegImagePlugin.JpegImageFile(io.BytesIO(found.data)) as image:
            return found.data if max(image.size) >= _LEAST_PREVIEW else None

    def image(self) -> ImageFile.ImageFile:
        """Return the image of its preview, or what the sensor saw.

        Raises:
            ValueError: LibRaw cannot read it.
        """
        preview = self.preview()
        return _SensorImage(self) if preview is None else JpegImagePlugin.JpegImageFile(io.BytesIO(preview))

    def size(self) -> tuple[int, int]:
        """Return width and height of what :meth:`develop` gives, in pixels."""
        with self._open() as raw:
            sizes = raw.sizes
        width, height = sizes.width // 2, sizes.height // 2
        return (height, width) if sizes.flip in (5, 6) else (width, height)

    def develop(self) -> Image.Image:
        """Return what the sensor saw, half as wide and high, upright."""
        with self._open() as raw:
            pixels = raw.postprocess(half_size=True, use_camera_wb=True)  # of some cameras gray
        return Image.fromarray(pixels.squeeze()).convert("RGB")

    @contextmanager
    def _open(self) -> Iterator[RawPy]:
        import rawpy

        try:
            if self._opened is None:
                self._opened = rawpy.imread(self._file)
            yield self._opened
        except rawpy.LibRawError as error:  # its text is bytes
            raise ValueError(b"".join(error.args).decode("utf-8", "replace")) from error


def raw_file(data: bytes) -> RawFile | None:
    """Return a file as a camera raw file; None where it is none, or cannot be read here."""
    found = format_of(data)
    return RawFile(io.BytesIO(data)) if found in formats() and found is _RAW else None


class _SensorImage(ImageFile.ImageFile):
    """A camera raw file, developed when it is loaded: half as wide and high as the sensor, upright."""

    format = RAW

    def __init__(self, file: RawFile) -> None:
        self._raw: RawFile | None = file
        super().__init__(io.BytesIO())

    def _open(self) -> None:
        assert self._raw is not None  # noqa: S101
        self._size = self._raw.size()
        self._mode = "RGB"

    def load(self) -> Any:
        if self._raw is not None:
            developed, self._raw = self._raw.develop(), None
            self.im, self._size = developed.im, developed.size
        return Image.Image.load(self)


def _starts(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


# An explicit list: Pillow's other formats are rare, recognized without a signature or start other programs.
_ALL: Final[tuple[Format, ...]] = (
    Format(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        _starts(rb"\xff\xd8\xff"),
        JpegImagePlugin.JpegImageFile,
    ),
    Format("PNG", (".png", ".apng"), _starts(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    Format("WebP", (".webp",), _starts(rb"RIFF....WEBP"), WebPImagePlugin.WebPImageFile),
    Format("GIF", (".gif",), _starts(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    Format("BMP", (".bmp", ".dib"), _starts(rb"BM"), BmpImagePlugin.BmpImageFile),
    Format("TIFF", (".tif", ".tiff"), _starts(rb"II[*+]\0|MM\0[*+]"), TiffFile),
    Format(
        "PNM",
        (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        _starts(rb"P[1-6f]\s"),
        PpmImagePlugin.PpmImageFile,
    ),
    # The brand may stand among those that the file is compatible with.
    *(
        (
            Format(
                "AVIF",
                (".avif", ".avifs"),
                _starts(rb"....ftyp(?:avi[fs]|m[is]f1.{4}(?:.{4}){0,8}?avi[fs])"),
                _AVIF,
            ),
        )
        if _AVIF
        else ()
    ),
    Format(
        HEIC,
        (".heic", ".heif", ".hif"),
        _starts(rb"....ftyp(?:he[iv][cxms]|m[is]f1)"),
        _open_heic,
        ("heic", "pi_heif"),
    ),
    # Most raw files are TIFF files, see format_in.
    Format(
        RAW,
        (".dng", ".arw", ".cr2", ".cr3", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"),
        _starts(rb"II\*\0.{4}CR|....ftypcrx|FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0"),
        lambda file: RawFile(file).image(),
        ("raw", "rawpy"),
    ),
)
_RAW: Final = _ALL[-1]


@cache
def formats() -> tuple[Format, ...]:
    """Return the formats that can be read here."""
    return tuple(each for each in _ALL if not each.extra or importlib.util.find_spec(each.extra[1]))


def format_of(data: bytes) -> Format | None:
    """Return the format of a file by its content; of HEIC and raw also where they cannot be read."""
    return format_in(io.BytesIO(data))


def format_in(file: BinaryIO) -> Format | None:
    """Return the format of a file, as :func:`format_of`; only what is needed of it is read."""
    head = file.read(SIGNATURE_BYTES)
    if _RAW.signature.match(head):
        return _RAW
    found = next((each for each in _ALL if each.signature.match(head)), None)
    return _RAW if found is not None and found.kind == "TIFF" and _holds_sensor_values(file) else found


def _holds_sensor_values(file: BinaryIO) -> bool:
    """Whether a TIFF file is a camera's: it says so, or it or a part of it holds the values of a sensor."""
    try:
        file.seek(0)
        order = ">" if file.read(4).startswith(b"MM") else "<"
        left, looks = [*struct.unpack(f"{order}I", file.read(4))], 0
        while left and (looks := looks + 1) <= _DIRECTORIES:
            file.seek(left.pop(0))
            (count,) = struct.unpack(f"{order}H", file.read(2))
            for tag, _, number, value in struct.iter_unpack(f"{order}HHI4s", file.read(12 * count)):
                word, offset = struct.unpack(f"{order}H2x", value)[0], struct.unpack(f"{order}I", value)[0]
                if tag == _DNG_VERSION or (tag == _PHOTOMETRIC and word in _SENSOR_VALUES):
                    return True
                if tag == _SUB_DIRECTORIES and number == 1:
                    left.append(offset)
                elif tag == _SUB_DIRECTORIES:
                    file.seek(offset)
                    some = min(number, _DIRECTORIES)
                    left += struct.unpack(f"{order}{some}I", file.read(4 * some))
    except (OSError, struct.error):  # damaged: who opens it says so
        pass
    return False


def suffixes_of(kind: str) -> tuple[str, ...]:
    """Return the suffixes of a format's files, the usual one first; none where nothing knows the format."""
    return next((each.suffixes for each in _ALL if each.kind == kind), ())


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case."""
    return frozenset(suffix for each in formats() for suffix in each.suffixes)


IMAGE_SUFFIXES: Final = image_suffixes()
"""Compared in lower case. The name decides whether a file is read, its first bytes decide the format."""
OnSkipped = Callable[[str, str], object]
"""Called with the path of what is passed over, relative to the folder, and its kind."""

_ENDINGS: Final = tuple(IMAGE_SUFFIXES)
_OTHER_ENDINGS: Final = tuple(
    suffix for each in _ALL for suffix in each.suffixes if suffix not in IMAGE_SUFFIXES
)
"""Image files that cannot be read here, if they are what their names say: some are JPEG."""
_FOLDER_LINK: Final = "link to a folder"
_NO_SUFFIX: Final = "without a suffix"
_MAX_SUFFIX: Final = 12
_MAX_KINDS: Final = 8


def is_image(name: str) -> bool:
    """Whether a file of this name is an image file."""
    if not name.lower().endswith(_ENDINGS):
        return False
    # Only a name that begins with a dot may have no suffix.
    dotted = name[0] == "." or "/." in name
    return not dotted or os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  # no Path is made


def find_images(
    root: Path,
    *,
    hidden: bool = False,
    on_unreadable: Callable[[OSError], object] | None = None,
    on_skipped: OnSkipped = lambda *_: None,
) -> Iterator[Path]:
    """Yield the images under ``root``, relative to it, as :func:`find_names` does."""
    return map(Path, find_names(root, hidden=hidden, on_unreadable=on_unreadable, on_skipped=on_skipped))


def find_names(
    root: Path,
    *,
    hidden: bool = False,
    on_unreadable: Callable[[OSError], object] | None = None,
    on_skipped: OnSkipped = lambda *_: None,
) -> Iterator[str]:
    """Yield the images under ``root``, relative to it, folder by folder in sorted order.

    They are strings, since making a Path of each would take as long as finding it. Links to files are
    followed, links to folders are not.

    Args:
        root: The folder.
        hidden: Include files and folders whose name begins with a dot.
        on_unreadable: Called for a folder that cannot be listed, which is then skipped; None raises.
        on_skipped: Called for each file that is no image by its name and each link to a folder; the hidden
            ones are left out.

    Raises:
        DataError: A folder cannot be listed. Skipping it silently would make its images look deleted.
    """
    top = os.path.join(root, "")  # noqa: PTH118  # with the separator that ends it
    left = [""]
    while left:
        here = left.pop()
        folders, names, links = _listed(top + here if here else os.fspath(root), on_unreadable or _stop)
        above = here + os.sep if here else ""
        left += [above + name for name in sorted(folders, reverse=True) if hidden or name[0] != "."]
        for name in sorted(names):
            if not hidden and name[0] == ".":
                continue
            if is_image(name) or (name.lower().endswith(_OTHER_ENDINGS) and _is_inside(top + above + name)):
                yield above + name
            else:
                on_skipped(above + name, _kind(name))
        for name in links:
            if hidden or name[0] != ".":
                on_skipped(above + name, _FOLDER_LINK)


def skipped_summary(skipped: Mapping[str, int]) -> str:
    """Return one line for people about what was passed over, by kind; empty if nothing was.

    Args:
        skipped: Kind, as :func:`find_names` tells it, to how many.
    """
    if not skipped:
        return ""
    counts = Counter(dict(skipped))
    links = counts.pop(_FOLDER_LINK, 0)
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    told = [f"{count} {printable(kind)}{_hint(kind)}" for kind, count in ordered[:_MAX_KINDS]]
    if others := sum(count for _, count in ordered[_MAX_KINDS:]):
        told.append(f"{others} others")
    if links:
        told.append(f"{links} {'link to a folder' if links == 1 else 'links to folders'}")
    total = sum(skipped.values())
    return f"{total} {'file' if total == 1 else 'files'} skipped: {', '.join(told)}"


def _hint(kind: str) -> str:
    if kind not in _OTHER_ENDINGS:
        return ""
    return next(f" ({each.hint})" for each in _ALL if kind in each.suffixes)


def _kind(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return suffix if 1 < len(suffix) <= _MAX_SUFFIX else _NO_SUFFIX


def _is_inside(file: str) -> bool:
    """Whether a file is an image that can be read, whatever its name says."""
    try:
        if not os.path.isfile(file):  # noqa: PTH113  # a pipe would wait for ever
            return False
        with open(file, "rb") as opened:  # noqa: PTH123
            return format_in(opened) in formats()
    except OSError:
        return False


def _listed(
    folder: str, on_unreadable: Callable[[OSError], object]
) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the folders in a folder, of the files, and of the links to folders.

    Like os.walk, which takes longer: it checks each folder again for links.
    """
    folders: list[str] = []
    names: list[str] = []
    links: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    names.append(entry.name)
                elif entry.is_symlink():
                    links.append(entry.name)
                else:
                    folders.append(entry.name)
    except OSError as error:
        on_unreadable(error)
        return [], [], []
    return folders, names, links


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a circular link
        return False


def _stop(error: OSError) -> NoReturn:
    raise DataError(
        f"folder {printable(str(error.filename))} cannot be read ({error.strerror}); "
        "fix its permissions or name the other folders"
    ) from error
