"""Where a Docker engine's API is, and how bytes get there.

docker's own rules hold: DOCKER_HOST, then DOCKER_CONTEXT or the current context of docker's configuration, then the
usual socket.  What is said to the API is not for this file to know.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from cogkit.buildkit.connect.address import Address, TlsConfig, is_loopback_ip
from cogkit.buildkit.connect.child_process import ChildProcess
from cogkit.buildkit.connect.dialer import is_elsewhere
from cogkit.buildkit.connect.private_socket import Streams
from cogkit.buildkit.connect.program_dialer import ssh_command
from cogkit.buildkit.connect.program_failures import program_failure, program_missing
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

USUAL_SOCKET = "/var/run/docker.sock"

_READ_AHEAD = 256 << 10
_START = "start the Docker engine, or say with DOCKER_HOST or a docker context where it is"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine's API is.

    Attributes:
        url: ``unix:///path``, ``tcp://host:port`` or ``ssh://…``.
        tls: Files of its TLS; plain without.
        origin: What named it, for messages.
    """

    url: str
    tls: TlsConfig | None = None
    origin: str = ""


def find_endpoint(address: Address, environ: Mapping[str, str] | None = None) -> Endpoint:
    """The engine that a ``docker://`` address means.

    Raises:
        UsageError: docker's settings name none that could be used.
    """
    environ = os.environ if environ is None else environ
    if address.path:
        return Endpoint(f"unix://{address.path}")
    if not address.context and (host := environ.get("DOCKER_HOST")):
        return _checked(Endpoint(host, _environment_tls(environ), "DOCKER_HOST"))
    folder = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or Path.home(), ".docker"))
    name = address.context or environ.get("DOCKER_CONTEXT") or _current_context(folder)
    if name and name != "default":
        return _checked(_context(folder, name))
    return Endpoint(f"unix://{USUAL_SOCKET}")


def _environment_tls(environ: Mapping[str, str]) -> TlsConfig | None:
    if not environ.get("DOCKER_TLS_VERIFY"):
        return None
    folder = environ.get("DOCKER_CERT_PATH") or os.path.join(environ.get("HOME") or str(Path.home()), ".docker")
    return _tls_files(Path(folder))


def _tls_files(folder: Path) -> TlsConfig | None:
    ca, cert, key = (path if (path := folder / f"{name}.pem").is_file() else None for name in ("ca", "cert", "key"))
    return TlsConfig(ca, cert, key) if ca or cert or key else None


