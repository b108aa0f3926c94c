"""Single Dockerfile statements, written so that the frontend reads back what was meant.

A path with a blank, a value with a quote: each helper falls back to a longer form only where the plain one, which is
Cog's, would be read as something else.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_@%+=:,./~-]+\Z")


def copy(sources: Sequence[str], target: str, *, stage: str | None = None, link: bool = False) -> str:
    """A COPY of paths from the context, or from a stage or named context."""
    flags = [f"--from={stage}"] if stage else []
    flags += ["--link"] if link else []
    words = [*(_literal(source) for source in sources), target]
    if all(_PLAIN_PATH.match(word) for word in words):
        return " ".join(["COPY", *flags, *words])
    # "$" starts a variable in COPY, whatever the form.
    quoted = [word.replace("\\", "\\\\").replace("$", "\\$") if "$" in word else word for word in words]
    return " ".join(["COPY", *flags, json.dumps(quoted, ensure_ascii=False)])


def _literal(source: str) -> str:
    """The source as itself: in COPY, brackets, stars and question marks are patterns."""
    return re.sub(r"([\[*?\\])", r"\\\1", source)


def word(text: str) -> str:
    """One word of a shell command."""
    return shlex.quote(text)


def environment(variables: Mapping[str, str]) -> str:
    """One ENV that sets all variables, sorted by name; "" if there are none.

    Values are written as they are, as Cog writes them, so ``$HOME`` and quotes in them work as they do there.  A
    value that would be read as more than one word, or not to its end, is quoted.
    """
    pairs = [f"{name}={_value(variables[name])}" for name in sorted(variables)]
    return f"ENV {' '.join(pairs)}" if pairs else ""


def _value(value: str) -> str:
    return value if _is_one_word(value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_one_word(value: str) -> bool:
    """Whether the frontend's word splitter takes ``NAME=value`` as one word, up to its end."""
    quote = ""
    escaped = False
    for character in value:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character.isspace():
            return False
    # A backslash at the very end would join the next line to this one.
    return not quote and not escaped
