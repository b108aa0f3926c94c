r"""Go's regular expressions, as far as moby/patternmatcher can produce them, as Python's ``re``.

The pattern matcher pastes parts of a user's pattern into a Go regular expression without escaping everything: its bit
map of characters to escape has no room for ``{``, ``|`` and ``}``.  So ``[[:alpha:]]``, ``\pL``, ``\Qa\E``, ``a|b*``,
``?{2}`` or a ``^`` in the middle mean what Go says they mean.  `parse` reads Go's syntax (``regexp/syntax`` with the
Perl flags) into nodes and refuses what Go refuses; `to_python` writes the nodes as a pattern for ``re`` that matches
the same strings.

Strings are UTF-8 decoded with ``surrogateescape``.  Go sees an invalid byte as U+FFFD, so in every set of characters
the lone surrogates stand and fall with U+FFFD.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TypeAlias

from cogkit.fast_dataclass import dataclass

_MAX_RUNE = 0x10FFFF
_RUNE_ERROR = 0xFFFD
_SURROGATES = (0xD800, 0xDFFF)
_MAX_COUNT = 1000  # of a repetition, also of nested ones together
_MAX_NESTING = 100

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""A set of code points: sorted, disjoint, inclusive ranges."""


class GoRegexpError(Exception):
    """Go's ``regexp.Compile`` refuses the expression."""


@dataclass(frozen=True, slots=True)
class CharSet:
    """One character out of a set."""

    ranges: Ranges

    def __contains__(self, char: str) -> bool:
        code = ord(char)
        return any(low <= code <= high for low, high in self.ranges)

    @property
    def literal(self) -> str | None:
        """The character, if it is just one."""
        (low, high), *others = self.ranges or ((0, 1),)
        return chr(low) if low == high and not others else None


@dataclass(frozen=True, slots=True)
class Assertion:
    """A zero-width test: ``^`` (begin of text), ``$`` (end of text), ``b`` or ``B`` (ASCII word boundary, or not)."""

    kind: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """A node ``low`` to ``high`` times; without a limit if ``high`` is None."""

    node: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Sequence:
    """Nodes one after the other."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences."""

    options: tuple[Sequence, ...]


Node: TypeAlias = CharSet | Assertion | Repeat | Sequence | Choice


_DIGIT: Ranges = ((0x30, 0x39),)
_UPPER: Ranges = ((0x41, 0x5A),)
_LOWER: Ranges = ((0x61, 0x7A),)
_ALPHA: Ranges = _UPPER + _LOWER
_WORD: Ranges = (*_DIGIT, *_UPPER, (0x5F, 0x5F), *_LOWER)

_PERL: dict[str, Ranges] = {"d": _DIGIT, "s": ((0x9, 0xA), (0xC, 0xD), (0x20, 0x20)), "w": _WORD}

_POSIX: dict[str, Ranges] = {
    "alnum": _DIGIT + _ALPHA,
    "alpha": _ALPHA,
    "ascii": ((0x0, 0x7F),),
    "blank": ((0x9, 0x9), (0x20, 0x20)),
    "cntrl": ((0x0, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": _LOWER,
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x9, 0xD), (0x20, 0x20)),
    "upper": _UPPER,
    "word": _WORD,
    "xdigit": (*_DIGIT, (0x41, 0x46), (0x61, 0x66)),
}

