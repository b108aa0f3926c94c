"""Runs a command's coroutine so that it can always be stopped.

The first SIGINT or SIGTERM cancels the coroutine; it may clean up for a moment.  The second ends the process at once.
If the process has not ended `PATIENCE` seconds after the first signal, or `THREAD_PATIENCE` after its work was done,
whatever still runs is abandoned.  This file must not know what the coroutine does.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

from cogkit.errors import CogkitError, Interrupted

Result = TypeVar("Result")

PATIENCE = 4.0
"""Seconds for clean-up after a signal; the promise to the user is five."""

THREAD_PATIENCE = 1.0
"""Seconds for threads and the event loop to end when the work is done, well or not."""

FLUSH_SECONDS = 0.5

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LastResort:
    """Ends the process when it does not end by itself: a thread stuck in a read, a connection that never closes.

    Its methods are called from signal handlers, which may interrupt `threading` while that holds its own locks; hence
    the bare `_thread` here.
    """

    def __init__(self) -> None:
        self._round = 0

    def arm(self, exit_code: int, seconds: float) -> None:
        """End the process with ``exit_code`` unless it has ended in ``seconds``; the earliest of several counts."""
        _thread.start_new_thread(self._wait, (self._round, exit_code, seconds))

    def disarm(self) -> None:
        """Take every `arm` back."""
        self._round += 1

    @contextmanager
    def armed(self, exit_code: int, seconds: float) -> Iterator[None]:
        """`arm` for as long as the body runs."""
        self.arm(exit_code, seconds)
        try:
            yield
        finally:
            self.disarm()

    def end(self, exit_code: int) -> None:
        """End the process now."""
        flushed = _thread.allocate_lock()
        flushed.acquire()
        # A full pipe, or a stream that a stuck thread is writing to, must not hold us.
        _thread.start_new_thread(_flush, (flushed,))
        flushed.acquire(timeout=FLUSH_SECONDS)
        os._exit(exit_code)

    def _wait(self, round: int, exit_code: int, seconds: float) -> None:
        time.sleep(seconds)
        if self._round == round:
            self.end(exit_code)


def _flush(done: _thread.LockType) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    done.release()


last_resort = LastResort()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` to its end on an event loop of its own.

    Raises:
        Interrupted: a signal came before ``work`` was done.
        BaseException: whatever ``work`` raises.
    """
    interruption = _Interruption()
    with interruption.watched(), asyncio.Runner() as runner:
        try:
            result = runner.run(interruption.guard(work))
        except BaseException as problem:
            failure = Interrupted("interrupted") if interruption.came else problem
            last_resort.arm(failure.exit_code if isinstance(failure, CogkitError) else 1, THREAD_PATIENCE)
            if failure is problem:
                raise
            raise failure from problem
        last_resort.arm(0, THREAD_PATIENCE)
        return result


class _Interruption:
    """What the signals do while the coroutine runs."""

    def __init__(self) -> None:
        self.came = False
        self._cancel: Callable[[], None] = lambda: None

    async def guard(self, work: Coroutine[Any, Any, Result]) -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def cancel() -> None:
            # From a signal handler, only this wakes a loop that waits for its sockets.
            loop.call_soon_threadsafe(task.cancel)

        self._cancel = cancel
        if self.came:
            task.cancel()
        return await task

    @contextmanager
    def watched(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                # Who was interrupted ends now; another Ctrl-C must not tear the message about it.
                signal.signal(number, signal.SIG_IGN if self.came else handler)
            last_resort.disarm()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            last_resort.end(Interrupted.exit_code)
        self.came = True
        last_resort.arm(Interrupted.exit_code, PATIENCE)
        self._cancel()
