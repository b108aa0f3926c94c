"""The receiving side of the file-sync protocol, as a state machine: packets in, things to do out.

The peer (the sender) walks its tree and describes every entry in a STAT packet; an empty STAT ends the walk.  An
entry's id is its place in that sequence.  We ask for the contents of the files with REQ packets, the peer answers each
with DATA packets that carry the id, an empty one ending the file; other files' packets may come in between.  When all
is on disk we send FIN, the peer answers FIN.  Either side may give up with an ERR packet that says why.

Whoever drives a `Receiver` feeds it each message of the stream and does what comes back, in order: `Make` an entry,
write a `Chunk`.  A file is asked for only after the driver reported its surroundings `made`, so its directory is there
before its data is.  `packets_to_send` gives what is to go out, `complete` says that only FIN is missing.

This file must not touch disk, sockets, threads or the clock.  Everything the peer says is checked here or in
`validator`; the peer's mistakes raise, and after an error the machine takes nothing more.

Memory stays bounded: at most ``window`` files are under way at once, each with less than `CHUNK_SIZE` bytes gathered;
entries that wait for their turn are counted and limited.
"""

from __future__ import annotations

from collections import deque
from dataclasses import field
from enum import Enum
from typing import TypeAlias

from cogkit.buildkit.fsutil.packet import PacketType, decode_packet, encode_packet
from cogkit.buildkit.fsutil.stat import Stat
from cogkit.buildkit.fsutil.validator import Kind, RefusedTreeError, TreeValidator, printable
from cogkit.buildkit.protobuf_wire import WireError, read_varint
from cogkit.errors import OutputError
from cogkit.fast_dataclass import dataclass

WINDOW = 128
"""Files asked for and not yet complete.  fsutil's sender takes 128 requests before it stops reading ours, so more would
only wait on the other side; and each may cost one open file here."""

CHUNK_SIZE = 256 * 1024
"""Data of one file is gathered up to this many bytes before it is handed on: one write instead of eight."""

MAX_WAITING_BYTES = 1 << 30
"""Memory of all the descriptions that wait for their contents."""

ENTRY_COST = 512
"""Bytes that an entry takes in memory beside those of its packet."""

ATTRIBUTE_COST = 200
"""The same of each extended attribute."""

PART_COST = 256
"""The same of each piece of a file's contents."""


class ProtocolViolation(OutputError):
    """The builder broke the rules of the file-sync protocol."""


class SenderFailed(OutputError):
    """The builder gave up sending the tree and said why."""


@dataclass(slots=True, eq=False)
class Entry:
    """One accepted entry of the tree; its identity is the object."""

    id: int
    kind: Kind
    stat: Stat
    cost: int
    """Memory that it takes, in bytes."""
    received: int = 0
    """Bytes of the contents that came so far."""
    parts: list[memoryview] = field(default_factory=list)
    """Contents that wait to be handed on as a `Chunk`."""
    held: int = 0
    """Memory that `parts` keeps alive: whole messages and the objects around them, not only their data."""


@dataclass(slots=True, frozen=True)
class Make:
    """Create the entry; for a file with contents there is nothing to do yet, they follow when asked for."""

    entry: Entry


@dataclass(slots=True, frozen=True)
class Chunk:
    """Append ``parts`` to the file ``entry``; after the ``last`` one it is whole."""

    entry: Entry
    parts: list[memoryview]
    last: bool

    @property
    def cost(self) -> int:
        """Memory that it takes, in bytes, about."""
        return sum(map(len, self.parts)) + PART_COST * (len(self.parts) + 1)


Action: TypeAlias = Make | Chunk


class _State(Enum):
    RECEIVING = "receiving"
    FINISHING = "waiting for the answer to FIN"
    DONE = "done"
    FAILED = "failed"


