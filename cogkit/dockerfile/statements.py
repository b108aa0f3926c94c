"""Single Dockerfile statements, written so that the frontend reads back what was meant.

A path with a blank, a value with a quote: each helper falls back to a longer form only where the plain one, which is
Cog's, would be read as something else.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from cogkit.errors import ConfigError

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_@%+=:,./~][A-Za-z0-9_@%+=:,./~-]*\Z")


def copy(sources: Sequence[str], target: str, *, stage: str | None = None, link: bool = False) -> str:
    """A COPY of paths from the context, or from a stage or named context.

    Raises:
        ConfigError: BuildKit cannot be told the name of a source.
    """
    flags = [f"--from={stage}"] if stage else []
    flags += ["--link"] if link else []
    words = [*(_shell_word(_pattern(source)) for source in sources), _shell_word(target)]
    if not all(_PLAIN_PATH.match(word) for word in words):
        return " ".join(["COPY", *flags, json.dumps(words, ensure_ascii=False)])
    return " ".join(["COPY", *flags, *words])


def _pattern(source: str) -> str:
    """The pattern that matches this path only.

    A ``[`` in a source of COPY starts a set of characters, and a leading ``!`` would turn the pattern round when the
    daemon looks for what changed.  The daemon's parts disagree on how the refused characters are escaped.
    """
    if re.search(r"[*?\\\x00-\x1f\x7f]", source):
        raise ConfigError(
            f"BuildKit cannot be told to copy {source!r}: no '*', '?', backslash or control character may be in a name",
            hint="Rename the file, or leave it out with .dockerignore.",
        )
    return re.sub(r"\[|\A!", r"[\g<0>]", source)


def _shell_word(text: str) -> str:
    """A word that is itself again after the frontend has looked for variables, quotes and here-documents in it."""
    return re.sub(r"[\\$'\"<]", r"\\\g<0>", text)


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
