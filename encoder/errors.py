"""The exceptions of lookalike, one tree.

::

    LookalikeError                      base of every error this library raises
    ├── InvalidArgumentError            an argument or option is invalid; also a ValueError
    ├── ImageError                      these bytes are not a readable image (names the file)
    │   └── ImageTooLargeError          more pixels than the limit allows
    ├── BundleError                     a model folder cannot be used
    │   ├── BundleNotFoundError         no such folder and no shipped bundle of that name
    │   ├── BundleCorruptError          a file is missing, changed or malformed
    │   ├── BundleTooNewError           written by a later format version
    │   ├── BundleKindError             a denoiser where a model with latents is needed, or vice versa
    │   └── GoldenMismatchError         this machine does not reproduce the golden values
    ├── CalibrationError                too few people, or scores that do not separate them
    ├── OnnxImportError                 an ONNX file cannot serve as an encoder
    ├── WorkerDiedError                 a worker process was killed
    ├── ExportError                     the ONNX graph and the torch module disagree
    ├── ProviderError                   the requested execution provider is not available
    ├── MissingExtraError               an optional dependency is not installed (names the extra)
    ├── DataError                       a data set cannot be found, downloaded or read
    ├── TrainingError                   training cannot start, continue or be resumed
    └── StoreError                      the vector store failed
        ├── StoreBusyError              another process uses this embedded store
        ├── StoreUnreachableError       the server does not answer or refuses the request
        │   └── StoreUnavailableError   it fails or is overloaded now; a retry may succeed
        ├── CollectionNotFoundError     no collection of that name
        ├── CollectionExistsError       a collection of that name exists
        ├── ItemNotFoundError           no item of that id in the collection
        ├── ModelMismatchError          the collection belongs to another model or crop
        └── VectorError                 NaN, zero length or wrong dimension

Every message is one line: what is wrong, the value, and what to do.
"""

from __future__ import annotations


class LookalikeError(Exception):
    """Base of every error this library raises."""


class InvalidArgumentError(LookalikeError, ValueError):
    """An argument or option is invalid."""


class ImageError(LookalikeError):
    """These bytes are not a readable image."""


class ImageTooLargeError(ImageError):
    """The image has more pixels than the limit allows."""


class BundleError(LookalikeError):
    """A model folder cannot be used."""


class BundleNotFoundError(BundleError):
    """No such folder and no shipped bundle of that name."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, changed or malformed."""


class BundleTooNewError(BundleError):
    """The bundle was written by a later format version."""


class BundleKindError(BundleError):
    """A denoiser where a model with latents is needed, or vice versa."""


class GoldenMismatchError(BundleError):
    """This machine does not reproduce the bundle's golden values."""


class CalibrationError(LookalikeError):
    """Too few people to calibrate with, or scores that do not separate them."""


class OnnxImportError(LookalikeError):
    """An ONNX file cannot serve as an encoder."""


class WorkerDiedError(LookalikeError):
    """A worker process was killed."""


class ExportError(LookalikeError):
    """The ONNX graph and the torch module disagree; nothing was written."""


class ProviderError(LookalikeError):
    """The requested onnxruntime execution provider is not available."""


class MissingExtraError(LookalikeError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class DataError(LookalikeError):
    """A data set cannot be found, downloaded or read."""


class TrainingError(LookalikeError):
    """Training cannot start, continue or be resumed."""


class StoreError(LookalikeError):
    """The vector store failed."""


class StoreBusyError(StoreError):
    """Another process uses this embedded store."""


class StoreUnreachableError(StoreError):
    """The server does not answer or refuses the request."""


class StoreUnavailableError(StoreUnreachableError):
    """The server does not answer, fails or is overloaded now; a retry may succeed.

    Attributes:
        wait: Seconds to wait before the retry, as the server asks; 0 if it does not say.
    """

    wait: float = 0.0


class CollectionNotFoundError(StoreError):
    """No collection of that name."""


class CollectionExistsError(StoreError):
    """A collection of that name exists."""


class ItemNotFoundError(StoreError):
    """No item of that id in the collection."""


class ModelMismatchError(StoreError):
    """The collection belongs to another model or crop."""


class VectorError(StoreError):
    """A vector that is not finite, has no length, or has the wrong dimension."""


def printable(text: str) -> str:
    """Return ``text`` on one line: control characters and lone surrogates as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(error: BaseException) -> str:
    """Return the message of an exception on one line, or the name of its class when it has none.

    Of an error of the system its reason alone, without number and file name.
    """
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return printable(" ".join(text.split())) or type(error).__name__
