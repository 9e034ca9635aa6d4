"""Every error has its HTTP status and stable code, and tells outside only what it may."""

import json
from typing import Any

import pytest

from lookalike.deploy.http.errors import (
    ERROR_CODES,
    PROBLEMS,
    ApiError,
    error_code,
    problem_details,
    problem_response,
)
from lookalike.encoder import errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.LookalikeError)
]


def test_every_error_of_the_tree_has_a_code() -> None:
    assert set(ERROR_CODES) == set(KINDS)
    assert set(ERROR_CODES.values()) <= set(PROBLEMS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_becomes_its_problem(kind: type[errors.LookalikeError]) -> None:
    code = ERROR_CODES[kind]
    response = problem_response(kind("a rule at /srv/secret, a way out"), request_id="r1")
    values: dict[str, Any] = json.loads(bytes(response.body))
    assert response.media_type == "application/problem+json"
    assert response.status_code == values["status"] == PROBLEMS[code].status
    assert values["code"] == code
    assert values["type"] == f"/api/v1/problems#{code}"
    assert values["request_id"] == "r1"
    # What is told of the caller's own values is what was raised; what is ours stays in the log.
    assert ("/srv/secret" in values["detail"]) == PROBLEMS[code].expose_detail
    assert response.status_code < 500 or not PROBLEMS[code].expose_detail


def test_a_child_that_nobody_has_named_is_its_parent() -> None:
    class NewImageError(errors.ImageError):
        pass

    assert error_code(NewImageError()) == "image-unreadable"
    assert error_code(KeyError("x")) == "internal"


def test_a_foreign_error_tells_nothing() -> None:
    values = problem_details(RuntimeError("password is hunter2"))
    assert values["status"] == 500
    assert "hunter2" not in json.dumps(values)


def test_refusals_carry_their_words_and_headers() -> None:
    response = problem_response(ApiError("busy", "later", headers={"Retry-After": "7"}), request_id="x")
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert problem_response(ApiError("busy", "later"), request_id="x").headers["retry-after"] == "1"
    assert (
        problem_response(ApiError("unauthorized", "key"), request_id="x").headers["www-authenticate"]
        == "Bearer"
    )


def test_codes_are_words_and_statuses_errors() -> None:
    for code, each in PROBLEMS.items():
        assert code.replace("-", "").isalpha()
        assert 400 <= each.status < 600
        assert each.title
