"""Reading a local tree: all disk access of the sending side.

Every name is looked up relative to an open directory and never through a symbolic link, so that a directory which
somebody replaces by a link while a build runs leads nowhere: neither out of the tree nor into a hidden part of it.
Names that a mount hides are dropped as soon as the root is listed.

This file knows nothing of packets, threads or asyncio; but an open `Tree` does not change, so threads may share it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
import sys
from collections.abc import Generator, Iterator
from itertools import compress

from cogkit.buildkit.fsutil import gopath, own_directory
from cogkit.buildkit.fsutil.batch import Batch
from cogkit.buildkit.fsutil.filesystem_type import filesystem_type, is_made_up
from cogkit.buildkit.fsutil.filter import FilterState, TreeFilter
from cogkit.buildkit.fsutil.packet import decode_packet
from cogkit.buildkit.fsutil.stat import MODE_TYPE, Stat, device_number, go_mode
from cogkit.buildkit.mounts import LocalMount
from cogkit.errors import CogkitError

BATCH = 1024
"""About so many entries has a `Batch`; a few more if directories have to be sent along."""

FIRST_BATCH = 128
"""So many has the first one, and the next ones twice as many each, so that the daemon soon has something to do."""

_OPEN_DIRS = 64
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a file that became a fifo meanwhile must not block us; for regular files it means nothing.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What opening says of something that went away, or became another kind of thing, after it was listed."""
_DENIED = frozenset({errno.EACCES, errno.EPERM})
_ENCODING = sys.getfilesystemencoding()
_UTF8 = _ENCODING.lower().replace("-", "") == "utf8"
_SPECIAL = stat_module.S_IFBLK | stat_module.S_IFCHR


class MountError(CogkitError):
    """A directory that the build was given, or something in it, cannot be read."""


class Tree:
    """A mount, opened for reading.  A context manager.

    Raises:
        MountError: the root does not exist, is no directory, or cannot be read.
    """

    def __init__(self, mount: LocalMount):
        self.mount = mount
        self.abandoned = False
        try:
            # The path by which attributes are read later must not change its meaning with the working directory.
            self._path = os.path.realpath(os.fsencode(mount.root), strict=True)
            self._fd = os.open(self._path, _DIR_FLAGS)
        except OSError as error:
            raise _root_error(mount, error) from None
        self._hidden = {_on_disk(name) for name in mount.hidden}
        self._only = {_on_disk(name) for name in mount.only} if mount.only is not None else None
        # A hidden directory may have other names: on a file system without regard to case, by a bind mount, or because
        # the hidden name is a link to it.
        self._hidden_ids = {id for id in map(self._directory_id, self._hidden) if id is not None}

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def abandon(self) -> None:
        """Let walks in other threads end at the next directory."""
        self.abandoned = True

    def close(self) -> None:
        """Close the root; harmless if it is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _directory_id(self, name: bytes) -> tuple[int, int] | None:
        """Device and inode of a directory directly under the root; None if there is none."""
        try:
            stat = os.stat(name, dir_fd=self._fd)
        except OSError:
            return None
        return (stat.st_dev, stat.st_ino) if stat_module.S_ISDIR(stat.st_mode) else None

    def exists(self, name: bytes) -> bool:
        """Whether a name directly under the root is one that the daemon may know of."""
        return name not in self._hidden and (self._only is None or name in self._only)

    # ---- looking up single paths

    def open_dir(self, path: bytes) -> int:
        """Open a directory of the tree, ``b""`` for the root; the caller closes it.

        Raises:
            OSError: it is not there, is hidden, or a part of the path is a symbolic link.
        """
        if b"\0" in path:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        parts = path.split(b"/") if path else []
        if parts and (not self.exists(parts[0]) or b".." in parts):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        fd = os.open(b".", _DIR_FLAGS, dir_fd=self._fd)
        for part in parts:
            try:
                inner = os.open(part, _DIR_FLAGS, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
            if self._hidden_ids and self.is_hidden(os.fstat(fd)):
                os.close(fd)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return fd

    def is_hidden(self, stat: os.stat_result) -> bool:
        """Whether a directory is a hidden one, by whatever name it was found."""
        return (stat.st_dev, stat.st_ino) in self._hidden_ids

    def disk_path(self, path: bytes) -> bytes:
        """Where a directory of the tree was when it was opened, with a slash at its end."""
        return os.path.join(self._path, path, b"")

    def lstat(self, path: bytes) -> os.stat_result:
        """Stat an entry without following links.

        Raises:
            OSError: as `open_dir`.
        """
        directory, _, name = path.rpartition(b"/")
        if not name or name in (b".", b"..") or (not directory and not self.exists(name)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if b"\0" in name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        fd = self.open_dir(directory)
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(fd)

    def readlink(self, path: bytes) -> bytes | None:
        """The target of a symbolic link, or None if the path is something else.

        Raises:
            OSError: as `open_dir`.
        """
        if not stat_module.S_ISLNK(self.lstat(path).st_mode):
            return None
        directory, _, name = path.rpartition(b"/")
        fd = self.open_dir(directory)
        try:
            return os.readlink(name, dir_fd=fd)
        finally:
            os.close(fd)

    def list_dir(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted by bytes.

        Raises:
            OSError: as `open_dir`.
        """
        fd = self.open_dir(path)
        try:
            names = sorted(map(_on_disk, os.listdir(fd)))
        finally:
            os.close(fd)
        return names if path else [name for name in names if self.exists(name)]

    def unreadable(self, path: bytes, error: OSError) -> MountError:
        """The error to show for something in the tree that cannot be read."""
        return unreadable(self.mount, path, error)

    # ---- the walk

    def walk(self, filter: TreeFilter | None = None, *, in_own_thread: bool = False) -> Generator[Batch, None, None]:
        """All entries that the filter keeps, in the protocol's order: a directory before what is in it, names by bytes.

        What goes away between being listed and being looked at is left out.

        Args:
            filter: What is left out and what comes without its content; nothing if None.
            in_own_thread: The calling thread does nothing else, so that its working directory may be changed.

        Raises:
            MountError: something that is not filtered away cannot be read.
            PatternError: see `FilterState`.
        """
        return _Walk(self, filter.root if filter is not None else None, in_own_thread).run()

    def reader(self) -> ContentReader:
        """What reads the content of files; one per thread."""
        return ContentReader(self)


