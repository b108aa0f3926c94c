"""From a `Definition` back to a `State`, to go on from what was marshalled before, here or by a frontend.

The vertices keep their bytes, their metadata and their places in source files.  Nothing is known of what surrounds
commands, as that is not in a definition.
"""

from __future__ import annotations

from typing import SupportsBytes

from cogkit.buildkit.llb.definition import Definition
from cogkit.buildkit.llb.source_maps import SourceLocation, SourceMap
from cogkit.buildkit.llb.state import State
from cogkit.buildkit.llb.vertices import KnownVertex, Output
from cogkit.errors import UsageError


def state_of(definition: Definition | SupportsBytes) -> State:
    """The state that a definition is of, such as an input of a frontend or the `Ref.definition` of a result.

    Raises:
        UsageError: the definition cannot be read, or lacks something that it refers to.
    """
    if not isinstance(definition, Definition):
        definition = Definition.from_bytes(bytes(definition))
    if not definition.ops:
        return State(None)
    *all_inputs, result = definition.inputs()
    if len(result) != 1:
        raise UsageError("the definition does not name one result")
    wanted: dict[str, set[int]] = {}
    for inputs in all_inputs:
        for digest, index in inputs:
            wanted.setdefault(digest, set()).add(index)
    places = _places(definition)
    # As in Go's library, each result of a vertex that somebody needs is a vertex of its own.
    outputs: dict[tuple[str, int], Output] = {}
    head: Output | None = None
    for digest, data, inputs in zip(definition.digests, definition.ops, all_inputs, strict=False):
        missing = [each for each in inputs if each not in outputs]
        metadata = definition.metadata.get(digest)
        if missing or metadata is None:
            lacking = f"its input {missing[0][0]}" if missing else "its metadata"
            raise UsageError(f"the definition has the vertex {digest}, but not {lacking} before it")
        needed = [outputs[each] for each in inputs]
        for index in sorted(wanted.get(digest, ())):
            vertex = KnownVertex(data, metadata, places.get(digest, ()), needed)
            outputs[digest, index] = Output(vertex, index)
        if digest == result[0][0]:
            head = Output(KnownVertex(data, metadata, places.get(digest, ()), needed), result[0][1])
    if head is None:
        raise UsageError(f"the definition names a result that it does not have, {result[0][0]}")
    return State(head)


def _places(definition: Definition) -> dict[str, tuple[SourceLocation, ...]]:
    sources = definition.sources
    if sources is None:
        return {}
    maps = [
        SourceMap(
            each.filename,
            each.data,
            language=each.language,
            state=None if each.definition is None else state_of(each.definition),
        )
        for each in sources.files
    ]
    for locations in sources.locations.values():
        for location in locations:
            if not 0 <= location.source < len(maps):
                raise UsageError(f"the definition has no source file {location.source}")
    return {
        digest: tuple(SourceLocation(maps[each.source], each.ranges) for each in locations)
        for digest, locations in sources.locations.items()
    }
