"""How a builder's state is shown, its cache and its history: as text for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cogkit.cli.ui.table import fields, table
from cogkit.cli.ui.text import byte_size, one_line

if TYPE_CHECKING:
    from cogkit.builders.choice import Target
    from cogkit.builders.inspection import NodeState
    from cogkit.buildkit.records import BuildRecord, UsageRecord

_SHORT_REF = 12
_MOST_DESCRIPTION = 60


# -------------------------------------------------------------------------------------------------------------- cache


def usage_text(records: Sequence[tuple[str, UsageRecord]], *, several: bool, verbose: bool) -> str:
    """Records with the node that has them, and their sum."""
    if verbose:
        shown = "\n".join(fields(_usage_rows(node, record, several)) for node, record in records)
    else:
        heading = ["ID", "RECLAIMABLE", "SIZE", "LAST USED", "DESCRIPTION"]
        rows = [
            [
                record.id,
                str(not record.in_use).lower(),
                byte_size(record.size, 1),
                _ago(record.last_used_at),
                record.description[:_MOST_DESCRIPTION],
            ]
            for _, record in records
        ]
        if several:
            heading.insert(0, "NODE")
            rows = [[node, *row] for (node, _), row in zip(records, rows, strict=True)]
        shown = table(heading, rows) if records else ""
    reclaimable = sum(record.size for _, record in records if not record.in_use)
    total = sum(record.size for _, record in records)
    sums = fields([("Reclaimable", byte_size(reclaimable, 1)), ("Total", byte_size(total, 1))])
    return f"{shown}{chr(10) if shown else ''}{sums}"


def usage_json(records: Iterable[tuple[str, UsageRecord]]) -> str:
    """A list of records."""
    document = [
        {
            "node": node,
            "id": record.id,
            "type": record.record_type,
            "size": record.size,
            "description": record.description,
            "mutable": record.mutable,
            "in_use": record.in_use,
            "shared": record.shared,
            "parents": list(record.parents),
            "created_at": record.created_at.isoformat(),
            "last_used_at": None if record.last_used_at is None else record.last_used_at.isoformat(),
            "usage_count": record.usage_count,
        }
        for node, record in records
    ]
    return json.dumps(document, indent=2) + "\n"


def _usage_rows(node: str, record: UsageRecord, several: bool) -> list[tuple[str, str]]:
    rows = [("Node", node)] if several else []
    rows.append(("ID", record.id))
    if record.parents:
        rows.append(("Parents", ", ".join(record.parents)))
    rows += [
        ("Created", record.created_at.isoformat(timespec="seconds")),
        ("Mutable", str(record.mutable).lower()),
        ("Reclaimable", str(not record.in_use).lower()),
        ("Shared", str(record.shared).lower()),
        ("Size", byte_size(record.size, 1)),
        ("Description", record.description),
        ("Usage count", str(record.usage_count)),
        ("Last used", _ago(record.last_used_at)),
        ("Type", record.record_type),
    ]
    return rows


# ------------------------------------------------------------------------------------------------------------ history


def history_text(records: Sequence[tuple[str, BuildRecord]], *, several: bool) -> str:
    """A table of builds."""
    heading = ["REF", "STATUS", "STEPS", "CREATED", "DURATION", "NAME"]
    rows = [
        [
            record.ref[:_SHORT_REF],
            _outcome(record),
            _steps(record),
            _ago(record.created_at),
            _duration(record),
            _name(record),
        ]
        for _, record in records
    ]
    if several:
        heading.insert(0, "NODE")
        rows = [[node, *row] for (node, _), row in zip(records, rows, strict=True)]
    return table(heading, rows)


def history_json(records: Iterable[tuple[str, BuildRecord]]) -> str:
    """A list of builds."""
    return json.dumps([{"node": node, **_record_document(record)} for node, record in records], indent=2) + "\n"


def record_text(record: BuildRecord) -> str:
    """One build."""
    rows = [
        ("Ref", record.ref),
        ("Status", _outcome(record)),
        ("Created", record.created_at.isoformat(timespec="seconds")),
        ("Duration", _duration(record)),
        ("Steps", _steps(record)),
    ]
    if record.warnings:
        rows.append(("Warnings", str(record.warnings)))
    if record.frontend:
        rows.append(("Frontend", record.frontend))
    if record.error:
        rows.append(("Error", record.error))
    rows += [(f"Output {number}", _export(each.type, each.attrs)) for number, each in enumerate(record.exports, 1)]
    blocks = [fields(rows)]
    for title, values in (("Options", record.frontend_attrs), ("Result", record.exporter_response)):
        if values:
            shown = sorted((one_line(key), _shortened(value)) for key, value in values.items())
            blocks.append(f"{title}\n" + "".join(f"  {line}\n" for line in fields(shown).splitlines()))
    return "\n".join(blocks)


def record_json(record: BuildRecord) -> str:
    """One build as a document."""
    return json.dumps(_record_document(record), indent=2) + "\n"


def _record_document(record: BuildRecord) -> dict[str, Any]:
    return {
        "ref": record.ref,
        "status": _outcome(record),
        "created_at": record.created_at.isoformat(),
        "completed_at": None if record.completed_at is None else record.completed_at.isoformat(),
        "frontend": record.frontend,
        "frontend_attrs": dict(record.frontend_attrs),
        "exports": [{"type": each.type, "attrs": dict(each.attrs)} for each in record.exports],
        "result": dict(record.exporter_response),
        "error": record.error or None,
        "cached_steps": record.cached_steps,
        "completed_steps": record.completed_steps,
        "total_steps": record.total_steps,
        "warnings": record.warnings,
        "pinned": record.pinned,
    }


def _outcome(record: BuildRecord) -> str:
    if record.completed_at is None:
        return "running"
    return "failed" if record.error else "done"


def _steps(record: BuildRecord) -> str:
    cached = f", {record.cached_steps} cached" if record.cached_steps else ""
    return f"{record.completed_steps}/{record.total_steps}{cached}"


def _duration(record: BuildRecord) -> str:
    end = record.completed_at or datetime.now(UTC)
    return f"{max((end - record.created_at).total_seconds(), 0):.1f}s"


def _name(record: BuildRecord) -> str:
    """The image's name, as far as the builder was told one."""
    named = (each.attrs["name"] for each in record.exports if each.attrs.get("name"))
    return record.exporter_response.get("image.name") or next(named, "")


