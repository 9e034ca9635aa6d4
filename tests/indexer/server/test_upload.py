"""Batches on several streams: each until it is acknowledged, or named when it is not."""

import threading
import time

import pytest

from lookalike.encoder.errors import StoreError, StoreUnavailableError
from lookalike.indexer.server.upload import BATCH, last_of_each, retry, upload


class Failing:
    """Fails so many times, then answers."""

    def __init__(self, times: int, *, wait: float = 0.0) -> None:
        self.left, self.wait, self.asked = times, wait, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.left:
            self.left -= 1
            error = StoreUnavailableError("busy")
            error.wait = self.wait
            raise error
        return "done"


def named(part: slice) -> str:
    return f"points {part.start} to {part.stop}"


def test_it_is_asked_again_while_the_server_fails() -> None:
    ask = Failing(2)
    assert retry(ask, "points", pauses=(0, 0, 0)) == "done"
    assert ask.asked == 3


def test_in_the_end_it_is_named_with_its_reason() -> None:
    ask = Failing(9)
    with pytest.raises(
        StoreUnavailableError, match=r"points 1 to 2 were not accepted in 3 tries \(busy\)"
    ) as caught:
        retry(ask, "points 1 to 2", pauses=(0, 0))
    assert ask.asked == 3
    assert "\n" not in str(caught.value)


def test_pauses_grow_and_a_server_is_given_the_time_it_asks_for() -> None:
    began = time.monotonic()
    retry(Failing(2), "points", pauses=(0.05, 0.1))
    assert time.monotonic() - began >= 0.15
    began = time.monotonic()
    retry(Failing(1, wait=0.2), "points", pauses=(0,))
    assert time.monotonic() - began >= 0.2


def test_what_is_refused_for_good_is_not_asked_again() -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise StoreError("a bad request")

    with pytest.raises(StoreError, match="a bad request"):
        retry(ask, "points")
    assert len(asked) == 1


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("count", [1, BATCH, BATCH + 1, 10 * BATCH - 7])
def test_every_point_is_sent_in_one_batch(streams: int, count: int) -> None:
    sent: list[int] = []
    lock = threading.Lock()

    def put(part: slice) -> None:
        with lock:
            sent.extend(range(part.start, part.stop))
        assert part.stop - part.start <= BATCH

    upload(count, put, named, streams=streams)
    assert sorted(sent) == list(range(count))


def test_batches_go_out_at_the_same_time_but_no_more_than_there_are_streams() -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    meeting = threading.Barrier(3, timeout=10)

    def put(part: slice) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        meeting.wait()  # raises when three are not there together
        with lock:
            at_once -= 1

    upload(9 * BATCH, put, named, streams=3)
    assert most == 3


def test_after_a_batch_that_fails_to_the_last_none_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.indexer.server.upload.PAUSES", (0.01,))
    begun: set[int] = set()

    def put(part: slice) -> None:
        begun.add(part.start)
        time.sleep(0.02)
        if part.start == BATCH:
            raise StoreUnavailableError("disk full")

    with pytest.raises(
        StoreUnavailableError, match=f"points {BATCH} to {2 * BATCH} were not accepted in 2 tries"
    ):
        upload(100 * BATCH, put, named, streams=2)
    assert len(begun) < 20


def test_of_an_id_given_twice_the_last_is_taken() -> None:
    assert last_of_each(["a", "b", "a", "c", "b"]) == [2, 3, 4]
    assert last_of_each([]) == []
