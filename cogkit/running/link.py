"""This machine's end of the link to a container: processes, connections and files of it, for asyncio.

The relay in the container connects to a socket that the builder forwards to `Link`, an endpoint of the session's SSH
service.  All that happens between the two goes over that one connection, in channels (`mux`).  This file must not know
how the container was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from cogkit.buildkit.session.services.ssh import Connection
from cogkit.errors import CogkitError, ProcessError
from cogkit.fast_dataclass import dataclass
from cogkit.running.mux import CLIENT, Accepted, Data, Ended, Event, Mux, MuxError, Opened, Reset, Room, split_lines

PING_EVERY = 1.0
"""Seconds; the relay ends everything when it has heard nothing for four."""

PIECE = 64 * 1024
_MAX_LINE = 1024 * 1024
_BACKLOG = 1024 * 1024

NOT_FOUND = 127
NOT_EXECUTABLE = 126


class LinkLostError(CogkitError):
    """The container, or the way to it, is gone."""


class RefusedError(CogkitError):
    """The container's side did not take a channel: nobody listens on the port, say."""


class StartError(ProcessError):
    """The command could not be started; its code is 126 or 127, as a shell has them."""


class Channel:
    """One stream of bytes each way; made by `Link.open`.

    ``read`` and ``write`` raise `RefusedError` when the other side has reset the channel, `LinkLostError` when the
    link is gone.
    """

    def __init__(self, link: Link, id: int) -> None:
        self._link = link
        self.id = id
        self._arrived: deque[bytes] = deque()
        self._ended = False
        self._error: CogkitError | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def accepted(self) -> bytes:
        """What the other side says to the channel; raises `RefusedError` if it does not take it."""
        return await asyncio.shield(self._answer)

    async def read(self) -> bytes:
        """Some bytes; ``b""`` when there are no more."""
        while not self._arrived:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = self._arrived.popleft() if len(self._arrived) == 1 else self._gathered()
        self._link.consumed(self.id, len(data))
        return data

    def _gathered(self) -> bytes:
        parts = []
        size = 0
        while self._arrived and size < 4 * PIECE:
            parts.append(self._arrived.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of ``data``; returns when more can be taken."""
        view = memoryview(data)
        while view:
            count = min(len(view), self._link.room(self.id))
            if not count:
                if self._error is not None:
                    raise self._error
                self._writable.clear()
                await self._writable.wait()
                continue
            self._link.send(self.id, view[:count])
            view = view[count:]
            await self._link.drained()
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Send no more."""
        self._link.end(self.id)

    def reset(self) -> None:
        """Be done with it, whatever is under way."""
        self._link.reset(self.id)

    # ---- for the link

    def take(self, event: Event) -> None:
        if isinstance(event, Data):
            self._arrived.append(event.data)
            self._readable.set()
        elif isinstance(event, Accepted):
            if not self._answer.done():
                self._answer.set_result(event.answer)
        elif isinstance(event, Ended):
            self._ended = True
            self._readable.set()
        elif isinstance(event, Room):
            self._writable.set()

    def fail(self, error: CogkitError) -> None:
        self._error = self._error or error
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # seen, whether or not anybody waits
        self._readable.set()
        self._writable.set()


Reverse = Callable[[Channel, int], Awaitable[None]]
"""Serves a connection that something in the container made to a port of `Link.listen`."""


class Link:
    """The endpoint that the relay connects to.

    Only the first connection counts: what else in the container connects is refused.
    """

    def __init__(self) -> None:
        self._mux = Mux(CLIENT)
        self._channels: dict[int, Channel] = {}
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._up: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._taken = False
        self._lost: CogkitError | None = None
        self._closed = asyncio.Event()
        self._ports: dict[int, Reverse] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the link is gone."""

    # ---------------------------------------------------------------- what can be asked for

    async def up(self) -> Mapping[str, Any]:
        """Wait until the container is there; what it says of itself."""
        return await asyncio.shield(self._up)

    def open(self, request: Mapping[str, Any]) -> Channel:
        """Open a channel."""
        if self._lost is not None:
            raise self._lost
        id = self._mux.open(json.dumps(request).encode())
        channel = self._channels[id] = Channel(self, id)
        self._wake.set()
        return channel

    async def connect(self, port: int) -> Channel:
        """A connection to a server in the container.

        Raises:
            RefusedError: nobody listens there.
        """
        channel = self.open({"kind": "connect", "port": port})
        try:
            await channel.accepted()
        except asyncio.CancelledError:
            channel.reset()
            raise
        return channel

    async def free_port(self) -> int:
        """A port on which nobody in the container listens."""
        return int(await self.open({"kind": "free-port"}).accepted())

    async def listen(self, port: int, serve: Reverse) -> bool:
        """Have ``serve`` called for each connection to ``port`` in the container; False if the port is taken there."""
        self._ports[port] = serve
        try:
            await self.open({"kind": "listen", "port": port}).accepted()
        except RefusedError:
            return False
        return True

    async def start(
        self,
        args: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        *,
        terminal: tuple[int, int] | None = None,
        input: bool = False,
    ) -> RemoteProcess:
        """Start a process.

        Args:
            args: Its command line.
            env: Its whole environment.
            cwd: Where it starts.
            terminal: Rows and columns of a terminal of its own, in place of pipes.
            input: Whether it has a standard input.

        Raises:
            StartError: there is no such command, or folder.
        """
        control = self.open({"kind": "process"})
        asked = {"args": list(args), "env": dict(env), "cwd": cwd, "terminal": terminal, "input": input}
        try:
            await control.write(json.dumps({"start": asked}).encode() + b"\n")
            process = RemoteProcess(self, control)
            told = await process.hear()
            if "failed" in told:
                raise _start_error(told)
        except BaseException:
            control.reset()
            raise
        process.attach(terminal is not None, input)
        return process

    # ---------------------------------------------------------------- for channels

    def room(self, channel: int) -> int:
        return self._mux.room(channel) if self._lost is None else 0

    def send(self, channel: int, data: memoryview) -> None:
        self._mux.send(channel, data)
        self._wake.set()

    async def drained(self) -> None:
        """Wait while much is still to be sent."""
        if self._mux.backlog > _BACKLOG:
            self._empty.clear()
            await self._empty.wait()

    def consumed(self, channel: int, count: int) -> None:
        self._mux.consumed(channel, count)
        if self._mux.backlog:
            self._wake.set()

    def end(self, channel: int) -> None:
        self._mux.end(channel)
        if not self._mux.is_open(channel):
            self._channels.pop(channel, None)
        self._wake.set()

    def reset(self, channel: int) -> None:
        self._mux.reset(channel)
        self._channels.pop(channel, None)
        self._wake.set()

    # ---------------------------------------------------------------- the connection

    async def serve(self, connection: Connection) -> None:
        """Serve the relay (`cogkit.buildkit.session.services.ssh.Endpoint`)."""
        if self._taken:
            raise RefusedError("only the container's first process may connect here")
        self._taken = True
        writing = asyncio.create_task(self._write(connection))
        pinging = asyncio.create_task(self._ping())
        closing = asyncio.create_task(self._closed.wait())
        reading = asyncio.create_task(self._read(connection))
        try:
            await asyncio.wait({reading, writing, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks = (reading, writing, pinging, closing)
            for task in tasks:
                task.cancel()
            reason = LinkLostError(
                "the connection to the container on the builder was lost", hint="see the builder's log, and try again"
            )
            for task in (reading, writing):
                if task.done() and not task.cancelled() and isinstance(task.exception(), MuxError):
                    reason = LinkLostError(f"the container's side of the link broke its rules: {task.exception()}")
            self._lose(reason)
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """End the link; the relay then ends everything in the container."""
        self._closed.set()
        self._lose(LinkLostError("the link to the container was closed"))

    def _lose(self, error: CogkitError) -> None:
        if self._lost is not None:
            return
        self._lost = error
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.fail(error)
        for task in self._tasks:
            task.cancel()
        self._empty.set()
        if not self._up.done():
            self._up.set_exception(error)
            self._up.exception()
        if not self.failed.done():
            self.failed.set_result(None)

    @property
    def lost(self) -> CogkitError | None:
        """Why the link is gone; None while it is there."""
        return self._lost

    async def _read(self, connection: Connection) -> None:
        while (data := await connection.receive()) is not None:
            for event in self._mux.feed(data):
                self._take(event)
            if self._mux.backlog:
                self._wake.set()

    async def _write(self, connection: Connection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if data := self._mux.take():
                view = memoryview(data)
                for start in range(0, len(view), 4 * PIECE):
                    await connection.send(bytes(view[start : start + 4 * PIECE]))
            if self._mux.backlog <= _BACKLOG:
                self._empty.set()

    async def _ping(self) -> None:
        while True:
            self._mux.ping()
            self._wake.set()
            await asyncio.sleep(PING_EVERY)

    def _take(self, event: Event) -> None:
        if isinstance(event, Opened):
            self._opened(event)
            return
        channel = self._channels.get(getattr(event, "channel", 0))
        if channel is None:
            if isinstance(event, Data):
                self._mux.consumed(event.channel, len(event.data))
            return
        if isinstance(event, Reset):
            del self._channels[event.channel]
            channel.fail(RefusedError(event.reason or "the container's side ended the connection"))
        else:
            channel.take(event)
            if isinstance(event, Ended) and not self._mux.is_open(event.channel):
                self._channels.pop(event.channel, None)

    def _opened(self, event: Opened) -> None:
        try:
            asked = json.loads(event.request)
            kind = asked["kind"]
        except (ValueError, LookupError, TypeError):
            raise MuxError("a request that cannot be read") from None
        if kind == "greeting":
            if not self._up.done():
                self._up.set_result(asked)
            self._mux.end(event.channel)
            return
        serve = self._ports.get(asked.get("port"))
        if kind != "reverse" or serve is None:
            self._mux.reset(event.channel, "nobody serves this here")
            return
        channel = self._channels[event.channel] = Channel(self, event.channel)
        task = asyncio.create_task(self._serve_reverse(channel, asked["port"], serve))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_reverse(self, channel: Channel, port: int, serve: Reverse) -> None:
        try:
            await serve(channel, port)
        except (CogkitError, OSError):
            channel.reset()


class RemoteProcess:
    """A process in the container, made by `Link.start`.

    Attributes:
        stdin: None if it has none.
        stdout: What it writes; with a terminal all of it.
        stderr: None with a terminal.
    """

    def __init__(self, link: Link, control: Channel) -> None:
        self._link = link
        self._control = control
        self._buffer = bytearray()
        self._lines: deque[Mapping[str, Any]] = deque()
        self._code: int | None = None
        self.stdin: Channel | None = None
        self.stdout: Channel
        self.stderr: Channel | None = None

    def attach(self, terminal: bool, input: bool) -> None:
        """Ask for its streams."""
        if terminal:
            self.stdin = self.stdout = self._stream(0)
            return
        self.stdin = self._stream(0) if input else None
        self.stdout, self.stderr = self._stream(1), self._stream(2)

    def _stream(self, fd: int) -> Channel:
        return self._link.open({"kind": "stream", "process": self._control.id, "fd": fd})

    async def hear(self) -> Mapping[str, Any]:
        """The next thing that is said of it."""
        while not self._lines:
            data = await self._control.read()
            if not data:
                raise LinkLostError("the container's side does not say what became of the process")
            self._buffer += data
            lines, fits = split_lines(self._buffer, _MAX_LINE)
            if not fits:
                raise LinkLostError("the container's side says more of a process than can be true")
            for line in lines:
                try:
                    told = json.loads(line)
                except ValueError:
                    told = None
                if not isinstance(told, dict):
                    raise LinkLostError("what the container's side says of a process cannot be read")
                self._lines.append(told)
        return self._lines.popleft()

    async def wait(self) -> int:
        """Its exit code, when it has ended: 128 and the number of the signal if one ended it."""
        while self._code is None:
            code = (await self.hear()).get("exited")
            if isinstance(code, int):
                self._code = code & 0xFF
        return self._code

    async def signal(self, name: str) -> None:
        """Send a signal, such as ``INT``, to it and its children."""
        await self._say({"signal": name})

    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now."""
        await self._say({"resize": [rows, columns]})

    async def _say(self, what: Mapping[str, Any]) -> None:
        with contextlib.suppress(RefusedError):  # it has ended
            if self._code is None:
                await self._control.write(json.dumps(what).encode() + b"\n")


def _start_error(told: Mapping[str, Any]) -> StartError:
    missing = told.get("errno") in (errno.ENOENT, errno.ENOTDIR)
    return StartError(
        f"the command cannot be started in the container: {told['failed']}",
        NOT_FOUND if missing else NOT_EXECUTABLE,
        hint="the image has no such command" if missing else "see that it is a program the image can run",
    )


async def pieces(channel: Channel) -> AsyncIterator[bytes]:
    """What comes on a channel, until its end."""
    while data := await channel.read():
        yield data


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where the container is.

    Attributes:
        same_network: Its ports are the ports of this machine.
    """

    same_network: bool

    @classmethod
    def of(cls, greeting: Mapping[str, Any]) -> Whereabouts:
        """From what the relay says of itself."""
        import os
        from pathlib import Path

        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            network = os.stat("/proc/self/ns/net").st_ino
        except OSError:
            return cls(False)
        return cls(greeting.get("boot") == boot and greeting.get("network") == network)