_MINOR = {"C": "cfnos", "L": "cmlotu", "M": "cen", "N": "dlo", "P": "cdefios", "S": "ckmo", "Z": "lps"}
_CATEGORIES = frozenset(major + minor for major, minors in _MINOR.items() for minor in ("", *minors))
_CATEGORY_NAMES = {
    "Other": "C",
    "Control": "Cc",
    "Cntrl": "Cc",
    "Format": "Cf",
    "Unassigned": "Cn",
    "Privateuse": "Co",
    "Surrogate": "Cs",
    "Letter": "L",
    "Casedletter": "Lc",
    "Lowercaseletter": "Ll",
    "Modifierletter": "Lm",
    "Otherletter": "Lo",
    "Titlecaseletter": "Lt",
    "Uppercaseletter": "Lu",
    "Mark": "M",
    "Combiningmark": "M",
    "Spacingmark": "Mc",
    "Enclosingmark": "Me",
    "Nonspacingmark": "Mn",
    "Number": "N",
    "Decimalnumber": "Nd",
    "Digit": "Nd",
    "Letternumber": "Nl",
    "Othernumber": "No",
    "Punctuation": "P",
    "Punct": "P",
    "Connectorpunctuation": "Pc",
    "Dashpunctuation": "Pd",
    "Closepunctuation": "Pe",
    "Finalpunctuation": "Pf",
    "Initialpunctuation": "Pi",
    "Otherpunctuation": "Po",
    "Openpunctuation": "Ps",
    "Symbol": "S",
    "Currencysymbol": "Sc",
    "Modifiersymbol": "Sk",
    "Mathsymbol": "Sm",
    "Othersymbol": "So",
    "Separator": "Z",
    "Lineseparator": "Zl",
    "Paragraphseparator": "Zp",
    "Spaceseparator": "Zs",
}
"""The long names, as Go's ``unicode.CategoryAliases`` has them, without underscores."""

_COUNT = re.compile(r"\{(0|[1-9][0-9]*)(,(0|[1-9][0-9]*)?)?\}")
_C_ESCAPES = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_OCTAL = "01234567"
_HEX = "0123456789abcdefABCDEF"
_ANY_BUT_NEWLINE: Ranges = ((0, 9), (11, _MAX_RUNE))


def parse(expression: str) -> Sequence | Choice:
    """Read a Go regular expression (without flags and named groups: the matcher escapes parentheses).

    Raises:
        GoRegexpError: Go would not compile it.
    """
    parser = _Parser(expression)
    node = parser.choice()
    if not parser.at_end:
        raise GoRegexpError("unexpected )")
    return node


