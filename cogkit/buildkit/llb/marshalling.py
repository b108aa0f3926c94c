"""From a graph of vertices to a `Definition`, in the order and with the metadata of Go's ``client/llb``.

Each vertex comes after its inputs and once, however many ways lead to it; graphs may be deep, so nothing recurses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from cogkit.buildkit.identity import new_id
from cogkit.buildkit.llb.constraints import Constraints, OpMetadata
from cogkit.buildkit.llb.definition import Definition, Location, SourceFile, Sources
from cogkit.buildkit.llb.encoding import chunk, number
from cogkit.buildkit.llb.source_maps import SourceLocation, SourceMap
from cogkit.buildkit.llb.vertices import KnownVertex, Output, Vertex
from cogkit.buildkit.platforms import Platform
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.buildkit.llb.state import State


def marshal(state: State, base: Constraints, caps: frozenset[str] | None) -> Definition:
    """See `State.marshal`."""
    base = replace(base, platform=base.platform or Platform.default(), local_unique_id=base.local_unique_id or new_id())
    if state.output is None:
        return Definition()
    try:
        return _Marshalling(base, caps).run(state.output)
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!r} is not text: it cannot be written as UTF-8") from error


class _Marshalling:
    def __init__(self, base: Constraints, caps: frozenset[str] | None) -> None:
        self.base = base
        self.caps = caps
        # With a description for all, Go's library writes that of each vertex into the one map that all share.
        self._description = None if base.description is None else dict(base.description)
        self._ops: list[bytes] = []
        self._metadata: dict[str, OpMetadata] = {}
        self._digests: dict[Vertex, str] = {}
        self._references: dict[tuple[str, int], bytes] = {}
        self._maps: list[SourceMap] = []
        self._map_index: dict[SourceMap, int] = {}
        self._locations: dict[str, list[SourceLocation]] = {}

    def run(self, output: Output) -> Definition:
        self._walk(output.vertex)
        last = chunk(1, self.input(output))
        caps = {"constraints": True, "platform": True}
        metadata = self._metadata.values()
        if any(each.ignore_cache for each in metadata):
            caps["meta.ignorecache"] = True
        if any(each.description for each in metadata):
            caps["meta.description"] = True
        if any(each.export_cache is not None for each in metadata):
            caps["meta.exportcache"] = True
        self._metadata[_digest(last)] = OpMetadata(caps=caps)
        self._ops.append(last)
        return Definition(tuple(self._ops), self._metadata, self._sources())

    def input(self, output: Output) -> bytes:
        """See `vertices.Encoder`."""
        if output.error:
            raise UsageError(output.error)
        key = self._digests[output.vertex], output.index
        found = self._references.get(key)
        if found is None:
            found = self._references[key] = chunk(1, key[0].encode()) + number(2, output.index)
        return found

    def _walk(self, root: Vertex) -> None:
        stack: list[tuple[Vertex, Iterator[Output]]] = [(root, iter(root.inputs))]
        while stack:
            vertex, inputs = stack[-1]
            for output in inputs:
                if output.vertex not in self._digests:
                    stack.append((output.vertex, iter(output.vertex.inputs)))
                    break
            else:
                stack.pop()
                if vertex not in self._digests:
                    self._marshal(vertex)

    def _marshal(self, vertex: Vertex) -> None:
        data, caps = vertex.encoded(self)
        digest = self._digests[vertex] = _digest(data)
        if isinstance(vertex, KnownVertex):
            metadata = OpMetadata().merged(vertex.metadata)
        else:
            metadata = self._metadata_of(vertex.constraints, caps)
        known = self._metadata.get(digest)
        self._metadata[digest] = metadata if known is None else known.merged(metadata)
        self._note_locations(digest, vertex.constraints.locations)
        if known is None:
            self._ops.append(data)

    def _metadata_of(self, own: Constraints, caps: frozenset[str]) -> OpMetadata:
        base = self.base
        description = own.description
        if self._description is not None:
            self._description.update(description or {})
            description = dict(self._description)
        return OpMetadata(
            base.ignore_cache or own.ignore_cache,
            description or None,
            base.export_cache if own.export_cache is None else own.export_cache,
            dict.fromkeys(caps, True),
            own.progress_group or base.progress_group,
            own.resources or base.resources,
        )

    def _note_locations(self, digest: str, locations: tuple[SourceLocation, ...]) -> None:
        for location in locations:
            source_map = location.source_map
            if source_map in self._map_index:
                continue
            for index, known in enumerate(self._maps):
                if known.same_file(source_map):
                    self._map_index[source_map] = index
                    break
            else:
                self._map_index[source_map] = len(self._maps)
                self._maps.append(source_map)
        self._locations.setdefault(digest, []).extend(locations)

    def _sources(self) -> Sources:
        files = []
        for each in self._maps:
            definition = each.definition
            if definition is None and each.state is not None:
                definition = marshal(each.state, self.base, self.caps)
            files.append(SourceFile(each.filename, each.data, each.language, definition))
        locations = {
            digest: tuple(Location(self._map_index[each.source_map], each.ranges) for each in found)
            for digest, found in self._locations.items()
        }
        return Sources(tuple(files), locations)


def _digest(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"
