"""The sending side of the file-sync protocol as a state machine: no disk, no threads, no asyncio.

    we                                      the receiver
    STAT a STAT a/b STAT c … STAT (empty)   REQ 1 (wants the content of the second entry), at any time
    DATA 1 … DATA 1 (empty: its end)        …
                                            FIN (has everything)
    FIN

An entry's id is its place in the sequence of STAT packets.  Each file can be asked for once.  Either side may give up
with an ERR packet.  Everything that decides whether a packet is legal now lives in this file; encoding the packets does
not need it (`content` is a plain function that any thread may call).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from cogkit.buildkit.fsutil.batch import NO_CONTENT, WITHHELD, Batch
from cogkit.buildkit.fsutil.packet import (
    PacketError,
    PacketType,
    data_header,
    decode_packet,
    encode_packet,
    request_id,
)
from cogkit.fast_dataclass import dataclass


class SenderError(Exception):
    """The receiver broke the protocol, or gave up: the transfer is over."""


def content(id: int, pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The DATA packets of one file, the last one empty: of each, what stands before the content, and the content."""
    header = b""
    size = 0
    for piece in pieces:
        if len(piece) != size:
            size = len(piece)
            header = data_header(id, size)
        yield header, piece
    yield data_header(id, 0), b""


END_OF_STATS = encode_packet(PacketType.STAT)
"""The empty STAT packet after the last entry."""

FIN = encode_packet(PacketType.FIN)


def error_packet(reason: str) -> bytes:
    """The packet that tells the receiver why we give up."""
    return encode_packet(PacketType.ERR, data=reason.encode("utf-8", "replace"))


class Wanted(NamedTuple):
    """The receiver wants the content of a file; ``path`` is None if it has to be sent as empty."""

    id: int
    path: bytes | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The receiver has everything; `FIN` is to be sent as the last packet."""


class Sender:
    """What was described so far and what of it may still be asked for."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._paths: list[bytes] = []
        self._content = bytearray()
        self._recent: dict[int, list[bytes]] = {}
        self._finished = False

    def __len__(self) -> int:
        """The number of entries described."""
        return len(self._content)

    def add(self, batch: Batch) -> None:
        """Note entries; to be called before their packets are sent, in order."""
        if batch.paths:
            self._starts.append(len(self._content))
            # One object for many paths costs less memory than one for each.
            self._paths.append(b"\0".join(batch.paths))
            self._content += batch.content

    def receive(self, message: bytes) -> Wanted | Finished | None:
        """Take a packet of the receiver; None if it means nothing (fsutil passes over types it does not expect).

        Raises:
            SenderError: the packet cannot be read, asks for what is not there or was asked for, or says that the
                receiver gave up.
        """
        if self._finished:
            raise SenderError("packet after the end of the transfer")
        id = request_id(message)
        if id >= 0:
            return self._want(id)
        try:
            packet = decode_packet(message)
        except PacketError as error:
            raise SenderError(f"packet cannot be read: {error}") from None
        match packet.type:
            case PacketType.REQ:
                return self._want(packet.id)
            case PacketType.FIN:
                self._finished = True
                return Finished()
            case PacketType.ERR:
                raise SenderError(f"error from receiver: {bytes(packet.data).decode('utf-8', 'replace')}")
        return None

    def _want(self, id: int) -> Wanted:
        if id >= len(self._content) or self._content[id] == NO_CONTENT:
            raise SenderError(f"invalid file id {id}")
        withheld = self._content[id] == WITHHELD
        self._content[id] = NO_CONTENT
        return Wanted(id, None if withheld else self._path(id))

    def _path(self, id: int) -> bytes:
        place = bisect_right(self._starts, id) - 1
        paths = self._recent.get(place)
        if paths is None:
            if len(self._recent) >= 8:  # requests come nearly in order
                self._recent.clear()
            paths = self._recent[place] = self._paths[place].split(b"\0")
        return paths[id - self._starts[place]]
