"""Where a build's results go on this machine: the `Export` of a solve, and files that appear whole or not at all.

A tar, OCI or Docker archive comes as a stream of bytes and goes into one `OutputFile`, which gets its name only when
the build has succeeded.  Pipes and devices cannot be moved: they are written through.

What can be found out before the build is found out before it: `check_exports`.  This file must not know the session
or any protocol; the writing methods block and belong in a worker thread.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from cogkit.atomic_file import NewFile, usual_mode
from cogkit.errors import OutputError, UsageError
from cogkit.fast_dataclass import dataclass

PROTECTED_NAMES = frozenset({".git"})
"""Names that a directory export does not write unless asked to: what is in them is run by the next ``git status``."""

IOV_MAX = 1024
"""Buffers that one ``writev`` takes at most (Linux and macOS alike)."""

_AT_ONCE = 256 << 10
"""Bytes for one ``writev``.  Less are too many calls; for more, Linux takes large blocks of memory, which in a virtual
machine are those that the host has to give anew, page by page (``benchmarks/notes.md``)."""

_STEP = 8 << 20

_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


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
            return OutputError(f"'{place}' is on a read-only file system", hint="choose another place with dest=")
        case errno.EACCES | errno.EPERM:
            return OutputError(
                f"no permission to write '{place}'", hint="choose a place that you may write to, or change its owner"
            )
        case errno.EPIPE:
            return OutputError(f"the reader of '{place}' went away{after}")
        case errno.EMFILE | errno.ENFILE:
            return OutputError(f"too many open files while writing '{place}'", hint="raise the limit (ulimit -n)")
    return OutputError(f"cannot write '{place}'{after}: {os.strerror(error.errno or 0)}")


@dataclass(frozen=True)
class Export:
    """One result of a build: an exporter of BuildKit and where its output goes here.

    Args:
        type: ``image``, ``oci``, ``docker``, ``tar`` or ``local``.
        attrs: The exporter's attributes, without ``dest``.  ``allow-git=true`` lets a local export write ``.git``.
        file: Destination of a stream (``oci``, ``docker``, ``tar``).
        directory: Destination of a tree (``local``) or of an OCI layout (``oci`` and ``docker`` with ``tar=false``).
        protected_names: Names that a local export never writes, replaces or deletes, at any depth.
    """

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    file: OutputFile | None = None
    directory: Path | None = None
    protected_names: frozenset[str] = PROTECTED_NAMES

    @property
    def mirror(self) -> bool:
        """``mode=delete`` of a local export: what the result does not have is deleted from the directory."""
        return self.attrs.get("mode", "").strip().lower() == "delete"

    @property
    def is_layout(self) -> bool:
        """``tar=false``: the result is an OCI layout in `directory`, not an archive of one."""
        is_tar = self.attrs.get("tar", "true").strip().lower() not in _FALSE
        return self.type in ("oci", "docker") and not is_tar

    @property
    def refused_names(self) -> frozenset[str]:
        """`protected_names` with the user's ``allow-git`` taken into account."""
        allow_git = self.attrs.get("allow-git", "").strip().lower() in _TRUE
        return self.protected_names - {".git"} if allow_git else self.protected_names

    def check(self) -> None:
        """Find out before the build what would fail after it.

        Raises:
            OutputError: the destination cannot be written.
            UsageError: the destination makes no sense for this exporter.
        """
        if self.file is not None:
            self.file.check(self.type)
        if self.directory is not None:
            _check_directory(self.directory, self.type)


def check_exports(exports: Sequence[Export]) -> None:
    """`Export.check` of all of them, and that no two write the same file.

    Raises:
        OutputError, UsageError: see `Export.check`; also two outputs to one destination.
    """
    taken: set[str] = set()
    for export in exports:
        export.check()
        if export.file is None:
            continue
        place = export.file.place
        if place in taken:
            if export.file.is_stdout:
                raise UsageError("more than one output goes to standard output", hint="give one of them a dest= file")
            raise UsageError(f"more than one output goes to '{place}'", hint="give each output a dest= of its own")
        taken.add(place)


