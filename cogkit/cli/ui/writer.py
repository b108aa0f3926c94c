"""Writes progress from a thread of its own.

A terminal that was stopped with Ctrl-S, or a pager at the end of a pipe, takes no text for as long as it likes.  The
event loop must not wait for it: it has the daemon's health checks to answer.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TextIO

MAX_WAITING = 16 << 20
"""Characters that may wait for the stream."""


def _notice(lines: int) -> str:
    return f"[{lines:,} lines of progress are not shown: nobody read them in time]\n"


class BackgroundWriter:
    """Text in, to be written in order; no method blocks.  A stream that breaks swallows the rest silently.

    Text that comes when too much of it waits already is left out, and `notice` says so in its place.

    Attributes:
        notice: What to write in place of so many lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.notice: Callable[[int], str] = _notice
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._waiting = 0
        self._waiting_size = 0
        self._left_out = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether all text so far has been taken; a view that redraws need not do so before."""
        return self._waiting == 0

    def write(self, text: str) -> None:
        """Queue text."""
        if not text:
            return
        if self._waiting and self._waiting_size + len(text) > MAX_WAITING:
            self._left_out += text.count("\n")
            return
        if self._left_out:
            text, self._left_out = self.notice(self._left_out) + text, 0
        if self._thread is None:
            # Daemonic: what a stopped terminal never took must not keep the process.
            self._thread = threading.Thread(target=self._run, name="cogkit-progress", daemon=True)
            self._thread.start()
        with self._lock:
            self._waiting += 1
            self._waiting_size += len(text)
        self._queue.put(text)

    async def drain(self, seconds: float | None = None) -> None:
        """Wait until all is written, but not longer than ``seconds``."""
        async with asyncio.timeout(seconds):
            while not self.idle:
                await asyncio.sleep(0.005)

    def _run(self) -> None:
        broken = False
        while (text := self._queue.get()) is not None:
            if not broken:
                try:
                    self.stream.write(text)
                    self.stream.flush()
                except (OSError, ValueError):
                    # Nobody reads the progress any more; the build is still wanted.
                    broken = True
            with self._lock:
                self._waiting -= 1
                self._waiting_size -= len(text)
