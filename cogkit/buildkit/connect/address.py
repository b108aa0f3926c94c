"""Where a daemon is, and the TLS files for getting there.

Parsing and checking only: this file opens no connection, starts no program and does not import grpc.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

SYSTEM_SOCKET = "/run/buildkit/buildkitd.sock"
"""Where buildkitd listens when nothing else is said (BuildKit ``util/appdefaults``)."""

Scheme = Literal[
    "unix", "tcp", "ssh", "docker-container", "podman-container", "nerdctl-container", "kube-pod", "docker"
]

SCHEMES: Mapping[str, str] = {
    "unix": "unix:///path/to/buildkitd.sock",
    "tcp": "tcp://host:port",
    "ssh": "ssh://[user@]host[:port][/path/to/buildkitd.sock]",
    "docker-container": "docker-container://name[?context=docker-context]",
    "podman-container": "podman-container://name",
    "nerdctl-container": "nerdctl-container://name[?namespace=containerd-namespace]",
    "kube-pod": "kube-pod://pod[?context=&namespace=&container=]",
    "docker": "docker:// (the engine that the docker command uses), docker:///path/to/docker.sock or docker://?context=name",
}
"""The form of each kind of address."""

CONTAINER_SCHEMES = ("docker-container", "podman-container", "nerdctl-container")
"""Those whose host is the name of a container."""

_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "docker-container": ("context",),
    "nerdctl-container": ("namespace",),
    "kube-pod": ("context", "namespace", "container"),
    "docker": ("context",),
}
_NAMES = {
    **dict.fromkeys(CONTAINER_SCHEMES, r"[A-Za-z0-9][A-Za-z0-9_.-]*"),
    "kube-pod": r"[a-z0-9][-a-z0-9.]*",
    "ssh": r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*",
}
_KUBERNETES_NAME = r"[a-z0-9][-a-z0-9.]*"
_USER = r"[A-Za-z0-9_.][^\s@:/\x00-\x1f]*"
_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_MAX_SOCKET_PATH = 107  # sockaddr_un.sun_path without its closing NUL
_TCP_FORM = "write tcp://host:port, with an IPv6 host in brackets; buildkitd's usual port is 1234"
_ADDRESS_FORM = "write unix:///path/to/buildkitd.sock or tcp://host:port; other schemes: " + ", ".join(
    f"{scheme}://" for scheme in SCHEMES if scheme not in ("unix", "tcp")
)


@dataclass(frozen=True, slots=True)
class Address:
    """A daemon's address.

    Attributes:
        scheme: The way there.
        path: The socket: of ``unix``; of ``ssh`` at the far end, and of ``docker`` here, if it is not the usual one.
        host: The host of ``tcp`` and ``ssh``; the name of a container or a pod.
        port: Of ``tcp``; of ``ssh`` 0 if it is not given.
        user: Of ``ssh``.
        context: Docker's or kubectl's, if it is not the current one.
        namespace: Of a pod, or containerd's; the usual one if empty.
        container: Of a pod; its first one if empty.
    """

    scheme: Scheme
    path: str = ""
    host: str = ""
    port: int = 0
    user: str = ""
    context: str = ""
    namespace: str = ""
    container: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address of one of the `SCHEMES`.

        Raises:
            UsageError: anything else.
        """
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            raise UsageError(f"the builder address {text!r} has no scheme", hint=_ADDRESS_FORM)
        if scheme != "unix" and not _is_text(text):
            raise UsageError(f"the builder address {text!r} is not UTF-8", hint=_ADDRESS_FORM)
        match scheme:
            case "unix":
                return cls("unix", path=_socket_path(text, rest))
            case "tcp":
                host, port = _host_and_port(text)
                return cls("tcp", host=host, port=port)
            case "ssh":
                return cls("ssh", **_ssh_fields(text))
            case "docker":
                return cls("docker", **_engine_fields(text, rest))
            case "docker-container" | "podman-container" | "nerdctl-container" | "kube-pod":
                return cls(scheme, **_name_fields(scheme, text, rest))
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
            UsageError: ``BUILDKIT_HOST`` is not an address.
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
            hint="start buildkitd, or say where it listens with its address or BUILDKIT_HOST",
        )

    @property
    def grpc_target(self) -> str | None:
        """The address in gRPC's naming syntax (grpc/doc/naming.md); None if gRPC cannot go there by itself."""
        if self.scheme == "unix":
            return f"unix:{quote(self.path)}"
        if self.scheme == "tcp":
            return f"dns:///{_bracketed(self.host)}:{self.port}"
        return None

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine by its very form, so that no proxy may stand between."""
        if self.scheme in ("tcp", "ssh"):
            return self.host == "localhost" or is_loopback_ip(self.host)
        return self.scheme != "kube-pod"

    @property
    def is_engine(self) -> bool:
        """Whether it is the builder within a Docker engine, whose results go into that engine's own store."""
        return self.scheme == "docker"

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        pairs = [(name, value) for name in _PARAMETERS.get(self.scheme, ()) if (value := getattr(self, name))]
        query = "?" + urlencode(pairs, safe="@:/") if pairs else ""
        return f"{self.scheme}://{user}{_bracketed(self.host)}{port}{quote(self.path)}{query}"


