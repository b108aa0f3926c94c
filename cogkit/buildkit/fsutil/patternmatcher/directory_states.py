"""Patterns prepared for walking a tree: what one name costs does not grow with the number of patterns.

`PatternMatcher.matches_using_parent_results` tries every pattern on every path.  Here a pattern is cut at its slashes
into steps, one per directory level, so that a directory has a *state*: which step each pattern has reached.  Entering a
directory moves the state on; states are shared, most directories of a tree have the same few.  In one state the steps
that could match a name are merged into a set of names, a tuple of endings and so on.

Neighbouring patterns of the same kind (both exclude, or both are ``!`` exceptions) form a *run*: within a run the order
does not matter for the answer.

What cannot be cut (a ``**`` inside a name, ``[^a]``, which matches a slash) is tried on the whole path.  A name with a
newline, which ``.*`` does not match, sends everything below it the slow way.  The results are exactly those of
`PatternMatcher`; tests compare the two, and both with upstream.

Nothing here touches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from enum import Enum
from typing import TypeAlias

from cogkit.buildkit.fsutil.patternmatcher import automaton, goregexp
from cogkit.buildkit.fsutil.patternmatcher.goregexp import Assertion, CharSet, Node, Repeat, Sequence
from cogkit.buildkit.fsutil.patternmatcher.patterns import MatchInfo, MatchType, MobyPattern, PatternMatcher
from cogkit.fast_dataclass import dataclass

NameTest: TypeAlias = Callable[[str, str], bool]
"""Called with the last part of a path and the whole path."""


class _Shape(Enum):
    LITERAL = "literal"
    ANY = "any"
    STARTS = "starts"
    ENDS = "ends"
    REGEXP = "regexp"
    SLOW = "automaton"


@dataclass(frozen=True, slots=True)
class _Name:
    """A step that matches one part of a path."""

    shape: _Shape
    texts: tuple[str, ...] = ()
    """Alternatives; for REGEXP one regular expression."""
    slow: Callable[[str], bool] | None = None
    """Set for SLOW."""


class _Jump(Enum):
    """Steps that take more than one part."""

    ANY_PARTS = "zero or more"
    REST = "one or more, up to the end"


_Step: TypeAlias = _Name | _Jump
_Position: TypeAlias = tuple[int, int]  # pattern, step

_FEW = 16
_NOT_SLASH = goregexp.negate(((0x2F, 0x2F),))
_DOT_STAR = Repeat(CharSet(goregexp.negate(((0x0A, 0x0A),))), 0, None)
_SLASH = CharSet(((0x2F, 0x2F),))
_ANY_PARTS_GROUP = Repeat(Sequence((_DOT_STAR, _SLASH)), 0, 1)
_STAR = Repeat(CharSet(_NOT_SLASH), 0, None)


def _steps(pattern: MobyPattern) -> tuple[_Step, ...] | None:
    """The pattern cut at its slashes, or None if that cannot be done."""
    cut = pattern.literal_text
    if pattern.match_type is MatchType.EXACT:
        return tuple(_Name(_Shape.LITERAL, (part,)) for part in cut.split("/"))
    if pattern.match_type is MatchType.PREFIX:
        if not cut.endswith("/"):
            return None
        return (*(_Name(_Shape.LITERAL, (part,)) for part in cut[:-1].split("/")), _Jump.REST)
    if pattern.match_type is MatchType.SUFFIX:
        if not cut:
            return (_Jump.REST,)
        first, *others = cut.split("/")
        tail = tuple(_Name(_Shape.LITERAL, (part,)) for part in others)
        if not first:
            return (_Jump.ANY_PARTS, *tail)
        if _has_surrogates(first):
            return None
        return (_Jump.ANY_PARTS, _Name(_Shape.ENDS, (first,)), *tail)
    return _regexp_steps(pattern.expression)


def _regexp_steps(expression: Node | None) -> tuple[_Step, ...] | None:
    if not isinstance(expression, Sequence):
        return None
    nodes = expression.nodes
    if len(nodes) < 2 or nodes[0] != Assertion("^") or nodes[-1] != Assertion("$"):
        return None
    steps: list[_Step] = []
    part: list[Node] = []
    inner = nodes[1:-1]
    for index, node in enumerate(inner):
        if node == _ANY_PARTS_GROUP and not part:
            steps.append(_Jump.ANY_PARTS)
        elif node == _SLASH:
            steps.append(_name_step(part))
            part = []
        elif node == _DOT_STAR and not part and index == len(inner) - 1:
            steps.append(_Jump.REST)
            return tuple(steps)
        elif _stays_in_part(node):
            part.append(node)
        else:
            return None
    if not part:
        return None
    steps.append(_name_step(part))
    return tuple(steps)


def _stays_in_part(node: Node) -> bool:
    if isinstance(node, Repeat):
        return _stays_in_part(node.node)
    return isinstance(node, CharSet) and "/" not in node


def _name_step(part: list[Node]) -> _Name:
    star = part.index(_STAR) if _STAR in part else None
    around = [node for at, node in enumerate(part) if at != star]
    texts = _few_texts(around)
    if texts is not None:
        if star is None:
            return _Name(_Shape.LITERAL, texts)
        if part == [_STAR]:
            return _Name(_Shape.ANY)
        if star == 0:
            return _Name(_Shape.ENDS, texts)
        if star == len(part) - 1:
            return _Name(_Shape.STARTS, texts)
    expression = Sequence(tuple(part))
    if automaton.is_slow(expression):
        whole = Sequence((Assertion("^"), *part, Assertion("$")))
        return _Name(_Shape.SLOW, slow=automaton.matcher(whole))
    return _Name(_Shape.REGEXP, (goregexp.to_python(expression),))


def _few_texts(nodes: list[Node]) -> tuple[str, ...] | None:
    """All texts that the nodes match, as ``.py[cod]`` matches three; None if there are too many."""
    texts = [""]
    for node in nodes:
        if not isinstance(node, CharSet):
            return None
        count = sum(high - low + 1 for low, high in node.ranges)
        # U+FFFD stands for every invalid byte.
        if not 0 < count * len(texts) <= _FEW or "\ufffd" in node:
            return None
        chars = [chr(code) for low, high in node.ranges for code in range(low, high + 1)]
        texts = [text + char for text in texts for char in chars]
    return tuple(texts)


def _has_surrogates(text: str) -> bool:
    return any(0xD800 <= ord(char) <= 0xDFFF for char in text)


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring patterns of one kind: ``value`` is what a match makes of the answer."""

    value: bool
    indexes: tuple[int, ...]


