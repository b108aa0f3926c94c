"""Reads HTTP/1.1 messages off a stream: the head, then the body piece by piece, everything bounded.

The playground reads its browser's requests and the model's answers with it.  Each message has a connection of its own,
so nothing here knows of keeping one alive.  This file must not write to a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from cogkit.fast_dataclass import dataclass

HEAD_LIMIT = 64 * 1024
"""Most bytes of a head, and of a line between chunks; the limit to give to the stream's reader."""
PIECE = 256 * 1024
_TRAILER_LINES = 64


class MessageError(Exception):
    """A message that is not HTTP, or too large; ``status`` is what to answer to a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Head:
    """The words of the first line, and the headers by their names in lower case."""

    first: tuple[str, str, str]
    headers: Mapping[str, str]


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read a head; None if the peer closed without sending anything.

    Raises:
        MessageError: it is too long, cut off or not HTTP.
    """
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        if not cut.partial:
            return None
        raise MessageError(400, "the message ends in its head") from None
    except asyncio.LimitOverrunError:
        raise MessageError(431, f"the head is longer than {HEAD_LIMIT} bytes") from None
    line, *fields = block[:-4].decode("latin-1").split("\r\n")
    words = line.split(" ", 2)
    if len(words) < 2 or not any(word.startswith("HTTP/1.") for word in words):
        raise MessageError(400, "this is not HTTP/1.1")
    headers: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon or not name or name != name.strip():
            raise MessageError(400, "a header has no name")
        # Two lengths that differ must not become one of them.
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head((words[0], words[1], words[2] if len(words) > 2 else ""), headers)


async def read_body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], *, most: int | None, until_close: bool = False
) -> AsyncIterator[bytes]:
    """The body in pieces as they come.

    Args:
        reader: Where the head was read from.
        headers: Those of the head.
        most: Most bytes; None is no limit.
        until_close: Without a length, the body ends with the connection; else there is none.

    Raises:
        MessageError: it is larger than ``most``, cut off, or its length makes no sense.
    """
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise MessageError(400, "the length of the body makes no sense")
        pieces = _chunks(reader)
    elif length is not None:
        pieces = _exactly(reader, _number(length, 10))
        if most is not None and int(length) > most:
            raise MessageError(413, f"the body is larger than {most} bytes")
    elif until_close:
        pieces = _rest(reader)
    else:
        return
    total = 0
    async for piece in pieces:
        total += len(piece)
        if most is not None and total > most:
            raise MessageError(413, f"the body is larger than {most} bytes")
        yield piece


def _number(text: str, base: int) -> int:
    digits = "0123456789abcdef"[:base]
    if not text or len(text) > 16 or any(each not in digits for each in text.lower()):
        raise MessageError(400, "the length of the body makes no sense")
    return int(text, base)


async def _exactly(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    while length:
        piece = await reader.read(min(length, PIECE))
        if not piece:
            raise MessageError(400, "the body is cut off")
        length -= len(piece)
        yield piece


async def _rest(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(PIECE):
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while length := _number((await _line(reader)).partition(";")[0].strip(), 16):
        async for piece in _exactly(reader, length):
            yield piece
        if await _line(reader):
            raise MessageError(400, "a chunk is longer than it says")
    for _ in range(_TRAILER_LINES):
        if not await _line(reader):
            return
    raise MessageError(400, "the trailer is too long")


async def _line(reader: asyncio.StreamReader) -> str:
    try:
        line = await reader.readuntil(b"\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise MessageError(400, "the body is cut off") from None
    return line[:-2].decode("latin-1")