def _is_text(text: str) -> bool:
    """Whether it is UTF-8, rather than bytes that the system could not read as text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def _ssh_fields(text: str) -> dict[str, Any]:
    hint = f"write {SCHEMES['ssh']}"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
        # `hostname` would be in lower case, and names of ssh's configuration have a case.
        host = parts.netloc.rpartition("@")[2]
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    except ValueError as error:
        raise UsageError(f"the builder address {text!r} is malformed: {error}", hint=hint) from None
    if not host:
        raise UsageError(f"the builder address {text!r} names no host", hint=hint)
    if parts.password is not None:
        raise UsageError(
            "the builder address has a password in it, which ssh does not take",
            hint="use a key: ssh-copy-id brings yours to the host",
        )
    if parts.query or parts.fragment:
        raise UsageError(f"the builder address {text!r} has more than a host and a socket's path", hint=hint)
    user = unquote(parts.username or "")
    # Nothing of it may be taken for an option.
    if not re.fullmatch(_NAMES["ssh"], host) or (user and not re.fullmatch(_USER, user)):
        raise UsageError(f"the builder address {text!r} names no host and user that ssh could take", hint=hint)
    path = unquote(parts.path)
    return {"host": host, "port": port or 0, "user": user, "path": "" if path == "/" else path}


def _name_fields(scheme: str, text: str, rest: str) -> dict[str, Any]:
    hint = f"write {SCHEMES[scheme]}"
    name, _, query = rest.partition("?")
    name = name.rstrip("/")
    what = "pod" if scheme == "kube-pod" else "container"
    if not name:
        raise UsageError(f"the builder address {text!r} names no {what}", hint=hint)
    if not re.fullmatch(_NAMES[scheme], name):
        raise UsageError(f"{name!r} in the builder address {text!r} is not the name of a {what}", hint=hint)
    return {"host": name, **_parameters(scheme, text, query)}


def _engine_fields(text: str, rest: str) -> dict[str, Any]:
    path, _, query = rest.partition("?")
    fields = _parameters("docker", text, query)
    if path and (not path.startswith("/") or fields):
        raise UsageError(
            f"the builder address {text!r} has the wrong form",
            hint=f"write {SCHEMES['docker']}; for an engine elsewhere set DOCKER_HOST or make a docker context",
        )
    return {"path": _socket_path(text, path) if path.strip("/") else "", **fields}


def _parameters(scheme: str, text: str, query: str) -> dict[str, str]:
    known = _PARAMETERS.get(scheme, ())
    fields: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            hint = f"write {SCHEMES[scheme]}"
            raise UsageError(f"the builder address {text!r} has the unknown parameter {name!r}", hint=hint)
        # A context may have any name, but none that could be taken for an option.
        strange = value.startswith("-") if name == "context" else value and not re.fullmatch(_KUBERNETES_NAME, value)
        if strange:
            raise UsageError(f"{value!r} in the builder address {text!r} is not the name of a {name}")
        fields[name] = value
    return fields


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
                hint="give both TlsConfig.cert and TlsConfig.key, or neither",
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
