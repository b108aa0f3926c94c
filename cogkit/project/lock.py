"""The lock of a project: the kernel's, who holds it, and what a waiting caller is told.

The lock is a POSIX record lock (fcntl, through fasteners), so a killed process leaves nothing stale.  Such a lock
belongs to the process and not to a thread, and it is dropped when *any* descriptor of the lock file is closed.  Hence:
nothing but `KernelLock.try_acquire` may open the lock file, and `_occupied` keeps the threads of a process apart.  Who
holds it stands in a file of its own, for the same reason.

This file takes the lock or does not; waiting for it is `DotCog`'s.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import socket
import stat
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO

import fasteners  # type: ignore[import-untyped]

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.nofollow import Explained, explain, mode_at, unusable, write_at

LOCK_NAME = "cog.lock"
HOLDER_NAME = "cog.lock.holder"

_NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_HOLDER_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The process that holds a project's lock, as it described itself.

    ``since`` is in seconds since 1970.  ``started`` and ``pid_namespace`` tell the process from a later one with the
    same number; they are None where the system does not say.  Only the program and its subcommand are in
    ``command``: further arguments may hold secrets.
    """

    pid: int
    command: str
    since: float
    host: str
    started: str | None = None
    pid_namespace: str | None = None

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since)
        when = since.strftime("%H:%M:%S" if since.date() == datetime.now().date() else "%Y-%m-%d %H:%M:%S")
        place = "" if self._is_local() else f" on {self.host}"
        return f"process {self.pid} ({self.command}){place} since {when}"

    @classmethod
    def this_process(cls) -> LockHolder:
        pid = os.getpid()
        return cls(
            pid=pid,
            command=_own_command(),
            since=time.time(),
            host=socket.gethostname(),
            started=_process_start(pid),
            pid_namespace=_pid_namespace(),
        )

    def serialize(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, text: bytes) -> LockHolder | None:
        """The holder that ``text`` describes; None when it does not (a file cut short, or not one of ours)."""
        try:
            fields = json.loads(text)
            holder = cls(
                pid=int(fields["pid"]),
                command=_printable(str(fields["command"])),
                since=float(fields["since"]),
                host=_printable(str(fields["host"])),
                started=None if fields["started"] is None else str(fields["started"]),
                pid_namespace=None if fields["pid_namespace"] is None else str(fields["pid_namespace"]),
            )
            datetime.fromtimestamp(holder.since)
        except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
            return None
        return holder if 0 < holder.pid < 2**31 else None

    def _is_local(self) -> bool:
        return self.host == socket.gethostname() and self.pid_namespace == _pid_namespace()

    def is_plausible(self) -> bool:
        """Whether that process can still be the holder.

        Only a process of this host and pid namespace can be looked up; of another, what it wrote must be believed.
        """
        if not self._is_local():
            return True
        if self.started is not None:
            return _process_start(self.pid) == self.started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


@dataclass(frozen=True, slots=True)
class LockWait:
    """What a caller that waits for the lock is told.  Times are in seconds; ``holder`` is None when not known."""

    path: Path
    holder: LockHolder | None
    waited: float
    timeout: float | None

    def __str__(self) -> str:
        bound = "" if self.timeout is None else f" of at most {self.timeout:.0f}"
        return f"waiting for {self.path}, held by {self.holder or 'another process'} ({self.waited:.0f}{bound} s)"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:80]


def _own_command() -> str:
    program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
    if program == "__main__.py":  # python -m cogkit
        program = os.path.basename(os.path.dirname(sys.argv[0])) or program
    if program.startswith("-"):  # python -c, or - for standard input
        program = "python"
    subcommand = sys.argv[1] if len(sys.argv) > 1 and re.fullmatch(r"[a-z][a-z0-9-]{0,30}", sys.argv[1]) else ""
    return _printable(f"{program} {subcommand}".rstrip())


def current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


def _process_start(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc(5), field 22 of ``stat``); None if it cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[19].decode() if len(fields) > 19 else None


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


_registry = threading.Lock()
_occupied: dict[tuple[int, int], KernelLock | None] = {}
"""The folders (device, inode) whose lock this process holds (the lock) or tries to get at this moment (None)."""


def _forget_after_fork() -> None:
    # A child has none of its parent's record locks, and the registry's own lock may have been taken by a thread that
    # does not exist in the child.
    global _registry
    _registry = threading.Lock()
    _occupied.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


