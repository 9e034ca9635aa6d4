"""The executor bounds running and waiting jobs, and runs jobs of one kind together."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.executor import CLIENT_GONE, MAX_BATCH, BatchingExecutor


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


# Long work, and clients that go


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_long_work_never_takes_the_last_worker(workers: int) -> None:
    async def test(executor: BatchingExecutor) -> None:
        go = threading.Event()
        count = min(max(1, workers - 1), 4)  # each takes memory too
        long = [asyncio.create_task(executor.run_long(lambda _: go.wait(10))) for _ in range(count + 2)]
        await until(lambda: executor.busy == count)
        for _ in range(3):
            assert await executor.run(lambda: 7) == 7
        assert (executor.busy, executor.waiting) == (count, 2)
        quick = [asyncio.create_task(executor.run(lambda: go.wait(10))) for _ in range(workers)]
        await until(lambda: executor.busy == max(2, workers))
        assert executor.waiting == 2 + workers - (max(2, workers) - count)
        go.set()
        assert await asyncio.gather(*long, *quick) == [True] * (count + 2 + workers)

    with_executor(test, workers=workers, queue_size=16)


def test_long_work_waits_in_half_of_the_queue() -> None:
    async def test(executor: BatchingExecutor) -> None:
        go = threading.Event()
        tasks = [asyncio.create_task(executor.run_long(lambda _: go.wait(10))) for _ in range(3)]
        await until(lambda: executor.busy == 1 and executor.waiting == 2)
        with pytest.raises(ApiError) as refused:
            await executor.run_long(lambda _: None)
        assert refused.value.code == "busy"
        assert await executor.run(lambda: 7) == 7
        go.set()
        await asyncio.gather(*tasks)

    with_executor(test, workers=2, queue_size=4)


@pytest.mark.parametrize("abandoned", [False, True])
def test_long_work_that_would_not_be_done_in_time_is_refused_at_once(abandoned: bool) -> None:
    async def test(executor: BatchingExecutor) -> None:
        go, client = threading.Event(), Client()

        def long(stop: threading.Event) -> bool:
            return stop.wait(10) if abandoned else go.wait(10)

        def ask(expected: float) -> asyncio.Task[Any]:
            return asyncio.create_task(executor.run_long(lambda _: go.wait(10), expected=expected))

        first = asyncio.create_task(client.ask(executor.run_long(long, expected=40)))
        await until(lambda: executor.busy == 1)
        second = ask(10)
        await until(lambda: executor.waiting == 1)
        for expected, least in ((30, 15), (60, 45)):
            with pytest.raises(ApiError) as refused:
                await ask(expected)
            assert refused.value.code == "busy"
            retry = int(refused.value.headers["Retry-After"])
            assert least <= retry <= least + 5  # less what has gone by
            assert f"{expected} s after " in refused.value.detail
            assert refused.value.detail.endswith(
                f"may wait and be processed for 60 s in all; try again in {retry} s"
            )
        assert await executor.run(lambda: 7) == 7  # a worker is free for what is short
        if abandoned:  # what nobody waits for any more counts no more
            client.gone.set()
            with pytest.raises(ApiError):
                await first
        else:
            go.set()
            assert await first
        third = ask(49)
        await asyncio.sleep(0)
        go.set()
        assert await second
        assert await third

    with_executor(test, workers=2, queue_size=16, seconds=60)


def test_how_long_work_takes_is_learned() -> None:
    async def test(executor: BatchingExecutor) -> None:
        async def is_refused() -> bool:
            """Whether ten seconds after ten seconds are too much, of fifty."""
            go = threading.Event()
            first, second = (
                asyncio.create_task(executor.run_long(lambda _: go.wait(10), expected=10)) for _ in range(2)
            )
            await asyncio.sleep(0.01)
            go.set()
            assert await first
            (found,) = await asyncio.gather(second, return_exceptions=True)
            return isinstance(found, ApiError) and found.code == "busy"

        assert not await is_refused()
        for _ in range(4):  # a machine that is ten times as slow as expected
            await executor.run_long(lambda _: time.sleep(0.1), expected=0.01)
        assert await is_refused()
        for _ in range(8):  # and quick again
            await executor.run_long(lambda _: None, expected=10)
        assert not await is_refused()

    with_executor(test, workers=2, queue_size=16, seconds=50)


def test_what_waits_in_vain_is_told_from_what_takes_too_long() -> None:
    async def test(executor: BatchingExecutor) -> None:
        go = threading.Event()
        tasks = [asyncio.create_task(executor.run(lambda: go.wait(10))) for _ in range(2)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        go.set()
        assert [str(each) for each in found] == [
            "it took more than 0.2 s; send less, or try again later",
            "no worker was free for 0.2 s; 1 requests are waiting; try again later",
        ]

    with_executor(test, seconds=0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux only")
def test_long_work_has_a_low_priority() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def test(executor: BatchingExecutor) -> None:
        assert await executor.run(niceness) == niceness()
        assert await executor.run_long(lambda _: niceness()) == min(19, niceness() + 5)

    with_executor(test)


class Client:
    """One that can go."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def watch(self) -> None:
        await self.gone.wait()

    async def ask(self, work: Awaitable[Any]) -> Any:
        CLIENT_GONE.set(self.watch)
        return await work


def test_what_waits_for_a_client_that_has_gone_is_dropped_and_long_work_is_told() -> None:
    begun: list[int] = []

    async def test(executor: BatchingExecutor) -> None:
        go, told = threading.Event(), threading.Event()

        def long(stop: threading.Event) -> None:
            assert stop.wait(10)
            told.set()
            raise RuntimeError("stopped")

        client, other = Client(), Client()
        tasks = [
            asyncio.create_task(client.ask(executor.run_long(long))),
            asyncio.create_task(client.ask(executor.run_long(lambda _: begun.append(1)))),
            asyncio.create_task(client.ask(executor.run(lambda: go.wait(10)))),
            asyncio.create_task(client.ask(executor.run(lambda: begun.append(2)))),
        ]
        stays = asyncio.create_task(other.ask(executor.run(lambda: 7)))
        await until(lambda: executor.busy == 2 and executor.waiting == 3)
        client.gone.set()
        for task in tasks:
            with pytest.raises(ApiError) as refused:
                await task
            assert refused.value.code == "client-gone"
        assert executor.waiting == 1
        go.set()
        assert await stays == 7
        assert await asyncio.to_thread(told.wait, 10)
        await until(lambda: executor.busy == 0)

    with_executor(test, workers=2)
    assert begun == []


def test_long_work_that_takes_too_long_is_told_to_stop() -> None:
    async def test(executor: BatchingExecutor) -> None:
        told: list[bool] = []
        with pytest.raises(ApiError) as refused:
            await executor.run_long(lambda stop: told.append(stop.wait(10)))
        assert refused.value.code == "timeout"
        await until(lambda: told == [True] and executor.busy == 0)

    with_executor(test, seconds=0.2)
