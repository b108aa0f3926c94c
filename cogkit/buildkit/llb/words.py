"""A command line in words, split as ``github.com/google/shlex`` splits it, which Go's LLB library uses.

Quotes and backslashes as in a shell, ``#`` begins a comment; nothing is expanded and no shell is meant.  Python's
`shlex` differs where a backslash stands in double quotes.  Text in, words out.
"""

from __future__ import annotations

from cogkit.errors import UsageError

_SPACE = frozenset(" \t\r\n")


def split_words(line: str) -> tuple[str, ...]:
    """The words of ``line``.

    Raises:
        UsageError: a quote is not closed, or the line ends after a backslash.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    at = 0
    while at < len(line):
        char = line[at]
        at += 1
        if quote:
            if char == quote:
                quote = ""
                continue
            if char != "\\" or quote == "'":
                assert word is not None
                word.append(char)
                continue
        elif char in _SPACE:
            if word is not None:
                words.append("".join(word))
                word = None
            continue
        elif char == "#" and word is None:
            end = line.find("\n", at)
            at = len(line) if end < 0 else end + 1
            continue
        word = [] if word is None else word
        if char == "\\":
            if at == len(line):
                raise UsageError(f"the command {line!r} ends after a backslash")
            word.append(line[at])
            at += 1
        elif char in "\"'" and not quote:
            quote = char
        else:
            word.append(char)
    if quote:
        raise UsageError(f"a quote ({quote}) of the command {line!r} is not closed")
    if word is not None:
        words.append("".join(word))
    return tuple(words)
