"""The status stream of a solve as typed events.

`moby.buildkit.v1.StatusResponse` (BuildKit ``api/services/control/control.proto``) becomes `SolveStatus`, with the
names of BuildKit's ``client/graph.go``.  `to_rawjson` writes an event as ``--progress=rawjson`` of buildctl and buildx
does, byte for byte.  This file must not render anything for people, nor import protobuf before there is a message.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from cogkit._proto import control_pb2, ops_pb2


CANCELED = "context canceled"
"""How the error of a step ends that was stopped because something else failed or the user wanted it."""

_FIRST_SECOND = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
_LAST_SECOND = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


class Instant(datetime):
    """A UTC time of the daemon with all of its nanoseconds.

    It is a `datetime`, rounded down to the microsecond, for everything but `rfc3339`.  What arithmetic or `replace`
    makes of it has no nanoseconds.
    """

    _below_micro = 0

    @classmethod
    def at(cls, seconds: int, nanos: int = 0) -> Self:
        """The time ``seconds`` + ``nanos`` after the Unix epoch (``nanos`` in 0…999,999,999).

        What is not in the years 1 to 9999, which a timestamp must not be, becomes their beginning or end.
        """
        seconds, nanos = min(max(seconds, _FIRST_SECOND), _LAST_SECOND), min(max(nanos, 0), 999_999_999)
        instant = cls.fromtimestamp(seconds, UTC) if nanos < 1000 else cls._with_micros(seconds, nanos // 1000)
        instant._below_micro = nanos % 1000
        return instant

    @classmethod
    def _with_micros(cls, seconds: int, micros: int) -> Self:
        whole = datetime.fromtimestamp(seconds, UTC)
        return cls(whole.year, whole.month, whole.day, whole.hour, whole.minute, whole.second, micros, UTC)

    @property
    def nanosecond(self) -> int:
        """Nanoseconds of the second, 0…999,999,999."""
        return self.microsecond * 1000 + self._below_micro

    def rfc3339(self) -> str:
        """As Go's ``time.RFC3339Nano``: no trailing zeros in the fraction, ``Z`` for UTC."""
        fraction = f".{self.nanosecond:09d}".rstrip("0") if self.nanosecond else ""
        return f"{self.strftime('%Y-%m-%dT%H:%M:%S')}{fraction}Z"


@dataclass(frozen=True, slots=True)
class ProgressGroup:
    """Vertices of one group are shown as one step."""

    id: str
    name: str = ""
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Vertex:
    """A step of the build.  The same digest comes again whenever something of it changes.

    Attributes:
        digest: Identifies the step, ``sha256:…``.
        name: For people, such as ``[2/3] RUN make``.
        inputs: Digests of the steps that this one needs.
        started: When it began to run; None while it waits.
        completed: When it ended, well or not.
        cached: Its result was there already.
        error: Why it failed, empty if it did not.
        progress_group: The step to show in its place.
    """

    digest: str
    name: str = ""
    inputs: tuple[str, ...] = ()
    started: Instant | None = None
    completed: Instant | None = None
    cached: bool = False
    error: str = ""
    progress_group: ProgressGroup | None = None


@dataclass(frozen=True, slots=True)
class VertexStatus:
    """Progress of something inside a vertex, such as one layer's download.

    Attributes:
        id: What it is, unique in the vertex; often all there is to show (``transferring context:``).
        vertex: Digest of the vertex.
        current: Done so far, usually bytes.
        total: All there is, 0 if unknown.
    """

    id: str
    vertex: str
    timestamp: Instant
    name: str = ""
    current: int = 0
    total: int = 0
    started: Instant | None = None
    completed: Instant | None = None


