"""What is kept small is what was put in."""

import tracemalloc
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.indexer.sources import Item, item_id
from lookalike.indexer.sync.collection import CompressedList, IdSet, prefetch


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 3000])
def test_what_is_packed_comes_back_in_order(count: int) -> None:
    packed: CompressedList[tuple[int, str]] = CompressedList()
    for number in range(count):
        packed.append((number, f"\udcff{number}"))
    assert len(packed) == count
    assert bool(packed) is bool(count)
    for _ in range(2):
        assert list(packed) == [(number, f"\udcff{number}") for number in range(count)]


@dataclass(frozen=True, slots=True)
class Work:
    item: Item
    new: bool


def test_an_item_takes_some_tens_of_bytes() -> None:
    # Three times: what else a process allocates meanwhile counts too.
    assert min(_bytes_of_an_item() for _ in range(3)) < 50


def _bytes_of_an_item() -> float:
    packed: CompressedList[Work] = CompressedList()
    held: list[int] = []
    tracemalloc.start()
    for number in range(20 * 1024):
        path = f"{number // 20:05d}/{number}.jpg"
        packed.append(Work(Item(item_id("r", path), path, Path("/data/photos"), path, path[:5]), True))
        if len(packed) in (5 * 1024, 20 * 1024):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return (held[1] - held[0]) / (15 * 1024)


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 640, 641, 5000])
def test_what_is_taken_ahead_comes_in_order_and_is_counted_early(count: int) -> None:
    taken = 0
    totals: list[int] = []
    seen: list[tuple[int, str]] = []

    def numbers() -> Iterator[tuple[int, str]]:
        nonlocal taken
        for number in range(count):
            taken += 1
            yield number, f"\udcff{number}"

    known_at = None
    for each in prefetch(numbers(), totals.append):
        seen.append(each)
        if len(seen) == 1:
            assert taken <= 128  # the first is there before all is taken
        assert taken <= 128 + 4 * len(seen)
        if totals and known_at is None:
            known_at = len(seen)
    assert seen == [(number, f"\udcff{number}") for number in range(count)]
    assert totals == [count]
    if count > 640:
        assert known_at is not None
        assert known_at <= count / 4 + 128


ids = st.lists(
    st.uuids().map(str) | st.integers(0, 9).map(lambda n: str(uuid.UUID(int=n << 16))),
    unique=True,
    max_size=12,
)


@given(first=ids, second=ids, asked=ids)
def test_a_set_holds_what_was_added_and_settled(
    first: list[str], second: list[str], asked: list[str]
) -> None:
    found = IdSet()
    for key in first:
        found.add(key)
    assert not found.contains(first).any()
    found.settle()
    fresh = [key for key in second if key not in first]
    for key in fresh:
        found.add(key)
    found.settle()
    found.settle()
    everything = {*first, *second}
    assert found.contains([*everything]).all()
    assert found.contains(asked).tolist() == [key in everything for key in asked]
