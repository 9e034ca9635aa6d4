"""``make bench-serve``: the HTTP service under load, beside the same in process. Never a pass or a fail.

``lookalike serve`` runs in a process of its own, as it is shipped, on a store in which the shipped model
``faces`` has indexed LFW. Pictures of LFW are sent to it as forms, on connections that stay open, and the
searcher in this process is asked the same, on a copy of the store: in turn (A B A B ...), medians of rounds.
What HTTP adds is the difference of the two in one turn; and, where other work on the machine drowns that,
what of each answer's time is not the search that it tells of (``took_ms``). Both do the same work with one
thread each, so that the search within the service takes as long as the one in process; if it does not, the
difference is of the machine. What a client and a connection take by themselves is told by an answer without
any work (``GET /healthz``), asked for in the same turns.

The clients share the machine with the service, so they are cheap (``tests/fixtures/http_clients.py``): one
thread, requests made beforehand. What they take of the processor is told apart. Seconds on a shared machine
say little, so the processor time of the service for each request stands beside them.

Memory is what the process has resident; the files of the store, which the system maps and lets go as it
likes, are told apart.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from lookalike.deploy.http.uploads import Upload
from lookalike.encoder.datasets import find_lfw
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.searcher.search import Searcher
from tests.fixtures.command import COMMAND
from tests.fixtures.http_clients import Answer, Crowd, form
from tests.fixtures.service import API, Running, running

NAME: Final = "faces"
EMPTY: Final = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PICTURES: Final = 200
ROUNDS: Final = 5
TURNS: Final = 10
"""Of a round, each some queries in process, then the same over HTTP by one client."""
EACH: Final = 20
SEVERAL: Final = (8, 32)
AT_ONCE: Final = 400
"""Requests of several clients in a round."""
SECONDS: Final = 10.0
"""The longest that they may take; no more are sent then."""
CROWD: Final = 32
"""Clients while memory is watched."""
TENTHS: Final = 10


@dataclass(frozen=True, slots=True)
class Span:
    """Some queries: seconds of each, of each but its search, of all; processor seconds of both sides."""

    took: list[float]
    rest: list[float]
    seconds: float
    busy: float
    asking: float

    @classmethod
    def of(cls, spans: list[Span]) -> Span:
        """Return several as one."""
        took, rest = ([each for span in spans for each in getattr(span, name)] for name in ("took", "rest"))
        return cls(
            took,
            rest,
            *(sum(getattr(span, name) for span in spans) for name in ("seconds", "busy", "asking")),
        )

    @property
    def p50_ms(self) -> float:
        """Median of milliseconds."""
        return 1000 * statistics.median(self.took)

    def figures(self) -> dict[str, float]:
        """Return what is told of it."""
        return {
            "per_second": len(self.took) / self.seconds,
            "p50_ms": self.p50_ms,
            "p99_ms": 1000 * float(np.quantile(self.took, 0.99)),
            "cpu_ms": 1000 * self.busy / len(self.took),
            "asking_cpu_ms": 1000 * self.asking / len(self.took),
        }


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process in MB, and what of it is no file."""

    resident: float
    anonymous: float

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Measure it now."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(*(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")))


