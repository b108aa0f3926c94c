"""Protobuf's wire format, for the few messages that are too many, or too large, for the protobuf runtime.

A varint is a number in groups of seven bits, the lowest first, each byte but the last with its highest bit set; a field
is a tag (its number and its wire type) and a value
(https://protobuf.dev/programming-guides/encoding/).  Bytes in, numbers and views out: this file knows no message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

FIXED_SIZES: Final = {FIXED64: 8, FIXED32: 4}

SHORT: Final = 5
"""Most bytes of a tag and of a length, as other readers of protobuf have it."""

LONG: Final = 10
"""Most bytes of a number."""

MASK_64: Final = (1 << 64) - 1


class WireError(ValueError):
    """The bytes are not in this format."""


def varint(value: int) -> bytes:
    """Encode a number; a negative one as 64-bit two's complement."""
    value &= MASK_64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes | memoryview, at: int, most: int = LONG) -> tuple[int, int]:
    """Decode the number that begins at ``at``.

    Ten bytes hold more than 64 bits; Go refuses such a number and other readers drop what is too much, so what it means
    is left to the caller.

    Returns:
        The number, of at most 70 bits, and where it ends.

    Raises:
        WireError: truncated, or longer than ``most`` bytes.
    """
    value = shift = 0
    for byte in data[at : at + most]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("truncated" if shift < 7 * most else f"a number of more than {most} bytes")


def fields(view: memoryview, limit: int) -> Iterator[tuple[int, int, int, memoryview]]:
    """All fields of a message in order: number, wire type, the value of a varint, the bytes of anything else.

    Args:
        view: The message.
        limit: The most fields that it may have: a hostile one of a few megabytes has millions.

    Raises:
        WireError: truncated, overlong, of more fields, or of a kind of field that is not in use.
    """
    at = count = 0
    end = len(view)
    nothing = view[:0]
    while at < end:
        count += 1
        if count > limit:
            raise WireError(f"more than {limit:,} fields in one message")
        tag, at = read_varint(view, at, SHORT)
        field, wire = tag >> 3, tag & 7
        if not 0 < field < 1 << 29:
            raise WireError(f"field number {field} cannot be")
        number = 0
        chunk = nothing
        if wire == VARINT:
            number, at = read_varint(view, at)
            if number > MASK_64:
                raise WireError("a number of more than 64 bits")
        else:
            if wire == BYTES:
                size, at = read_varint(view, at, SHORT)
            elif wire in FIXED_SIZES:
                size = FIXED_SIZES[wire]
            else:
                raise WireError(f"wire type {wire} is not in use")
            if size > end - at:
                raise WireError("truncated")
            chunk = view[at : at + size]
            at += size
        yield field, wire, number, chunk
