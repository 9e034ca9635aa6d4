"""What only the server store promises: one line about whatever does not answer as a Qdrant server does."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.common import client_exceptions
from qdrant_client.http import exceptions

from lookalike.encoder.errors import CollectionNotFoundError, StoreError, StoreUnreachableError
from lookalike.indexer.open import open_store
from lookalike.indexer.server import ServerStore
from lookalike.indexer.server.client import Server
from lookalike.indexer.server.errors import check_key, one_line, version_warning
from tests.fixtures.command import lookalike
from tests.fixtures.processes import child_env
from tests.fixtures.qdrant_stub import serving
from tests.fixtures.stores import SPEC, point_ids, random_vectors

Answer = tuple[int, bytes]


@dataclass
class Stub:
    """A local HTTP server with canned answers, and the api-key headers it was sent."""

    url: str
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def answering(reply: Callable[[str], Answer]) -> Iterator[Stub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stub.keys.append(self.headers.get("api-key"))
            status, body = reply(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is inherited)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub = Stub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


def qdrant(version: str, *, collections: Answer = (200, b"")) -> Callable[[str], Answer]:
    """The two answers that connecting asks for."""
    listing = json.dumps({"result": {"collections": []}, "status": "ok", "time": 0.0}).encode()

    def reply(path: str) -> Answer:
        if path == "/collections":
            return collections if collections[1] else (200, listing)
        return 200, json.dumps({"title": "qdrant", "version": version}).encode()

    return reply


def refusal(url: str, **options: Any) -> str:
    """The message that connecting ends with, promptly."""
    began = time.monotonic()
    with pytest.raises(StoreUnreachableError) as caught:
        ServerStore.connect(url, **options)
    assert time.monotonic() - began < 4
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert url in str(caught.value)
    return str(caught.value)


def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "check the address" in refusal(f"http://127.0.0.1:{free.getsockname()[1]}")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (lambda _: (401, b"Must provide an API key"), "QDRANT_API_KEY"),
        (lambda _: (403, b"{}"), "QDRANT_API_KEY"),
        (qdrant("1.18.0", collections=(401, b"Invalid API key")), "QDRANT_API_KEY"),
        (lambda _: (404, b"<html>\nnot here\n</html>"), "check the address"),
        (lambda _: (200, b"<html>\nhello\n</html>"), "check the address"),
        (lambda _: (200, b'{"some": "json"}'), "check the address"),
        (lambda _: (503, b"busy\nnow"), "see its log"),
        (qdrant("1.15.5"), "upgrade it to 1.16"),
        (qdrant("0.9.0"), "upgrade it to 1.16"),
    ],
)
def test_it_is_no_qdrant_server_for_us(reply: Callable[[str], Answer], said: str) -> None:
    with answering(reply) as stub:
        assert said in refusal(stub.url)


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999", "http://127.0.0.1:x"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        ServerStore.connect(url)
    assert "\n" not in str(caught.value)


TONIC = (
    "Service internal error: 1 of 1 read operations failed:   Service internal error: Tonic error: status: "
    'Unavailable, message: "error trying to connect: tcp connect error: Connection refused (os error 111)", '
    "details: [], metadata: MetadataMap { headers: {} }"
)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (TONIC, "a peer of the cluster does not answer another: error trying to connect: tcp connect error: "
         "Connection refused (os error 111)"),
        (
            "Service internal error: Tonic error: status: 'The service is currently unavailable', self: "
            '"tcp connect error"',
            "a peer of the cluster does not answer another: tcp connect error",
        ),
        ("Tonic error: status: Cancelled", "a peer of the cluster does not answer another"),
        ("Wrong input: no\n such field", "Wrong input: no such field"),
    ],
)  # fmt: skip
def test_what_peers_say_to_one_another_is_put_plainly(raw: str, said: str) -> None:
    assert one_line(raw) == said


def test_a_key_that_may_only_read_is_told_so_by_whatever_writes() -> None:
    with serving() as stub, ServerStore.connect(stub.url) as store:
        store.create("c", SPEC)
        stub.read_only = True
        calls: list[Callable[[], object]] = [
            lambda: store.create("d", SPEC),
            lambda: store.upsert("c", point_ids(1), random_vectors(1), [{}]),
            lambda: store.delete("c", point_ids(1)),
            lambda: store.set_alias("a", "c"),
            lambda: store.update_info("c", replace(SPEC, roots={})),
            lambda: store.build_index("c"),
            lambda: store.delete_collection("c"),
        ]
        for call in calls:
            with pytest.raises(StoreUnreachableError, match=r"may only read.* key that may write") as told:
                call()
            assert "\n" not in str(told.value)
        assert store.count("c") == 0  # reading goes on


@pytest.mark.parametrize(
    ("server", "client", "said"),
    [
        *(("1.20.0", "1.20.1", None), ("1.19.3", "1.20.0", None), ("1.21.0", "1.20.0", None)),
        *(("dev", "1.20.0", None), ("1.18.0", "1.20.0", "upgrade the server to 1.20")),
        *(("1.22.0", "1.20.0", "upgrade qdrant-client"), ("2.0.0", "1.20.0", "upgrade qdrant-client")),
    ],
)
def test_server_and_client_are_one_minor_version_apart_at_most(
    server: str, client: str, said: str | None
) -> None:
    warning = version_warning("http://here", server, client)
    assert (warning is None) == (said is None)
    assert said is None or said in (warning or "")


def test_people_are_warned_of_a_server_of_another_time(tmp_path: Path) -> None:
    for version in ("1.16.3", installed_version("qdrant-client")):
        with serving(version=version) as stub:
            listed = lookalike("collections", "list", "--store", stub.url, cwd=tmp_path)
            assert listed.returncode == 0
            assert (f"has version {version}, the client here" in listed.stderr) == (version == "1.16.3")


@pytest.mark.parametrize("version", ["1.16.0", "1.18.2-dev", "2.0.0", "dev"])
def test_connect(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "from the environment")
    with answering(qdrant(version)) as stub:
        with open_store(stub.url) as store:  # a key over plain http to this machine: no warning
            assert store.list_collections() == []
            assert store.address == stub.url
        with open_store(stub.url, api_key="given") as store:
            assert store.list_collections() == []
    assert set(stub.keys) == {"from the environment", "given"}


def test_a_server_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.indexer.server.upload.PAUSES", (0.01,))
    with answering(qdrant("1.18.0")) as stub:
        store = ServerStore.connect(stub.url)
    with store, pytest.raises(StoreUnreachableError, match="check the address"):
        store.list_collections()


def test_no_key_in_clear_text_over_the_internet() -> None:
    assert "https://" in refusal("http://qdrant.example.com:6333", api_key="secret")
    with pytest.raises(StoreUnreachableError, match="clear text") as refused:
        check_key("http://8.8.8.8:6333", "secret")
    assert "secret" not in str(refused.value)


def test_another_programs_collections_are_left_alone() -> None:
    client = QdrantClient(":memory:")
    vectors = models.VectorParams(size=8, distance=models.Distance.COSINE)
    client.create_collection("plain", vectors_config=vectors)
    client.create_collection("noted", vectors_config=vectors, metadata={"owner": "me"})
    client.create_collection("mangled", vectors_config=vectors, metadata={"lookalike": {"format": 1}})
    with ServerStore(Server(client, ":memory:", in_memory=True)) as store:
        store.create("ours", SPEC)
        assert store.list_collections() == ["mangled", "ours"]
        for name in ("plain", "noted", "mangled"):
            with pytest.raises(StoreError, match="is not a lookalike collection"):
                store.info(name)
            with pytest.raises(StoreError, match="is not a lookalike collection"):
                store.upsert(name, point_ids(1), random_vectors(1), [{}])
        for name in ("plain", "noted"):
            with pytest.raises(StoreError, match="not a lookalike collection"):
                store.delete_collection(name)
        assert client.collection_exists("plain")
        store.delete_collection("mangled")


def test_a_collection_deleted_behind_our_back() -> None:
    client = QdrantClient(":memory:")
    with ServerStore(Server(client, ":memory:", in_memory=True)) as store:
        store.create("c", SPEC)
        store.upsert("c", point_ids(1), random_vectors(1), [{}])
        client.delete_collection("c")
        with pytest.raises(CollectionNotFoundError):
            store.count("c")
        with pytest.raises(CollectionNotFoundError):
            store.upsert("c", point_ids(1), random_vectors(1), [{}])


def test_every_exception_of_the_client_is_known() -> None:
    # One that is new here needs a line in indexer.server._mapped.
    known = {"ApiException", "UnexpectedResponse", "ResponseHandlingException"}
    assert _raisable(exceptions) == known
    assert _raisable(client_exceptions) == {"QdrantException", "ResourceExhaustedResponse"}


def _raisable(module: object) -> set[str]:
    return {n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, Exception)}


def test_who_uses_a_folder_does_not_pay_for_the_client(tmp_path: Path) -> None:
    script = (
        "import sys; from lookalike.indexer.open import open_store;"
        "open_store(sys.argv[1]).list_collections();"
        "sys.exit('qdrant_client' in sys.modules or 'grpc' in sys.modules)"
    )
    environment = child_env()
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "none")], check=True, env=environment)
