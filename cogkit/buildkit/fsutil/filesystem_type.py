"""On which kind of filesystem a path is, for messages about what cannot be read.

Linux says so in ``/proc/self/mountinfo``; elsewhere nothing is known.  This file must not raise.
"""

from __future__ import annotations

import os
import re

_MOUNTS = "/proc/self/mountinfo"
_MADE_UP = frozenset(
    (
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs"),
        *("efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs"),
    )
)


def filesystem_type(path: bytes) -> str | None:
    """The type's name, such as ``ext4`` or ``proc``; None if it cannot be found out.

    A link is itself, not what it leads to.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        real = os.path.join(os.path.realpath(folder), name)
        with open(_MOUNTS, "rb") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):  # ValueError: a path with a NUL
        return None
    found, length = None, -1
    for line in lines:
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        if len(fields) < 5 or not after:
            continue
        point = _unescaped(fields[4])
        # Of two mounts on one place, the later one hides the other.
        if _is_in(real, point) and len(point) >= length:
            found, length = after.split(b" ")[0].decode("ascii", "replace"), len(point)
    return found


def is_made_up(type: str) -> bool:
    """Whether such a filesystem is the kernel's own view of itself, and holds nobody's files."""
    return type in _MADE_UP


def _unescaped(point: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda digits: bytes((int(digits[1], 8),)), point)


def _is_in(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")
