"""What a service of the session is, and what it sees of a call.

A *service* (BuildKit calls it an attachable) answers calls that the daemon makes over the session: file sync, auth,
secrets and so on.  It names its methods and gives one coroutine for each.  This file holds only these shapes; it must
not know HTTP/2, sockets or any particular service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from cogkit.buildkit.transport.grpc_status import StatusCode

Metadata: TypeAlias = Mapping[str, tuple[bytes, ...]]
"""Request metadata: lower-case key to all its values in order; ``-bin`` values are already base64-decoded."""


class CallError(Exception):
    """A call's failure that the daemon is told of, as gRPC status ``code`` and ``message``.

    ``cause`` may hold the `CogkitError` that the user should see: the session keeps it (`Session.errors`), because what
    comes back from the daemon as the build's failure is only its text.
    """

    def __init__(self, code: StatusCode, message: str, *, cause: BaseException | None = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.cause = cause


class ServerStream(Protocol):
    """One call in progress, seen from the service.  All methods belong to the session's event loop."""

    @property
    def method(self) -> str:
        """The full method, ``/package.Service/Method``."""

    @property
    def metadata(self) -> Metadata: ...

    async def receive(self) -> bytes | None:
        """The next message of the peer, or None when it has half-closed.

        Raises:
            asyncio.CancelledError: the peer reset the stream or the session ended; the handler's task is cancelled.
        """

    async def receive_many(self, limit: int = 256) -> list[bytes]:
        """The next messages, as many as are there, at least one and at most ``limit``; none when it has half-closed.

        Raises:
            asyncio.CancelledError: as `receive`.
        """

    async def send(self, message: bytes) -> None:
        """Queue one message; returns once the backlog of this stream is below its high-water mark."""

    @property
    def takes_gzip(self) -> bool:
        """Whether messages of this call may be compressed: the peer understands it and the session's owner wants it."""

    async def send_framed(self, pieces: Sequence[bytes]) -> None:
        """Queue messages that have their frames (`grpc_messages`), cut anywhere, then wait as `send` does."""

    async def send_many(self, messages: Iterable[bytes]) -> None:
        """Queue several messages at once (they share DATA frames), then wait as `send` does."""


Handler: TypeAlias = Callable[[ServerStream], Awaitable[None]]
"""Serves one call: returns for status OK, raises `CallError` for another; any other exception is INTERNAL."""


class Service(Protocol):
    """An attachable: the methods it answers, each with its handler.

    Unary methods are streams too: receive one message, send one message, return.
    """

    def methods(self) -> Mapping[str, Handler]:
        """Full method name (``/moby.filesync.v1.FileSync/DiffCopy``) to handler."""
