"""The patterns of an ignore file with their lines: which one leaves a file out, which one cannot be read.

Matching is `cogkit.buildkit.fsutil`'s.  This file must not look for ignore files, nor walk a tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cogkit.building.definition import IgnoreFile
from cogkit.buildkit.fsutil.filter import TreeFilter
from cogkit.buildkit.fsutil.patternmatcher.patterns import MatchInfo, PatternError, PatternMatcher, read_ignore_file
from cogkit.errors import CogkitError, ConfigError

_REFUSALS = re.compile(
    r"syntax error in pattern|illegal exclusion pattern|error parsing regexp|token too long|failed parsing \S*ignore"
)
"""What is said of patterns, here and by the builder (moby/patternmatcher)."""


def numbered_patterns(ignore: IgnoreFile | None) -> list[tuple[int, str]]:
    """Line number and pattern of each line that has one.

    Raises:
        PatternError: a line that is too long.
    """
    if ignore is None:
        return []
    found: list[tuple[int, str]] = []
    for number, line in enumerate(ignore.content.split(b"\n"), start=1):
        try:
            # A mark of UTF-8 is one at the beginning only.
            patterns = read_ignore_file(line if number == 1 else b"\n" + line)
        except PatternError as problem:
            problem.where = f"{ignore.path}:{number}"
            raise
        found += [(number, pattern) for pattern in patterns]
    return found


def what_leaves_out(ignore: IgnoreFile, path: str) -> tuple[int, str] | None:
    """The line and the pattern that leave a file out; None if it is sent.

    Args:
        ignore: The ignore file.
        path: The file's path in the context, parts joined by ``/``.

    Raises:
        PatternError: a pattern that cannot be read.
    """
    lines = numbered_patterns(ignore)
    patterns = [pattern for _, pattern in lines]
    if _is_sent(patterns, path):
        return None
    matcher, info = PatternMatcher(patterns), MatchInfo()
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        _, info = matcher.matches_using_parent_results("/".join(parts[:depth]), info)
    # The last pattern that matches has the word.
    matching = [index for index, matched in enumerate(info.parent_matched) if matched]
    return lines[matching[-1]] if matching else None


def _is_sent(patterns: list[str], path: str) -> bool:
    state = TreeFilter(None, patterns).root
    *folders, name = path.split("/")
    place = ""
    for folder in folders:
        if state is None:
            return True
        place = f"{place}/{folder}" if place else folder
        kept, state = state.enter(folder, place)
        if state is None:
            return kept
    return state is None or state.keeps(name, path)


def explained_refusal(problem: CogkitError, ignores: Iterable[IgnoreFile]) -> CogkitError:
    """The failure with the line of an ignore file that it is about, if it is about one."""
    if not _REFUSALS.search(problem.message):
        return problem
    for ignore in ignores:
        try:
            for number, pattern in numbered_patterns(ignore):
                reason = _refusal(pattern)
                if reason is not None:
                    return ConfigError(
                        f"the pattern {pattern!r} cannot be read: {reason}",
                        where=f"{ignore.path}:{number}",
                        hint="correct the pattern",
                    )
        except PatternError as refusal:
            return refusal
    return problem


def _refusal(pattern: str) -> str | None:
    try:
        matcher = PatternMatcher([pattern])
    except PatternError as problem:
        return problem.message
    unusable = any(each.regex is None for each in matcher.patterns)
    return "syntax error in pattern" if unusable else None
