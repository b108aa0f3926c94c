"""moby/patternmatcher's patterns (``.dockerignore`` syntax), on pathspec's pattern classes.

The meaning is exactly that of github.com/moby/patternmatcher v0.6.1, its errors and its surprises included: ``[^a]``
matches a slash, ``**`` inside a name does too, an invalid pattern may stay unnoticed until it is used.  This file says
what one path matches; walking a tree fast is `cogkit.buildkit.fsutil.patternmatcher.directory_states`.

Paths and patterns are ``str`` as in `gopath`: UTF-8 with ``surrogateescape``, parts joined by ``/``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from pathspec.pattern import RegexMatchResult, RegexPattern

from cogkit.buildkit.fsutil import gopath
from cogkit.buildkit.fsutil.patternmatcher import automaton, goregexp
from cogkit.errors import ConfigError

_BOM = "\ufeff"
_GLOB_CHARS = frozenset("*[]?^\\")
_MAX_LINE = 64 * 1024  # of an ignore file: Go's bufio.Scanner gives up there


class PatternError(ConfigError):
    """A pattern that patternmatcher refuses; the message is upstream's."""

    def __init__(self, message: str):
        super().__init__(message, hint="Correct the pattern, in .dockerignore or where the build asks for it.")


def bad_pattern() -> PatternError:
    """The error for `filepath.ErrBadPattern`."""
    return PatternError("syntax error in pattern")


class MatchType(Enum):
    """How a pattern is compared; upstream skips the regular expression where a string comparison does."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    REGEXP = "regexp"


class MobyPattern(RegexPattern):
    """One pattern of a `PatternMatcher`.

    ``include`` is pathspec's: False for an exception (``!pattern``).  A pattern whose regular expression cannot be
    compiled is kept, with ``regex`` None, because upstream notices only when it is used.

    Args:
        pattern: A cleaned pattern, with its ``!`` if it has one.
    """

    __slots__ = ("_raw", "_search", "cleaned", "exclusion", "expression", "literal_text", "match_type")

    def __init__(self, pattern: str, include: bool | None = None):
        assert include is None, "the pattern itself says whether it is an exception"
        super().__init__(None)
        self.pattern = pattern
        self.exclusion = pattern.startswith("!")
        self.include = not self.exclusion
        self.cleaned = pattern[1:] if self.exclusion else pattern
        self.match_type, expression = _translate(self.cleaned)
        self.expression: goregexp.Node | None = None
        self.literal_text = ""
        # What the comparison is with; bytes where the cut is inside a character or is not UTF-8.
        self._raw: bytes | None = None
        self._search: Callable[[str], bool] | None = None
        if self.match_type is MatchType.REGEXP:
            try:
                self.expression = goregexp.parse(expression)
            except goregexp.GoRegexpError:
                self.regex = None
                return
            self.regex = re.compile(goregexp.to_python(self.expression), re.ASCII)
            self._search = automaton.matcher(self.expression)
            return
        cut = self.literal_text = self._cut()
        if not cut.isascii():
            self._raw = gopath.to_bytes(cut)
        self.regex = re.compile(self._plain_expression(cut))

    @classmethod
    def pattern_to_regex(cls, pattern: Any) -> tuple[Any, bool | None]:
        """pathspec's hook: the expression of a cleaned pattern, and whether it includes."""
        made = cls(gopath.to_str(pattern) if isinstance(pattern, bytes) else pattern)
        if made.regex is None:
            raise bad_pattern()
        return made.regex.pattern, made.include

    def _cut(self) -> str:
        """The literal text of an exact, prefix or suffix pattern; upstream cuts bytes."""
        raw = gopath.to_bytes(self.cleaned)
        if self.match_type is MatchType.PREFIX:
            raw = raw[:-2]
        elif self.match_type is MatchType.SUFFIX:
            raw = raw[2:]
        return gopath.to_str(raw)

    def _plain_expression(self, cut: str) -> str:
        if self.match_type is MatchType.EXACT:
            return rf"\A{re.escape(cut)}\Z"
        if self.match_type is MatchType.PREFIX:
            return rf"\A{re.escape(cut)}"
        if cut.startswith("/"):
            return rf"(?:\A|/){re.escape(cut[1:])}\Z"
        return rf"{re.escape(cut)}\Z"

    def matches(self, path: str) -> bool:
        """Whether the pattern by itself matches this very path (not its parents).

        Raises:
            PatternError: the pattern cannot be compiled.
        """
        if self._search is not None:
            return self._search(path)
        if self.regex is None:
            raise bad_pattern()
        if self._raw is None:
            return self.regex.search(path) is not None
        raw = gopath.to_bytes(path)
        if self.match_type is MatchType.EXACT:
            return raw == self._raw
        if self.match_type is MatchType.PREFIX:
            return raw.startswith(self._raw)
        return raw.endswith(self._raw) or (self._raw.startswith(b"/") and raw == self._raw[1:])

    def match_file(self, file: Any) -> RegexMatchResult | None:
        """pathspec's interface to `matches`; file is ``str`` or ``bytes``."""
        path = gopath.to_str(file) if isinstance(file, bytes) else file
        if not self.matches(path):
            return None
        # Only that it matches counts, not how; the expression itself may be slow, or not see bytes.
        found = re.match("", path)
        return RegexMatchResult(found) if found is not None else None

    @property
    def without_trailing_glob(self) -> str:
        """The pattern without ``/**`` or ``/*`` at its end, as fsutil compares it with directories."""
        return self.cleaned.removesuffix("/**").removesuffix("/*")

    @property
    def is_plain_prefix(self) -> bool:
        """Whether fsutil may decide by comparing prefixes what is below a directory."""
        return not _GLOB_CHARS & set(self.without_trailing_glob)


