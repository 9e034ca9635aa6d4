"""One browser and one service for all tests of the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import SourceFilter, SourceList
from lookalike.indexer.sync import sync
from tests.fixtures.browser import launched, opened
from tests.fixtures.photos import PEOPLE, make_home
from tests.fixtures.service import client_of


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)  # for a busy machine
    yield from launched()


@pytest.fixture(scope="package")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photographs of three people, in the collections photos and, each with a number, rated."""
    home = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    rows = {f"{person}/{n}.jpg": {"Smiling": n - 1.5} for person in PEOPLE for n in range(3)}
    rated = SourceList(sources=[home / "photos"], filter=SourceFilter(payload=rows))
    with open_store(str(home / ".lookalike")) as store:
        sync(store, "rated", Model.open(tiny_model), rated)
    return home


@pytest.fixture(scope="package")
def address(home: Path, tiny_model: Path) -> Iterator[str]:
    with client_of(home, tiny_model) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, opened; in the end nothing was wrong with it."""
    yield from opened(browser, address, **getattr(request, "param", {}))
