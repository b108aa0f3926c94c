"""Private folders for the time of a process, which do not stay for ever when the process is killed.

Whoever has one holds a lock on it (``flock``), which the kernel releases when the process ends, however it ends.
Whoever makes one removes those of this user that nobody holds any more.  They have a prefix of their own, so that
nothing else can be taken for one.  This file must not know what is kept in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX = "cogkit_run."
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONG = 60
"""Characters of a temporary folder's path that leave too little room for a socket's, which has 107 (macOS: 103)."""


class TemporaryFolder:
    """A new folder that only this user may enter, until `close`.

    Attributes:
        path: Where it is.

    Args:
        for_socket: Choose a short path where the usual one is long.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, *, for_socket: bool = False):
        parent = "/tmp" if for_socket and len(tempfile.gettempdir()) > _LONG else tempfile.gettempdir()
        remove_abandoned(parent)
        self._fd = -1
        while self._fd < 0:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            self._fd = _held(self.path)

    def close(self) -> None:
        """Remove it with all that is in it.  Idempotent."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        shutil.rmtree(self.path, ignore_errors=True)
        # Not before, or somebody else would begin to remove it as well.
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _held(path: Path) -> int:
    """The new folder open and locked; -1 if another process has taken it for an abandoned one in between."""
    try:
        fd = os.open(path, _FOLDER)
    except FileNotFoundError:
        return -1
    try:
        with contextlib.suppress(OSError):  # a file system without locks: then nobody removes it, either
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(fd), os.lstat(path)):
            return fd
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def remove_abandoned(parent: str) -> None:
    """Remove the folders of processes that are gone; what cannot be removed is left to the next one."""
    try:
        with os.scandir(parent) as entries:
            found = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
    except OSError:
        return
    for path in found:
        with contextlib.suppress(OSError):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: str) -> None:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    fd = os.open(path, _FOLDER)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if somebody has it
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(fd)
