"""Every file that we are asked to write: archives, the image ID, metadata, whoever names it.

A file appears whole or not at all, and what is not a regular file of ours is written to, never removed.  The rules, as
``docs/outputs.md`` states them to users:

1. Links are followed; what they lead to is written, and the link stays.
2. A regular file of ours is replaced in one step (`NewFile`).
3. A regular file that cannot be replaced without a loss is filled in place, when all of the content is there: one that
   belongs to another user, has several names (hard links), is a mount point, or is in a folder that we may not write.
4. Pipes, devices and the names of open files (``/dev/stdout``) are written through.
5. In a folder where everybody may write (``/tmp``), links and files of other users are refused, as Linux does
   (``fs.protected_symlinks``, ``fs.protected_regular``).

This file must not know what is written or who asks; the writing methods block and belong in a worker thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat as stat_module
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from cogkit.atomic_file import NO_UNNAMED, NewFile, temporary_name, usual_mode
from cogkit.errors import OutputError, UsageError

IOV_MAX = 1024
"""Buffers that one ``writev`` takes at most (Linux and macOS alike)."""

_AT_ONCE = 256 << 10
"""Bytes for one ``writev``.  Less are too many calls; for more, Linux takes large blocks of memory, which in a virtual
machine are those that the host has to give anew, page by page (``benchmarks/notes.md``)."""

_STEP = 8 << 20
_MAX_LINKS = 40
_SYSTEM_FOLDERS = ("/dev/", "/proc/", "/sys/")
_SHARED_MEMORY = "/dev/shm/"
_ANOTHER_PLACE = "choose another place"
_DESCRIPTOR = re.compile(r"(?:/proc/(?P<process>\d+)(?:/task/\d+)?|/dev)/fd/(?P<number>\d{1,9})")
"""The system's name of an open file, of a process or (macOS) of this one."""

_EVERYBODY_WRITES = stat_module.S_ISVTX | stat_module.S_IWOTH


def output_error(error: OSError, place: str, *, written: int | None = None) -> OutputError:
    """The error of the system as the sentence that the user sees.

    Args:
        error: what the system call raised.
        place: the path that could not be written, printable.
        written: bytes that were written to it before, if that says anything.
    """
    after = "" if written is None else f" after {written:,} bytes"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return OutputError(
                f"no space left on the device of '{place}'{after}", hint="free some space or choose another place"
            )
        case errno.EFBIG:
            return OutputError(f"'{place}' grew larger than its file system or a limit (ulimit -f) allows{after}")
        case errno.EROFS:
            return OutputError(f"'{place}' is on a read-only file system", hint=_ANOTHER_PLACE)
        case errno.EACCES | errno.EPERM:
            return OutputError(
                f"no permission to write '{place}'", hint="choose a place that you may write to, or change its owner"
            )
        case errno.EPIPE:
            return OutputError(f"the reader of '{place}' went away{after}")
        case errno.EMFILE | errno.ENFILE:
            return OutputError(f"too many open files while writing '{place}'", hint="raise the limit (ulimit -n)")
    return OutputError(f"cannot write '{place}'{after}: {os.strerror(error.errno or 0)}")


