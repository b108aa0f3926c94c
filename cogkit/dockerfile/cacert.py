"""The extra certificate authority of ``COG_CA_CERT``: a file, a folder, PEM text, or that text in base64.

Only reads; how the certificate gets into the image is the generator's business.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cogkit.errors import ConfigError

CA_CERT_VARIABLE = "COG_CA_CERT"
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"
_HINT = "Give a file, a folder of .crt and .pem files, the PEM text, or the PEM text in base64."


def read_ca_cert(value: str, *, relative_to: Path = Path(".")) -> bytes:
    """The PEM certificates that a value of ``COG_CA_CERT`` stands for; b"" if the value is empty.

    Args:
        value: The value.
        relative_to: The folder that a relative path in it starts from.

    Raises:
        ConfigError: The value is none of the four forms, or what it names is not a certificate or cannot be read.
    """
    value = value.strip()
    if not value:
        return b""
    path = relative_to / value
    try:
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # PEM text is not a possible file name
        is_directory = exists = False
    if is_directory:
        return _read_directory(path)
    if exists:
        return _checked(_read(path), str(path))
    if value.startswith("-----BEGIN"):
        return _checked(value.encode(), "the PEM text")
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if decoded.startswith(b"-----BEGIN"):
        return _checked(decoded, "the base64 text")
    raise ConfigError(
        f"{CA_CERT_VARIABLE}: invalid value - must be a file path, directory, PEM certificate, or base64-encoded PEM",
        hint=_HINT,
    )


def _read_directory(directory: Path) -> bytes:
    try:
        names = sorted(directory.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise ConfigError(f"{CA_CERT_VARIABLE}: failed to read directory {directory}: {error.strerror}") from error
    certificates = [
        _checked(_read(path), str(path))
        for path in names
        if path.suffix.lower() in (".crt", ".pem") and not path.is_dir()
    ]
    if not certificates:
        raise ConfigError(f"{CA_CERT_VARIABLE}: no .crt or .pem files found in directory {directory}", hint=_HINT)
    return b"".join(certificates)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{CA_CERT_VARIABLE}: failed to read file {path}: {error.strerror}") from error


def _checked(content: bytes, what: str) -> bytes:
    content = content.strip()
    for marker, words in ((_BEGIN, "start with"), (_END, "contain")):
        if not (content.startswith(marker) if marker is _BEGIN else marker in content):
            raise ConfigError(
                f"{CA_CERT_VARIABLE}: invalid PEM in {what}: must {words} '{marker.decode()}'",
                hint="Give certificates only, without a private key or other text before them.",
            )
    return content + b"\n"
