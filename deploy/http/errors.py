"""What went wrong, as RFC 9457 problem details: the one place where errors become HTTP.

A problem has a stable ``code``, by which programs tell it, and a sentence for people. What the service itself
did wrong is told in general words only, and in full in its log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from lookalike.encoder import errors

__all__ = ["MEDIA_TYPE", "OF_ERRORS", "PROBLEMS", "ApiError", "Problem", "code_of", "content", "responded"]

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of problem.

    Attributes:
        status: Of HTTP.
        title: The same for every problem of this code.
        told: Whether its detail says what was raised; else it says only what the title does.
    """

    status: int
    title: str
    told: bool = True


PROBLEMS: Final[Mapping[str, Problem]] = {
    "malformed": Problem(400, "The request cannot be read"),
    "host-not-allowed": Problem(400, "The service has another name"),
    "unauthorized": Problem(401, "The API key is missing or wrong"),
    "cross-origin": Problem(403, "Other sites may not ask through a browser"),
    "folder-not-allowed": Problem(403, "This folder may not be indexed"),
    "not-found": Problem(404, "Nothing is here"),
    "collection-not-found": Problem(404, "There is no such collection", told=False),
    "model-not-found": Problem(404, "There is no such model"),
    "item-not-found": Problem(404, "There is no such item"),
    "picture-not-found": Problem(404, "The item's picture is not there any more, or may not be shown"),
    "job-not-found": Problem(404, "There is no such job"),
    "method-not-allowed": Problem(405, "The method is not allowed here"),
    "request-timeout": Problem(408, "The request took too long to arrive"),
    "collection-exists": Problem(409, "The collection is there already", told=False),
    "model-mismatch": Problem(409, "The collection was made by another model or crop", told=False),
    "job-ended": Problem(409, "The job has ended already"),
    "body-too-large": Problem(413, "The request is too large"),
    "image-too-large": Problem(413, "The picture has too many pixels"),
    "media-type": Problem(415, "The content type cannot be read here"),
    "invalid-request": Problem(422, "A value of the request cannot be"),
    "model-kind": Problem(422, "The model is of another kind"),
    "image-unreadable": Problem(422, "The picture cannot be read"),
    "data-unreadable": Problem(422, "The data cannot be read", told=False),
    "vector-unusable": Problem(422, "The picture gives no vector that could be compared"),
    "internal": Problem(500, "The service failed", told=False),
    "model-failed": Problem(500, "The model failed", told=False),
    "store-failed": Problem(500, "The store failed", told=False),
    "extra-missing": Problem(501, "The service lacks an optional part", told=False),
    "busy": Problem(503, "The service is busy"),
    "timeout": Problem(503, "The work took too long"),
    "store-busy": Problem(503, "Another process holds the collection", told=False),
    "store-unreachable": Problem(503, "The store does not answer", told=False),
    "not-ready": Problem(503, "The service is not ready"),
}
"""Code to what it means."""

OF_ERRORS: Final[Mapping[type[errors.LookalikeError], str]] = {
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
"""Error to code; a test holds that none of ``encoder/errors.py`` is missing."""

_DETAILS: Final = {
    "collection-not-found": "no collection of this name; GET /api/v1/collections lists them",
    "model-mismatch": "the model that made this collection is not at hand here; serve it with --model",
    "data-unreadable": "what is to be read is not there or is damaged; see the service's log",
    "store-busy": "another process holds the collection; wait until it has ended",
    "store-unreachable": "the store does not answer; try again soon",
    "extra-missing": "an optional part is not installed where the service runs; see its log",
}
_RETRY_SECONDS: Final = 1


class ApiError(Exception):  # it is no failure of ours
    """The service will not do it.

    Args:
        code: One of :data:`PROBLEMS`.
        detail: A sentence: what was wrong, and the way out.
        headers: More headers of the answer.
    """

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


def code_of(error: BaseException) -> str:
    """Return the code of an error, by its nearest ancestor that has one."""
    if isinstance(error, ApiError):
        return error.code
    for kind in type(error).__mro__:
        if kind in OF_ERRORS:
            return OF_ERRORS[kind]
    return "internal"


def content(error: BaseException) -> dict[str, Any]:
    """Return the members type, title, status, detail and code of an error's problem."""
    code = code_of(error)
    problem = PROBLEMS[code]
    known = isinstance(error, errors.LookalikeError | ApiError)
    said = str(error) if known and problem.told else _DETAILS.get(code, f"{problem.title}; see its log")
    return {
        "type": f"/api/v1/problems#{code}",
        "title": problem.title,
        "status": problem.status,
        "detail": said,
        "code": code,
    }


def responded(
    error: BaseException, *, request_id: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return the response that an error gets.

    Args:
        error: What was raised.
        request_id: To find it in the log.
        headers: More headers.
        more: Further members of the problem.
    """
    values = {**content(error), "request_id": request_id, **more}
    sent = {**(error.headers if isinstance(error, ApiError) else {}), **(headers or {})}
    if values["status"] == 503:
        sent.setdefault("Retry-After", str(_RETRY_SECONDS))
    if values["status"] == 401:
        sent.setdefault("WWW-Authenticate", "Bearer")
    body = json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(body, status_code=values["status"], headers=sent, media_type=MEDIA_TYPE)