class PreparedMatcher:
    """A `PatternMatcher` made ready for walks; keeps the states it has met."""

    def __init__(self, matcher: PatternMatcher):
        self.matcher = matcher
        self.patterns = matcher.patterns
        self.runs = tuple(_runs(matcher.patterns))
        # With a pattern that cannot be compiled, who is asked in which order decides whether it is noticed.
        usable = all(pattern.regex is not None for pattern in matcher.patterns)
        steps = [_steps(pattern) if usable else None for pattern in matcher.patterns]
        self.steps: dict[int, tuple[_Step, ...]] = {index: cut for index, cut in enumerate(steps) if cut is not None}
        self._positions: dict[frozenset[_Position], _Positions] = {}
        self._states: dict[tuple[int, int, int], DirState] = {}
        start = self._closure((index, 0) for index in self.steps)
        self.root: MatchState = self._state(self._positions_for(start), 0, 0) if usable else SlowState(matcher)
        wanted = (pattern for pattern in matcher.patterns if not pattern.exclusion)
        exceptions = (pattern for pattern in matcher.patterns if pattern.exclusion)
        self.prefixes = _prefixes(wanted)
        """What may lead to a match: every directory (with a slash) above one; None if only walking can tell."""
        self.exception_prefixes = _prefixes(exceptions)
        """The same of the ``!`` patterns."""

    def _closure(self, positions: Iterable[_Position]) -> frozenset[_Position]:
        reached = set()
        for index, step in positions:
            steps = self.steps[index]
            while step < len(steps):
                reached.add((index, step))
                if steps[step] is not _Jump.ANY_PARTS:
                    break
                step += 1
        return frozenset(reached)

    def _positions_for(self, key: frozenset[_Position]) -> _Positions:
        found = self._positions.get(key)
        if found is None:
            found = self._positions[key] = _Positions(self, key)
        return found

    def _state(self, positions: _Positions, matched: int, above: int) -> DirState:
        key = (id(positions), matched, above)
        found = self._states.get(key)
        if found is None:
            found = self._states[key] = DirState(self, positions, matched, above)
        return found


