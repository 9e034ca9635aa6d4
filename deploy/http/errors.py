"""Errors as RFC 9457 problem details: the only place where exceptions become HTTP responses.

A problem has a stable ``code`` for programs and a sentence for people. Details of the service's own failures
go to its log only; the response has a general sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from lookalike.encoder import errors

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of problem.

    Attributes:
        status: HTTP status.
        title: The same for every problem of this code.
        expose_detail: Whether the response has the message of the exception, or a general sentence.
    """

    status: int
    title: str
    expose_detail: bool = True


PROBLEMS: Final[Mapping[str, Problem]] = {
    "malformed": Problem(400, "The request cannot be parsed"),
    "host-not-allowed": Problem(400, "The Host header is not allowed"),
    "unauthorized": Problem(401, "The API key is missing or wrong"),
    "cross-origin": Problem(403, "Cross-origin requests are not allowed"),
    "read-only": Problem(403, "The API key may only read"),
    "not-allowed": Problem(403, "Changes are not allowed"),
    "folder-not-allowed": Problem(403, "This folder may not be indexed"),
    "not-found": Problem(404, "There is nothing at this path"),
    "collection-not-found": Problem(404, "There is no such collection", expose_detail=False),
    "alias-not-found": Problem(404, "There is no such alias"),
    "model-not-found": Problem(404, "There is no such model"),
    "item-not-found": Problem(404, "There is no such item"),
    "picture-not-found": Problem(404, "The item's image file is gone or may not be shown"),
    "job-not-found": Problem(404, "There is no such job"),
    "job-image-gone": Problem(404, "The job has no image"),
    "method-not-allowed": Problem(405, "The method is not allowed at this path"),
    "request-timeout": Problem(408, "The request took too long to arrive"),
    "collection-exists": Problem(409, "The collection exists already", expose_detail=False),
    "collection-in-use": Problem(409, "The collection is in use"),
    "model-mismatch": Problem(409, "The collection was made by another model or crop", expose_detail=False),
    "vectors-mismatch": Problem(409, "The vectors are of another model"),
    "job-ended": Problem(409, "The job has already ended"),
    "job-not-done": Problem(409, "The job is not done"),
    "body-too-large": Problem(413, "The request is too large"),
    "image-too-large": Problem(413, "The image has too many pixels"),
    "too-slow": Problem(413, "The request would take too long"),
    "media-type": Problem(415, "The content type is not supported"),
    "invalid-request": Problem(422, "Invalid request parameter"),
    "model-kind": Problem(422, "The model is of another kind"),
    "image-unreadable": Problem(422, "The image cannot be read"),
    "data-unreadable": Problem(422, "The data cannot be read", expose_detail=False),
    "vector-unusable": Problem(422, "The image has no usable embedding"),
    "client-gone": Problem(499, "The client closed the connection"),
    "internal": Problem(500, "Internal error", expose_detail=False),
    "model-failed": Problem(500, "The model failed", expose_detail=False),
    "store-failed": Problem(500, "The store failed", expose_detail=False),
    "extra-missing": Problem(501, "An optional package is not installed", expose_detail=False),
    "busy": Problem(503, "The service is busy"),
    "timeout": Problem(503, "Processing took too long"),
    "store-busy": Problem(503, "Another process holds the collection", expose_detail=False),
    "store-unreachable": Problem(503, "The store does not answer", expose_detail=False),
    "not-ready": Problem(503, "The service is not ready"),
}
"""The problems by code."""

ERROR_CODES: Final[Mapping[type[errors.LookalikeError], str]] = {
    errors.LookalikeError: "internal",
    errors.InvalidArgumentError: "invalid-request",
    errors.ImageError: "image-unreadable",
    errors.ImageTooLargeError: "image-too-large",
    errors.BundleError: "model-failed",
    errors.BundleNotFoundError: "model-failed",
    errors.BundleKindError: "model-kind",
    errors.BundleCorruptError: "model-failed",
    errors.BundleTooNewError: "model-failed",
    errors.GoldenMismatchError: "model-failed",
    errors.CalibrationError: "model-failed",
    errors.OnnxImportError: "model-failed",
    errors.WorkerDiedError: "model-failed",
    errors.ExportError: "internal",
    errors.ProviderError: "model-failed",
    errors.MissingExtraError: "extra-missing",
    errors.DataError: "data-unreadable",
    errors.TrainingError: "internal",
    errors.StoreError: "store-failed",
    errors.StoreBusyError: "store-busy",
    errors.StoreUnreachableError: "store-unreachable",
    errors.StoreUnavailableError: "store-unreachable",
    errors.CollectionNotFoundError: "collection-not-found",
    errors.CollectionExistsError: "collection-exists",
    errors.ItemNotFoundError: "item-not-found",
    errors.ModelMismatchError: "model-mismatch",
    errors.VectorError: "vector-unusable",
}
"""The code of each exception; a test checks that none of ``encoder/errors.py`` is missing."""

_DETAILS: Final = {
    "collection-not-found": "no collection of this name; GET /api/v1/collections lists them",
    "model-mismatch": "the model that made this collection is not available here; serve it with --model",
    "data-unreadable": "the data is missing or damaged; see the service's log",
    "store-busy": "another process holds the collection; wait until it has ended",
    "store-unreachable": "the store does not answer; try again soon",
    "extra-missing": "an optional package is not installed where the service runs; see its log",
}
_RETRY_SECONDS: Final = 1


class ApiError(Exception):
    """A request that is refused, as a problem.

    Args:
        code: A code of :data:`PROBLEMS`.
        detail: One sentence: what is wrong, and the way out.
        headers: Additional headers of the response.
    """

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


def error_code(error: BaseException) -> str:
    """Return the code of an exception, that of its nearest base class with one."""
    if isinstance(error, ApiError):
        return error.code
    return next((ERROR_CODES[kind] for kind in type(error).__mro__ if kind in ERROR_CODES), "internal")


def problem_details(error: BaseException, *, root_path: str = "") -> dict[str, Any]:
    """Return type, title, status, detail and code of the problem for an exception.

    Args:
        error: The exception.
        root_path: The path below which a proxy serves; the type is an address.
    """
    code = error_code(error)
    problem = PROBLEMS[code]
    expected = isinstance(error, errors.LookalikeError | ApiError)
    general = _DETAILS.get(code, f"{problem.title}; see the service's log")
    return {
        "type": f"{root_path}/api/v1/problems#{code}",
        "title": problem.title,
        "status": problem.status,
        "detail": str(error) if expected and problem.expose_detail else general,
        "code": code,
    }


def problem_response(error: BaseException, *, request_id: str, root_path: str = "") -> Response:
    """Return the response for an exception; see :func:`problem_details`."""
    values = {**problem_details(error, root_path=root_path), "request_id": request_id}
    headers = dict(error.headers) if isinstance(error, ApiError) else {}
    if values["status"] == 503:
        headers.setdefault("Retry-After", str(_RETRY_SECONDS))
    if values["status"] == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    body = json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(body, status_code=values["status"], headers=headers, media_type=MEDIA_TYPE)
