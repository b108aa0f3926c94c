"""The session's server with a foreign gRPC client: grpcio dials it over TCP as it would dial any server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio
import pytest

from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.session.session import Session, SocketByteStream
from cogkit.buildkit.transport.grpc_status import StatusCode

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
MIB = 1 << 20


class Interop:
    """One method for each thing a client may want to see."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def methods(self) -> Mapping[str, Handler]:
        return {
            "/interop.Test/Echo": self.echo,
            "/interop.Test/Metadata": self.metadata,
            "/interop.Test/Fail": self.fail,
            "/interop.Test/Forever": self.forever,
            "/interop.Test/Digest": self.digest,
            "/interop.Test/Many": self.many,
        }

    async def echo(self, stream: ServerStream) -> None:
        while (message := await stream.receive()) is not None:
            await stream.send(message)

    async def metadata(self, stream: ServerStream) -> None:
        await stream.receive()
        for key in ("plain", "twice", "value-bin"):
            await stream.send(repr((key, stream.metadata[key])).encode())

    async def fail(self, stream: ServerStream) -> None:
        message = await stream.receive()
        raise CallError(StatusCode.FAILED_PRECONDITION, (message or b"").decode())

    async def forever(self, stream: ServerStream) -> None:
        try:
            await stream.send(b"started")
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def digest(self, stream: ServerStream) -> None:
        digest = hashlib.sha256()
        while (message := await stream.receive()) is not None:
            digest.update(message)
        await stream.send(digest.digest())

    async def many(self, stream: ServerStream) -> None:
        for _ in range(50):
            await stream.send_many([b"m" * 120] * 1_000)


def _same(message: bytes) -> bytes:
    return message


class Client:
    """A channel whose messages are bytes."""

    def __init__(self, channel: grpc.aio.Channel):
        self._channel = channel

    def unary_unary(self, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        return self._channel.unary_unary(method, _same, _same)

    def unary_stream(self, method: str) -> grpc.aio.UnaryStreamMultiCallable[bytes, bytes]:
        return self._channel.unary_stream(method, _same, _same)

    def stream_unary(self, method: str) -> grpc.aio.StreamUnaryMultiCallable[bytes, bytes]:
        return self._channel.stream_unary(method, _same, _same)

    def stream_stream(self, method: str) -> grpc.aio.StreamStreamMultiCallable[bytes, bytes]:
        return self._channel.stream_stream(method, _same, _same)


def with_client(scenario: Callable[[Client, Interop], Awaitable[None]]) -> None:
    """Run a scenario with a channel to a served session, and see the session end well."""

    async def main() -> None:
        service = Interop()
        sessions: dict[Session, asyncio.Task[None]] = {}

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            session = Session([service])
            sessions[session] = asyncio.create_task(session.run(SocketByteStream(reader, writer)))

        async with asyncio.timeout(60), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED) as channel:
                await scenario(Client(channel), service)
            # grpcio keeps the connection while anything refers to the channel, so the end is ours to bring about.
            for session, running in sessions.items():
                await session.close()
                await running
                assert session.errors == []
        assert len(sessions) == 1

    asyncio.run(main())


async def refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error: grpc.aio.AioRpcError = caught.value
    return error


async def stream_of(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def test_unary_call() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        assert await client.unary_unary("/interop.Test/Echo")(b"hello") == b"hello"
        assert await client.unary_unary("/interop.Test/Echo")(b"") == b""
        assert await client.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"

    with_client(scenario)


def test_stream_in_both_directions() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        messages = [bytes([size % 251]) * (size * 37) for size in range(300)]
        call = client.stream_stream("/interop.Test/Echo")(stream_of(messages))
        assert [message async for message in call] == messages

    with_client(scenario)


def test_messages_of_four_mebibytes() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        messages = [bytes([number]) * (4 * MIB) for number in range(6)]
        call = client.stream_stream("/interop.Test/Echo")(stream_of(messages))
        assert [message async for message in call] == messages

    with_client(scenario)


def test_a_hundred_mebibytes_in_arrive_whole() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        piece = bytes(range(256)) * 128
        call = client.stream_unary("/interop.Test/Digest")(stream_of([piece] * 3_200))
        assert await call == hashlib.sha256(piece * 3_200).digest()

    with_client(scenario)


def test_fifty_thousand_small_messages_out_arrive() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        count = 0
        async for message in client.unary_stream("/interop.Test/Many")(b""):
            assert message == b"m" * 120
            count += 1
        assert count == 50_000

    with_client(scenario)


def test_metadata_arrives() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        metadata = (("plain", "x y"), ("twice", "1"), ("twice", "2"), ("value-bin", bytes(range(256))))
        call = client.unary_stream("/interop.Test/Metadata")(b"", metadata=metadata)
        assert [message async for message in call] == [
            repr(("plain", (b"x y",))).encode(),
            repr(("twice", (b"1", b"2"))).encode(),
            repr(("value-bin", (bytes(range(256)),))).encode(),
        ]

    with_client(scenario)


def test_metadata_of_hundreds_of_kilobytes_arrives() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        patterns = [("twice", f"folder/{number}/**") for number in range(6_000)]
        metadata: list[tuple[str, str | bytes]] = [*patterns, ("plain", "x"), ("value-bin", b"")]
        call = client.unary_stream("/interop.Test/Metadata")(b"", metadata=metadata)
        messages = [message async for message in call]
        assert messages[1] == repr(("twice", tuple(value.encode() for _, value in patterns))).encode()

    with_client(scenario)


def test_status_and_its_text_arrive() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        error = await refusal(client.unary_unary("/interop.Test/Fail")("naïve 100%\n✓".encode()))
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "naïve 100%\n✓")

    with_client(scenario)


def test_unknown_method_is_unimplemented() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        error = await refusal(client.unary_unary("/interop.Test/Nothing")(b""))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED

    with_client(scenario)


def test_cancel_of_the_client_reaches_the_handler() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        call = client.unary_stream("/interop.Test/Forever")(b"")
        assert await call.read() == b"started"
        call.cancel()
        await asyncio.wait_for(service.cancelled.wait(), 5)

    with_client(scenario)


def test_deadline_of_the_client_reaches_the_handler() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        call = client.unary_stream("/interop.Test/Forever")(b"", timeout=0.2)
        error = await refusal(_drain(call))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(service.cancelled.wait(), 5)

    with_client(scenario)


def test_message_over_sixteen_mebibytes_is_refused() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        echo = client.unary_unary("/interop.Test/Echo")
        assert len(await echo(bytes(16 * MIB))) == 16 * MIB
        error = await refusal(echo(bytes(16 * MIB + 1)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    with_client(scenario)


def test_compressing_client_is_told_what_is_spoken() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        echo = client.unary_unary("/interop.Test/Echo")
        error = await refusal(echo(b"x" * 10_000, compression=grpc.Compression.Gzip))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED

    with_client(scenario)


def test_more_calls_at_once_than_streams_are_allowed_wait_their_turn() -> None:
    async def scenario(client: Client, service: Interop) -> None:
        echo = client.unary_unary("/interop.Test/Echo")
        answers = await asyncio.gather(*(echo(b"%d" % number) for number in range(1_000)))
        assert answers == [b"%d" % number for number in range(1_000)]

    with_client(scenario)


async def _drain(call: Any) -> None:
    async for _ in call:
        pass