@dataclass(frozen=True, slots=True)
class VertexLog:
    """Output of a vertex: any number of bytes, not whole lines.  ``stream`` is 1 for stdout, 2 for stderr."""

    vertex: str
    timestamp: Instant
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source file that vertices come from; ``definition`` is the marshalled LLB that gets the file."""

    filename: str
    data: bytes = b""
    language: str = ""
    definition: bytes = b""

    @classmethod
    def from_proto(cls, info: ops_pb2.SourceInfo) -> Self:
        definition = info.definition.SerializeToString() if info.HasField("definition") else b""
        return cls(info.filename, info.data, info.language, definition)


@dataclass(frozen=True, slots=True)
class Range:
    """Lines of a `SourceInfo`, from 1, both ends included; characters from 0."""

    start_line: int
    end_line: int
    start_character: int = 0
    end_character: int = 0

    @classmethod
    def from_proto(cls, span: ops_pb2.Range) -> Self:
        return cls(span.start.line, span.end.line, span.start.character, span.end.character)

    def __contains__(self, line: object) -> bool:
        return isinstance(line, int) and self.start_line <= line <= max(self.start_line, self.end_line)


@dataclass(frozen=True, slots=True)
class VertexWarning:
    """A frontend's warning, such as a finding of Dockerfile's linter.

    Attributes:
        vertex: Digest of the vertex that it is shown at.
        level: 1 for most; higher is less important.
        short: One line.
        detail: Further lines.
        url: Where to read more, or empty.
        source: The file it is about.
        ranges: Where in the file.
    """

    vertex: str
    level: int
    short: str
    detail: tuple[str, ...] = ()
    url: str = ""
    source: SourceInfo | None = None
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class SolveStatus:
    """What changed in a build since the event before."""

    vertexes: tuple[Vertex, ...] = ()
    statuses: tuple[VertexStatus, ...] = ()
    logs: tuple[VertexLog, ...] = ()
    warnings: tuple[VertexWarning, ...] = ()

    @classmethod
    def from_proto(cls, response: control_pb2.StatusResponse) -> Self:
        """Take over one message of ``Control.Status``.  Text that is not UTF-8 gets replacement characters."""
        return cls(
            tuple(_vertex(each) for each in response.vertexes),
            tuple(_vertex_status(each) for each in response.statuses),
            tuple(VertexLog(each.vertex, _instant(each.timestamp), each.stream, each.msg) for each in response.logs),
            tuple(_warning(each) for each in response.warnings),
        )


def _instant(stamp: Timestamp) -> Instant:
    return Instant.at(stamp.seconds, stamp.nanos)


def _instant_or_none(message: Message, field: str) -> Instant | None:
    return _instant(getattr(message, field)) if message.HasField(field) else None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _vertex(vertex: control_pb2.Vertex) -> Vertex:
    group = vertex.progressGroup
    return Vertex(
        vertex.digest,
        _text(vertex.name),
        tuple(vertex.inputs),
        _instant_or_none(vertex, "started"),
        _instant_or_none(vertex, "completed"),
        vertex.cached,
        _text(vertex.error),
        ProgressGroup(group.id, group.name, group.weak) if vertex.HasField("progressGroup") else None,
    )


def _vertex_status(status: control_pb2.VertexStatus) -> VertexStatus:
    return VertexStatus(
        _text(status.ID),
        status.vertex,
        _instant(status.timestamp),
        _text(status.name),
        status.current,
        status.total,
        _instant_or_none(status, "started"),
        _instant_or_none(status, "completed"),
    )


def _warning(warning: control_pb2.VertexWarning) -> VertexWarning:
    return VertexWarning(
        warning.vertex,
        warning.level,
        _text(warning.short),
        tuple(_text(line) for line in warning.detail),
        warning.url,
        SourceInfo.from_proto(warning.info) if warning.HasField("info") else None,
        tuple(Range.from_proto(span) for span in warning.ranges),
    )


# --- rawjson: what Go's encoding/json makes of client.SolveStatus, with its field order and its omitempty ---

_Json = dict[str, Any]


def to_rawjson(status: SolveStatus) -> str:
    """One line, without its newline, of ``--progress=rawjson``."""
    return _go_dumps(
        _present(
            vertexes=[_vertex_json(each) for each in status.vertexes],
            statuses=[_vertex_status_json(each) for each in status.statuses],
            logs=[_log_json(each) for each in status.logs],
            warnings=[_warning_json(each) for each in status.warnings],
        )
    )


def _go_dumps(value: _Json) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Go's encoder makes its output safe inside HTML.  These characters occur nowhere but in strings.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _present(**fields: object) -> _Json:
    """The fields that Go's ``omitempty`` keeps."""
    return {name: value for name, value in fields.items() if value not in (None, False, 0, "", [], {})}


