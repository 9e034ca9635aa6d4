"""A collection that another process holds hides no other: over HTTP, on the page and in the command."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from lookalike.indexer.open import open_store
from tests.deploy.cli.test_serve import held
from tests.fixtures.browser import in_browser, launched, opened
from tests.fixtures.command import lookalike
from tests.fixtures.photos import NAME, make_home
from tests.fixtures.service import API, client_of, problem

FREE = "free"


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the collection photos and an empty one called free."""
    home = make_home(tmp_path_factory.mktemp("home"), tiny_model)
    with open_store(str(home / ".lookalike")) as store:
        store.create(FREE, store.info(NAME))
    return home


@pytest.fixture(scope="module")
def holder(home: Path) -> Iterator[int]:
    """Another process that has the collection photos open."""
    with held(home) as process:
        yield process.pid


@pytest.fixture(scope="module")
def client(home: Path, tiny_model: Path, holder: int) -> Iterator[httpx.Client]:
    with client_of(home, tiny_model) as opened:
        yield opened


def test_the_service_lists_it_with_its_holder_and_all_others(
    client: httpx.Client, holder: int, home: Path
) -> None:
    listed = client.get(f"{API}/collections")
    assert listed.status_code == 200, listed.text
    told = listed.json()
    assert [(each["name"], each["count"]) for each in told["collections"]] == [(FREE, 0)]
    assert told["damaged"] == []
    (photos,) = told["held"]
    assert photos["name"] == NAME
    assert photos["reason"].startswith(
        f"collection folder {NAME} is in use by another process (pid {holder}); wait"
    )
    assert str(home) not in photos["reason"]
    problem(client.get(f"{API}/collections/{NAME}"), 503, "store-busy")
    assert client.get(f"{API}/collections/{FREE}").json()["count"] == 0


@pytest.mark.slow
@in_browser
def test_the_page_shows_it_with_its_holder(client: httpx.Client, holder: int) -> None:
    def look(browser: Browser) -> None:
        for page in opened(browser, str(client.base_url)):
            expect(page.locator("#closed")).to_contain_text(
                f"{NAME} is in use by another process (pid {holder})"
            )
            assert page.locator("#collection option").all_inner_texts() == [f"{FREE} (0)"]
            page.get_by_role("tab", name="Manage").click()
            expect(page.locator("#collection-list h3")).to_have_text([FREE, NAME])
            expect(page.locator("#collection-list li").nth(1)).to_contain_text(f"(pid {holder})")

    for browser in launched():
        look(browser)


def test_the_command_lists_it_too(client: httpx.Client, home: Path, holder: int) -> None:
    """The service has opened the other one: each process holds a collection."""
    client.get(f"{API}/collections")
    done = lookalike("collections", "list", cwd=home)
    assert (done.returncode, done.stderr) == (3, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[FREE, "held"], [NAME, "held"]]
    assert f"(pid {holder}); wait" in lines[1]
    rows = json.loads(lookalike("collections", "list", "--json", cwd=home).stdout)
    assert [row["name"] for row in rows if "held" in row] == [FREE, NAME]