class Receiver:
    """One transfer of one tree."""

    def __init__(self, validator: TreeValidator, *, window: int = WINDOW, chunk_size: int = CHUNK_SIZE):
        self._validator = validator
        self._window = window
        self._chunk_size = chunk_size
        self._state = _State.RECEIVING
        self._next_id = 0
        self._walk_ended = False
        self._unmade = 0
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._asked: dict[int, Entry] = {}

    @property
    def complete(self) -> bool:
        """Everything was described and every byte asked for has come; what is on disk is the driver's to know."""
        return self._walk_ended and not self._unmade and not self._waiting and not self._asked

    @property
    def done(self) -> bool:
        """The peer has answered our FIN: the transfer succeeded."""
        return self._state is _State.DONE

    def feed(self, message: bytes) -> Action | None:
        """Take the next message of the stream.

        Raises:
            RefusedTreeError: an entry that must not be written.
            ProtocolViolation: a packet that must not come, or not now.
            SenderFailed: the peer's ERR packet.
        """
        if self._state is _State.FAILED or self._state is _State.DONE:
            raise ProtocolViolation(f"the builder's file transfer is over ({self._state.value}), and yet it sent more")
        try:
            return self._take(message)
        except BaseException:
            self._fail()
            raise

    def end_of_stream(self) -> None:
        """The peer has closed its half of the stream.

        Raises:
            ProtocolViolation: it was not done yet.
        """
        if self._state is not _State.DONE:
            self._fail()
            raise ProtocolViolation(
                "the builder closed the file transfer before it was complete",
                hint="see the builder's log for why it stopped",
            )

    def made(self, count: int, files: list[Entry]) -> None:
        """``count`` entries of `Make` actions are on disk; ``files`` are those whose contents can be asked for now."""
        self._unmade -= count
        self._waiting.extend(files)

    @property
    def wants_attention(self) -> bool:
        """There are requests to send, or the transfer is complete."""
        return self._may_ask() or self.complete

    def _may_ask(self) -> bool:
        """Requests go out many at once: a quarter of the window, unless fewer are left."""
        free = self._window - len(self._asked)
        return bool(self._waiting) and free > 0 and free >= min(self._window // 4, len(self._waiting))

    def packets_to_send(self) -> list[bytes]:
        """The requests that can go out now."""
        packets: list[bytes] = []
        if not self._may_ask():
            return packets
        while self._waiting and len(self._asked) < self._window:
            entry = self._waiting.popleft()
            self._asked[entry.id] = entry
            packets.append(encode_packet(PacketType.REQ, id=entry.id))
        return packets

    def finish(self) -> bytes:
        """All is on disk: the FIN packet to send."""
        if not self.complete or self._state is not _State.RECEIVING:
            raise RuntimeError("finish() before the transfer is complete")
        self._state = _State.FINISHING
        return encode_packet(PacketType.FIN)

    def abandon(self, reason: str) -> bytes:
        """We give up: the ERR packet that tells the peer why."""
        self._fail()
        return encode_packet(PacketType.ERR, data=reason.encode())

    def _fail(self) -> None:
        self._state = _State.FAILED
        self._waiting.clear()
        self._asked.clear()

    def _take(self, message: bytes) -> Action | None:
        plain = _plain_data(message)
        if plain is not None:
            return self._data(*plain, len(message))
        try:
            packet = decode_packet(message)
        except ValueError as error:
            raise ProtocolViolation(f"the builder sent a packet that cannot be read: {error}") from error
        match packet.type:
            case PacketType.DATA:
                return self._data(packet.id, packet.data, len(message))
            case PacketType.STAT:
                return self._stat(packet.stat, len(message))
            case PacketType.FIN:
                self._fin()
                return None
            case PacketType.ERR:
                raise SenderFailed(f"the builder failed while it sent the result: {printable(bytes(packet.data))}")
        raise ProtocolViolation(f"the builder sent a packet of type {packet.type!r}, which only a receiver may send")

    def _stat(self, stat: Stat | None, wire_size: int) -> Make | None:
        if self._walk_ended:
            raise ProtocolViolation("the builder described more files after the end of its tree")
        if stat is None:
            self._walk_ended = True
            return None
        kind = self._validator.check(stat)
        cost = wire_size + ENTRY_COST + ATTRIBUTE_COST * len(stat.xattrs or ())
        entry = Entry(self._next_id, kind, stat, cost)
        self._next_id += 1
        self._unmade += 1
        self._waiting_bytes += cost
        if self._waiting_bytes > MAX_WAITING_BYTES:
            raise RefusedTreeError("the builder described more files than can be kept in mind before sending them")
        if kind is not Kind.FILE:
            self._waiting_bytes -= cost
        return Make(entry)

    def _data(self, id: int, data: memoryview, wire_size: int) -> Chunk | None:
        entry = self._asked.get(id)
        if entry is None:
            raise ProtocolViolation(f"the builder sent data for file number {id}, which was not asked for or is closed")
        if data:
            return self._more(entry, data, wire_size)
        if entry.received != entry.stat.size:
            raise ProtocolViolation(
                f"the builder sent {entry.received:,} bytes of '{printable(entry.stat.path)}', "
                f"which it said has {entry.stat.size:,}"
            )
        del self._asked[id]
        self._waiting_bytes -= entry.cost
        return self._flush(entry, last=True)

    def _more(self, entry: Entry, data: memoryview, wire_size: int) -> Chunk | None:
        entry.received += len(data)
        if entry.received > entry.stat.size:
            raise ProtocolViolation(
                f"the builder sent more than the {entry.stat.size:,} bytes that '{printable(entry.stat.path)}' has"
            )
        entry.parts.append(data)
        entry.held += wire_size + PART_COST
        return self._flush(entry, last=False) if entry.held >= self._chunk_size else None

    @staticmethod
    def _flush(entry: Entry, *, last: bool) -> Chunk:
        chunk = Chunk(entry, entry.parts, last)
        entry.parts, entry.held = [], 0
        return chunk

    def _fin(self) -> None:
        if self._state is not _State.FINISHING:
            raise ProtocolViolation("the builder ended the file transfer before everything was sent")
        self._state = _State.DONE


def _plain_data(message: bytes) -> tuple[int, memoryview] | None:
    """Id and data of a DATA packet written as fsutil writes it: a fifth of `decode_packet`'s time, for most packets.

    Anything else, also a mistake, gives None and is for `decode_packet` to judge.
    """
    if not message.startswith(b"\x08\x02\x18"):
        return None
    try:
        id, at = read_varint(message, 3, _PLAIN)
        if at == len(message):
            return id, memoryview(b"")
        if message[at] != 0x22:
            return None
        size, at = read_varint(message, at + 1, _PLAIN)
    except WireError:
        return None
    return (id, memoryview(message)[at:]) if at + size == len(message) else None


_PLAIN = 4
"""Most bytes of a number that is read this way: larger ones are seldom, or wrong."""