def _translate(pattern: str) -> tuple[MatchType, str]:
    """Upstream's ``compile``: the way to compare and the Go regular expression."""
    # Go's text/scanner, which upstream reads the pattern with, skips a byte order mark and replaces invalid bytes.
    runes = [char if not 0xDC80 <= ord(char) <= 0xDCFF else "\ufffd" for char in pattern.removeprefix(_BOM)]
    kind = MatchType.EXACT
    out = ["^"]
    at = 0
    first = True
    while at < len(runes):
        char = runes[at]
        at += 1
        if char == "*" and at < len(runes) and runes[at] == "*":
            at += 1
            if at < len(runes) and runes[at] == "/":
                at += 1  # "**/" is "**"
            if at == len(runes):
                if kind is MatchType.EXACT:
                    kind = MatchType.PREFIX
                else:
                    out.append(".*")
                    kind = MatchType.REGEXP
            else:
                out.append("(.*/)?")
                kind = MatchType.REGEXP
            if first:
                kind = MatchType.SUFFIX
        elif char == "*":
            out.append("[^/]*")
            kind = MatchType.REGEXP
        elif char == "?":
            out.append("[^/]")
            kind = MatchType.REGEXP
        elif char in ".+()$":  # upstream means to escape "{|}" too, but its table has no room for them
            out.append("\\" + char)
        elif char == "\\":
            if at < len(runes):
                out.append("\\" + runes[at])
                at += 1
                kind = MatchType.REGEXP
            else:
                out.append("\\")
        elif char in "[]":
            out.append(char)
            kind = MatchType.REGEXP
        else:
            out.append(char)
        first = False
    out.append("$")
    return kind, "".join(out)


class MatchInfo:
    """Which patterns matched a directory, to be given on to `PatternMatcher.matches_using_parent_results`."""

    __slots__ = ("parent_matched",)

    def __init__(self, parent_matched: tuple[bool, ...] = ()):
        self.parent_matched = parent_matched


