"""Archives that come as a stream: which kind it is, and how it must be sent for the builder to know it.

BuildKit looks at the first 1,024 bytes of a context (``frontend/dockerui/context.go``, ``isArchive``): it knows gzip,
bzip2 and xz, and a tar whose first entry it can read there.  A PAX tar, or one whose first name is long, begins with
more than that, and would be taken for a Dockerfile; it is sent as a gzip stream that stores and does not compress.
What only other programs unpack (zstd, lz4) is unpacked here, by those programs.  This file must not talk to a builder.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import zlib
from enum import Enum
from io import BufferedReader
from typing import TYPE_CHECKING

from cogkit.buildkit.errors import BuildError
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.buildkit.session.services.upload import Readable

PEEK = 1024
"""Bytes by which a stream is known."""

_BLOCK = 512
_GZIP = b"\x1f\x8b\x08"
_PASSED_ON = (b"BZh", _GZIP, b"\xfd7zXZ\x00")
_PROGRAMS = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x02\x21\x4c\x18", "lz4"))
_STRANGERS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"070701", "a cpio archive"),
    (b"070707", "a cpio archive"),
    (b"!<arch>\n", "an ar archive"),
)
_SKIPPABLE = bytes(range(0x50, 0x60))  # a zstd stream may begin with a frame of something else: 0x184D2A5?
_PLAIN_TYPES = ("", *"01234567")  # of entries whose header is one block
_PIECE = 1 << 20

TAR_HINT = "for example: tar c . | cogkit build -"


class StreamKind(Enum):
    """What a stream begins as."""

    PASSED_ON = "an archive that the builder knows"
    WRAPPED = "a tar that it does not know by its beginning"
    UNPACKED = "an archive that is unpacked here"
    TEXT = "no archive"


def kind_of(start: bytes) -> StreamKind:
    """Which kind of stream begins with these bytes, `PEEK` of them unless it is shorter.

    Raises:
        UsageError: an archive of which no context can be made.
    """
    if start.startswith(_PASSED_ON):
        _require_tar_in(start)
        return StreamKind.PASSED_ON
    if _program(start) is not None:
        return StreamKind.UNPACKED
    for magic, name in _STRANGERS:
        if start.startswith(magic):
            raise UsageError(
                f"standard input is {name}, and only a tar can be a context",
                hint=f"send a tar, plain or compressed by gzip, bzip2, xz, zstd or lz4; {TAR_HINT}",
            )
    if len(start) >= _BLOCK and not start.strip(b"\0"):
        raise UsageError("the archive on standard input has no entries", hint=TAR_HINT)
    if not _is_tar(start):
        return StreamKind.TEXT
    entry_type = start[156:157].strip(b"\0").decode("latin-1")
    return StreamKind.PASSED_ON if entry_type in _PLAIN_TYPES else StreamKind.WRAPPED


def _require_tar_in(start: bytes) -> None:
    """Refuse a gzip stream that shows already that there is no tar in it."""
    if not start.startswith(_GZIP):
        return
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        inner = inflate.decompress(start, _BLOCK)
    except zlib.error:
        return  # the builder says what is wrong with it
    if len(inner) < _BLOCK and not inflate.eof:
        return
    if inner and not inner.strip(b"\0"):
        raise UsageError("the archive on standard input has no entries", hint=TAR_HINT)
    if not _is_tar(inner):
        raise UsageError(
            "there is no tar in what is compressed by gzip on standard input",
            hint="send a Dockerfile as it is, and a context as a tar",
        )


def _program(start: bytes) -> str | None:
    if len(start) > 4 and start[0] in _SKIPPABLE and start[1:4] == b"\x2a\x4d\x18":
        return "zstd"
    return next((program for magic, program in _PROGRAMS if start.startswith(magic)), None)


def _is_tar(start: bytes) -> bool:
    import tarfile

    try:
        tarfile.TarInfo.frombuf(start[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class Rejoined:
    """A stream from its beginning, of which some was read already."""

    def __init__(self, start: bytes, rest: Readable):
        self._start = start
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if self._start:
            data, self._start = self._start[:size], self._start[size:]
            return data
        return self._rest.read(size)


class Wrapped:
    """A stream as gzip, which stores it as it is: knowing it costs the builder nothing, and us a checksum."""

    def __init__(self, stream: Readable):
        self._stream = stream
        self._deflate = zlib.compressobj(0, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self._ready = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ready and not self._ended:
            piece = self._stream.read(size)
            self._ended = not piece
            self._ready = self._deflate.flush() if self._ended else self._deflate.compress(piece)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data


def unpacked(start: bytes, rest: Readable) -> Readable:
    """The tar in an archive that a program of its own unpacks, as the builder knows it.  Blocks.

    Raises:
        UsageError: the program is missing, or there is no tar in the archive.
    """
    name = _program(start)
    assert name is not None
    program = shutil.which(name)
    if program is None:
        raise UsageError(
            f"standard input is compressed by {name}, and the program {name} is not installed",
            hint=f"install {name}, or send what `{name} -dc` makes of it",
        )
    stream = _Unpacking(program, Rejoined(start, rest))
    inner = b""
    while len(inner) < PEEK and (piece := stream.read(PEEK - len(inner))):
        inner += piece
    if not inner:
        raise UsageError(f"nothing is in what is compressed by {name} on standard input", hint=TAR_HINT)
    whole = Rejoined(inner, stream)
    match kind_of(inner):
        case StreamKind.PASSED_ON:
            return whole
        case StreamKind.WRAPPED:
            return Wrapped(whole)
    raise UsageError(f"there is no tar in what is compressed by {name} on standard input", hint=TAR_HINT)


class _Unpacking:
    """What a program makes of a stream.  The program ends with its input, however that ends."""

    def __init__(self, program: str, source: Readable):
        self._source = source
        self._process = subprocess.Popen(
            [program, "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert isinstance(self._process.stdout, BufferedReader)
        self._output = self._process.stdout
        self._failure: OSError | None = None
        # Daemon threads: one that waits for standard input must not keep the process.
        threading.Thread(target=self._feed, name="cogkit-unpack", daemon=True).start()

    def _feed(self) -> None:
        target = self._process.stdin
        assert target is not None
        try:
            while piece := self._source.read(_PIECE):
                target.write(piece)
        except BrokenPipeError:
            pass  # it gave up, and its exit code says so
        except OSError as problem:
            self._failure = problem
        finally:
            with contextlib.suppress(OSError):
                target.close()

    def read(self, size: int, /) -> bytes:
        data = self._output.read1(size)
        if data:
            return data
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode("utf-8", "replace").strip()
        if self._process.wait() != 0:
            name = str(self._process.args[0] if isinstance(self._process.args, list) else "")
            last = said.splitlines()[-1] if said else "no reason given"
            raise BuildError(f"standard input cannot be unpacked by {name}: {last}")
        if self._failure is not None:
            raise self._failure
        return b""
