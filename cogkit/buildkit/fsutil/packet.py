"""fsutil.types.Packet on the wire (protobuf), written and read by hand.

By hand because a tree has a packet for every file: one expression per packet costs a third of what the protobuf runtime
needs to build a message (`benchmarks/notes.md`), and reading is as strict as this protocol needs it.  Fields are
written in order and defaults left out, so the bytes are those that fsutil writes.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from cogkit.buildkit.fsutil import gopath
from cogkit.buildkit.fsutil.stat import Stat
from cogkit.buildkit.protobuf_wire import BYTES, VARINT, WireError, fields, varint
from cogkit.fast_dataclass import dataclass

_MASK_32 = (1 << 32) - 1

_PACKET_FIELDS = 1_000
_STAT_FIELDS = 10_000
_XATTR_FIELDS = 8
"""Most fields of each message, far above what a file can have: a hostile one of a few megabytes has millions, and
would keep the event loop for seconds."""

_NOTHING = memoryview(b"")


class PacketType(IntEnum):
    """Packet.PacketType; see protos/fsutil.proto for who sends what."""

    STAT = 0
    REQ = 1
    DATA = 2
    FIN = 3
    ERR = 4


@dataclass(frozen=True, slots=True)
class Packet:
    """A decoded packet.  ``type`` is a plain int where it is none of `PacketType`; ``data`` views the message."""

    type: int
    id: int = 0
    stat: Stat | None = None
    data: memoryview = _NOTHING


class PacketError(ValueError):
    """The bytes are no packet."""


# ---- writing


_PAIRS = 1 << 14


def _pairs(last_bit: int) -> tuple[bytes, ...]:
    """Every 14 bits as two bytes of a varint, with ``last_bit`` in the second.  In bulk: each command waits for it."""
    table = bytearray(2 * _PAIRS)
    table[0::2] = bytes(range(0x80, 0x100)) * 128
    table[1::2] = b"".join(bytes((high | last_bit,)) * 128 for high in range(128))
    return Struct("2s" * _PAIRS).unpack(table)


_SHORT = (*(bytes((value,)) for value in range(0x80)), *_pairs(0)[0x80:])
"""Varints of up to 14 bits."""
_LOW = _pairs(0x80)
"""14 bits that are not the last ones of a varint."""


def _number(tag: bytes, value: int) -> bytes:
    if not value:
        return b""
    if 0 < value < _PAIRS:
        return tag + _SHORT[value]
    return tag + varint(value)


def _length_prefixed(tag: bytes, value: bytes) -> bytes:
    size = len(value)
    return b"%b%b%b" % (tag, _SHORT[size] if size < _PAIRS else varint(size), value)


def _time(value: int) -> bytes:
    # Times of this century have 61 bits; four table look-ups instead of nine rounds.
    if 1 << 56 <= value < 1 << 63:
        return b"\x30%b%b%b%b%b" % (
            _LOW[value & 0x3FFF],
            _LOW[value >> 14 & 0x3FFF],
            _LOW[value >> 28 & 0x3FFF],
            _LOW[value >> 42 & 0x3FFF],
            _SHORT[value >> 56],
        )
    return _number(b"\x30", value)


def encode_stat(stat: Stat) -> bytes:
    """The STAT packet of an entry."""
    body = b"%b%b%b%b" % (
        _length_prefixed(b"\x0a", stat.path) if stat.path else b"",
        _mode(stat.mode),
        _number(b"\x28", stat.size) if not (stat.uid or stat.gid) else _owned_size(stat),
        _time(stat.mod_time),
    )
    if stat.linkname or stat.devmajor or stat.devminor or stat.xattrs:
        body += _rarely(stat)
    return _length_prefixed(b"\x12", body)


def encode_file(path: bytes, mode: int, size: int, mod_time: int) -> bytes:
    """The STAT packet of root's regular file with one name and no extended attributes, as most entries are.

    The same as `encode_stat`, in one expression where the numbers are usual ones; arguments are as in `Stat`.
    """
    if not (0 < size < _FEW_BITS and 1 << 56 <= mod_time < 1 << 63 and len(path) < _SHORT_PATH):
        return encode_stat(Stat(path, mode, size=size, mod_time=mod_time))
    body = b"\x0a%b%b%b\x28%b\x30%b%b%b%b%b" % (
        _SHORT[len(path)],
        path,
        _mode(mode),
        _SHORT[size] if size < _PAIRS else _LOW[size & 0x3FFF] + _SHORT[size >> 14],
        _LOW[mod_time & 0x3FFF],
        _LOW[mod_time >> 14 & 0x3FFF],
        _LOW[mod_time >> 28 & 0x3FFF],
        _LOW[mod_time >> 42 & 0x3FFF],
        _SHORT[mod_time >> 56],
    )
    return b"\x12%b%b" % (_SHORT[len(body)], body)


_FEW_BITS = 1 << 28
_SHORT_PATH = _PAIRS - 64  # all other fields of a file together are shorter than that

_modes: dict[int, bytes] = {}


def _mode(mode: int) -> bytes:
    known = _modes.get(mode)
    if known is None:
        known = _number(b"\x10", mode)
        if len(_modes) < 1 << 12:
            _modes[mode] = known
    return known


def _owned_size(stat: Stat) -> bytes:
    return _number(b"\x18", stat.uid) + _number(b"\x20", stat.gid) + _number(b"\x28", stat.size)


def _rarely(stat: Stat) -> bytes:
    """The fields that few entries have."""
    parts = []
    if stat.linkname:
        parts.append(_length_prefixed(b"\x3a", stat.linkname))
    parts.append(_number(b"\x40", stat.devmajor))
    parts.append(_number(b"\x48", stat.devminor))
    for name, value in (stat.xattrs or {}).items():
        entry = _length_prefixed(b"\x0a", gopath.to_bytes(name)) + _length_prefixed(b"\x12", value)
        parts.append(_length_prefixed(b"\x52", entry))
    return b"".join(parts)


def encode_packet(type: PacketType, *, id: int = 0, stat: Stat | None = None, data: bytes = b"") -> bytes:
    """Any packet.  Without ``stat`` a STAT packet is empty: it ends the walk."""
    if stat is not None:
        return _number(b"\x08", type) + encode_stat(stat) + _number(b"\x18", id) + _data_field(data)
    return _number(b"\x08", type) + _number(b"\x18", id) + _data_field(data)


def _data_field(data: bytes) -> bytes:
    return _length_prefixed(b"\x22", data) if data else b""


def data_header(id: int, size: int) -> bytes:
    """What stands before ``size`` bytes of content in a DATA packet; without content this is all of the packet."""
    header = b"\x08\x02" + _number(b"\x18", id)
    return header + b"\x22" + varint(size) if size else header


# ---- reading


def decode_packet(message: bytes) -> Packet:
    """Read a packet.

    Unknown fields are passed over; of a field that comes twice the last counts.  Two ``stat``, which protobuf would
    merge and nobody sends, are refused.

    Raises:
        PacketError: truncated, overlong, of the wrong wire type or of more fields than any file has.
    """
    try:
        return _decode_packet(memoryview(message))
    except WireError as error:
        raise PacketError(str(error)) from None


def _decode_packet(view: memoryview) -> Packet:
    type = id = 0
    stat: Stat | None = None
    data = view[:0]
    for field, wire, number, chunk in fields(view, _PACKET_FIELDS):
        if field == 1:
            type = _signed32(_expect_number(wire, number, "type"))
        elif field == 2:
            if stat is not None:
                raise PacketError("field stat comes twice")
            stat = _decode_stat(_expect_bytes(wire, chunk, "stat"))
        elif field == 3:
            id = _expect_number(wire, number, "ID") & _MASK_32
        elif field == 4:
            data = _expect_bytes(wire, chunk, "data")
    return Packet(type, id, stat, data)


def request_id(message: bytes) -> int:
    """The id of a REQ packet as every receiver writes it, or -1: then `decode_packet` has to say what it is.

    There is one for each file of a first transfer.
    """
    size = len(message)
    if not 4 <= size <= 6 or not message.startswith(b"\x08\x01\x18") or message[-1] > 0x7F:
        return -1
    id = message[-1]
    for at in range(size - 2, 2, -1):
        if message[at] < 0x80:
            return -1
        id = id << 7 | message[at] & 0x7F
    return id


def _decode_stat(view: memoryview) -> Stat:
    stat = Stat(b"")
    xattrs: dict[str, bytes] = {}
    for field, wire, number, chunk in fields(view, _STAT_FIELDS):
        match field:
            case 1:
                stat.path = bytes(_expect_bytes(wire, chunk, "path"))
            case 2:
                stat.mode = _expect_number(wire, number, "mode") & _MASK_32
            case 3:
                stat.uid = _expect_number(wire, number, "uid") & _MASK_32
            case 4:
                stat.gid = _expect_number(wire, number, "gid") & _MASK_32
            case 5:
                stat.size = _signed64(_expect_number(wire, number, "size"))
            case 6:
                stat.mod_time = _signed64(_expect_number(wire, number, "modTime"))
            case 7:
                stat.linkname = bytes(_expect_bytes(wire, chunk, "linkname"))
            case 8:
                stat.devmajor = _signed64(_expect_number(wire, number, "devmajor"))
            case 9:
                stat.devminor = _signed64(_expect_number(wire, number, "devminor"))
            case 10:
                name, value = _decode_xattr(_expect_bytes(wire, chunk, "xattrs"))
                xattrs[name] = value
    stat.xattrs = xattrs or None
    return stat


def _decode_xattr(view: memoryview) -> tuple[str, bytes]:
    name = value = b""
    for field, wire, _, chunk in fields(view, _XATTR_FIELDS):
        if field == 1:
            name = bytes(_expect_bytes(wire, chunk, "xattrs key"))
        elif field == 2:
            value = bytes(_expect_bytes(wire, chunk, "xattrs value"))
    return gopath.to_str(name), value


def _expect_number(wire: int, number: int, name: str) -> int:
    if wire != VARINT:
        raise PacketError(f"field {name} has wire type {wire}")
    return number


def _expect_bytes(wire: int, chunk: memoryview, name: str) -> memoryview:
    if wire != BYTES:
        raise PacketError(f"field {name} has wire type {wire}")
    return chunk


def _signed32(value: int) -> int:
    value &= _MASK_32
    return value - (1 << 32) if value >> 31 else value


def _signed64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
