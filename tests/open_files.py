"""Which files of a test's folder its process has open; those of other threads are not the test's to count."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def open_below(folder: Path) -> list[str]:
    """What is open in a folder, by name; of a file without a name the one that the system gives it."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(target for target in found if target.startswith(str(folder.resolve())))
