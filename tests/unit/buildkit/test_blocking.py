"""Threads for blocking work: how many there are, whoever waits for them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cogkit.buildkit.blocking import Crew


def test_no_more_threads_than_the_crew_has_even_for_callers_that_have_left() -> None:
    release = threading.Event()
    at_work: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        with lock:
            at_work.append(threading.get_ident())
        release.wait(20)

    async def run() -> int:
        crew = Crew(3)
        for _ in range(20):
            caller = asyncio.create_task(crew.run(work))
            await asyncio.sleep(0.01)
            caller.cancel()
        most = len(at_work)
        release.set()
        await asyncio.wait_for(crew.run(lambda: None), 10)
        return most

    assert asyncio.run(run()) == 3


def test_what_the_work_gives_or_raises_reaches_the_caller_and_the_thread_is_free_again() -> None:
    def fail() -> None:
        raise LookupError("so it is")

    async def run() -> None:
        crew = Crew(1)
        for _ in range(3):
            assert await crew.run(lambda: 7) == 7
            with pytest.raises(LookupError, match="so it is"):
                await crew.run(fail)

    asyncio.run(asyncio.wait_for(run(), 10))
