"""Writes the entries of a received tree into one directory, and nowhere else.

The second of the two walls around the destination (the first is `validator`).  It trusts no name, neither the
sender's nor what another process does to the destination meanwhile:

- Every access is relative to an open directory.  Directories are opened one component at a time with ``O_NOFOLLOW``
  and must still be the very directory (device and inode) that this export made or found there: a directory swapped
  for a link, or for another directory, ends the export.
- Nothing is ever opened for writing by a name that existed before.  A file is written without a name (``O_TMPFILE``)
  or under a fresh one (``O_EXCL``) and moved into place when it is whole; moving replaces a link, it does not follow.
- Symbolic links are stored as they are, whatever they point at; nothing is written through them.
- Hard links only to files of this export; device nodes are refused; so are setuid, setgid and extended attributes
  that would give a file more power than its owner here had asked for (see `_permissions`, `_wanted_xattr`).

What upstream does and we keep: the owner is whoever runs the export, an entry that stands in the way is replaced
(also a directory by a file), existing directories get the modes and times that the tree says.

The blocking calls belong in worker threads: `DiskWriter` itself in one, each `FileWriter` in one of its own.
This file must not know packets, streams or asyncio.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cogkit.atomic_file import NEW_FLAGS, link_unnamed, new_unnamed, open_unnamed, temporary_name
from cogkit.buildkit.fsutil.closed_directories import DIRECTORY_FLAGS, open_directory
from cogkit.buildkit.fsutil.receiver import Chunk, Entry
from cogkit.buildkit.fsutil.stat import MODE_SETGID, MODE_SETUID, MODE_STICKY, Stat
from cogkit.buildkit.fsutil.validator import Kind, RefusedTreeError, printable
from cogkit.errors import OutputError
from cogkit.output_file import output_error, write_all

_OPEN_DIRECTORIES = 64
"""Open directories that each thread keeps: enough for locality, few enough for a limit of 256 descriptors."""

_ATTEMPTS = 10
"""How often a name is tried again that another process keeps changing."""


class _Directory:
    """A directory of the destination that this export made or entered."""

    __slots__ = ("final_mode", "ident", "inherits_group", "mtime", "name", "names", "parent", "path")

    def __init__(self, parent: _Directory | None, name: bytes, path: bytes, status: os.stat_result):
        self.parent = parent
        self.name = name
        self.path = path
        self.ident = (status.st_dev, status.st_ino)
        self.inherits_group = bool(status.st_mode & stat_module.S_ISGID) or status.st_gid != os.getegid()
        """What is created in it may get another group than ours."""
        self.final_mode: int | None = None
        """To be set when the export ends, however it ends."""
        self.mtime: int | None = None
        """To be set when the export has succeeded, nanoseconds."""
        self.names: set[bytes] = set()
        """What the tree has in it; kept for a mirror only."""


class _OpenDirectories:
    """Open descriptors of `_Directory`s, the most recently used ones.  Belongs to one thread."""

    def __init__(self, root: _Directory, root_fd: int):
        self._root = root
        self._root_fd = root_fd
        self._fds: OrderedDict[_Directory, int] = OrderedDict()

    def fd(self, directory: _Directory) -> int:
        """A descriptor that stays open until 63 other directories were asked for."""
        if directory is self._root:
            return self._root_fd
        fd = self._fds.get(directory)
        if fd is not None:
            self._fds.move_to_end(directory)
            return fd
        missing = [directory]
        parent = directory.parent
        while parent is not None and parent is not self._root and parent not in self._fds:
            missing.append(parent)
            parent = parent.parent
        fd = self._root_fd if parent is None or parent is self._root else self._fds[parent]
        for step in reversed(missing):
            fd = self.adopt(step, self._open(step, fd))
        return fd

    def adopt(self, directory: _Directory, fd: int) -> int:
        self._fds[directory] = fd
        if len(self._fds) > _OPEN_DIRECTORIES:
            os.close(self._fds.popitem(last=False)[1])
        return fd

    @staticmethod
    def _open(directory: _Directory, parent_fd: int) -> int:
        changed = f"'{printable(directory.path)}' was changed by something else while the export was written"
        try:
            fd = os.open(directory.name, DIRECTORY_FLAGS, dir_fd=parent_fd)
        except (NotADirectoryError, FileNotFoundError) as error:
            raise OutputError(changed) from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OutputError(changed) from error
            raise
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != directory.ident:
            os.close(fd)
            raise OutputError(changed)
        return fd

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


class DiskWriter:
    """One export into one directory, which is made if it does not exist.

    Call `make` for every entry in the tree's order, give the contents to `file_writer` objects, then `finish`; or
    `abort` at any time.  ``make``, ``finish`` and ``abort`` belong to one thread.

    Args:
        root: The destination.
        mirror: Delete what the tree does not have, when everything else has succeeded.
        protected_names: Names (lower case) that are neither replaced nor deleted, at any depth.

    Raises:
        OutputError: the directory cannot be made or opened.
    """

    def __init__(self, root: Path, *, mirror: bool = False, protected_names: frozenset[bytes] = frozenset()):
        self._shown = os.fspath(root)
        self._mirror = mirror
        self._protected = protected_names
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root_fd, closed_mode = open_directory(os.path.realpath(root))
        except OSError as error:
            raise output_error(error, self._shown) from error
        top = _Directory(None, b"", b"", os.fstat(self._root_fd))
        top.final_mode = closed_mode
        self._directories: dict[bytes, _Directory] = {b"": top}
        self._open = _OpenDirectories(top, self._root_fd)
        self._hardlinks: list[tuple[bytes, bytes]] = []
        self._closed = False
        unnamed = open_unnamed(self._root_fd)
        self._unnamed_files = unnamed is not None
        if unnamed is not None:
            os.close(unnamed)

    def make(self, entry: Entry) -> None:
        """Create what needs no contents: directories, links, pipes, empty files.

        Raises:
            RefusedTreeError: a device node.
            OutputError: the disk refuses.
        """
        stat = entry.stat
        parent, name = self._place(stat.path)
        if self._mirror:
            parent.names.add(name)
        with self._speaking_of(stat.path):
            match entry.kind:
                case Kind.DIRECTORY:
                    self._make_directory(parent, name, stat)
                case Kind.SYMLINK:
                    self._make_symlink(parent, name, stat)
                case Kind.HARDLINK:
                    self._hardlinks.append((stat.path, stat.linkname))
                case Kind.FIFO:
                    self._make_fifo(parent, name, stat)
                case Kind.DEVICE:
                    raise RefusedTreeError(
                        f"the result has the device node '{printable(stat.path)}', which is not created here",
                        hint="leave it out of the result, or have it written as a tar, which can hold it",
                    )
                case Kind.FILE:
                    pass

    def file_writer(self) -> FileWriter:
        """Writes files from one more thread; only those whose directories were made before."""
        return FileWriter(self, _OpenDirectories(self._directories[b""], self._root_fd))

    def finish(self) -> None:
        """All files are written: make the hard links, delete what a mirror has too much, set modes and times.

        Raises:
            OutputError: the disk refuses.
        """
        for path, target in self._hardlinks:
            with self._speaking_of(path):
                self._make_hardlink(path, target)
        if self._mirror:
            for directory in self._directories.values():
                with self._speaking_of(directory.path):
                    self._delete_unlisted(directory)
        for directory in reversed(self._directories.values()):
            with self._speaking_of(directory.path):
                self._complete(directory)
        self._close()

    def abort(self) -> None:
        """Leave what is complete, but no directory with a mode that only this export needed.  Idempotent."""
        if self._closed:
            return
        for directory in reversed(self._directories.values()):
            if directory.final_mode is not None:
                # The export has failed already and says why; a directory that cannot be reached is part of that.
                with contextlib.suppress(OSError, OutputError):
                    os.fchmod(self._open.fd(directory), directory.final_mode)
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._open.close()
        os.close(self._root_fd)

    # ---- placing

    def _place(self, path: bytes) -> tuple[_Directory, bytes]:
        parent, _, name = path.rpartition(b"/")
        return self._directories[parent], name

    @contextlib.contextmanager
    def _speaking_of(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise output_error(error, os.path.join(self._shown, printable(path))) from error

    def _replace(self, parent_fd: int, temporary: bytes, name: bytes, path: bytes) -> None:
        """Move a finished entry to its name, in place of whatever is there."""
        try:
            for _ in range(_ATTEMPTS):
                try:
                    os.rename(temporary, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
                    return
                except IsADirectoryError:
                    self._remove(parent_fd, name, path)
            raise OutputError(f"'{printable(path)}' was changed by something else while the export was written")
        finally:
            # Gone with the move; still there if that failed, or if both names were the same file already.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent_fd)

    # ---- kinds of entries

    def _make_directory(self, parent: _Directory, name: bytes, stat: Stat) -> None:
        parent_fd = self._open.fd(parent)
        for _ in range(_ATTEMPTS):
            created = True
            try:
                os.mkdir(name, 0o700, dir_fd=parent_fd)
            except FileExistsError:
                created = False
            try:
                fd, _ = open_directory(name, parent_fd)
                break
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent_fd)
        else:
            raise OutputError(f"'{printable(stat.path)}' was changed by something else while the export was written")
        status = os.fstat(fd)
        directory = _Directory(parent, name, stat.path, status)
        directory.final_mode = _permissions(stat)
        directory.mtime = stat.mod_time
        self._directories[stat.path] = directory
        self._open.adopt(directory, fd)
        if created and parent.inherits_group:
            os.fchown(fd, -1, os.getegid())
        _set_xattrs(fd, stat)

    def _make_symlink(self, parent: _Directory, name: bytes, stat: Stat) -> None:
        parent_fd = self._open.fd(parent)
        temporary = name
        try:
            os.symlink(stat.linkname, name, dir_fd=parent_fd)
        except FileExistsError:
            temporary = temporary_name().encode()
            os.symlink(stat.linkname, temporary, dir_fd=parent_fd)
        if parent.inherits_group:
            os.chown(temporary, -1, os.getegid(), dir_fd=parent_fd, follow_symlinks=False)
        os.utime(temporary, ns=(stat.mod_time, stat.mod_time), dir_fd=parent_fd, follow_symlinks=False)
        if temporary is not name:
            self._replace(parent_fd, temporary, name, stat.path)

    def _make_fifo(self, parent: _Directory, name: bytes, stat: Stat) -> None:
        parent_fd = self._open.fd(parent)
        temporary = temporary_name().encode()
        os.mkfifo(temporary, 0o600, dir_fd=parent_fd)
        fd = os.open(temporary, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            if not stat_module.S_ISFIFO(os.fstat(fd).st_mode):
                raise OutputError(f"'{printable(stat.path)}' was changed by something else while it was written")
            _dress(fd, stat, parent)
        finally:
            os.close(fd)
        self._replace(parent_fd, temporary, name, stat.path)

    def _make_hardlink(self, path: bytes, target: bytes) -> None:
        """Linked by descriptor where that works, so that what was looked at is what gets the second name."""
        target_parent, target_name = self._place(target)
        source = os.open(
            target_name, getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW, dir_fd=self._open.fd(target_parent)
        )
        try:
            if not stat_module.S_ISREG(os.fstat(source).st_mode):
                raise OutputError(f"'{printable(target)}' was changed by something else while the export was written")
            parent, name = self._place(path)
            parent_fd = self._open.fd(parent)
            temporary = temporary_name().encode()
            if self._unnamed_files:
                link_unnamed(source, temporary, parent_fd)
            else:
                target_fd = self._open.fd(target_parent)
                os.link(target_name, temporary, src_dir_fd=target_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
            self._replace(parent_fd, temporary, name, path)
        finally:
            os.close(source)

    def _complete(self, directory: _Directory) -> None:
        if directory.final_mode is None:
            return
        fd = self._open.fd(directory)
        os.fchmod(fd, directory.final_mode)
        if directory.mtime is not None:
            os.utime(fd, ns=(directory.mtime, directory.mtime))

    # ---- removing

    def _delete_unlisted(self, directory: _Directory) -> None:
        fd = self._open.fd(directory)
        for name in _names(fd):
            if name not in directory.names and name.lower() not in self._protected:
                path = os.path.join(directory.path, name)
                if self._protected_below(fd, name, path) is None:
                    self._remove(fd, name, path)

    def _remove(self, parent_fd: int, name: bytes, path: bytes) -> None:
        """Delete a file, or a directory with all that is in it, following nothing and leaving this file system alone.

        Raises:
            OutputError: a protected name is in it; nothing was deleted.
        """
        try:
            os.unlink(name, dir_fd=parent_fd)
            return
        except IsADirectoryError:
            pass
        except PermissionError:
            if not _is_directory(parent_fd, name):  # what macOS says to unlinking one
                raise
        protected = self._protected_below(parent_fd, name, path)
        if protected is not None:
            raise OutputError(
                f"the result would replace the directory '{printable(path)}', which has '{printable(protected)}' in it",
                hint="move the directory away, or choose another destination",
            )
        for directory_fd, child, is_directory, _ in _walk_up(parent_fd, name, path):
            if is_directory:
                os.rmdir(child, dir_fd=directory_fd)
            else:
                os.unlink(child, dir_fd=directory_fd)

    def _protected_below(self, parent_fd: int, name: bytes, path: bytes) -> bytes | None:
        if not self._protected or not _is_directory(parent_fd, name):
            return None
        found = None
        for _, child, _, child_path in _walk_up(parent_fd, name, path):
            if child.lower() in self._protected:
                found = found or child_path
        return found


class FileWriter:
    """Writes contents of files; belongs to one thread, which may have several files half done at once."""

    def __init__(self, disk: DiskWriter, directories: _OpenDirectories):
        self._disk = disk
        self._directories = directories
        self._started: dict[Entry, _NewFile] = {}

    def write(self, chunk: Chunk) -> None:
        """Append to a file; with the last chunk it gets its metadata and appears in its place.

        Raises:
            OutputError: the disk refuses.
        """
        entry = chunk.entry
        parent, name = self._disk._place(entry.stat.path)
        with self._disk._speaking_of(entry.stat.path):
            parent_fd = self._directories.fd(parent)
            file = self._started.get(entry)
            if file is None:
                file = self._started[entry] = _NewFile(self._disk, parent_fd)
            file.append(chunk.parts)
            if chunk.last:
                file.publish(self._disk, parent, parent_fd, name, entry.stat)
                del self._started[entry]

    def close(self) -> None:
        """Discard the files that are not whole."""
        while self._started:
            entry, file = self._started.popitem()
            parent, _ = self._disk._place(entry.stat.path)
            # The export has failed already and says why; a directory that cannot be reached is part of that.
            with contextlib.suppress(OSError, OutputError):
                file.discard(self._directories.fd(parent))
        self._directories.close()


class _NewFile:
    """A file being written, without a name or with a temporary one.

    Unlike `cogkit.atomic_file.NewFile` it neither owns nor syncs its directory: there are thousands of files, and
    whether they can be without a name is tried once for all of them.
    """

    __slots__ = ("_fd", "_temporary")

    def __init__(self, disk: DiskWriter, parent_fd: int):
        self._temporary: bytes | None = None
        # None also if another file system is mounted below the destination.
        fd = new_unnamed(parent_fd) if disk._unnamed_files else None
        if fd is None:
            self._temporary = temporary_name().encode()
            fd = os.open(self._temporary, NEW_FLAGS, 0o600, dir_fd=parent_fd)
        self._fd = fd

    def append(self, parts: Sequence[bytes | memoryview]) -> None:
        for _ in write_all(self._fd, parts):
            pass

    def publish(self, disk: DiskWriter, parent: _Directory, parent_fd: int, name: bytes, stat: Stat) -> None:
        _dress(self._fd, stat, parent)
        if self._temporary is None:
            try:
                link_unnamed(self._fd, name, parent_fd)
                self._close()
                return
            except FileExistsError:
                self._temporary = temporary_name().encode()
                link_unnamed(self._fd, self._temporary, parent_fd)
        self._close()
        disk._replace(parent_fd, self._temporary, name, stat.path)

    def discard(self, parent_fd: int) -> None:
        self._close()
        if self._temporary is not None:
            os.unlink(self._temporary, dir_fd=parent_fd)

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


# ---- metadata


def _dress(fd: int, stat: Stat, parent: _Directory) -> None:
    """Owner, attributes, mode and times of a new file; in this order, for the first take away what the later give."""
    if parent.inherits_group:
        os.fchown(fd, -1, os.getegid())
    _set_xattrs(fd, stat)
    os.fchmod(fd, _permissions(stat))
    os.utime(fd, ns=(stat.mod_time, stat.mod_time))


def _permissions(stat: Stat) -> int:
    """The mode as ``chmod`` takes it.

    setuid and setgid mean "runs as the owner, the group, of this file"; the owner becomes whoever runs the export, so
    they are kept only where that is who it was.
    """
    mode = stat.mode & 0o777
    if stat.mode & MODE_STICKY:
        mode |= stat_module.S_ISVTX
    if stat.mode & MODE_SETUID and stat.uid == os.geteuid():
        mode |= stat_module.S_ISUID
    if stat.mode & MODE_SETGID and stat.gid == os.getegid():
        mode |= stat_module.S_ISGID
    return mode


def _wanted_xattr(name: str, stat: Stat) -> bool:
    """``user.*`` is data.  File capabilities are like setuid root, so they are kept like that: root's, by root.

    ACLs, labels and ``trusted.*`` speak of users, policies and file systems of another machine.
    """
    return name.startswith("user.") or (name == "security.capability" and stat.uid == os.geteuid() == 0)


def _set_xattrs(fd: int, stat: Stat) -> None:
    xattrs: Mapping[str, bytes] | None = stat.xattrs
    if not xattrs or not hasattr(os, "setxattr"):
        return
    for name, value in xattrs.items():
        if _wanted_xattr(name, stat):
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                # A file system without them, or with less room: the file is worth more than its attributes.
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENOSPC, errno.E2BIG, errno.ERANGE):
                    raise


# ---- walking what is there


def _names(fd: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(fd)]


def _is_directory(parent_fd: int, name: bytes) -> bool:
    try:
        return stat_module.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _walk_up(parent_fd: int, name: bytes, path: bytes) -> Iterator[tuple[int, bytes, bool, bytes]]:
    """What is in a directory, each child before its parent, the directory itself last.

    Yields:
        (open directory, name in it, whether that is a directory, path): each may be removed when it comes.
    """
    device = os.fstat(parent_fd).st_dev
    stack: list[_Entered] = []
    try:
        stack.append(_enter(parent_fd, name, path, device))
        while stack:
            here = stack[-1]
            if not here.children:
                stack.pop()
                here.leave()
                yield (stack[-1].fd if stack else parent_fd), here.name, True, here.path
                continue
            child = here.children.pop()
            child_path = os.path.join(here.path, child)
            if _is_directory(here.fd, child):
                stack.append(_enter(here.fd, child, child_path, device))
            else:
                yield here.fd, child, False, child_path
    finally:
        for entered in reversed(stack):
            entered.leave()


class _Entered(NamedTuple):
    """A directory on the way of `_walk_up`."""

    fd: int
    name: bytes
    path: bytes
    children: list[bytes]
    closed_mode: int | None
    """The mode that it gets again, if it had to be changed."""

    def leave(self) -> None:
        if self.closed_mode is not None:
            os.fchmod(self.fd, self.closed_mode)
        os.close(self.fd)


def _enter(parent_fd: int, name: bytes, path: bytes, device: int) -> _Entered:
    fd, closed_mode = open_directory(name, parent_fd)
    try:
        if os.fstat(fd).st_dev != device:
            raise OutputError(
                f"'{printable(path)}' has another file system mounted on it and is not removed",
                hint="unmount it, or choose another destination",
            )
        return _Entered(fd, name, path, _names(fd), closed_mode)
    except BaseException:
        os.close(fd)
        raise
