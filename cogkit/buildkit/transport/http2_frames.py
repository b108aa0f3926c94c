"""HTTP/2 frames (RFC 9113, 4 and 6) as numbers and bytes: what both ends of a connection write alike.

No state and no judgement: what a frame means is said in `http2`, for the server's half, and in `tunnel`, for the
client's.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113, 3.4)."""

MAX_FRAME_SIZE: Final = 16_384
"""Largest frame we accept: the protocol's default, and the most that grpc-go ever sends."""

MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20

SET_HEADER_TABLE_SIZE, SET_ENABLE_PUSH, SET_MAX_STREAMS = range(1, 4)
SET_INITIAL_WINDOW, SET_MAX_FRAME, SET_MAX_HEADER_LIST = range(4, 7)

FRAME_HEADER: Final = struct.Struct(">HBBBI")
"""The length's upper two bytes and its lowest, kind, flags, stream."""

SETTING: Final = struct.Struct(">HI")
U32: Final = struct.Struct(">I")


def make_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return FRAME_HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def header_frames(stream_id: int, block: bytes, flags: int = 0) -> list[bytes]:
    """A header block as HEADERS and as many CONTINUATIONs as it takes; ``flags`` are those of the HEADERS."""
    pieces = [block[i : i + MAX_FRAME_SIZE] for i in range(0, len(block), MAX_FRAME_SIZE)] or [b""]
    kinds = [(HEADERS, flags)] + [(CONTINUATION, 0)] * (len(pieces) - 1)
    kinds[-1] = (kinds[-1][0], kinds[-1][1] | END_HEADERS)
    return [make_frame(kind, flag, stream_id, piece) for (kind, flag), piece in zip(kinds, pieces, strict=True)]


def take(queue: deque[bytes | memoryview], size: int, out: list[bytes | memoryview]) -> None:
    """Move exactly ``size`` bytes from the head of ``queue`` to ``out`` without copying them."""
    while size:
        piece = queue[0]
        length = len(piece)
        if length <= size:
            out.append(queue.popleft())
            size -= length
        else:
            view = memoryview(piece)
            out.append(view[:size])
            queue[0] = view[size:]
            return
