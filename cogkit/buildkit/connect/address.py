"""Where a daemon listens, and the TLS files for getting there.

Parsing and checking only: this file opens no connection and does not import grpc.  Schemes that need more than a socket
(``ssh://``, containers, pods, a Docker engine) are known by name and refused in clear words until they are there.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, urlsplit

from cogkit.errors import BuilderUnreachableError, UsageError
from cogkit.fast_dataclass import dataclass

SYSTEM_SOCKET = "/run/buildkit/buildkitd.sock"
"""Where buildkitd listens when nothing else is said (BuildKit ``util/appdefaults``)."""

LATER_SCHEMES = ("ssh", "docker-container", "podman-container", "kube-pod", "docker")
"""Schemes of buildctl and docker that will be supported, and are not yet."""

_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_MAX_SOCKET_PATH = 107  # sockaddr_un.sun_path without its closing NUL
_TCP_FORM = "write tcp://host:port, with an IPv6 host in brackets; buildkitd's usual port is 1234"
_ADDRESS_FORM = "write unix:///path/to/buildkitd.sock or tcp://host:port"


@dataclass(frozen=True, slots=True)
class Address:
    """A daemon's address: ``path`` for ``unix``, ``host`` and ``port`` for ``tcp``."""

    scheme: Literal["unix", "tcp"]
    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``unix:///absolute/path`` or ``tcp://host:port`` (an IPv6 host in brackets).

        Raises:
            UsageError: anything else.
        """
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            raise UsageError(f"the builder address {text!r} has no scheme", hint=_ADDRESS_FORM)
        if scheme == "unix":
            return cls("unix", path=_socket_path(text, rest))
        if scheme == "tcp":
            host, port = _host_and_port(text)
            return cls("tcp", host=host, port=port)
        if scheme in LATER_SCHEMES:
            raise UsageError(
                f"builder addresses of the form {scheme}:// are not supported yet (got {text!r})",
                hint="use a buildkitd that listens on a socket: unix:///path/to/buildkitd.sock or tcp://host:port",
            )
        raise UsageError(f"the builder address {text!r} has the unknown scheme {scheme!r}", hint=_ADDRESS_FORM)

    @classmethod
    def default(cls, environ: Mapping[str, str] | None = None, system_socket: str = SYSTEM_SOCKET) -> Self:
        """The address to use when the user names none: ``BUILDKIT_HOST``, else the first usual socket there is.

        The usual sockets are the system's and, of a rootless daemon, ``$XDG_RUNTIME_DIR/buildkit/buildkitd.sock``;
        one that this user may open goes before one that is only there.

        Args:
            environ: Stands for `os.environ`.
            system_socket: Stands for the system's socket.

        Raises:
            UsageError: ``BUILDKIT_HOST`` is no address.
            BuilderUnreachableError: there is no socket.
        """
        environ = os.environ if environ is None else environ
        named = environ.get("BUILDKIT_HOST", "")
        if named:
            try:
                return cls.parse(named)
            except UsageError as error:
                error.where = error.where or "BUILDKIT_HOST"
                raise
        sockets = [system_socket]
        if runtime_dir := environ.get("XDG_RUNTIME_DIR"):
            sockets.append(f"{runtime_dir}/buildkit/buildkitd.sock")
        there = [path for path in sockets if _is_there(path)]
        usable = [path for path in there if os.access(path, os.R_OK | os.W_OK)]
        for path in usable + there:
            return cls("unix", path=path)
        raise BuilderUnreachableError(
            f"no builder found: BUILDKIT_HOST is not set and there is no socket at {' or '.join(sockets)}",
            hint="start buildkitd, or say where it listens with --addr or BUILDKIT_HOST",
        )

    @property
    def grpc_target(self) -> str:
        """The address in gRPC's naming syntax (grpc/doc/naming.md)."""
        if self.scheme == "unix":
            return f"unix:{quote(self.path)}"
        return f"dns:///{_bracketed(self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine by its very form, so that no proxy may stand between."""
        return self.scheme == "unix" or self.host == "localhost" or is_loopback_ip(self.host)

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.scheme == "unix" else f"tcp://{_bracketed(self.host)}:{self.port}"


def is_loopback_ip(host: str) -> bool:
    """Whether a host is an IP address of this machine itself; a name is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback or (mapped or address).is_unspecified


def _is_there(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except OSError:
        return False


def _socket_path(text: str, path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(
            f"the builder address {text!r} does not name an absolute path",
            hint="write three slashes: unix:///path/to/buildkitd.sock",
        )
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise UsageError(
            f"the socket path of the builder address {text!r} is longer than {_MAX_SOCKET_PATH} bytes",
            hint="make a symbolic link with a shorter path to its folder",
        )
    return path


def _host_and_port(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"the builder address {text!r} is malformed: {error}", hint=_TCP_FORM) from None
    if not host or port is None:
        missing = "port" if host else "host"
        raise UsageError(f"the builder address {text!r} names no {missing}", hint=_TCP_FORM)
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(f"the builder address {text!r} has more than a host and a port", hint=_TCP_FORM)
    return host, port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The files of a TLS connection.  The daemon's certificate is always verified.

    Attributes:
        ca: Certificates of the authorities to trust (PEM); without it those of this system.
        cert: The client's certificate (PEM), for a daemon that asks for one; only with ``key``.
        key: Its private key (PEM, not encrypted).
        server_name: The name to expect in the daemon's certificate instead of the address's host.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """A client context made of these files, which checks them on the way.

        Raises:
            UsageError: a file cannot be read, is not what it should be, or certificate and key do not belong together.
        """
        context = ssl.create_default_context() if self.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])
        if self.ca is not None:
            _load_ca(context, self.ca)
        if self.cert is not None and self.key is not None:
            _load_pair(context, self.cert, self.key)
        elif self.cert is not None or self.key is not None:
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise UsageError(
                f"a TLS client {given} was given without its {missing}",
                hint="give both --tlscert and --tlskey, or neither",
            )
        return context

    def trusted(self) -> bytes:
        """The certificates to trust (PEM): those of ``ca``, or the system's; empty if there are none."""
        if self.ca is not None:
            return _read("TLS CA certificate", self.ca)
        for bundle in (ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES):
            if bundle and os.path.isfile(bundle):
                return Path(bundle).read_bytes()
        return b""


def _read(what: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the {what} cannot be read: {error.strerror or error}",
            where=str(path),
            hint="check the path and its permissions",
        ) from error


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    _read("TLS CA certificate", ca)
    try:
        context.load_verify_locations(cafile=ca)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(
            "the TLS CA file holds no certificate in PEM form",
            where=str(ca),
            hint="it must have at least one -----BEGIN CERTIFICATE----- block",
        ) from error


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    _read("TLS client certificate", cert)
    key_text = _read("TLS client key", key)
    if b"ENCRYPTED" in key_text:
        raise UsageError(
            "the TLS client key is encrypted, and there is nowhere to give its passphrase",
            where=str(key),
            hint="decrypt it first, for example with `openssl pkey -in KEY -out PLAIN_KEY`",
        )
    try:
        context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(
                f"the TLS client key does not belong to the certificate {cert}",
                where=str(key),
                hint="give the key that the certificate was made with",
            ) from error
        raise UsageError(
            f"the TLS client certificate or its key {key} is not in PEM form",
            where=str(cert),
            hint="PEM files have a -----BEGIN CERTIFICATE----- or a -----BEGIN PRIVATE KEY----- block",
        ) from error
