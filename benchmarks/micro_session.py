"""What the session's protocol core costs in CPU time, without any I/O, and what ``h2`` and ``hyperframe`` would cost.

``python benchmarks/micro_session.py [WORD…]`` prints one line per case.  Not a test: nothing here has a threshold.
The figures that the design rests on stand in ``benchmarks/notes.md``, section "session: frames".
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import hpack
import hyperframe.frame

from cogkit.buildkit.transport.grpc import PENDING, CallStarted, GrpcServer, Readable
from cogkit.buildkit.transport.http2 import DataReceived, Http2Connection
from cogkit.buildkit.transport.http2_frames import PREFACE

MIB = 1 << 20
PACKET = 32 * 1024
READ = 32 * 1024


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One frame of the peer."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def opening() -> bytes:
    """A client's preface, huge windows for what we send, and one call on stream 1."""
    headers = hpack.Encoder().encode(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/moby.filesync.v1.FileSync/DiffCopy"),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
    )
    wide = (2**31 - 1).to_bytes(4, "big")
    settings = frame(4, 0, 0, b"\x00\x04" + wide) + frame(8, 0, 0, (2**31 - 1 - 65_535).to_bytes(4, "big"))
    return PREFACE + settings + frame(1, 4, 1, headers)


def send(total: int, size: int, batch: int) -> Iterator[bytes]:
    """Chunks that leave when ``total`` bytes go out as messages of ``size``, ``batch`` of them at once."""
    server = GrpcServer()
    started = [event for event in server.receive(opening()) if isinstance(event, CallStarted)]
    # As much distinct memory as a cache does not hold: the bytes of real files are cold, too.
    pool = [bytes([number % 256]) * size for number in range(min(64 * MIB, total) // size)]
    for number in range(total // size // batch):
        first = number * batch % len(pool)
        server.send_messages(started[0].call, pool[first : first + batch])
        while chunk := server.data_to_send():
            yield chunk


def send_large() -> str:
    chunks = sum(1 for _ in send(1024 * MIB, PACKET, 32))
    return f"{chunks} chunks"


def send_small() -> str:
    lengths = [len(chunk) for chunk in send(50_000 * 128, 128, 1_000)]
    return f"{len(lengths)} chunks, {sum(lengths) // len(lengths)} bytes each"


def incoming(total: int) -> Iterator[bytes]:
    """What grpc-go sends for messages of 32 KiB: frames of at most 16 KiB, in writes of 32 KiB."""
    message = b"\x00" + PACKET.to_bytes(4, "big") + bytes(PACKET)
    frames = b"".join(frame(0, 0, 1, message[i : i + 16_384]) for i in range(0, len(message), 16_384))
    stream = frames * 32
    for _ in range(total // (32 * PACKET)):
        for position in range(0, len(stream), READ):
            yield stream[position : position + READ]


def receive_large() -> str:
    server = GrpcServer()
    call = next(event.call for event in server.receive(opening()) if isinstance(event, CallStarted))
    updates = messages = 0
    for data in incoming(1024 * MIB):
        for event in server.receive(data):
            if isinstance(event, Readable):
                while server.take_message(call) is not PENDING:
                    messages += 1
        updates += server.data_to_send().count(b"\x00\x00\x04\x08\x00")
    return f"{messages} messages, {updates} window updates"


def many_calls() -> str:
    server = GrpcServer()
    list(server.receive(opening()))
    encoder = hpack.Encoder()
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.82.1"),
        ("te", "trailers"),
    ]
    # Never indexed, so the block fits every moment: as grpc-go's blocks are longer at first and shorter later.
    block = b"".join(encoder.add((name.encode(), value.encode()), True, True) for name, value in fields)
    for number in range(10_000):
        stream_id = 2 * number + 3
        for event in server.receive(frame(1, 4, stream_id, block) + frame(0, 1, stream_id, bytes(5))):
            if isinstance(event, Readable) and server.take_message(event.call) is None:
                server.send_messages(event.call, (b"\x08\x01",))
                server.finish(event.call)
        server.data_to_send()
    return "10000 unary calls"


def frames_own() -> str:
    connection = Http2Connection()
    list(connection.receive(opening()))
    connection.send_headers(1, ((b":status", b"200"),))
    piece = bytes(16_384)
    size = 0
    for _ in range(256):
        connection.send_data(1, [piece] * 64)
        while chunk := connection.data_to_send():
            size += len(chunk)
    return f"{size // MIB} MiB out"


def frames_hyperframe() -> str:
    piece = bytes(16_384)
    size = 0
    for _ in range(256):
        out = []
        for _ in range(64):
            data = hyperframe.frame.DataFrame(1, piece)
            out.append(data.serialize())
        size += len(b"".join(out))
    return f"{size // MIB} MiB out"


def frames_h2() -> str:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    connection.receive_data(opening())
    connection.send_headers(1, [(":status", "200")])
    piece = bytes(16_384)
    size = 0
    for _ in range(256):
        for _ in range(64):
            connection.send_data(1, piece)
        size += len(connection.data_to_send())
    return f"{size // MIB} MiB out"


def parse_own() -> str:
    connection = Http2Connection()
    list(connection.receive(opening()))
    size = 0
    for data in incoming(256 * MIB):
        for event in connection.receive(data):
            if isinstance(event, DataReceived):
                size += len(event.data)
                connection.consumed(1, len(event.data))
        connection.data_to_send()
    return f"{size // MIB} MiB in"


def parse_h2() -> str:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    connection.receive_data(opening())
    size = 0
    for data in incoming(256 * MIB):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                size += len(event.data)
                connection.acknowledge_received_data(event.flow_controlled_length, 1)
        connection.data_to_send()
    return f"{size // MIB} MiB in"


CASES: dict[str, Callable[[], str]] = {
    "send 1 GiB in 32 KiB messages": send_large,
    "send 50,000 messages of 128 bytes": send_small,
    "receive 1 GiB in 32 KiB messages": receive_large,
    "10,000 unary calls": many_calls,
    "frame 256 MiB: own": frames_own,
    "frame 256 MiB: hyperframe": frames_hyperframe,
    "frame 256 MiB: h2": frames_h2,
    "parse 256 MiB: own": parse_own,
    "parse 256 MiB: h2": parse_h2,
}


def main() -> None:
    """Run every case once, or those whose name contains the given words."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("only", nargs="*", help="run the cases whose names contain one of these words")
    only = parser.parse_args().only
    for name, case in CASES.items():
        if only and not any(word in name for word in only):
            continue
        start = time.process_time()
        result = case()
        print(f"{name:36} {time.process_time() - start:7.3f} s CPU   {result}", flush=True)


if __name__ == "__main__":
    main()
