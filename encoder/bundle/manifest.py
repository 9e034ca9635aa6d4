"""What ``bundle.json`` says: the format, the model's description, SHA-256 of each file, and the model_id.

::

    {"model_id": "<SHA-256 of the rest>", "format": 2, "model": {...}, "files": {"encoder.onnx": "<SHA-256>"}}

Format 1 did not say which labels the training used: it used none. Format 3 may have a sampling.npz and labels
of classes; a bundle that has neither is still written as format 2, for all that read no further. Format 4 is
that of a model that was taught to clean or decodes JPEG quickly, and of a cleaner, described otherwise
(``encoder/bundle/denoiser.py``).

Legend: D latent size, E embedding size.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from lookalike.encoder.errors import BundleKindError, BundleTooNewError, InvalidArgumentError
from lookalike.encoder.images.noise import NoiseSpec
from lookalike.encoder.images.preprocess import ImageSpec
from lookalike.encoder.text import one_line, printable

FORMAT: Final = 4
Kind = Literal["ae", "vae", "cvae", "encoder"]
Labels = Literal["none", "person", "class", "unknown"]

_KEYS: Final = {"format", "model_id", "model", "files"}
NEEDED: Final = {"encoder.onnx", "latents.npz", "golden.npz"}
LATENT_PRIOR: Final = "sampling.npz"
_OPTIONAL: Final = {"decoder.onnx", LATENT_PRIOR}
DENOISER: Final = {"cleaner.onnx", "estimator.onnx", "golden.npz"}
"""The files of a cleaner besides bundle.json."""
KNOWN_FILES: Final = NEEDED | _OPTIONAL | DENOISER
"""The files that a bundle of any kind may have besides bundle.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleSpec:
    """What ``bundle.json`` says of a model, the digests excepted.

    Attributes:
        kind: Which of the autoencoders it is, or an ``encoder`` made elsewhere, which cannot draw; the rooms
            after the encoder never ask.
        image: How bytes become this model's pixels.
        latent: D.
        embedding: E, the length of the vectors that are compared.
        mirror: Whether an embedding averages the latents of the image and of its mirror image.
        opset: ONNX opset of the graphs.
        labels: Which labels of the pictures the training used: none, whose picture it is, which class it is
            of, or not known here.
        classes: Names of the classes it can be asked for, each once; empty when it has none. A ``cvae`` has
            their weights, one each, at the end of its latents.
        metric: How embeddings are compared.
        training: Configuration, data fingerprint, seed and versions that made it.
        figures: What was measured on it, by name.
        denoises: The noise that it was taught to clean; None: it was not. Not written where it is None.
    """

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

    @property
    def conditional(self) -> bool:
        """Whether the last numbers of a latent are class weights, one for each class."""
        return self.kind == "cvae"

    @property
    def prior(self) -> bool:
        """Whether the training drew the latents to N(0, I)."""
        return self.kind in ("vae", "cvae")

    @property
    def drawn(self) -> int:
        """How many numbers of a latent are drawn: all but class weights."""
        return self.latent - len(self.classes) if self.conditional else self.latent

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        del values["denoises"]
        taught = {} if self.denoises is None else {"denoises": self.denoises.to_json()}
        return values | {"image": self.image.to_json(), "classes": list(self.classes)} | taught

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidArgumentError: a key is unknown or missing, or a value cannot be.
        """
        names = {f.name for f in fields(cls)} - {"denoises"}
        if not isinstance(value, dict) or set(value) - {"denoises"} != names:
            odd = printable(", ".join(sorted(set(value) ^ names))) if isinstance(value, dict) else "all"
            raise InvalidArgumentError(
                f"a model is described by its {len(names)} keys; unknown or missing: {odd}"
            )
        classes = value["classes"]
        rules = {
            "kind": value["kind"] in get_args(Kind),
            "image": isinstance(value["image"], dict),
            "mirror": isinstance(value["mirror"], bool),
            "labels": value["labels"] in get_args(Labels),
            "classes": _are_names(classes),
            "metric": value["metric"] == "cosine",
        }
        rules |= {name: isinstance(value[name], dict) for name in ("training", "figures")}
        rules |= {
            name: type(value[name]) is int and value[name] > 0 for name in ("latent", "embedding", "opset")
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidArgumentError(f"the {name} of a model cannot be {reprlib.repr(value[name])}")
        if value["kind"] == "cvae" and not 0 < len(classes) < value["latent"]:
            raise InvalidArgumentError(
                f"a cvae has classes and a latent that is longer, not {len(classes)} and {value['latent']}"
            )
        read = {"image": ImageSpec.from_json(value["image"]), "classes": tuple(classes)}
        if "denoises" in value:
            read["denoises"] = NoiseSpec.from_json(value["denoises"])
        return cls(**{**value, **read})


@dataclass(frozen=True, slots=True)
class RawManifest:
    """``bundle.json`` of a model of any kind, held to its model_id and not yet understood.

    Attributes:
        model_id: SHA-256 over the rest, 64 hex digits.
        version: The format, 1 to :data:`FORMAT`.
        model: Says what the model is; JSON values.
        files: SHA-256 of each file, by the name of the file, if all is well.
    """

    model_id: str
    version: int
    model: Any
    files: Any

    @classmethod
    def of(cls, model: Mapping[str, Any], digests: Mapping[str, str], *, version: int) -> tuple[Self, bytes]:
        """Return it as a reader will see it (tuples become lists), and its text.

        Raises:
            InvalidArgumentError: a value is no finite JSON value.
        """
        content = {"format": version, "model": model, "files": dict(sorted(digests.items()))}
        try:
            plain = json.loads(json.dumps(content, allow_nan=False))
            model_id = digest_of(plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(
                f"training and figures must be finite JSON values ({one_line(error)})"
            ) from error
        text = json.dumps({"model_id": model_id, **plain}, indent=2, ensure_ascii=False) + "\n"
        return cls(model_id, version, plain["model"], plain["files"]), text.encode()

    @classmethod
    def read(cls, text: bytes, *, folder: Path) -> Self:
        """Read ``bundle.json`` of the bundle in ``folder`` and check it against its model_id.

        Raises:
            BundleTooNewError: written by a later format.
            InvalidArgumentError: it is damaged.
        """
        try:
            content = json.loads(text)
            body = {key: content[key] for key in content if key != "model_id"}
            model_id, version = digest_of(body), body.get("format")
        except (ValueError, TypeError, RecursionError) as error:  # TypeError: it holds no object
            raise InvalidArgumentError(f"bundle.json cannot be read ({one_line(error)})") from error
        if type(version) is int and version > FORMAT:
            raise BundleTooNewError(
                f"bundle {printable(str(folder))} has format {version}, this lookalike reads up to {FORMAT}; "
                "upgrade it"
            )
        if type(version) is not int or not 1 <= version <= FORMAT or set(content) != _KEYS:
            raise InvalidArgumentError(
                f"bundle.json must hold {', '.join(sorted(_KEYS))} and no more, format 1 to {FORMAT}"
            )
        if content["model_id"] != model_id:
            raise InvalidArgumentError("bundle.json does not match its model_id")
        return cls(model_id, version, content["model"], content["files"])

    @property
    def cleans(self) -> bool:
        """Whether it is a cleaner's, which gives no latents."""
        return isinstance(self.model, dict) and self.model.get("kind") == "cleaner"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of ``bundle.json`` of a model that gives latents.

    Attributes:
        model_id: SHA-256 over the rest, 64 hex digits; the rest holds the digests of all files.
        spec: The model.
        digests: SHA-256 of each file, 64 hex digits.
    """

    model_id: str
    spec: BundleSpec
    digests: Mapping[str, str]

    @classmethod
    def of(cls, spec: BundleSpec, digests: Mapping[str, str]) -> tuple[Self, bytes]:
        """Return the manifest as a reader will see it (tuples become lists), and its text.

        Raises:
            InvalidArgumentError: a value is no finite JSON value or cannot be, or a file is unknown or missing.
        """
        since_3 = LATENT_PRIOR in digests or spec.labels == "class"
        since_4 = spec.denoises is not None or spec.image.quick_jpeg
        version = 4 if since_4 else 3 if since_3 else 2
        sealed, text = RawManifest.of(spec.to_json(), digests, version=version)
        return cls(sealed.model_id, BundleSpec.from_json(sealed.model), _checked(sealed.files)), text

    @classmethod
    def read(cls, text: bytes, *, folder: Path) -> Self:
        """Read ``bundle.json`` of the bundle in ``folder`` and check it against its model_id.

        Raises:
            BundleTooNewError: written by a later format.
            BundleKindError: it is a cleaner's.
            InvalidArgumentError: it is damaged.
        """
        sealed = RawManifest.read(text, folder=folder)
        if sealed.cleans:
            raise BundleKindError(
                f"model {printable(folder.name)} is a cleaner, which gives no latents to search or draw with; "
                "take another --model, or lookalike denoise"
            )
        model = sealed.model
        if sealed.version == 1 and isinstance(model, dict):
            model = _of_format_1(model)
        return cls(sealed.model_id, BundleSpec.from_json(model), _checked(sealed.files))


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) and name.strip() for name in value)
        and len(set(value)) == len(value)
    )


def _of_format_1(model: dict[str, Any]) -> dict[str, Any]:
    if "labels" in model:
        raise InvalidArgumentError("a model of format 1 says nothing of labels")
    return model | {"labels": "none"}


def _checked(digests: Any) -> dict[str, str]:
    if not isinstance(digests, dict) or not NEEDED <= set(digests) <= NEEDED | _OPTIONAL:
        got = printable(", ".join(sorted(digests))) if isinstance(digests, dict) else "something else"
        raise InvalidArgumentError(
            f"the files of a bundle are {', '.join(sorted(NEEDED))} and at most "
            f"{', '.join(sorted(_OPTIONAL))}, not {got}"
        )
    return digests


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8), 64 hex digits.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value is none of JSON.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