def _time(instant: datetime | None) -> str | None:
    if instant is None or isinstance(instant, Instant):
        return instant.rfc3339() if instant else None
    utc = instant.astimezone(UTC)
    return Instant.at(int(utc.timestamp()), utc.microsecond * 1000).rfc3339()


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _vertex_json(vertex: Vertex) -> _Json:
    made = _present(
        digest=vertex.digest,
        inputs=list(vertex.inputs),
        name=vertex.name,
        started=_time(vertex.started),
        completed=_time(vertex.completed),
        cached=vertex.cached,
        error=vertex.error,
    )
    if vertex.progress_group is not None:
        group = vertex.progress_group
        made["progressGroup"] = _present(id=group.id, name=group.name, weak=group.weak)
    return made


def _vertex_status_json(status: VertexStatus) -> _Json:
    return {
        "id": status.id,
        **_present(vertex=status.vertex, name=status.name, total=status.total),
        "current": status.current,
        "timestamp": _time(status.timestamp),
        **_present(started=_time(status.started), completed=_time(status.completed)),
    }


def _log_json(log: VertexLog) -> _Json:
    return {
        **_present(vertex=log.vertex, stream=log.stream),
        "data": _base64(log.data) if log.data else None,
        "timestamp": _time(log.timestamp),
    }


def warnings_json(warnings: Iterable[VertexWarning]) -> list[dict[str, Any]]:
    """Warnings as buildx writes them, in ``rawjson`` and elsewhere."""
    return [_warning_json(each) for each in warnings]


def _warning_json(warning: VertexWarning) -> _Json:
    made = _present(
        vertex=warning.vertex,
        level=warning.level,
        short=_base64(warning.short.encode()),
        detail=[_base64(line.encode()) for line in warning.detail],
        url=warning.url,
    )
    if warning.source is not None:
        made["sourceInfo"] = _source_json(warning.source)
    if warning.ranges:
        made["range"] = [_range_json(span) for span in warning.ranges]
    return made


def _source_json(source: SourceInfo) -> _Json:
    made = _present(filename=source.filename, data=_base64(source.data))
    if source.definition:
        from cogkit._proto import ops_pb2

        made["definition"] = _message_json(ops_pb2.Definition.FromString(source.definition))
    return made | _present(language=source.language)


def _range_json(span: Range) -> _Json:
    return {
        "start": _present(line=span.start_line, character=span.start_character),
        "end": _present(line=span.end_line, character=span.end_character),
    }


def _message_json(message: Message) -> _Json:
    """What encoding/json makes of a Go struct that protoc generated: upstream's names, everything ``omitempty``."""
    made: _Json = {}
    for field, value in message.ListFields():
        made[_upstream_name(field)] = dict(_map_json(field, value)) if _is_map(field) else _field_json(field, value)
    return made


def _field_json(field: FieldDescriptor, value: Any) -> object:
    if field.is_repeated:
        return [_value_json(field, each) for each in value]
    return _value_json(field, value)


def _value_json(field: FieldDescriptor, value: Any) -> object:
    if field.type == field.TYPE_MESSAGE:
        return _message_json(value)
    return _base64(value) if field.type == field.TYPE_BYTES else value


def _map_json(field: FieldDescriptor, entries: Any) -> Iterator[tuple[str, object]]:
    assert field.message_type is not None
    values = field.message_type.fields_by_name["value"]
    for key in sorted(entries):
        yield str(key), _value_json(values, entries[key])


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _upstream_name(field: FieldDescriptor) -> str:
    """The field's name in BuildKit's .proto files; ours keep it as ``json_name`` where they had to rename."""
    head, *rest = field.name.split("_")
    usual = head + "".join(word.capitalize() for word in rest)
    return field.name if field.json_name == usual else field.json_name
