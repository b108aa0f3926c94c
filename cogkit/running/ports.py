"""Ports of this machine that lead to servers in the container.

This file must not know what the servers are.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from cogkit.errors import CogkitError, UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.running.link import Channel, RefusedError

if TYPE_CHECKING:
    from cogkit.running.session import Running

DEFAULT_HOST = "127.0.0.1"
_PIECE = 64 * 1024
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Port:
    """A port here for one in the container."""

    host: str
    number: int
    inside: int


def parse_port(value: str, *, flag: str = "-p") -> Port:
    """``8000``, ``0.0.0.0:8000`` or ``[::1]:8000``: the same number here and there, as in Cog.

    Raises:
        UsageError: it cannot be read, in Cog's words.
    """
    host, number = _split(value, flag)
    if not (number.isascii() and number.isdecimal() and len(number) <= 5):
        raise UsageError(f"invalid port {value!r}: {number!r} is not a number", hint=f"for example {flag} 8000")
    if not 1 <= int(number) <= 65535:
        raise UsageError(f"invalid port {value!r}: port must be between 1 and 65535", hint=f"for example {flag} 8000")
    return Port(host, int(number), int(number))


def _split(value: str, flag: str) -> tuple[str, str]:
    hint = f"for example {flag} 8000 or {flag} 0.0.0.0:8000"
    if not value:
        raise UsageError(f"invalid port {value!r}: value cannot be empty", hint=hint)
    if value.startswith("["):
        host, closing, number = value[1:].partition("]")
        if not closing:
            raise UsageError(f"invalid port {value!r}: missing closing bracket for IPv6 address", hint=hint)
        if not number.startswith(":"):
            raise UsageError(f"invalid port {value!r}: expected ':' after ']'", hint=hint)
        number = number[1:]
    else:
        host, colon, number = value.rpartition(":")
        host = host if colon else DEFAULT_HOST
    if not host:
        raise UsageError(f"invalid port {value!r}: host cannot be empty", hint=hint)
    return host, number


class Forwarder:
    """A listening port whose connections end in a container, which may be another one from some time on."""

    def __init__(self) -> None:
        self.running: Running | None = None
        self._inside = 0
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], Running] = {}

    def use(self, running: Running, inside: int) -> None:
        """Lead connections to a port of this container from now on."""
        self.running, self._inside = running, inside

    async def look_at(self, data: bytes) -> None:
        """Called with what goes to the container, before it goes."""

    async def listen(self, host: str, number: int) -> None:
        """Take connections from now on.

        Raises:
            UsageError: the port cannot be had.
        """
        try:
            self._server = await asyncio.start_server(self._serve, host, number, limit=_PIECE, backlog=_BACKLOG)
        except OSError as problem:
            taken = problem.errno == errno.EADDRINUSE
            reason = "something listens there already" if taken else (problem.strerror or str(problem))
            raise UsageError(f"cannot listen on {host}:{number}: {reason}", hint="choose another port") from None

    async def listen_on(self, reserved: socket.socket) -> None:
        """Take connections on a socket that has its port already."""
        self._server = await asyncio.start_server(self._serve, sock=reserved, limit=_PIECE, backlog=_BACKLOG)

    async def close(self) -> None:
        """Take no more, and end those that there are."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drained(self, running: Running, timeout: float) -> None:
        """Wait until no connection leads to a container any more, but not for long."""
        if tasks := [task for task, led_to in self._tasks.items() if led_to is running]:
            await asyncio.wait(tasks, timeout=timeout)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running = self.running
        assert running is not None
        self._tasks[task] = running
        try:
            _without_delay(writer)
            channel = await running.link.connect(self._inside)
            await joined(channel, reader, writer, self.look_at)
        except (CogkitError, OSError, asyncio.CancelledError):
            # The other side of the connection sees that it ends.
            writer.transport.abort()
        finally:
            self._tasks.pop(task, None)
            writer.close()


def _without_delay(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def joined(
    channel: Channel,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    look_at: Callable[[bytes], Awaitable[None]] | None = None,
) -> None:
    """Carry a connection in both directions until both have ended, or one of them broke."""

    async def inward() -> None:
        while data := await reader.read(_PIECE):
            if look_at is not None:
                await look_at(data)
            await channel.write(data)
        channel.end()

    async def outward() -> None:
        while data := await channel.read():
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    tasks = [asyncio.create_task(inward()), asyncio.create_task(outward())]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        channel.reset()
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def serve_here(channel: Channel, port: int) -> None:
    """Join a connection that something in the container made to a server of this machine."""
    try:
        reader, writer = await asyncio.open_connection(DEFAULT_HOST, port)
    except OSError:
        raise RefusedError(f"nobody listens on port {port} here") from None
    try:
        await joined(channel, reader, writer)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def published(running: Running, ports: Sequence[Port]) -> AsyncIterator[None]:
    """Have ports of the container here.

    Where the container's ports are this machine's, what listens on one is here without us.
    """
    async with contextlib.AsyncExitStack() as stack:
        for port in ports:
            if running.where.same_network:
                continue
            forwarder = Forwarder()
            forwarder.use(running, port.inside)
            await forwarder.listen(port.host, port.number)
            stack.push_async_callback(forwarder.close)
        yield