class OutputFile:
    """The destination of one stream: a path, or ``-`` for standard output.

    Args:
        path: Where.
        make_parents: Make parent directories that are missing, as buildx does for ``dest=``.
    """

    def __init__(self, path: str | os.PathLike[str], *, make_parents: bool = True):
        self.path = os.fspath(path)
        self._make_parents = make_parents

    def __repr__(self) -> str:
        return f"OutputFile({self.path!r})"

    @property
    def is_stdout(self) -> bool:
        return self.path == "-"

    @property
    def place(self) -> str:
        """The real path that is written, or a name for standard output."""
        return "standard output" if self.is_stdout else _end_of_links(self.path)

    def check(self, asked_by: str) -> None:
        """Find out before the build what would fail after it.

        Args:
            asked_by: What the output is for, as the user calls it.

        Raises:
            OutputError: the destination cannot be written.
            UsageError: it makes no sense.
        """
        if self.is_stdout:
            _check_stdout(asked_by)
            return
        if not self.path:
            raise UsageError(f"{asked_by} needs a file to write", hint="name one")
        if os.path.isdir(self.path) or self.path.endswith("/"):
            raise OutputError(f"the output file '{self.path}' is a directory", hint="name a file in it")
        try:
            self._check_end(_end_of_links(self.path))
        except OSError as error:
            raise output_error(error, self.path) from error

    def _check_end(self, end: str) -> None:
        kind = _kind_of(end)
        if kind is _Kind.GIVEN:
            _check_descriptor(_own_descriptor(end), self.path)
            return
        if kind is not _Kind.NEW and not os.access(end, os.W_OK):
            raise OutputError(
                f"the output file '{self.path}' is not writable", hint="remove it, change its mode or choose another"
            )
        if kind in (_Kind.NEW, _Kind.REPLACED):
            self._check_folder(end)

    def _check_folder(self, end: str) -> None:
        folder = os.path.dirname(end)
        if not self._make_parents and not os.path.lexists(folder):
            raise OutputError(f"cannot write '{self.path}': '{folder}' does not exist", hint="make the folder first")
        check_creatable(Path(end))

    def open(self) -> OutputWriter:
        """Start writing.

        Raises:
            OutputError: the destination cannot be opened.
        """
        if self.is_stdout:
            sys.stdout.flush()
            return _PassedThrough(os.dup(1), self.place)
        try:
            return self._open(_end_of_links(self.path))
        except OSError as error:
            raise output_error(error, self.path) from error

    def _open(self, end: str) -> OutputWriter:
        match _kind_of(end):
            case _Kind.GIVEN:
                descriptor = _own_descriptor(end)
                _check_descriptor(descriptor, self.path)
                # Not opened anew: that would begin at the start of a file that others write to, and fail for sockets.
                return _PassedThrough(os.dup(descriptor), self.path)
            case _Kind.STREAM:
                flags = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY
                return _PassedThrough(os.open(end, flags), self.path)
            case _Kind.FILLED:
                return _FilledInPlace(end, self.path)
            case _Kind.NEW | _Kind.REPLACED:
                return _WholeFile(Path(end), self.path, make_parents=self._make_parents)

    def forget(self) -> None:
        """Let the content of an earlier run not be taken for the next one's: a file of ours is removed, one that has
        to stay is emptied, and what is not a regular file is left alone.

        Raises:
            OutputError: it could not be.
        """
        if self.is_stdout:
            return
        try:
            end = _end_of_links(self.path)
            match _kind_of(end):
                case _Kind.FILLED:
                    os.truncate(end, 0)
                case _Kind.REPLACED:
                    os.unlink(end)
        except OSError as error:
            raise output_error(error, self.path) from error


class _Kind(Enum):
    """How a place is written."""

    GIVEN = "an open file that we were started with"
    STREAM = "a pipe, a device, a file of the system's own"
    FILLED = "a regular file that has to stay the file that it is"
    REPLACED = "a regular file"
    NEW = "nothing there yet"


def _kind_of(end: str) -> _Kind:
    """How to write what a path has led to.

    Raises:
        OSError: it cannot be looked at, or nothing can be made there.
    """
    if _DESCRIPTOR.fullmatch(end) and _own_descriptor(end) >= 0:
        return _Kind.GIVEN
    try:
        status = os.stat(end)
    except (FileNotFoundError, NotADirectoryError):
        if _is_of_the_system(end):
            raise
        return _Kind.NEW
    if not stat_module.S_ISREG(status.st_mode) or _is_of_the_system(end):
        return _Kind.STREAM
    folder = os.path.dirname(end)
    stays = (
        status.st_nlink > 1
        or status.st_uid != os.geteuid()
        or not os.access(folder, os.W_OK | os.X_OK)
        or _mount(end) != _mount(folder)
    )
    return _Kind.FILLED if stays else _Kind.REPLACED


def _check_stdout(asked_by: str) -> None:
    if not _is_writable(1):
        raise OutputError("standard output is closed, or open for reading only: nothing can be written to it")
    if os.isatty(1):
        raise UsageError(
            f"dest file is required for {asked_by}: refusing to write to the terminal",
            hint="name a file, or redirect standard output",
        )


