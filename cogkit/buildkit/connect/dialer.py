"""What leads to a daemon: a `Dialer` for each kind of address.

A dialer opens streams on which the daemon speaks gRPC, knows whether a second one surely meets the same daemon, and
says why there is none.  What runs on the streams is not for it to know.  The dialers of programs and of Docker engines
are imported only for addresses that need them.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.connect.address import Address, TlsConfig, is_loopback_ip
from cogkit.buildkit.connect.diagnosis import diagnose
from cogkit.buildkit.connect.private_socket import Streams
from cogkit.buildkit.connect.session_connection import DirectStream
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.buildkit.session.session import ByteStream
from cogkit.errors import UsageError

Headers = Sequence[tuple[str, str]]

_RESOLVE_SECONDS = 1.0


class Dialer(ABC):
    """The way to one daemon.  It belongs to the event loop that it is used in; `close` it.

    Attributes:
        address: The daemon.
        patience: Seconds within which a daemon that is there should have answered.
        encrypted: Nobody in between can read what is sent.
    """

    patience = 4.0
    encrypted = True

    def __init__(self, address: Address) -> None:
        self.address = address

    @abstractmethod
    async def open(self) -> Streams:
        """A stream on which the daemon speaks gRPC.

        Raises:
            OSError: there is none; `explain` knows why.
        """

    def open_ahead(self) -> None:  # noqa: B027  # most have nothing to do
        """A build will follow: begin to open what `open` and `open_session` will return, if that takes time."""

    @abstractmethod
    async def open_session(self, method: str, headers: Headers, on_room: Callable[[], None]) -> ByteStream | None:
        """A stream for one session alone; None if it has to share the one of all calls.

        Args:
            method: The call that carries a session.
            headers: Its metadata.
            on_room: Called when something could be sent that had to wait for the other end.
        """

    @abstractmethod
    async def explain(self, otherwise: str) -> BuilderUnreachableError:
        """Why no daemon answered; takes three seconds at most.

        Args:
            otherwise: The reason if nothing else is known.
        """

    async def is_far(self) -> bool:
        """Whether what is sent may go over a network, as far as can be known."""
        return not self.address.is_loopback

    async def close(self) -> None:  # noqa: B027
        """End what was started for the streams.  Idempotent."""


def dial_ahead(address: str | Address, tls: TlsConfig | None = None) -> Dialer | None:
    """Begin to dial for a build where that takes time, before all that is needed for the build is imported.

    Args:
        address: The daemon's.
        tls: Files of a TLS connection.

    Returns:
        The dialer to connect with; None where there is nothing to be won, or the address cannot be used.
    """
    try:
        parsed = Address.parse(address) if isinstance(address, str) else address
        if parsed.scheme in ("unix", "tcp", "docker"):
            return None
        dialer = dialer_for(parsed, tls)
    except UsageError:
        return None  # whoever connects is told
    dialer.open_ahead()
    return dialer


def dialer_for(address: Address, tls: TlsConfig | None = None) -> Dialer:
    """The dialer of an address.

    Raises:
        UsageError: TLS files go with ``tcp://`` only; a Docker engine's settings cannot be used.
    """
    if tls is not None and address.scheme != "tcp":
        raise UsageError(f"TLS options do not go with the builder address {address}", hint="use tcp://host:port")
    if address.scheme == "unix":
        return UnixDialer(address)
    if address.scheme == "tcp":
        return TcpDialer(address, tls)
    if address.scheme == "docker":
        from cogkit.buildkit.connect.docker_engine import EngineDialer

        return EngineDialer(address)
    from cogkit.buildkit.connect.program_dialer import ProgramDialer

    return ProgramDialer(address)


class UnixDialer(Dialer):
    """A socket of this machine."""

    async def open(self) -> Streams:
        return await asyncio.open_unix_connection(self.address.path)

    async def open_session(self, method: str, headers: Headers, on_room: Callable[[], None]) -> ByteStream | None:
        try:
            return DirectStream(_connected(self.address.path), method, headers, on_room)
        except OSError:
            return None  # whoever may not connect again (any more) has the first connection still

    async def explain(self, otherwise: str) -> BuilderUnreachableError:
        return await in_thread(diagnose, self.address, None, otherwise)


class TcpDialer(Dialer):
    """A TCP port, with TLS or without.

    Behind it there may be a proxy or several daemons, of which a second connection might reach another one, be it
    through a forwarded port of this machine.  So the session shares the connection of all calls.
    """

    def __init__(self, address: Address, tls: TlsConfig | None) -> None:
        super().__init__(address)
        self.tls = tls
        self.encrypted = tls is not None

    async def open(self) -> Streams:
        context = None if self.tls is None else self.tls.context()
        name = None if self.tls is None else self.tls.server_name or self.address.host
        return await asyncio.open_connection(self.address.host, self.address.port, ssl=context, server_hostname=name)

    async def open_session(self, method: str, headers: Headers, on_room: Callable[[], None]) -> ByteStream | None:
        return None

    async def explain(self, otherwise: str) -> BuilderUnreachableError:
        return await in_thread(diagnose, self.address, self.tls, otherwise)

    async def is_far(self) -> bool:
        return not self.address.is_loopback and await is_elsewhere(self.address.host, self.address.port)


async def is_elsewhere(host: str, port: int) -> bool:
    """Whether a name leads to another machine, or cannot be resolved here."""
    resolving = in_thread(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.wait_for(resolving, _RESOLVE_SECONDS)
    except (OSError, TimeoutError):
        return True
    return not all(is_loopback_ip(str(where[0])) for *_, where in found)


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)  # at once or not at all
    except BaseException:
        connection.close()
        raise
    return connection
