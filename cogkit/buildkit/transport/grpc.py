"""The gRPC server protocol over `Http2Connection`: bytes in, call events out.

Source of the facts: grpc/doc/PROTOCOL-HTTP2.md and what grpc-go, the peer, does.  This file must not know asyncio,
clocks, sockets or any service: a deadline is a number here, and whether a method exists is the owner's business.

Messages are decoded when they are taken, not when they arrive: until then a call holds the raw bytes that its receive
window let in, and the window re-opens as messages are taken.  A compressed message of the peer fails its call with
UNIMPLEMENTED and ``grpc-accept-encoding: identity``; ours may be compressed where the peer accepts gzip, which grpc-go
says of itself with every call.  A failure of one call never touches another.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Final, Literal, TypeAlias

from cogkit.buildkit.session.service import CallError, Metadata
from cogkit.buildkit.transport import http2
from cogkit.buildkit.transport.grpc_messages import PREFIX_SIZE as _PREFIX
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.buildkit.transport.http2 import ConnectionFailed, ErrorCode, Http2Connection, Limits, LocalProtocolError
from cogkit.fast_dataclass import dataclass

MAX_MESSAGE: Final = 16 << 20
"""Largest message accepted, in bytes: containerd's default, which buildkitd uses for its sessions."""

OutgoingMetadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Metadata to send, in order; values of ``-bin`` keys are bytes and are base64-encoded here."""

_MAX_STATUS_TEXT: Final = 8_192
_TIMEOUT: Final = re.compile(rb"(\d{1,8})([HMSmun])")
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_ASCII_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_PROTOCOL_FIELDS: Final = frozenset(
    {b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"grpc-message-type"}
)
_GRPC: Final = b"application/grpc"
_UNESCAPED: Final = frozenset(range(0x20, 0x7F)) - {0x25}
_GZIP: Final = ((b"grpc-encoding", b"gzip"),)
_RESPONSE: Final = ((b":status", b"200"), (b"content-type", _GRPC), (b"grpc-accept-encoding", b"identity"))


class Pending(Enum):
    """What `GrpcServer.take_message` returns when the next message has not arrived yet."""

    PENDING = "pending"


PENDING: Final = Pending.PENDING


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The peer calls ``method``; ``timeout`` is the seconds it will wait, None for ever."""

    call: int
    method: str
    metadata: Metadata
    timeout: float | None
    takes_gzip: bool = False
    """The peer understands messages that are compressed (`GrpcServer.use_gzip`)."""


@dataclass(frozen=True, slots=True)
class Readable:
    """`GrpcServer.take_message` has an answer for this call: a message, the end, or its failure."""

    call: int


@dataclass(frozen=True, slots=True)
class CallReset:
    """The call is over without an answer of ours: reset by the peer, or by us because the peer broke the protocol."""

    call: int
    by_peer: bool
    reason: str


@dataclass(frozen=True, slots=True)
class PeerGoingAway:
    """The peer starts no further calls."""

    code: int
    debug: bytes


Event: TypeAlias = CallStarted | Readable | CallReset | PeerGoingAway | ConnectionFailed


class _Call:
    __slots__ = ("buffer", "encoding", "ended", "gzip", "headers_sent")

    def __init__(self, encoding: bytes):
        self.buffer = bytearray()
        self.encoding = encoding
        self.ended = False
        self.headers_sent = False
        self.gzip = False


