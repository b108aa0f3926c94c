"""The library's words for what a user may give, in the words of the command line: its flags.

The library's errors name what a program would give (`TlsConfig.ca`); who typed a command wants the flag.  This file
must not change anything else of a message.
"""

from __future__ import annotations

import re

_FLAGS = {
    "TlsConfig.ca": "--tlscacert",
    "TlsConfig.cert": "--tlscert",
    "TlsConfig.key": "--tlskey",
    "TlsConfig.server_name": "--tlsservername",
    "its address or BUILDKIT_HOST": "--addr or BUILDKIT_HOST",
}
_WORDS = re.compile("|".join(rf"{re.escape(word)}\b" for word in sorted(_FLAGS, key=len, reverse=True)))


def with_flags(text: str) -> str:
    """A sentence of the library with the names of flags in it."""
    return _WORDS.sub(lambda match: _FLAGS[match[0]], text)
