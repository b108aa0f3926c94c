"""Marshalled LLB as JSON, in the form of ``buildctl debug dump-llb``."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from cogkit.buildkit.llb.definition import Definition
from cogkit.errors import UsageError

_NAMES = {"byID": "byId"}


def json_lines(content: bytes) -> str:
    """One vertex a line: ``Op``, ``Digest`` and ``OpMetadata``."""
    from google.protobuf.message import DecodeError

    from cogkit._proto import ops_pb2

    definition = Definition.from_bytes(content)
    try:
        metadata = ops_pb2.Definition.FromString(content).metadata
        ops = [ops_pb2.Op.FromString(data) for data in definition.ops]
    except DecodeError as problem:
        raise UsageError(f"the bytes are not a marshalled LLB definition: {problem}") from problem
    lines = []
    for digest, op in zip(definition.digests, ops, strict=True):
        known = {"OpMetadata": _as_go(metadata[digest])} if digest in metadata else {"OpMetadata": None}
        vertex = {"Op": _as_go(op), "Digest": digest, **known}
        lines.append(json.dumps(vertex, ensure_ascii=False, separators=(",", ":")) + "\n")
    return "".join(lines)


def _as_go(message: Any) -> dict[str, Any]:
    """A message as Go's ``encoding/json`` writes it, with BuildKit's own forms (``solver/pb/json.go``).

    What is empty is left out, numbers are numbers, and what only one of may be set is in an object of its own.
    """
    found: dict[str, Any] = {}
    is_action = message.DESCRIPTOR.name == "FileAction"
    for field in message.DESCRIPTOR.fields:
        place = found
        if field.containing_oneof is not None:
            name = field.containing_oneof.name
            place = found.setdefault(name[:1].upper() + name[1:], {})
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = {key: _value(field.message_type.fields_by_name["value"], value[key]) for key in sorted(value)}
        elif hasattr(value, "append"):
            value = [_value(field, each) for each in value]
        elif field.message_type is not None:
            if message.HasField(field.name):
                place[field.name] = _as_go(value)
            continue
        else:
            value = _value(field, value)
        if value or (is_action and field.containing_oneof is None):
            place[_NAMES.get(field.name, field.name)] = value
    return found


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _as_go(value)
    return b64encode(value).decode() if isinstance(value, bytes) else value