class _Parser:
    def __init__(self, text: str):
        self._text = text
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._text)

    def choice(self) -> Sequence | Choice:
        options = [self._sequence()]
        while self._text.startswith("|", self._at):
            self._at += 1
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Sequence:
        text = self._text
        nodes: list[Node] = []
        repeated = False
        while self._at < len(text) and text[self._at] not in "|)":
            char = text[self._at]
            count = self._count()
            if count is not None:
                nodes[-1:] = [self._repeat(nodes, *count, repeated)]
                repeated = True
                continue
            repeated = False
            if char == "(":
                self._at += 1
                inner = self.choice()
                if not text.startswith(")", self._at):
                    raise GoRegexpError("missing closing )")
                self._at += 1
                nodes.append(inner)
            elif char in "^$":
                self._at += 1
                nodes.append(Assertion(char))
            elif char == ".":
                self._at += 1
                nodes.append(CharSet(_ANY_BUT_NEWLINE))
            elif char == "[":
                nodes.append(CharSet(self._char_class()))
            elif char == "\\":
                nodes.extend(self._escape())
            else:
                self._at += 1
                nodes.append(_single(ord(char)))
        return Sequence(tuple(nodes))

    def _count(self) -> tuple[int, int | None] | None:
        """The repetition operator at this place; a brace that does not hold numbers is none."""
        char = self._text[self._at]
        if char in "*+?":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        found = _COUNT.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        low = int(found[1])
        high = low if found[2] is None else int(found[3]) if found[3] else None
        if low > _MAX_COUNT or (high is not None and (high > _MAX_COUNT or high < low)):
            raise GoRegexpError("invalid repeat count")
        return low, high

    def _repeat(self, nodes: list[Node], low: int, high: int | None, repeated: bool) -> Node:
        if not nodes or repeated:
            raise GoRegexpError("misplaced repetition operator")
        node = nodes[-1]
        if _repetitions(node, 0) * max(1, high if high is not None else low) > _MAX_COUNT:
            raise GoRegexpError("invalid repeat count")
        return Repeat(node, low, high)

    def _escape(self) -> list[Node]:
        r"""An escape outside of a class: a character, a class like ``\d``, an assertion or ``\Q…\E``."""
        text = self._text
        kind = text[self._at + 1 : self._at + 2]
        if kind in ("A", "b", "B", "z"):
            self._at += 2
            return [Assertion({"A": "^", "z": "$"}.get(kind, kind))]
        if kind == "Q":
            end = text.find("\\E", self._at + 2)
            quoted = text[self._at + 2 : end] if end >= 0 else text[self._at + 2 :]
            self._at = end + 2 if end >= 0 else len(text)
            return [_single(ord(char)) for char in quoted]
        named = self._named_escape()
        if named is not None:
            return [CharSet(named)]
        return [_single(self._escaped_char())]

    def _named_escape(self) -> Ranges | None:
        r"""``\pL``, ``\d`` and their like at this place, or None."""
        text = self._text
        if not text.startswith("\\", self._at):
            return None
        kind = text[self._at + 1 : self._at + 2]
        if kind in ("p", "P"):
            name = text[self._at + 2 : self._at + 3]
            self._at += 3
            if name == "{":
                end = text.find("}", self._at)
                if end < 0:
                    raise GoRegexpError("invalid character class range")
                name = text[self._at : end]
                self._at = end + 1
            ranges = _unicode_class(name.removeprefix("^"))
            return ranges if (kind == "p") != name.startswith("^") else negate(ranges)
        if kind and kind in "dswDSW":
            self._at += 2
            ranges = _PERL[kind.lower()]
            return ranges if kind.islower() else negate(ranges)
        return None

    def _escaped_char(self) -> int:
        text = self._text
        char = text[self._at + 1 : self._at + 2]
        if not char:
            raise GoRegexpError("trailing backslash at end of expression")
        self._at += 2
        if char in "1234567" and text[self._at : self._at + 1] not in tuple(_OCTAL):
            raise GoRegexpError("back references are not supported")
        if char in _OCTAL:
            digits = char
            while len(digits) < 3 and text[self._at : self._at + 1] in tuple(_OCTAL):
                digits += text[self._at]
                self._at += 1
            return int(digits, 8)
        if char == "x" and text.startswith("{", self._at):
            end = text.find("}", self._at)
            digits = text[self._at + 1 : end] if end >= 0 else ""
            if not digits or any(digit not in _HEX for digit in digits) or int(digits, 16) > _MAX_RUNE:
                raise GoRegexpError("invalid escape sequence")
            self._at = end + 1
            return int(digits, 16)
        if char == "x":
            digits = text[self._at : self._at + 2]
            if len(digits) < 2 or any(digit not in _HEX for digit in digits):
                raise GoRegexpError("invalid escape sequence")
            self._at += 2
            return int(digits, 16)
        if char in _C_ESCAPES:
            return _C_ESCAPES[char]
        if char.isascii() and not char.isalnum():
            return ord(char)
        raise GoRegexpError("invalid escape sequence")

    def _char_class(self) -> Ranges:
        text = self._text
        self._at += 1
        negated = text.startswith("^", self._at)
        self._at += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not text.startswith("]", self._at):
            first = False
            named = self._posix_class()
            if named is None:
                named = self._named_escape()
            if named is not None:
                ranges.extend(named)
                continue
            start = self._at
            low = high = self._class_char()
            if text.startswith("-", self._at) and text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                high = self._class_char()
                if high < low:
                    raise GoRegexpError(f"invalid character class range: {text[start : self._at]}")
            ranges.append((low, high))
        self._at += 1
        merged = _merge(ranges)
        return negate(merged) if negated else merged

    def _posix_class(self) -> Ranges | None:
        text = self._text
        if not text.startswith("[:", self._at):
            return None
        end = text.find(":]", self._at + 2)
        if end < 0:
            return None
        name = text[self._at + 2 : end]
        negated = name.startswith("^")
        ranges = _POSIX.get(name.removeprefix("^"))
        if ranges is None:
            raise GoRegexpError("invalid character class range")
        self._at = end + 2
        return negate(ranges) if negated else ranges

    def _class_char(self) -> int:
        if self._at >= len(self._text):
            raise GoRegexpError("missing closing ]")
        if self._text[self._at] == "\\":
            return self._escaped_char()
        self._at += 1
        return ord(self._text[self._at - 1])