def _check_directory(directory: Path, exporter: str) -> None:
    if str(directory) == "-":
        raise UsageError(
            f"dest cannot be standard output for the {exporter} exporter", hint="give a directory, or use type=tar"
        )
    if directory.is_dir():
        _check_writable_directory(directory)
    elif os.path.lexists(directory):
        raise OutputError(
            f"the output directory '{directory}' is not a directory", hint="remove it or choose another dest="
        )
    else:
        _check_creatable(directory)


def _check_writable_directory(directory: Path) -> None:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OutputError(
            f"the output directory '{directory}' is not writable", hint="choose a directory that you may write to"
        )


def _check_creatable(path: Path) -> None:
    """Parents that are missing will be made, as buildx does; the nearest that exists has to allow it."""
    for ancestor in Path(os.path.abspath(path)).parents:
        if ancestor.is_dir():
            _check_writable_directory(ancestor)
            return
        if os.path.lexists(ancestor):
            raise OutputError(
                f"cannot write '{path}': '{ancestor}' is not a directory", hint="remove it or choose another dest="
            )


class OutputFile:
    """The destination of one stream: a path, or ``-`` for standard output.

    A symbolic link at the path is followed, as ``os.Create`` in buildx does: its target is what is replaced.  Missing
    parent directories are made.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)

    def __repr__(self) -> str:
        return f"OutputFile({self.path!r})"

    @property
    def is_stdout(self) -> bool:
        return self.path == "-"

    @property
    def place(self) -> str:
        """The real path that is written, or a name for standard output."""
        if self.is_stdout:
            return "standard output"
        return self.path if self._is_passed_through() else os.path.realpath(self.path)

    def _is_passed_through(self) -> bool:
        """Pipes, devices and the system's names for open files have no directory entry of ours to replace."""
        absolute = os.path.abspath(self.path)
        if absolute.startswith(("/dev/", "/proc/")) and not absolute.startswith("/dev/shm/"):
            return True
        try:
            mode = os.stat(self.path).st_mode
        except OSError:
            return False
        return not stat_module.S_ISREG(mode) and not stat_module.S_ISDIR(mode)

    def check(self, exporter: str) -> None:
        """See `Export.check`."""
        if self.is_stdout:
            self._check_stdout(exporter)
            return
        if not self.path:
            raise UsageError(f"the {exporter} exporter needs a file to write", hint="add dest=FILE to --output")
        path = Path(self.path)
        if path.is_dir() or self.path.endswith("/"):
            raise OutputError(f"the output file '{path}' is a directory", hint="name a file in it with dest=")
        if self._is_passed_through():
            if not os.access(path, os.W_OK):
                raise OutputError(f"the output file '{path}' is not writable", hint="choose another dest=")
            return
        real = Path(self.place)
        if real.exists() and not os.access(real, os.W_OK):
            raise OutputError(
                f"the output file '{path}' is not writable", hint="remove it, change its mode or choose another dest="
            )
        _check_creatable(real)

    @staticmethod
    def _check_stdout(exporter: str) -> None:
        try:
            os.fstat(1)
        except OSError as error:
            raise OutputError("standard output is closed, nothing can be written to it") from error
        if os.isatty(1):
            raise UsageError(
                f"dest file is required for {exporter} exporter: refusing to write to the terminal",
                hint="add dest=FILE to --output, or redirect standard output",
            )

    def open(self) -> OutputWriter:
        """Start writing.

        Raises:
            OutputError: the destination cannot be opened.
        """
        if self.is_stdout:
            sys.stdout.flush()
            return _PassedThrough(os.dup(1), self.place)
        try:
            if self._is_passed_through():
                return _PassedThrough(os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_TRUNC), self.path)
            return _WholeFile(Path(self.place), self.path)
        except OSError as error:
            raise output_error(error, self.path) from error


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


class _WholeFile(OutputWriter):
    """A regular file that gets its name last (`NewFile`)."""

    def __init__(self, target: Path, shown: str):
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._target = target
        self._file = NewFile(os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        super().__init__(self._file.fd, shown)
        self._on_its_way = 0
        """Bytes that the kernel was told to begin to write to the disk."""

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        super().write(parts)
        size = self.written - self._on_its_way
        if size >= _STEP and hasattr(os, "posix_fadvise"):
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
