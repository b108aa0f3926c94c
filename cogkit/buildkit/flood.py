"""What a daemon may make its listeners keep: bounds for the status stream, far above what any build needs.

Whoever follows a build keeps something of every step, transfer and warning.  A daemon that invents them without end
would fill the memory, so it is stopped here, before anyone else hears of it.  This file must not know who listens.
"""

from __future__ import annotations

from cogkit.buildkit.status import SolveStatus
from cogkit.errors import BuildError

MAX_MESSAGE = 4 << 20
"""Bytes of one message.  BuildKit begins a new one after 1 MiB of output (``client/graph.go``)."""

MAX_ENTRIES = 100_000
"""Vertices, transfers, warnings and pieces of output in one message: each costs far more memory than it has bytes."""

MAX_STEPS = 20_000
"""Vertices of one build."""

MAX_KEPT = 50_000
"""Vertices, transfers and warnings of one build together."""

MAX_KEPT_BYTES = 64 << 20
"""Bytes of their texts."""


class FloodError(BuildError):
    """The daemon reports more than a build can have (exit code 1)."""


def check_message(message: bytes) -> None:
    """Refuse a marshalled ``StatusResponse`` that would take much more memory than it has bytes.

    Raises:
        FloodError: it has too many entries.
    """
    if len(message) > MAX_MESSAGE:
        raise FloodError(f"the builder sent {len(message):,} bytes of progress at once")
    # An entry has two bytes at least.
    if len(message) >= 2 * MAX_ENTRIES and _entries(message) > MAX_ENTRIES:
        raise FloodError(f"the builder reported more than {MAX_ENTRIES:,} things at once")


def _entries(message: bytes) -> int:
    """Fields at the top of a message, counted up to the limit or to where it cannot be read."""
    at = count = 0
    while at < len(message) and count <= MAX_ENTRIES:
        at += 1  # all tags of this message have one byte
        size = shift = 0
        while at < len(message) and shift < 35:
            byte = message[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at += size
        count += 1
    return count


class StatusGuard:
    """Adds up what one build's events make a listener keep."""

    def __init__(self) -> None:
        self._steps: set[str] = set()
        self._sizes: dict[tuple[str, str], int] = {}
        self._warnings = 0
        self._bytes = 0

    def check(self, status: SolveStatus) -> None:
        """Take in one event.

        Raises:
            FloodError: it is too much by now.
        """
        for vertex in status.vertexes:
            self._steps.add(vertex.digest)
            group = vertex.progress_group
            if group is not None:
                self._keep(("group", group.id), len(group.name))
            texts = (vertex.name, vertex.error, *vertex.inputs)
            self._keep(("vertex", vertex.digest), sum(map(len, texts)))
        for transfer in status.statuses:
            self._keep((transfer.vertex, transfer.id), len(transfer.name))
        for warning in status.warnings:
            self._warnings += 1
            source = len(warning.source.data) if warning.source else 0
            self._bytes += len(warning.short) + len(warning.url) + sum(map(len, warning.detail)) + source
        if len(self._steps) > MAX_STEPS:
            raise FloodError(f"the builder reported more than {MAX_STEPS:,} steps")
        if len(self._sizes) + self._warnings > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
            raise FloodError("the builder reported more progress than a build can have")

    def _keep(self, key: tuple[str, str], size: int) -> None:
        before = self._sizes.get(key)
        if before is None:
            self._bytes += len(key[0]) + len(key[1])
        self._sizes[key] = size
        self._bytes += size - (before or 0)
