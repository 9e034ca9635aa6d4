"""Files of a bundle: found by folder or shipped name, checked by digest, written all or none, no pickles.

onnxruntime reads the weights of a graph from other files where the graph says so, relative to the current
folder: a stranger's model could read the files of whoever opens it. So graphs are searched for such tensors
before onnxruntime sees them, without the onnx package: messages and field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3, the wire format that of
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import reprlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lookalike.encoder.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    InvalidArgumentError,
    one_line,
    printable,
)
from lookalike.encoder.files import atomic_replace_dir, read_bounded

Golden: TypeAlias = Mapping[str, NDArray[Any]]
"""Reference inputs and outputs by name, recorded where the bundle was made; see :data:`GOLDEN_RUNS`."""
GOLDEN_RUNS: Final = {
    "encoder": (("pixels",), "latents"),
    "decoder": (("latents",), "decoded"),
    "denoiser": (("pixels", "sigma"), "denoised"),
    "estimator": (("pixels",), "estimated"),
    "text": (("tokens", "mask"), "text"),
}
"""Graph to the golden arrays it is fed, in the order of its inputs, and the one that it must return."""
WHOLE: Final = "whole"
"""A bool that an encoder may take besides, true where it is left out. If false, the parts of the latent that
embeddings do not use are zero, and take no time."""

_MOST_JSON: Final = 64 << 20
_MOST_BYTES: Final = 1 << 31
"""No ONNX file is larger (protobuf)."""
_MOST_UNPACKED: Final = 1 << 29
T = TypeVar("T")


def json_float(value: Any) -> float:
    """Return a JSON number.

    Raises:
        TypeError: It is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{reprlib.repr(value)} is not a number")
    return float(value)


def json_int(value: Any) -> int:
    """Return a whole JSON number.

    Raises:
        TypeError: It is not a whole number.
    """
    if type(value) is not int:
        raise TypeError(f"{reprlib.repr(value)} is not a whole number")
    return value


def digests_of(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each file, 64 hex digits."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def read_file(folder: Path, name: str) -> bytes:
    """Return a file of the bundle in ``folder``.

    Raises:
        ValueError: It cannot be read, is not a file, or is larger than any file of a bundle.
    """
    try:
        return read_bounded(folder / name, most=_MOST_JSON if name.endswith(".json") else _MOST_BYTES)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror})") from error


def verify_digests(folder: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of the bundle in ``folder``, each checked against its SHA-256.

    Raises:
        ValueError: One cannot be read, or has another digest.
    """
    contents = {}
    for name, digest in digests.items():
        contents[name] = read_file(folder, name)
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise ValueError(f"{name} does not match its SHA-256")
    return contents


def read_verified(folder: Path, name: str, digest: str) -> bytes:
    """Return a file of a bundle that was opened before.

    Raises:
        BundleCorruptError: It has changed since.
    """
    try:
        return verify_digests(folder, {name: digest})[name]
    except ValueError as error:
        raise BundleCorruptError(
            f"bundle {printable(str(folder))} has changed since it was opened: {error}; open it again"
        ) from error


def write_all(target: Path, contents: Mapping[str, bytes], opened: Callable[[Path], T]) -> T:
    """Write a bundle whole or not at all, and return it as ``opened`` from its new folder.

    Raises:
        BundleError: The folder cannot be written.
    """
    try:
        with atomic_replace_dir(target) as fresh:
            for name, data in contents.items():
                (fresh / name).write_bytes(data)
            return opened(fresh)
    except OSError as error:
        raise write_error(target, error) from error


def write_error(target: Path, error: OSError) -> BundleError:
    """Return the error to raise where the system refuses to write a bundle."""
    return BundleError(
        f"bundle {printable(str(target))} cannot be written ({error.strerror}); free some space or choose "
        "another folder"
    )


def read_npz(file: str, files: Mapping[str, bytes], *names: str) -> list[NDArray[Any]]:
    """Return arrays of an ``.npz`` by name. Nothing in it is executed.

    Raises:
        ValueError: It does not hold them.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(files[file])) as archive:
            members = [archive.getinfo(f"{name}.npy") for name in names]
            _check_unpacked(sum(member.file_size for member in members))
            return [_read_array(archive.read(member)) for member in members]
    except MemoryError:
        raise  # says nothing of the file
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own
        raise ValueError(f"{file} does not hold the arrays {', '.join(names)} ({one_line(error)})") from error


def _check_unpacked(size: int) -> None:
    if size > _MOST_UNPACKED:
        raise ValueError(f"they unpack to {size:,} bytes, the limit is {_MOST_UNPACKED:,}")


def _read_array(data: bytes) -> NDArray[Any]:
    """Return the array of an ``.npy``, whose header may say anything.

    Raises:
        ValueError: It is not one, holds objects, or has not the size that its header says.
    """
    stream = io.BytesIO(data)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(stream))
    if read_header is None:
        raise ValueError("an array has a format of a later numpy")
    try:
        shape, fortran_order, dtype = read_header(stream)
    except (MemoryError, RecursionError):  # Python's parser: the header is text
        raise ValueError("the header of an array is nested too deeply") from None
    at, count = stream.tell(), math.prod(shape)
    if dtype.hasobject or count * dtype.itemsize != len(data) - at:
        raise ValueError(f"an array of {dtype} {shape} cannot have {len(data) - at} bytes")
    flat = np.frombuffer(data, dtype, count, at) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C").copy(order="K")


