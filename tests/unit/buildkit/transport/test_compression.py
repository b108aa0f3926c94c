"""What is compressed, for whom, and what is not."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import zlib
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from cogkit.buildkit.client import AsyncClient
from cogkit.buildkit.connection import Connection
from cogkit.buildkit.fsutil.packet import PacketType, decode_packet, encode_packet
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.session.services.filesync import DIFF_COPY, FileSync
from cogkit.buildkit.session.session import Session, SocketByteStream
from cogkit.buildkit.transport import grpc_messages
from cogkit.buildkit.transport.grpc_messages import SAMPLE, TRIED_AGAIN, Shrinker, frame_messages, prefix
from tests.unit.http2_wire import grpc_message

PIECE = 128 << 10
TEXT = b"".join(b"def function_%d(): return %d\n" % (number, number * 7) for number in range(6_000))[:PIECE]
NOISE = random.Random(4).randbytes(PIECE)


# ---------------------------------------------------------------------------------------------------- one message


def test_a_prefix_says_the_size_and_whether_it_is_compressed() -> None:
    assert prefix(258) == b"\0\0\0\1\2"
    assert prefix(258, compressed=True) == b"\1\0\0\1\2"
    assert frame_messages([b"a", b"", b"xyz"]) == b"".join(map(grpc_message, (b"a", b"", b"xyz")))


def test_text_shrinks_to_what_gzip_expands_to_head_and_text() -> None:
    shrinker = Shrinker()
    shrinker.begin(b".py")
    for piece in (TEXT, TEXT[:10_000], TEXT[:300]):
        shrunk = shrinker.shrink(b"head", piece)
        assert shrunk is not None and len(shrunk) < 0.75 * len(piece)
        assert gzip.decompress(shrunk) == b"head" + piece


def test_what_is_tiny_is_left_alone() -> None:
    shrinker = Shrinker()
    shrinker.begin(b".py")
    assert shrinker.shrink(b"head", b" " * 100) is None


class _Counted:
    """`zlib` that counts the bytes it is given."""

    def __init__(self) -> None:
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(zlib, name)

    def compress(self, data: bytes, level: int) -> bytes:
        self.bytes += len(data)
        return zlib.compress(data, level)

    def compressobj(self, level: int, method: int, wbits: int) -> Any:
        self.bytes += PIECE
        return zlib.compressobj(level, method, wbits)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> _Counted:
    counter = _Counted()
    monkeypatch.setattr(grpc_messages, "zlib", counter)
    return counter


def test_weights_cost_next_to_nothing(counted: _Counted) -> None:
    shrinker = Shrinker()
    shrinker.begin(b".safetensors")
    sent = 0
    while sent < 256 << 20:
        assert shrinker.shrink(b"head", NOISE) is None
        sent += PIECE
    assert counted.bytes <= sent // TRIED_AGAIN * SAMPLE + SAMPLE


def test_a_header_that_shrinks_does_not_make_the_rest_be_tried_again_and_again(counted: _Counted) -> None:
    shrinker = Shrinker()
    shrinker.begin(b".safetensors")
    assert shrinker.shrink(b"head", TEXT) is not None
    for _ in range(60):
        assert shrinker.shrink(b"head", NOISE) is None
    assert counted.bytes < 4 * PIECE


def test_a_part_that_shrinks_is_found_in_a_large_file() -> None:
    shrinker = Shrinker()
    shrinker.begin(b".bin")
    for _ in range(TRIED_AGAIN // PIECE - 1):
        assert shrinker.shrink(b"", NOISE) is None
    assert shrinker.shrink(b"", TEXT) is not None


def test_files_of_a_kind_that_does_not_shrink_are_tried_less_and_less(counted: _Counted) -> None:
    shrinker = Shrinker()
    for _ in range(1_000):
        shrinker.begin(b".jpg")
        assert shrinker.shrink(b"", NOISE) is None
    assert counted.bytes <= 25 * SAMPLE
    shrinker.begin(b".py")
    assert shrinker.shrink(b"", TEXT) is not None, "another kind"
    for _ in range(70):
        shrinker.begin(b".jpg")
        found = shrinker.shrink(b"", TEXT)
    assert found is not None, "the kind shrinks after all"


# ------------------------------------------------------------------------------------------------------- one session


FILES = {"code.py": TEXT * 3, "noise.bin": NOISE * 2, "empty": b"", "tiny": b"x"}


def transferred(root: Path, *, compress: bool, accepts: str | None) -> tuple[dict[bytes, bytes], int]:
    """What a daemon gets that says it accepts ``accepts``: files, and bytes on the wire."""
    for name, content in FILES.items():
        (root / name).write_bytes(content)

    async def run() -> tuple[dict[bytes, bytes], int]:
        session = Session([FileSync([LocalMount("context", root)])], compress=compress)
        carried = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            class Counting(SocketByteStream):
                async def write(self, data: bytes) -> None:
                    nonlocal carried
                    carried += len(data)
                    await super().write(data)

            await session.run(Counting(reader, writer))

        options = [("grpc.max_receive_message_length", -1)]
        if accepts is not None:
            # What grpcio accepts is a bit for each: identity, deflate, gzip.
            options.append(("grpc.compression_enabled_algorithms_bitset", 0b101 if accepts == "gzip" else 0b001))
        async with asyncio.timeout(30), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                start: Any = channel.stream_stream(DIFF_COPY, bytes, bytes)
                call = start(metadata=(("dir-name", "context"),))
                files = await _receive(call)
            await session.close()
            assert session.errors == []
        return files, carried

    return asyncio.run(run())


async def _receive(call: Any) -> dict[bytes, bytes]:
    names: list[bytes] = []
    contents: dict[int, bytes] = {}
    left = -1
    while (message := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        packet = decode_packet(message)
        if packet.type == PacketType.STAT and packet.stat is not None:
            names.append(packet.stat.path)
            await call.write(encode_packet(PacketType.REQ, id=len(names) - 1))
        elif packet.type == PacketType.STAT:
            left = len(names) - sum(1 for content in contents.values() if content.endswith(b"END"))
        elif packet.type == PacketType.DATA:
            contents[packet.id] = contents.get(packet.id, b"") + (bytes(packet.data) or b"END")
        if left >= 0 and sum(content.endswith(b"END") for content in contents.values()) == len(names):
            await call.write(encode_packet(PacketType.FIN))
            left = -1
    return {names[id]: content.removesuffix(b"END") for id, content in contents.items()}


def check(files: dict[bytes, bytes]) -> None:
    assert files == {name.encode(): content for name, content in FILES.items()}


def test_a_daemon_that_accepts_gzip_gets_text_compressed_and_noise_as_it_is(tmp_path: Path) -> None:
    files, carried = transferred(tmp_path, compress=True, accepts="gzip")
    check(files)
    assert 2 * PIECE < carried < 2 * PIECE + 2 * PIECE


def test_a_daemon_without_gzip_gets_everything_as_it_is(tmp_path: Path) -> None:
    files, carried = transferred(tmp_path, compress=True, accepts="identity")
    check(files)
    assert carried > 5 * PIECE


def test_nothing_is_compressed_unless_it_is_wanted(tmp_path: Path) -> None:
    files, carried = transferred(tmp_path, compress=False, accepts="gzip")
    check(files)
    assert carried > 5 * PIECE


# ------------------------------------------------------------------------------------------------------ whom it is for


def chosen(monkeypatch: pytest.MonkeyPatch, address: str, compress: bool | None) -> bool:
    async def checked(self: Connection, timeout: float | None, *, for_build: bool) -> None:
        return None

    def resolve(host: str, *_: object, **__: object) -> list[Any]:
        where = {"near.example": "127.0.0.1", "far.example": "192.0.2.1"}.get(host, host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (where, 1234))]

    monkeypatch.setattr(Connection, "check", checked)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    async def run() -> bool:
        async with await AsyncClient.connect(address, compress=compress, warn=lambda _: None) as connected:
            return connected._connection.compress

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("address", "compresses"),
    [
        ("unix:///run/buildkit/buildkitd.sock", False),
        ("tcp://127.0.0.1:1234", False),
        ("tcp://[::1]:1234", False),
        ("tcp://localhost:1234", False),
        ("tcp://near.example:1234", False),
        ("tcp://far.example:1234", True),
        ("tcp://192.0.2.7:1234", True),
    ],
)
def test_by_itself_it_compresses_for_daemons_on_other_machines(
    monkeypatch: pytest.MonkeyPatch, address: str, compresses: bool
) -> None:
    assert chosen(monkeypatch, address, None) is compresses


@pytest.mark.parametrize("address", ["unix:///s", "tcp://far.example:1234"])
@pytest.mark.parametrize("wanted", [True, False])
def test_what_the_user_says_holds(monkeypatch: pytest.MonkeyPatch, address: str, wanted: bool) -> None:
    assert chosen(monkeypatch, address, wanted) is wanted