def _single(code: int) -> CharSet:
    return CharSet(((code, code),))


def _merge(ranges: list[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def negate(ranges: Ranges) -> Ranges:
    """All other code points."""
    result: list[tuple[int, int]] = []
    start = 0
    for low, high in ranges:
        if low > start:
            result.append((start, low - 1))
        start = high + 1
    if start <= _MAX_RUNE:
        result.append((start, _MAX_RUNE))
    return tuple(result)


def _repetitions(node: Node, depth: int) -> int:
    """How often the innermost node of nested counted repetitions comes at most (Go's ``repeatIsValid``)."""
    if depth > _MAX_NESTING:
        raise GoRegexpError("expression nests too deeply")
    if not isinstance(node, Repeat):
        return 1
    count = node.high if node.high is not None else node.low
    return max(1, count) * _repetitions(node.node, depth + 1)


def _unicode_class(name: str) -> Ranges:
    """``\\p{name}``.

    Raises:
        GoRegexpError: there is none of that name, or it is a script: Python has no data about those.
    """
    canonical = name.replace("_", "").replace("-", "").replace(" ", "").capitalize()
    if canonical == "Any":
        return ((0, _MAX_RUNE),)
    if canonical == "Ascii":
        return ((0, 0x7F),)
    if canonical == "Assigned":
        return negate(_general_category("Cn"))
    category = _CATEGORY_NAMES.get(canonical, canonical)
    if category not in _CATEGORIES:
        raise GoRegexpError(f"unknown character class {name}")
    return _general_category(category)


@cache
def _general_category(category: str) -> Ranges:
    """All code points of a general category, from Python's Unicode data (Go's may be of another version)."""
    wanted = ("Lu", "Ll", "Lt") if category == "Lc" else (category,)
    codes = [code for code in range(_MAX_RUNE + 1) if unicodedata.category(chr(code)).startswith(wanted)]
    return _merge([(code, code) for code in codes])


def with_surrogates(ranges: Ranges) -> Ranges:
    """The same set with the lone surrogates in it exactly if U+FFFD is: an invalid byte is U+FFFD to Go."""
    low, high = _SURROGATES
    outside: list[tuple[int, int]] = []
    for start, end in ranges:
        if start < low:
            outside.append((start, min(end, low - 1)))
        if end > high:
            outside.append((max(start, high + 1), end))
    if any(start <= _RUNE_ERROR <= end for start, end in ranges):
        outside.append(_SURROGATES)
    return _merge(outside)


def to_python(node: Node) -> str:
    """The pattern for ``re.compile(…, re.ASCII)``, to be used with ``search``."""
    match node:
        case CharSet(ranges):
            return _write_set(ranges)
        case Assertion(kind):
            # (?!\b) and not \B: Python's \B is false on the empty string.
            return {"^": r"\A", "$": r"\Z", "b": r"\b", "B": r"(?!\b)"}[kind]
        case Sequence(nodes):
            return "".join(
                f"(?:{to_python(inner)})" if isinstance(inner, Choice) else to_python(inner) for inner in nodes
            )
        case Choice(options):
            return "|".join(to_python(option) for option in options)
        case Repeat(inner, low, high):
            text = to_python(inner) if isinstance(inner, CharSet) else f"(?:{to_python(inner)})"
            counts = {(0, None): "*", (1, None): "+", (0, 1): "?"}
            return text + counts.get((low, high), f"{{{low},{'' if high is None else high}}}")


@cache
def _write_set(ranges: Ranges) -> str:
    ranges = with_surrogates(ranges)
    if not ranges:
        return r"(?!)"
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return re.escape(chr(ranges[0][0]))
    others = negate(ranges)
    if not others:
        return r"[\s\S]"
    body, caret = (ranges, "") if len(ranges) <= len(others) else (others, "^")
    return f"[{caret}{''.join(_write_range(low, high) for low, high in body)}]"


def _write_range(low: int, high: int) -> str:
    return f"\\U{low:08x}" if low == high else f"\\U{low:08x}-\\U{high:08x}"
