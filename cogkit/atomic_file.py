"""Files that appear whole or not at all.

Until a file is complete it has no name (Linux, ``O_TMPFILE``), so that even a killed process leaves nothing, or a
hidden one that nobody can have guessed; then it is synced and gets its name in one step, and the directory is synced.
A crash, a full disk or an interrupt leaves the old file, or none.

What goes wrong is an OSError; the sentence for the user is the caller's.  This file must not know what it writes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

_KNOWN_GOOD: set[int] = set()
"""Devices of file systems where a file without a name could get one."""

_TEMPORARY_PREFIX = ".cogkit-"
NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
"""What the system says where files without names do not exist."""

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class NewFile:
    """A new file (mode 0600) without a name, or with a temporary one; `close` it in any case.

    Attributes:
        fd: Open for writing, until `close`.

    Args:
        directory: Where it will be: an open directory, which is closed with the file, also if there is none.
        durable: Its name outlives a crash of the machine; False for what can be had again, for it is faster.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: int, *, durable: bool = True):
        self.fd = -1
        self._directory = directory
        self._durable = durable
        self._temporary: str | None = None
        try:
            self.fd = self._open()
        except BaseException:
            os.close(directory)
            raise

    def _open(self) -> int:
        fd = open_unnamed(self._directory) if self._durable else open_one_of_many_unnamed(self._directory)
        if fd is not None:
            return fd
        self._temporary = temporary_name()
        return os.open(self._temporary, NEW_FLAGS, 0o600, dir_fd=self._directory)

    def create(self, name: str) -> None:
        """Give the file a name that must be free.

        Raises:
            FileExistsError: there is something of that name, be it a link to nothing.
        """
        if self._temporary is None:
            link_unnamed(self.fd, name, self._directory)
        else:
            self._create_from_temporary(self._temporary, name)
        self._sync_directory()

    def _create_from_temporary(self, temporary: str, name: str) -> None:
        directory = self._directory
        try:
            # Unlike a rename it fails when somebody else was faster.
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # FAT, some network and FUSE file systems: there a name cannot be taken and filled in one step without the
            # risk of overwriting, so look first.
            with contextlib.suppress(FileNotFoundError):
                os.stat(name, dir_fd=directory, follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
            self._rename(temporary, name)

    def create_elsewhere(self, directory: int, name: str) -> None:
        """Give the file a name, which must be free, in another open directory of the same file system.

        Raises:
            FileExistsError: there is something of that name.
        """
        if self._temporary is None:
            link_unnamed(self.fd, name, directory)
            return
        try:
            os.link(self._temporary, name, src_dir_fd=self._directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            os.rename(self._temporary, name, src_dir_fd=self._directory, dst_dir_fd=directory)
            self._temporary = None

    def replace(self, name: str) -> None:
        """Give the file a name, in place of whatever has it now."""
        if self._temporary is None:
            temporary = temporary_name()
            link_unnamed(self.fd, temporary, self._directory)
            self._temporary = temporary
        self._rename(self._temporary, name)
        self._sync_directory()

    def _rename(self, temporary: str, name: str) -> None:
        os.rename(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._temporary = None

    def _sync_directory(self) -> None:
        if not self._durable:
            return
        try:
            os.fsync(self._directory)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that syncs no directories has its own way
                raise

    def close(self) -> None:
        """Let go of it; without a name of its own it is gone.  Idempotent."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        os.close(fd)
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self._directory)


def create_whole(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a file that is not there yet.

    Args:
        path: Where; its directory exists.
        data: All of its content.
        mode: Its mode; what the umask leaves if None.

    Raises:
        FileExistsError: there is something of that name, be it a link to nothing.
        OSError: it cannot be written.
    """
    with contextlib.closing(_written(path, data, mode)) as file:
        file.create(path.name)


def replace_whole(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a file, in place of whatever has its name; arguments as of `create_whole`.

    Raises:
        OSError: it cannot be written.
    """
    with contextlib.closing(_written(path, data, mode)) as file:
        file.replace(path.name)


def _written(path: Path, data: bytes, mode: int | None) -> NewFile:
    file = NewFile(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file.fd, rest) :]
        os.fchmod(file.fd, usual_mode() if mode is None else mode)
        os.fsync(file.fd)
    except BaseException:
        file.close()
        raise
    return file


def usual_mode() -> int:
    """The mode of a new file after the umask, which is read without changing it where the system tells (Linux), for
    other threads create files."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return 0o666 & ~int(line.split()[1], 8)
    except OSError:
        pass  # no /proc here: ask the other way
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def temporary_name() -> str:
    """A hidden name that nobody can have guessed beforehand."""
    return _TEMPORARY_PREFIX + secrets.token_hex(8)


def new_unnamed(directory: int) -> int | None:
    """A new file (mode 0600) in an open directory that has no name yet, or None where that does not exist."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno in NO_UNNAMED:
            return None
        raise


def open_unnamed(directory: int) -> int | None:
    """The same, or None also where it could not get a name later.

    That is tried with another file first: without ``/proc`` it could not, and then it would be too late.
    """
    probe = new_unnamed(directory)
    if probe is None:
        return None
    name = temporary_name()
    try:
        link_unnamed(probe, name, directory)
        os.unlink(name, dir_fd=directory)
    except OSError:
        return None
    finally:
        os.close(probe)
    return new_unnamed(directory)


def open_one_of_many_unnamed(directory: int) -> int | None:
    """The same, but it is tried only once for each file system."""
    device = os.fstat(directory).st_dev
    if device in _KNOWN_GOOD:
        return new_unnamed(directory)
    fd = open_unnamed(directory)
    if fd is not None:
        _KNOWN_GOOD.add(device)
    return fd


def link_unnamed(fd: int, name: str | bytes, directory: int) -> None:
    """Give the unnamed file ``fd`` its first name.

    Raises:
        FileExistsError: the name is taken.
    """
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
