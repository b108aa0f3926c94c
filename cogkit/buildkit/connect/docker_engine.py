"""The BuildKit within a Docker engine, over the engine's own API.

``POST /grpc`` makes an HTTP connection a gRPC one, and ``POST /session`` one that the engine calls us on, with nothing
in between: the session runs on the very bytes.  Engines to come speak gRPC on their API's socket by themselves and know
neither; there the session is a call as at any buildkitd.  This file asks the engine for nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.dialer import Dialer, Headers
from cogkit.buildkit.connect.engine_endpoint import find_endpoint, way_to
from cogkit.buildkit.connect.private_socket import Streams
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.buildkit.session.session import ByteStream, SocketByteStream

_SWITCHED = 101
_NOT_FOUND = 404


class EngineDialer(Dialer):
    """See the top of this file."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._endpoint = find_endpoint(address)
        self._way = way_to(self._endpoint)
        self.patience = self._way.patience
        self.encrypted = self._way.encrypted
        self._ahead: asyncio.Task[Streams] | None = None
        self._failure: Exception | None = None
        self._speaks_grpc = False
        """The engine knows no ``/grpc`` because its API's socket speaks gRPC itself."""

    async def open(self) -> Streams:
        try:
            if not self._speaks_grpc:
                streams = await self._way.open()
                answer = await _upgrade(streams, "/grpc", ())
                if answer == _SWITCHED:
                    return streams
                streams[1].close()
                if answer != _NOT_FOUND:
                    raise ConnectionError(f"it refused to speak gRPC (HTTP status {answer})")
                self._speaks_grpc = True
            return await self._way.open()
        except (OSError, EOFError) as error:
            self._failure = error
            raise ConnectionError(str(error)) from error

    def open_ahead(self) -> None:
        if self._ahead is None and self._way.is_slow:
            self._ahead = asyncio.create_task(self._way.open())

    async def open_session(self, method: str, headers: Headers, on_room: Callable[[], None]) -> ByteStream | None:
        if self._speaks_grpc:
            return None
        try:
            ahead, self._ahead = self._ahead, None
            streams = await (ahead or self._way.open())
            answer = await _upgrade(streams, "/session", headers)
        except (OSError, EOFError):
            return None
        if answer == _SWITCHED:
            return SocketByteStream(*streams)
        streams[1].close()
        return None

    async def explain(self, otherwise: str) -> BuilderUnreachableError:
        reason, hint = await self._way.explain(self._failure, otherwise)
        if self._speaks_grpc and self._failure is None:
            reason = "it has no BuildKit within it"
            hint = "podman's engine has none: run buildkitd in a container, and name it with podman-container://"
        where = f" ({self._endpoint.url}, from {self._endpoint.origin})" if self._endpoint.origin else ""
        return BuilderUnreachableError(f"no Docker engine answers at {self.address}{where}: {reason}", hint=hint)

    async def is_far(self) -> bool:
        return await self._way.is_far()

    async def close(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
        await self._way.close()


async def _upgrade(streams: Streams, path: str, headers: Iterable[tuple[str, str]]) -> int:
    """Ask for another protocol on an HTTP connection; returns the answer's status.

    Raises:
        OSError: the connection broke, or no HTTP is spoken there.
        EOFError: it ended.
    """
    reader, writer = streams
    lines = [f"POST {path} HTTP/1.1", "Host: docker", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise ConnectionError("it does not speak HTTP") from None
    first = head.split(b"\r\n", 1)[0].split(b" ")
    if not first[0].startswith(b"HTTP/1.") or len(first) < 2 or not first[1].isdigit():
        raise ConnectionError("it does not speak HTTP")
    return int(first[1])