class GrpcServer:
    """All calls of one connection.  ``call`` is the number that `CallStarted` gave; numbers are never used twice."""

    def __init__(self, *, limits: Limits | None = None, max_message: int = MAX_MESSAGE):
        self._http2 = Http2Connection(limits)
        self._max_message = max_message
        self._calls: dict[int, _Call] = {}

    # ---------------------------------------------------------------- input

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes of the peer, in any cut.  Never raises: a fault ends in `CallReset` or `ConnectionFailed`.

        As with `Http2Connection.receive`: answer events as they come, and exhaust the iterator before the next call.
        """
        for event in self._http2.receive(data):
            match event:
                case http2.DataReceived():
                    yield from self._on_data(event)
                case http2.RequestReceived():
                    yield from self._on_request(event)
                case http2.RequestEnded():
                    if (call := self._calls.get(event.stream_id)) is not None:
                        call.ended = True
                        yield Readable(event.stream_id)
                case http2.StreamReset():
                    if self._calls.pop(event.stream_id, None) is not None:
                        yield CallReset(event.stream_id, event.by_peer, event.reason)
                case http2.GoAwayReceived():
                    yield PeerGoingAway(event.code, event.debug)
                case http2.ConnectionFailed():
                    self._calls.clear()
                    yield event

    def _on_request(self, event: http2.RequestReceived) -> Iterator[Event]:
        stream_id = event.stream_id
        fields = dict(event.headers)
        method = fields.get(b":method", b"")
        content_type = fields.get(b"content-type", b"").lower()
        if method != b"POST":
            self._refuse(stream_id, b"405", b"gRPC calls are POST requests", method, (b"allow", b"POST"))
        elif content_type != _GRPC and not content_type.startswith((_GRPC + b"+", _GRPC + b";")):
            self._refuse(stream_id, b"415", b"this server speaks application/grpc only", method)
        else:
            yield from self._on_call(stream_id, fields, event.headers)

    def _on_call(
        self, stream_id: int, fields: dict[bytes, bytes], headers: Iterable[tuple[bytes, bytes]]
    ) -> Iterator[Event]:
        self._calls[stream_id] = _Call(fields.get(b"grpc-encoding", b"identity"))
        try:
            method = fields[b":path"].decode("ascii")
            timeout = _parse_timeout(fields.get(b"grpc-timeout"))
            metadata = _parse_metadata(headers)
        except UnicodeDecodeError:
            self.finish(stream_id, StatusCode.UNIMPLEMENTED, "malformed method name")
        except CallError as error:
            self.finish(stream_id, error.code, error.message)
        else:
            accepted = fields.get(b"grpc-accept-encoding", b"").lower().split(b",")
            takes_gzip = any(name.strip() == b"gzip" for name in accepted)
            yield CallStarted(stream_id, method, metadata, timeout, takes_gzip)

    def _refuse(self, stream_id: int, status: bytes, text: bytes, method: bytes, *fields: tuple[bytes, bytes]) -> None:
        """Answer what is not a gRPC call as HTTP does; its body is discarded as it comes."""
        body = b"" if method == b"HEAD" else text + b"\n"
        headers = ((b":status", status), (b"content-type", b"text/plain; charset=utf-8"), *fields)
        self._http2.send_headers(stream_id, headers, end_stream=not body)
        if body:
            self._http2.send_data(stream_id, (body,))
            self._http2.end_stream(stream_id)

    def _on_data(self, event: http2.DataReceived) -> Iterator[Event]:
        call = self._calls.get(event.stream_id)
        if call is None:
            self._http2.consumed(event.stream_id, len(event.data))
            return
        call.buffer += event.data
        try:
            if self._next_size(event.stream_id, call) is PENDING:
                return
        except CallError:
            pass  # take_message raises it again, to the one who can answer
        yield Readable(event.stream_id)

    def _next_size(self, stream_id: int, call: _Call) -> int | Literal[Pending.PENDING] | None:
        """The size of the first message of the buffer, None at the end of the stream, PENDING if it is incomplete."""
        buffer = call.buffer
        missing = _PREFIX - len(buffer)
        if missing <= 0:
            size = int.from_bytes(buffer[1:_PREFIX], "big")
            self._check_prefix(buffer[0], size, call.encoding)
            missing = _PREFIX + size - len(buffer)
            if missing <= 0:
                return size
        if call.ended:
            if not buffer:
                return None
            raise CallError(StatusCode.INTERNAL, "the stream ended in the middle of a message")
        if not self._http2.require(stream_id, missing):
            raise CallError(StatusCode.RESOURCE_EXHAUSTED, "too many large messages are on their way at once")
        return PENDING

    def _check_prefix(self, compressed: int, size: int, encoding: bytes) -> None:
        if compressed == 1 and encoding != b"identity":
            name = encoding[:64].decode("ascii", "replace")
            raise CallError(StatusCode.UNIMPLEMENTED, f"message compression {name!r} is not supported, only identity")
        if compressed:
            raise CallError(StatusCode.INTERNAL, "a message says it is compressed, but no grpc-encoding was named")
        if size > self._max_message:
            text = f"a message of {size} bytes is larger than the {self._max_message} that are accepted"
            raise CallError(StatusCode.RESOURCE_EXHAUSTED, text)

    def take_message(self, call: int) -> bytes | Literal[Pending.PENDING] | None:
        """The call's next message, None when the peer has half-closed, or PENDING (a `Readable` will come).

        Raises:
            CallError: the peer's messages are malformed or too large; the owner should `finish` the call with it.
            LocalProtocolError: the call is over.
        """
        state = self._call(call)
        size = self._next_size(call, state)
        if not isinstance(size, int):
            return size
        with memoryview(state.buffer) as view, view[_PREFIX : _PREFIX + size] as body:
            message = bytes(body)
        del state.buffer[: _PREFIX + size]
        self._http2.consumed(call, _PREFIX + size)
        return message

    def take_messages(self, call: int, limit: int) -> list[bytes] | Literal[Pending.PENDING] | None:
        """The call's next messages, as many as are there but ``limit``; otherwise as `take_message`.

        Raises:
            CallError, LocalProtocolError: as there.
        """
        state = self._call(call)
        if not isinstance(size := self._next_size(call, state), int):
            return size
        messages: list[bytes] = []
        at, end = 0, len(state.buffer)
        with memoryview(state.buffer) as buffer:
            while True:
                start = at + _PREFIX
                at = start + size
                with buffer[start:at] as body:
                    messages.append(bytes(body))
                if end - at < _PREFIX or len(messages) == limit:
                    break
                size = int.from_bytes(buffer[at + 1 : at + _PREFIX], "big")
                # What is wrong with the next one is said when it is taken.
                if buffer[at] or size > self._max_message or end - at - _PREFIX < size:
                    break
        del state.buffer[:at]
        self._http2.consumed(call, at)
        return messages

    # ---------------------------------------------------------------- output

    def send_initial_metadata(self, call: int, metadata: OutgoingMetadata = ()) -> None:
        """Send the response headers; `send_messages` does it by itself when there is nothing to tell.

        Raises:
            LocalProtocolError: the call is over, or its headers were sent.
            ValueError: a key or value that gRPC does not allow.
        """
        state = self._call(call)
        if state.headers_sent:
            raise LocalProtocolError(f"call {call}: initial metadata was sent already")
        fields = _encode_metadata(metadata)
        state.headers_sent = True
        encoding = _GZIP if state.gzip else ()
        self._http2.send_headers(call, (*_RESPONSE, *encoding, *fields))

    def send_messages(self, call: int, messages: Iterable[bytes]) -> None:
        """Queue messages.  They share DATA frames, and their bytes are not copied before they leave.

        Raises:
            LocalProtocolError: the call is over.
        """
        if not self._call(call).headers_sent:
            self.send_initial_metadata(call)
        pieces: list[bytes] = []
        for message in messages:
            pieces.append(len(message).to_bytes(_PREFIX, "big"))
            pieces.append(message)
        self._http2.send_data(call, pieces)

    def use_gzip(self, call: int) -> None:
        """Let framed messages of the call be compressed; to be called before anything is sent on it.

        Raises:
            LocalProtocolError: the call is over, or its headers were sent.
        """
        state = self._call(call)
        if state.headers_sent:
            raise LocalProtocolError(f"call {call}: initial metadata was sent already")
        state.gzip = True

    def send_framed(self, call: int, pieces: Iterable[bytes]) -> None:
        """Queue messages that have their frames already (`grpc_messages`), cut into pieces anywhere.

        Raises:
            LocalProtocolError: the call is over.
        """
        if not self._call(call).headers_sent:
            self.send_initial_metadata(call)
        self._http2.send_data(call, pieces)

    def finish(
        self,
        call: int,
        code: StatusCode = StatusCode.OK,
        message: str = "",
        *,
        details: bytes | None = None,
        metadata: OutgoingMetadata = (),
    ) -> None:
        """End the call with a status, after the messages that are queued.  The call is over for the owner.

        Args:
            call: The call.
            code: The status.
            message: What the peer shows, cut to 8 KiB; percent-encoded on the wire.
            details: A serialized ``google.rpc.Status`` (``grpc-status-details-bin``).
            metadata: Trailing metadata.

        Raises:
            LocalProtocolError: the call is over.
            ValueError: a key or value that gRPC does not allow.
        """
        state = self._call(call)
        trailers = [(b"grpc-status", b"%d" % code)]
        if message:
            trailers.append((b"grpc-message", _percent_encode(message)))
        if details is not None:
            trailers.append((b"grpc-status-details-bin", _base64(details)))
        trailers += _encode_metadata(metadata)
        del self._calls[call]
        self._http2.consumed(call, len(state.buffer))
        if state.headers_sent:
            self._http2.end_stream(call, trailers, reset=True)
        else:
            self._http2.send_headers(call, (*_RESPONSE, *trailers), end_stream=True, reset=True)

    def cancel(self, call: int) -> None:
        """Give the call up without a status (RST_STREAM, CANCEL); one that is over already is left alone."""
        self._calls.pop(call, None)
        self._http2.reset_stream(call, ErrorCode.CANCEL)

    def go_away(self) -> None:
        """Tell the peer to start no further calls."""
        self._http2.go_away()

    def data_to_send(self, limit: int = http2.CHUNK_SIZE) -> bytes:
        """See `Http2Connection.data_to_send`."""
        return self._http2.data_to_send(limit)

    # ---------------------------------------------------------------- what the owner may ask

    def is_open(self, call: int) -> bool:
        """Whether the call can still be answered."""
        return call in self._calls

    def backlog(self, call: int) -> int:
        """Bytes of the call that wait to be sent."""
        return self._http2.backlog(call)

    def take_drained(self) -> set[int]:
        """Calls whose backlog fell below the low-water mark since last asked."""
        return self._http2.take_drained()

    @property
    def wants_write(self) -> bool:
        """Whether `data_to_send` may have something."""
        return self._http2.wants_write

    @property
    def idle(self) -> bool:
        """Whether no call is open and none has anything left to send."""
        return not self._http2.open_streams

    def _call(self, call: int) -> _Call:
        state = self._calls.get(call)
        if state is None:
            raise LocalProtocolError(f"call {call} is over")
        return state


def _parse_timeout(value: bytes | None) -> float | None:
    if value is None:
        return None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise CallError(StatusCode.INTERNAL, "malformed grpc-timeout")
    return int(match[1]) * _SECONDS[match[2]]


def _parse_metadata(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """Collect the fields that are the caller's own.  ``-bin`` values may be several in one field, padded or not."""
    metadata: dict[str, list[bytes]] = {}
    for name, value in headers:
        if name[:1] == b":" or name in _PROTOCOL_FIELDS:
            continue
        values = metadata.setdefault(name.decode("ascii"), [])
        if name.endswith(b"-bin"):
            values += (_unbase64(part) for part in value.split(b","))
        else:
            values.append(value)
    return {name: tuple(values) for name, values in metadata.items()}


def _unbase64(value: bytes) -> bytes:
    value = value.strip().rstrip(b"=")
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise CallError(StatusCode.INTERNAL, "malformed binary metadata") from error


def _base64(value: bytes) -> bytes:
    return base64.b64encode(value).rstrip(b"=")


def _encode_metadata(metadata: OutgoingMetadata) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for key, value in metadata:
        if not _KEY.fullmatch(key) or key.startswith("grpc-"):
            raise ValueError(f"metadata key {key!r} is not allowed")
        if key.endswith("-bin") and isinstance(value, bytes):
            fields.append((key.encode(), _base64(value)))
        elif not key.endswith("-bin") and isinstance(value, str) and _ASCII_VALUE.fullmatch(value):
            fields.append((key.encode(), value.strip(" ").encode()))
        else:
            raise ValueError(f"value of metadata {key!r} is not allowed")
    return fields


def _percent_encode(text: str) -> bytes:
    """``grpc-message``: UTF-8, all but printable ASCII and with ``%`` escaped; never cut inside an escape."""
    octets = text.encode("utf-8", "replace")[:_MAX_STATUS_TEXT]
    return b"".join(b"%c" % octet if octet in _UNESCAPED else b"%%%02X" % octet for octet in octets)
