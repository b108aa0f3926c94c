"""gRPC's frames around messages ("Length-Prefixed-Message" of grpc/doc/PROTOCOL-HTTP2.md), made by who has the message.

Threads that make many messages, or large ones, frame and compress them too and hand over bytes
(`ServerStream.send_framed`).  Pure functions and one small state machine for one thread each; no asyncio, no streams.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

PREFIX_SIZE: Final = 5

LEVEL: Final = 4
"""zlib's level: of program text it leaves a tenth more than 6, for two thirds of the time."""

SAMPLE: Final = 4 << 10
"""Bytes at the beginning that tell whether something shrinks."""

WORTH: Final = 0.75
"""What must be left at most of something for its compression to be worth the time of both sides."""

TRIED_AGAIN: Final = 8 << 20
"""Bytes of one file after which it is tried again whether it shrinks."""

_SMALLEST: Final = 200
_MOST_PASSED_OVER: Final = 64
_KINDS_KEPT: Final = 1_000
_GZIP: Final = 16 + zlib.MAX_WBITS


def prefix(size: int, *, compressed: bool = False) -> bytes:
    """What stands before a message of ``size`` bytes."""
    return (size | compressed << 32).to_bytes(PREFIX_SIZE, "big")


def frame_messages(messages: Sequence[bytes]) -> bytes:
    """Messages with their prefixes."""
    pieces: list[bytes] = []
    for message in messages:
        pieces.append(len(message).to_bytes(PREFIX_SIZE, "big"))
        pieces.append(message)
    return b"".join(pieces)


class Shrinker:
    """Compresses messages that hold pieces of files, where it pays.

    A file is tried by its first bytes, and again every 8 MiB.  If it does not shrink it is sent as it is, and so are
    the next files of its kind, twice as many each time: what is compressed already, as pictures, archives and most
    weights are, costs next to nothing.
    """

    def __init__(self) -> None:
        self._failures: dict[bytes, tuple[int, int]] = {}
        self._kind = b""
        self._worth: bool | None = None
        self._passed = 0

    def begin(self, kind: bytes) -> None:
        """The next pieces are of another file; files of one ``kind``, which is any word, are taken to be alike."""
        self._kind = kind
        self._passed = 0
        failures, left = self._failures.get(kind, (0, 0))
        if left:
            self._failures[kind] = (failures, left - 1)
            self._worth = False
        else:
            self._worth = None

    def shrink(self, head: bytes, piece: bytes) -> bytes | None:
        """The message ``head + piece`` compressed as gzip; None if it is better sent as it is."""
        size = len(piece)
        if size < _SMALLEST:
            return None
        self._passed += size
        if self._worth is False:
            if self._passed < TRIED_AGAIN:
                return None
            self._passed = 0
            self._worth = None
        if self._worth is None and size > SAMPLE:
            sample = memoryview(piece)[:SAMPLE]
            if len(zlib.compress(sample, 1)) > WORTH * SAMPLE:
                self._failed()
                return None
        compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
        shrunk = b"".join((compressor.compress(head), compressor.compress(piece), compressor.flush()))
        if len(shrunk) > WORTH * size:
            self._failed()
            return None
        if not self._worth:
            self._worth = True
            self._failures.pop(self._kind, None)
        return shrunk

    def _failed(self) -> None:
        self._worth = False
        failures = self._failures.get(self._kind, (0, 0))[0]
        if len(self._failures) >= _KINDS_KEPT:
            self._failures.clear()
        self._failures[self._kind] = (failures + 1, min((1 << failures) - 1, _MOST_PASSED_OVER))
