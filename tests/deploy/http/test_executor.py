"""The executor bounds running and waiting jobs, and runs jobs of one kind together."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.executor import MAX_BATCH, BatchingExecutor


def with_executor(
    test: Callable[[BatchingExecutor], Any], *, workers: int = 1, queue_size: int = 4, seconds: float = 20
) -> Any:
    executor = BatchingExecutor(workers, queue_size=queue_size, seconds=seconds)

    async def main() -> Any:
        return await test(executor)

    try:
        return asyncio.run(main())
    finally:
        executor.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


def test_work_is_done_elsewhere_and_its_errors_come_back() -> None:
    async def test(executor: BatchingExecutor) -> None:
        assert await executor.run(threading.current_thread) is not threading.main_thread()
        with pytest.raises(ZeroDivisionError):
            await executor.run(lambda: 1 // 0)
        assert (executor.busy, executor.waiting) == (0, 0)

    with_executor(test)


def test_what_waits_and_is_alike_is_done_in_one_call_in_order() -> None:
    calls: list[tuple[str, list[int]]] = []
    go = threading.Event()

    async def test(executor: BatchingExecutor) -> list[int]:
        def work(kind: str) -> Callable[[Sequence[int]], list[int]]:
            def done(values: Sequence[int]) -> list[int]:
                go.wait(10)
                calls.append((kind, list(values)))
                return [10 * value for value in values]

            return done

        tasks = [
            asyncio.create_task(executor.submit_batched(kind, value, work(kind)))
            for value, kind in enumerate(["a", "a", "b", "a", "b"])
        ]
        await until(lambda: executor.waiting == 4)
        go.set()
        return await asyncio.gather(*tasks)

    assert with_executor(test) == [0, 10, 20, 30, 40]
    assert calls == [("a", [0]), ("a", [1, 3]), ("b", [2, 4])]


def test_no_more_than_sixteen_together_and_nobody_is_lost() -> None:
    sizes: list[int] = []
    go = threading.Event()

    async def test(executor: BatchingExecutor) -> list[int]:
        def work(values: Sequence[int]) -> list[int]:
            go.wait(10)
            sizes.append(len(values))
            return list(values)

        tasks = [asyncio.create_task(executor.submit_batched("k", n, work)) for n in range(40)]
        await until(lambda: executor.waiting == 39)
        go.set()
        return await asyncio.gather(*tasks)

    assert with_executor(test, queue_size=100) == list(range(40))
    assert sizes == [1, MAX_BATCH, MAX_BATCH, 7]


def test_an_error_of_one_is_not_that_of_its_neighbours() -> None:
    async def test(executor: BatchingExecutor) -> list[Any]:
        go = threading.Event()

        def work(values: Sequence[int]) -> list[Any]:
            go.wait(10)
            return [ValueError(str(value)) if value % 2 else value for value in values]

        tasks = [asyncio.create_task(executor.submit_batched("k", n, work)) for n in range(4)]
        await until(lambda: executor.waiting == 3)
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = with_executor(test)
    assert [type(each) for each in found] == [int, ValueError, int, ValueError]


def test_too_many_are_told_to_come_later_and_later_is_served() -> None:
    async def test(executor: BatchingExecutor) -> None:
        go = threading.Event()
        tasks = [asyncio.create_task(executor.run(lambda: go.wait(10))) for _ in range(3)]
        await until(lambda: executor.busy == 1 and executor.waiting == 2)
        with pytest.raises(ApiError) as refused:
            await executor.run(lambda: None)
        assert refused.value.code == "busy"
        go.set()
        assert await asyncio.gather(*tasks) == [True] * 3
        assert await executor.run(lambda: 7) == 7

    with_executor(test, queue_size=2)


def test_what_takes_too_long_is_given_up_and_what_waited_for_it_never_begins() -> None:
    begun: list[int] = []

    async def test(executor: BatchingExecutor) -> None:
        go = threading.Event()
        first = asyncio.create_task(executor.run(lambda: go.wait(10)))
        second = asyncio.create_task(executor.run(lambda: begun.append(2)))
        for task in (first, second):
            with pytest.raises(ApiError) as refused:
                await task
            assert refused.value.code == "timeout"
        assert (executor.waiting, executor.busy) == (0, 1)
        go.set()
        await until(lambda: executor.busy == 0)
        assert await executor.run(lambda: 7) == 7

    with_executor(test, seconds=0.2)
    assert begun == []