def _current_context(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""  # other parts of cogkit complain of a broken one
    name = config.get("currentContext") if isinstance(config, dict) else None
    return name if isinstance(name, str) else ""


def _context(folder: Path, name: str) -> Endpoint:
    identity = hashlib.sha256(name.encode()).hexdigest()
    path = folder / "contexts" / "meta" / identity / "meta.json"
    try:
        described: Any = json.loads(path.read_bytes())
        host = described["Endpoints"]["docker"]["Host"]
    except FileNotFoundError:
        hint = "list docker's contexts with `docker context ls`"
        raise UsageError(f"docker has no context named {name!r}", hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"docker's context {name!r} cannot be read", where=str(path), hint="make it anew with `docker context`"
        ) from error
    tls = _tls_files(folder / "contexts" / "tls" / identity / "docker")
    return Endpoint(str(host), tls, f"docker's context {name!r}")


def _checked(endpoint: Endpoint) -> Endpoint:
    scheme, separator, rest = endpoint.url.partition("://")
    if not separator or scheme not in ("unix", "tcp", "ssh", "http", "https") or not rest:
        raise UsageError(
            f"{endpoint.origin} names an engine that cannot be reached from here: {endpoint.url!r}",
            hint="cogkit reaches engines at unix://, tcp:// and ssh:// addresses",
        )
    return endpoint


class EngineWay(Protocol):
    """How bytes get to an engine's API."""

    patience: float
    encrypted: bool
    is_slow: bool
    """Opening a stream takes more than a moment."""

    async def open(self) -> Streams:
        """A stream on which the API speaks HTTP.

        Raises:
            OSError: there is none.
        """

    async def explain(self, failure: Exception | None, otherwise: str) -> tuple[str, str | None]:
        """The reason why there is no answer, and the hint."""

    async def is_far(self) -> bool:
        """Whether what is sent may go over a network."""

    async def close(self) -> None:
        """End what was started for the streams."""


def way_to(endpoint: Endpoint) -> EngineWay:
    scheme, _, rest = endpoint.url.partition("://")
    if scheme == "unix":
        return _UnixWay(rest)
    if scheme == "ssh":
        return _SshWay(Address.parse(endpoint.url))
    try:
        parts = urlsplit(endpoint.url)
        host, port = parts.hostname or "localhost", parts.port or (2376 if endpoint.tls else 2375)
    except ValueError as error:
        raise UsageError(
            f"{endpoint.origin} is malformed: {error}", hint="write tcp://host:port, with an IPv6 host in brackets"
        ) from None
    return _TcpWay(host, port, endpoint.tls)


class _UnixWay:
    patience = 8.0
    encrypted = True
    is_slow = False

    def __init__(self, path: str) -> None:
        self._path = path

    async def open(self) -> Streams:
        return await asyncio.open_unix_connection(self._path, limit=_READ_AHEAD)

    async def explain(self, failure: Exception | None, otherwise: str) -> tuple[str, str | None]:
        match failure:
            case FileNotFoundError():
                return f"there is no socket at {self._path}", _START
            case PermissionError():
                return f"this user may not open {self._path}", "run as root, or become a member of the group docker"
            case ConnectionRefusedError():
                return f"nothing listens at {self._path} (connection refused)", _START
        return _words(failure) or otherwise, "look at the log of the Docker engine"

    async def is_far(self) -> bool:
        return False

    async def close(self) -> None:
        return


class _TcpWay:
    patience = 8.0
    is_slow = True

    def __init__(self, host: str, port: int, tls: TlsConfig | None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self.encrypted = tls is not None

    async def open(self) -> Streams:
        if self._tls is None:
            return await asyncio.open_connection(self._host, self._port, limit=_READ_AHEAD)
        context = self._tls.context()
        # The API's HTTP/1 is what the upgrade is made from.
        context.set_alpn_protocols(["http/1.1"])
        name = self._tls.server_name or self._host
        return await asyncio.open_connection(
            self._host, self._port, ssl=context, server_hostname=name, limit=_READ_AHEAD
        )

    async def explain(self, failure: Exception | None, otherwise: str) -> tuple[str, str | None]:
        match failure:
            case socket.gaierror():
                return f"the host name {self._host!r} cannot be resolved", "check the address"
            case ConnectionRefusedError():
                return "nothing listens there (connection refused)", _START
            case ssl.SSLCertVerificationError():
                return f"its TLS certificate cannot be trusted: {failure.verify_message}", "check DOCKER_CERT_PATH"
            case ssl.SSLError():
                return f"the TLS handshake failed ({failure.reason})", "check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
        hint = "if the engine wants TLS, set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH" if self._tls is None else _START
        return _words(failure) or otherwise, hint

    async def is_far(self) -> bool:
        if self._host == "localhost" or is_loopback_ip(self._host):
            return False
        return await is_elsewhere(self._host, self._port)

    async def close(self) -> None:
        return


class _SshWay:
    """``docker system dial-stdio`` at the far end, as docker's own client does it."""

    patience = 15.0
    encrypted = True
    is_slow = True

    def __init__(self, address: Address) -> None:
        self._address = address
        self._started: list[ChildProcess] = []

    async def open(self) -> Streams:
        if self._started and await self._started[0].outcome(0) is not None:
            raise ConnectionError("it has failed before")
        at = ("--host", shlex.quote(f"unix://{self._address.path}")) if self._address.path else ()
        child = ChildProcess.start((*ssh_command(self._address), "docker", *at, "system", "dial-stdio"))
        self._started.append(child)
        return await asyncio.open_connection(sock=child.stream, limit=_READ_AHEAD)

    async def explain(self, failure: Exception | None, otherwise: str) -> tuple[str, str | None]:
        if not self._started:
            error = program_missing(self._address, "ssh")
        else:
            code = await self._started[0].outcome(1.0)
            error = program_failure(self._address, code, self._started[0].said, otherwise)
        return error.message.partition(f"{self._address}: ")[2], error.hint

    async def is_far(self) -> bool:
        return not self._address.is_loopback

    async def close(self) -> None:
        children, self._started = self._started, []
        for child in children:
            child.stream.close()
        await asyncio.gather(*(child.end() for child in children))


def _words(failure: Exception | None) -> str:
    if failure is None:
        return ""
    if isinstance(failure, EOFError):
        return "it closed the connection at once"
    text = (isinstance(failure, OSError) and failure.strerror) or str(failure)
    return text[:1].lower() + text[1:]
