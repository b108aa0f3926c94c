"""The ssh-agent protocol: what may pass to the user's agent, and an agent of our own for keys from files.

Messages are bytes in and bytes out (draft-miller-ssh-agent): a length of four bytes, a type of one, its content.  A
build may list keys and sign with them.  Whatever would change the agent (adding, removing, locking) or that is not
known here is answered with a failure, as BuildKit's ``session/sshforward/sshprovider`` does.  Signatures are those of
``golang.org/x/crypto/ssh``.  This file must not open sockets or files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cogkit.errors import CogkitError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

    PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

MAX_MESSAGE = 256 * 1024
"""Most bytes of a message that OpenSSH's agent takes (``AGENT_MAX_LEN``)."""

FAILURE = b"\x05"
EXTENSION_FAILURE = b"\x1c"
REQUEST_V1_IDENTITIES = 1
NO_V1_IDENTITIES = b"\x02\0\0\0\0"
REQUEST_IDENTITIES = 11
IDENTITIES_ANSWER = 12
SIGN_REQUEST = 13
SIGN_RESPONSE = 14
EXTENSION = 27

RSA_SHA2_256 = 2
RSA_SHA2_512 = 4


class AgentProtocolError(CogkitError):
    """Bytes that are no message of the ssh-agent protocol."""


class MessageReader:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete with ``data``, each from its type on, without the length.

        They are cut off as they are taken: a few megabytes may have a million of them.

        Raises:
            AgentProtocolError: a message is empty or too large.
        """
        self._buffer += data
        while len(self._buffer) >= 4:
            (size,) = struct.unpack_from(">I", self._buffer)
            if not 0 < size <= MAX_MESSAGE:
                raise AgentProtocolError(f"an ssh-agent message has {size} bytes")
            if len(self._buffer) < 4 + size:
                break
            message = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            yield message


def framed(message: bytes) -> bytes:
    """A message with its length in front."""
    return struct.pack(">I", len(message)) + message


def refusal(request: bytes) -> bytes | None:
    """The answer to a request that must not reach the user's agent; None for one that may."""
    kind = request[0]
    if kind in (REQUEST_IDENTITIES, SIGN_REQUEST):
        return None
    return {REQUEST_V1_IDENTITIES: NO_V1_IDENTITIES, EXTENSION: EXTENSION_FAILURE}.get(kind, FAILURE)


@dataclass(frozen=True, slots=True, repr=False)
class AgentKey:
    """A private key, and its public half as the protocol has it."""

    public_blob: bytes
    private: PrivateKey

    def sign(self, data: bytes, flags: int) -> bytes:
        """A signature blob; ``flags`` choose the hash of an RSA signature."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        key = self.private
        if isinstance(key, rsa.RSAPrivateKey):
            algorithm, digest = _rsa_algorithm(flags)
            return _string(algorithm) + _string(key.sign(data, padding.PKCS1v15(), digest))
        if isinstance(key, ec.EllipticCurvePrivateKey):
            hash_of_size = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hash_of_size[key.curve.key_size])))
            return _string(self._kind) + _string(_mpint(r) + _mpint(s))
        return _string(self._kind) + _string(key.sign(data))

    @property
    def _kind(self) -> bytes:
        """The key's type, with which its public half begins."""
        return _take_string(self.public_blob)[0]


class Keyring:
    """An agent that has some keys, and never gets others."""

    def __init__(self, keys: Iterable[AgentKey]):
        self._keys = {key.public_blob: key for key in keys}

    def answer(self, request: bytes) -> bytes:
        """The answer to one request."""
        refused = refusal(request)
        if refused is not None:
            return refused
        if request[0] == REQUEST_IDENTITIES:
            entries = b"".join(_string(blob) + _string(b"") for blob in self._keys)
            return struct.pack(">BI", IDENTITIES_ANSWER, len(self._keys)) + entries
        return self._sign(request)

    def _sign(self, request: bytes) -> bytes:
        try:
            blob, rest = _take_string(request[1:])
            data, rest = _take_string(rest)
            (flags,) = struct.unpack(">I", rest)
            key = self._keys[blob]
        except (ValueError, struct.error, KeyError):
            return FAILURE
        return bytes([SIGN_RESPONSE]) + _string(key.sign(data, flags))


def _rsa_algorithm(flags: int) -> tuple[bytes, HashAlgorithm]:
    from cryptography.hazmat.primitives import hashes

    if flags & RSA_SHA2_512:
        return b"rsa-sha2-512", hashes.SHA512()
    if flags & RSA_SHA2_256:
        return b"rsa-sha2-256", hashes.SHA256()
    return b"ssh-rsa", hashes.SHA1()


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _take_string(data: bytes) -> tuple[bytes, bytes]:
    """The string that ``data`` begins with, and the rest.

    Raises:
        ValueError: there is none.
    """
    if len(data) < 4:
        raise ValueError("no length")
    (size,) = struct.unpack_from(">I", data)
    if len(data) < 4 + size:
        raise ValueError("cut off")
    return data[4 : 4 + size], data[4 + size :]


def _mpint(number: int) -> bytes:
    """A positive number as RFC 4251 writes it: big-endian, with a zero byte in front of a set top bit."""
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