def _end_of_links(path: str) -> str:
    """What a path leads to, its last component too; names of open files stay what they are.

    Raises:
        OSError: links in a circle, a part of the path that cannot be looked at.
        OutputError: a link, or what it leads to, belongs to another user, and everybody may write to its folder.
    """
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(path)
        end = os.path.join(os.path.realpath(folder or "."), name)
        try:
            status = os.lstat(end)
        except (FileNotFoundError, NotADirectoryError):
            return end
        if _DESCRIPTOR.fullmatch(end):
            return end
        _check_owner(end, status)
        if not stat_module.S_ISLNK(status.st_mode):
            return end
        path = os.path.join(os.path.dirname(end), os.readlink(end))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _is_of_the_system(path: str) -> bool:
    """Nothing is made or replaced there."""
    return path.startswith(_SYSTEM_FOLDERS) and not path.startswith(_SHARED_MEMORY)


def _own_descriptor(path: str) -> int:
    """The number of an open file of this process whose name the path is, or -1."""
    match = _DESCRIPTOR.fullmatch(path)
    return int(match["number"]) if match and match["process"] in (None, str(os.getpid())) else -1


def _check_descriptor(descriptor: int, shown: str) -> None:
    """That it came from whoever started us, to be written to: others are files and connections of our own."""
    try:
        is_given = descriptor <= 2 or os.get_inheritable(descriptor)
    except OSError:
        is_given = False
    if not is_given:
        raise OutputError(f"cannot write '{shown}': there is no open file of that number", hint=_ANOTHER_PLACE)
    if not _is_writable(descriptor):
        raise OutputError(f"cannot write '{shown}': it is closed, or open for reading only", hint=_ANOTHER_PLACE)


def _is_writable(descriptor: int) -> bool:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False


def _check_owner(path: str, status: os.stat_result) -> None:
    folder = os.stat(os.path.dirname(path))
    if folder.st_mode & _EVERYBODY_WRITES != _EVERYBODY_WRITES or status.st_uid in (os.geteuid(), folder.st_uid):
        return
    raise OutputError(
        f"'{path}' belongs to another user, and everybody may write to its folder",
        hint="remove it, or " + _ANOTHER_PLACE,
    )


def _mount(path: str) -> str | None:
    """Names the mount that a path is on, where the system tells (Linux); a single file can be one."""
    if not hasattr(os, "O_PATH"):
        return None
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as info:
            return next((line for line in info if line.startswith("mnt_id:")), None)
    except OSError:
        return None  # no /proc here
    finally:
        os.close(fd)


def check_writable_directory(directory: Path) -> None:
    """That files can be made in it; it is tried.

    Raises:
        OutputError: they cannot.
    """
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OutputError(
            f"the directory '{directory}' is not writable", hint="choose a directory that you may write to"
        )
    try:
        _try_to_make_a_file(directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EPERM, errno.EACCES):
            # As root, of /proc and /sys, where no modes count.
            raise OutputError(f"nothing can be made in '{directory}'", hint=_ANOTHER_PLACE) from error
        raise output_error(error, str(directory)) from error


def _try_to_make_a_file(directory: Path) -> None:
    if hasattr(os, "O_TMPFILE"):
        try:
            # It never gets a name, so not even the folder's time changes.
            os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            return
        except OSError as error:
            if error.errno not in NO_UNNAMED:
                raise
    trial = directory / temporary_name()
    trial.mkdir(mode=0o700)
    trial.rmdir()


def check_creatable(path: Path) -> None:
    """Parents that are missing will be made, as buildx does; the nearest that exists has to allow it."""
    for ancestor in Path(os.path.abspath(path)).parents:
        if ancestor.is_dir():
            check_writable_directory(ancestor)
            return
        if os.path.lexists(ancestor):
            raise OutputError(
                f"cannot write '{path}': '{ancestor}' is not a directory", hint="remove it or choose another place"
            )


