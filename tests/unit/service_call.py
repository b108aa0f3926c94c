"""Calls to a service of the session, without a session."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from cogkit.buildkit.session.service import Service

M = TypeVar("M", bound=Message)
Metadata = Mapping[str, tuple[bytes, ...]]


class OneByOne:
    """Gives a call `receive_many` by its `receive`."""

    async def receive(self) -> bytes | None:
        raise NotImplementedError

    async def receive_many(self, limit: int = 256) -> list[bytes]:
        message = await self.receive()
        return [] if message is None else [message]


class FakeCall(OneByOne):
    """A `ServerStream` whose far end is the test: `say` and `hang_up` on the one side, `heard` on the other."""

    def __init__(self, method: str, *messages: bytes, metadata: Metadata | None = None, ends: bool = True):
        self.method = method
        self.metadata: Metadata = metadata or {}
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue()
        for message in messages:
            self.say(message)
        if ends:
            self.hang_up()

    def say(self, message: bytes) -> None:
        self._said.put_nowait(message)

    def hang_up(self) -> None:
        self._said.put_nowait(None)

    async def receive(self) -> bytes | None:
        message = await self._said.get()
        if message is None:
            self._said.put_nowait(None)
        return message

    async def send(self, message: bytes) -> None:
        self.heard.put_nowait(message)

    takes_gzip = False

    async def send_framed(self, pieces: Sequence[bytes]) -> None:
        await self.send_many(unframed(pieces))

    async def send_many(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            await self.send(message)

    def all_heard(self) -> list[bytes]:
        return [self.heard.get_nowait() for _ in range(self.heard.qsize())]


def unframed(pieces: Sequence[bytes]) -> list[bytes]:
    """The messages in gRPC's frames, as they were before they were compressed."""
    stream, messages = b"".join(pieces), []
    while stream:
        size = int.from_bytes(stream[1:5], "big")
        message, compressed = stream[5 : 5 + size], stream[0]
        assert len(message) == size and compressed in (0, 1)
        messages.append(gzip.decompress(message) if compressed else message)
        stream = stream[5 + size :]
    return messages


async def serve(service: Service, call: FakeCall, seconds: float = 20.0) -> None:
    """Have the service answer the call to its end."""
    await asyncio.wait_for(asyncio.ensure_future(_awaitable(service, call)), seconds)


async def _awaitable(service: Service, call: FakeCall) -> None:
    await service.methods()[call.method](call)


async def ask(
    service: Service, method: str, request: Message, response_type: type[M], metadata: Metadata | None = None
) -> M:
    """One request and its one response."""
    call = FakeCall(method, request.SerializeToString(), metadata=metadata)
    await serve(service, call)
    (response,) = call.all_heard()
    return response_type.FromString(response)
