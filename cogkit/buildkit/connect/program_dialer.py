"""Daemons that a program leads to: ``ssh``, ``docker exec``, ``podman exec``, ``nerdctl exec``, ``kubectl exec``.

Each runs ``buildctl dial-stdio`` where the daemon is, as BuildKit's own client does, and copies its input and output.
Each stream is a program of its own.  What the programs say when they fail is turned into one sentence in
`program_failures`.
"""

from __future__ import annotations

import asyncio
import shlex
import socket
from collections.abc import Callable
from contextlib import suppress

from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.child_process import ChildProcess
from cogkit.buildkit.connect.dialer import Dialer, Headers
from cogkit.buildkit.connect.private_socket import Streams
from cogkit.buildkit.connect.program_failures import program_failure, program_missing
from cogkit.buildkit.connect.session_connection import DirectStream
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.buildkit.session.session import ByteStream

SSH_OPTIONS = (
    # It must never ask, nor wait for ever.
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    # Forwards of the user's configuration could not be set up twice, nor are they for us.
    *("-o", "ClearAllForwardings=yes", "-a", "-x", "-T"),
)
_DIAL = ("buildctl", "dial-stdio")
_SESSION_PATIENCE = 10.0
_ENDING_PATIENCE = 1.0


def dial_command(address: Address) -> tuple[str, ...]:
    """The command whose input and output are a stream to the daemon."""
    context = (f"--context={address.context}",) if address.context else ()
    namespace = (f"--namespace={address.namespace}",) if address.namespace else ()
    match address.scheme:
        case "ssh":
            at = ("--addr", shlex.quote(f"unix://{address.path}")) if address.path else ()
            return (*ssh_command(address), "buildctl", *at, "dial-stdio")
        case "kube-pod":
            container = (f"--container={address.container}",) if address.container else ()
            return ("kubectl", *context, *namespace, "exec", "-i", *container, address.host, "--", *_DIAL)
        case _:
            program = address.scheme.removesuffix("-container")
            return (program, *context, *namespace, "exec", "-i", address.host, *_DIAL)


def ssh_command(address: Address) -> tuple[str, ...]:
    """``ssh`` up to what it is to run."""
    user = ("-l", address.user) if address.user else ()
    port = ("-p", str(address.port)) if address.port else ()
    return ("ssh", *SSH_OPTIONS, *user, *port, "--", address.host)


class ProgramDialer(Dialer):
    """Runs a program for each stream; see `dial_command`."""

    # ssh and kubectl have handshakes of their own, over networks far and wide.
    patience = 15.0

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._started: list[ChildProcess] = []
        self._first: ChildProcess | None = None
        self._first_is_taken = False
        self._ahead: ChildProcess | None = None
        """For the session."""
        self._missing = False

    async def open(self) -> Streams:
        if not self._first_is_taken and self._first is not None:
            child = self._first
        elif self._missing or (self._first is not None and await self._first.outcome(0) is not None):
            raise ConnectionError("it has failed before")  # a program that could not get there is not run again
        else:
            child = self._start()
            self._first = self._first or child
        self._first_is_taken = True
        return await asyncio.open_connection(sock=child.stream)

    def open_ahead(self) -> None:
        if self._missing or self._ahead is not None:
            return
        # Whoever opens a stream will be told why there is none.
        with suppress(OSError):
            # The stream of all calls goes first: nothing can begin without it.
            self._first = self._first or self._start()
            self._ahead = self._start()

    async def open_session(self, method: str, headers: Headers, on_room: Callable[[], None]) -> ByteStream | None:
        try:
            child, self._ahead = self._ahead or self._start(), None
        except OSError:
            return None
        stream = DirectStream(child.stream, method, headers, on_room)
        if await _answers(child.stream):
            return stream
        # A server may let nobody in twice; then there is the first stream still.
        await child.end()
        await stream.close()
        return None

    async def explain(self, otherwise: str) -> BuilderUnreachableError:
        if self._first is None:
            return program_missing(self.address, dial_command(self.address)[0])
        code = await self._first.outcome(_ENDING_PATIENCE)
        return program_failure(self.address, code, self._first.said, otherwise)

    async def close(self) -> None:
        children, self._started = self._started, []
        for child in children:
            child.stream.close()
        await asyncio.gather(*(child.end() for child in children))

    def _start(self) -> ChildProcess:
        try:
            child = ChildProcess.start(dial_command(self.address))
        except OSError:
            self._missing = True
            raise
        self._started.append(child)
        return child


async def _answers(stream: socket.socket) -> bool:
    """Whether something comes, rather than an end or nothing for long."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        loop.remove_reader(stream.fileno())
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(stream.fileno(), tell)
    try:
        await asyncio.wait_for(readable, _SESSION_PATIENCE)
        return bool(stream.recv(1, socket.MSG_PEEK))
    except (OSError, TimeoutError):
        return False
    finally:
        loop.remove_reader(stream.fileno())