def unreadable(mount: LocalMount, path: bytes, error: OSError) -> MountError:
    """The error to show for something in a mount that cannot be read."""
    shown = printable(path) or "."
    place = os.path.join(os.fsencode(mount.root), path)
    if error.errno in _DENIED:
        message = f"permission denied: cannot read '{shown}' of the directory '{mount.name}'"
    else:
        message = f"cannot read '{shown}' of the directory '{mount.name}': {error.strerror or error}"
    return MountError(message, where=printable(place), hint=_way_out(mount, place, denied=error.errno in _DENIED))


def _way_out(mount: LocalMount, place: bytes, *, denied: bool) -> str | None:
    ignore_file = printable(os.fsencode(mount.ignore_file)) if mount.ignore_file is not None else ".dockerignore"
    leave_out = f"leave it out of the build in {ignore_file}"
    type = filesystem_type(place)
    if type is not None and is_made_up(type):
        if filesystem_type(os.fsencode(mount.root)) == type:
            leave_out = "give another folder"
        return f"It is on a filesystem of type {type}, which the kernel makes up: {leave_out}."
    if not denied:
        return None if type is None else f"It is on a filesystem of type {type}; if it is not needed, {leave_out}."
    if os.geteuid() == 0:
        # Nothing that root may change in the permissions would help.
        where = "" if type is None else f" by its filesystem, which is of type {type}"
        return f"Even root is refused{where}: {leave_out}."
    return f"Make it readable (chmod), or {leave_out}."


def printable(path: bytes) -> str:
    """A path for a message: one line, nothing that a terminal would act on."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _on_disk(name: str) -> bytes:
    return name.encode(_ENCODING, "surrogateescape")


def _root_error(mount: LocalMount, error: OSError) -> MountError:
    shown = printable(os.fsencode(mount.root))
    what = f"the directory '{mount.name}' of the build"
    if error.errno == errno.ENOENT:
        return MountError(f"{what} does not exist", where=shown, hint="Give the path of an existing directory.")
    if error.errno == errno.ENOTDIR:
        return MountError(f"{what} is not a directory", where=shown, hint="Give the path of a directory.")
    if error.errno == errno.ELOOP:
        return MountError(f"{what} is a loop of symbolic links", where=shown, hint="Give the path of a directory.")
    if error.errno in _DENIED:
        hint = "Make the directory readable (chmod)." if os.geteuid() else None
        return MountError(f"permission denied: cannot read {what}", where=shown, hint=hint)
    return MountError(f"cannot read {what}: {error.strerror}", where=shown)


class _Frame:
    """A directory that the walk is in."""

    __slots__ = ("at", "directories", "disk_path", "fd", "id", "lookup", "names", "path", "state", "text", "unsent")

    def __init__(self, path: bytes, text: str, disk_path: bytes, fd: int, state: FilterState | None):
        self.path = path
        """In the tree; like the other two with a slash at its end, but empty for the root."""
        self.text = text
        """The same as `str`; only kept up if there are patterns to be asked."""
        self.disk_path = disk_path
        self.lookup = disk_path
        """What to put before a name to read its extended attributes."""
        self.fd = fd
        """-1 while it is closed in order to have fewer open."""
        self.state = state
        self.id = (0, 0)
        self.names: list[bytes] = []
        self.directories: set[bytes] = set()
        self.at = 0
        self.unsent: Stat | None = None
        """The directory's own entry if it is sent only together with something in it."""


