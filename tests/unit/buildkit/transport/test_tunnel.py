"""The client's half of the session's connection: what it sends, what it takes, and what it does not take, as bytes."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import hpack
import pytest

from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.dialer import UnixDialer
from cogkit.buildkit.connect.session_connection import DirectStream
from cogkit.buildkit.transport.tunnel import WINDOW, Tunnel, TunnelError
from tests.unit.http2_wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    MAX_FRAME,
    PADDED,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    ServerOutput,
    data,
    frame,
    grpc_message,
    headers,
    literal_block,
    rst_stream,
    settings,
    split_frames,
    window_update,
)

METHOD = "/moby.buildkit.v1.Control/Session"
RESPONSE = ((":status", "200"), ("content-type", "application/grpc"))
OPENING = settings() + headers(1, RESPONSE)


def tunnel(*metadata: tuple[str, str]) -> Tunnel:
    return Tunnel("localhost", METHOD, metadata)


def sent(tunnel: Tunnel) -> bytes:
    return b"".join(tunnel.data_to_send())


def receive(tunnel: Tunnel, stream: bytes, step: int = 1 << 20) -> bytes:
    """What the call carried in ``stream``, which comes in pieces of ``step`` bytes."""
    carried = b""
    while stream:
        room = tunnel.room
        size = min(len(stream), len(room), step)
        room[:size] = stream[:size]
        carried += tunnel.received(size)
        stream = stream[size:]
    return carried


def started() -> Tunnel:
    """A tunnel whose call was answered; what it sent so far is gone."""
    made = tunnel()
    receive(made, OPENING)
    made.data_to_send()
    return made


def bytes_message(payload: bytes) -> bytes:
    """A gRPC message that holds a BytesMessage."""
    length, size = b"", len(payload)
    while size > 0x7F:
        length += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return grpc_message(b"\x0a" + length + bytes((size,)) + payload)


def carried(frames: Sequence[Frame]) -> bytes:
    """The bytes in the BytesMessages that DATA frames hold."""
    stream = b"".join(each.payload for each in frames if each.kind == DATA)
    out = b""
    while stream:
        size = int.from_bytes(stream[1:5], "big")
        message, stream = stream[5 : 5 + size], stream[5 + size :]
        assert message[0] == 0x0A
        at = 1
        while message[at] > 0x7F:
            at += 1
        out += message[at + 1 :]
    return out


def test_it_opens_with_preface_settings_and_the_call() -> None:
    stream = sent(tunnel(("x-docker-expose-session-uuid", "abc")))
    assert stream.startswith(PREFACE)
    first, update, call = split_frames(stream.removeprefix(PREFACE))
    assert (first.kind, update.kind, call.kind) == (SETTINGS, WINDOW_UPDATE, HEADERS)
    fields = ServerOutput().fields(call)
    assert fields[":path"] == METHOD
    assert fields["te"] == "trailers"
    assert fields["x-docker-expose-session-uuid"] == "abc"


def test_metadata_larger_than_a_frame_goes_on_in_continuations() -> None:
    metadata = [
        ("x-docker-expose-session-grpc-method", f"/a.B/{random.Random(i).randbytes(400).hex()}") for i in range(50)
    ]
    frames = list(split_frames(sent(tunnel(*metadata)).removeprefix(PREFACE)))[2:]
    assert [each.kind for each in frames] == [HEADERS] + [CONTINUATION] * (len(frames) - 1)
    assert [each.flags for each in frames] == [0] * (len(frames) - 1) + [END_HEADERS]
    fields = hpack.Decoder(max_header_list_size=1 << 20).decode(b"".join(each.payload for each in frames))
    assert [(str(name), str(value)) for name, value in fields if str(name).startswith("x-")] == metadata


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_bytes_come_out_as_they_were_put_in_however_they_are_cut(step: int) -> None:
    source = random.Random(step)
    payloads = [source.randbytes(size) for size in (0, 1, 127, 128, 20_000, 0, 16_379, 5)]
    stream = b"".join(map(bytes_message, payloads))
    wire, at = OPENING, 0
    while at < len(stream):
        size = source.choice((1, 3, 100, 16_000))
        wire += data(1, stream[at : at + size])
        at += size
    assert receive(tunnel(), wire, step) == b"".join(payloads)


def test_padding_is_no_part_of_the_data() -> None:
    padded = frame(DATA, PADDED, 1, b"\x03" + bytes_message(b"hello") + bytes(3))
    assert receive(started(), padded) == b"hello"


def test_what_follows_the_end_is_not_taken_for_the_rest_of_a_message() -> None:
    whole = bytes_message(b"hello")
    made = started()
    assert receive(made, frame(DATA, END_STREAM, 1, whole[:-3])) == b"he"
    assert receive(made, data(1, whole[-3:])) == b""


def test_what_is_sent_keeps_to_the_peers_windows() -> None:
    made = started()
    payload = random.Random(1).randbytes(200_000)
    made.send(payload)
    frames = list(split_frames(sent(made)))
    assert sum(len(each.payload) for each in frames) == 65_535
    assert max(len(each.payload) for each in frames) == 16_384
    assert (made.blocked, sent(made)) == (True, b"")
    receive(made, window_update(1, 1 << 20))
    assert (made.blocked, sent(made)) == (True, b""), "the connection's window is still closed"
    receive(made, window_update(0, 10))
    assert (made.blocked, made.backlog > 0) == (False, True)
    frames += split_frames(sent(made))
    assert sum(len(each.payload) for each in frames) == 65_545
    receive(made, window_update(0, 1 << 20))
    frames += split_frames(sent(made))
    assert carried(frames) == payload
    assert not made.backlog


def test_the_peers_settings_change_window_and_frames() -> None:
    made = tunnel()
    made.data_to_send()
    receive(made, settings((INITIAL_WINDOW, 100_000), (MAX_FRAME, 32_768)) + window_update(0, 100_000))
    made.send(bytes(99_000))
    answer, *frames = split_frames(sent(made))
    assert (answer.kind, answer.flags) == (SETTINGS, ACK)
    assert max(len(each.payload) for each in frames) == 32_768
    assert carried(frames) == bytes(99_000)


def test_a_ping_is_answered_before_data() -> None:
    made = started()
    made.send(b"data")
    receive(made, frame(PING, payload=b"12345678"))
    first, *_ = split_frames(sent(made))
    assert (first.kind, first.flags, first.payload) == (PING, ACK, b"12345678")


def test_windows_open_again_as_bytes_are_taken() -> None:
    made = started()
    for _ in range(WINDOW // 4 // 16_000 + 1):
        receive(made, data(1, bytes_message(bytes(15_000)) + bytes_message(bytes(1_000 - 14))))
    updates = [each for each in split_frames(sent(made)) if each.kind == WINDOW_UPDATE]
    assert {each.stream_id for each in updates} == {0, 1}
    assert all(each.increment >= WINDOW // 4 for each in updates)


def test_the_end_of_the_call_tells_its_status() -> None:
    made = started()
    trailers = (("grpc-status", "14"), ("grpc-message", "going away: 100%25"))
    receive(made, headers(1, trailers, END_HEADERS | END_STREAM))
    assert made.ended
    assert made.status == (14, "going away: 100%")
    receive(made, rst_stream(1, 0))


def test_our_end_is_said_in_order_if_all_was_sent_and_else_by_a_reset() -> None:
    made = started()
    assert made.finish()
    (end,) = split_frames(sent(made))
    assert (end.kind, end.flags, end.payload) == (DATA, END_STREAM, b"")
    made = started()
    made.send(b"unsent")
    assert not made.finish()
    (end,) = split_frames(sent(made))
    assert (end.kind, end.code) == (RST_STREAM, 8)


def test_an_answer_of_headers_alone_is_the_end() -> None:
    made = tunnel()
    receive(made, settings() + headers(1, (*RESPONSE, ("grpc-status", "12")), END_HEADERS | END_STREAM))
    assert made.ended and made.status[0] == 12


def test_a_peer_that_takes_no_further_calls_goes_on_with_this_one() -> None:
    made = started()
    receive(made, frame(GOAWAY, payload=b"\x7f\xff\xff\xff" + bytes(4)))
    assert receive(made, data(1, bytes_message(b"still here"))) == b"still here"


BAD = {
    "no HTTP/2": b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(20_000),
    "first frame no SETTINGS": frame(PING, payload=bytes(8)),
    "data before headers": settings() + data(1, b"x"),
    "empty data before headers": settings() + data(1, b""),
    "data of another stream": OPENING + data(3, b"x"),
    "a pushed stream": OPENING + frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)),
    "interrupted headers": settings() + frame(HEADERS, 0, 1, b"") + frame(PING, payload=bytes(8)),
    "headers without end": settings() + frame(HEADERS, 0, 1, b"\x00") + frame(CONTINUATION, 0, 1, bytes(16_000)) * 20,
    "empty continuations": settings() + frame(HEADERS, 0, 1, b"\x00") + frame(CONTINUATION, 0, 1),
    "unreadable headers": settings() + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff"),
    "no gRPC": settings() + headers(1, ((":status", "200"), ("content-type", "text/html"))),
    "an HTTP error": settings() + headers(1, ((":status", "503"),)),
    "a compressed message": OPENING + data(1, grpc_message(b"\x0a\x00", 1)),
    "a message of another kind": OPENING + data(1, grpc_message(b"\x12\x01x")),
    "a field longer than its message": OPENING + data(1, grpc_message(b"\x0a\x05x")),
    "a length without end": OPENING + data(1, grpc_message(b"\x0a" + b"\xff" * 20)),
    "padding longer than the frame": OPENING + frame(DATA, PADDED, 1, b"\x05x"),
    "a malformed ping": OPENING + frame(PING, payload=bytes(7)),
    "malformed settings": frame(SETTINGS, payload=bytes(5)),
    "a malformed update": OPENING + frame(WINDOW_UPDATE, 0, 1, bytes(3)),
    "a window too large": OPENING + window_update(1, 2**31 - 1),
    "a malformed goaway": OPENING + frame(GOAWAY, payload=bytes(7)),
    "a goaway with a reason": OPENING + frame(GOAWAY, payload=b"\x7f\xff\xff\xff" + b"\0\0\0\x0b"),
    "a goaway that refuses the call": OPENING + frame(GOAWAY, payload=bytes(8)),
    "a reset": OPENING + rst_stream(1),
    "a reset of another stream": OPENING + frame(RST_STREAM, 0, 3, bytes(4)),
    "pings whose answers nobody reads": OPENING + frame(PING, payload=bytes(8)) * 10_000,
    "more than the window": OPENING + data(1, bytes_message(bytes(16_370))) * (WINDOW // 16_000),
}


@pytest.mark.parametrize("wire", BAD.values(), ids=BAD.keys())
def test_what_breaks_the_protocol_ends_the_connection(wire: bytes) -> None:
    made = tunnel()
    if len(wire) > WINDOW:  # as if what was taken had not been told of
        made._reopen_windows = lambda: None  # type: ignore[method-assign]
    with pytest.raises(TunnelError):
        receive(made, wire)


def test_whatever_comes_nothing_but_a_tunnel_error_is_raised() -> None:
    valid = OPENING + data(1, bytes_message(b"hello")) + frame(PING, payload=bytes(8)) + window_update(1, 5)
    valid += headers(1, (("grpc-status", "0"),), END_HEADERS | END_STREAM)
    source = random.Random(6)
    refused = 0
    for _ in range(3000):
        wire = bytearray(valid)
        for _ in range(source.randrange(1, 4)):
            wire[source.randrange(len(wire))] = source.randrange(256)
        try:
            receive(tunnel(), bytes(wire), source.choice((1, 10, 1000)))
        except TunnelError:
            refused += 1
    assert refused > 1000


def test_header_lists_that_grow_when_they_are_decoded_are_refused() -> None:
    # One large field is put into the table and then named by one byte each time.
    block = b"\x40\x01a" + literal_block([("x", "y" * 3000)])[3:] + b"\xbe" * 200
    with pytest.raises(TunnelError):
        receive(tunnel(), settings() + frame(HEADERS, END_HEADERS, 1, block))


# ------------------------------------------------------------------------------------------------- with a gRPC server


class Daemon:
    """A gRPC server of grpcio's with one method, in place of a daemon."""

    def __init__(self, folder: Path, answer: Callable[[Any, Any], Any]) -> None:
        self.metadata: dict[str, Any] = {}
        self.address = Address.parse(f"unix://{folder}/daemon.sock")

        def call(requests: Any, context: Any) -> Any:
            self.metadata = dict(context.invocation_metadata())
            return answer(requests, context)

        handler = grpc.stream_stream_rpc_method_handler(call)
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("moby.buildkit.v1.Control", {"Session": handler}),)
        )
        self._server.add_insecure_port(f"unix:{self.address.path}")
        self._server.start()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