class KernelLock:
    """The lock of one folder, held by this process until `release` or the process's end.

    Attributes:
        thread: The thread that took it.
        task: The asyncio task that took it, if one did.
    """

    def __init__(self, folder_fd: int, folder: Path, lock: fasteners.InterProcessLock):
        self.thread = threading.get_ident()
        self.task = current_task()
        self._folder_fd = folder_fd
        self._folder = folder
        self._key = _key(folder_fd)
        self._lock = lock
        self._pid = os.getpid()
        self._released = False

    @classmethod
    def try_acquire(cls, folder_fd: int, folder: Path) -> KernelLock | None:
        """Take the lock if it is free at this moment.

        Args:
            folder_fd: The folder that holds the lock file; it must stay open as long as the lock is held.
            folder: The same folder's path, for messages and to see whether it is still the folder of that name.

        Raises:
            ConfigError: the lock file cannot be used, or the file system has no locks.
        """
        key = _key(folder_fd)
        with _registry:
            if key in _occupied:
                return None
            _occupied[key] = None  # from here on no other thread opens the lock file
        file: IO[bytes] | None = None
        try:
            file = _open_lock_file(folder_fd, folder)
            lock = fasteners.InterProcessLock(str(folder / LOCK_NAME))
            # Handing over an open file keeps fasteners from opening it by its path, which would follow a link.
            lock.lockfile = file
            if not _taken(lock, folder_fd, folder) or not _is_current(file, folder):
                return None
            # Only now: a killed holder's record is replaced before anybody can be told of it for long.
            with Explained("write", folder / HOLDER_NAME):
                write_at(folder_fd, HOLDER_NAME, LockHolder.this_process().serialize(), 0o600)
            held = cls(folder_fd, folder, lock)
            with _registry:
                _occupied[key] = held
            return held
        finally:
            with _registry:
                if _occupied.get(key) is None:
                    _occupied.pop(key, None)
                    if file is not None:
                        file.close()

    @property
    def held(self) -> bool:
        """False once released, and in a forked child, which does not inherit the lock."""
        return not self._released and self._pid == os.getpid()

    def release(self) -> None:
        """Give the lock back.  Idempotent; in a forked child it only closes the child's copy of the descriptor."""
        if self._released:
            return
        mine, self._released = self.held, True
        if not mine:
            self._lock.lockfile.close()
            return
        try:
            with Explained("remove", self._folder / HOLDER_NAME), suppress(FileNotFoundError):
                os.unlink(HOLDER_NAME, dir_fd=self._folder_fd)
        finally:
            # Unlock and leave the registry in one step, or another thread could open the lock file before this
            # descriptor is closed, and would lose its lock by that.
            with _registry:
                _occupied.pop(self._key, None)
                self._lock.lockfile.close()


def lock_held_here(folder_fd: int) -> KernelLock | None:
    """The lock of that folder, when it is this process that holds it."""
    with _registry:
        return _occupied.get(_key(folder_fd))


def read_holder(folder_fd: int) -> LockHolder | None:
    """Who holds the lock of that folder, as far as can be told; None also when nobody does.

    A record left by a process that is gone does not count.
    """
    try:
        fd = os.open(HOLDER_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd)
    except OSError:
        return None  # nobody, or a record that we may not read: there is nothing to tell
    try:
        text = os.read(fd, _HOLDER_LIMIT) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    holder = LockHolder.parse(text)
    return holder if holder is not None and holder.is_plausible() else None


def _key(folder_fd: int) -> tuple[int, int]:
    info = os.fstat(folder_fd)
    return info.st_dev, info.st_ino


def _open_lock_file(folder_fd: int, folder: Path) -> IO[bytes]:
    path = folder / LOCK_NAME
    try:
        fd = os.open(
            LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=folder_fd
        )
    except OSError as error:
        mode = mode_at(folder_fd, LOCK_NAME)
        if mode is not None and not stat.S_ISREG(mode):
            raise unusable(path, mode, "a file") from error
        raise explain(error, "open", path, folder_fd, LOCK_NAME) from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise unusable(path, mode, "a file")
    return os.fdopen(fd, "wb", buffering=0)


def _taken(lock: fasteners.InterProcessLock, folder_fd: int, folder: Path) -> bool:
    path = folder / LOCK_NAME
    try:
        lock.trylock()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno in _NO_LOCKS_HERE:
            raise ConfigError(
                f"the file system does not support locks ({error.strerror})",
                where=str(path),
                hint="Put the project on a local disk, or mount the network file system with its lock service.",
            ) from error
        raise explain(error, "lock", path, folder_fd, LOCK_NAME) from error
    return True


def _is_current(file: IO[bytes], folder: Path) -> bool:
    """Whether the locked file is still the one that others would open (``rm -rf .cog`` may have come between)."""
    try:
        there = os.stat(folder / LOCK_NAME, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(there, os.fstat(file.fileno()))
