"""The SSH service: sockets in a build's steps whose connections end at this machine.

A step that mounts ``type=ssh`` gets a socket; each connection to it is one ``ForwardAgent`` call here, and goes to the
`Endpoint` that the user offered under the mount's id.  An id that was not offered is refused.  An endpoint is mostly an
ssh-agent (`FilteredAgent`, `KeyAgent`), but any socket of this machine can be one (`SocketTunnel`).

Facts are from BuildKit's ``session/sshforward``.  What an agent may be asked is decided in `ssh.agent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cogkit._proto import ssh_pb2
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.bytes_message import decode_bytes, encode_bytes
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.session.services.unary import answered, receive_request
from cogkit.buildkit.ssh.agent import MAX_MESSAGE, Keyring, MessageReader, framed, refusal
from cogkit.buildkit.ssh.key import load_key
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import UsageError

DEFAULT_ID = "default"
ID_KEY = "buildkit.ssh.id"
CONNECT_TIMEOUT = 2.0
_PIECE = 32 * 1024


class Connection(Protocol):
    """The step's side of one connection, as bytes."""

    async def receive(self) -> bytes | None:
        """Some bytes; None when the step sends no more."""

    async def send(self, data: bytes) -> None:
        """Send all of ``data``; returns when more can be taken."""


class Endpoint(Protocol):
    """Where connections of one id end."""

    async def serve(self, connection: Connection) -> None:
        """Serve one connection; it is closed when this returns or raises."""


class Ssh:
    """The session's service for sockets in the build.

    Args:
        endpoints: What the build may connect to, by the id of its mount; ``default`` is the one of a mount without id.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint]):
        self._endpoints = dict(endpoints)

    def methods(self) -> Mapping[str, Handler]:
        prefix = "/moby.sshforward.v1.SSH/"
        return {f"{prefix}CheckAgent": self._check_agent, f"{prefix}ForwardAgent": self._forward_agent}

    async def _check_agent(self, stream: ServerStream) -> None:
        request = await receive_request(stream, ssh_pb2.CheckAgentRequest)
        self._asked_for(request.ID)
        await stream.send(ssh_pb2.CheckAgentResponse().SerializeToString())

    async def _forward_agent(self, stream: ServerStream) -> None:
        given = stream.metadata.get(ID_KEY, (b"",))[0]
        endpoint = self._asked_for(given.decode("utf-8", "replace"))
        await answered(endpoint.serve(_StepConnection(stream)))

    def _asked_for(self, id: str) -> Endpoint:
        endpoint = self._endpoints.get(id or DEFAULT_ID)
        if endpoint is None:
            raise CallError(StatusCode.UNKNOWN, f"unset ssh forward key {id or DEFAULT_ID}")
        return endpoint


class _StepConnection:
    """A call as a `Connection`."""

    def __init__(self, stream: ServerStream):
        self._stream = stream

    async def receive(self) -> bytes | None:
        while (message := await self._stream.receive()) is not None:
            if data := decode_bytes(message):
                return bytes(data)
        return None

    async def send(self, data: bytes) -> None:
        await self._stream.send(encode_bytes(data))


class KeyAgent:
    """An ssh-agent made of keys."""

    def __init__(self, keyring: Keyring):
        self._keyring = keyring

    async def serve(self, connection: Connection) -> None:
        messages = MessageReader()
        while (data := await connection.receive()) is not None:
            for request in messages.feed(data):
                answer = await in_thread(self._keyring.answer, request)
                await connection.send(framed(answer))


class FilteredAgent:
    """The user's ssh-agent, which may be asked for its keys and for signatures, and nothing else."""

    def __init__(self, path: Path):
        self._path = path

    async def serve(self, connection: Connection) -> None:
        messages = MessageReader()
        async with _connected(self._path) as (reader, writer):
            while (data := await connection.receive()) is not None:
                for request in messages.feed(data):
                    answer = refusal(request)
                    if answer is None:
                        answer = await self._ask(request, reader, writer)
                    await connection.send(framed(answer))

    async def _ask(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            writer.write(framed(request))
            await writer.drain()
            (size,) = struct.unpack(">I", await reader.readexactly(4))
            if not 0 < size <= MAX_MESSAGE:
                raise BuildError(f"the SSH agent at {self._path} answered with a message of {size} bytes")
            return await reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError):
            raise BuildError(f"the SSH agent at {self._path} ended the connection") from None


class SocketTunnel:
    """Any unix socket of this machine, bytes as they are."""

    def __init__(self, path: Path):
        self._path = path

    async def serve(self, connection: Connection) -> None:
        async with _connected(self._path) as (reader, writer):
            inward = asyncio.create_task(_to_socket(connection, writer))
            try:
                # The end of what the socket says is the end; the step may have ended its half long before.
                while data := await reader.read(_PIECE):
                    await connection.send(data)
            except ConnectionError as error:
                raise CallError(StatusCode.UNKNOWN, f"the socket broke off: {error.strerror}") from None
            finally:
                inward.cancel()
                await asyncio.gather(inward, return_exceptions=True)


async def _to_socket(connection: Connection, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):  # the reading side tells
        while (data := await connection.receive()) is not None:
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def _connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError) as problem:
        reason = (isinstance(problem, OSError) and problem.strerror) or "no answer"
        raise BuildError(
            f"cannot connect to the socket {path}: {reason}", hint="is what listens there running?"
        ) from None
    try:
        yield reader, writer
    finally:
        writer.close()


def open_agent(id: str, paths: Sequence[Path], environ: Mapping[str, str] = os.environ) -> Endpoint:
    """The agent that the user means by one entry of ``ssh``.

    Args:
        id: For errors.
        paths: The socket of an agent, or private keys; none for the agent of ``SSH_AUTH_SOCK``.
        environ: Where that is looked for.

    Raises:
        UsageError: there is no agent, a key cannot be used, or sockets and keys are mixed.
    """
    if not paths:
        socket = environ.get("SSH_AUTH_SOCK")
        if not socket:
            raise UsageError(
                f"ssh {id}: there is no SSH agent (SSH_AUTH_SOCK is not set)",
                hint=f"start one (eval $(ssh-agent)), or name a socket or keys: {id}=PATH",
            )
        paths = [Path(socket)]
    sockets = [path for path in paths if _is_socket(id, path)]
    if not sockets:
        return KeyAgent(Keyring(load_key(path) for path in paths))
    if len(paths) > 1:
        raise UsageError(f"ssh {id}: {sockets[0]} is a socket, and stands for itself", hint="give one socket, or keys")
    return FilteredAgent(sockets[0])


def open_socket(id: str, path: Path) -> Endpoint:
    """Any socket, as the user means by one entry of ``ssh``.

    Raises:
        UsageError: it is not there, or not a socket.
    """
    if not _is_socket(id, path):
        raise UsageError(f"ssh {id}: {path} is not a socket", hint="name a unix socket, or leave out raw=true")
    return SocketTunnel(path)


def _is_socket(id: str, path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError as problem:
        raise UsageError(f"ssh {id}: {path}: {problem.strerror}", hint="name the socket of an agent, or keys") from None