def _runs(patterns: tuple[MobyPattern, ...]) -> Iterable[_Run]:
    indexes: list[int] = []
    for index, pattern in enumerate(patterns):
        if indexes and patterns[indexes[-1]].exclusion != pattern.exclusion:
            yield _Run(not patterns[indexes[-1]].exclusion, tuple(indexes))
            indexes = []
        indexes.append(index)
    if indexes:
        yield _Run(not patterns[indexes[-1]].exclusion, tuple(indexes))


def _prefixes(patterns: Iterable[MobyPattern]) -> frozenset[str] | None:
    prefixes: set[str] = set()
    for pattern in patterns:
        if not pattern.is_plain_prefix:
            return None
        text = pattern.without_trailing_glob + "/"
        at = text.find("/")
        while at >= 0:
            prefixes.add(text[: at + 1])
            at = text.find("/", at + 1)
    return frozenset(prefixes)


def _slow_test(patterns: tuple[MobyPattern, ...], run: _Run) -> NameTest:
    members = [patterns[index] for index in run.indexes]

    def test(name: str, path: str) -> bool:
        return any(pattern.matches(path) for pattern in members)

    return test


class _Positions:
    """The steps all patterns have reached in a directory: tests for names in it, and the way into subdirectories."""

    def __init__(self, prepared: PreparedMatcher, key: frozenset[_Position]):
        self._prepared = prepared
        self.live = frozenset(index for index, _ in key)
        """Patterns that may still match something in the directory."""
        self._stay: list[_Position] = []
        self._literal_moves: dict[str, list[_Position]] = {}
        self._other_moves: list[tuple[NameTest, _Position]] = []
        final: dict[int, list[_Name]] = {}
        everything: set[int] = set()
        for index, at in sorted(key):
            step = prepared.steps[index][at]
            if isinstance(step, _Jump):
                self._stay.append((index, at))
                if step is _Jump.REST:
                    everything.add(index)
                continue
            if at + 1 == len(prepared.steps[index]):
                final.setdefault(index, []).append(step)
                continue
            move = (index, at + 1)
            if step.shape is _Shape.LITERAL:
                for text in step.texts:
                    self._literal_moves.setdefault(text, []).append(move)
            else:
                self._other_moves.append((_names_test([step]), move))
        self.tests = tuple(self._run_test(run, final, everything) for run in prepared.runs)

    def _run_test(self, run: _Run, final: dict[int, list[_Name]], everything: set[int]) -> NameTest | None:
        prepared = self._prepared
        slow = _slow_test(prepared.patterns, run)
        names = [name for index in run.indexes for name in final.get(index, ())]
        whole = [prepared.patterns[index].matches for index in run.indexes if index not in prepared.steps]
        if not names and not whole and everything.isdisjoint(run.indexes):
            return None
        if not everything.isdisjoint(run.indexes):
            names.append(_Name(_Shape.ANY))
        return _names_test(names, whole, slow)

    def enter(self, name: str) -> _Positions:
        prepared = self._prepared
        moved = list(self._literal_moves.get(name, ()))
        for test, position in self._other_moves:
            if test(name, name):
                moved.append(position)
        return prepared._positions_for(prepared._closure([*self._stay, *moved]))


def _names_test(
    steps: SequenceOf[_Name], whole: SequenceOf[Callable[[str], bool]] = (), newline: NameTest | None = None
) -> NameTest:
    """One test for all the steps; ``whole`` are tried on the path, ``newline`` replaces it all for such a name."""
    literals = frozenset(_texts(steps, _Shape.LITERAL))
    starts = _texts(steps, _Shape.STARTS)
    ends = _texts(steps, _Shape.ENDS)
    anything = any(step.shape is _Shape.ANY for step in steps)
    slow = [step.slow for step in steps if step.slow is not None]
    expressions = _texts(steps, _Shape.REGEXP)
    regexp = re.compile(rf"(?:{'|'.join(expressions)})\Z", re.ASCII).match if expressions else None

    def by_text(name: str, path: str) -> bool:
        if newline is not None and "\n" in name:
            return newline(name, path)
        return name in literals or name.endswith(ends)

    def by_everything(name: str, path: str) -> bool:
        if newline is not None and "\n" in name:
            return newline(name, path)
        if anything or name in literals or name.endswith(ends) or name.startswith(starts):
            return True
        if regexp is not None and regexp(name) is not None:
            return True
        if slow and any(matches(name) for matches in slow):
            return True
        return bool(whole) and any(matches(path) for matches in whole)

    return by_everything if starts or anything or regexp or slow or whole else by_text


