"""Opens directories of ours that their own mode keeps us out of, as a result may have them (0300, 0000).

Whoever owns a directory may change its mode, and so come in; root does not have to.  The way there never follows a
link, and ends at the directory whose mode was changed or with an error.  This file must not decide which directories.
"""

from __future__ import annotations

import os
import stat

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(name: bytes | str, parent_fd: int | None = None) -> tuple[int, int | None]:
    """Open a directory to read it and to change what is in it.

    Args:
        name: Its name, or a path; its last part is not followed if it is a link.
        parent_fd: What it is relative to.

    Returns:
        The descriptor, and the mode that it had; None for that if it did not have to be changed.

    Raises:
        PermissionError: it is closed, and it is not ours.
        OSError: there is none, it is not a directory, …
    """
    try:
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent_fd)
    except PermissionError as refused:
        return _let_in(name, parent_fd, refused)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o700 == 0o700:
            return fd, None
        os.fchmod(fd, mode | 0o700)
        return fd, mode
    except BaseException:
        os.close(fd)
        raise


def _let_in(name: bytes | str, parent_fd: int | None, refused: PermissionError) -> tuple[int, int]:
    if not hasattr(os, "O_PATH"):
        return _let_in_by_name(name, parent_fd, refused)
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        mode = _mode_of_ours(os.fstat(place), refused)
        same = f"/proc/self/fd/{place}"
        os.chmod(same, mode | 0o700)
        return os.open(same, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), mode
    except FileNotFoundError:
        raise refused from None  # no /proc here
    finally:
        os.close(place)


def _let_in_by_name(name: bytes | str, parent_fd: int | None, refused: PermissionError) -> tuple[int, int]:
    """Where a directory cannot be held without being opened (macOS)."""
    before = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    mode = _mode_of_ours(before, refused)
    os.chmod(name, mode | 0o700, dir_fd=parent_fd, follow_symlinks=False)
    fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent_fd)
    if os.path.samestat(os.fstat(fd), before):
        return fd, mode
    os.close(fd)
    raise refused


def _mode_of_ours(status: os.stat_result, refused: PermissionError) -> int:
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        raise refused
    return stat.S_IMODE(status.st_mode)
