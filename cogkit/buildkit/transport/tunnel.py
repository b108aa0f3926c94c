"""``Control.Session`` from the client's side, as a state machine: an HTTP/2 connection that carries this one call.

What the call carries is a stream of bytes, in messages of one field (``BytesMessage``); where one message ends and the
next begins means nothing, so bytes go out and come in here, without messages.  Why this is not left to grpc.aio, and
what that cost, is in ``benchmarks/notes.md`` ("session: the stream below").

This file must not know asyncio or sockets, and it must not trust the peer: what breaks the protocol or a limit raises
`TunnelError`, and what a connection keeps in memory is bounded by `WINDOW` and the limits below.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import unquote

from hpack import Decoder, Encoder, HeaderTuple, HPACKError

from cogkit.buildkit.protobuf_wire import SHORT, WireError, read_varint, varint
from cogkit.buildkit.transport.grpc_messages import prefix
from cogkit.buildkit.transport.header_lists import list_size, segments
from cogkit.buildkit.transport.http2 import ErrorCode, error_name
from cogkit.buildkit.transport.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    GOAWAY,
    HEADERS,
    MAX_FRAME_SIZE,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SET_ENABLE_PUSH,
    SET_INITIAL_WINDOW,
    SET_MAX_FRAME,
    SETTING,
    SETTINGS,
    U32,
    WINDOW_UPDATE,
    header_frames,
    make_frame,
    take,
)

WINDOW: Final = 4 << 20
"""Bytes that the peer may have on their way to us."""

READ_SIZE: Final = 256 << 10
"""Room for what is received at once."""

CHUNK_SIZE: Final = 256 << 10
"""Largest message, and about the most that `Tunnel.data_to_send` returns."""

_STREAM: Final = 1
_UPDATE_SIZE: Final = WINDOW // 4
_LARGEST_FRAME_SENT: Final = 65_536
_MAX_HEADERS: Final = 256 << 10
_MAX_CONTROL: Final = 64 << 10
_SHOWN: Final = 1_000
_NO_STATUS: Final = 2  # UNKNOWN


class TunnelError(ConnectionError):
    """The connection is of no use any more; the message says why, as the end of "the builder …"."""


class Tunnel:
    """One connection with its one call.

    Receive into `room` and tell how much with `received`; send what `data_to_send` returns, first of all before
    anything was received.

    Args:
        authority: The host, for the request's headers.
        path: The method called.
        metadata: Of the call; text only.
    """

    def __init__(self, authority: str, path: str, metadata: Iterable[tuple[str, str]]) -> None:
        self.ended = False
        """The peer has ended the call; `status` says how."""
        self.status: tuple[int, str] = (_NO_STATUS, "")
        """gRPC's status code and message."""
        # Input.
        self._buffer = memoryview(bytearray(READ_SIZE + MAX_FRAME_SIZE + FRAME_HEADER.size))
        self._filled = 0
        self._settings_seen = False
        self._decoder = Decoder(max_header_list_size=_MAX_HEADERS)
        self._block: bytearray | None = None
        self._block_ends_stream = False
        self._headers_seen = False
        self._head = bytearray()
        self._left = 0
        self._stream_credit = self._connection_credit = WINDOW
        self._consumed = 0
        # Output.
        self._control: list[bytes] = []
        self._owed = 0
        self._queue: deque[bytes | memoryview] = deque()
        self._backlog = 0
        self._window = self._initial_window = self._connection_window = DEFAULT_WINDOW
        self._frame_size = MAX_FRAME_SIZE
        self._begin(authority, path, metadata)

    def _begin(self, authority: str, path: str, metadata: Iterable[tuple[str, str]]) -> None:
        settings = ((SET_ENABLE_PUSH, 0), (SET_INITIAL_WINDOW, WINDOW))
        fields = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-accept-encoding", "identity"),
            *metadata,
        )
        block = Encoder().encode([HeaderTuple(name, value) for name, value in fields])
        self._control += (
            PREFACE,
            make_frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*each) for each in settings)),
            make_frame(WINDOW_UPDATE, 0, 0, U32.pack(WINDOW - DEFAULT_WINDOW)),
            *header_frames(_STREAM, block),
        )

    # ---------------------------------------------------------------- output

    @property
    def backlog(self) -> int:
        """Bytes given to `send` that have not left."""
        return self._backlog

    @property
    def blocked(self) -> bool:
        """Whether what has not left waits for the peer to open its window."""
        return self._backlog > 0 and min(self._window, self._connection_window) <= 0

    def send(self, data: bytes) -> None:
        """Queue bytes; they are not copied."""
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_SIZE):
            part = view[start : start + CHUNK_SIZE]
            field = b"\x0a" + varint(len(part))
            head = prefix(len(field) + len(part)) + field
            self._queue += (head, part)
            self._backlog += len(head) + len(part)

    def data_to_send(self) -> list[bytes | memoryview]:
        """Whole frames, in pieces, that may leave now; none if there is nothing, or no window, left."""
        out: list[bytes | memoryview] = [*self._control]
        self._control.clear()
        self._owed = 0
        room = min(self._backlog, self._window, self._connection_window, CHUNK_SIZE)
        if room <= 0:
            return out
        self._backlog -= room
        self._window -= room
        self._connection_window -= room
        while room:
            size = min(room, self._frame_size)
            out.append(FRAME_HEADER.pack(size >> 8, size & 0xFF, DATA, 0, _STREAM))
            take(self._queue, size, out)
            room -= size
        return out

    def finish(self) -> bool:
        """End the call from our side; returns whether the peer will end it, too, and so say that it knows."""
        if self.ended:
            return False
        if not self._queue:
            self._control.append(make_frame(DATA, END_STREAM, _STREAM))
            return True
        self._queue.clear()
        self._backlog = 0
        self._control.append(make_frame(RST_STREAM, 0, _STREAM, U32.pack(ErrorCode.CANCEL)))
        return False

    def _answer(self, frame: bytes) -> None:
        self._control.append(frame)
        self._owed += len(frame)
        if self._owed > _MAX_CONTROL:
            raise TunnelError("it does not read what it asked for")

    # ---------------------------------------------------------------- input

    @property
    def room(self) -> memoryview:
        """Where to put what is received next."""
        return self._buffer[self._filled :]

    def received(self, size: int) -> bytes:
        """Take in ``size`` bytes that were put into `room`; returns what the call carried in them.

        Raises:
            TunnelError: the peer broke the protocol, or gave the connection or the call up.
        """
        buffer = self._buffer
        position, end = 0, self._filled + size
        payload: list[memoryview] = []
        while end - position >= FRAME_HEADER.size:
            high, low, kind, flags, stream_id = FRAME_HEADER.unpack_from(buffer, position)
            body = position + FRAME_HEADER.size
            length = high << 8 | low
            if length > MAX_FRAME_SIZE:
                raise TunnelError(f"it sent a frame of {length:,} bytes")
            if end - body < length:
                break
            position = body + length
            if kind == DATA:
                self._count(length)
                within = 0 < length <= self._left and not self.ended
                if within and not flags and stream_id == _STREAM and self._block is None:
                    # Most frames: nothing but the next bytes of a message that has begun.
                    payload.append(buffer[body:position])
                    self._left -= length
                else:
                    self._on_data(flags, stream_id, buffer[body:position], payload)
            else:
                self._on_control(kind, flags, stream_id & MAX_WINDOW, bytes(buffer[body:position]))
        data = b"".join(payload)
        self._filled = end - position
        if position:
            buffer[: self._filled] = bytes(buffer[position:end])
        self._reopen_windows()
        return data

    def _count(self, length: int) -> None:
        self._consumed += length
        self._connection_credit -= length
        self._stream_credit -= length
        if self._connection_credit < 0 or self._stream_credit < 0:
            raise TunnelError("it sent more than it may")

    def _on_data(self, flags: int, stream_id: int, body: memoryview, payload: list[memoryview]) -> None:
        if stream_id != _STREAM or self._block is not None or not self._headers_seen:
            raise TunnelError("it sent data out of place")
        if flags & PADDED:
            if not body or body[0] >= len(body):
                raise TunnelError("it sent padding longer than its frame")
            body = body[1 : len(body) - body[0]]
        while body and not self.ended:
            if not self._left:
                body = self._take_head(body)
            part = body[: self._left]
            if part:
                payload.append(part)
                self._left -= len(part)
                body = body[len(part) :]
        if flags & END_STREAM:
            self.ended = True

    def _take_head(self, body: memoryview) -> memoryview:
        """Read what stands before the bytes of a message: gRPC's prefix, then tag and length of the one field.

        Returns:
            The rest of ``body``; `_left` is 0 if more of the head, or the next message, has to come first.
        """
        head = self._head
        if not head and len(body) > 10 and body[5] == 0x0A and not body[0]:
            # The usual case, at once; whatever is odd about it is left to what follows.
            with suppress(WireError):
                left, at = read_varint(body, 6, SHORT)
                if left + at - 5 == int.from_bytes(body[1:5], "big"):
                    self._left = left
                    return body[at:]
        for at, octet in enumerate(body):
            head.append(octet)
            size = len(head)
            if size < 5:
                continue
            length = int.from_bytes(head[1:5], "big")
            if head[0]:
                raise TunnelError("it compressed what it was not asked to")
            if length and (size < 7 or head[-1] > 0x7F):
                if (size >= 6 and head[5] != 0x0A) or size > 10:
                    break
                continue
            if length:
                self._left = sum((septet & 0x7F) << 7 * place for place, septet in enumerate(head[6:]))
                if self._left != length - (size - 5):
                    break
            head.clear()
            return body[at + 1 :]
        else:
            return body[len(body) :]
        raise TunnelError("it sent a message that is not a BytesMessage")

    def _reopen_windows(self) -> None:
        if self._consumed >= _UPDATE_SIZE and not self.ended:
            increment = U32.pack(self._consumed)
            self._control += (make_frame(WINDOW_UPDATE, 0, number, increment) for number in (0, _STREAM))
            self._stream_credit += self._consumed
            self._connection_credit += self._consumed
            self._consumed = 0

    def _on_control(self, kind: int, flags: int, stream_id: int, body: bytes) -> None:
        if (self._block is not None) != (kind == CONTINUATION):
            raise TunnelError("it interrupted its headers")
        if not self._settings_seen and kind != SETTINGS:
            raise TunnelError("it does not speak HTTP/2")
        if kind == WINDOW_UPDATE:
            self._on_window_update(stream_id, body)
        elif kind == PING:
            if len(body) != 8:
                raise TunnelError("it sent a malformed PING")
            if not flags & ACK:
                self._answer(make_frame(PING, ACK, 0, body))
        elif kind == SETTINGS:
            self._on_settings(flags, body)
        elif kind == HEADERS:
            self._on_headers(flags, stream_id, body)
        elif kind == CONTINUATION:
            self._more_headers(flags, body)
        elif kind == RST_STREAM:
            self._on_reset(stream_id, body)
        elif kind == GOAWAY:
            self._on_goaway(body)
        elif kind == PUSH_PROMISE:
            raise TunnelError("it pushed what it was not asked for")

    def _on_settings(self, flags: int, body: bytes) -> None:
        if len(body) % SETTING.size:
            raise TunnelError("it sent malformed SETTINGS")
        self._settings_seen = True
        if flags & ACK:
            return
        for setting, value in SETTING.iter_unpack(body):
            if setting == SET_INITIAL_WINDOW:
                self._window += value - self._initial_window
                self._initial_window = value
            elif setting == SET_MAX_FRAME:
                self._frame_size = max(MAX_FRAME_SIZE, min(value, _LARGEST_FRAME_SENT))
        if self._window > MAX_WINDOW:
            raise TunnelError("it opened its window too far")
        self._answer(make_frame(SETTINGS, ACK, 0))

    def _on_window_update(self, stream_id: int, body: bytes) -> None:
        if len(body) != U32.size:
            raise TunnelError("it sent a malformed WINDOW_UPDATE")
        increment = U32.unpack(body)[0] & MAX_WINDOW
        if stream_id == 0:
            self._connection_window += increment
        elif stream_id == _STREAM:
            self._window += increment
        if max(self._window, self._connection_window) > MAX_WINDOW:
            raise TunnelError("it opened its window too far")

    def _on_goaway(self, body: bytes) -> None:
        if len(body) < 8:
            raise TunnelError("it sent a malformed GOAWAY")
        last, code = U32.unpack_from(body)[0] & MAX_WINDOW, U32.unpack_from(body, 4)[0]
        # Otherwise it takes no further calls, and this one goes on.
        if not self.ended and (code or last < _STREAM):
            raise TunnelError(f"it closed the connection ({error_name(code)})")

    def _on_reset(self, stream_id: int, body: bytes) -> None:
        if len(body) != U32.size or stream_id != _STREAM:
            raise TunnelError("it sent a malformed RST_STREAM")
        # After its end it only says that it will not read any more.
        if not self.ended:
            raise TunnelError(f"it reset the session's stream ({error_name(U32.unpack(body)[0])})")

    # ---------------------------------------------------------------- headers

    def _on_headers(self, flags: int, stream_id: int, body: bytes) -> None:
        if stream_id != _STREAM or self.ended:
            raise TunnelError("it sent headers out of place")
        if flags & PADDED:
            if not body or body[0] >= len(body):
                raise TunnelError("it sent padding longer than its frame")
            body = body[1 : len(body) - body[0]]
        if flags & PRIORITY_FLAG:
            body = body[5:]
        self._block = bytearray()
        self._block_ends_stream = bool(flags & END_STREAM)
        self._more_headers(flags, body)

    def _more_headers(self, flags: int, body: bytes) -> None:
        assert self._block is not None  # the caller has looked
        self._block += body
        if len(self._block) > _MAX_HEADERS or (not body and not flags & END_HEADERS):
            raise TunnelError("it sent headers without end")
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._take_headers(self._decoded(block))

    def _decoded(self, block: bytes) -> dict[bytes, bytes]:
        fields: list[tuple[bytes, bytes]] = []
        try:
            for segment in segments(block):
                fields += ((bytes(name), bytes(value)) for name, value in self._decoder.decode(segment, raw=True))
                if list_size(fields) > _MAX_HEADERS:
                    raise TunnelError("it sent too many headers")
        except HPACKError as error:
            raise TunnelError("it sent headers that cannot be read") from error
        return dict(fields)

    def _take_headers(self, fields: dict[bytes, bytes]) -> None:
        first, self._headers_seen = not self._headers_seen, True
        if first:
            status = fields.get(b":status", b"")
            if status != b"200" or not fields.get(b"content-type", b"").startswith(b"application/grpc"):
                raise TunnelError(f"it does not speak gRPC (HTTP status {status[:20].decode('ascii', 'replace')})")
        elif not self._block_ends_stream:
            raise TunnelError("it sent headers out of place")
        if self._block_ends_stream:
            code = fields.get(b"grpc-status", b"")
            text = unquote(fields.get(b"grpc-message", b"").decode("latin-1"))[:_SHOWN]
            self.status = (int(code) if code.isdigit() and len(code) <= 3 else _NO_STATUS, text)
            self.ended = True
