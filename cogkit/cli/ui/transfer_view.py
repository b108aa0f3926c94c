"""The progress of transfers: one line with bytes, rate and time left on a terminal, plain lines elsewhere.

This file must not know what is transferred.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from types import TracebackType
from typing import Self, TextIO

from cogkit.cli.ui.text import harmless, one_line

INTERVAL = 0.2
PLAIN_INTERVAL = 10.0
_WINDOW = 10.0
"""Seconds over which a rate is taken."""


class TransferView:
    """Hears what moves (`cogkit.weights.transfer.Progress`) and shows it; a context manager.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self._what = ""
        self._total = self._done = 0
        self._seen: deque[tuple[float, int]] = deque()
        self._shown = 0.0
        self._on_screen = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._clear()

    def say(self, line: str) -> None:
        with self._lock:
            self._clear()
            self._stream.write(harmless(line) + "\n")
            self._stream.flush()

    def start(self, what: str, total: int) -> None:
        with self._lock:
            self._what, self._total, self._done = one_line(what), total, 0
            now = time.monotonic()
            self._seen = deque([(now, 0)])
            self._shown = now if not self._live else 0.0

    def moved(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._shown >= (INTERVAL if self._live else PLAIN_INTERVAL):
                self._shown = now
                self._show(now)

    def finish(self) -> None:
        with self._lock:
            self._clear()
            self._what = ""

    def _show(self, now: float) -> None:
        self._seen.append((now, self._done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        line = progress_line(self._what, self._done, self._total, self._rate())
        if self._live:
            self._stream.write(f"\r\x1b[K{line}")
            self._on_screen = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _rate(self) -> float:
        (begin, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - begin) if end > begin else 0.0

    def _clear(self) -> None:
        if self._on_screen:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._on_screen = False


def progress_line(what: str, done: int, total: int, rate: float) -> str:
    """A line such as ``base: Downloading 1.2 of 4.0 GiB, 310 MiB/s, 9 s left``."""
    units = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
    unit, name = next((size, name) for size, name in units if max(total, done) >= size or size == 1)
    digits = 0 if unit == 1 else 1
    moved = f"{done / unit:.{digits}f}"
    parts = [f"{what} {moved} of {total / unit:.{digits}f} {name}" if total else f"{what} {moved} {name}"]
    if rate > 0:
        parts.append(f"{rate / (1 << 20):.1f} MiB/s")
        if total > done:
            parts.append(f"{_duration((total - done) / rate)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
