"""Protobuf's wire format, written as Go writes it: fields ordered by their numbers, maps by their keys.

LLB's vertices are known by the digest of their bytes, so "an equal message" is not enough: these functions decide each
byte.  Zero values are left out, but by `chunk` and in maps.  Bytes out; this file knows no message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cogkit.buildkit.protobuf_wire import BYTES, VARINT, varint

_SMALL = tuple(varint(value) for value in range(2048))
_CHUNK = tuple(varint(number << 3 | BYTES) for number in range(32))
_NUMBER = tuple(varint(number << 3 | VARINT) for number in range(32))
_TRUE = tuple(tag + b"\x01" for tag in _NUMBER)
_MINUS_ONE = varint(-1)


def number(field: int, value: int) -> bytes:
    """An integer or an enum; a negative one takes ten bytes, whatever its type."""
    if not value:
        return b""
    if value > 0:
        return _NUMBER[field] + (_SMALL[value] if value < 2048 else varint(value))
    return _NUMBER[field] + (_MINUS_ONE if value == -1 else varint(value))


def flag(field: int, value: bool) -> bytes:
    return _TRUE[field] if value else b""


def chunk(field: int, data: bytes) -> bytes:
    """A message, or bytes, also when they are empty."""
    size = len(data)
    return _CHUNK[field] + (_SMALL[size] if size < 2048 else varint(size)) + data


def text(field: int, value: str) -> bytes:
    if not value:
        return b""
    data = value.encode()
    size = len(data)
    return _CHUNK[field] + (_SMALL[size] if size < 2048 else varint(size)) + data


def texts(field: int, values: Iterable[str]) -> bytes:
    """A repeated string; empty ones count."""
    return b"".join([chunk(field, value.encode()) for value in values])


def text_map(field: int, entries: Mapping[str, str]) -> bytes:
    return b"".join([chunk(field, chunk(1, key.encode()) + chunk(2, entries[key].encode())) for key in sorted(entries)])


def flag_map(field: int, entries: Mapping[str, bool]) -> bytes:
    return b"".join(
        [
            chunk(field, chunk(1, key.encode()) + (b"\x10\x01" if entries[key] else b"\x10\x00"))
            for key in sorted(entries)
        ]
    )


def message_map(field: int, entries: Mapping[str, bytes]) -> bytes:
    return b"".join([chunk(field, chunk(1, key.encode()) + chunk(2, entries[key])) for key in sorted(entries)])


def packed(field: int, values: Iterable[int]) -> bytes:
    """A repeated integer."""
    data = b"".join([varint(value) for value in values])
    return chunk(field, data) if data else b""
