"""The server's half of an HTTP/2 connection (RFC 9113) as a state machine: bytes in, events out.

Everything that decides what a frame means lives in this file.  It must not know asyncio, sockets, threads, clocks or
gRPC, and it must not trust the peer: whatever bytes come in, `Http2Connection.receive` yields events and never raises,
and what a connection keeps in memory stays below the sum that `Limits.memory_bound` states.

The strategy in short.  Frames are parsed by hand (see ``benchmarks/notes.md``, "session: frames"), header blocks by the
``hpack`` library.  A fault of one stream resets it; a fault of the connection sends GOAWAY, drops all streams and makes
the object deaf.  Control frames (acknowledgements, window updates, resets, response headers) queue in order and always
leave before DATA, because grpc-go's bandwidth estimate and health checks need prompt answers.  DATA is cut into frames
only when `Http2Connection.data_to_send` is called, round robin over the streams that have something to send and window
for it.  Trailers are encoded at the moment they leave, so header compression happens in the order of the wire.

Receiving is bounded by credit.  Each stream starts with `Limits.initial_window`; the windows grow from a shared budget
while the application consumes, and they re-open only when it has consumed (`Http2Connection.consumed`).  The window of
the connection is the whole budget, so a stalled stream never starves another one (a health check must always pass).
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, TypeAlias

from hpack import Decoder, Encoder, HeaderTuple, HPACKError
from hpack.exceptions import OversizedHeaderListError

from cogkit.buildkit.transport.header_lists import (
    HeaderList,
    MalformedError,
    check_request,
    check_trailers,
    list_size,
    segments,
)
from cogkit.buildkit.transport.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    GOAWAY,
    MAX_FRAME_SIZE,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY_FLAG,
    RST_STREAM,
    SET_ENABLE_PUSH,
    SET_HEADER_TABLE_SIZE,
    SET_INITIAL_WINDOW,
    SET_MAX_FRAME,
    SET_MAX_HEADER_LIST,
    SET_MAX_STREAMS,
    SETTING,
    SETTINGS,
    U32,
    WINDOW_UPDATE,
    header_frames,
    make_frame,
    take,
)
from cogkit.fast_dataclass import dataclass

CHUNK_SIZE: Final = 256 * 1024
"""Largest result of `Http2Connection.data_to_send`: a good size for one message of ``Control.Session``."""

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_MIN_UPDATE: Final = 16_384
_HEADER_TABLE_SIZE: Final = 4_096
_LARGEST_FRAME_SENT: Final = 65_536
_CLOSED_REMEMBERED: Final = 1_000


class ErrorCode(IntEnum):
    """Why a stream or a connection ended (RFC 9113, 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def error_name(code: int) -> str:
    """The name of an error code for messages; codes that no RFC names are shown as hexadecimal numbers."""
    return ErrorCode(code).name if code in ErrorCode._value2member_map_ else f"{code:#x}"


class LocalProtocolError(Exception):
    """Our own side asked for what the state of the stream or connection forbids: a bug, never the peer's doing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost.

    Args:
        max_concurrent_streams: Streams open at once; more are refused (REFUSED_STREAM).
        initial_window: Bytes that a peer may send on a new stream before the application consumes any.
        max_window: Bytes up to which the window of a consuming stream grows.
        receive_budget: Bytes of received and not yet consumed DATA of all streams together.
        max_header_list: Bytes of one decoded header list, counted as RFC 9113, 6.5.2 (32 per field).  BuildKit sends
            the patterns of a ``.dockerignore`` as metadata, one field a line; Go's own server allows 1 MiB.
        max_header_total: Bytes of the header lists of all open streams together; requests beyond are refused.
        max_header_block: Bytes of one encoded header block, HEADERS and its CONTINUATIONs together.
        max_continuations: CONTINUATION frames of one header block.
        max_control_backlog: Bytes of answers (acknowledgements, resets) that may queue while the peer does not read.
        max_unproductive: Frames without use (PING, SETTINGS, resets, refused requests, empty DATA, unknown types) that
            may come ahead of useful ones; each useful frame or answered request pays for ten.
        low_water: Bytes of a stream's send backlog below which `Http2Connection.take_drained` names it.
    """

    max_concurrent_streams: int = 256
    initial_window: int = DEFAULT_WINDOW
    max_window: int = 1 << 20
    receive_budget: int = 64 << 20
    max_header_list: int = 1 << 20
    max_header_total: int = 8 << 20
    max_header_block: int = 1 << 20
    max_continuations: int = 128
    max_control_backlog: int = 64 << 10
    max_unproductive: int = 1_000
    low_water: int = 512 << 10

    def __post_init__(self) -> None:
        if self.max_concurrent_streams * self.initial_window > self.receive_budget:
            raise ValueError("receive_budget must cover the initial window of every concurrent stream")
        # A smaller first window is not in force until the peer has acknowledged it, and cannot be enforced before.
        if not DEFAULT_WINDOW <= self.initial_window <= self.max_window <= MAX_WINDOW:
            raise ValueError("windows must satisfy 65535 <= initial_window <= max_window < 2**31")
        if self.receive_budget + (1 << 20) > MAX_WINDOW:
            raise ValueError("receive_budget must stay 1 MiB below 2**31")

    @property
    def memory_bound(self) -> int:
        """Bytes that a peer can make one connection hold, not counting what the application itself queues to send.

        Received data (with the growth margin of a bytearray), header lists of open streams as Python objects, one
        header block, one frame, queued answers, compression tables and a few KiB of objects per stream.
        """
        headers = 4 * (self.max_header_total + self.max_header_list) + 2 * self.max_header_block
        fixed = MAX_FRAME_SIZE + 2 * self.max_control_backlog + (1 << 20)
        return self.receive_budget * 9 // 8 + headers + self.max_concurrent_streams * 4_096 + fixed


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A peer opened a stream with a well-formed request; its DATA and its `RequestEnded` follow."""

    stream_id: int
    headers: HeaderList


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Body bytes, padding removed.  Their window stays closed until `Http2Connection.consumed` is told of them."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The peer has half-closed the stream; ``trailers`` may be empty."""

    stream_id: int
    trailers: HeaderList


@dataclass(frozen=True, slots=True)
class StreamReset:
    """A stream that was announced by `RequestReceived` is gone; what was queued on it is dropped."""

    stream_id: int
    code: int
    by_peer: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer opens no further streams; those that are open go on."""

    code: int
    last_stream_id: int
    debug: bytes


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The peer broke the protocol or a limit.  Last event: flush `Http2Connection.data_to_send` (GOAWAY) and close."""

    code: ErrorCode
    reason: str


Event: TypeAlias = RequestReceived | DataReceived | RequestEnded | StreamReset | GoAwayReceived | ConnectionFailed


class _ConnectionFault(Exception):
    def __init__(self, code: ErrorCode, reason: str):
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Stream:
    """State of one open or half-closed stream."""

    __slots__ = (
        "backlog",
        "credit",
        "end_queued",
        "expected",
        "header_size",
        "headers_sent",
        "held",
        "id",
        "local_open",
        "queue",
        "remote_open",
        "reset_at_end",
        "target",
        "trailers",
        "window",
    )

    def __init__(self, stream_id: int, window: int, credit: int):
        self.id = stream_id
        self.remote_open = True
        self.local_open = True
        self.headers_sent = False
        self.header_size = 0
        # Sending: what the peer allows, what is queued, and what ends the stream once the queue is empty.
        self.window = window
        self.queue: deque[bytes | memoryview] = deque()
        self.backlog = 0
        self.end_queued = False
        self.trailers: Sequence[tuple[bytes, bytes]] = ()
        self.reset_at_end = False
        # Receiving: credit is what the peer may still send, held what the application has not consumed; their sum
        # never exceeds target, the stream's share of the receive budget.
        self.credit = credit
        self.target = credit
        self.held = 0
        self.expected: int | None = None


class _HeaderBlock:
    """A header block on its way: HEADERS came, END_HEADERS did not yet."""

    __slots__ = ("continuations", "end_stream", "fragment", "self_dependent", "stream_id")

    def __init__(self, stream_id: int, end_stream: bool, self_dependent: bool, fragment: bytes):
        self.stream_id = stream_id
        self.end_stream = end_stream
        self.self_dependent = self_dependent
        self.fragment = bytearray(fragment)
        self.continuations = 0


# How a remembered stream was closed.  A value of 0 or more means: reset by us, and this is the credit that the peer
# still has for what it sent before it saw our reset.
_ENDED: Final = -1
_RESET_BY_PEER: Final = -2


class Http2Connection:
    """One HTTP/2 connection, seen from the server.

    Feed it with `receive`, write what `data_to_send` returns (do so once before the first byte comes: a server speaks
    SETTINGS unasked), and answer requests with `send_headers`, `send_data`, `end_stream` and `reset_stream`.
    """

    def __init__(self, limits: Limits | None = None):
        self._limits = limits = limits or Limits()
        self._streams: dict[int, _Stream] = {}
        self._closed: dict[int, int] = {}
        self._last_stream_id = 0
        self._decoder = Decoder(max_header_list_size=limits.max_header_list)
        self._encoder = Encoder()
        self._table_size_floor = _HEADER_TABLE_SIZE
        self._table_size = _HEADER_TABLE_SIZE
        # Input.
        self._buffer = b""
        self._preface_seen = 0
        self._settings_seen = False
        self._block: _HeaderBlock | None = None
        self._unproductive = 0
        self._header_total = 0
        self._budget = limits.receive_budget - limits.max_concurrent_streams * limits.initial_window
        self._growth_floor = self._budget // 2
        self._update_size = min(1 << 20, max(_MIN_UPDATE, limits.receive_budget // 8))
        self._credit = DEFAULT_WINDOW
        self._consumed = 0
        # Output.
        self._control: deque[bytes] = deque()
        self._owed = 0
        self._ready: OrderedDict[int, _Stream] = OrderedDict()
        self._blocked: OrderedDict[int, _Stream] = OrderedDict()
        self._drained: set[int] = set()
        self._window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self._frame_size = MAX_FRAME_SIZE
        self._goaway_sent = False
        self._last_served = 0
        self._failed = False
        self._dispatch = (
            self._on_data,
            self._on_headers,
            self._on_priority,
            self._on_rst_stream,
            self._on_settings,
            self._on_push_promise,
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            self._on_continuation,
        )
        settings = (
            (SET_MAX_STREAMS, limits.max_concurrent_streams),
            (SET_INITIAL_WINDOW, limits.initial_window),
            (SET_MAX_FRAME, MAX_FRAME_SIZE),
            (SET_MAX_HEADER_LIST, limits.max_header_list),
        )
        self._push(make_frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*setting) for setting in settings)))
        # One update more than the budget: credit that is consumed but not yet announced must not narrow the window.
        self._return_credit(limits.receive_budget + self._update_size - DEFAULT_WINDOW)
        self._announce_credit()

    # ---------------------------------------------------------------- what the owner may ask

    @property
    def failed(self) -> bool:
        """Whether `ConnectionFailed` has been reported."""
        return self._failed

    @property
    def open_streams(self) -> int:
        """Streams that are not closed in both directions, with those whose last frames are still queued."""
        return len(self._streams)

    @property
    def wants_write(self) -> bool:
        """Whether `data_to_send` may have something: it has, unless the peer's windows are closed."""
        return bool(self._control or self._ready)

    def is_open(self, stream_id: int) -> bool:
        """Whether something may still be queued on the stream."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.end_queued

    def backlog(self, stream_id: int) -> int:
        """Bytes queued on the stream and not yet returned by `data_to_send`; 0 for a closed one."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.backlog

    def take_drained(self) -> set[int]:
        """Streams whose backlog fell below `Limits.low_water` since the last call."""
        drained, self._drained = self._drained, set()
        return drained

    # ---------------------------------------------------------------- input

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes of the peer, in any cut, and yield what they mean.  Never raises; see `ConnectionFailed`.

        The state moves with the iteration, so an event may be answered before the next one is asked for.  Exhaust the
        iterator before the next call.
        """
        if self._failed:
            return
        if self._preface_seen < len(PREFACE):
            try:
                data = self._skip_preface(data)
            except _ConnectionFault as fault:
                yield self._fail(fault)
                return
        buffer = self._buffer + data if self._buffer else data
        self._buffer = b""
        view = memoryview(buffer)
        position, end = 0, len(buffer)
        events: list[Event] = []
        run: list[memoryview] = []
        run_of: _Stream | None = None
        while end - position >= 9:
            high, low, kind, flags, stream_id = FRAME_HEADER.unpack_from(buffer, position)
            body = position + 9
            size = high << 8 | low
            if end - body < size <= MAX_FRAME_SIZE:
                break
            position = body + size
            if kind == DATA and not flags and 0 < size <= MAX_FRAME_SIZE:
                # Most frames are plain DATA of one stream after the other; a run of them is told of as one.
                if run_of is not None and run_of.id != stream_id:
                    yield DataReceived(run_of.id, b"".join(run))
                    run, run_of = [], None
                if run_of is None:
                    run_of = self._streams.get(stream_id)
                if run_of is not None and self._take_plain(run_of, size):
                    run.append(view[body:position])
                    continue
            if run and run_of is not None:
                yield DataReceived(run_of.id, b"".join(run))
                run = []
            run_of = None
            try:
                if size > MAX_FRAME_SIZE:
                    raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
                self._frame(kind, flags, stream_id & MAX_WINDOW, buffer[body:position], events)
            except _ConnectionFault as fault:
                yield from events
                yield self._fail(fault)
                return
            if events:
                yield from events
                events.clear()
        self._buffer = buffer[position:]
        if run and run_of is not None:
            yield DataReceived(run_of.id, b"".join(run))

    def _take_plain(self, stream: _Stream, size: int) -> bool:
        """Count a DATA frame without anything special; False if there is something that `_on_data` has to judge."""
        if not stream.remote_open or stream.expected is not None or self._block is not None:
            return False
        if size > stream.credit or size > self._credit:
            return False
        self._credit -= size
        stream.credit -= size
        stream.held += size
        self._unproductive = max(0, self._unproductive - 10)
        return True

    def _skip_preface(self, data: bytes) -> bytes:
        seen = self._preface_seen
        part = data[: len(PREFACE) - seen]
        if part != PREFACE[seen : seen + len(part)]:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the connection does not start with the HTTP/2 preface")
        self._preface_seen = seen + len(part)
        return data[len(part) :]

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if self._block is not None and (kind != CONTINUATION or stream_id != self._block.stream_id):
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted by another frame")
        if not self._settings_seen and (kind != SETTINGS or flags & ACK):
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind <= CONTINUATION:
            self._dispatch[kind](flags, stream_id, payload, events)
        else:
            self._count_unproductive()

    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        length = len(payload)
        if stream_id == 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0")
        data = _unpad(flags, payload)
        self._credit -= length
        if self._credit < 0:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the window of the connection")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._late_data(stream_id, length)
            return
        if not stream.remote_open:
            self._return_credit(length)
            self._reset(stream, ErrorCode.STREAM_CLOSED, "DATA after END_STREAM", events)
            return
        stream.held += length
        stream.credit -= length
        if stream.credit < 0:
            self._reset(stream, ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the window of the stream", events)
            return
        if stream.expected is not None:
            stream.expected -= len(data)
            if stream.expected < 0:
                self._reset(stream, ErrorCode.PROTOCOL_ERROR, "more DATA than content-length says", events)
                return
            if stream.expected and flags & END_STREAM:
                # Before the data is told of: who is told may answer at once, and finds the stream open.
                self._reset(stream, ErrorCode.PROTOCOL_ERROR, "less DATA than content-length says", events)
                return
        if length > len(data):
            self.consumed(stream_id, length - len(data))
        if data:
            self._unproductive = max(0, self._unproductive - 10)
            events.append(DataReceived(stream_id, data))
        elif not flags & END_STREAM:
            self._count_unproductive()
        if flags & END_STREAM:
            self._end_remote(stream, (), events)

    def _late_data(self, stream_id: int, length: int) -> None:
        """DATA on a stream that is not open: allowed only as far as it left before the peer saw our reset."""
        self._forbid_idle(stream_id, "DATA")
        credit = self._closed.get(stream_id, _ENDED)
        if credit < 0:
            raise _ConnectionFault(ErrorCode.STREAM_CLOSED, f"DATA on closed stream {stream_id}")
        if length > credit:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the window of a stream that was reset")
        self._closed[stream_id] = credit - length
        self._return_credit(length)
        if not length:
            self._count_unproductive()

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id % 2 == 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}, not a client's number")
        fragment = _unpad(flags, payload)
        self_dependent = False
        if flags & PRIORITY_FLAG:
            if len(fragment) < 5:
                raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            self_dependent = U32.unpack_from(fragment)[0] & MAX_WINDOW == stream_id
            fragment = fragment[5:]
        block = _HeaderBlock(stream_id, bool(flags & END_STREAM), self_dependent, fragment)
        if flags & END_HEADERS:
            self._header_block(block, events)
        else:
            self._block = block

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        block = self._block
        if block is None:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block.continuations += 1
        block.fragment += payload
        if block.continuations > self._limits.max_continuations or len(block.fragment) > self._limits.max_header_block:
            raise _ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block that does not end")
        if flags & END_HEADERS:
            self._block = None
            self._header_block(block, events)

    def _header_block(self, block: _HeaderBlock, events: list[Event]) -> None:
        # Decoded before anything else is judged: the compression state is shared by all streams.
        headers = self._decode(bytes(block.fragment))
        stream = self._streams.get(block.stream_id)
        if stream is not None:
            self._trailers(stream, block, headers, events)
        elif block.stream_id > self._last_stream_id:
            self._request(block, headers, events)
        elif block.stream_id not in self._closed:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {block.stream_id} opened out of order")
        elif self._closed[block.stream_id] < 0:
            raise _ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS on closed stream {block.stream_id}")
        else:
            self._count_unproductive()

    def _decode(self, block: bytes) -> HeaderList:
        headers: list[tuple[bytes, bytes]] = []
        size = 0
        try:
            for segment in segments(block):
                part = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(segment, raw=True)]
                size += list_size(part)
                if size > self._limits.max_header_list:
                    raise OversizedHeaderListError
                headers += part
            return tuple(headers)
        except OversizedHeaderListError as error:
            raise _ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header list is too large") from error
        except HPACKError as error:
            raise _ConnectionFault(ErrorCode.COMPRESSION_ERROR, "the header block cannot be decoded") from error

    def _request(self, block: _HeaderBlock, headers: HeaderList, events: list[Event]) -> None:
        stream_id = self._last_stream_id = block.stream_id
        size = list_size(headers)
        crowded = self._header_total + size > self._limits.max_header_total
        if crowded or self._goaway_sent or len(self._streams) >= self._limits.max_concurrent_streams:
            self._reject(stream_id, ErrorCode.REFUSED_STREAM)
            return
        try:
            if block.self_dependent:
                raise MalformedError("the stream depends on itself")
            expected = check_request(headers)
            if block.end_stream and expected:
                raise MalformedError("content-length without content")
        except MalformedError:
            self._reject(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        stream = self._streams[stream_id] = _Stream(stream_id, self._initial_window, self._limits.initial_window)
        stream.expected = expected
        stream.header_size = size
        self._header_total += size
        events.append(RequestReceived(stream_id, headers))
        if block.end_stream:
            self._end_remote(stream, (), events)

    def _trailers(self, stream: _Stream, block: _HeaderBlock, headers: HeaderList, events: list[Event]) -> None:
        if not stream.remote_open:
            self._reset(stream, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM", events)
            return
        try:
            if block.self_dependent:
                raise MalformedError("the stream depends on itself")
            if not block.end_stream:
                raise MalformedError("HEADERS in the middle of a request")
            check_trailers(headers)
        except MalformedError as error:
            self._reset(stream, ErrorCode.PROTOCOL_ERROR, str(error), events)
            return
        self._end_remote(stream, headers, events)

    def _end_remote(self, stream: _Stream, trailers: HeaderList, events: list[Event]) -> None:
        if stream.expected:
            self._reset(stream, ErrorCode.PROTOCOL_ERROR, "less DATA than content-length says", events)
            return
        stream.remote_open = False
        events.append(RequestEnded(stream.id, trailers))
        if not stream.local_open:
            self._forget(stream, _ENDED)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id == 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._count_unproductive()
        if len(payload) != 5:
            self._stream_fault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong length", events)
        elif U32.unpack_from(payload)[0] & MAX_WINDOW == stream_id:
            self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR, "the stream depends on itself", events)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 4:
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        self._forbid_idle(stream_id, "RST_STREAM")
        self._count_unproductive()
        stream = self._streams.get(stream_id)
        if stream is not None:
            code = U32.unpack(payload)[0]
            self._forget(stream, _RESET_BY_PEER)
            events.append(StreamReset(stream_id, code, True, f"reset by the peer ({error_name(code)})"))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id != 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
        self._settings_seen = True
        self._count_unproductive()
        if flags & ACK:
            return
        # Only the last value of each setting has an effect, so a frame full of window changes costs no more than one.
        changes: dict[int, int] = {}
        for setting, value in SETTING.iter_unpack(payload):
            _check_setting(setting, value)
            changes[setting] = value
        if SET_HEADER_TABLE_SIZE in changes:
            self._table_size = min(changes[SET_HEADER_TABLE_SIZE], _HEADER_TABLE_SIZE)
            self._table_size_floor = min(self._table_size_floor, self._table_size)
        if SET_MAX_FRAME in changes:
            self._frame_size = min(changes[SET_MAX_FRAME], _LARGEST_FRAME_SENT)
        if SET_INITIAL_WINDOW in changes:
            self._change_initial_window(changes[SET_INITIAL_WINDOW])
        self._answer(make_frame(SETTINGS, ACK, 0, b""))

    def _change_initial_window(self, size: int) -> None:
        change = size - self._initial_window
        self._initial_window = size
        for stream in self._streams.values():
            stream.window += change
            if stream.window > MAX_WINDOW:
                raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS makes a window too large")
            self._schedule(stream)

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id != 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong length")
        self._count_unproductive()
        if not flags & ACK:
            self._answer(make_frame(PING, ACK, 0, payload))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if stream_id != 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a wrong length")
        self._count_unproductive()
        last, code = struct.unpack_from(">II", payload)
        events.append(GoAwayReceived(code, last & MAX_WINDOW, payload[8:1032]))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 4:
            raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        increment = U32.unpack(payload)[0] & MAX_WINDOW
        if stream_id == 0:
            self._open_send_window(increment)
            return
        self._forbid_idle(stream_id, "WINDOW_UPDATE")
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if increment == 0:
            self._reset(stream, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0", events)
        elif stream.window + increment > MAX_WINDOW:
            self._reset(stream, ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE makes the window too large", events)
        else:
            stream.window += increment
            self._schedule(stream)

    def _open_send_window(self, increment: int) -> None:
        if increment == 0:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        if self._window + increment > MAX_WINDOW:
            raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE makes the window too large")
        self._window += increment
        if self._blocked:
            self._ready.update(self._blocked)
            self._blocked.clear()

    # ---------------------------------------------------------------- faults

    def _forbid_idle(self, stream_id: int, what: str) -> None:
        if stream_id == 0 or stream_id % 2 == 0 or stream_id > self._last_stream_id:
            raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}, which was never opened")

    def _count_unproductive(self) -> None:
        self._unproductive += 1
        if self._unproductive > self._limits.max_unproductive:
            raise _ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a flood of frames that serve nothing")

    def _answer(self, frame: bytes) -> None:
        """Queue what a peer's frame makes us send; the peer that never reads must not fill our memory with it."""
        self._push(frame)
        self._owed += len(frame)
        if self._owed > self._limits.max_control_backlog:
            raise _ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the peer does not read its answers")

    def _reject(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream that the application never heard of."""
        self._remember(stream_id, self._limits.initial_window)
        self._count_unproductive()
        self._answer(make_frame(RST_STREAM, 0, stream_id, U32.pack(code)))

    def _stream_fault(self, stream_id: int, code: ErrorCode, reason: str, events: list[Event]) -> None:
        """Answer a fault that may concern a stream in any state; an idle one cannot be reset, so the connection is."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._reset(stream, code, reason, events)
        elif stream_id > self._last_stream_id or stream_id % 2 == 0:
            raise _ConnectionFault(code, reason)
        else:
            self._answer(make_frame(RST_STREAM, 0, stream_id, U32.pack(code)))

    def _reset(self, stream: _Stream, code: ErrorCode, reason: str, events: list[Event]) -> None:
        self._forget(stream, max(stream.credit, 0))
        events.append(StreamReset(stream.id, code, False, reason))
        self._count_unproductive()
        self._answer(make_frame(RST_STREAM, 0, stream.id, U32.pack(code)))

    def _fail(self, fault: _ConnectionFault) -> ConnectionFailed:
        self._failed = True
        if self._owed > self._limits.max_control_backlog:
            self._control.clear()
        for stream in list(self._streams.values()):
            self._forget(stream, _ENDED)
        self._closed.clear()
        self._buffer = b""
        self._block = None
        self._push_goaway(fault.code, fault.reason.encode())
        return ConnectionFailed(fault.code, fault.reason)

    def _forget(self, stream: _Stream, how: int) -> None:
        """Drop a stream with everything queued on it; its share of the budget and its unconsumed bytes return."""
        del self._streams[stream.id]
        self._ready.pop(stream.id, None)
        self._blocked.pop(stream.id, None)
        self._drained.discard(stream.id)
        self._header_total -= stream.header_size
        self._budget += stream.target - self._limits.initial_window
        self._return_credit(stream.held)
        self._remember(stream.id, how)

    def _remember(self, stream_id: int, how: int) -> None:
        self._closed[stream_id] = how
        if len(self._closed) > _CLOSED_REMEMBERED:
            del self._closed[next(iter(self._closed))]

    # ---------------------------------------------------------------- receive windows

    def consumed(self, stream_id: int, size: int) -> None:
        """The application is done with ``size`` received bytes of a stream; re-opens windows in batches.

        A closed stream is ignored: its bytes were accounted for when it closed.

        Raises:
            LocalProtocolError: more was consumed than received.
        """
        stream = self._streams.get(stream_id)
        if stream is None or not size:
            return
        if not 0 <= size <= stream.held:
            raise LocalProtocolError(f"stream {stream_id}: {size} bytes consumed, {stream.held} held")
        stream.held -= size
        self._return_credit(size)
        if stream.target > self._limits.max_window:
            surplus = min(stream.target - self._limits.max_window, stream.target - stream.held - stream.credit)
            stream.target -= surplus
            self._budget += surplus
        if stream.remote_open and stream.target - stream.held - stream.credit >= max(_MIN_UPDATE, stream.target // 4):
            growth = min(stream.target, self._limits.max_window - stream.target, self._budget - self._growth_floor)
            if growth > 0:
                stream.target += growth
                self._budget -= growth
            self._announce_window(stream)

    def require(self, stream_id: int, size: int) -> bool:
        """Let the peer send ``size`` further bytes on a stream though nothing is consumed: the rest of a large message.

        Returns:
            False if the receive budget does not allow it; the stream cannot go on then.
        """
        stream = self._streams.get(stream_id)
        if stream is None or not stream.remote_open or stream.credit >= size:
            return True
        growth = stream.held + size - stream.target
        if growth > self._budget:
            return False
        if growth > 0:
            stream.target += growth
            self._budget -= growth
        self._announce_window(stream)
        return True

    def _announce_window(self, stream: _Stream) -> None:
        increment = stream.target - stream.held - stream.credit
        stream.credit += increment
        self._push(make_frame(WINDOW_UPDATE, 0, stream.id, U32.pack(increment)))

    def _return_credit(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= self._update_size and not self._failed:
            self._announce_credit()

    def _announce_credit(self) -> None:
        if self._consumed:
            self._credit += self._consumed
            self._push(make_frame(WINDOW_UPDATE, 0, 0, U32.pack(self._consumed)))
            self._consumed = 0

    # ---------------------------------------------------------------- output

    def send_headers(self, stream_id: int, headers: Headers, *, end_stream: bool = False, reset: bool = False) -> None:
        """Queue the response's headers.  They leave before any DATA.

        Args:
            stream_id: The stream of a `RequestReceived`.
            headers: ``:status`` first, then lower-case names.
            end_stream: Whether nothing follows.
            reset: With ``end_stream``: as in `end_stream`.

        Raises:
            LocalProtocolError: the stream is closed, or its headers were sent already.
        """
        stream = self._sendable(stream_id)
        if stream.headers_sent:
            raise LocalProtocolError(f"stream {stream_id}: headers were sent already")
        stream.headers_sent = True
        for frame in self._header_frames(stream_id, headers, end_stream):
            self._push(frame)
        if end_stream:
            stream.end_queued = True
            stream.reset_at_end = reset
            for frame in self._finish(stream):
                self._push(frame)

    def send_data(self, stream_id: int, pieces: Iterable[bytes]) -> None:
        """Queue body bytes.  The pieces are kept as they are (no copy) and share frames.

        Raises:
            LocalProtocolError: the stream is closed or ended, or its headers were not sent.
        """
        stream = self._sendable(stream_id)
        if not stream.headers_sent:
            raise LocalProtocolError(f"stream {stream_id}: data before headers")
        for piece in pieces:
            if piece:
                stream.queue.append(piece)
                stream.backlog += len(piece)
        self._schedule(stream)

    def end_stream(self, stream_id: int, trailers: Sequence[tuple[bytes, bytes]] = (), *, reset: bool = False) -> None:
        """End the response once everything queued before has left.

        Args:
            stream_id: The stream.
            trailers: Trailer fields; without any, an empty DATA frame ends the stream.
            reset: If the peer has not ended its side by then, reset the stream with NO_ERROR (RFC 9113, 8.1).

        Raises:
            LocalProtocolError: the stream is closed or ended, or its headers were not sent.
        """
        stream = self._sendable(stream_id)
        if not stream.headers_sent:
            raise LocalProtocolError(f"stream {stream_id}: end before headers")
        stream.end_queued = True
        stream.trailers = trailers
        stream.reset_at_end = reset
        self._schedule(stream)

    def reset_stream(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream at once; what is queued on it is dropped.  A closed stream is left alone."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._forget(stream, max(stream.credit, 0))
            self._push(make_frame(RST_STREAM, 0, stream_id, U32.pack(code)))

    def go_away(self, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Announce that no new streams are served; open ones go on.  Further calls do nothing."""
        if not self._goaway_sent:
            self._push_goaway(code, b"")

    def data_to_send(self, limit: int = CHUNK_SIZE) -> bytes:
        """The next bytes for the peer; empty when there is nothing, or no window, left.

        At most ``limit`` bytes, unless a single control frame is longer than that.
        """
        out: list[bytes | memoryview] = []
        room = limit
        while self._control and (len(self._control[0]) <= room or not out):
            frame = self._control.popleft()
            room -= len(frame)
            out.append(frame)
        if not self._control:
            self._owed = 0
            while self._ready:
                used = self._emit(out, room)
                if used < 0:
                    break
                room -= used
        return b"".join(out)

    def _emit(self, out: list[bytes | memoryview], room: int) -> int:
        """Append the next frame of the stream whose turn it is; returns the bytes used, or -1 if the chunk is full."""
        stream_id, stream = self._ready.popitem(last=False)
        if not stream.backlog:
            # Huffman coding can make a field four times as long; the end of a stream is never split over two chunks.
            if out and 64 + 4 * sum(len(name) + len(value) + 4 for name, value in stream.trailers) > room:
                self._put_back(stream)
                return -1
            frames = self._end_frames(stream)
            size = sum(map(len, frames))
            out += frames
            return size
        size = min(stream.backlog, stream.window, self._window, self._frame_size)
        if size <= 0:
            if self._window <= 0 < stream.window:
                self._blocked[stream_id] = stream
            return 0
        if size + 9 > room:
            size = room - 9
            if out or size <= 0:
                self._put_back(stream)
                return -1
        out.append(FRAME_HEADER.pack(size >> 8, size & 0xFF, DATA, 0, stream_id))
        take(stream.queue, size, out)
        before = stream.backlog
        stream.backlog -= size
        stream.window -= size
        self._window -= size
        self._unproductive = max(0, self._unproductive - 10)
        if before >= self._limits.low_water > stream.backlog:
            self._drained.add(stream_id)
        self._schedule(stream)
        return size + 9

    def _put_back(self, stream: _Stream) -> None:
        self._ready[stream.id] = stream
        self._ready.move_to_end(stream.id, last=False)

    def _end_frames(self, stream: _Stream) -> list[bytes]:
        if stream.trailers:
            frames = self._header_frames(stream.id, stream.trailers, True)
        else:
            frames = [make_frame(DATA, END_STREAM, stream.id, b"")]
        return frames + self._finish(stream)

    def _finish(self, stream: _Stream) -> list[bytes]:
        """Our END_STREAM is out: close the stream if the peer ended too, or if it is to be reset."""
        stream.local_open = False
        self._unproductive = max(0, self._unproductive - 10)
        if not stream.remote_open:
            self._forget(stream, _ENDED)
        elif stream.reset_at_end:
            self._forget(stream, stream.credit)
            return [make_frame(RST_STREAM, 0, stream.id, U32.pack(ErrorCode.NO_ERROR))]
        return []

    def _schedule(self, stream: _Stream) -> None:
        """Give the stream its turn if it has something that its own window lets through."""
        if stream.id in self._ready or stream.id in self._blocked:
            return
        if stream.window > 0 if stream.backlog else stream.end_queued:
            self._ready[stream.id] = stream

    def _sendable(self, stream_id: int) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None or stream.end_queued:
            raise LocalProtocolError(f"stream {stream_id} is closed")
        return stream

    def _header_frames(self, stream_id: int, headers: Headers, end_stream: bool) -> list[bytes]:
        self._apply_table_size()
        block = self._encoder.encode([HeaderTuple(name, value) for name, value in headers])
        return header_frames(stream_id, block, END_STREAM if end_stream else 0)

    def _apply_table_size(self) -> None:
        """Tell the encoder the peer's table size: the smallest since the last block, then the last (RFC 7541, 4.2)."""
        for size in (self._table_size_floor, self._table_size):
            if size != self._encoder.header_table_size:
                self._encoder.header_table_size = size
        self._table_size_floor = self._table_size

    def _push(self, frame: bytes) -> None:
        self._control.append(frame)

    def _push_goaway(self, code: ErrorCode, debug: bytes) -> None:
        if not self._goaway_sent:
            self._goaway_sent = True
            self._last_served = self._last_stream_id
        self._push(make_frame(GOAWAY, 0, 0, struct.pack(">II", self._last_served, code) + debug))


def _unpad(flags: int, payload: bytes) -> bytes:
    if not flags & PADDED:
        return payload
    if not payload:
        raise _ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its padding length")
    padding = payload[0]
    if padding >= len(payload):
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - padding]


def _check_setting(setting: int, value: int) -> None:
    if setting == SET_ENABLE_PUSH and value > 1:
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH of {value}")
    if setting == SET_INITIAL_WINDOW and value > MAX_WINDOW:
        raise _ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE of {value}")
    if setting == SET_MAX_FRAME and not MAX_FRAME_SIZE <= value < 1 << 24:
        raise _ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE of {value}")