class _Walk:
    """One walk.  A stack of directories instead of recursion: trees may be deeper than Python's stack."""

    def __init__(self, tree: Tree, state: FilterState | None, in_own_thread: bool):
        self._tree = tree
        self._in_own_thread = in_own_thread
        self._in_own_directory = False
        """The thread's working directory is its own, and always the innermost directory of the walk."""
        self._reset_owner = tree.mount.reset_owner
        self._links: dict[tuple[int, int], bytes] = {}
        """Where a file with several names was first sent.  fsutil looks at the inode number alone, and so can take
        files of different file systems for one; that is not copied."""
        self._batch = Batch()
        self._full = FIRST_BATCH
        self._checked = 0
        """So many entries of the batch have attributes that are known to be of this tree (`_check_attributes`)."""
        self._stack: list[_Frame] = []
        self._first_open = 0
        """Frames below this place in the stack are closed, the others open."""
        self._unsent = 0
        self._state = state

    def run(self) -> Generator[Batch, None, None]:
        try:
            fd = self._tree.open_dir(b"")
            self._push(_Frame(b"", "", self._tree.disk_path(b""), fd, self._state), os.fstat(fd))
            try:
                while self._stack and not self._tree.abandoned:
                    yield from self._continue(self._stack[-1])
            except CogkitError:
                # What came before the error is sent, as upstream does.
                yield from self._flush()
                raise
            yield from self._flush()
        finally:
            for frame in self._stack:
                if frame.fd >= 0:
                    os.close(frame.fd)

    def _continue(self, frame: _Frame) -> Iterator[Batch]:
        """Go on in the innermost directory until a subdirectory is entered or all is done."""
        if frame.fd >= 0 or self._reopen(frame):
            self._be_in(frame)
            names = frame.names
            directories = frame.directories
            keeps = frame.state.keeps if frame.state is not None else None
            withholds = frame.state.withholds if frame.state is not None else None
            while frame.at < len(names):
                name = names[frame.at]
                frame.at += 1
                if len(self._batch) >= self._full:
                    self._check_attributes(frame)
                    yield from self._flush()
                    self._be_in(frame)
                if name in directories:
                    if self._enter(frame, name):
                        return
                elif keeps is None:
                    self._send(frame, name)
                else:
                    text = gopath.to_str(name)
                    path = frame.text + text
                    if keeps(text, path) and self._send(frame, name) and withholds and withholds(text, path):
                        self._batch.withhold()
            self._check_attributes(frame)
        self._pop(frame)
        if len(self._batch) >= self._full:
            yield from self._flush()

    def _flush(self) -> Iterator[Batch]:
        if self._batch:
            yield self._batch
            self._batch = Batch()
            self._checked = 0
            self._full = min(2 * self._full, BATCH)

    def _be_in(self, frame: _Frame) -> None:
        """Read attributes relative to ``frame`` from now on, if the thread can have a working directory of its own."""
        if self._in_own_thread and self._full > FIRST_BATCH:  # the walk has shown that it is a longer one
            self._in_own_thread = False
            self._in_own_directory = own_directory.separate()
        if self._in_own_directory:
            try:
                os.fchdir(frame.fd)
                frame.lookup = b""
            except OSError:  # as if it may be listed and not searched: whatever of it is read, that says so
                frame.lookup = _by_descriptor(frame.fd, b"")

    # ---- the stack

    def _push(self, frame: _Frame, stat: os.stat_result) -> None:
        frame.id = (stat.st_dev, stat.st_ino)
        self._stack.append(frame)
        self._unsent += frame.unsent is not None
        if len(self._stack) - self._first_open > _OPEN_DIRS:
            oldest = self._stack[self._first_open]
            os.close(oldest.fd)
            oldest.fd = -1
            self._first_open += 1
        try:
            with os.scandir(frame.fd) as entries:
                listed = list(entries)
            # All names are encoded in one go: no name holds a NUL.
            names = _on_disk("\0".join([entry.name for entry in listed])).split(b"\0") if listed else []
            directories = [entry.is_dir(follow_symlinks=False) for entry in listed]
        except OSError as error:
            raise self._tree.unreadable(frame.path[:-1], error) from None
        frame.directories = set(compress(names, directories))
        frame.names = sorted(names if frame.path else filter(self._tree.exists, names))

    def _pop(self, frame: _Frame) -> None:
        self._stack.pop()
        self._unsent -= frame.unsent is not None
        if frame.fd >= 0:
            os.close(frame.fd)

    def _reopen(self, frame: _Frame) -> bool:
        """Open the innermost directory again; False if it is no longer the one it was."""
        try:
            fd = self._tree.open_dir(frame.path[:-1])
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise self._tree.unreadable(frame.path[:-1], error) from None
        stat = os.fstat(fd)
        if (stat.st_dev, stat.st_ino) != frame.id:
            os.close(fd)
            return False
        frame.fd = fd
        self._first_open = len(self._stack) - 1
        return True

    # ---- entries

    def _enter(self, frame: _Frame, name: bytes) -> bool:
        """Enter a subdirectory, and send its own entry if the filter keeps that; False if it is passed over."""
        kept = True
        inner = None
        text = ""
        if frame.state is not None:
            own_name = gopath.to_str(name)
            text = frame.text + own_name
            kept, inner = frame.state.enter(own_name, text)
            if inner is None:
                return False
        path = frame.path + name
        try:
            fd = os.open(name, _DIR_FLAGS, dir_fd=frame.fd)
        except OSError as error:
            if error.errno in _GONE:
                return False
            if error.errno in _DENIED and not kept and inner is not None and not inner.may_keep:
                return False  # whatever is in it, nobody wants it
            raise self._tree.unreadable(path, error) from None
        stat = os.fstat(fd)
        if self._tree.is_hidden(stat):
            os.close(fd)
            return False
        self._check_attributes(frame)
        entered = _Frame(path + b"/", text + "/", frame.disk_path + name + b"/", fd, inner)
        try:
            own = self._directory(path, fd, stat)
        except BaseException:
            os.close(fd)
            raise
        if kept:
            self._append(own)
            self._checked = len(self._batch)
        else:
            entered.unsent = own
        self._push(entered, stat)
        return True

    def _directory(self, path: bytes, fd: int, stat: os.stat_result) -> Stat:
        entry = Stat(path, go_mode(stat.st_mode), mod_time=stat.st_mtime_ns)
        if not self._reset_owner:
            entry.uid, entry.gid = stat.st_uid, stat.st_gid
        try:
            entry.xattrs = _xattrs(fd)
        except OSError as error:
            raise self._tree.unreadable(path, error) from None
        return entry

    def _send(self, frame: _Frame, name: bytes) -> bool:
        """Add an entry that is not a directory to the batch; False if it went away."""
        path = frame.path + name
        try:
            stat = os.stat(name, dir_fd=frame.fd, follow_symlinks=False)
            xattrs = _xattrs_of_path(frame.lookup + name, frame.fd, name)
            mode = go_mode(stat.st_mode)
            if xattrs is None and stat.st_nlink == 1 and not mode & MODE_TYPE and self._reset_owner:
                if self._unsent:
                    self._append_unsent()
                self._batch.add_file(path, mode, stat.st_size, stat.st_mtime_ns)
                return True
            entry = Stat(path, mode, 0, 0, stat.st_size, stat.st_mtime_ns, xattrs=xattrs)
            if not self._reset_owner:
                entry.uid, entry.gid = stat.st_uid, stat.st_gid
            if stat.st_nlink > 1:
                entry.linkname = self._link(stat, path)
            if stat.st_mode & _SPECIAL:  # devices, and symbolic links, which have no device number
                entry.devmajor, entry.devminor = device_number(stat.st_rdev)
                if stat_module.S_ISLNK(stat.st_mode):
                    entry.linkname = os.readlink(name, dir_fd=frame.fd)
        except OSError as error:
            if error.errno in _GONE or error.errno == errno.EINVAL:  # EINVAL: readlink of what is no link any more
                return False
            raise self._tree.unreadable(path, error) from None
        if entry.is_dir:
            return False  # it was none when it was listed
        self._append(entry)
        return True

    def _link(self, stat: os.stat_result, path: bytes) -> bytes:
        """The earlier path of the same file, or nothing; remembers the first."""
        first = self._links.setdefault((stat.st_dev, stat.st_ino), path)
        return b"" if first is path else first

    def _append(self, entry: Stat) -> None:
        if self._unsent:
            self._append_unsent()
        self._batch.add(entry)

    def _append_unsent(self) -> None:
        """Add the directories above that are sent only together with something in them."""
        for frame in self._stack:
            if frame.unsent is not None:
                self._batch.add(frame.unsent)
                frame.unsent = None
        self._unsent = 0

    # ---- extended attributes

    def _check_attributes(self, frame: _Frame) -> None:
        """Make sure that the attributes of the last entries are those of the directory that is open.

        There is no call that reads attributes relative to an open directory, so they were read by path, unless we have
        a working directory of our own.  If the path leads elsewhere now, they are read again by a way that cannot:
        right, but three times as slow.
        """
        batch = self._batch
        if self._checked == len(batch) or self._in_own_directory:
            return
        fresh = range(self._checked, len(batch))
        self._checked = len(batch)
        try:
            stat = os.stat(frame.disk_path)
        except OSError:
            stat = None
        if stat is not None and (stat.st_dev, stat.st_ino) == frame.id:
            return
        for place in fresh:
            entry = decode_packet(batch.packets[place]).stat
            assert entry is not None, "a batch has nothing but entries"
            if not entry.is_dir:
                name = entry.path[len(frame.path) :]
                try:
                    entry.xattrs = _xattrs(_by_descriptor(frame.fd, name))
                except OSError as error:
                    if error.errno not in _GONE:
                        raise self._tree.unreadable(entry.path, error) from None
                    entry.xattrs = None
                batch.replace(place, entry)


