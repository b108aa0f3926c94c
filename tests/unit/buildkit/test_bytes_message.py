"""Bytes in messages: what protobuf makes is read, and what protobuf reads is made."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogkit._proto import control_pb2
from cogkit.buildkit.bytes_message import MAX_FIELDS, decode_bytes, encode_bytes
from cogkit.buildkit.protobuf_wire import WireError
from tests.scripted_sender import blob, number


@given(st.binary(max_size=300) | st.integers(0, 3 << 14).map(bytes))
def test_bytes_messages_are_protobufs(data: bytes) -> None:
    message = control_pb2.BytesMessage(data=data)
    assert control_pb2.BytesMessage.FromString(encode_bytes(data)) == message
    assert encode_bytes(memoryview(data)) == encode_bytes(data)
    assert decode_bytes(message.SerializeToString()) == data


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=3))
def test_of_several_data_fields_the_last_counts(parts: list[bytes]) -> None:
    message = b"".join(blob(1, part) for part in parts)
    assert decode_bytes(message) == (parts[-1] if parts else b"")


def test_unknown_fields_do_not_count() -> None:
    assert bytes(decode_bytes(b"\x10\x01" + encode_bytes(b"with another field"))) == b"with another field"
    assert bytes(decode_bytes(blob(2, b"x"))) == b""


@settings(deadline=None)
@given(st.binary(max_size=30))
def test_any_bytes_are_read_as_protobuf_reads_them_or_refused(message: bytes) -> None:
    try:
        data = decode_bytes(message)
    except WireError:
        return
    assert control_pb2.BytesMessage.FromString(message).data == data


@pytest.mark.parametrize(
    "message",
    [b"\x0a", b"\x0a\x05abc", b"\x0a\xff", number(1, 5), b"\x0a" + b"\xff" * 20, blob(1, b"") * (MAX_FIELDS + 1)],
)
def test_what_is_no_such_message_is_refused(message: bytes) -> None:
    with pytest.raises(WireError):
        decode_bytes(message)
