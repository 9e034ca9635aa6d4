"""What a request brings: JSON with pictures in Base64, or a form with files. Nothing else is read."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.settings import MOST_PICTURES
from lookalike.encoder.text import printable

__all__ = ["Upload", "body_of", "described_body", "parsed"]

M = TypeVar("M", bound=BaseModel)
_MOST_FIELDS: Final = 32
_FIELD_BYTES: Final = 1 << 16
_PART: Final = "image"


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture's bytes as they came, and what to call them; may stand where a file does."""

    name: str
    data: bytes

    def read_bytes(self) -> bytes:
        """Return the bytes."""
        return self.data

    def __str__(self) -> str:
        return self.name


async def parsed(request: Request, kind: type[M]) -> tuple[M, list[Upload]]:
    """Return the request's values and its pictures.

    Raises:
        ApiError: another content type (``media-type``), a body that cannot be read (``malformed``), or values
            that cannot be (``invalid-request``).
    """
    said = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if said == "application/json":
        values = body_of(await request.body(), kind)
        return values, _decoded(getattr(values, "images", None) or [])
    if said == "multipart/form-data":
        return await _form(request, kind)
    raise ApiError(
        "media-type",
        "send application/json or multipart/form-data" + (f", not {printable(said)}" if said else ""),
    )


def body_of(body: bytes, kind: type[M]) -> M:
    """Return a JSON body as what it must be.

    Raises:
        ApiError: ``malformed`` or ``invalid-request``.
    """
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        if error.errors(include_input=False)[0]["type"] == "json_invalid":
            raise ApiError("malformed", "the body is no JSON") from error
        raise ApiError("invalid-request", _first(error)) from error


async def _form(request: Request, kind: type[M]) -> tuple[M, list[Upload]]:
    fields: dict[str, Any] = {}
    uploads: list[Upload] = []
    async with request.form(
        max_files=MOST_PICTURES, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES
    ) as form:
        for name, part in form.multi_items():
            if isinstance(part, UploadFile):
                if name != _PART:
                    raise ApiError(
                        "invalid-request", f"pictures are parts called image, not {printable(name)}"
                    )
                uploads.append(
                    Upload(printable(part.filename or f"image-{len(uploads) + 1}"), await part.read())
                )
            elif name == "add":
                fields.setdefault(name, []).append(part)
            elif name in fields or name == "images":
                raise ApiError(
                    "invalid-request", f"{printable(name)}: a form has it once, and pictures as files"
                )
            else:
                fields[name] = part
    try:
        return kind.model_validate(fields), uploads
    except ValidationError as error:
        raise ApiError("invalid-request", _first(error)) from error


def _decoded(images: list[str]) -> list[Upload]:
    uploads = []
    for number, text in enumerate(images, start=1):
        try:
            uploads.append(Upload(f"image-{number}", base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError) as error:
            raise ApiError("invalid-request", f"images: number {number} is no Base64") from error
    return uploads


def _first(error: ValidationError) -> str:
    """Say what is wrong with the first value that is wrong."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = printable(".".join(str(part) for part in found["loc"]))
    return f"{where}: {found['msg']}" if where else str(found["msg"])


def described_body(
    kind: type[BaseModel], example: dict[str, Any], *, pictures: bool = True
) -> dict[str, Any]:
    """Return the OpenAPI description of a request body that :func:`parsed` reads.

    Args:
        kind: Of its values.
        example: In JSON.
        pictures: Whether a form with files may be sent too.
    """
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
    if pictures:
        part = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MOST_PICTURES}
        fields = {name: value for name, value in schema["properties"].items() if name != "images"}
        form = {**schema, "properties": {**fields, _PART: part}}
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}
