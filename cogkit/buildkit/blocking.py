"""Blocking work beside the event loop, in threads that never hold up the end of the process.

`asyncio.to_thread` joins its threads when the loop ends, so a helper program or a server that does not answer would
keep a cancelled build alive.  This file must not know what is done in the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work(*args, **kwargs)`` returns or raises, from a daemon thread of its own.

    A cancelled caller stops waiting; the work goes on unheard.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work(*args, **kwargs)
        except BaseException as error:
            _tell(loop, future, future.set_exception, error)
        else:
            _tell(loop, future, future.set_result, result)

    threading.Thread(target=run, name=f"cogkit-{getattr(work, '__name__', 'work')}", daemon=True).start()
    return await future


class Crew:
    """At most so many threads for work that others ask for.

    Who comes when all are at work waits, also for one whose caller has been cancelled: whoever asks and takes it back
    over and over must not get a thread for each time.
    """

    def __init__(self, size: int):
        self._free = asyncio.Semaphore(size)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `in_thread`, when a thread is free."""
        loop = asyncio.get_running_loop()

        def run() -> T:
            try:
                return work(*args, **kwargs)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(self._free.release)

        await self._free.acquire()
        return await in_thread(run)


class Lane:
    """One daemon thread that does what it is given, in order."""

    def __init__(self, name: str):
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Have ``work(*args, **kwargs)`` done after all that was given before."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put((future, lambda: work(*args, **kwargs)))
        return future

    def close(self) -> None:
        """End the thread when it has done what it was given."""
        self._work.put(None)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            future, work = item
            try:
                result = work()
            except BaseException as error:
                _tell(self._loop, future, future.set_exception, error)
            else:
                _tell(self._loop, future, future.set_result, result)
            del item, future, work


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], say: Callable[[Any], None], what: object) -> None:
    def unless_done() -> None:
        if not future.done():
            say(what)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(unless_done)
