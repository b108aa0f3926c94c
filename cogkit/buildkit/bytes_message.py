"""``BytesMessage``: bytes as the one field of a message, in which streams of bytes travel through gRPC.

BuildKit has it under three names with one form (``bytes data = 1``): in ``control.proto``, ``filesync.proto`` and
``ssh.proto``.  By hand, so that large ones are copied once.  This file must not know what the bytes are.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from cogkit.buildkit.protobuf_wire import BYTES, SHORT, WireError, fields, read_varint, varint

MAX_FIELDS: Final = 100
"""Fields of one message; it has one."""

_DATA: Final = 1
_TAG: Final = b"\x0a"


def encode_bytes(data: bytes | memoryview) -> bytes:
    """The message that holds ``data``."""
    return b"".join((_TAG, varint(len(data)), data))


def decode_bytes(message: bytes) -> memoryview:
    """What a message holds, without a copy.

    As every reader of protobuf has it, the last of several ``data`` fields counts and unknown fields do not.

    Raises:
        WireError: not such a message.
    """
    view = memoryview(message)
    if message[:1] == _TAG:
        with suppress(WireError):  # What is wrong is told below.
            length, start = read_varint(message, 1, SHORT)
            if start + length == len(message):
                return view[start:]
    data = view[:0]
    for field, wire, _, chunk in fields(view, MAX_FIELDS):
        if field == _DATA:
            if wire != BYTES:
                raise WireError("the data of a BytesMessage is not bytes")
            data = chunk
    return data