class OutputWriter(ABC):
    """One stream on its way to its destination.  Every method blocks; call them from one thread at a time.

    The order is ``write``\\ * ``finish`` ``publish``, and ``discard`` at any time instead of what is left of it.
    """

    def __init__(self, fd: int, shown: str):
        self._fd = fd
        self._shown = shown
        self.written = 0
        """Bytes written so far."""

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Append all of ``parts``.

        Raises:
            OutputError: the disk is full, the reader went away, …
        """
        try:
            for done in write_all(self._fd, parts):
                self.written += done
        except OSError as error:
            raise output_error(error, self._shown, written=self.written) from error

    @abstractmethod
    def finish(self) -> None:
        """Everything was written: make it durable.

        Raises:
            OutputError: it could not be.
        """

    @abstractmethod
    def publish(self) -> None:
        """Let the output appear in its place.

        Raises:
            OutputError: it could not.
        """

    @abstractmethod
    def discard(self) -> None:
        """Leave the destination as it was before; idempotent, and does nothing after `publish`."""


def write_all(fd: int, parts: Sequence[bytes | memoryview]) -> Iterable[int]:
    """Write all of ``parts``, yielding how many bytes each system call took."""
    for group in _groups(parts):
        batch: Sequence[bytes | memoryview] = group
        while batch:
            done = os.writev(fd, batch)
            yield done
            batch = _without(batch, done)


def _groups(parts: Iterable[bytes | memoryview]) -> Iterable[list[bytes | memoryview]]:
    """What is written at once: so many parts as one call takes, or come to its best size."""
    group: list[bytes | memoryview] = []
    size = 0
    for part in parts:
        group.append(part)
        size += len(part)
        if size >= _AT_ONCE or len(group) == IOV_MAX:
            yield group
            group, size = [], 0
    if group:
        yield group


def _without(parts: Sequence[bytes | memoryview], done: int) -> Sequence[bytes | memoryview]:
    for index, part in enumerate(parts):
        if done < len(part):
            return [memoryview(part)[done:], *parts[index + 1 :]]
        done -= len(part)
    return []


class _PassedThrough(OutputWriter):
    """Standard output, a pipe, a device: what is written is gone."""

    def finish(self) -> None:
        self._close()

    def publish(self) -> None:
        self._close()

    def discard(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class _FilledInPlace(OutputWriter):
    """A regular file that has to stay the same file: a copy is made aside, and put into it last.

    Only when that last step fails is the file neither the old one nor the new one.
    """

    def __init__(self, target: str, shown: str):
        self._target = target
        self._copy: BinaryIO | None = _nameless_file(os.path.dirname(target))
        super().__init__(self._copy.fileno(), shown)

    def finish(self) -> None:
        pass  # what is written aside need not last

    def publish(self) -> None:
        if self._copy is None:
            return
        try:
            self._fill(self._copy)
        except OSError as error:
            raise output_error(error, self._shown) from error
        finally:
            self.discard()

    def _fill(self, copy: BinaryIO) -> None:
        target = os.open(self._target, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(target, 0)
            copy.seek(0)
            while part := copy.read(_STEP):
                for _ in write_all(target, [part]):
                    pass
            os.fsync(target)
        finally:
            os.close(target)

    def discard(self) -> None:
        self._fd = -1  # the number may soon be that of another file
        if self._copy is not None:
            copy, self._copy = self._copy, None
            copy.close()


def _nameless_file(folder: str) -> BinaryIO:
    """A file that is gone when it is closed: where the room is that is asked for, else among the temporary ones."""
    import tempfile

    try:
        return tempfile.TemporaryFile(buffering=0, dir=folder)
    except OSError:
        return tempfile.TemporaryFile(buffering=0)


class _WholeFile(OutputWriter):
    """A regular file that gets its name last (`NewFile`)."""

    def __init__(self, target: Path, shown: str, *, make_parents: bool):
        if make_parents:
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._target = target
        self._file = NewFile(os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        super().__init__(self._file.fd, shown)
        self._on_its_way = 0
        """Bytes that the kernel was told to begin to write to the disk."""

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        super().write(parts)
        size = self.written - self._on_its_way
        if size >= _STEP and sys.platform == "linux":
            # Of what is not on the disk yet, Linux takes this as the wish to begin: the end has less to wait for.
            os.posix_fadvise(self._fd, self._on_its_way, size, os.POSIX_FADV_DONTNEED)
            self._on_its_way = self.written

    def finish(self) -> None:
        try:
            os.fchmod(self._fd, self._mode())
            os.fsync(self._fd)
        except OSError as error:
            raise output_error(error, self._shown, written=self.written) from error

    def _mode(self) -> int:
        """That of the file to be replaced, as truncating it would keep it; else what the umask leaves."""
        try:
            old = os.lstat(self._target)
        except FileNotFoundError:
            return usual_mode()
        return stat_module.S_IMODE(old.st_mode) & 0o777

    def publish(self) -> None:
        if self._fd < 0:
            return
        try:
            self._file.replace(self._target.name)
        except OSError as error:
            raise output_error(error, self._shown) from error
        finally:
            self.discard()

    def discard(self) -> None:
        self._fd = -1  # the number may soon be that of another file
        self._file.close()
