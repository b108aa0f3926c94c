"""How builders are shown: as text for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cogkit.builders.records import PRIVATE
from cogkit.cli.ui.table import fields, table
from cogkit.cli.ui.text import byte_size

if TYPE_CHECKING:
    from cogkit.builders.inspection import NodeState
    from cogkit.builders.private import PrivateState
    from cogkit.builders.records import Builder
    from cogkit.buildkit.records import GCPolicy

_MOST_PLATFORMS = 4


def builders_text(builders: Sequence[Builder], states: Sequence[Sequence[NodeState]], chosen: str | None) -> str:
    """A table with a row for each node."""
    rows = []
    for builder, of_nodes in zip(builders, states, strict=True):
        name = f"{builder.name}{' *' if builder.name == chosen else ''}"
        if not of_nodes:
            rows.append([name, "", "", "stopped", "", ""])
        for state in of_nodes:
            node = state.node.name if len(of_nodes) > 1 else ""
            rows.append([name, node, state.node.address, _status(state), state.version or "", _platforms(state)])
            name = ""
    return table(["NAME", "NODE", "ADDRESS", "STATUS", "VERSION", "PLATFORMS"], rows)


def builders_json(builders: Sequence[Builder], states: Sequence[Sequence[NodeState]], chosen: str | None) -> str:
    """A list of builders."""
    document = [
        {**_builder_document(builder, of_nodes), "chosen": builder.name == chosen}
        for builder, of_nodes in zip(builders, states, strict=True)
    ]
    return json.dumps(document, indent=2) + "\n"


def builder_text(builder: Builder, states: Sequence[NodeState], why: str, private: PrivateState | None) -> str:
    """One builder with all that its nodes say."""
    rows = [("Name", builder.name), ("Found by", why)]
    if builder.cache:
        rows.append(("Shared cache", builder.cache))
    if private is not None:
        rows += [("Folder", str(private.folder)), ("Log", str(private.log))]
        if private.address is None:
            rows.append(("Status", "stopped"))
    blocks = [fields(rows)]
    blocks += [fields(_node_rows(state)) for state in states]
    return "\n".join(blocks)


def builder_json(builder: Builder, states: Sequence[NodeState], why: str, private: PrivateState | None) -> str:
    """One builder as a document."""
    document = {**_builder_document(builder, states), "found_by": why}
    if private is not None:
        document |= {"folder": str(private.folder), "log": str(private.log), "supervisor": private.supervisor}
    return json.dumps(document, indent=2) + "\n"


def _node_rows(state: NodeState) -> list[tuple[str, str]]:
    node = state.node
    rows = [("Node", node.name), ("Address", node.address), ("Status", _status(state))]
    if state.error is not None:
        rows.append(("Error", str(state.error)))
        if state.error.hint:
            rows.append(("Hint", state.error.hint))
        return rows
    rows += [("BuildKit", state.version or "unknown"), ("Platforms", ", ".join(state.platforms))]
    if node.platforms:
        rows.append(("Natively", ", ".join(node.platforms)))
    if state.misnamed_platforms:
        rows.append(("Warning", f"the list says {', '.join(state.misnamed_platforms)}, and it cannot build that"))
    if state.active is not None:
        rows.append(("Builds now", f"{state.active}{f' of {node.max_builds}' if node.max_builds else ''}"))
    if node.weight != 1:
        rows.append(("Weight", f"{node.weight:g}"))
    labels = {**(state.workers[0].labels if state.workers else {}), **node.labels}
    rows += [(f"Label {key}", value) for key, value in sorted(labels.items())]
    for worker in state.workers:
        rows += [(f"GC rule {number}", _policy(policy)) for number, policy in enumerate(worker.gc_policy)]
    return rows


def _policy(policy: GCPolicy) -> str:
    parts = ["all" if policy.all else "", *policy.filters]
    if policy.keep_duration:
        parts.append(f"unused for {_length(policy.keep_duration)}")
    for name, size in (
        ("reserved", policy.reserved_space),
        ("at most", policy.max_used_space),
        ("free", policy.min_free_space),
    ):
        if size:
            parts.append(f"{name} {byte_size(size, 1)}")
    return ", ".join(filter(None, parts)) or "nothing"


def _length(duration: timedelta) -> str:
    hours = duration.total_seconds() / 3600
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"


def _builder_document(builder: Builder, states: Sequence[NodeState]) -> dict[str, Any]:
    return {
        "name": builder.name,
        "private": builder.name == PRIVATE,
        "cache": builder.cache,
        "nodes": [_node_document(state) for state in states],
    }


def _node_document(state: NodeState) -> dict[str, Any]:
    node = state.node
    return {
        "name": node.name,
        "address": node.address,
        "weight": node.weight,
        "labels": dict(node.labels),
        "native_platforms": list(node.platforms),
        "max_builds": node.max_builds,
        "status": _status(state),
        "error": None if state.error is None else str(state.error),
        "version": state.version,
        "platforms": list(state.platforms),
        "misnamed_platforms": list(state.misnamed_platforms),
        "active_builds": state.active,
        "workers": [
            {
                "id": worker.id,
                "labels": dict(worker.labels),
                "gc_policy": [
                    {
                        "all": policy.all,
                        "filters": list(policy.filters),
                        "keep_seconds": policy.keep_duration.total_seconds(),
                        "reserved_space": policy.reserved_space,
                        "max_used_space": policy.max_used_space,
                        "min_free_space": policy.min_free_space,
                    }
                    for policy in worker.gc_policy
                ],
            }
            for worker in state.workers
        ],
    }


def _status(state: NodeState) -> str:
    if state.error is not None:
        return "unreachable"
    if state.active is not None and state.node.max_builds is not None and state.active >= state.node.max_builds:
        return "full"
    return "running"


def _platforms(state: NodeState) -> str:
    platforms = state.node.platforms or state.platforms
    shown = ", ".join(platforms[:_MOST_PLATFORMS])
    more = len(platforms) - _MOST_PLATFORMS
    return f"{shown}, … {more} more" if more > 0 else shown
