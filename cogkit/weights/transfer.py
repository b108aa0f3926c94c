"""What moves while weights are imported or pulled: several transfers at once, one progress, one way to stop.

This file must not render anything, or know what is transferred.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

from cogkit.errors import Interrupted, UsageError

CONCURRENCY_VARIABLE = "COG_PUSH_CONCURRENCY"
CONCURRENCY = 4
_STEP = 0.2

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Progress(Protocol):
    """Hears what moves; called from any thread."""

    def say(self, line: str) -> None:
        """A line for the user."""

    def start(self, what: str, total: int) -> None:
        """Something of ``total`` bytes begins (``what`` in the words of the user), in place of what went before."""

    def moved(self, count: int) -> None:
        """So many more bytes are there; fewer if ``count`` is negative."""

    def finish(self) -> None:
        """What was started is done."""


class Silent:
    """A `Progress` for who does not want to hear."""

    def say(self, line: str) -> None:
        pass

    def start(self, what: str, total: int) -> None:
        pass

    def moved(self, count: int) -> None:
        pass

    def finish(self) -> None:
        pass


def concurrency(environ: Mapping[str, str] = os.environ) -> int:
    """How many transfers at once.

    Raises:
        UsageError: the environment's number is none.
    """
    value = environ.get(CONCURRENCY_VARIABLE, "")
    if not value:
        return CONCURRENCY
    if not value.isascii() or not value.isdigit() or not 0 < int(value) <= 64:
        raise UsageError(f"{CONCURRENCY_VARIABLE} is {value!r}", hint="give a number from 1 to 64")
    return int(value)


def ahead(stream: Iterator[_Item], depth: int = 8) -> Iterator[_Item]:
    """The same, but a thread gets the next items while the last one is worked on; ``depth`` of them at most."""
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    left = threading.Event()

    def offer(item: tuple[bool, Any]) -> bool:
        while not left.is_set():
            try:
                waiting.put(item, timeout=_STEP)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in stream:
                if not offer((True, item)):
                    return
            offer((False, None))
        except BaseException as error:
            offer((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            goes_on, item = waiting.get()
            if not goes_on:
                if item is not None:
                    raise item
                return
            yield item
    finally:
        left.set()


def in_parallel(
    work: Callable[[_Item], _Result], items: Iterable[_Item], stop: threading.Event, workers: int
) -> list[_Result]:
    """The results of ``work`` on each item, in their order; the first failure stops the others and is raised.

    Args:
        work: Must end soon with `Interrupted` once ``stop`` is set.
        items: What to work on.
        stop: Set here on a failure and when the caller is interrupted.
        workers: How many threads.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            while wait(futures, timeout=_STEP, return_when=FIRST_EXCEPTION).not_done:
                if any(future.done() and future.exception() is not None for future in futures):
                    break
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        failure = _first_failure(futures)
        if failure is None:
            return [future.result() for future in futures]
        stop.set()
        pool.shutdown(cancel_futures=True)
        raise _first_failure(futures) or failure


def _first_failure(futures: Iterable[Future[_Result]]) -> BaseException | None:
    """The failure that came first: others were only interrupted by it."""
    interrupted: BaseException | None = None
    for future in futures:
        if future.done() and not future.cancelled() and (error := future.exception()) is not None:
            if not isinstance(error, Interrupted):
                return error
            interrupted = error
    return interrupted
