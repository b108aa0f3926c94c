"""What a daemon may make us keep: bounds for the status stream and for every message, far above what a build needs.

Whoever follows a build keeps something of every step, transfer and warning.  A daemon that invents them without end
would fill the memory, so it is stopped here, before anyone else hears of it.  And a message of a few megabytes can have
millions of values, each of which costs fifty times its bytes once it is read.  This file must not know who listens.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cogkit.buildkit.errors import FloodError
from cogkit.buildkit.protobuf_wire import BYTES, FIXED_SIZES, VARINT, WireError, read_varint

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from cogkit.buildkit.status import SolveStatus

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

MAX_VALUES = 1_000_000
"""Values in one answer of any kind: more than there are in a list of 70,000 cache records."""

_SCANNED = 1 << 20
"""Bytes of an answer below which it cannot have too many values to be read."""


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


def check_answer(message: bytes, kind: type[Message], name: str) -> None:
    """Refuse a marshalled ``kind`` that would take much more memory than it has bytes.

    Args:
        message: The answer.
        kind: What it should be.
        name: The method that it answers, for people.

    Raises:
        FloodError: it has too many values.
    """
    if len(message) >= _SCANNED and has_more_values(message, kind, MAX_VALUES):
        raise FloodError(f"the builder's answer to {name} is not credible: it has more than {MAX_VALUES:,} values")


def has_more_values(message: bytes, kind: type[Message], limit: int) -> bool:
    """Whether a marshalled ``kind`` has more than ``limit`` fields, those of the messages in it included.

    Where it cannot be read counting ends there: reading it will fail.
    """
    if len(message) <= 2 * limit:
        return False  # a field has two bytes at least
    count = 0
    open_messages: list[tuple[int, int, Any]] = [(0, len(message), kind.DESCRIPTOR)]
    while open_messages and count <= limit:
        at, end, descriptor = open_messages.pop()
        fields = descriptor.fields_by_number
        with suppress(WireError):
            while at < end and count <= limit:
                count += 1
                tag, at = (message[at], at + 1) if message[at] < 0x80 else read_varint(message, at)
                wire = tag & 7
                if wire == BYTES:
                    if at < end and message[at] < 0x80:
                        size, at = message[at], at + 1
                    else:
                        size, at = read_varint(message, at)
                    if size and (field := fields.get(tag >> 3)) is not None and field.message_type is not None:
                        open_messages.append((at, min(at + size, end), field.message_type))
                    at += size
                elif wire == VARINT:
                    _, at = read_varint(message, at)
                elif wire in FIXED_SIZES:
                    at += FIXED_SIZES[wire]
                else:
                    break
    return count > limit


def _entries(message: bytes) -> int:
    """Fields at the top of a message, counted up to the limit or to where it cannot be read."""
    at = count = 0
    with suppress(WireError):
        while at < len(message) and count <= MAX_ENTRIES:
            size, at = read_varint(message, at + 1)  # all tags of this message have one byte
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
