"""A sender of the file-sync protocol that says exactly what a test tells it, byte by byte.

It shares no code with cogkit: what it puts on the wire is encoded here, so that both ends cannot be wrong alike.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

DIRECTORY = 1 << 31
SYMLINK = 1 << 27
DEVICE = 1 << 26
FIFO = 1 << 25
SOCKET = 1 << 24
SETUID = 1 << 23
SETGID = 1 << 22
CHAR_DEVICE = 1 << 21
STICKY = 1 << 20

STAT, REQ, DATA, FIN, ERR = range(5)

MTIME = 1_700_000_000_123_456_789


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def blob(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def stat(
    path: bytes,
    mode: int = 0o644,
    *,
    size: int = 0,
    linkname: bytes = b"",
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """A STAT packet."""
    message = (
        (blob(1, path) if path else b"")
        + number(2, mode)
        + number(3, uid)
        + number(4, gid)
        + number(5, size)
        + number(6, mtime)
        + (blob(7, linkname) if linkname else b"")
        + number(8, device[0])
        + number(9, device[1])
        + b"".join(blob(10, blob(1, key) + blob(2, value)) for key, value in (xattrs or {}).items())
    )
    return number(1, STAT) + blob(2, message)


def directory(path: bytes, mode: int = 0o755) -> bytes:
    return stat(path, DIRECTORY | mode)


def symlink(path: bytes, target: bytes) -> bytes:
    return stat(path, SYMLINK | 0o777, linkname=target, size=len(target))


END_OF_TREE = number(1, STAT)
"""Go's encoder leaves the zero of ``type`` out, so this is the empty message."""

FIN_PACKET = number(1, FIN)


def data(id: int, contents: bytes = b"") -> bytes:
    """A DATA packet; without contents it ends the file."""
    return number(1, DATA) + number(3, id) + (blob(4, contents) if contents else b"")


def error(text: bytes) -> bytes:
    return number(1, ERR) + blob(4, text)


def parse(packet: bytes) -> tuple[int, int, bytes]:
    """(type, id, data) of what the receiver sent."""
    at = 0
    found: dict[int, int | bytes] = {}

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = packet[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(packet):
        tag = read()
        value = read()
        if tag & 7 == 2:
            found[tag >> 3] = packet[at : at + value]
            at += value
        else:
            found[tag >> 3] = value
    kind, id, text = found.get(1, 0), found.get(3, 0), found.get(4, b"")
    assert isinstance(kind, int) and isinstance(id, int) and isinstance(text, bytes)
    return kind, id, text


class ScriptedSender:
    """A ``ServerStream`` whose peer sends ``packets``, and to each request what ``answers`` has for its id.

    Args:
        packets: What it sends unasked; may be endless.
        answers: Packets sent when the id is asked for.
        at_fin: Packets sent when FIN comes.
        on_request: Awaited with each id that is asked for, before it is answered.
        hang_up: Close the stream after everything else was sent.
    """

    method = "/moby.filesync.v1.FileSend/DiffCopy"
    takes_gzip = False

    def __init__(
        self,
        packets: Iterable[bytes],
        answers: Mapping[int, Sequence[bytes]] | None = None,
        *,
        at_fin: Sequence[bytes] = (FIN_PACKET,),
        on_request: Callable[[int], Awaitable[None]] | None = None,
        metadata: Mapping[str, tuple[bytes, ...]] | None = None,
        hang_up: bool = False,
    ):
        self._packets: Iterator[bytes] = iter(packets)
        self._answers = answers or {}
        self._at_fin = at_fin
        self._on_request = on_request
        self._hang_up = hang_up
        self._queue: deque[bytes] = deque()
        self._news = asyncio.Event()
        self.metadata: Mapping[str, tuple[bytes, ...]] = metadata or {}
        self.requested: list[int] = []
        self.errors: list[str] = []
        self.finished = False

    async def receive_many(self, limit: int = 256) -> list[bytes]:
        message = await self.receive()
        return [] if message is None else [message]

    async def send_framed(self, pieces: Sequence[bytes]) -> None:
        raise NotImplementedError("what this service sends is small")

    async def receive(self) -> bytes | None:
        await asyncio.sleep(0)  # as a real stream would, let others run
        packet = next(self._packets, None)
        if packet is not None:
            return packet
        while not self._queue:
            if self._hang_up:
                return None
            self._news.clear()
            await self._news.wait()
        return self._queue.popleft()

    async def send(self, message: bytes) -> None:
        kind, id, text = parse(message)
        if kind == REQ:
            self.requested.append(id)
            if self._on_request is not None:
                await self._on_request(id)
            self._queue.extend(self._answers.get(id, ()))
        elif kind == FIN:
            self.finished = True
            self._queue.extend(self._at_fin)
        elif kind == ERR:
            self.errors.append(text.decode())
        else:
            raise AssertionError(f"a receiver must not send packets of type {kind}")
        self._news.set()

    async def send_many(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            await self.send(message)
