"""Which entries of a tree are sent: fsutil's ``NewFilterFS``, prepared for a walk.

Pure: a walk asks a `FilterState` about the names of one directory.  An entry that is left out may still have to be
walked into, because something below it may be wanted; then the walk sends the directory when it first sends something
in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cogkit.buildkit.fsutil import gopath
from cogkit.buildkit.fsutil.patternmatcher.directory_states import (
    DirState,
    MatchState,
    NameTest,
    PreparedMatcher,
    SlowState,
)
from cogkit.buildkit.fsutil.patternmatcher.patterns import PatternError, PatternMatcher


class TreeFilter:
    """Include and exclude patterns of one walk.

    Args:
        include: Only what matches is kept; None or an empty list keeps all.
        exclude: What matches is left out; several lists apply one after the other, each with its own exceptions.

    Raises:
        PatternError: a pattern that cannot be read, with upstream's message.
    """

    def __init__(self, include: Sequence[str] | None = None, *exclude: Sequence[str]):
        self._include = _prepare(include, "invalid includepatterns") if include else None
        self._exclude = [_prepare(patterns, "invalid excludepatterns") for patterns in exclude if patterns]
        self._states: dict[tuple[MatchState | None, ...], FilterState] = {}

    @property
    def root(self) -> FilterState | None:
        """The state of the root directory, or None if everything is kept."""
        if self._include is None and not self._exclude:
            return None
        include = self._include.root if self._include else None
        return self._state(include, tuple(prepared.root for prepared in self._exclude))

    def _state(self, include: MatchState | None, exclude: tuple[MatchState, ...]) -> FilterState:
        key = (include, *exclude)
        found = self._states.get(key)
        if found is None:
            found = FilterState(self, include, exclude)
            # Slow states are one per directory: keeping them would only cost memory.
            if all(state is None or isinstance(state, DirState) for state in key):
                self._states[key] = found
        return found


def _prepare(patterns: Sequence[str], refusal: str) -> PreparedMatcher:
    try:
        return PreparedMatcher(PatternMatcher(patterns))
    except PatternError as error:
        raise PatternError(f"{refusal}: [{gopath.valid(' '.join(patterns))}]: {error.message}") from None


class FilterState:
    """What a `TreeFilter` knows about one directory.

    ``keeps(name, path)`` says whether an entry that is not a directory is sent.  ``withholds(name, path)`` is None if
    it never applies, else says whether the content of an entry that is sent is not: upstream asks its patterns another
    way when a file is opened, and with exceptions (``!``) the answers can differ; it then sends an empty file.

    Raises (both and `enter`):
        PatternError: a pattern that cannot be compiled was needed.
    """

    __slots__ = ("_exclude", "_filter", "_include", "keeps", "withholds")

    def __init__(self, filter: TreeFilter, include: MatchState | None, exclude: tuple[MatchState, ...]):
        self._filter = filter
        self._include = include
        self._exclude = exclude
        self.keeps: NameTest = _keeps(include, exclude)
        self.withholds: NameTest | None = _withholds(include, exclude)

    @property
    def may_keep(self) -> bool:
        """Whether the patterns can keep anything in the directory, whatever it holds."""
        wanted = self._include is None or self._include.may_answer(True)
        return wanted and all(state.may_answer(False) for state in self._exclude)

    def enter(self, name: str, path: str) -> tuple[bool, FilterState | None]:
        """Whether a directory is itself sent, and the state to walk it with, or None if nothing in it can be sent."""
        kept = True
        filter = self._filter
        include = self._include
        if include is not None and filter._include is not None:
            matched, include = _named(include, name, path, "failed to match includepatterns")
            if not matched:
                kept = False
                prefixes = filter._include.prefixes
                if prefixes is not None and path + "/" not in prefixes:
                    return False, None
        exclude = []
        for prepared, state in zip(filter._exclude, self._exclude, strict=True):
            matched, entered = _named(state, name, path, "failed to match excludepatterns")
            if matched:
                kept = False
                prefixes = prepared.exception_prefixes
                if prefixes is not None and path + "/" not in prefixes:
                    return False, None
            exclude.append(entered)
        return kept, filter._state(include, tuple(exclude))


def _named(state: MatchState, name: str, path: str, what: str) -> tuple[bool, MatchState]:
    try:
        return state.enter(name, path)
    except PatternError as error:
        raise PatternError(f"{what}: {error.message}") from None


def _keeps(include: MatchState | None, exclude: tuple[MatchState, ...]) -> NameTest:
    if any(isinstance(state, SlowState) for state in (include, *exclude)):
        return _keeps_slowly(include, exclude)
    if include is not None:
        wanted = include.file
        if not exclude:
            return wanted
        unwanted = _any_file(exclude)

        def keeps(name: str, path: str) -> bool:
            return wanted(name, path) and not unwanted(name, path)

        return keeps
    refused = _any_file(exclude)

    def keeps_others(name: str, path: str) -> bool:
        return not refused(name, path)

    return keeps_others


def _any_file(states: tuple[MatchState, ...]) -> NameTest:
    if len(states) == 1:
        return states[0].file

    def matches_any(name: str, path: str) -> bool:
        return any(state.file(name, path) for state in states)

    return matches_any


def _keeps_slowly(include: MatchState | None, exclude: tuple[MatchState, ...]) -> NameTest:
    """All are asked, in upstream's order, because any of them may have a pattern that cannot be compiled."""

    def keeps(name: str, path: str) -> bool:
        kept = True
        try:
            what = "failed to match includepatterns"
            if include is not None:
                kept = include.file(name, path)
            what = "failed to match excludepatterns"
            for state in exclude:
                kept = not state.file(name, path) and kept
        except PatternError as error:
            raise PatternError(f"{what}: {error.message}") from None
        return kept

    return keeps


def _withholds(include: MatchState | None, exclude: tuple[MatchState, ...]) -> NameTest | None:
    needed = include if include is not None and not include.agrees else None
    refused = [state for state in exclude if not state.agrees]
    if needed is None and not refused:
        return None

    def withholds(name: str, path: str) -> bool:
        try:
            if needed is not None and not needed.direct(name, path):
                return True
            return any(state.direct(name, path) for state in refused)
        except PatternError:
            return True

    return withholds


def include_patterns(patterns: Sequence[str] | None, targets: Sequence[str] | None) -> list[str] | None:
    """The include patterns that hold together with what follow-paths resolved to (None: they do not restrict)."""
    if targets is None:
        return list(patterns) if patterns is not None else None
    return dedupe_paths([*(patterns or ()), *targets])


def dedupe_paths(paths: Sequence[str]) -> list[str] | None:
    """fsutil's ``dedupePaths``: without what is below another, or None if the root itself is among them.

    As there, a path with a leading slash is dropped while no other came before it.
    """
    kept: list[str] = []
    last = ""
    for path in paths:
        if path == ".":
            return None
        if path.startswith(last + "/"):
            continue
        kept.append(path)
        last = path
    return kept
