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
    from cogkit.cli.running import last_resort

    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main(sys.argv[1:])
    # What a thread still does must not keep the process: the result is known.
    last_resort.arm(code)
    sys.exit(code)


if __name__ == "__main__":
    entry()
