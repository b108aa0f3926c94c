"""Which files of a folder changed since a moment, sent as a tree by the file-sync protocol.

Runs in the container as `relay` does: the standard library only, the syntax of Python 3.7.  What changed is what has a
new name or, by the file's own change time, was touched after the start.  The receiver is
`cogkit.buildkit.fsutil.receiver`, which trusts nothing of this.  Packets have four bytes of length before them.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import deque
from collections.abc import Iterator

PIECE = 32 * 1024
_MODE_DIR, _MODE_SYMLINK = 1 << 31, 1 << 27
_LENGTH = struct.Struct(">I")
_REQ, _FIN = 1, 3


class Watched:
    """A folder as it is before anything has changed.

    Args:
        root: The folder.
        hidden: Names at its top that do not exist.
        skipped: Names that do not exist anywhere in it.
    """

    def __init__(self, root: str, hidden: list[str], skipped: list[str]) -> None:
        self._root = os.fsencode(root)
        self._hidden = {os.fsencode(name) for name in hidden}
        self._skipped = {os.fsencode(name) for name in skipped}
        self._names = {path for path, _ in self._walk()}
        self._start = self._clock()

    def changes(self) -> Changes:
        """What has changed."""
        return Changes(self._root, self._changed())

    def _clock(self) -> int:
        """The file system's own time."""
        probe = os.path.join(self._root, b".cogkit-clock-%d" % os.getpid())
        try:
            fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            import time

            return int(time.time() * 1e9)
        try:
            return os.fstat(fd).st_ctime_ns
        finally:
            os.close(fd)
            os.unlink(probe)

    def _walk(self) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
        """Everything below the root, each folder before what is in it, in the protocol's order."""
        stack = [self._entries(b"")]
        while stack:
            for path, entry in stack[-1]:
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    stack.append(self._entries(path))
                    break
            else:
                stack.pop()

    def _entries(self, path: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
        try:
            with os.scandir(os.path.join(self._root, path)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            if entry.name.lower() in self._skipped or (not path and entry.name in self._hidden):
                continue
            yield (path + b"/" + entry.name if path else entry.name), entry

    def _changed(self) -> Iterator[tuple[bytes, os.stat_result]]:
        """What changed, each with the folders above it before it."""
        above: list[tuple[bytes, os.stat_result]] = []
        told: set[bytes] = set()
        for path, entry in self._walk():
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            while above and not path.startswith(above[-1][0] + b"/"):
                above.pop()
            is_new = path not in self._names
            if stat.S_ISDIR(status.st_mode):
                above.append((path, status))
                if not is_new:
                    continue
            elif not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)) or (
                not is_new and status.st_ctime_ns < self._start
            ):
                continue
            for folder, folder_status in above:
                if folder not in told:
                    told.add(folder)
                    yield folder, folder_status
            if not stat.S_ISDIR(status.st_mode):
                yield path, status


class Changes:
    """The sending side of the protocol: `feed` it what the receiver says, `produce` gives what to send."""

    def __init__(self, root: bytes, changed: Iterator[tuple[bytes, os.stat_result]]) -> None:
        self._root = root
        self._changed: Iterator[tuple[bytes, os.stat_result]] | None = changed
        self._files: dict[int, tuple[bytes, int]] = {}
        self._next_id = 0
        self._asked: deque[int] = deque()
        self._open: tuple[int, int, int] | None = None
        self._ended = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if len(self._buffer) < 4 + size:
                return
            fields = _numbers(bytes(self._buffer[4 : 4 + size]))
            del self._buffer[: 4 + size]
            if fields.get(1) == _REQ:
                self._asked.append(fields.get(3, 0))
            elif fields.get(1) == _FIN:
                self._ended = True

    def produce(self) -> bytes:
        """The next bytes to send; none if there is nothing to say for now."""
        if self._ended:
            self._ended = False
            return _framed(_number(1, _FIN))
        if self._changed is not None:
            for path, status in self._changed:
                return self._described(path, status)
            self._changed = None
            return _framed(b"")
        if self._open is None and self._asked:
            self._begin(self._asked.popleft())
        return b"" if self._open is None else self._piece()

    def _described(self, path: bytes, status: os.stat_result) -> bytes:
        id, self._next_id = self._next_id, self._next_id + 1
        mode, size, link = status.st_mode & 0o777, 0, b""
        if stat.S_ISDIR(status.st_mode):
            mode |= _MODE_DIR
        elif stat.S_ISLNK(status.st_mode):
            mode |= _MODE_SYMLINK
            try:
                link = os.readlink(os.path.join(self._root, path))
            except OSError:
                link = b"?"
        else:
            size = status.st_size
            self._files[id] = (path, size)
        told = b"".join(
            (
                _bytes(1, path),
                _number(2, mode),
                _number(5, size),
                _number(6, status.st_mtime_ns & (1 << 64) - 1),
                _bytes(7, link),
            )
        )
        return _framed(_bytes(2, told))

    def _begin(self, id: int) -> None:
        path, size = self._files[id]
        try:
            fd = os.open(os.path.join(self._root, path), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            fd = -1
        self._open = (id, fd, size)

    def _piece(self) -> bytes:
        assert self._open is not None
        id, fd, left = self._open
        data = b""
        if left:
            try:
                data = os.read(fd, min(PIECE, left)) if fd >= 0 else b""
            except OSError:
                pass
            # A file that shrank under our hands is filled up: it is being written still.
            data = data or bytes(min(PIECE, left))
            self._open = (id, fd, left - len(data))
            return _framed(_number(1, 2) + _number(3, id) + _bytes(4, data))
        if fd >= 0:
            os.close(fd)
        self._open = None
        return _framed(_number(1, 2) + _number(3, id))


# ---- protobuf


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return bytes((field << 3,)) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return bytes((field << 3 | 2,)) + _varint(len(value)) + value if value else b""


def _framed(packet: bytes) -> bytes:
    return _LENGTH.pack(len(packet)) + packet


def _numbers(packet: bytes) -> dict[int, int]:
    """The numbers of a packet, which is all that a receiver sends; what else is in it is not looked at."""
    found: dict[int, int] = {}
    at = 0
    while at < len(packet):
        tag = packet[at]
        at += 1
        value = shift = 0
        while at < len(packet):
            byte = packet[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if tag & 7 == 0:
            found[tag >> 3] = value
        elif tag & 7 == 2:
            at += value
    return found
