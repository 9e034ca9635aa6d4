"""Every error has its HTTP status and stable code, and tells outside only what it may."""

import json
from typing import Any

import pytest

from lookalike.deploy.http.errors import OF_ERRORS, PROBLEMS, ApiError, code_of, content, responded
from lookalike.encoder import errors

ERRORS = [name for name, kind in vars(errors).items() if isinstance(kind, type)]


def test_every_error_of_the_tree_has_a_code() -> None:
    assert {kind.__name__ for kind in OF_ERRORS} == set(ERRORS)
    assert set(OF_ERRORS.values()) <= set(PROBLEMS)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_becomes_its_problem(name: str) -> None:
    kind = getattr(errors, name)
    code = OF_ERRORS[kind]
    response = responded(kind("a rule at /srv/secret, a way out"), request_id="r1")
    values: dict[str, Any] = json.loads(bytes(response.body))
    assert response.media_type == "application/problem+json"
    assert response.status_code == values["status"] == PROBLEMS[code].status
    assert values["code"] == code
    assert values["type"] == f"/api/v1/problems#{code}"
    assert values["request_id"] == "r1"
    # What is told of the caller's own values is what was raised; what is ours stays in the log.
    assert ("/srv/secret" in values["detail"]) == PROBLEMS[code].told
    assert response.status_code < 500 or not PROBLEMS[code].told


def test_a_child_that_nobody_has_named_is_its_parent() -> None:
    class NewImageError(errors.ImageError):
        pass

    assert code_of(NewImageError()) == "image-unreadable"
    assert code_of(KeyError("x")) == "internal"


def test_a_foreign_error_tells_nothing() -> None:
    values = content(RuntimeError("password is hunter2"))
    assert values["status"] == 500
    assert "hunter2" not in json.dumps(values)


def test_refusals_carry_their_words_and_headers() -> None:
    response = responded(ApiError("busy", "later", headers={"Retry-After": "7"}), request_id="x")
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert responded(ApiError("busy", "later"), request_id="x").headers["retry-after"] == "1"
    assert responded(ApiError("unauthorized", "key"), request_id="x").headers["www-authenticate"] == "Bearer"


def test_codes_are_words_and_statuses_errors() -> None:
    for code, each in PROBLEMS.items():
        assert code.replace("-", "").isalpha()
        assert 400 <= each.status < 600
        assert each.title
