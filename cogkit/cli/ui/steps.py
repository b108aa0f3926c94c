"""The steps of a build as far as the status stream has told of them.

`Steps` takes in the events and keeps, for each step, what a view needs: when it ran, its transfers, its output, its
error.  The rules of what counts as one step are BuildKit's (``util/progress/progressui/display.go``): vertices of one
progress group are shown as one, and a step that runs again adds an interval.  This file must not print anything.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import field, replace
from datetime import datetime
from typing import TypeAlias

from cogkit.buildkit.status import CANCELED, Instant, SolveStatus, Vertex, VertexLog, VertexStatus, VertexWarning
from cogkit.fast_dataclass import dataclass

Interval: TypeAlias = tuple[Instant, Instant | None]
"""Start and end; no end while it lasts."""

_LINES = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")

_MAX_PARTIAL = 64 << 10
"""Bytes of a line of output that does not end; what is longer is shown in pieces."""

_MAX_WAITING = 8 << 20
"""Characters of a step's output that may wait for a view."""

_MAX_TAIL_LINE = 8 << 10
"""Characters that are kept of a line for the case that the step fails."""

_MAX_OUTPUT = 32 << 20
"""Characters of output that are kept of all steps together, about."""

_MAX_INTERVALS = 100

TAIL_LINES = 200
"""Lines of output kept of each step, to be shown if it fails."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a step's output; ``seconds`` since the step's start."""

    seconds: float
    text: str

    def __str__(self) -> str:
        digits = 3 if self.seconds < 10 else 2 if self.seconds < 100 else 1
        return f"{self.seconds:.{digits}f} {self.text}"