@dataclass(frozen=True, slots=True)
class Bench:
    """A running service, pictures to ask about, and who answers in this process."""

    service: Running
    pictures: list[bytes]
    searcher: Searcher

    def memory(self, requests: int) -> dict[str, Any]:
        """Watch the memory of a service that has answered nothing yet."""
        pid = self.service.process.pid
        before, during = Memory.of(pid), [Memory.of(pid)]
        after = []
        for _ in range(TENTHS):
            self._sent(
                self.pictures,
                CROWD,
                requests // TENTHS,
                seconds=math.inf,
                on_tick=lambda: during.append(Memory.of(pid)),
            )
            after.append(Memory.of(pid))
        most = max(during + after, key=lambda each: each.resident)
        return {
            "requests": requests,
            "before": asdict(before),
            "most": asdict(most),
            "after_each_tenth": [asdict(each) for each in after],
            "growth": after[-1].anonymous / after[0].anonymous - 1,
        }

    def rounds(self) -> list[dict[str, dict[str, float]]]:
        """Measure the service and this process in turn."""
        self._here(self.pictures[:EACH])
        return [self._round() for _ in range(ROUNDS)]

    def _round(self) -> dict[str, dict[str, float]]:
        here, there, nothing = [], [], []
        for turn in range(TURNS):
            some = self.pictures[turn * EACH :][:EACH]
            here.append(self._here(some))
            there.append(self._sent(some, 1, EACH))
            nothing.append(self._drive([EMPTY], 1, EACH)[0])
        alone, one = Span.of(here), Span.of(there)
        searching = 1000 * statistics.median(
            took - rest for took, rest in zip(one.took, one.rest, strict=True)
        )
        added = statistics.median(b.p50_ms - a.p50_ms for a, b in zip(here, there, strict=True))
        rest = 1000 * statistics.median(one.rest)
        more = {"added_p50_ms": added, "rest_p50_ms": rest, "search_p50_ms": searching}
        told = {
            "in process": alone.figures(),
            "1 client": {**one.figures(), **more},
            "1 client, GET /healthz": Span.of(nothing).figures(),
        }
        for clients in SEVERAL:
            told[f"{clients} clients"] = self._sent(self.pictures, clients, AT_ONCE).figures()
        return told

    def _here(self, some: list[bytes]) -> Span:
        """Ask in this process."""
        took, busy = [], time.process_time()
        for picture in some:
            began = time.perf_counter()
            (answer,) = self.searcher.similar([Upload("query.jpg", picture)])
            took.append(time.perf_counter() - began)
            if answer.error is not None:
                raise click.ClickException(str(answer.error))
        return Span(took, [], sum(took), time.process_time() - busy, 0.0)

    def _sent(
        self,
        some: list[bytes],
        clients: int,
        count: int,
        *,
        seconds: float = SECONDS,
        on_tick: Callable[[], object] = lambda: None,
    ) -> Span:
        """Ask the service."""
        requests = [form(f"{API}/search", {"collection": NAME}, picture) for picture in some]
        span, answers = self._drive(requests, clients, count, seconds=seconds, on_tick=on_tick)
        rest = [
            each.ended - each.asked - json.loads(each.body)["answers"][0]["took_ms"] / 1000
            for each in answers
        ]
        return replace(span, rest=rest)

    def _drive(
        self,
        requests: list[bytes],
        clients: int,
        count: int,
        *,
        seconds: float = SECONDS,
        on_tick: Callable[[], object] = lambda: None,
    ) -> tuple[Span, list[Answer]]:
        """Send requests to the service; return what they took, and the answers."""
        answers: list[Answer] = []
        crowd = Crowd(self.service.url, requests, on_tick=on_tick, on_answer=answers.append)
        busy = self._busy()
        load = crowd.drive(clients, count=count, seconds=seconds)
        if load.lost or set(load.statuses) != {200}:
            raise click.ClickException(f"not all were answered: {dict(load.statuses)}, {len(load.lost)} lost")
        return Span(load.latencies, [], load.seconds, self._busy() - busy, load.client_seconds), answers

    def _busy(self) -> float:
        """Return the processor seconds of the service until now."""
        fields = Path(f"/proc/{self.service.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def medians(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the median of each figure."""
    return {
        who: {name: statistics.median(each[who][name] for each in rounds) for name in figures}
        for who, figures in rounds[0].items()
    }


def table(found: dict[str, dict[str, float]], memory: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    yield f"{'searches among LFW':<30} {'a second':>10} {'p50 ms':>8} {'p99 ms':>8}   processor ms each"
    for who, of in found.items():
        asking = f", and {of['asking_cpu_ms']:.2f} of the clients'" if of["asking_cpu_ms"] else ""
        line = (
            f"{of['per_second']:10.1f} {of['p50_ms']:8.1f} {of['p99_ms']:8.1f} {of['cpu_ms']:10.1f}{asking}"
        )
        yield f"  {who:<28} {line}"
    one, alone, empty = found["1 client"], found["in process"], found["1 client, GET /healthz"]
    yield f"HTTP adds for one client, p50: {one['added_p50_ms']:.1f} ms (wanted: at most 2.0)"
    yield f"  of an answer's time not the search: {one['rest_p50_ms']:.1f} ms"
    yield f"  of that, what an empty answer takes with its client: {empty['p50_ms']:.1f} ms"
    yield f"  the search within the service: {one['search_p50_ms']:.1f} ms, in process {alone['p50_ms']:.1f}"
    yield f"  of the processor: {one['cpu_ms'] - alone['cpu_ms']:.1f} ms"
    yield f"resident memory of the service, {memory['requests']:,} searches of {CROWD} clients, MB (no file):"
    named = {
        "before": memory["before"],
        "after a tenth": memory["after_each_tenth"][0],
        "most": memory["most"],
        "after all": memory["after_each_tenth"][-1],
    }
    told = (f"{name} {of['resident']:,.0f} ({of['anonymous']:,.0f})" for name, of in named.items())
    yield f"  {', '.join(told)}; after the first tenth {100 * memory['growth']:+.1f} % of what is no file"


@click.command()
@click.option("--requests", default=2_000, show_default=True, type=click.IntRange(min=320))
@click.option("--json", "as_json", is_flag=True)
def main(requests: int, as_json: bool) -> None:
    """Print a table."""
    files = find_lfw(download=False).images()
    pictures = [file.read_bytes() for file in files[:: len(files) // PICTURES]][:PICTURES]
    with tempfile.TemporaryDirectory() as folder:
        home, copy = Path(folder), Path(folder, "copy")
        words = ["index", "lfw", "--model", "faces", "--collection", NAME, "--store", str(home / "store")]
        subprocess.run([COMMAND, *words], check=True, capture_output=True)
        shutil.copytree(home / "store", copy)
        with (
            running(home, Path("faces"), "--store", str(home / "store")) as service,
            open_store(str(copy)) as store,
        ):
            bench = Bench(service, pictures, Searcher(store, NAME, Model.open("faces", threads=1)))
            memory = bench.memory(requests)
            rounds = bench.rounds()
    if as_json:
        click.echo(json.dumps({"medians": medians(rounds), "rounds": rounds, "memory": memory}))
    else:
        click.echo("\n".join(table(medians(rounds), memory)))


if __name__ == "__main__":
    main()
