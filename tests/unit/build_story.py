"""Status events of an invented build, on a clock that starts at zero."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace

from cogkit.buildkit.status import (
    Instant,
    ProgressGroup,
    SolveStatus,
    Vertex,
    VertexLog,
    VertexStatus,
    VertexWarning,
)

EPOCH = 1_700_000_000


def at(seconds: float) -> Instant:
    """The time ``seconds`` after the story began."""
    whole, nanos = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return Instant.at(EPOCH + whole, nanos)


@dataclass
class Story:
    """Makes the events; each method returns one."""

    vertexes: dict[str, Vertex] = field(default_factory=dict)

    def begin(self, key: str, name: str, seconds: float = 0.0, group: ProgressGroup | None = None) -> SolveStatus:
        return self._say(Vertex(key, name, started=at(seconds), progress_group=group))

    def announce(self, key: str, name: str) -> SolveStatus:
        return self._say(Vertex(key, name))

    def end(self, key: str, seconds: float, *, cached: bool = False, error: str = "") -> SolveStatus:
        return self._say(replace(self.vertexes[key], completed=at(seconds), cached=cached, error=error))

    def log(self, key: str, seconds: float, text: str | bytes, stream: int = 1) -> SolveStatus:
        data = text.encode() if isinstance(text, str) else text
        return SolveStatus(logs=(VertexLog(key, at(seconds), stream, data),))

    def transfer(
        self, key: str, id: str, seconds: float, current: int, total: int = 0, started: float = 0.0, done: bool = False
    ) -> SolveStatus:
        completed = at(seconds) if done else None
        status = VertexStatus(
            id, key, at(seconds), current=current, total=total, started=at(started), completed=completed
        )
        return SolveStatus(statuses=(status,))

    def warn(self, key: str, short: str) -> SolveStatus:
        return SolveStatus(warnings=(VertexWarning(key, 1, short),))

    def _say(self, vertex: Vertex) -> SolveStatus:
        self.vertexes[vertex.digest] = vertex
        return SolveStatus(vertexes=(vertex,))


class Clock:
    """Stands for `time.monotonic` and `time.time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return EPOCH + self.now - 1000.0

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


class FakeWriter:
    """Stands for a `BackgroundWriter`: what is written is there at once."""

    idle = True

    def __init__(self, stream: io.StringIO | None = None) -> None:
        self.stream = stream or io.StringIO()
        self.written: list[str] = []

    def write(self, text: str) -> None:
        self.written.append(text)

    async def drain(self, seconds: float | None = None) -> None:
        del seconds

    @property
    def text(self) -> str:
        return "".join(self.written)
