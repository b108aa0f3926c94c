"""Reads tar from a stream and says where in it each file's bytes begin, which ``tarfile`` does not promise.

Only what weights may hold: files and folders with POSIX and PAX headers, and long names of GNU tar.  Bytes come in, and
entries come out; this file must not open anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from cogkit.fast_dataclass import dataclass

_BLOCK = 512
_MAX_HEADER = 1 << 20


class TarError(Exception):
    """The stream is not tar, or ends too early."""


class TarReader:
    """One stream."""

    def __init__(self) -> None:
        self._stream: Iterator[bytes] = iter(())
        self._buffer = b""
        self.offset = 0
        """Bytes that were taken from the stream."""

    def entries(self, stream: Iterator[bytes]) -> Iterator[TarEntry]:
        """The entries; who does not read one's bytes skips them by going on.

        Raises:
            TarError: it is not tar.
        """
        self._stream = stream
        extended: dict[str, str] = {}
        while True:
            first = self.take_some(_BLOCK)
            if not first:
                return  # some writers end without the two empty blocks
            header = first + self.take(_BLOCK - len(first))
            if header.count(0) == _BLOCK:
                for _ in self._stream:
                    pass  # so that what is behind is read, and the connection can be used again
                return
            _check_sum(header)
            kind = header[156:157].decode("latin-1")
            size = _number(header[124:136])
            if kind in ("x", "g", "L", "K"):
                if size > _MAX_HEADER:
                    raise TarError("an extended header is too long")
                data = self.take(size)
                self.take(-size % _BLOCK)
                if kind == "x":
                    extended |= _records(data)
                elif kind == "L":
                    extended["path"] = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
                continue
            name = extended.get("path") or _name(header)
            size = _size(extended["size"]) if "size" in extended else size
            extended = {}
            entry = TarEntry(self, name, kind, size, self.offset)
            yield entry
            entry.skip()
            self.take(-size % _BLOCK)

    def take(self, count: int) -> bytes:
        """Exactly so many bytes."""
        parts = []
        while count:
            data = self.take_some(count)
            if not data:
                raise TarError("it ended too early")
            count -= len(data)
            parts.append(data)
        return b"".join(parts)

    def take_some(self, count: int) -> bytes:
        """At most so many bytes; none at the end."""
        data = self._buffer
        while not data:
            more = next(self._stream, None)
            if more is None:
                return b""
            data = more
        taken, self._buffer = data[:count], data[count:]
        self.offset += len(taken)
        return taken


@dataclass(slots=True)
class TarEntry:
    """An entry; its bytes can be read once.

    Attributes:
        name: Its path.
        kind: The type flag.
        size: Bytes.
        offset: Where they begin in the stream.
    """

    _reader: TarReader
    name: str
    kind: str
    size: int
    offset: int

    @property
    def is_file(self) -> bool:
        return self.kind in ("0", "\0")

    @property
    def is_folder(self) -> bool:
        return self.kind == "5"

    def chunks(self) -> Iterator[bytes]:
        """The bytes that were not read yet.

        Raises:
            TarError: the stream ends before them.
        """
        while (left := self.offset + self.size - self._reader.offset) > 0:
            data = self._reader.take_some(left)
            if not data:
                raise TarError("it ended too early")
            yield data

    def skip(self) -> None:
        """Pass over what was not read."""
        for _ in self.chunks():
            pass


def _check_sum(header: bytes) -> None:
    said = _number(header[148:156])
    if said != sum(header[:148]) + sum(header[156:]) + 8 * 32:
        raise TarError("it is not tar, or damaged")


def _number(field: bytes) -> int:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b"\0 ")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise TarError("a header has a number that is none") from None


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _records(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 7 or not len(length) < int(length) <= len(data):
            raise TarError("a PAX record makes no sense")
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _, value = record.partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return found


def _size(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise TarError("a PAX record has a size that is none")
    return int(value)
