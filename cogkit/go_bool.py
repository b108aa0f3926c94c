"""Booleans as Go's ``strconv.ParseBool`` reads them, which is how every tool around BuildKit reads its flags.

This file must not know what a value is for.
"""

from __future__ import annotations

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def go_bool(text: str) -> bool | None:
    """The value; None if Go would call it a syntax error."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None
