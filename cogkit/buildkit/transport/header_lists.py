"""Header lists: what RFC 9113, 8.2 and 8.3, allows in a request, and header blocks in pieces that decode fast.

Pure functions of their arguments.  This file must not know streams or connections: what a malformed list costs whom
is `http2`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from hpack import HPACKError

HeaderList: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Decoded fields in the order of the wire."""

_SEGMENT_SIZE: Final = 4_096
_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]")
_CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_REQUEST_PSEUDO_FIELDS: Final = frozenset({b":method", b":scheme", b":path", b":authority"})


class MalformedError(Exception):
    """A request or its trailers that RFC 9113, 8.1.1 calls malformed."""


def list_size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The size of a header list as RFC 9113, 6.5.2 counts it."""
    return sum(len(name) + len(value) + 32 for name, value in headers)


def segments(block: bytes) -> list[bytes]:
    """Cut a header block between fields into pieces of some KiB.

    ``hpack`` copies the rest of what it decodes for every literal field, so its time grows with the square of the
    block's size: seconds for a block of 1 MiB.
    """
    if len(block) <= _SEGMENT_SIZE:
        return [block]
    pieces: list[bytes] = []
    start = position = 0
    fields_seen = False
    while position < len(block):
        if block[position] & 0xE0 != 0x20:
            fields_seen = True
        elif fields_seen:
            raise HPACKError("table size update after a field")
        position = _skip_field(block, position)
        if position - start >= _SEGMENT_SIZE:
            pieces.append(block[start:position])
            start = position
    pieces.append(block[start:])
    return pieces


def _skip_field(block: bytes, position: int) -> int:
    """The position after the field representation (RFC 7541, 6) at ``position``; may lie beyond a truncated block."""
    first = block[position]
    if first & 0x80:
        return _integer(block, position, 7)[1]
    if first & 0xE0 == 0x20:
        return _integer(block, position, 5)[1]
    index, position = _integer(block, position, 6 if first & 0x40 else 4)
    for _ in range(1 if index else 2):
        length, position = _integer(block, position, 7)
        position += length
    return position


def _integer(block: bytes, position: int, prefix: int) -> tuple[int, int]:
    """An integer of RFC 7541, 5.1, and the position after it."""
    if position >= len(block):
        raise HPACKError("truncated header block")
    mask = (1 << prefix) - 1
    value = block[position] & mask
    if value < mask:
        return value, position + 1
    for index, octet in enumerate(block[position + 1 : position + 6]):
        value += (octet & 0x7F) << (7 * index)
        if octet < 0x80:
            return value, position + index + 2
    raise HPACKError("an integer that is truncated or too long")


def check_request(headers: HeaderList) -> int | None:
    """Check a request's fields (RFC 9113, 8.2 and 8.3); returns its content-length, if it has one.

    One rule is not enforced: values may begin or end with blanks.  grpc-go sends metadata as it is, and BuildKit puts
    file names into it.
    """
    pseudo: dict[bytes, bytes] = {}
    expected: int | None = None
    regular_seen = False
    for name, value in headers:
        if name[:1] == b":":
            if regular_seen or name in pseudo or name not in _REQUEST_PSEUDO_FIELDS or _BAD_VALUE.search(value):
                raise MalformedError("pseudo-header fields")
            pseudo[name] = value
            continue
        regular_seen = True
        _check_field(name, value)
        if name == b"content-length":
            if not value.isdigit() or len(value) > 19 or expected not in (None, int(value)):
                raise MalformedError("content-length")
            expected = int(value)
        elif name == b"host" and pseudo.get(b":authority", value).lower() != value.lower():
            raise MalformedError("host differs from :authority")
    method, path = pseudo.get(b":method"), pseudo.get(b":path", b"")
    if method == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo or b":authority" not in pseudo:
            raise MalformedError("CONNECT")
    elif not method or not pseudo.get(b":scheme"):
        raise MalformedError("no :method or no :scheme")
    elif path[:1] != b"/" and (method, path) != (b"OPTIONS", b"*"):
        raise MalformedError(":path")
    return expected


def check_trailers(headers: HeaderList) -> None:
    """Check the fields that come after a request's body: regular ones only."""
    for name, value in headers:
        _check_field(name, value)


def _check_field(name: bytes, value: bytes) -> None:
    if not _FIELD_NAME.fullmatch(name):
        raise MalformedError("a field name with characters that are not allowed")
    if _BAD_VALUE.search(value):
        raise MalformedError("a field value with characters that are not allowed")
    if name in _CONNECTION_FIELDS or (name == b"te" and value.lower() != b"trailers"):
        raise MalformedError("a field that belongs to the connection")
