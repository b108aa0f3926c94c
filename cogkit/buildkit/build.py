"""A build under way as an object: its events, its result, and a way to end it, from any thread.

`AsyncBuild` belongs to an event loop, `Build` is the same for programs without one; `AsyncClient.start` and
`Client.start` make them.  How a solve runs is in `solve`; this file must not know it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Self

from cogkit.buildkit.request import SolveResult
from cogkit.buildkit.solve import StatusCallback
from cogkit.buildkit.status import SolveStatus

_STOP_SECONDS: Final = 5.0

Start = Callable[[StatusCallback], Coroutine[Any, Any, SolveResult]]
"""Runs a solve to its end; is told where its events go."""


class AsyncBuild:
    """A build, made by `AsyncClient.start`; an asynchronous context manager.

        async with client.start(dockerfile("."), image("example")) as build:
            async for event in build:
                ...
            print((await build.result()).digest)

    Leaving the block before the build has ended cancels it.  Events are kept until they are read; a program that does
    not care for them need not iterate.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._events: asyncio.Queue[SolveStatus | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[SolveResult] | None = None

    def start(self) -> Self:
        """Begin, in the event loop that runs; a build that has begun goes on.

        Raises:
            RuntimeError: no event loop runs here.
        """
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run(), name="cogkit build")
        return self

    async def _run(self) -> SolveResult:
        try:
            return await self._start(self._events.put_nowait)
        finally:
            self._events.put_nowait(None)

    @property
    def done(self) -> bool:
        """Whether it has ended, however."""
        return self._task is not None and self._task.done()

    def cancel(self) -> None:
        """Have it end at the daemon.  Returns at once; `result` then raises `asyncio.CancelledError`.  Thread-safe."""
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def result(self) -> SolveResult:
        """Wait for the end.

        Raises:
            CogkitError: see `AsyncClient.solve`.
            asyncio.CancelledError: it was cancelled, or the waiting was; the build then goes on.
        """
        self.start()
        assert self._task is not None
        return await asyncio.shield(self._task)

    async def __aiter__(self) -> AsyncIterator[SolveStatus]:
        """Every event from the first on, once; ends with the build, whether or not it succeeded."""
        self.start()
        while (event := await self._events.get()) is not None:
            yield event
        self._events.put_nowait(None)  # For whoever iterates again.

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        # Its error was for `result` to tell; not to have asked is a program's right.
        await asyncio.gather(self._task, return_exceptions=True)


class Build:
    """A build, made by `Client.start`; a context manager, for programs without an event loop.

        with client.start(dockerfile("."), image("example")) as build:
            for event in build:
                ...
            print(build.result().digest)

    Leaving the block before the build has ended cancels it.  Every method may be called from any thread.
    """

    def __init__(self, begin: Callable[[Coroutine[Any, Any, SolveResult]], Any], start: Start) -> None:
        self._begin = begin
        self._start = start
        self._events: queue.SimpleQueue[SolveStatus | None] = queue.SimpleQueue()
        self._future: Any = None
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> Self:
        """Begin; a build that has begun goes on."""
        with self._lock:
            if self._future is None:
                self._future = self._begin(self._run())
        return self

    async def _run(self) -> SolveResult:
        try:
            return await self._start(self._events.put)
        finally:
            self._events.put(None)
            self._ended.set()

    @property
    def done(self) -> bool:
        """Whether it has ended, however."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """Have it end at the daemon.  Returns at once; `result` then raises `concurrent.futures.CancelledError`."""
        if self._future is not None:
            self._future.cancel()

    def result(self, timeout: float | None = None) -> SolveResult:
        """Wait for the end.  Ctrl-C meanwhile cancels the build.

        Args:
            timeout: Seconds to wait at most; None to wait for ever.

        Raises:
            CogkitError: see `Client.solve`.
            TimeoutError: it has not ended; it goes on.
            concurrent.futures.CancelledError: it was cancelled.
        """
        self.start()
        try:
            result: SolveResult = self._future.result(timeout)
        except KeyboardInterrupt:
            self._stop()
            raise
        return result

    def __iter__(self) -> Iterator[SolveStatus]:
        """Every event from the first on, once; ends with the build, whether or not it succeeded."""
        self.start()
        while (event := self._events.get()) is not None:
            yield event
        self._events.put(None)  # For whoever iterates again.

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        # One that was cancelled before its coroutine ran has nothing that could end.
        if self._future is not None and self._future.cancel():
            self._ended.wait(_STOP_SECONDS)
