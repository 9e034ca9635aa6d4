"""Whatever is sent, the service says what is wrong with it: mutated pictures, and requests made at random."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.photos import NAME, make_home, photograph
from tests.fixtures.service import API, client_of, problem
from tests.indexer.sync.test_fuzz import KINDS, mutated, written


@pytest.fixture(scope="module")
def client(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    with client_of(home, tiny_model, "denoise") as opened:
        yield opened


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_pictures_are_answered_or_refused(client: httpx.Client, tiny_model: Path, count: int) -> None:
    rng, refused = random.Random(count), 0
    for number in range(count):
        data = mutated(written(rng.choice([*KINDS]), number % 16), rng)
        verb = rng.choice(["search", "reconstruct", "denoise", "faces"])
        form = {"search": {"collection": NAME}, "reconstruct": {"model": tiny_model.name}}.get(verb, {})
        response = client.post(f"{API}/{verb}", data=form, files={"image": ("x.bin", data)})
        if response.status_code != 200:
            refused += 1
            assert response.status_code in (413, 422), response.text
            problem(response, response.status_code, response.json()["code"])
    assert 0 < refused < count
    good = client.post(f"{API}/search", data={"collection": NAME}, files={"image": photograph(0)})
    assert good.status_code == 200


# A form that breaks off leaves its file to the garbage collector, which closes it: Starlette's doing.
@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_bodies_are_answered_or_refused(client: httpx.Client, count: int) -> None:
    rng, kept = (
        random.Random(count),
        client.build_request(
            "POST", f"{API}/search", data={"collection": NAME, "k": "3"}, files={"image": b"x" * 99}
        ),
    )
    form, kind = kept.read(), kept.headers["content-type"]
    text = (
        b'{"collection": "photos", "k": 3, "images": ["AAAA"], "crop": "full", "prior": 0.5, "denoise": true}'
    )
    for number in range(count):
        body, said = (form, kind) if number % 2 else (text, "application/json")
        response = client.post(f"{API}/search", content=mutated(body, rng), headers={"Content-Type": said})
        assert 200 <= response.status_code < 500, response.text
        if response.status_code != 200:
            problem(response, response.status_code, response.json()["code"])


@pytest.mark.parametrize(("each", "least"), [(12, 120), pytest.param(160, 2000, marks=pytest.mark.slow)])
def test_requests_made_of_the_description_get_what_it_says(
    client: httpx.Client, each: int, least: int
) -> None:
    """So many for each operation that can be asked in as many ways."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.result import Err
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    told = client.get(f"{API}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(told)
    asked = 0
    for result in schema.get_all_operations():
        assert not isinstance(result, Err)
        operation = result.ok()

        @settings(
            max_examples=each,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(
                base_url=str(client.base_url).rstrip("/"),
                checks=[
                    not_a_server_error,
                    status_code_conformance,
                    content_type_conformance,
                    response_schema_conformance,
                ],
            )

        from hypothesis import given

        given(case=operation.as_strategy())(ask)()
    assert asked >= least
