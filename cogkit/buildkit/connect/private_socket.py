"""A unix socket of our own that leads to a stream which gRPC cannot open by itself.

gRPC wants an address to connect to.  Where the way to the daemon is something else, the channel connects to a socket in
a private folder here, and each connection is copied to and from a stream that the given function opens.  This file must
not know what the stream is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Self
from urllib.parse import quote

from cogkit.temporary_folder import TemporaryFolder

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_SOCKET = "bridge.sock"
_PIECE = 256 << 10


class Bridge:
    """See `open`."""

    def __init__(self, folder: TemporaryFolder, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._folder = folder
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, connect: Callable[[], Awaitable[Streams]]) -> Self:
        """Listen, and copy every connection to and from what ``connect`` opens; if it fails, close the connection."""
        # Only this user may enter the folder, and so connect.
        folder = TemporaryFolder(for_socket=True)
        try:
            bridge = cls(folder, connect)
            path = str(folder.path / _SOCKET)
            bridge._server = await asyncio.start_unix_server(bridge._serve, path)
            os.chmod(path, 0o600)
        except BaseException:
            folder.close()
            raise
        return bridge

    @property
    def grpc_target(self) -> str:
        """The socket in gRPC's naming syntax."""
        return f"unix:{quote(str(self._folder.path / _SOCKET))}"

    async def close(self) -> None:
        """Stop listening, and end the connections.  Idempotent."""
        if self._server is not None:
            self._server.close()
        self._folder.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours rather than asyncio's, so that it can be ended in order.
        task = asyncio.create_task(_serve((reader, writer), self._connect))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)


async def _serve(near: Streams, connect: Callable[[], Awaitable[Streams]]) -> None:
    try:
        far = await connect()
    except OSError:
        near[1].close()
        return
    copies = [asyncio.create_task(_copy(near[0], far[1])), asyncio.create_task(_copy(far[0], near[1]))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        for _, writer in (near, far):
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
