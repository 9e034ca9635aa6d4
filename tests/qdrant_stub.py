"""A local HTTP server that keeps points as Qdrant does, and what it was asked. Not a test.

What it is told with ``wait=false`` it only acknowledges: it applies that, in order, when something with
``wait=true`` comes. It can be made to fail. It searches nothing.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, Any]]
Step = Callable[[], None]


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    wait: bool
    body: Any

    @property
    def upserts(self) -> bool:
        """Whether points come with it."""
        return self.method == "PUT" and self.path.endswith("/points")


@dataclass
class Stub:
    """The server: what it holds, what it was asked, and how it fails.

    ``fault`` is shown each request and returns a status to fail with (0: no answer at all), or None.
    """

    url: str = ""
    peers: int = 0
    fault: Callable[[Asked], int | None] = lambda _: None
    asked: list[Asked] = field(default_factory=list)
    collections: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    queue: list[Step] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, ending: str, method: str | None = None) -> list[Asked]:
        """The requests to such a path."""
        return [a for a in self.asked if a.path.endswith(ending) and method in (None, a.method)]

    def answer(self, asked: Asked) -> Answer:
        with self.lock:
            self.asked.append(asked)
            status = self.fault(asked)
            if status is not None:
                return status, {"status": {"error": "on purpose"}, "time": 0.0}
            first, *parts = asked.path.strip("/").split("/")
            match first, parts:
                case "", []:
                    return 200, {"title": "qdrant", "version": "1.16.3"}
                case "cluster", []:
                    return _ok(self._cluster())
                case "aliases", []:
                    told = [{"alias_name": a, "collection_name": c} for a, c in self.aliases.items()]
                    return _ok({"aliases": told})
                case "collections", []:
                    return _ok({"collections": [{"name": name} for name in self.collections]})
                case "collections", ["aliases"]:
                    for action in asked.body["actions"]:
                        if (gone := action.get("delete_alias")) is not None:
                            del self.aliases[gone["alias_name"]]
                        if (made := action.get("create_alias")) is not None:
                            self.aliases[made["alias_name"]] = made["collection_name"]
                    return _ok(True)
                case _:
                    return self._collection(asked, parts[0], "/".join(parts[1:]))

    def _cluster(self) -> dict[str, Any]:
        if not self.peers:
            return {"status": "disabled"}
        return {
            "status": "enabled",
            "peer_id": 1,
            "peers": {str(n): {"uri": f"http://q{n}:6335"} for n in range(self.peers)},
            "raft_info": {"term": 1, "commit": 1, "pending_operations": 0, "is_voter": True},
            "consensus_thread_status": {"consensus_thread_status": "stopped"},
            "message_send_failures": {},
        }

    def _collection(self, asked: Asked, name: str, below: str) -> Answer:
        name = self.aliases.get(name, name)
        if (asked.method, below) == ("PUT", ""):
            self.collections[name], self.points[name] = asked.body, {}
            return _ok(True)
        if name not in self.collections:
            return 404, {"status": {"error": f"Not found: Collection `{name}` doesn't exist!"}, "time": 0.0}
        if (asked.method, below) == ("GET", ""):
            return _ok(self._info(name))
        if (asked.method, below) == ("DELETE", ""):
            del self.collections[name]
            return _ok(True)
        if (asked.method, below) == ("PATCH", ""):
            self.collections[name]["metadata"] |= asked.body.get("metadata", {})
            return _ok(True)
        return self._points(asked, self.points[name], below)

    def _points(self, asked: Asked, points: dict[str, Any], below: str) -> Answer:
        if below == "points/count":
            held = set(points)
            for condition in (asked.body.get("filter") or {}).get("must", []):
                held &= set(condition["has_id"])
            return _ok({"count": len(held)})
        if asked.upserts:
            fresh = {point["id"]: point for point in asked.body["points"]}
            return self._update(asked, lambda: points.update(fresh))
        if below == "points/delete":
            gone = asked.body.get("points", [])
            return self._update(asked, lambda: _remove(points, gone))
        if below == "index":
            return self._update(asked, lambda: None)
        raise AssertionError(f"the stub does not know {asked.method} {asked.path}")

    def _update(self, asked: Asked, step: Step) -> Answer:
        self.queue.append(step)
        if asked.wait:
            while self.queue:
                self.queue.pop(0)()
        return _ok({"operation_id": 1, "status": "completed" if asked.wait else "acknowledged"})

    def _info(self, name: str) -> dict[str, Any]:
        body = self.collections[name]
        graph = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000} | body.get("hnsw_config", {})
        params = {key: body.get(key) for key in ("vectors", "shard_number", "replication_factor")}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": 0,
            "points_count": len(self.points[name]),
            "segments_count": 1,
            "payload_schema": {},
            "config": {
                "params": {key: value for key, value in params.items() if value is not None},
                "hnsw_config": graph,
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
                "quantization_config": body.get("quantization_config"),
                "metadata": body.get("metadata"),
            },
        }


@contextmanager
def serving(**options: Any) -> Iterator[Stub]:
    """A stub that listens on this machine."""
    stub = Stub(**options)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            url = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            wait = parse_qs(url.query).get("wait") == ["true"]
            status, value = stub.answer(
                Asked(self.command, url.path, wait, json.loads(content) if content else None)
            )
            if status == 0:
                self.close_connection = True
                return
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 (the names are inherited)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is inherited)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


def _remove(points: dict[str, Any], keys: list[str]) -> None:
    for key in keys:
        points.pop(key, None)


def _ok(result: object) -> Answer:
    return 200, {"result": result, "status": "ok", "time": 0.0}