@dataclass(slots=True, eq=False)
class Step:
    """One step as it stands now.

    Attributes:
        key: The vertex's digest, or the id of its progress group.
        vertex: What the daemon last said; of a group, its members taken together.
        hidden: Part of a group that has nothing to show yet.
        intervals: Start to end (None while it runs) of each time it ran.
        statuses: Its transfers by id, in the order in which they started.
        changed: Ids of the transfers that changed since a view last took them.
        lines: Output that no view has taken yet.
        tail: The last lines of its output.
        dropped: How many lines came before `tail`.
        left_out: How many lines came before `lines` and were not taken in time.
        busy_since: Local clock when its first change came that no view has taken yet.
        changes: Changes since then.
        spoke_at: Local clock when its last output came.
    """

    key: str
    vertex: Vertex
    hidden: bool = False
    intervals: dict[Instant, Instant | None] = field(default_factory=dict)
    statuses: dict[str, VertexStatus] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    lines: list[LogLine] = field(default_factory=list)
    tail: deque[LogLine] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    dropped: int = 0
    left_out: int = 0
    warnings: list[VertexWarning] = field(default_factory=list)
    busy_since: float = 0.0
    changes: int = 0
    spoke_at: float = 0.0
    _waiting: int = 0
    _partial: bytearray = field(default_factory=bytearray)
    _partial_seconds: float = 0.0
    _partial_since: float = 0.0
    _frame: bool = False
    _cut: bool = False
    _ran: tuple[Interval, ...] | None = None

    @property
    def ran(self) -> tuple[Interval, ...]:
        """When it ran, overlapping intervals taken together, in order."""
        if self._ran is None:
            self._ran = merged(self.intervals.items())
        return self._ran

    @property
    def started(self) -> bool:
        return bool(self.ran)

    @property
    def completed(self) -> bool:
        return bool(self.ran) and self.ran[-1][1] is not None

    @property
    def canceled(self) -> bool:
        return self.vertex.error.endswith(CANCELED)

    @property
    def failed(self) -> bool:
        return bool(self.vertex.error) and not self.canceled

    def seconds(self, now: datetime) -> float:
        """How long it ran until ``now`` (the daemon's clock)."""
        return sum(((stop or now) - start).total_seconds() for start, stop in self.ran)

    def note_change(self, count: int = 1) -> None:
        if self.changes == 0:
            self.busy_since = time.monotonic()
        self.changes += count

    def add_interval(self, start: Instant, stop: Instant | None) -> bool:
        """Take in when it ran; returns whether that is news."""
        if start in self.intervals and self.intervals[start] == stop:
            return False
        self.intervals[start] = stop
        if len(self.intervals) > _MAX_INTERVALS:
            self.intervals.pop(next(iter(self.intervals)))
        self._ran = None
        return True

    def add_output(self, log: VertexLog) -> None:
        """Take in output.  A carriage return ends a line that the next one replaces, as a progress bar's frames do."""
        seconds = (log.timestamp - self.ran[-1][0]).total_seconds() if self.ran else 0.0
        self.spoke_at = time.monotonic()
        for piece, end in _LINES.findall(log.data):
            if not end:
                if piece and not self._partial:
                    self._partial_seconds, self._partial_since = seconds, self.spoke_at
                self._partial += piece
                if len(self._partial) > _MAX_PARTIAL:
                    self.flush()
            elif self._partial:
                self._partial += piece
                self.flush(frame=end == b"\r")
            elif piece or (end != b"\r" and not self._frame and not self._cut):
                self._add_line(LogLine(seconds, piece.decode("utf-8", "replace")), frame=end == b"\r")
            else:
                # The end of what stands as a line already: a frame, or one that was cut because it took too long.
                self._frame = self._frame and end == b"\r"
                self._cut = False

    def flush(self, older_than: float = 0.0, *, frame: bool = False) -> None:
        """Make a line of output that has not ended its line for ``older_than`` seconds."""
        if self._partial and time.monotonic() - self._partial_since >= older_than:
            text = self._partial.decode("utf-8", "replace")
            self._partial.clear()
            self._add_line(LogLine(self._partial_seconds, text), frame=frame)
            self._cut = older_than > 0

    def _add_line(self, line: LogLine, *, frame: bool) -> None:
        self.lines.append(line)
        self._waiting += len(line.text)
        if self._waiting > _MAX_WAITING:
            self._leave_out()
        if self._frame and self.tail:
            self.tail.pop()
        self.dropped += len(self.tail) == TAIL_LINES
        cut = len(line.text) > _MAX_TAIL_LINE
        self.tail.append(replace(line, text=f"{line.text[:_MAX_TAIL_LINE]}…") if cut else line)
        self._frame = frame
        self._cut = False

    def _leave_out(self) -> None:
        """Nobody takes the output as fast as it comes: keep the end of it."""
        count = max(1, len(self.lines) // 2)
        self.left_out += count
        self.lines[:count] = []
        self._waiting = sum(len(line.text) for line in self.lines)

    @property
    def output_size(self) -> int:
        """Characters of output that are kept."""
        return self._waiting + sum(len(line.text) for line in self.tail)

    def forget_output(self) -> None:
        """Give up what is kept of the output."""
        self.left_out += len(self.lines)
        self.lines.clear()
        self._waiting = 0
        self.dropped += len(self.tail)
        self.tail.clear()

    def take_lines(self) -> list[LogLine]:
        """The output since the last call."""
        lines, self.lines, self._waiting = self.lines, [], 0
        if self.left_out:
            lines.insert(0, LogLine(lines[0].seconds if lines else 0.0, f"[{self.left_out:,} lines are not shown]"))
            self.left_out = 0
        return lines


@dataclass(slots=True, eq=False)
class _Group:
    """The vertices that are shown as one step."""

    step: Step
    members: dict[str, Vertex] = field(default_factory=dict)

    def refresh(self) -> bool:
        """Bring the step up to date with the members; returns whether something changed that can be seen."""
        step, news = self.step, False
        was_hidden = step.hidden
        for member in self.members.values():
            if member.started is not None:
                news |= step.add_interval(member.started, member.completed)
                assert member.progress_group is not None
                if not member.progress_group.weak:
                    step.hidden = False
            if member.error:
                step.hidden = False
        cached = all(member.cached for member in self.members.values())
        error = next((member.error for member in self.members.values() if member.error), "")
        if (cached, error) != (step.vertex.cached, step.vertex.error):
            step.vertex = replace(step.vertex, cached=cached, error=error)
            news = True
        return news or was_hidden != step.hidden


class Steps:
    """All steps of one build.

    Attributes:
        shown: Steps that have started, in that order.
        updated: Keys of the steps that changed since a view last took them.
        clock_offset: Local clock (`time.time`) minus the daemon's, in seconds, as first seen.
        started_at: When the first step started, on the daemon's clock.
    """

    def __init__(self) -> None:
        self.shown: list[Step] = []
        self._shown: set[str] = set()
        self.updated: set[str] = set()
        self.clock_offset = 0.0
        self.started_at: Instant | None = None
        self._talking: dict[str, Step] = {}
        """Steps with output, those that spoke last at the end."""
        self._said = 0
        self._by_key: dict[str, Step] = {}
        self._by_digest: dict[str, Step] = {}
        self._groups: dict[str, _Group] = {}

    def __iter__(self) -> Iterator[Step]:
        """The steps that count: those in a hidden group do not."""
        return (step for step in self._by_key.values() if not step.hidden)

    def __getitem__(self, key: str) -> Step:
        return self._by_key[key]

    def add(self, status: SolveStatus) -> None:
        """Take in one event."""
        touched: dict[str, _Group] = {}
        for vertex in status.vertexes:
            if vertex.progress_group is None:
                self._add_vertex(vertex)
            else:
                group = self._group_of(vertex)
                group.members[vertex.digest] = vertex
                touched[group.step.key] = group
        for group in touched.values():
            if group.refresh() and not group.step.hidden:
                self._show(group.step)
                self._note(group.step)
        for transfer in status.statuses:
            if step := self._by_digest.get(transfer.vertex):
                self._add_transfer(step, transfer)
        for warning in status.warnings:
            if step := self._by_digest.get(warning.vertex):
                step.warnings.append(warning)
                self._note(step)
        for log in status.logs:
            if step := self._by_digest.get(log.vertex):
                step.add_output(log)
                self._note(step)
                self._talking.pop(step.key, None)
                self._talking[step.key] = step
                self._said += len(log.data)
        if self._said > _MAX_OUTPUT // 8:
            self._said = 0
            self._bound_output()

    def _bound_output(self) -> None:
        """Give up the output of the steps that have been silent for longest, if there is too much in all."""
        sizes = {key: step.output_size for key, step in self._talking.items()}
        total = sum(sizes.values())
        for key in list(sizes)[:-1]:
            if total <= _MAX_OUTPUT:
                return
            total -= sizes[key]
            self._talking.pop(key).forget_output()

    def failed(self) -> list[Step]:
        """Steps whose own error ended the build, in the order in which they started."""
        return [step for step in self.shown if step.failed]

    def _add_vertex(self, vertex: Vertex) -> None:
        step = self._by_digest.get(vertex.digest)
        if step is None:
            step = self._by_key[vertex.digest] = self._by_digest[vertex.digest] = Step(vertex.digest, vertex)
        elif vertex.started is not None or not step.started:
            # A vertex may be announced again before it starts; that must not undo what is known.
            news = _differs(step.vertex, vertex)
            step.vertex = vertex
            if not news and vertex.started in step.intervals:
                return
        if vertex.started is not None:
            step.add_interval(vertex.started, vertex.completed)
            self._show(step)
            self._note(step)

    def _add_transfer(self, step: Step, transfer: VertexStatus) -> None:
        if transfer.started is not None or transfer.id in step.statuses:
            step.statuses[transfer.id] = transfer
        step.changed.add(transfer.id)
        self._note(step)

    def _group_of(self, vertex: Vertex) -> _Group:
        assert vertex.progress_group is not None
        key = vertex.progress_group.id
        group = self._groups.get(key)
        if group is None:
            stand_in = Vertex(digest=key, name=vertex.progress_group.name, cached=True)
            group = self._groups[key] = _Group(Step(key, stand_in, hidden=True))
            self._by_key[key] = group.step
        self._by_digest[vertex.digest] = group.step
        return group

    def _show(self, step: Step) -> None:
        if not step.started or step.key in self._shown:
            return
        if self.started_at is None:
            self.started_at = step.ran[0][0]
            self.clock_offset = time.time() - self.started_at.timestamp()
        self.shown.append(step)
        self._shown.add(step.key)

    def _note(self, step: Step) -> None:
        step.note_change()
        self.updated.add(step.key)


def _differs(old: Vertex, new: Vertex) -> bool:
    """Whether ``new`` says something that a view shows."""
    return (old.name, old.started, old.completed, old.cached, old.error) != (
        new.name,
        new.started,
        new.completed,
        new.cached,
        new.error,
    )


def merged(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Overlapping intervals as one, in order; one that has not ended takes in all that start after it."""
    result: list[Interval] = []
    for start, stop in sorted(intervals, key=lambda interval: interval[0]):
        if not result or (result[-1][1] is not None and result[-1][1] < start):
            result.append((start, stop))
            continue
        first, last = result[-1]
        if last is not None:
            result[-1] = (first, None if stop is None else max(last, stop))
    return tuple(result)
