"""HTTP/2 as bytes: how the session's tests speak to the server, and how they read it, without any code of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADER_LIST = range(1, 7)

Fields = Sequence[tuple[str, str]]

CALL: Fields = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/pkg.Service/Method"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


@dataclass(frozen=True)
class Frame:
    """One frame that the server sent."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4], "big")

    @property
    def increment(self) -> int:
        """The increment of WINDOW_UPDATE."""
        return int.from_bytes(self.payload, "big")


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def rst_stream(stream_id: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream_id, payload)


def literal_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block without compression state: literals that are never indexed, so it fits any moment."""
    block = b""
    for name, value in fields:
        block += b"\x00" + _string(name.encode()) + _string(value.encode())
    return block


def _string(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    size -= 127
    prefix = b"\x7f"
    while size >= 128:
        prefix += bytes((size % 128 + 128,))
        size //= 128
    return prefix + bytes((size,)) + value


def headers(stream_id: int, fields: Iterable[tuple[str, str]] = CALL, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream_id, literal_block(fields))


def opening(*pairs: tuple[int, int]) -> bytes:
    """What a client sends first."""
    return PREFACE + settings(*pairs)


def grpc_message(message: bytes, compressed: int = 0) -> bytes:
    return bytes((compressed,)) + len(message).to_bytes(4, "big") + message


def split_frames(stream: bytes) -> Iterator[Frame]:
    """The frames of what the server sent; it must end with a whole one."""
    position = 0
    while position < len(stream):
        size = int.from_bytes(stream[position : position + 3], "big")
        kind, flags = stream[position + 3], stream[position + 4]
        stream_id = int.from_bytes(stream[position + 5 : position + 9], "big")
        payload = stream[position + 9 : position + 9 + size]
        assert len(payload) == size, "the server's output ends in the middle of a frame"
        yield Frame(kind, flags, stream_id, payload)
        position += 9 + size


class ServerOutput:
    """Reads what the server sends, with the compression state of its header blocks."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()

    def fields(self, sent: Frame) -> dict[str, str]:
        """The header list of a HEADERS frame with END_HEADERS."""
        assert sent.kind == HEADERS and sent.flags & END_HEADERS
        return {str(name): str(value) for name, value in self._decoder.decode(sent.payload)}
