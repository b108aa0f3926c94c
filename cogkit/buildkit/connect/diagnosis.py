"""Why a daemon does not answer: asked only after a connection failed, with plain sockets.

gRPC's own words for a failed connection name neither the cause nor what to do.  This file tries the address again, step
by step, and says in one sentence where it ends.  It must not be used to decide whether a daemon is there.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat

from cogkit.buildkit.connect.address import Address, TlsConfig
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.fast_dataclass import dataclass

_STEP_TIMEOUT = 1.0
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_START = "start buildkitd, or say where it listens with its address or BUILDKIT_HOST"
_NOT_BUILDKITD = "check that its address or BUILDKIT_HOST names a buildkitd and not another service"
_NEEDS_TLS = "if the daemon wants TLS, give TlsConfig.ca, and TlsConfig.cert with TlsConfig.key if it asks who you are"


_CLIENT_CERTIFICATE = (
    "give a certificate that the daemon's authority has signed with TlsConfig.cert, and its key with TlsConfig.key"
)
_REFUSALS = {
    "CERTIFICATE_REQUIRED": "it wants a TLS client certificate, and got none",
    "UNKNOWN_CA": "it refused the TLS client certificate: it does not trust the authority that signed it",
    "CERTIFICATE_EXPIRED": "it refused the TLS client certificate: it has expired or is not valid yet",
    "CERTIFICATE_REVOKED": "it refused the TLS client certificate: it was revoked",
    "CERTIFICATE_UNKNOWN": "it refused the TLS client certificate",
    "BAD_CERTIFICATE": "it refused the TLS client certificate",
    "UNSUPPORTED_CERTIFICATE": "it refused the TLS client certificate: it is of a kind that it does not take",
    "DECRYPT_ERROR": "it refused the TLS client certificate: its signature is not right",
    "ACCESS_DENIED": "it knows the TLS client certificate, and refuses who it names",
}
"""What a server says of the client's certificate, by the end of OpenSSL's name for its alert."""


@dataclass(frozen=True)
class _Finding(Exception):
    """Where the attempt ended: a clause for the message, and the hint."""

    reason: str
    hint: str


def diagnose(address: Address, tls: TlsConfig | None, otherwise: str) -> BuilderUnreachableError:
    """Find out why ``address`` does not answer; blocks for about three seconds at most.

    Args:
        address: What was tried.
        tls: How it was tried.
        otherwise: The reason to give if nothing is wrong as far as can be seen here.
    """
    try:
        with _connect(address) as plain:
            if tls is None:
                _expect_http2(plain, secure=False)
            else:
                _expect_http2(_handshake(plain, tls, address), secure=True)
        finding = _Finding(otherwise, _NOT_BUILDKITD)
    except _Finding as found:
        finding = found
    return BuilderUnreachableError(
        f"no builder answers at {address}: {finding.reason}", address=address, hint=finding.hint
    )


def _connect(address: Address) -> socket.socket:
    if address.scheme == "unix":
        return _connect_unix(address.path)
    try:
        return socket.create_connection((address.host, address.port), timeout=_STEP_TIMEOUT)
    except socket.gaierror as error:
        raise _Finding(f"the host name {address.host!r} cannot be resolved ({error.strerror})", _START) from error
    except TimeoutError as error:
        hint = "check the address, and that no firewall is in the way"
        raise _Finding("nothing answers there (connection timed out)", hint) from error
    except ConnectionRefusedError as error:
        raise _Finding("nothing listens there (connection refused)", _START) from error
    except OSError as error:
        raise _Finding(_lower(error.strerror or str(error)), _START) from error


def _connect_unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_STEP_TIMEOUT)
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise _Finding("it is not a socket", _START)
        connection.connect(path)
        return connection
    except FileNotFoundError as error:
        raise _Finding("there is no such socket", _START) from error
    except PermissionError as error:
        hint = "run as a user that may open the socket (root, or a member of the socket's group)"
        raise _Finding("permission denied", hint) from error
    except ConnectionRefusedError as error:
        raise _Finding("the socket is there but nothing listens on it (connection refused)", _START) from error
    except OSError as error:
        raise _Finding(_lower(error.strerror or str(error)), _START) from error
    finally:
        if connection.fileno() >= 0 and not _is_connected(connection):
            connection.close()


def _is_connected(connection: socket.socket) -> bool:
    try:
        connection.getpeername()
    except OSError:
        return False
    return True


def _handshake(plain: socket.socket, tls: TlsConfig, address: Address) -> ssl.SSLSocket:
    name = tls.server_name or address.host
    try:
        return tls.context().wrap_socket(plain, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        reason = _lower(error.verify_message.rstrip("."))
        raise _Finding(f"its TLS certificate cannot be trusted: {reason}", _certificate_hint(reason)) from error
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            hint = "leave out the TLS options, or give the port where the daemon listens with TLS"
            raise _Finding("it does not speak TLS", hint) from error
        raise _refusal(error) from error
    except OSError as error:
        raise _Finding(f"the TLS handshake failed ({_lower(error.strerror or str(error))})", _NEEDS_TLS) from error


def _certificate_hint(reason: str) -> str:
    if "mismatch" in reason or "not valid for" in reason:
        return "name the host that the certificate was made for with TlsConfig.server_name"
    if "expired" in reason:
        return "renew the daemon's certificate"
    return "give the certificate of the authority that signed the daemon's with TlsConfig.ca"


def _expect_http2(connection: socket.socket, *, secure: bool) -> None:
    """Look at the first bytes that come, if need be after a client's own: a gRPC server sends a SETTINGS frame."""
    try:
        answer = _unasked(connection) if secure else b""
        if not answer:
            connection.settimeout(_STEP_TIMEOUT)
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(64)
    except TimeoutError as error:
        hint = "look at the log of buildkitd; it may be stopped or overloaded"
        raise _Finding("it accepts connections but does not answer", hint) from error
    except ssl.SSLError as error:
        # In TLS 1.3 a server refuses the client's certificate after the client is done with the handshake.
        raise _refusal(error) from error
    except OSError as error:
        raise _Finding(f"it broke the connection ({_lower(error.strerror or str(error))})", _NEEDS_TLS) from error
    if answer.startswith(b"HTTP/1"):
        raise _Finding("it answers with HTTP/1, so it is not a buildkitd", _NOT_BUILDKITD)
    if not secure and answer[:2] == b"\x15\x03":
        raise _Finding("it wants TLS", _NEEDS_TLS)
    if not answer:
        raise _Finding("it closed the connection at once", _NOT_BUILDKITD if secure else _NEEDS_TLS)
    if len(answer) >= 4 and answer[3] != 4:
        raise _Finding("it does not speak gRPC, so it is not a buildkitd", _NOT_BUILDKITD)


def _unasked(connection: socket.socket) -> bytes:
    """What comes by itself.  A refusal of our certificate does, and could be lost by sending into it."""
    connection.settimeout(_STEP_TIMEOUT / 2)
    try:
        return connection.recv(64)
    except TimeoutError:
        return b""


def _refusal(error: ssl.SSLError) -> _Finding:
    """What a failed handshake means; OpenSSL's names are for those who read its source."""
    name = error.reason or ""
    for end, reason in _REFUSALS.items():
        if name.endswith(f"ALERT_{end}"):
            return _Finding(reason, _CLIENT_CERTIFICATE)
    if name.endswith(("PROTOCOL_VERSION", "HANDSHAKE_FAILURE", "NO_SHARED_CIPHER", "UNSUPPORTED_PROTOCOL")):
        hint = "let the daemon, or the proxy before it, speak TLS 1.2 or newer"
        return _Finding("it speaks no version or cipher of TLS that this machine takes", hint)
    said = name.lower().replace("_", " ") or str(error)
    return _Finding(f"it refused the TLS connection ({said})", _NEEDS_TLS)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
