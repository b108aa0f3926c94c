"""Writes progress from a thread of its own.

A terminal that was stopped with Ctrl-S, or a pager at the end of a pipe, takes no text for as long as it likes.  The
event loop must not wait for it: it has the daemon's health checks to answer.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TextIO


class BackgroundWriter:
    """Text in, to be written in order; no method blocks.  A stream that breaks swallows the rest silently."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._waiting = 0
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
        if self._thread is None:
            # Daemonic: what a stopped terminal never took must not keep the process.
            self._thread = threading.Thread(target=self._run, name="cogkit-progress", daemon=True)
            self._thread.start()
        with self._lock:
            self._waiting += 1
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
