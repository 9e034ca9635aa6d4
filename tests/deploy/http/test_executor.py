"""Work off the event loop: so many at once, so many waiting, what is alike together."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.executor import TOGETHER, BatchingExecutor


def with_lanes(
    test: Callable[[BatchingExecutor], Any], *, workers: int = 1, waiting: int = 4, seconds: float = 20
) -> Any:
    lanes = BatchingExecutor(workers, waiting=waiting, seconds=seconds)

    async def main() -> Any:
        return await test(lanes)

    try:
        return asyncio.run(main())
    finally:
        lanes.close()


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


def test_work_is_done_elsewhere_and_its_errors_come_back() -> None:
    async def test(lanes: BatchingExecutor) -> None:
        assert await lanes.run(threading.current_thread) is not threading.main_thread()
        with pytest.raises(ZeroDivisionError):
            await lanes.run(lambda: 1 // 0)
        assert (lanes.busy, lanes.waiting) == (0, 0)

    with_lanes(test)


def test_what_waits_and_is_alike_is_done_in_one_call_in_order() -> None:
    calls: list[tuple[str, list[int]]] = []
    go = threading.Event()

    async def test(lanes: BatchingExecutor) -> list[int]:
        def work(kind: str) -> Callable[[Sequence[int]], list[int]]:
            def done(values: Sequence[int]) -> list[int]:
                go.wait(10)
                calls.append((kind, list(values)))
                return [10 * value for value in values]

            return done

        tasks = [
            asyncio.create_task(lanes.together(kind, value, work(kind)))
            for value, kind in enumerate(["a", "a", "b", "a", "b"])
        ]
        await until(lambda: lanes.waiting == 4)
        go.set()
        return await asyncio.gather(*tasks)

    assert with_lanes(test) == [0, 10, 20, 30, 40]
    assert calls == [("a", [0]), ("a", [1, 3]), ("b", [2, 4])]


def test_no_more_than_sixteen_together_and_nobody_is_lost() -> None:
    sizes: list[int] = []
    go = threading.Event()

    async def test(lanes: BatchingExecutor) -> list[int]:
        def work(values: Sequence[int]) -> list[int]:
            go.wait(10)
            sizes.append(len(values))
            return list(values)

        tasks = [asyncio.create_task(lanes.together("k", n, work)) for n in range(40)]
        await until(lambda: lanes.waiting == 39)
        go.set()
        return await asyncio.gather(*tasks)

    assert with_lanes(test, waiting=100) == list(range(40))
    assert sizes == [1, TOGETHER, TOGETHER, 7]


def test_an_error_of_one_is_not_that_of_its_neighbours() -> None:
    async def test(lanes: BatchingExecutor) -> list[Any]:
        go = threading.Event()

        def work(values: Sequence[int]) -> list[Any]:
            go.wait(10)
            return [ValueError(str(value)) if value % 2 else value for value in values]

        tasks = [asyncio.create_task(lanes.together("k", n, work)) for n in range(4)]
        await until(lambda: lanes.waiting == 3)
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = with_lanes(test)
    assert [type(each) for each in found] == [int, ValueError, int, ValueError]


def test_too_many_are_told_to_come_later_and_later_is_served() -> None:
    async def test(lanes: BatchingExecutor) -> None:
        go = threading.Event()
        tasks = [asyncio.create_task(lanes.run(lambda: go.wait(10))) for _ in range(3)]
        await until(lambda: lanes.busy == 1 and lanes.waiting == 2)
        with pytest.raises(ApiError) as refused:
            await lanes.run(lambda: None)
        assert refused.value.code == "busy"
        go.set()
        assert await asyncio.gather(*tasks) == [True] * 3
        assert await lanes.run(lambda: 7) == 7

    with_lanes(test, waiting=2)


def test_what_takes_too_long_is_given_up_and_what_waited_for_it_never_begins() -> None:
    begun: list[int] = []

    async def test(lanes: BatchingExecutor) -> None:
        go = threading.Event()
        first = asyncio.create_task(lanes.run(lambda: go.wait(10)))
        second = asyncio.create_task(lanes.run(lambda: begun.append(2)))
        for task in (first, second):
            with pytest.raises(ApiError) as refused:
                await task
            assert refused.value.code == "timeout"
        assert (lanes.waiting, lanes.busy) == (0, 1)
        go.set()
        await until(lambda: lanes.busy == 0)
        assert await lanes.run(lambda: 7) == 7

    with_lanes(test, seconds=0.2)
    assert begun == []
