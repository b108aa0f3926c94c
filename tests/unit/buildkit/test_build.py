"""A build as an object: it tells its events once, gives its result, and ends when it is told to, whoever tells it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from cogkit.buildkit.build import AsyncBuild, Build
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.request import SolveResult
from cogkit.buildkit.solve import StatusCallback
from cogkit.buildkit.status import SolveStatus, Vertex

EVENTS = tuple(SolveStatus(vertexes=(Vertex(f"sha256:{number}", f"step {number}"),)) for number in range(3))
LONG = 60.0


class Solve:
    """Stands for the solve: tells of its events, then ends as it is told."""

    def __init__(self, *, failure: Exception | None = None, hangs: bool = False) -> None:
        self.failure = failure
        self.hangs = hangs
        self.begun = 0
        self.cancelled = threading.Event()

    async def __call__(self, on_status: StatusCallback) -> SolveResult:
        self.begun += 1
        try:
            for event in EVENTS:
                on_status(event)
                await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            if self.hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return SolveResult("ref")


def test_events_then_result() -> None:
    async def play() -> None:
        solve = Solve()
        async with AsyncBuild(solve) as build:
            assert [event async for event in build] == list(EVENTS)
            assert (await build.result()).ref == "ref"
            assert build.done
            assert [event async for event in build] == []
        assert solve.begun == 1

    asyncio.run(play())


def test_the_result_alone_begins_the_build() -> None:
    async def play() -> None:
        assert (await AsyncBuild(Solve()).result()).ref == "ref"

    asyncio.run(play())


def test_a_failed_build_ends_its_events_and_raises_at_the_result() -> None:
    async def play() -> None:
        async with AsyncBuild(Solve(failure=BuildError("no"))) as build:
            assert len([event async for event in build]) == len(EVENTS)
            with pytest.raises(BuildError, match="no"):
                await build.result()

    asyncio.run(play())


def test_a_failure_that_nobody_asked_for_is_not_raised() -> None:
    async def play() -> None:
        async with AsyncBuild(Solve(failure=BuildError("no"))):
            await asyncio.sleep(0)

    asyncio.run(play())


def test_leaving_the_block_cancels() -> None:
    async def play() -> None:
        solve = Solve(hangs=True)
        async with AsyncBuild(solve) as build:
            async for _ in build:
                break
        assert build.done

    asyncio.run(play())


def test_cancel_works_from_another_thread() -> None:
    async def play() -> None:
        solve = Solve(hangs=True)
        build = AsyncBuild(solve).start()
        async for _ in build:
            break
        await asyncio.to_thread(build.cancel)
        with pytest.raises(asyncio.CancelledError):
            await build.result()
        assert solve.cancelled.wait(LONG)

    asyncio.run(play())


def test_giving_up_the_wait_does_not_cancel_the_build() -> None:
    async def play() -> None:
        build = AsyncBuild(Solve(hangs=True)).start()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(build.result(), 0.01)
        assert not build.done
        build.cancel()

    asyncio.run(play())


@pytest.fixture
def begin() -> Any:
    """What `Client` gives a `Build`: runs a coroutine in the client's loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def start(work: Coroutine[Any, Any, SolveResult]) -> Future[SolveResult]:
        return asyncio.run_coroutine_threadsafe(work, loop)

    yield start
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_blocking_events_then_result(begin: Any) -> None:
    solve = Solve()
    with Build(begin, solve) as build:
        assert list(build) == list(EVENTS)
        assert build.result(LONG).ref == "ref"
        assert build.done
        assert list(build) == []
    assert solve.begun == 1


def test_blocking_failure_is_raised_at_the_result(begin: Any) -> None:
    with Build(begin, Solve(failure=BuildError("no"))) as build:
        assert len(list(build)) == len(EVENTS)
        with pytest.raises(BuildError, match="no"):
            build.result(LONG)


def test_blocking_cancel_works_from_another_thread(begin: Any) -> None:
    solve = Solve(hangs=True)
    build = Build(begin, solve).start()
    next(iter(build))
    threading.Thread(target=build.cancel).start()
    with pytest.raises(CancelledError):
        build.result(LONG)
    assert solve.cancelled.wait(LONG)


def test_leaving_the_blocking_block_waits_until_the_build_has_stopped(begin: Any) -> None:
    solve = Solve(hangs=True)
    with Build(begin, solve) as build:
        next(iter(build))
    assert build.done
    assert solve.cancelled.is_set()


def test_waiting_for_the_result_can_be_bounded(begin: Any) -> None:
    with Build(begin, Solve(hangs=True)) as build, pytest.raises(TimeoutError):
        build.result(0.01)
