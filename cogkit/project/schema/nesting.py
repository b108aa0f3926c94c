"""How deeply a Python source is nested, told from its tokens alone.

LibCST's parser recurses without a limit of its own and ends the process where the stack ends.  `check_nesting` stands
in front of it: it knows Python's tokens (those of f-strings too, as PEP 701 has them) and nothing of its grammar, and
what it cannot tell it refuses.  It must need no stack itself.
"""

from __future__ import annotations

import re

from cogkit.fast_dataclass import dataclass

MAX_BRACKETS = 100
"""Brackets in brackets; CPython allows 200."""
MAX_PATTERNS = 12
"""Brackets in the brackets of a ``case``, each of which doubles the time that LibCST takes."""
MAX_INDENTATIONS = 100
"""Blocks in blocks; CPython's limit, too."""
MAX_CHAIN = 300
"""Tokens in a row that may each be a level: operators, dots, calls, branches.  A comma or a new line ends the row."""


class NestingError(Exception):
    """The source is nested too deeply, or its tokens cannot be told apart.

    Attributes:
        place: Offset of what does not end, in characters; None if it is nothing of that kind.
    """

    def __init__(self, message: str, place: int | None = None) -> None:
        super().__init__(message)
        self.place = place


@dataclass(slots=True)
class _Frame:
    """An open bracket, f-string or part of an f-string.

    Attributes:
        kind: The bracket; ``f`` for the text of an f-string, ``:`` for a format, ``field`` for ``{…}`` in either, and
            "" for the file.
        quote: What ends the f-string that this is a part of.
        raw: Whether backslashes mean nothing in it.
        chain: Tokens since the last comma.
        heads: ``lambda`` and ``for`` whose ``:`` and ``in`` is still to come; their commas end no row.
        start: Where it begins.
    """

    kind: str
    quote: str = ""
    raw: bool = False
    chain: int = 0
    heads: int = 0
    start: int = 0


_CODE = re.compile(
    r"""(?P<space>[ \t\f]+|\\\n|\#[^\n]*)|(?P<line>\n)|(?P<string>[A-Za-z]{0,2}(?:\"\"\"|'''|"|'))"""
    r"""|(?P<word>\w+)|(?P<other>.)""",
    re.DOTALL,
)
_INDENTATION = re.compile(r"[ \t\f]*")
_TEXT = re.compile(r"""(?P<name>\\N\{[^}\n]*\})|(?P<escape>\\[^{}])|[{}"'\n]""", re.DOTALL)
_CONTINUED = re.compile(r"(?:elif|else|except|finally)\b")
_STRING_ENDS = {
    quote: re.compile(rf"(?:[^\\{quote[0]}{'' if len(quote) == 3 else chr(10)}]|\\.|{inner})*?{quote}", re.DOTALL)
    for quote, inner in (('"', "(?!)"), ("'", "(?!)"), ('"""', '"(?!"")'), ("'''", "'(?!'')"))
}
_PLAIN_PREFIXES = frozenset({"", "r", "u", "b", "br", "rb"})
_FORMATTED_PREFIXES = frozenset({"f", "fr", "rf", "t", "tr", "rt"})
_CLOSING = {")": "(", "]": "[", "}": "{"}