async def connect(address: Address, on_room: Callable[[], None] = lambda: None) -> DirectStream:
    stream = await UnixDialer(address).open_session(METHOD, [("x-docker-expose-session-uuid", "id")], on_room)
    assert isinstance(stream, DirectStream)
    return stream


def message(payload: bytes) -> bytes:
    return bytes_message(payload)[5:]


def test_a_grpc_server_hears_and_is_heard(tmp_path: Path) -> None:
    payload = random.Random(3).randbytes(3_000_000)

    def echo(requests: Any, context: Any) -> Any:
        yield message(b"hello")
        yield from requests

    async def run(address: Address) -> bytes:
        stream = await connect(address)
        assert await stream.read() == b"hello"

        async def write() -> None:
            for at in range(0, len(payload), 100_000):
                await stream.write(payload[at : at + 100_000])

        writing = asyncio.create_task(write())
        heard = b""
        while len(heard) < len(payload):
            heard += await stream.read()
        await writing
        await stream.close()
        assert await stream.read() == b""
        return heard

    with Daemon(tmp_path, echo) as daemon:
        assert asyncio.run(run(daemon.address)) == payload
        assert daemon.metadata["x-docker-expose-session-uuid"] == "id"


def test_the_servers_reason_is_told_to_the_reader_and_writing_ends(tmp_path: Path) -> None:
    def refuse(requests: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, "no sessions today")
        yield b""

    async def run(address: Address) -> None:
        stream = await connect(address)
        with pytest.raises(ConnectionError, match="no sessions today"):
            await stream.read()
        with pytest.raises(ConnectionError):
            await stream.write(b"more")
        await stream.close()

    with Daemon(tmp_path, refuse) as daemon:
        asyncio.run(run(daemon.address))