def _texts(steps: SequenceOf[_Name], shape: _Shape) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for step in steps if step.shape is shape for text in step.texts))


class SlowState:
    """A directory's state that leaves everything to the `PatternMatcher`; see `DirState` for the methods."""

    __slots__ = ("_info", "_matcher")

    agrees = False

    def may_answer(self, value: bool) -> bool:
        return True

    def __init__(self, matcher: PatternMatcher, info: MatchInfo | None = None):
        self._matcher = matcher
        self._info = info or MatchInfo()

    def file(self, name: str, path: str) -> bool:
        return self._matcher.matches_using_parent_results(path, self._info)[0]

    def direct(self, name: str, path: str) -> bool:
        return self._matcher.matches_or_parent_matches(path)

    def enter(self, name: str, path: str) -> tuple[bool, MatchState]:
        matched, info = self._matcher.matches_using_parent_results(path, self._info)
        return matched, SlowState(self._matcher, info)


class DirState:
    """What a matcher knows about a directory.  Shared and immutable.

    ``file(name, path)`` says whether an entry of the directory that is not itself a directory matches, as
    ``MatchesUsingParentResults`` has it.
    """

    __slots__ = ("_above", "_matched", "_positions", "_prepared", "agrees", "file")

    def __init__(self, prepared: PreparedMatcher, positions: _Positions, matched: int, above: int):
        self._prepared = prepared
        self._positions = positions
        self._matched = matched  # bit per pattern: MatchInfo.parentMatched
        self._above = above  # bit per run: a directory of this path matches it, whatever the other runs say
        self.file: NameTest = self._file_test()
        self.agrees: bool = all(
            any(matched >> index & 1 for index in run.indexes) == bool(above >> number & 1)
            for number, run in enumerate(prepared.runs)
        )
        """`direct` gives the same answers as `file`."""

    def _file_test(self) -> NameTest:
        answer = False
        later: list[tuple[bool, NameTest]] = []
        for run, test in zip(self._prepared.runs, self._positions.tests, strict=True):
            if any(self._matched >> index & 1 for index in run.indexes):
                answer = run.value
                later = []
            elif test is not None and (later or run.value != answer):
                later.append((run.value, test))
        if not later:
            return _always if answer else _never
        if len(later) == 1 and later[0][0]:
            return later[0][1]

        def test_runs(name: str, path: str) -> bool:
            result = answer
            for value, matches in later:
                if value != result and matches(name, path):
                    result = value
            return result

        return test_runs

    def may_answer(self, value: bool) -> bool:
        """Whether anything below the directory can match (True), or can fail to (False)."""
        prepared = self._prepared
        answer = False
        for run in prepared.runs:
            if any(self._matched >> index & 1 for index in run.indexes):
                answer = run.value
        return answer == value or any(
            index in self._positions.live or index not in prepared.steps
            for run in prepared.runs
            if run.value == value
            for index in run.indexes
        )

    def direct(self, name: str, path: str) -> bool:
        """Whether a file matches as ``MatchesOrParentMatches`` has it, which is not always the same."""
        result = False
        for number, (run, test) in enumerate(zip(self._prepared.runs, self._positions.tests, strict=True)):
            if run.value != result and (self._above >> number & 1 or (test is not None and test(name, path))):
                result = run.value
        return result

    def enter(self, name: str, path: str) -> tuple[bool, MatchState]:
        """Whether a directory in this one matches, and its own state."""
        prepared = self._prepared
        matched = above = 0
        answer = False
        for number, (run, test) in enumerate(zip(prepared.runs, self._positions.tests, strict=True)):
            hit = test is not None and test(name, path)
            for index in run.indexes:
                if self._matched >> index & 1 or (
                    hit and run.value != answer and prepared.patterns[index].matches(path)
                ):
                    matched |= 1 << index
                    answer = run.value
            if hit or self._above >> number & 1:
                above |= 1 << number
        if "\n" in name:
            bits = (bool(matched >> index & 1) for index in range(len(prepared.patterns)))
            return answer, SlowState(prepared.matcher, MatchInfo(tuple(bits)))
        return answer, prepared._state(self._positions.enter(name), matched, above)


MatchState: TypeAlias = DirState | SlowState


def _always(name: str, path: str) -> bool:
    return True


def _never(name: str, path: str) -> bool:
    return False
