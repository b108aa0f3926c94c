"""Digests of content: their one grammar, ``ALGORITHM:HEX`` (OCI image specification, ``descriptor.md``).

This file must not read or hash a file.
"""

from __future__ import annotations

import hashlib
import re

HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
"""Hexadecimal digits of the algorithms that are known here."""

_DIGEST = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)")


def split_digest(digest: str) -> tuple[str, str]:
    """Algorithm and hexadecimal digits of a digest.

    Raises:
        ValueError: it is none, or of an algorithm that is not known here.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None or len(match[2]) != HEX_LENGTHS[match[1]]:
        raise ValueError(f"{digest!r} is not a digest")
    return match[1], match[2]


def is_digest(text: str) -> bool:
    """Whether ``text`` is one."""
    match = _DIGEST.fullmatch(text)
    return match is not None and len(match[2]) == HEX_LENGTHS[match[1]]


def digest_of(content: bytes) -> str:
    """The SHA-256 digest of ``content``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