def _by_descriptor(fd: int, name: bytes) -> bytes:
    return b"/proc/self/fd/%d/%b" % (fd, name)


def _xattrs_of_path(path: bytes, directory_fd: int, name: bytes) -> dict[str, bytes] | None:
    try:
        return _xattrs(path)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    return _xattrs(_by_descriptor(directory_fd, name))


def _xattrs(path: bytes | int) -> dict[str, bytes] | None:
    """The extended attributes as fsutil sends them; None without any.

    Raises:
        OSError: they cannot be listed.  One whose value cannot be read is left out, as upstream does.
    """
    if sys.platform != "darwin":
        follow = isinstance(path, int)
        try:
            names = os.listxattr(path, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return None
            raise
        if names:
            found: dict[str, bytes] = {}
            for name in names:
                if name.startswith("com.apple."):
                    continue
                with contextlib.suppress(OSError):
                    key = name if _UTF8 else gopath.to_str(_on_disk(name))
                    found[key] = os.getxattr(path, name, follow_symlinks=follow)
            return found or None
    # Python has no calls for them on macOS, whose own mean nothing to a builder.
    return None


class ContentReader:
    """Reads the content of files of a tree.  One per thread: it keeps open the directory it was in last."""

    def __init__(self, tree: Tree):
        self._tree = tree
        self._directory: bytes | None = None
        self._fd = -1
        self.bytes_read = 0
        """Over all files."""

    def close(self) -> None:
        """Close the directory; the reader can be used again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._directory = None

    def read(self, path: bytes, chunk: int) -> Iterator[bytes]:
        """The content in pieces of at most ``chunk`` bytes, none of them empty.

        Nothing comes from a file that went away or is no longer a regular file.  What is appended after it was opened
        is not read, so that a file which somebody keeps writing to has an end.

        Raises:
            MountError: it is there and cannot be read.
        """
        fd = self._open(path)
        if fd is None:
            return
        try:
            stat = os.fstat(fd)
            if not stat_module.S_ISREG(stat.st_mode):
                return
            # Files of procfs and the like say they are empty and are not.
            left = stat.st_size or sys.maxsize
            while left:
                piece = os.read(fd, min(chunk, left))
                if not piece:
                    return
                left -= len(piece)
                self.bytes_read += len(piece)
                yield piece
        except OSError as error:
            raise self._tree.unreadable(path, error) from None
        finally:
            os.close(fd)

    def _open(self, path: bytes) -> int | None:
        directory, _, name = path.rpartition(b"/")
        if not directory and not self._tree.exists(name):
            return None
        try:
            if directory != self._directory:
                self.close()
                self._fd = self._tree.open_dir(directory)
                self._directory = directory
            return os.open(name, _FILE_FLAGS, dir_fd=self._fd)
        except OSError as error:
            if error.errno in _GONE or error.errno == errno.ENXIO:  # ENXIO: a socket
                return None
            raise self._tree.unreadable(path, error) from None
