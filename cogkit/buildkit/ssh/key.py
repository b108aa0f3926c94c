"""Private SSH keys from files, for an agent of our own (`ssh.agent`).

This file must not keep, show or send what it reads.
"""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

from cogkit.buildkit.ssh.agent import AgentKey
from cogkit.errors import UsageError

MAX_KEY_FILE = 100 * 1024
"""Bytes that are read of a key at most (``sshprovider``)."""


def load_key(path: Path) -> AgentKey:
    """Read a private key: OpenSSH's own format or PEM; RSA, ECDSA or Ed25519.

    Raises:
        UsageError: there is none, it needs a passphrase, or it is of another kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    content = _read_key_file(path)
    is_openssh = b"BEGIN OPENSSH PRIVATE KEY" in content
    load = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    try:
        key: object = load(content, password=None)
    except TypeError:
        raise UsageError(
            f"the SSH key {path} needs a passphrase",
            hint=f"add it to an agent (ssh-add {path}) and forward that",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(
            f"{path} is not an SSH key that can be read",
            hint="give a private key of RSA, ECDSA or Ed25519, or the socket of an agent",
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise UsageError(f"the SSH key {path} is neither RSA, ECDSA nor Ed25519", hint="add it to an agent instead")
    try:
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except ValueError:
        raise UsageError(f"the SSH key {path} is on a curve that SSH does not have") from None
    return AgentKey(b64decode(public.split()[1]), key)


def _read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_FILE + 1)
    except OSError as problem:
        raise UsageError(f"cannot read the SSH key {path}: {problem.strerror}") from problem
    if len(content) > MAX_KEY_FILE:
        raise UsageError(f"{path} is too large to be an SSH key")
    return content
