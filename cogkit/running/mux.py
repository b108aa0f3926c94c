"""Many streams of bytes over one connection, as a state machine: bytes in, events and bytes out.

Both ends of the link to a container run this file, the one in the container with whatever Python the image has.  So it
uses the standard library only and keeps to the syntax of Python 3.7; `from __future__ import annotations` included.
It must not touch sockets, threads or the clock.

A frame is one byte that says what it is, the channel and the length of the payload (four bytes each, big endian), and
the payload.  Either side opens channels: the client those with even numbers, the relay those with odd ones, each in
rising order.  On a channel:

    OPEN     what is wanted, for the layer above (`Opened`); the other side may answer with ACCEPT or RESET
    ACCEPT   an answer, for the layer above
    DATA     bytes of the stream, never more than the receiver has room for
    END      no more bytes in this direction; when both sides have said so, the channel is closed
    RESET    the channel is closed at once; the payload says why
    WINDOW   the receiver has room for so many more bytes (four bytes)

PING and PONG have channel 0 and show that the other end is alive.  What arrives on a channel that is closed already is
dropped: the other side had sent it before it knew.  Anything else that does not fit raises `MuxError`, and the
connection is of no use any more.  Memory is bounded: a channel holds at most a window of bytes that were not consumed,
and there are at most `MAX_CHANNELS` channels.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Union

HEADER = struct.Struct(">BII")
_NUMBER = struct.Struct(">I")

OPEN, ACCEPT, DATA, END, RESET, WINDOW, PING, PONG = range(1, 9)

MAX_PAYLOAD = 64 * 1024
WINDOW_SIZE = 1024 * 1024
"""Bytes that may be under way in one direction of a channel."""
MAX_CHANNELS = 4096
MAX_REPLIES = 1024
"""Answers to PING that may wait to be sent."""

CLIENT, RELAY = 0, 1


class MuxError(Exception):
    """The other side broke the rules."""


class Opened(NamedTuple):
    """The other side opened a channel."""

    channel: int
    request: bytes


class Accepted(NamedTuple):
    """The other side took the channel that we opened."""

    channel: int
    answer: bytes


class Data(NamedTuple):
    """Bytes of a channel; `Mux.consumed` makes room for more."""

    channel: int
    data: bytes


class Ended(NamedTuple):
    """The other side sends no more on the channel."""

    channel: int


class Reset(NamedTuple):
    """The other side closed the channel."""

    channel: int
    reason: str


class Room(NamedTuple):
    """More can be sent on the channel."""

    channel: int


class Pong(NamedTuple):
    """An answer to `Mux.ping`."""

    payload: bytes


Event = Union[Opened, Accepted, Data, Ended, Reset, Room, Pong]


class _Channel:
    __slots__ = ("ended_here", "ended_there", "owed", "room", "unread")

    def __init__(self) -> None:
        self.room = WINDOW_SIZE  # what we may send
        self.unread = 0  # what the other side has sent and nobody here has consumed
        self.owed = 0  # what was consumed and the other side does not know of
        self.ended_here = False
        self.ended_there = False


class Mux:
    """One end of the connection.

    Args:
        side: `CLIENT` or `RELAY`.
    """

    def __init__(self, side: int) -> None:
        self._own = side
        self._next = side + 2
        self._last_of_peer = 0
        self._channels: dict[int, _Channel] = {}
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._out_size = 0
        self._replies = 0
        self._failed = False

    # ---------------------------------------------------------------- what is to be sent

    @property
    def backlog(self) -> int:
        """Bytes that wait to be taken."""
        return self._out_size

    def take(self) -> bytes:
        """All that is to be sent now."""
        data = b"".join(self._out)
        self._out, self._out_size, self._replies = [], 0, 0
        return data

    def _queue(self, kind: int, channel: int, payload: bytes = b"") -> None:
        self._out.append(HEADER.pack(kind, channel, len(payload)) + payload)
        self._out_size += HEADER.size + len(payload)

    # ---------------------------------------------------------------- what we do

    def open(self, request: bytes) -> int:
        """Open a channel; ``request`` tells the other side what for."""
        if len(request) > MAX_PAYLOAD:
            raise ValueError("the request is too long for a frame")
        if len(self._channels) >= MAX_CHANNELS:
            raise MuxError("too many channels are open")
        channel = self._next
        self._next += 2
        self._channels[channel] = _Channel()
        self._queue(OPEN, channel, request)
        return channel

    def accept(self, channel: int, answer: bytes = b"") -> None:
        """Take a channel that the other side opened."""
        if channel in self._channels:
            self._queue(ACCEPT, channel, answer)

    def is_open(self, channel: int) -> bool:
        """Whether anything can still happen on the channel."""
        return channel in self._channels

    def room(self, channel: int) -> int:
        """How many bytes can be sent on the channel now."""
        state = self._channels.get(channel)
        return 0 if state is None or state.ended_here else state.room

    def send(self, channel: int, data: bytes | memoryview) -> None:
        """Send ``data``, of at most `room` bytes."""
        state = self._channels[channel]
        if state.ended_here or len(data) > state.room:
            raise ValueError("there is no room for that on the channel")
        state.room -= len(data)
        if len(data) <= MAX_PAYLOAD:
            self._queue(DATA, channel, bytes(data))
            return
        view = memoryview(data)
        for start in range(0, len(view), MAX_PAYLOAD):
            self._queue(DATA, channel, bytes(view[start : start + MAX_PAYLOAD]))

    def end(self, channel: int) -> None:
        """Send no more on the channel.  May be said twice."""
        state = self._channels.get(channel)
        if state is None or state.ended_here:
            return
        state.ended_here = True
        self._queue(END, channel)
        if state.ended_there:
            del self._channels[channel]

    def reset(self, channel: int, reason: str = "") -> None:
        """Close the channel at once.  May be said of a closed one."""
        if self._channels.pop(channel, None) is not None:
            self._queue(RESET, channel, reason.encode("utf-8", "replace")[:MAX_PAYLOAD])

    def consumed(self, channel: int, count: int) -> None:
        """``count`` bytes that came as `Data` need no room any more."""
        state = self._channels.get(channel)
        if state is None or state.ended_there:
            return
        state.unread -= count
        state.owed += count
        if state.owed >= WINDOW_SIZE // 2:
            self._queue(WINDOW, channel, _NUMBER.pack(state.owed))
            state.owed = 0

    def ping(self, payload: bytes = b"") -> None:
        """Ask for a sign of life."""
        self._queue(PING, 0, payload)

    # ---------------------------------------------------------------- what the other side does

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes from the connection.

        Raises:
            MuxError: the other side broke the rules.
        """
        if self._failed:
            raise MuxError("the connection has failed before")
        events: list[Event] = []
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= HEADER.size:
                kind, channel, size = HEADER.unpack_from(buffer, at)
                if size > MAX_PAYLOAD:
                    raise MuxError(f"a frame of {size} bytes is too long")
                end = at + HEADER.size + size
                if len(buffer) < end:
                    break
                with memoryview(buffer) as view:
                    payload = bytes(view[at + HEADER.size : end])
                at = end
                self._take(kind, channel, payload, events)
        except MuxError:
            self._failed = True
            raise
        finally:
            del buffer[:at]
        return events

    def _take(self, kind: int, channel: int, payload: bytes, events: list[Event]) -> None:
        if kind == DATA:
            state = self._state_of(channel)
            if state is None:
                return
            if state.ended_there:
                raise MuxError(f"data after the end of channel {channel}")
            state.unread += len(payload)
            if state.unread + state.owed > WINDOW_SIZE:
                raise MuxError(f"more data on channel {channel} than there is room for")
            if payload:
                events.append(Data(channel, payload))
        elif kind == WINDOW:
            self._more_room(channel, payload, events)
        elif kind == OPEN:
            self._opened(channel, payload, events)
        elif kind == ACCEPT:
            if channel % 2 != self._own:
                raise MuxError(f"an answer on channel {channel}, which it opened itself")
            if self._state_of(channel) is not None:
                events.append(Accepted(channel, payload))
        elif kind == END:
            self._ended(channel, payload, events)
        elif kind == RESET:
            if self._state_of(channel) is not None:
                del self._channels[channel]
                events.append(Reset(channel, payload.decode("utf-8", "replace")))
        elif kind == PING:
            self._replies += 1
            if self._replies > MAX_REPLIES:
                raise MuxError("more pings than can be answered")
            self._queue(PONG, 0, payload)
        elif kind == PONG:
            events.append(Pong(payload))
        else:
            raise MuxError(f"a frame of the unknown kind {kind}")

    def _state_of(self, channel: int) -> _Channel | None:
        """The channel; None if it is closed.  One that never was is a mistake."""
        state = self._channels.get(channel)
        if state is None:
            newest = self._next - 2 if channel % 2 == self._own else self._last_of_peer
            if channel < 2 or channel > newest:
                raise MuxError(f"a frame for channel {channel}, which nobody opened")
        return state

    def _opened(self, channel: int, payload: bytes, events: list[Event]) -> None:
        if channel % 2 == self._own or channel <= max(self._last_of_peer, 1):
            raise MuxError(f"channel {channel} cannot be opened")
        if len(self._channels) >= MAX_CHANNELS:
            raise MuxError("too many channels are open")
        self._last_of_peer = channel
        self._channels[channel] = _Channel()
        events.append(Opened(channel, payload))

    def _ended(self, channel: int, payload: bytes, events: list[Event]) -> None:
        state = self._state_of(channel)
        if payload:
            raise MuxError(f"the end of channel {channel} has a payload")
        if state is None:
            return
        if state.ended_there:
            raise MuxError(f"channel {channel} ended twice")
        state.ended_there = True
        if state.ended_here:
            del self._channels[channel]
        events.append(Ended(channel))

    def _more_room(self, channel: int, payload: bytes, events: list[Event]) -> None:
        state = self._state_of(channel)
        if len(payload) != _NUMBER.size:
            raise MuxError(f"a window of {len(payload)} bytes")
        if state is None:
            return
        state.room += _NUMBER.unpack(payload)[0]
        if state.room > WINDOW_SIZE:
            raise MuxError(f"channel {channel} has more room than a window")
        if not state.ended_here:
            events.append(Room(channel))


def split_lines(buffer: bytearray, limit: int) -> tuple[list[bytes], bool]:
    """Take the whole lines out of ``buffer``, and say whether what is left is no longer than ``limit``."""
    *lines, rest = bytes(buffer).split(b"\n")
    buffer[:] = rest
    return lines, len(rest) <= limit
