"""Questions to a Docker engine's API, as HTTP/1.1 over whatever way leads there.

Only what cogkit needs of HTTP: one request after the other on a connection, bodies of known length or in chunks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.engine_endpoint import find_endpoint, way_to
from cogkit.buildkit.connect.private_socket import Streams
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import CogkitError

_MAX_ANSWER = 64 << 20


class EngineError(CogkitError):
    """The engine refused a request, or broke off (exit code 1)."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class EngineApi:
    """An engine, by its ``docker://`` address.  `close` it.

    Raises:
        UsageError: docker's settings name no engine that could be used.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.endpoint = find_endpoint(address)
        self._way = way_to(self.endpoint)
        self._streams: Streams | None = None

    async def get(self, path: str) -> Any:
        """The answer's JSON.

        Raises:
            EngineError: the engine refused.
            BuilderUnreachableError: there is no engine.
        """
        return json.loads(await self.request("GET", path) or b"null")

    async def is_containerd_store(self) -> bool:
        """Whether it keeps images in containerd's store and not in the classic one; raises as `get` does."""
        status = (await self.get("/info")).get("DriverStatus") or ()
        return ["driver-type", "io.containerd.snapshotter.v1"] in [list(pair) for pair in status]

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes | memoryview] | None = None,
    ) -> bytes:
        """The answer's body; raises as `get` does.  A ``body`` is sent in chunks as it comes."""
        if self._streams is None:
            self._streams = await self._open()
        try:
            status, answer = await self._exchange(self._streams, method, path, headers or {}, body)
        except (OSError, EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as error:
            self._drop()
            raise EngineError(f"the engine broke off {method} {path.partition('?')[0]}: {error}") from error
        except BaseException:
            self._drop()  # in the middle of a request nothing else can be asked
            raise
        if status >= 400:
            raise EngineError(f"the engine refused: {_message(answer)}", status=status)
        return answer

    async def close(self) -> None:
        """End the connection.  Idempotent."""
        self._drop()
        await self._way.close()

    async def _open(self) -> Streams:
        try:
            return await asyncio.wait_for(self._way.open(), self._way.patience)
        except OSError as error:  # a TimeoutError is one
            reason, hint = await self._way.explain(error, "no answer")
            raise BuilderUnreachableError(f"no engine answers at {self.endpoint.url}: {reason}", hint=hint) from error

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(
        self,
        streams: Streams,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes | memoryview] | None,
    ) -> tuple[int, bytes]:
        reader, writer = streams
        framing = {"Content-Length": "0"} if body is None else {"Transfer-Encoding": "chunked"}
        lines = [f"{method} {path} HTTP/1.1", "Host: docker"]
        lines += [f"{name}: {value}" for name, value in {**framing, **headers}.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if body is not None:
            async for piece in body:
                if piece:
                    writer.writelines((f"{len(piece):x}\r\n".encode(), piece, b"\r\n"))
                    await writer.drain()
            writer.write(b"0\r\n\r\n")
        return await _answer(reader, self)


async def _answer(reader: asyncio.StreamReader, api: EngineApi) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1])
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if len(body) + size > _MAX_ANSWER:
                raise ValueError("its answer is too long")
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        length = int(fields.get("content-length", "0"))
        if length > _MAX_ANSWER:
            raise ValueError("its answer is too long")
        body = await reader.readexactly(length)
    if fields.get("connection", "").lower() == "close":
        api._drop()
    return status, body


def _message(answer: bytes) -> str:
    try:
        text = json.loads(answer)["message"]
    except (ValueError, KeyError, TypeError):
        text = answer.decode(errors="replace")
    return str(text).strip()[:500] or "it did not say why"
