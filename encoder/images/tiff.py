"""Open TIFF files whose samples Pillow refuses, or reads with the wrong sign, order or scale.

Pillow knows a mode for each kind of samples, and has none, or takes another, for some kinds: deep gray in
which 0 is white, signed bytes, 12 bits, unsigned 32 bits, big-endian numbers that libtiff unpacks, and planes
of 16 bits. Such a file is opened as the nearest kind whose bytes are read right; :class:`TiffFile` says what
the values mean.
"""

from __future__ import annotations

from typing import Any, Final

from PIL import ImageFile, TiffImagePlugin

_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 284, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_UNSIGNED, _SIGNED = 1, 2
_SEPARATE: Final = 2
_NATIVE: Final = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}
"""Raw modes of numbers in the file's byte order, and in the machine's, in which libtiff returns them."""


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF file, opened by Pillow.

    Attributes:
        negative: Whether 0 is white, and the loaded values are as stored. (Of 8 bits and fewer, Pillow has
            turned them round.)
        signed: Whether the values have a sign.
        bits: Bits of each value.
        separate: Whether each channel lies in a plane of its own.
        extra_channels: Channels that are neither color nor alpha, which Pillow leaves out.
    """

    negative: bool
    signed: bool
    bits: int
    separate: bool
    extra_channels: int

    def _setup(self) -> None:
        tags = self.tag_v2
        depths = tags.get(_BITS, (1,))
        formats = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
        self.bits = max(depths)
        self.signed = _SIGNED in formats
        self.separate = tags.get(_PLANAR, 1) == _SEPARATE and len(depths) > 1
        self.extra_channels = sum(kind == 0 for kind in tags.get(_EXTRA_SAMPLES, ()))
        gray = len(depths) == 1 and tags.get(_PHOTOMETRIC, 0) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
        plain = self.bits <= 8 and not self.signed
        self.negative = gray and not plain and tags.get(_PHOTOMETRIC, 0) == _WHITE_IS_ZERO
        if self.negative:
            tags[_PHOTOMETRIC] = _BLACK_IS_ZERO
        if gray and self.bits == 32 and _UNSIGNED in formats:
            tags[_SAMPLE_FORMAT] = _SIGNED  # the same bytes; who reads them looks at `signed`
        super()._setup()  # type: ignore[no-untyped-call, unused-ignore]
        self.tile = [self._corrected(tile) for tile in self.tile]

    def _corrected(self, tile: ImageFile._Tile) -> ImageFile._Tile:
        if not isinstance(tile.args, tuple):
            return tile
        args: tuple[Any, ...] = tile.args
        if tile.codec_name == "libtiff":
            return tile._replace(args=(_NATIVE.get(args[0], args[0]), *args[1:]))
        if self.separate and self.bits == 16 and len(args[0]) == 1:  # a channel, as of 8 bits
            order = "L" if self.tag_v2.prefix.startswith(b"II") else "B"
            return tile._replace(args=(f"{args[0]};16{order}", *args[1:]))
        return tile