class PatternMatcher:
    """A list of patterns of which later ones overrule earlier ones.

    Raises:
        PatternError: a pattern that upstream refuses at once.
    """

    __slots__ = ("exclusions", "patterns")

    def __init__(self, patterns: Iterable[str]):
        self.patterns: tuple[MobyPattern, ...] = tuple(_read(patterns))
        self.exclusions = any(pattern.exclusion for pattern in self.patterns)

    def matches(self, file: str) -> bool:
        """Upstream's deprecated ``Matches``: of the parents, looks only at one as deep as the pattern."""
        parent = gopath.parent(file)
        parts = parent.split("/")
        matched = False
        for pattern in self.patterns:
            if pattern.exclusion != matched:
                continue
            match = pattern.matches(file)
            depth = pattern.cleaned.count("/") + 1
            if not match and parent != "." and depth <= len(parts):
                match = pattern.matches("/".join(parts[:depth]))
            if match:
                matched = not pattern.exclusion
        return matched

    def matches_or_parent_matches(self, file: str) -> bool:
        """Whether file, or a directory above it, matches and is not excepted by a later pattern."""
        parents = _parents(file)
        matched = False
        for pattern in self.patterns:
            if pattern.exclusion != matched:
                continue
            if pattern.matches(file) or any(pattern.matches(parent) for parent in parents):
                matched = not pattern.exclusion
        return matched

    def matches_using_parent_results(self, file: str, parent: MatchInfo) -> tuple[bool, MatchInfo]:
        """Whether file matches, given what was found for its directory, and what was found for file.

        With an empty `MatchInfo` the parents are looked at as `matches_or_parent_matches` does.

        Raises:
            PatternError: a pattern that cannot be compiled was needed, or the info belongs to other patterns.
        """
        inherited = parent.parent_matched
        if inherited and len(inherited) != len(self.patterns):
            raise PatternError("wrong number of values in parentMatched")
        parents = () if inherited else _parents(file)
        matched = False
        found = [False] * len(self.patterns)
        for index, pattern in enumerate(self.patterns):
            match = bool(inherited) and inherited[index]
            if not match:
                if pattern.exclusion != matched:
                    continue
                match = pattern.matches(file) or any(pattern.matches(above) for above in parents)
            found[index] = match
            if match:
                matched = not pattern.exclusion
        return matched, MatchInfo(tuple(found))


def _parents(file: str) -> Sequence[str]:
    parent = gopath.parent(file)
    if parent == ".":
        return ()
    parts = parent.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _read(patterns: Iterable[str]) -> Iterable[MobyPattern]:
    for text in patterns:
        trimmed = text.strip(gopath.GO_SPACE)
        if not trimmed:
            continue
        pattern = gopath.clean(trimmed)
        if pattern == "!":
            raise PatternError('illegal exclusion pattern: "!"')
        try:
            gopath.match(gopath.to_bytes(pattern.removeprefix("!")), b".")
        except gopath.BadPattern:
            raise bad_pattern() from None
        yield MobyPattern(pattern)


def matches(file: str, patterns: Iterable[str]) -> bool:
    """Upstream's function of the same name: the path is cleaned, and ``.`` never matches."""
    matcher = PatternMatcher(patterns)
    file = gopath.clean(file)
    return file != "." and matcher.matches(file)


def matches_or_parent_matches(file: str, patterns: Iterable[str]) -> bool:
    """Upstream's ``MatchesOrParentMatches``: the path is cleaned, and ``.`` never matches."""
    matcher = PatternMatcher(patterns)
    file = gopath.clean(file)
    return file != "." and matcher.matches_or_parent_matches(file)


def read_ignore_file(content: bytes) -> list[str]:
    """The patterns of a ``.dockerignore``, as patternmatcher's ``ignorefile.ReadAll`` reads them.

    A byte order mark, comments (``#`` in the first column) and blank lines are dropped; patterns are trimmed, cleaned
    and lose one leading slash.

    Raises:
        PatternError: a line of 64 KiB or more, which upstream refuses too.
    """
    patterns: list[str] = []
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, raw in enumerate(lines):
        if len(raw) >= _MAX_LINE:
            raise PatternError(f"line {number + 1} of the ignore file is too long (bufio.Scanner: token too long)")
        line = gopath.to_str(raw.removesuffix(b"\r"))
        if number == 0:
            line = line.removeprefix(_BOM)
        if line.startswith("#"):
            continue
        line = line.strip(gopath.GO_SPACE)
        if not line:
            continue
        inverted = line.startswith("!")
        if inverted:
            line = line[1:].strip(gopath.GO_SPACE)
        if line:
            line = gopath.clean(line)
            if len(line) > 1:
                line = line.removeprefix("/")
        patterns.append("!" + line if inverted else line)
    return patterns
