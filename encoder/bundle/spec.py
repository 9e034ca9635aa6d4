"""``bundle.json``: the model (:class:`BundleSpec` or :class:`DenoiserSpec`), digests of its files, model_id.

::

    {"model_id": "<SHA-256 of the rest>", "format": 5, "model": {...}, "files": {"encoder.onnx": "<SHA-256>"}}

Legend: N images, H, W height and width in pixels, D latent size, E embedding size, sigma the standard
deviation of the noise where white is 1 (25/255 is what people call "sigma 25").
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, get_args

import numpy as np

from lookalike.encoder.bundle.storage import SIDECARS, Golden, check_array
from lookalike.encoder.detect import Frame
from lookalike.encoder.errors import BundleError, BundleTooNewError, InvalidArgumentError, one_line, printable
from lookalike.encoder.files import parse_json
from lookalike.encoder.images import ImageSpec, NoiseSpec

Kind = Literal["ae", "vae", "cvae", "encoder"]
Labels = Literal["none", "person", "class", "unknown"]

LATENT_PRIOR: Final = "sampling.npz"
TOKENIZER: Final = "tokenizer.json"
_OPTIONAL: Final = frozenset({"denoises", "frame", "batch", "text"})
_MAX_TOKENS: Final = 8192
_MAX_SIZE_MULTIPLE: Final = 256
_MAX_RECEPTIVE_FIELD: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSpec:
    """How text becomes the input of a text tower, besides what ``tokenizer.json`` says.

    Attributes:
        length: Most tokens; longer texts are cut.
        pad: Token that shorter texts are filled up with to this length; None: they stay as long as they are.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    length: int
    pad: int | None = None

    def __post_init__(self) -> None:
        whole = type(self.length) is int and type(self.pad) in (int, type(None))
        if not whole or not 1 <= self.length <= _MAX_TOKENS or (self.pad is not None and self.pad < 0):
            raise InvalidArgumentError(
                f"a text has 1 to {_MAX_TOKENS} tokens and is filled up with a number from 0, not "
                f"{self.length!r} and {self.pad!r}"
            )

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the fields from a JSON object.

        Raises:
            InvalidArgumentError: A key is unknown or missing, or a value is invalid.
        """
        _check_keys(value, {"length", "pad"}, what="text tower")
        return cls(**value)


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleSpec:
    """Description of a model that turns images into latents.

    Attributes:
        kind: Which of the autoencoders it is, or an imported ``encoder``, which has no decoder.
        image: How the bytes of an image file become the model's input.
        latent: D.
        embedding: E, the length of the vectors that are compared.
        mirror: Whether an embedding averages the latents of the image and of its mirror image.
        opset: ONNX opset of the graphs.
        labels: Which labels of the images the training used: none, the person, the class, or unknown.
        classes: Names of the classes it can generate, each once; empty when it has none. A ``cvae`` has
            their weights, one each, at the end of its latents.
        metric: How embeddings are compared.
        training: Configuration, data fingerprint, seed and versions it was trained with.
        figures: Measured values by name.
        denoises: The noise it was trained to remove; None if it was not. Left out of the JSON where None.
        frame: Where the landmarks of a face lie in its input; None: it is not for faces, or that is unknown.
            Left out of the JSON where None.
        batch: Images that the encoder takes at once; None: any number. Left out of the JSON where None.
        text: How text becomes the input of ``text.onnx``; None: it embeds images alone. Left out of the JSON
            where None.
    """

    REQUIRED_FILES: ClassVar = frozenset({"encoder.onnx", "latents.npz", "golden.npz"})
    OPTIONAL_FILES: ClassVar = frozenset({"decoder.onnx", LATENT_PRIOR, "text.onnx", TOKENIZER})

    kind: Kind
    image: ImageSpec
    latent: int
    embedding: int
    mirror: bool
    opset: int
    labels: Labels = "none"
    classes: tuple[str, ...] = ()
    metric: Literal["cosine"] = "cosine"
    training: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    denoises: NoiseSpec | None = None
    frame: Frame | None = None
    batch: Literal[1] | None = None
    text: TextSpec | None = None

    @property
    def conditional(self) -> bool:
        """Whether a latent ends with class weights, one for each class."""
        return self.kind == "cvae"

    @property
    def has_prior(self) -> bool:
        """Whether the model was trained towards latents of N(0, I)."""
        return self.kind in ("vae", "cvae")

    @property
    def prior_dim(self) -> int:
        """Dimensions of a latent that are sampled: all but the class weights."""
        return self.latent - len(self.classes) if self.conditional else self.latent

    def check_golden(self, golden: Golden, *, graphs: Collection[str]) -> None:
        """Check golden values against the model's shapes.

        Raises:
            InvalidArgumentError: An array is missing or has another dtype or shape.
        """
        if "decoder" in graphs and "decoded" not in golden:
            raise InvalidArgumentError("a model with a decoder must have golden decoded")
        count = golden["pixels"].shape[:1] or (1,)
        check_array("golden pixels", golden["pixels"], np.uint8, (*count, *self.image.shape))
        check_array("golden latents", golden["latents"], np.float32, (*count, self.latent))
        if "decoded" in golden:
            check_array("golden decoded", golden["decoded"], np.float32, (*count, *self.image.shape))
        if ("text" in graphs) != (self.text is not None) or ("text" in golden) != (self.text is not None):
            raise InvalidArgumentError(
                "a model with a text tower must have text.onnx, and golden text for it"
            )
        if "text" in golden:
            tokens = golden["tokens"].shape
            check_array("golden tokens", golden["tokens"], np.int64, tokens)
            check_array("golden mask", golden["mask"], np.int64, tokens)
            check_array("golden text", golden["text"], np.float32, (*tokens[:1], self.latent))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {"image": self.image.to_json(), "classes": list(self.classes)}
        values["denoises"] = None if self.denoises is None else self.denoises.to_json()
        values["frame"] = None if self.frame is None else str(self.frame)
        values["text"] = None if self.text is None else asdict(self.text)
        return {key: value for key, value in values.items() if value is not None or key not in _OPTIONAL}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError: A key is unknown or missing, or a value is invalid.
        """
        _check_keys(value, {f.name for f in fields(cls)} - _OPTIONAL, what="model", optional=_OPTIONAL)
        classes = value["classes"]
        rules = {
            "kind": value["kind"] in get_args(Kind),
            "image": isinstance(value["image"], dict),
            "mirror": isinstance(value["mirror"], bool),
            "labels": value["labels"] in get_args(Labels),
            "classes": _are_names(classes),
            "metric": value["metric"] == "cosine",
            "frame": "frame" not in value or isinstance(value["frame"], str),
            "batch": "batch" not in value or (type(value["batch"]) is int and value["batch"] == 1),
        }
        rules |= {name: isinstance(value[name], dict) for name in ("training", "figures")}
        rules |= {
            name: type(value[name]) is int and value[name] > 0 for name in ("latent", "embedding", "opset")
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidArgumentError(f"invalid {name} of a model: {reprlib.repr(value[name])}")
        if value["kind"] == "cvae" and not 0 < len(classes) < value["latent"]:
            raise InvalidArgumentError(
                f"a cvae needs classes and a latent longer than their number, got {len(classes)} and "
                f"{value['latent']}"
            )
        read = {"image": ImageSpec.from_json(value["image"]), "classes": tuple(classes)}
        if "denoises" in value:
            read["denoises"] = NoiseSpec.from_json(value["denoises"])
        if "frame" in value:
            read["frame"] = Frame.parse(value["frame"])
        if "text" in value:
            read["text"] = TextSpec.from_json(value["text"])
        return cls(**{**value, **read})


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserSpec:
    """Description of a denoiser: it takes images of any size, gray or RGB, and gives no latents.

    Attributes:
        size_multiple: H and W must be multiples of it, 1..256; images are padded to one, and cut again.
        receptive_field: The largest distance in pixels, 0..1024, over which an input pixel changes an output
            pixel: tiles that overlap by this much show no seams.
        estimator_field: The same for the estimated sigma.
        cell: Side in pixels of the squares that sigma is estimated in; ``size_multiple`` is a multiple of it.
        deviations: The smallest and the largest sigma it was trained for, in [0, 1].
        clean_below: Estimated sigma below which a place counts as clean, in [0, 1].
        opset: ONNX opset of the graphs.
        kind: Always ``denoiser``.
        training: Configuration, data fingerprint, seed and versions it was trained with.
        figures: Measured values by name.

    Raises:
        InvalidArgumentError: A value is invalid.
    """

    REQUIRED_FILES: ClassVar = frozenset({"denoiser.onnx", "estimator.onnx", "golden.npz"})
    OPTIONAL_FILES: ClassVar[frozenset[str]] = frozenset()

    size_multiple: int
    receptive_field: int
    estimator_field: int
    cell: int
    deviations: tuple[float, float]
    clean_below: float
    opset: int
    kind: Literal["denoiser"] = "denoiser"
    training: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rules = {
            "kind": self.kind == "denoiser",
            "size_multiple": type(self.size_multiple) is int
            and 1 <= self.size_multiple <= _MAX_SIZE_MULTIPLE,
            "receptive_field": _is_field(self.receptive_field),
            "estimator_field": _is_field(self.estimator_field),
            "cell": _divides(self.cell, self.size_multiple),
            "deviations": _is_range(self.deviations),
            "clean_below": _is_deviation(self.clean_below),
            "opset": type(self.opset) is int and self.opset > 0,
            "training": isinstance(self.training, Mapping),
            "figures": isinstance(self.figures, Mapping),
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidArgumentError(
                    f"invalid {name} of a denoiser: {printable(repr(getattr(self, name)))[:100]}"
                )

    def check_golden(self, golden: Golden, *, graphs: Collection[str]) -> None:  # noqa: ARG002
        """Check golden values against each other and against the sizes the model takes.

        Raises:
            InvalidArgumentError: An array has another dtype or shape.
        """
        shape, multiple = golden["pixels"].shape, self.size_multiple
        if len(shape) != 4 or shape[3] != 3 or any(side % multiple for side in shape[1:3]):
            raise InvalidArgumentError(
                f"golden pixels must be (N, H, W, 3), H and W multiples of {multiple}, got {shape}"
            )
        for name in ("pixels", "denoised"):
            check_array(f"golden {name}", golden[name], np.float32, shape)
        check_array("golden sigma", golden["sigma"], np.float32, shape[:3])
        cells = (shape[0], *(side // self.cell for side in shape[1:3]))
        check_array("golden estimated", golden["estimated"], np.float32, cells)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"deviations": list(self.deviations)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError: A key is unknown or missing, or a value is invalid.
        """
        _check_keys(value, {f.name for f in fields(cls)}, what="denoiser")
        deviations = value["deviations"]
        return cls(
            **{**value, "deviations": tuple(deviations) if isinstance(deviations, list) else deviations}
        )


Spec: TypeAlias = BundleSpec | DenoiserSpec

KNOWN_FILES: Final = frozenset(
    name for kind in (BundleSpec, DenoiserSpec) for name in kind.REQUIRED_FILES | kind.OPTIONAL_FILES
)
"""The files a bundle of any kind may have besides bundle.json."""
BUNDLE_FILES: Final = KNOWN_FILES | {"bundle.json", *SIDECARS}
"""All files that a bundle's folder may have."""


def _check_keys(value: Any, names: Collection[str], *, what: str, optional: Collection[str] = ()) -> None:
    if not isinstance(value, dict) or set(value) - set(optional) != set(names):
        odd = printable(", ".join(sorted(set(value) ^ set(names)))) if isinstance(value, dict) else "all"
        raise InvalidArgumentError(f"a {what} is described by {len(names)} keys; unknown or missing: {odd}")


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) and name.strip() for name in value)
        and len(set(value)) == len(value)
    )


def _is_field(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_RECEPTIVE_FIELD


def _divides(value: object, whole: object) -> bool:
    return type(value) is int and type(whole) is int and value >= 1 and whole % value == 0


def _is_deviation(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1  # type: ignore[arg-type, operator]


def _is_range(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(map(_is_deviation, value)) and bool(value[0] <= value[1])


FORMAT: Final = 5
_KEYS: Final = {"format", "model_id", "model", "files"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of ``bundle.json``.

    Attributes:
        model_id: SHA-256 over the rest, 64 hex digits; the rest holds the digests of all files.
        spec: Description of the model.
        digests: SHA-256 of each file, 64 hex digits.
    """

    model_id: str
    spec: Spec
    digests: Mapping[str, str]

    @classmethod
    def create(cls, spec: Spec, digests: Mapping[str, str]) -> tuple[Self, bytes]:
        """Return the manifest as a reader will see it (tuples become lists), and its text.

        Raises:
            InvalidArgumentError: A value is no finite JSON value or invalid, or a file is unknown or missing.
        """
        content = {"format": FORMAT, "model": spec.to_json(), "files": dict(sorted(digests.items()))}
        try:
            content = json.loads(json.dumps(content, allow_nan=False))
            model_id = digest_of(content)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(
                f"training and figures must be finite JSON values ({one_line(error)})"
            ) from error
        text = json.dumps({"model_id": model_id, **content}, indent=2, ensure_ascii=False) + "\n"
        return cls._from_content(model_id, content), text.encode()

    @classmethod
    def read(cls, text: bytes, *, folder: Path) -> Self:
        """Read ``bundle.json`` of the bundle in ``folder`` and check it against its model_id.

        Raises:
            BundleTooNewError: It was written in a later format.
            BundleError: It was written in an earlier format.
            InvalidArgumentError: It is damaged.
        """
        try:
            content = parse_json(text)
            body = {key: content[key] for key in content if key != "model_id"}
            model_id, version = digest_of(body), body.get("format")
        except RecursionError:
            raise InvalidArgumentError("bundle.json cannot be read (it is nested too deeply)") from None
        except (ValueError, TypeError) as error:  # TypeError: not a JSON object
            raise InvalidArgumentError(f"bundle.json cannot be read ({one_line(error)})") from error
        if type(version) is int and version != FORMAT:
            kind, way_out = (
                (BundleTooNewError, "upgrade lookalike")
                if version > FORMAT
                else (BundleError, "train it again")
            )
            raise kind(
                f"bundle {printable(str(folder))} has format {version}, this lookalike reads format "
                f"{FORMAT}; "
                f"{way_out}"
            )
        if type(version) is not int or set(content) != _KEYS:
            raise InvalidArgumentError(
                f"bundle.json must hold exactly {', '.join(sorted(_KEYS))}, the format a whole number"
            )
        if content["model_id"] != model_id:
            raise InvalidArgumentError("bundle.json does not match its model_id")
        return cls._from_content(model_id, content)

    @classmethod
    def _from_content(cls, model_id: str, content: Mapping[str, Any]) -> Self:
        model, digests = content["model"], content["files"]
        denoiser = isinstance(model, dict) and model.get("kind") == "denoiser"
        spec = DenoiserSpec.from_json(model) if denoiser else BundleSpec.from_json(model)
        allowed = spec.REQUIRED_FILES | spec.OPTIONAL_FILES
        if not isinstance(digests, dict) or not spec.REQUIRED_FILES <= set(digests) <= allowed:
            got = printable(", ".join(sorted(digests))) if isinstance(digests, dict) else "something else"
            optional = f" and at most {', '.join(sorted(spec.OPTIONAL_FILES))}" if spec.OPTIONAL_FILES else ""
            raise InvalidArgumentError(
                f"the files of this bundle must be {', '.join(sorted(spec.REQUIRED_FILES))}{optional}, not "
                f"{got}"
            )
        return cls(model_id, spec, digests)


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8), 64 hex digits.

    Raises:
        ValueError: A number is not finite.
        TypeError: A value is not a JSON value.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
