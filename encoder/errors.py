"""The exceptions of lookalike, one tree.

::

    LookalikeError                  everything this library raises on purpose
    ├── InvalidArgumentError                 an argument or option that cannot be: rule, value, way out
    ├── ImageError                  these bytes are not a picture we can use (names the file)
    │   └── ImageTooLargeError      more pixels than the limit allows
    ├── BundleError                 a model folder that cannot be used
    │   ├── BundleNotFoundError     no such folder, no shipped bundle of that name
    │   ├── BundleCorruptError      a file is missing, changed or malformed
    │   ├── BundleTooNewError       written by a later format version
    │   ├── BundleKindError         a cleaner where latents are wanted, or the other way round
    │   └── GoldenMismatchError     this machine does not reproduce the golden vectors
    ├── CalibrationError            too few people, or scores that tell nothing of them
    ├── OnnxImportError                an ONNX file that cannot serve as an encoder
    ├── WorkerDiedError              a process that embeds was ended from outside
    ├── ExportError                 the ONNX graph and the torch module disagree
    ├── ProviderError               the execution provider that was asked for is not there
    ├── MissingExtraError           an optional part is not installed (names the extra)
    ├── DataError                   a data set cannot be found, fetched or read
    ├── TrainingError               training cannot start, go on or be resumed
    └── StoreError                  the vector store failed
        ├── StoreBusyError          another process holds this embedded store
        ├── StoreUnreachableError   the server does not answer or refuses us
        │   └── StoreUnavailableError   it fails or is overloaded now: the same again may succeed
        ├── CollectionNotFoundError no collection of that name
        ├── CollectionExistsError   a collection of that name is there already
        ├── ItemNotFoundError       no item of that id in the collection
        ├── ModelMismatchError      the collection was made by another model or with another crop
        └── VectorError             NaN, zero length or wrong dimension

Every message is one line: the rule, the value that broke it, and the way out.
"""

from __future__ import annotations


class LookalikeError(Exception):
    """Everything this library raises on purpose."""


class InvalidArgumentError(LookalikeError):
    """An argument or option that cannot be."""


class ImageError(LookalikeError):
    """These bytes are not a picture we can use."""


class ImageTooLargeError(ImageError):
    """The picture has more pixels than the limit allows."""


class BundleError(LookalikeError):
    """A model folder that cannot be used."""


class BundleNotFoundError(BundleError):
    """No such folder and no shipped bundle of that name."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, changed or malformed."""


class BundleTooNewError(BundleError):
    """The bundle was written by a later format version."""


class BundleKindError(BundleError):
    """A cleaner where a model with latents is wanted, or the other way round."""


class GoldenMismatchError(BundleError):
    """This machine does not reproduce the bundle's golden vectors."""


class CalibrationError(LookalikeError):
    """Too few people to calibrate with, or scores that tell nothing of them."""


class OnnxImportError(LookalikeError):
    """An ONNX file that cannot serve as an encoder."""


class WorkerDiedError(LookalikeError):
    """A process that embeds was ended from outside."""


class ExportError(LookalikeError):
    """The ONNX graph and the torch module disagree; nothing was written."""


class ProviderError(LookalikeError):
    """The onnxruntime execution provider that was asked for is not there."""


class MissingExtraError(LookalikeError):
    """An optional part is not installed; the message names the extra that brings it."""


class DataError(LookalikeError):
    """A data set cannot be found, fetched or read."""


class TrainingError(LookalikeError):
    """Training cannot start, go on or be resumed."""


class StoreError(LookalikeError):
    """The vector store failed."""


class StoreBusyError(StoreError):
    """Another process holds this embedded store."""


class StoreUnreachableError(StoreError):
    """The server does not answer or refuses us."""


class StoreUnavailableError(StoreUnreachableError):
    """The server does not answer, fails or is overloaded now: what is asked again may succeed.

    Attributes:
        wait: Seconds after which it asks to be asked again; 0: it does not say.
    """

    wait: float = 0.0


class CollectionNotFoundError(StoreError):
    """No collection of that name."""


class CollectionExistsError(StoreError):
    """A collection of that name is there already."""


class ItemNotFoundError(StoreError):
    """No item of that id in the collection."""


class ModelMismatchError(StoreError):
    """The collection was made by another model or with another crop."""


class VectorError(StoreError):
    """A vector that is not finite, has no length, or has the wrong dimension."""
