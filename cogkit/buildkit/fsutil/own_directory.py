"""A working directory for one thread alone.

Linux has no call before 6.13 that reads extended attributes relative to an open directory.  Relative to the working
directory it always had, and that can be a thread's own: then nothing that happens to the path in between can lead
astray, and short names are looked up faster than whole paths.

This file must not be used in a thread that does anything for others: there relative paths would change their meaning.
"""

from __future__ import annotations

import os

_CLONE_FS = 0x200


def separate() -> bool:
    """Give the calling thread a working directory of its own, for as long as it lives (unshare(2), CLONE_FS).

    Returns:
        Whether that was possible; seccomp profiles of containers forbid it.
    """
    try:
        if hasattr(os, "unshare"):  # Python 3.12
            os.unshare(_CLONE_FS)
            return True
        import ctypes

        return bool(ctypes.CDLL(None).unshare(_CLONE_FS) == 0)
    except (OSError, AttributeError):  # AttributeError: a C library of another system
        return False
