"""Parsing of request bodies: JSON with images in Base64, or a form with image files."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.settings import MAX_IMAGES
from lookalike.encoder.errors import printable

M = TypeVar("M", bound=BaseModel)
_MAX_FIELDS: Final = 32
_MAX_FIELD_BYTES: Final = 1 << 16
_MAX_VALUES: Final = 10_000
"""In the lists and objects of a JSON body; more than any request needs."""
_PART: Final = "image"
_DATA_URI: Final = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_BREAKS: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an image file and its name; a query for the searcher."""

    name: str
    data: bytes

    def read_bytes(self) -> bytes:
        """Return the bytes."""
        return self.data

    def __str__(self) -> str:
        return self.name


async def parse_body(request: Request, kind: type[M]) -> tuple[M, list[Upload]]:
    """Return the parameters and the images of a request.

    Raises:
        ApiError: the content type is another (``media-type``), the body cannot be parsed (``malformed``), or
            a parameter is invalid (``invalid-request``).
    """
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type == "application/json":
        # On a thread: while a large body is parsed, other requests are answered.
        return await run_in_threadpool(_parse_json_and_images, await request.body(), kind)
    if media_type == "multipart/form-data":
        return await _parse_form(request, kind)
    raise ApiError(
        "media-type",
        "send application/json or multipart/form-data"
        + (f", not {printable(media_type)}" * bool(media_type)),
    )


def _parse_json_and_images(body: bytes, kind: type[M]) -> tuple[M, list[Upload]]:
    values = _parse_json(body, kind)
    return values, _decode_images(getattr(values, "images", None) or [])


def _parse_json(body: bytes, kind: type[M]) -> M:
    try:
        values = from_json(body)
    except ValueError as error:  # also for JSON that is nested too deeply
        raise ApiError("malformed", "the body is not valid JSON") from error
    if isinstance(values, dict):
        _check_amount(values, kind)
    try:
        return kind.model_validate_json(body, strict=True)  # of Python values it takes no text for a UUID
    except ValidationError as error:
        raise ApiError("invalid-request", _first_error(error)) from error


def _check_amount(values: dict[str, Any], kind: type[BaseModel]) -> None:
    """Refuse what pydantic would make an error of for each of a million keys or items.

    Raises:
        ApiError: there is an unknown field, or there are too many values (``invalid-request``).
    """
    known = {name for field, info in kind.model_fields.items() for name in (field, info.alias)}
    unknown = next((name for name in values if name not in known), None)
    if unknown is not None:
        raise ApiError("invalid-request", f"{printable(unknown[:100])}: there is no such field")
    left, count = list(values.values()), 0
    while left:
        value = left.pop()
        if isinstance(value, list | dict):
            count += len(value)
            if count > _MAX_VALUES:
                raise ApiError("invalid-request", f"the body holds more than {_MAX_VALUES:,} values")
            left += value.values() if isinstance(value, dict) else value


async def _parse_form(request: Request, kind: type[M]) -> tuple[M, list[Upload]]:
    fields: dict[str, Any] = {}
    uploads: list[Upload] = []
    async with request.form(
        max_files=MAX_IMAGES, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    ) as form:
        for name, part in form.multi_items():
            if isinstance(part, UploadFile):
                if name != _PART:
                    raise ApiError("invalid-request", f"files are parts called image, not {printable(name)}")
                file_name = printable(part.filename or f"image-{len(uploads) + 1}")
                uploads.append(Upload(file_name, await part.read()))
            elif name in _lists(kind) and name != "images":
                fields.setdefault(name, []).append(part)
            elif name in fields or name == "images":
                raise ApiError(
                    "invalid-request", f"{printable(name)}: send each field once, and images as files"
                )
            else:
                fields[name] = part
    try:
        return kind.model_validate(fields), uploads
    except ValidationError as error:
        raise ApiError("invalid-request", _first_error(error)) from error


def _decode_images(images: list[str]) -> list[Upload]:
    uploads = []
    for number, text in enumerate(images, start=1):
        try:
            uploads.append(Upload(f"image-{number}", decode_base64(text)))
        except ValueError as error:
            raise ApiError("invalid-request", f"images: number {number} is not valid Base64") from error
    return uploads


def decode_base64(text: str) -> bytes:
    """Return the bytes that a text holds in Base64.

    It may be a data URI, be wrapped in lines, be the URL-safe kind, and lack the padding at its end.

    Raises:
        ValueError: it is not Base64.
    """
    uri = _DATA_URI.match(text)
    data = text[uri.end() :] if uri else text
    try:
        compact = data.encode("ascii").translate(_TO_STANDARD, _BREAKS).rstrip(b"=")
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("it is not Base64") from error


@cache
def _lists(kind: type[BaseModel]) -> frozenset[str]:
    """Return the fields of a request that are lists, which a form sends as several fields of one name."""
    return frozenset(name for name, info in kind.model_fields.items() if "list[" in str(info.annotation))


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = printable(".".join(str(part) for part in first["loc"]))
    return f"{field}: {first['msg']}" if field else str(first["msg"])


def describe_body(kind: type[BaseModel], example: dict[str, Any], *, images: bool = True) -> dict[str, Any]:
    """Return the OpenAPI description of a body that :func:`parse_body` reads.

    Args:
        kind: The model of its parameters.
        example: An example in JSON.
        images: Whether it may be a form with image files.
    """
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
    if images:
        part = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_IMAGES}
        fields = {name: value for name, value in schema["properties"].items() if name != "images"}
        form = {**schema, "properties": {**fields, _PART: part}}
        content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}
