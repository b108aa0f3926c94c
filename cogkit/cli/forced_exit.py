"""Ends the process, whatever still runs in it.

This file must not import anything that takes time: it is there from the first moment on, for every command.
"""

from __future__ import annotations

import _thread
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

PATIENCE = 4.0
"""Seconds for clean-up after a signal; the promise to the user is five."""

THREAD_PATIENCE = 1.0
"""Seconds for threads and the event loop to end when the work is done, well or not."""

FLUSH_SECONDS = 0.5


class LastResort:
    """Ends the process when it does not end by itself: a thread stuck in a read, a connection that never closes.

    Its methods are called from signal handlers, which may interrupt `threading` while that holds its own locks; hence
    the bare `_thread` here.
    """

    def __init__(self) -> None:
        self._round = 0

    def arm(self, exit_code: int, seconds: float) -> None:
        """End the process with ``exit_code`` unless it has ended in ``seconds``; the earliest of several counts."""
        # Where no thread can be had, what ends by itself still does.
        with suppress(RuntimeError):
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

    def end(self, exit_code: int, seconds: float = FLUSH_SECONDS) -> NoReturn:
        """End the process now, or when what is printed has been taken, if that is within ``seconds``."""
        flushed = _thread.allocate_lock()
        flushed.acquire()
        # A full pipe, or a stream that a stuck thread is writing to, must not hold us.
        try:
            _thread.start_new_thread(_flush, (flushed,))
            flushed.acquire(timeout=seconds)
        except RuntimeError:
            _flush(flushed)  # no thread can be had
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