def npz_bytes(**arrays: NDArray[Any]) -> bytes:
    """Return an ``.npz`` with these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_golden(files: Mapping[str, bytes]) -> Golden:
    """Read ``golden.npz`` of the files of a bundle: the arrays of every graph it has.

    Raises:
        ValueError: It does not hold the arrays.
    """
    runs = [run for graph, run in GOLDEN_RUNS.items() if f"{graph}.onnx" in files]
    names = list(dict.fromkeys(name for inputs, output in runs for name in (*inputs, output)))
    return dict(zip(names, read_npz("golden.npz", files, *names), strict=True))


def check_array(name: str, array: NDArray[Any], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Check an array of a bundle.

    Raises:
        InvalidArgumentError: It has another dtype or shape, is empty, or holds NaN or infinity.
    """
    if array.dtype != dtype or array.shape != shape or not array.size or not np.isfinite(array).all():
        raise InvalidArgumentError(
            f"{name} must be finite {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}"
        )


CALIBRATION: Final = "calibration.json"
ATTRIBUTES: Final = "attributes.npz"
FACE_CALIBRATION: Final = "calibration-faces.json"
SIDECARS: Final = (CALIBRATION, FACE_CALIBRATION, ATTRIBUTES)
"""Optional files in a bundle's folder, not part of the model."""


def shipped_bundles() -> dict[str, Path]:
    """Return the bundles that come with the package, name to folder."""
    folder = Path(str(files("lookalike.encoder") / "shipped"))
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/bundle.json"))}


def models_folders() -> list[Path]:
    """Return the folders of the user's own bundles; the first is where new ones go, and may not exist.

    ``LOOKALIKE_MODELS`` names them, as ``PATH`` does; else it is ``models`` in the user's data folder.
    """
    import platformdirs

    named = [
        Path(part).expanduser() for part in os.environ.get("LOOKALIKE_MODELS", "").split(os.pathsep) if part
    ]
    return named or [Path(platformdirs.user_data_dir("lookalike")) / "models"]


def own_bundles() -> dict[str, Path]:
    """Return the bundles in the user's models folders, name to folder; of one name the first."""
    found: dict[str, Path] = {}
    for folder in models_folders():
        for path in sorted(folder.glob("*/bundle.json")):
            found.setdefault(path.parent.name, path.parent)
    return found


def check_name(name: str) -> str:
    """Return the name of a new model where a folder can be called so.

    Raises:
        InvalidArgumentError: It cannot, or a shipped model is called so.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise InvalidArgumentError(
            f"--name must be a folder name, '{printable(name)}' is not; choose the folder with --out"
        )
    if name in shipped_bundles():
        raise InvalidArgumentError(
            f"'{name}' is the name of a shipped model, which would be found in its place; "
            "choose another with --name"
        )
    return name


def is_shipped(folder: Path) -> bool:
    """Whether a resolved folder is one of the shipped bundles."""
    shipped = shipped_bundles().get(folder.name)
    return shipped is not None and shipped.resolve() == folder


def resolve_model(where: str | os.PathLike[str]) -> Path:
    """Return the resolved folder of a bundle, given by path or by the name of a shipped or own one.

    Raises:
        BundleNotFoundError: Neither a folder with a bundle.json nor such a name.
    """
    folder = Path(where)
    try:
        if (folder / "bundle.json").is_file():
            return folder.resolve()
        is_folder = folder.is_dir()
    except OSError as error:
        raise BundleNotFoundError(
            f"model {printable(str(where))} cannot be opened ({error.strerror})"
        ) from error
    shipped, own = shipped_bundles(), own_bundles()
    named = shipped.get(str(where)) or own.get(str(where))
    if named is not None:
        return named.resolve()
    names = ", ".join(shipped) or "none"
    if own:
        names += f"; your own: {', '.join(map(printable, own))}"
    if is_folder:
        raise BundleNotFoundError(
            f"no model in folder {printable(str(where))}: it has no bundle.json; shipped models: {names}"
        )
    raise BundleNotFoundError(
        f"no model '{printable(str(where))}': no such folder and no model of that name; shipped models: "
        f"{names}"
    )


def absolute_path(folder: str | os.PathLike[str]) -> Path:
    """Return an absolute path without links.

    Raises:
        InvalidArgumentError: There is none.
    """
    try:
        return Path(folder).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: circular links
        raise InvalidArgumentError(
            f"{printable(str(folder))} cannot be the folder of a bundle ({one_line(error)})"
        ) from error


_FIELDS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Message to its fields that hold messages in which a tensor may be; all of them are read, whatever stands
between them."""
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH: Final = 100
"""Of messages within messages: what protobuf itself allows."""


def has_external_tensors(data: bytes) -> bool:
    """Whether a tensor anywhere in a graph, also in a subgraph, function or constant, lies in another file.

    Args:
        data: A serialized ``ModelProto``.

    Raises:
        ValueError: It is none: cut short, too deeply nested, or of another format.
    """
    left = [("model", memoryview(data), 0)]
    while left:
        message, part, depth = left.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("its messages are nested too deeply")
        for field, value in _fields(part):
            if message == "tensor":
                if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0):
                    return True
            elif (inner := _FIELDS[message].get(field)) is not None:
                if not isinstance(value, memoryview):
                    raise ValueError(f"field {field} of a {message} is not a message")
                left.append((inner, value, depth + 1))
    return False


def _fields(part: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of each field of a message: a number, or bytes."""
    at = 0
    while at < len(part):
        key, at = _varint(part, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(part, at)
            yield field, value
            continue
        if kind == _BYTES:
            size, at = _varint(part, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} is not used by ONNX")
        if at + size > len(part):
            raise ValueError("it is cut short")
        yield field, part[at : at + size]
        at += size


def _varint(part: memoryview, at: int) -> tuple[int, int]:
    """Return the number at an offset, and the offset behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(part):
            break
        byte = part[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise ValueError("it is cut short")
