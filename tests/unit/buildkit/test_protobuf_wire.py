"""The wire format, against the protobuf runtime and on bytes that are cut off or hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit._proto import fsutil_pb2
from cogkit.buildkit.protobuf_wire import (
    BYTES,
    FIXED32,
    FIXED64,
    LONG,
    SHORT,
    VARINT,
    WireError,
    fields,
    read_varint,
    varint,
)

SEVENTY_BITS = b"\xff" * 9 + b"\x7f"


@given(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_number_is_read_as_it_was_written(value: int, before: bytes, after: bytes) -> None:
    encoded = varint(value)
    assert len(encoded) <= LONG
    assert read_varint(before + encoded + after, len(before)) == (value % 2**64, len(before) + len(encoded))


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_number_is_written_as_protobuf_writes_it(value: int) -> None:
    assert fsutil_pb2.Stat(size=value).SerializeToString() == (b"\x28" + varint(value) if value else b"")


@given(st.integers(0, 2**64 - 1), st.data())
def test_a_number_that_is_cut_off_is_refused(value: int, data: st.DataObject) -> None:
    encoded = varint(value)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with pytest.raises(WireError, match="truncated"):
        read_varint(cut, 0)


def test_a_number_has_an_end() -> None:
    assert read_varint(b"\x80" * 4 + b"\x01", 0, SHORT) == (1 << 28, 5)
    with pytest.raises(WireError, match="more than 5 bytes"):
        read_varint(b"\x80" * 5 + b"\x01", 0, SHORT)
    with pytest.raises(WireError, match="more than 10 bytes"):
        read_varint(b"\x80" * 10 + b"\x01", 0)


def test_what_more_than_64_bits_mean_is_left_to_the_caller() -> None:
    assert read_varint(SEVENTY_BITS, 0) == ((1 << 70) - 1, 10)
    with pytest.raises(WireError, match="64 bits"):
        list(fields(memoryview(b"\x08" + SEVENTY_BITS), 1))


def test_fields_of_every_kind() -> None:
    message = b"\x08\x96\x01" + b"\x11" + bytes(range(8)) + b"\x1a\x02hi" + b"\x25" + bytes(range(4)) + b"\x1a\x00"
    found = [(number, wire, value, bytes(chunk)) for number, wire, value, chunk in fields(memoryview(message), 5)]
    assert found == [
        (1, VARINT, 150, b""),
        (2, FIXED64, 0, bytes(range(8))),
        (3, BYTES, 0, b"hi"),
        (4, FIXED32, 0, bytes(range(4))),
        (3, BYTES, 0, b""),
    ]
    with pytest.raises(WireError, match="more than 4 fields"):
        list(fields(memoryview(message), 4))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x00\x01", "field number 0"),
        (b"\x0b", "wire type 3 is not in use"),
        (b"\x0a\x02x", "truncated"),
        (b"\x09\x00\x00", "truncated"),
        (b"\x08", "truncated"),
        (b"\x0a\xff\xff\xff\xff\xff\x01", "more than 5 bytes"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        list(fields(memoryview(message), 10))
