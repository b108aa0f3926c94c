"""``python -m cogkit`` and the ``cogkit`` command.

Before anything slow is imported, Ctrl-C gets a meaning: leave at once and say nothing.  After that, `cogkit.cli.main`
decides.  This file must not do more than start it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130


def entry() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from cogkit.cli.main import main
    from cogkit.cli.running import THREAD_PATIENCE, last_resort

    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main(sys.argv[1:])
    # The result is known: neither a thread nor a late Ctrl-C may change it.
    last_resort.arm(code, THREAD_PATIENCE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    entry()