def test_a_server_that_ends_well_is_the_end_of_the_bytes(tmp_path: Path) -> None:
    def end(requests: Any, context: Any) -> Any:
        yield message(b"all")

    async def run(address: Address) -> None:
        stream = await connect(address)
        assert await stream.read() == b"all"
        assert await stream.read() == b""
        await stream.close()

    with Daemon(tmp_path, end) as daemon:
        asyncio.run(run(daemon.address))


def test_a_writer_waits_for_a_server_that_does_not_read_and_room_is_a_sign_of_life(tmp_path: Path) -> None:
    go_on = threading.Event()

    def slow(requests: Any, context: Any) -> Any:
        go_on.wait(10)
        yield message(b"%d" % sum(map(len, requests)))

    async def run(address: Address) -> None:
        signs: list[None] = []
        stream = await connect(address, lambda: signs.append(None))

        async def write() -> None:
            for _ in range(100):
                await stream.write(bytes(100_000))

        writing = asyncio.create_task(write())
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0.3)
        assert not writing.done()
        before = len(signs)
        go_on.set()
        await writing
        assert len(signs) > before
        reading.cancel()
        await stream.close()

    with Daemon(tmp_path, slow) as daemon:
        asyncio.run(run(daemon.address))


def test_a_connection_that_breaks_ends_reader_and_writer(tmp_path: Path) -> None:
    async def run(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            stream = await connect(Address.parse(f"unix://{path}"))
            writing = asyncio.create_task(stream.write(bytes(4_000_000)))
            reading = asyncio.create_task(stream.read())
            await asyncio.sleep(0.05)
            listening.accept()[0].close()
            for task in (writing, reading):
                with pytest.raises(ConnectionError):
                    await asyncio.wait_for(task, 5)
            await stream.close()

    asyncio.run(run(tmp_path / "s"))


def test_closing_waits_until_the_server_knows(tmp_path: Path) -> None:
    known: list[float] = []

    def drain(requests: Any, context: Any) -> Any:
        yield message(b"hello")
        for _ in requests:
            pass
        time.sleep(0.1)
        known.append(time.monotonic())

    async def run(address: Address) -> float:
        stream = await connect(address)
        await stream.read()
        await stream.close()
        return time.monotonic()

    with Daemon(tmp_path, drain) as daemon:
        closed = asyncio.run(run(daemon.address))
    assert known and known[0] <= closed


def test_closing_does_not_wait_for_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async def run(path: Path) -> float:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            stream = await connect(Address.parse(f"unix://{path}"))
            began = time.monotonic()
            await stream.close()
            return time.monotonic() - began

    assert asyncio.run(run(tmp_path / "s")) < 2


def test_where_nobody_listens_the_session_has_to_share_the_connection_of_all_calls(tmp_path: Path) -> None:
    async def nothing() -> None:
        dialer = UnixDialer(Address.parse(f"unix://{tmp_path}/nobody"))
        assert await dialer.open_session(METHOD, [], lambda: None) is None

    asyncio.run(nothing())
