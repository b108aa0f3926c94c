"""Files and folders reached from a directory descriptor, one name at a time, and never through a symbolic link.

The disk access of `DotCog`: a project is often somebody else's repository, and a link that it ships in ``.cog/`` must
not lead us out.  What goes wrong is an OSError here; `Explained` turns it into the sentence for the user.  This file
knows no lock and no names of ``.cog/``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from cogkit.errors import CogkitError, ConfigError

DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

SETTLED_DIR_TIME = 315_619_200
"""Modification time of settled folders: 1980-01-02 UTC, which every time zone and the zip format can express."""


def mode_at(parent_fd: int, name: str) -> int | None:
    """The mode of an entry itself (links not followed); None when there is none or it cannot be seen."""
    try:
        return os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except OSError:
        return None


def open_or_make(parent_fd: int, name: str) -> tuple[int, bool]:
    """Open a folder, made if it does not exist: its descriptor, and whether this call made it."""
    for _ in range(100):
        try:
            return os.open(name, DIR_FLAGS, dir_fd=parent_fd), False
        except FileNotFoundError:
            pass
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            continue  # somebody was faster
        with suppress(FileNotFoundError):  # somebody removed it already
            return os.open(name, DIR_FLAGS, dir_fd=parent_fd), True
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again by somebody else", name)


def write_at(parent_fd: int, name: str, data: bytes, mode: int) -> None:
    """Write a file whole or not at all.  The caller holds the lock, so the temporary name can be a fixed one."""
    temporary = f".{name}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=parent_fd)  # left by a killed process
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=parent_fd)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        os.rename(temporary, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=parent_fd)
        raise


def settle(folder_fd: int) -> None:
    """Make modes and times of a folder and all below it depend on content alone; see `DotCog.settle`."""
    for _, folders, files, fd in os.fwalk(".", topdown=False, onerror=_raise, dir_fd=folder_fd):
        for name in files + folders:
            _settle_entry(fd, name)
    os.chmod(folder_fd, 0o755)
    os.utime(folder_fd, (SETTLED_DIR_TIME, SETTLED_DIR_TIME))


def _raise(error: OSError) -> NoReturn:
    raise error


def _settle_entry(parent_fd: int, name: str) -> None:
    mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    if stat.S_ISREG(mode):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        with os.fdopen(fd, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            os.chmod(file.fileno(), 0o755 if mode & 0o100 else 0o644)
            # 30 years from 1980 on, and any nanosecond: 2**59 times, none of them in the future.
            seconds = SETTLED_DIR_TIME + int.from_bytes(digest[:8], "big") % (30 * 365 * 86400)
            when = seconds * 10**9 + int.from_bytes(digest[8:16], "big") % 10**9
            os.utime(file.fileno(), ns=(when, when))
        return
    if stat.S_ISDIR(mode):
        os.chmod(name, 0o755, dir_fd=parent_fd, follow_symlinks=False)
    os.utime(name, (SETTLED_DIR_TIME, SETTLED_DIR_TIME), dir_fd=parent_fd, follow_symlinks=False)


def remove_path(path: Path) -> None:
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove(parent, path.name)
    finally:
        os.close(parent)


def remove(parent_fd: int, name: str) -> None:
    """Remove whatever has that name; a link is removed and not followed, a folder with all it holds.

    Folders that their owner made unreadable or unwritable are opened up first.  Depth costs neither stack nor
    descriptors: what is deeper than one level is moved up to the top of the tree and has its turn there.
    """
    mode = mode_at(parent_fd, name)
    if mode is None or not stat.S_ISDIR(mode):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent_fd)
        return
    top = _open_to_empty(parent_fd, name)
    token, count = secrets.token_hex(8), 0
    try:
        while entries := _entries(top):
            for entry, is_dir in entries:
                if not is_dir:
                    os.unlink(entry, dir_fd=top)
                    continue
                folder = _open_to_empty(top, entry)
                try:
                    for child, child_is_dir in _entries(folder):
                        if not child_is_dir:
                            os.unlink(child, dir_fd=folder)
                            continue
                        os.close(_open_to_empty(folder, child))  # moving a folder needs the right to write in it
                        count += 1
                        os.rename(child, f".{token}-{count}", src_dir_fd=folder, dst_dir_fd=top)
                finally:
                    os.close(folder)
                os.rmdir(entry, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent_fd)


def _entries(folder_fd: int) -> list[tuple[str, bool]]:
    with os.scandir(folder_fd) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _open_to_empty(parent_fd: int, name: str) -> int:
    """A descriptor of a folder that its owner may now list and change."""
    try:
        fd = os.open(name, DIR_FLAGS, dir_fd=parent_fd)
    except PermissionError as denied:
        try:
            os.chmod(name, 0o700, dir_fd=parent_fd, follow_symlinks=False)
        except (OSError, ValueError, NotImplementedError):
            raise denied from None
        fd = os.open(name, DIR_FLAGS, dir_fd=parent_fd)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o700 != 0o700:
            os.fchmod(fd, mode | 0o700)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Explained:
    """Turns an OSError of the block into the CogkitError that tells of the path."""

    def __init__(self, verb: str, path: Path):
        self._verb, self._path = verb, path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise explain(error, self._verb, self._path) from error


def explain(
    error: OSError, verb: str, path: Path, parent_fd: int | None = None, name: str | None = None
) -> CogkitError:
    denied = error.errno in (errno.EACCES, errno.EPERM)
    inner = f" ({error.filename})" if isinstance(error.filename, str) and error.filename not in path.parts else ""
    owner = owner_note(parent_fd, name) if denied and parent_fd is not None else ""
    hints = {
        errno.ENOSPC: "Free some space on that disk.",
        errno.EDQUOT: "Your quota on that disk is used up: free some space.",
        errno.EROFS: "Build from a copy of the project that can be written.",
        errno.EACCES: "Make it yours (chown, chmod u+rwx) or remove it: it can be made again.",
        errno.EPERM: "Make it yours (chown, chmod u+rwx) or remove it: it can be made again.",
    }
    kind = ConfigError if denied or error.errno == errno.EROFS else CogkitError
    return kind(
        f"cannot {verb} it: {error.strerror or error}{inner}{owner}",
        where=str(path),
        hint=hints.get(error.errno or 0),
    )


def unusable(path: Path, mode: int, wanted: str) -> ConfigError:
    if stat.S_ISLNK(mode):
        try:
            target = f" to {os.readlink(path)}{'' if path.exists() else ', which does not exist'}"
        except OSError:
            target = ""
        message = f"{path.name} is a symbolic link{target}, and cogkit follows none here"
    else:
        kind = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a special file"
        message = f"{path.name} is {kind} and not {wanted}"
    return ConfigError(message, where=str(path), hint="Remove or rename it; cogkit makes its own.")


def owner_note(fd: int, name: str | None = None) -> str:
    """`` (it belongs to NAME)`` when that is not the user; nothing otherwise."""
    try:
        uid = os.fstat(fd).st_uid if name is None else os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid
    except OSError:
        return ""
    if uid == os.geteuid():
        return ""
    try:
        return f" (it belongs to {pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f" (it belongs to user id {uid})"
