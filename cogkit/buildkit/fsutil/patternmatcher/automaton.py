"""Matching a parsed Go regular expression in time that grows with the text only, as Go does.

Python's ``re`` tries one way after the other; with several ``*`` in a pattern that can take minutes for one long name.
`matcher` gives such an expression an automaton that follows all ways at once, and others ``re``, which is faster.

Sets of states that were met are kept, so that a repeated step is one look-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cogkit.buildkit.fsutil.patternmatcher.goregexp import (
    Assertion,
    CharSet,
    Choice,
    Node,
    Repeat,
    Sequence,
    to_python,
    with_surrogates,
)
from cogkit.fast_dataclass import dataclass

_SLOW = 3
"""From this `_effort` on, an expression gets an automaton."""
_KEPT = 1 << 14  # steps that are kept in mind
_MOST_STATES = 1 << 16


def matcher(node: Node) -> Callable[[str], bool]:
    """A test whether the expression matches somewhere in a text."""
    if _effort(node) >= _SLOW and _states(node) <= _MOST_STATES:
        return Automaton(node).matches
    search = re.compile(to_python(node), re.ASCII).search
    return lambda text: search(text) is not None


def is_slow(node: Node) -> bool:
    """Whether ``re`` might take long over the expression."""
    return _effort(node) >= _SLOW


def _effort(node: Node) -> int:
    """How many places there are where ``re`` may have to go back and try again."""
    match node:
        case Repeat(inner, low, high):
            if high is None or high - low > 8:
                return 1 if isinstance(inner, CharSet) else _SLOW
            return _effort(inner) * max(1, high)
        case Sequence(nodes):
            return sum(map(_effort, nodes))
        case Choice(options):
            return max(map(_effort, options))
    return 0


def _states(node: Node) -> int:
    match node:
        case Repeat(inner, low, high):
            return (_states(inner) + 1) * max(1, high if high is not None else low + 1)
        case Sequence(nodes):
            return sum(map(_states, nodes)) + 1
        case Choice(options):
            return sum(map(_states, options)) + len(options)
    return 1


@dataclass(frozen=True, slots=True)
class _Char:
    """Goes on to ``next`` with one character of a set."""

    ranges: tuple[tuple[int, int], ...]
    next: int


@dataclass(frozen=True, slots=True)
class _Test:
    """Goes on to ``next`` where the assertion holds."""

    kind: str
    next: int


@dataclass(frozen=True, slots=True)
class _Split:
    """Goes on to all of ``next`` at once."""

    next: tuple[int, ...]


class _Match:
    """The expression matches."""


_State = _Char | _Test | _Split | _Match


class Automaton:
    """A Thompson automaton: for each step of the text the set of states it can be in."""

    def __init__(self, node: Node):
        self._program: list[_State] = [_Match()]
        self._start = frozenset({self._add(node, 0)})
        self._closed: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._stepped: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, text: str) -> bool:
        """Whether the expression matches somewhere in text."""
        states = self._start
        last = len(text)
        for at in range(last + 1):
            here = _assertions_that_hold(text, at, last)
            closed = self._closed.get((states, here))
            if closed is None:
                closed = self._close(states, here)
            if 0 in closed:
                return True
            if at < last:
                char = text[at]
                following = self._stepped.get((closed, char))
                states = following if following is not None else self._step(closed, char)
        return False

    # ---- building, from the end to the start

    def _add(self, node: Node, after: int) -> int:
        match node:
            case CharSet(ranges):
                return self._state(_Char(with_surrogates(ranges), after))
            case Assertion(kind):
                return self._state(_Test(kind, after))
            case Sequence(nodes):
                for inner in reversed(nodes):
                    after = self._add(inner, after)
                return after
            case Choice(options):
                return self._state(_Split(tuple(self._add(option, after) for option in options)))
            case Repeat(inner, low, high):
                return self._add_repeat(inner, low, high, after)

    def _add_repeat(self, node: Node, low: int, high: int | None, after: int) -> int:
        if high is None:
            loop = self._state(_Split((after,)))
            self._program[loop] = _Split((self._add(node, loop), after))
            start = loop
        else:
            start = after
            for _ in range(high - low):
                start = self._state(_Split((self._add(node, start), after)))
        for _ in range(low):
            start = self._add(node, start)
        return start

    def _state(self, state: _State) -> int:
        self._program.append(state)
        return len(self._program) - 1

    # ---- running

    def _close(self, states: frozenset[int], here: str) -> frozenset[int]:
        """All states that can be reached without a character, where the assertions in ``here`` hold."""
        reached: set[int] = set()
        todo = list(states)
        while todo:
            number = todo.pop()
            if number in reached:
                continue
            reached.add(number)
            state = self._program[number]
            if isinstance(state, _Split):
                todo.extend(state.next)
            elif isinstance(state, _Test) and state.kind in here:
                todo.append(state.next)
        closed = frozenset(number for number in reached if isinstance(self._program[number], _Char | _Match))
        _keep(self._closed, (states, here), closed)
        return closed

    def _step(self, states: frozenset[int], char: str) -> frozenset[int]:
        code = ord(char)
        # The match may begin at any place, so the start is always among the states.
        following = set(self._start)
        for number in states:
            state = self._program[number]
            if isinstance(state, _Char) and any(low <= code <= high for low, high in state.ranges):
                following.add(state.next)
        found = frozenset(following)
        _keep(self._stepped, (states, char), found)
        return found


def _keep(
    kept: dict[tuple[frozenset[int], str], frozenset[int]], key: tuple[frozenset[int], str], value: frozenset[int]
) -> None:
    if len(kept) >= _KEPT:
        kept.clear()
    kept[key] = value


def _assertions_that_hold(text: str, at: int, last: int) -> str:
    before = at > 0 and _is_word(text[at - 1])
    behind = at < last and _is_word(text[at])
    return ("^" if not at else "") + ("$" if at == last else "") + ("b" if before != behind else "B")


def _is_word(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char == "_")