def _export(kind: str, attrs: Any) -> str:
    return ",".join([f"type={kind}", *(f"{key}={value}" for key, value in sorted(attrs.items()))])


def _shortened(value: str) -> str:
    return value if len(value) <= 200 else f"{value[:200]}…"


# --------------------------------------------------------------------------------------------------------------- info


def info_text(target: Target, states: Sequence[NodeState]) -> str:
    """What a build would use."""
    rows = [(name, str(value)) for name, value in _places(target)]
    blocks = [fields(rows)]
    for state in states:
        node = [("Address", state.node.address)]
        if len(states) > 1:
            node.insert(0, ("Node", state.node.name))
        if state.error is not None:
            node.append(("Error", str(state.error)))
        else:
            node += [("BuildKit", state.version or "unknown"), ("Platforms", ", ".join(state.platforms))]
        blocks.append(fields(node))
    if target.private is not None and not states:
        blocks.append("The private builder does not run now; a build starts it.\n")
    return "\n".join(blocks)


def info_json(target: Target, states: Sequence[NodeState]) -> str:
    """The same as a document."""
    document: dict[str, Any] = {name.lower().replace(" ", "_"): str(value) for name, value in _places(target)}
    document["nodes"] = [
        {
            "name": state.node.name,
            "address": state.node.address,
            "version": state.version,
            "platforms": list(state.platforms),
            "error": None if state.error is None else str(state.error),
        }
        for state in states
    ]
    return json.dumps(document, indent=2) + "\n"


def _places(target: Target) -> list[tuple[str, object]]:
    import platform

    import cogkit
    from cogkit.builders import private
    from cogkit.builders.config_file import config_path

    rows: list[tuple[str, object]] = [
        ("cogkit", cogkit.__version__),
        ("Python", platform.python_version()),
        ("List of builders", config_path()),
        ("Builder", target.builder.name),
        ("Found by", target.why),
    ]
    if target.private is not None:
        rows.append(("Folder", private.folder()))
    return rows


def _ago(when: datetime | None) -> str:
    if when is None:
        return "never"
    seconds = max((datetime.now(UTC) - when).total_seconds(), 0)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    return "now" if seconds < 5 else f"{int(seconds)} seconds ago"