def check_nesting(text: str) -> list[int]:
    """Refuse a source that would need much stack to parse; its lines end in ``\\n``.

    Returns:
        Where the statements of the file itself begin; each ends where the next begins.

    Raises:
        NestingError: It is nested too deeply, or a string or bracket in it does not end.
    """
    scan = _Scan(text)
    scan.run()
    return scan.statements


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._frames = [_Frame("")]
        self._chain = 0
        self._indentations = [0]
        self._branches = 0
        self._most_brackets = MAX_BRACKETS

        self._decorated = False
        self.statements: list[int] = []

    def run(self) -> None:
        position = self._start_of_line(0)
        while position < len(self._text):
            top = self._frames[-1]
            position = self._in_text(top, position) if top.kind in ("f", ":") else self._in_code(top, position)
        if len(self._frames) > 1:
            open_one = self._frames[-1]
            raise NestingError("a string or bracket does not end", open_one.start)

    def _in_code(self, top: _Frame, position: int) -> int:
        match = _CODE.match(self._text, position)
        assert match is not None
        token, kind = match[0], match.lastgroup
        if kind == "space":
            return match.end()
        if kind == "line":
            if len(self._frames) > 1:
                return match.end()
            self._end_row(top)
            return self._start_of_line(match.end())
        if kind == "string":
            return self._string(match)
        if token in (",", ";"):
            if not top.heads:
                self._end_row(top)
            return match.end()
        self._count(top)
        if token in ("lambda", "for"):
            top.heads += 1
        elif token == "in" or (token == ":" and top.kind != "field"):
            top.heads = max(0, top.heads - 1)
        elif token == "elif":
            self._branches += 1
            if self._branches > MAX_CHAIN:
                raise NestingError("it has too many branches")
        elif token in ("(", "[", "{"):
            self._open(_Frame(token, top.quote, top.raw), match.start())
        elif token == "}" and top.kind == "field":
            self._close()
        elif token in _CLOSING:
            if top.kind != _CLOSING[token]:
                raise NestingError("its brackets do not match")
            self._close()
        elif token == ":" and top.kind == "field":
            self._open(_Frame(":", top.quote, top.raw), match.start())
        return match.end()

    def _string(self, match: re.Match[str]) -> int:
        prefix = match[0].rstrip("\"'").lower()
        quote = match[0][len(prefix) :]
        self._count(self._frames[-1])
        if prefix in _FORMATTED_PREFIXES:
            self._open(_Frame("f", quote, "r" in prefix), match.start())
            return match.end()
        if prefix not in _PLAIN_PREFIXES:
            return match.end() - len(quote)
        end = _STRING_ENDS[quote].match(self._text, match.end())
        if end is None:
            raise NestingError("a string does not end", match.start())
        return end.end()

    def _in_text(self, top: _Frame, position: int) -> int:
        match = _TEXT.search(self._text, position)
        if match is None:
            raise NestingError("a string does not end", top.start)
        token = match[0]
        if match.lastgroup == "name":
            return match.end() if not top.raw else match.start() + 2
        if match.lastgroup == "escape":
            return match.end()
        if token == "{":
            if top.kind == "f" and self._text.startswith("{{", match.start()):
                return match.end() + 1
            self._open(_Frame("field", top.quote, top.raw), match.start())
        elif token == "}":
            if top.kind == ":":
                self._close()  # the format …
                self._close()  # … and its field
            elif self._text.startswith("}}", match.start()):
                return match.end() + 1
            else:
                raise NestingError("its brackets do not match")
        elif token == "\n":
            if len(top.quote) == 1:
                raise NestingError("a string does not end", top.start)
        elif self._text.startswith(top.quote, match.start()):
            if top.kind == ":":
                raise NestingError("its brackets do not match")
            self._close()
            return match.start() + len(top.quote)
        return match.end()

    def _count(self, top: _Frame) -> None:
        top.chain += 1
        self._chain += 1
        if self._chain > MAX_CHAIN:
            raise NestingError("it is nested too deeply")

    def _end_row(self, top: _Frame) -> None:
        self._chain -= top.chain
        top.chain = 0

    def _open(self, frame: _Frame, start: int) -> None:
        frame.start = start
        if len(self._frames) > self._most_brackets:
            raise NestingError("it is nested too deeply")
        self._frames.append(frame)

    def _close(self) -> None:
        self._chain -= self._frames.pop().chain

    def _start_of_line(self, position: int) -> int:
        """Count the indentation of a line that holds something."""
        match = _INDENTATION.match(self._text, position)
        assert match is not None
        self._most_brackets = MAX_PATTERNS if self._text.startswith("case", match.end()) else MAX_BRACKETS
        if match.end() < len(self._text) and self._text[match.end()] not in "#\n":
            width = len(match[0].rpartition("\f")[2].expandtabs(8))
            while self._indentations[-1] > width:
                self._indentations.pop()
            if self._indentations[-1] < width:
                self._indentations.append(width)
            if len(self._indentations) > MAX_INDENTATIONS:
                raise NestingError("it is nested too deeply")
            if width == 0 and not self._decorated and not _CONTINUED.match(self._text, match.end()):
                self.statements.append(match.end())
            self._decorated = self._text[match.end()] == "@"
        return match.end()
