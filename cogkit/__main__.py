"""``python -m cogkit`` and the ``cogkit`` command.

Before anything slow is imported, Ctrl-C gets a meaning: leave at once and say nothing.  After that, `cogkit.cli.main`
decides.  SIGTERM, from whoever manages processes, and SIGHUP, of a terminal that closes, mean the same at every moment.
This file must not do more than start it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def entry() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        _SIGNALS.remove(signal.SIGHUP)  # nohup
    _on_interrupt(lambda *_: os._exit(INTERRUPTED))
    # Imports make many objects that stay; looking through them for garbage over and over is a tenth of the start.
    gc.set_threshold(150_000)
    try:
        from cogkit.cli import resources, standard_streams

        # Before anything else is opened, and before there are threads.
        standard_streams.prepare()
        resources.prepare()
        from cogkit.cli.forced_exit import PATIENCE, THREAD_PATIENCE, last_resort
        from cogkit.cli.main import main
    except ImportError as problem:
        if "--debug" in sys.argv:
            raise
        print(f"error: cogkit is not completely installed: {problem}", file=sys.stderr)
        print("  hint: install it again, with its dependencies", file=sys.stderr)
        sys.exit(1)

    except (OSError, MemoryError) as problem:
        if "--debug" in sys.argv:
            raise
        # Not even the modules can be read: too few open files, too little memory.
        print(f"error: cogkit cannot start: {problem or 'there is not enough memory'}", file=sys.stderr)
        sys.exit(1)

    def interrupt(*_: object) -> NoReturn:
        # Once: a second Ctrl-C must not tear the words about the first.
        _on_interrupt(signal.SIG_IGN)
        last_resort.arm(INTERRUPTED, PATIENCE)
        raise KeyboardInterrupt

    try:
        _on_interrupt(interrupt)
        code = main(sys.argv[1:])
        # The result is known: neither a thread nor a late Ctrl-C may change it.
        _on_interrupt(signal.SIG_IGN)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException as problem:
        # Not even the error could be shown.
        os.write(2, f"error: cogkit failed, and could not say why ({type(problem).__name__})\n".encode())
        code = 1
    # Not by way of Python's own end: it takes every module apart first, which costs a tenth of an unchanged build, and
    # it is a SIGINT to itself if an interrupt once went through an `exec`.  Whatever has to happen at the end of a
    # command, such as the removal of temporary files, has happened when `main` returns.
    last_resort.end(code, THREAD_PATIENCE)


def _on_interrupt(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in _SIGNALS:
        signal.signal(number, handler)


if __name__ == "__main__":
    entry()
