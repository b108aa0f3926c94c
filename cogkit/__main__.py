"""``python -m cogkit`` and the ``cogkit`` command.

Before anything slow is imported, Ctrl-C gets a meaning: leave at once and say nothing.  After that, `cogkit.cli.main`
decides.  SIGTERM, from whoever manages processes, means the same at every moment.  This file must not do more than
start it.
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


def entry() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    _on_interrupt(lambda *_: os._exit(INTERRUPTED))
    try:
        from cogkit.cli.main import main
        from cogkit.cli.running import THREAD_PATIENCE, last_resort
    except ImportError as problem:
        if "--debug" in sys.argv:
            raise
        print(f"error: cogkit is not completely installed: {problem}", file=sys.stderr)
        print("  hint: install it again, with its dependencies", file=sys.stderr)
        sys.exit(1)

    _on_interrupt(signal.default_int_handler)
    code = main(sys.argv[1:])
    # The result is known: neither a thread nor a late Ctrl-C may change it.
    last_resort.arm(code, THREAD_PATIENCE)
    _on_interrupt(signal.SIG_IGN)
    sys.exit(code)


def _on_interrupt(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


if __name__ == "__main__":
    entry()
