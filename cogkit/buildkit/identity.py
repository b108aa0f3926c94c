"""Identifiers of BuildKit's form, for builds, sessions and uploads (BuildKit ``identity/randomid.go``).

This file must not know what an identifier is for.
"""

from __future__ import annotations

import secrets

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LENGTH = 25


def new_id() -> str:
    """A new random identifier: 25 characters of base 36, nearly 130 bits of chance."""
    return "".join(secrets.choice(_DIGITS) for _ in range(_LENGTH))
