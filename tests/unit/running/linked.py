"""A link to a relay that runs here, over a plain socket in the place of the builder."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from cogkit.running.link import Link


class SocketConnection:
    """A socket as what the session's SSH service gives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes | None:
        return await self._reader.read(32 * 1024) or None

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


class Linked:
    """The link, and the process at its other end."""

    def __init__(self, link: Link, greeting: Mapping[str, Any], relay: subprocess.Popen[bytes]) -> None:
        self.link = link
        self.greeting = greeting
        self.relay = relay

    async def relay_ended(self) -> None:
        while self.relay.poll() is None:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[Linked]:
    """A relay with its link."""
    link = Link()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await link.serve(SocketConnection(reader, writer))
        writer.close()

    path = folder / "link"
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        relay = subprocess.Popen([sys.executable, "-m", "cogkit.running.relay", str(path)], stdin=subprocess.DEVNULL)
        try:
            async with asyncio.timeout(60):
                greeting = await link.up()
            there = Linked(link, greeting, relay)
            yield there
            link.close()
            async with asyncio.timeout(60):
                await there.relay_ended()
        finally:
            relay.kill()
            relay.wait()
