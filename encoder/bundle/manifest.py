"""``bundle.json``: the format, the model's description, the SHA-256 of each file, and the model_id.

::

    {"model_id": "<SHA-256 of the rest>", "format": 5, "model": {...}, "files": {"encoder.onnx": "<SHA-256>"}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from lookalike.encoder.bundle.spec import BundleSpec, DenoiserSpec, Spec
from lookalike.encoder.errors import BundleError, BundleTooNewError, InvalidArgumentError
from lookalike.encoder.text import one_line, printable

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
            content = json.loads(text)
            body = {key: content[key] for key in content if key != "model_id"}
            model_id, version = digest_of(body), body.get("format")
        except (ValueError, TypeError, RecursionError) as error:  # TypeError: not a JSON object
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
