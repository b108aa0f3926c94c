"""Runs a command's coroutine so that it can always be stopped.

The first SIGINT, SIGTERM or SIGHUP (the terminal closes) cancels the coroutine; it may clean up for a moment.  The
second ends the process at once.
If the process has not ended `PATIENCE` seconds after the first signal, or `THREAD_PATIENCE` after its work was done,
whatever still runs is abandoned (`last_resort`).  This file must not know what the coroutine does.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from cogkit.cli.exit_codes import INTERRUPTED, exit_code_of
from cogkit.cli.forced_exit import PATIENCE, THREAD_PATIENCE, last_resort
from cogkit.cli.resources import require_enough
from cogkit.errors import Interrupted

Result = TypeVar("Result")

GRACE = 2.0
"""Seconds that blocking work has to end by itself after a signal."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` to its end on an event loop of its own.

    Raises:
        Interrupted: a signal came before ``work`` was done.
        BaseException: whatever ``work`` raises.
    """
    try:
        require_enough()
    except BaseException:
        work.close()  # or Python complains that it never began
        raise
    interruption = _Interruption()
    with interruption.watched(), asyncio.Runner() as runner:
        try:
            result = runner.run(interruption.guard(work))
        except BaseException as problem:
            failure = Interrupted("interrupted") if interruption.came else problem
            last_resort.arm(exit_code_of(failure), THREAD_PATIENCE)
            if failure is problem:
                raise
            raise failure from problem
        last_resort.arm(0, THREAD_PATIENCE)
        return result


def run_stoppable(work: Callable[[threading.Event], Result]) -> Result:
    """Run blocking work in a thread, and `set` what it is given when a signal asks for its end.

    It then has `GRACE` seconds; whatever it is in the middle of must be such that it can be cut off.

    Raises:
        Interrupted: a signal came before the work was done.
        BaseException: whatever ``work`` raises.
    """
    from cogkit.buildkit.blocking import in_thread

    stop = threading.Event()

    async def stoppable() -> Result:
        working = asyncio.ensure_future(in_thread(work, stop))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([working], timeout=GRACE)
            if working.done() and not working.cancelled():
                working.exception()  # nobody else asks for it
            raise

    return run(stoppable())


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
        with _woken_by_signals(loop):
            return await task

    @contextmanager
    def watched(self) -> Iterator[None]:
        # Under nohup the terminal may close.
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        numbers = [number for number in SIGNALS if number != signal.SIGHUP or not is_ignored]
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                # Who was interrupted ends now; another Ctrl-C must not tear the message about it.
                signal.signal(number, signal.SIG_IGN if self.came else handler)
            last_resort.disarm()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            if number == signal.SIGHUP:
                return  # of a terminal that closes there may be several: that is not impatience
            last_resort.end(INTERRUPTED)
        self.came = True
        last_resort.arm(INTERRUPTED, PATIENCE)
        self._cancel()


@contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let every signal end the loop's wait.

    A handler runs between two steps of Python.  For a signal that comes when the last step is done, but the system's
    wait for sockets has not begun, that would be after the wait.
    """
    there, here = socket.socketpair()
    with there, here:
        there.setblocking(False)
        here.setblocking(False)
        loop.add_reader(here, here.recv, 4096)
        before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(here)
