"""The packet codec, against the protobuf runtime and on bytes that are no packet."""

from __future__ import annotations

import time
import tracemalloc
from stat import S_IFREG

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit._proto import fsutil_pb2
from cogkit.buildkit.fsutil.packet import (
    Packet,
    PacketError,
    PacketType,
    data_header,
    decode_packet,
    encode_file,
    encode_packet,
    encode_stat,
    request_id,
)
from cogkit.buildkit.fsutil.stat import Stat, go_mode
from cogkit.buildkit.protobuf_wire import varint

UINT32 = st.integers(0, 2**32 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
STATS = st.builds(
    Stat,
    path=st.binary(max_size=300),
    mode=UINT32,
    uid=UINT32,
    gid=UINT32,
    size=INT64,
    mod_time=INT64 | st.integers(1_500_000_000_000_000_000, 2_000_000_000_000_000_000),
    linkname=st.binary(max_size=40),
    devmajor=INT64,
    devminor=INT64,
    xattrs=st.none() | st.dictionaries(st.text(max_size=9), st.binary(max_size=200), min_size=1, max_size=3),
)


def message(stat: Stat) -> fsutil_pb2.Stat:
    return fsutil_pb2.Stat(
        path=stat.path,
        mode=stat.mode,
        uid=stat.uid,
        gid=stat.gid,
        size=stat.size,
        modTime=stat.mod_time,
        linkname=stat.linkname,
        devmajor=stat.devmajor,
        devminor=stat.devminor,
        xattrs=stat.xattrs,
    )


@given(STATS)
def test_a_stat_packet_is_what_the_protobuf_runtime_reads_and_writes(stat: Stat) -> None:
    encoded = encode_stat(stat)
    read = fsutil_pb2.Packet.FromString(encoded)
    assert read == fsutil_pb2.Packet(stat=message(stat))
    if len(stat.xattrs or {}) < 2:  # a map may be written in any order
        assert encoded == read.SerializeToString()
    assert decode_packet(read.SerializeToString()) == Packet(PacketType.STAT, stat=stat)


@given(
    st.binary(min_size=1, max_size=40) | st.integers(16_300, 16_400).map(lambda size: b"a" * size),
    st.integers(0, 0o7777),
    st.integers(0, 2**63 - 1) | st.integers(0, 1 << 29),
    st.integers(-(2**63), 2**63 - 1) | st.integers(10**18, 2 * 10**18),
)
def test_the_short_way_to_describe_a_file_writes_what_the_long_one_does(
    path: bytes, permissions: int, size: int, mod_time: int
) -> None:
    mode = go_mode(S_IFREG | permissions)
    stat = Stat(path, mode, size=size, mod_time=mod_time)
    assert encode_file(path, mode, size, mod_time) == encode_stat(stat)


@given(st.sampled_from(PacketType), UINT32, st.binary(max_size=300))
def test_other_packets_too(type: PacketType, id: int, data: bytes) -> None:
    encoded = encode_packet(type, id=id, data=data)
    assert encoded == fsutil_pb2.Packet(type=int(type), ID=id, data=data).SerializeToString()  # type: ignore[arg-type]
    packet = decode_packet(encoded)
    assert (packet.type, packet.id, bytes(packet.data), packet.stat) == (type, id, data, None)


@given(UINT32, st.integers(0, 5_000_000))
def test_the_header_of_content_is_a_data_packet_without_it(id: int, size: int) -> None:
    assert data_header(id, size) + b"x" * size == encode_packet(PacketType.DATA, id=id, data=b"x" * size)


def test_names_need_not_be_utf8() -> None:
    stat = Stat(b"\xff/\xc3", linkname=b"\xed\xa0\x80", xattrs={"user.\udcff": b""})
    assert decode_packet(encode_stat(stat)).stat == stat


def test_unknown_fields_are_passed_over_and_the_last_of_a_field_counts() -> None:
    unknown = b"\x78\x05" + b"\x7a\x03abc" + b"\x79" + b"\0" * 8 + b"\x7d" + b"\0" * 4
    packet = decode_packet(b"\x08\x01" + unknown + b"\x18\x01\x18\x02")
    assert (packet.type, packet.id) == (PacketType.REQ, 2)


def test_two_stats_are_refused() -> None:
    with pytest.raises(PacketError, match="twice"):
        decode_packet(b"\x12\x03\x0a\x01a" + b"\x12\x02\x10\x07")


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


@pytest.mark.parametrize(
    "packet",
    [
        b"\x08\x01" * (1 << 21),
        b"\x22\x00" * (1 << 21),
        b"\x78\x00" * (1 << 21),
        _field(2, b"\x10\x00" * (1 << 21)),
        _field(2, b"\x52\x00" * (1 << 21)),
        _field(2, _field(10, b"\x0a\x00" * (1 << 21))),
        _field(2, b"".join(_field(10, b"\x12\x00" * 100) for _ in range(20_000))),
    ],
    ids=["types", "contents", "unknown", "modes", "attributes", "names", "values of attributes"],
)
def test_a_packet_of_millions_of_fields_is_refused_before_they_are_read(packet: bytes) -> None:
    tracemalloc.start()
    began = time.thread_time()
    with pytest.raises(PacketError, match="fields"):
        decode_packet(packet)
    assert time.thread_time() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_file_may_have_as_many_attributes_as_a_disk_allows() -> None:
    stat = Stat(b"f", xattrs={f"user.{number}": b"" for number in range(9_000)})
    assert decode_packet(encode_stat(stat)).stat == stat


def test_an_empty_stat_is_a_stat_and_a_missing_one_is_none() -> None:
    assert decode_packet(b"\x12\x00").stat == Stat(b"")
    assert decode_packet(b"").stat is None


@pytest.mark.parametrize(
    "bad",
    [
        b"\x08",  # no value
        b"\x08\x80",  # a number that does not end
        b"\x08" + b"\x80" * 10 + b"\x01",  # more than 10 bytes
        b"\x08" + b"\xff" * 9 + b"\x02",  # more than 64 bits
        b"\x22\x05abc",  # shorter than it says
        b"\x22\xff\xff\xff\xff\x0f",  # much shorter
        b"\x0a\x00",  # the type as bytes
        b"\x10\x00",  # the stat as a number
        b"\x1a\x00",  # the id as bytes
        b"\x20\x00",  # the data as a number
        b"\x12\x02\x0a\x05",  # a path shorter than it says
        b"\x12\x02\x08\x00",  # a path as a number
        b"\x12\x02\x52\x05",  # attributes shorter than they say
        b"\x12\x04\x52\x02\x08\x01",  # the name of an attribute as a number
        b"\x00\x00",  # field 0
        b"\x0b",  # a group
        b"\x0c",  # the end of one
        b"\x7d\x00",  # four bytes of which there is one
        b"\x79\x00",  # eight
    ],
)
def test_what_is_no_packet_is_refused(bad: bytes) -> None:
    with pytest.raises(PacketError):
        decode_packet(bad)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    try:
        packet = decode_packet(data)
    except PacketError:
        return
    if packet.stat is not None:
        assert decode_packet(encode_stat(packet.stat)).stat == packet.stat


@given(UINT32)
def test_the_short_way_to_read_a_request_gives_its_id_or_leaves_it_to_the_long_one(id: int) -> None:
    encoded = encode_packet(PacketType.REQ, id=id)
    assert decode_packet(encoded).id == id
    assert request_id(encoded) in ((id,) if 0 < id < 1 << 21 else (-1,))


@given(st.binary(max_size=5).map(lambda tail: b"\x08\x01\x18" + tail))
def test_the_short_way_never_differs_from_the_long_one(message: bytes) -> None:
    id = request_id(message)
    if id >= 0:
        packet = decode_packet(message)
        assert (packet.type, packet.id) == (PacketType.REQ, id)
