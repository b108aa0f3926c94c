"""A marshalled graph: `Definition`, which a daemon builds, and its parts.

It is what BuildKit's ``pb.Definition`` is: the vertices' bytes in an order in which each comes after its inputs, then
one that names the result; metadata by the vertices' digests; and the places in source files.  This file reads and
writes it, and must not make one: that is `State.marshal`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cached_property
from hashlib import sha256
from typing import Final, Self

from cogkit.buildkit.llb.constraints import LinuxResources, OpMetadata
from cogkit.buildkit.llb.encoding import chunk, message_map, number, text
from cogkit.buildkit.protobuf_wire import MASK_64, WireError, fields
from cogkit.buildkit.status import ProgressGroup, Range
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

_MOST_FIELDS: Final = 1 << 24
_DEEPEST: Final = 16


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that vertices come from.

    Attributes:
        definition: How a build gets the file, or None if that is not known.
    """

    filename: str
    data: bytes = b""
    language: str = ""
    definition: Definition | None = None

    def encoded(self) -> bytes:
        parts = [text(1, self.filename), chunk(2, self.data) if self.data else b""]
        if self.definition is not None:
            parts.append(chunk(3, self.definition.to_bytes()))
        parts.append(text(4, self.language))
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Location:
    """Places in the file with the index ``source``."""

    source: int
    ranges: tuple[Range, ...] = ()

    def encoded(self) -> bytes:
        return number(1, self.source) + b"".join([chunk(2, _encoded_range(each)) for each in self.ranges])


@dataclass(frozen=True, slots=True)
class Sources:
    """The source files of a graph, and the places in them by the vertices' digests."""

    files: tuple[SourceFile, ...] = ()
    locations: Mapping[str, tuple[Location, ...]] = field(default_factory=dict)

    def encoded(self) -> bytes:
        places = {
            digest: b"".join([chunk(1, each.encoded()) for each in locations])
            for digest, locations in self.locations.items()
        }
        return message_map(1, places) + b"".join([chunk(2, each.encoded()) for each in self.files])


class Definition:
    """A marshalled graph.

    ``bytes(definition)`` is what a `SolveRequest` takes.  Two are equal if their bytes are.

    Attributes:
        ops: The vertices' bytes, inputs first; the last names the result.  Empty for `scratch`.
        metadata: By the vertices' digests.
        sources: Where the vertices come from.
    """

    def __init__(
        self,
        ops: tuple[bytes, ...] = (),
        metadata: Mapping[str, OpMetadata] | None = None,
        sources: Sources | None = None,
    ) -> None:
        self.ops = ops
        self.metadata: Mapping[str, OpMetadata] = metadata or {}
        self.sources = sources

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """The digests of ``ops``, in their order."""
        return tuple(f"sha256:{sha256(op).hexdigest()}" for op in self.ops)

    @property
    def head(self) -> str | None:
        """The digest of the vertex that gives the result; None for `scratch`."""
        if not self.ops:
            return None
        inputs = _Op(self.ops[-1]).inputs
        return inputs[0][0] if inputs else None

    def inputs(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """Of each of ``ops``, the results that it needs: digests, and which result of that vertex."""
        return tuple(tuple(_Op(op).inputs) for op in self.ops)

    def to_bytes(self) -> bytes:
        """The graph as protobuf's ``pb.Definition``, the same bytes for the same graph."""
        try:
            return self._bytes
        except UnicodeEncodeError as error:
            raise UsageError(f"{error.object!r} is not text: it cannot be written as UTF-8") from error

    __bytes__ = to_bytes

    @cached_property
    def _bytes(self) -> bytes:
        parts = [chunk(1, op) for op in self.ops]
        parts.append(message_map(2, {digest: each.encoded() for digest, each in self.metadata.items()}))
        if self.sources is not None:
            parts.append(chunk(3, self.sources.encoded()))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a graph that this or another client marshalled.

        Raises:
            UsageError: the bytes are not a definition.
        """
        try:
            return cls._read(memoryview(data), 0)
        except (WireError, UnicodeDecodeError) as error:
            raise UsageError(f"the bytes are not a marshalled LLB definition: {error}") from error

    @classmethod
    def _read(cls, view: memoryview, depth: int) -> Self:
        if depth > _DEEPEST:
            raise WireError("definitions within definitions without end")
        ops: list[bytes] = []
        metadata: dict[str, OpMetadata] = {}
        sources = None
        for number_, _, _, value in fields(view, _MOST_FIELDS):
            match number_:
                case 1:
                    ops.append(bytes(value))
                case 2:
                    key, entry = _entry(value)
                    metadata[key] = _read_metadata(entry)
                case 3:
                    sources = _read_sources(value, depth)
        for op in ops:
            _Op(op)
        return cls(tuple(ops), metadata, sources)

    def dot(self) -> str:
        """The graph in Graphviz's language, as ``buildctl debug dump-llb --dot`` writes it.

        Raises:
            UsageError: a vertex cannot be read.
        """
        try:
            return self._dot()
        except (WireError, UnicodeDecodeError) as error:
            raise UsageError(f"a vertex of the definition cannot be read: {error}") from error

    def _dot(self) -> str:
        known = [(digest, _Op(op)) for digest, op in zip(self.digests, self.ops, strict=True)]
        lines = ["digraph {"]
        for digest, op in known:
            name, shape = op.label(digest)
            lines.append(f"  {_quoted(digest)} [label={_quoted(name)} shape={_quoted(shape)}];")
        for digest, op in known:
            for index, (source, _) in enumerate(op.inputs):
                lines.append(f"  {_quoted(source)} -> {_quoted(digest)} [label={_quoted(op.mounted_at(index))}];")
        lines.append("}")
        return "\n".join(lines) + "\n"

    def __eq__(self, other: object) -> bool:
        return self.to_bytes() == other.to_bytes() if isinstance(other, Definition) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        return f"<Definition of {len(self.ops)} ops, {self.head or 'scratch'}>"


# ---- reading


def _text(value: memoryview) -> str:
    return bytes(value).decode()


def _signed(value: int) -> int:
    return value - MASK_64 - 1 if value >> 63 else value


def _entry(view: memoryview) -> tuple[str, memoryview]:
    """An entry of a map of messages."""
    key, found = "", view[:0]
    for number_, _, _, value in fields(view, _MOST_FIELDS):
        if number_ == 1:
            key = _text(value)
        elif number_ == 2:
            found = value
    return key, found


def _read_metadata(view: memoryview) -> OpMetadata:
    ignore_cache = False
    description: dict[str, str] = {}
    export_cache: bool | None = None
    caps: dict[str, bool] = {}
    group: ProgressGroup | None = None
    resources: LinuxResources | None = None
    for number_, _, plain, value in fields(view, _MOST_FIELDS):
        match number_:
            case 1:
                ignore_cache = bool(plain)
            case 2:
                key, words = _entry(value)
                description[key] = _text(words)
            case 4:
                export_cache = any(plain for number_, _, plain, _ in fields(value, _MOST_FIELDS) if number_ == 1)
            case 5:
                known = {number_: (plain, value) for number_, _, plain, value in fields(value, _MOST_FIELDS)}
                caps[_text(known[1][1]) if 1 in known else ""] = bool(known[2][0]) if 2 in known else False
            case 6:
                known = {number_: (plain, value) for number_, _, plain, value in fields(value, _MOST_FIELDS)}
                name, title = (_text(known[each][1]) if each in known else "" for each in (1, 2))
                group = ProgressGroup(name, title, bool(known[3][0]) if 3 in known else False)
            case 7:
                known = {number_: (plain, value) for number_, _, plain, value in fields(value, _MOST_FIELDS)}
                numbers = [known[each][0] if each in known else 0 for each in range(1, 6)]
                texts = [_text(known[each][1]) if each in known else "" for each in (6, 7)]
                memory, swap, shares, period, quota = numbers
                resources = LinuxResources(_signed(memory), _signed(swap), shares, period, _signed(quota), *texts)
    return OpMetadata(ignore_cache, description or None, export_cache, caps or None, group, resources)


def _read_sources(view: memoryview, depth: int) -> Sources:
    files: list[SourceFile] = []
    locations: dict[str, tuple[Location, ...]] = {}
    for number_, _, _, value in fields(view, _MOST_FIELDS):
        if number_ == 1:
            digest, places = _entry(value)
            locations[digest] = tuple(
                _read_location(each) for number_, _, _, each in fields(places, _MOST_FIELDS) if number_ == 1
            )
        elif number_ == 2:
            files.append(_read_file(value, depth))
    return Sources(tuple(files), locations)


def _read_file(view: memoryview, depth: int) -> SourceFile:
    filename = language = ""
    data = b""
    definition = None
    for number_, _, _, value in fields(view, _MOST_FIELDS):
        match number_:
            case 1:
                filename = _text(value)
            case 2:
                data = bytes(value)
            case 3:
                definition = Definition._read(value, depth + 1)
            case 4:
                language = _text(value)
    return SourceFile(filename, data, language, definition)


def _read_location(view: memoryview) -> Location:
    index, ranges = 0, []
    for number_, _, plain, value in fields(view, _MOST_FIELDS):
        if number_ == 1:
            index = _signed(plain)
        elif number_ == 2:
            places = {number_: value for number_, _, _, value in fields(value, _MOST_FIELDS)}
            start_line, start_character = _read_position(places.get(1))
            end_line, end_character = _read_position(places.get(2))
            ranges.append(Range(start_line, end_line, start_character, end_character))
    return Location(index, tuple(ranges))


def _read_position(view: memoryview | None) -> tuple[int, int]:
    known = {} if view is None else {number_: plain for number_, _, plain, _ in fields(view, _MOST_FIELDS)}
    return _signed(known.get(1, 0)), _signed(known.get(2, 0))


def _encoded_range(span: Range) -> bytes:
    start = number(1, span.start_line) + number(2, span.start_character)
    end = number(1, span.end_line) + number(2, span.end_character)
    return chunk(1, start) + chunk(2, end)


# ---- drawing


class _Op:
    """As much of a vertex as a drawing shows."""

    def __init__(self, data: bytes) -> None:
        self.inputs: list[tuple[str, int]] = []
        self._kind, self._body = 0, memoryview(b"")
        for number_, _, _, value in fields(memoryview(data), _MOST_FIELDS):
            if number_ == 1:
                self.inputs.append(_read_input(value))
            elif number_ < 10:
                self._kind, self._body = number_, value

    def label(self, digest: str) -> tuple[str, str]:
        """What to write on it, and the shape that it has."""
        match self._kind:
            case 2:
                meta = next(self._parts(1), memoryview(b""))
                words = [_text(each) for number_, _, _, each in fields(meta, _MOST_FIELDS) if number_ == 1]
                return " ".join(words), "box"
            case 3:
                return _text(next(self._parts(1), memoryview(b""))), "ellipse"
            case 4:
                return ",".join(_action_label(each) for each in self._parts(2)), "note"
            case 5:
                return "build", "box3d"
            case 6:
                return "merge", "invtriangle"
            case 7:
                return "diff", "doublecircle"
        return digest, "plaintext"

    def mounted_at(self, index: int) -> str:
        """Where a command finds its input with this index, if that is not its root."""
        found = ""
        if self._kind == 2:
            for mount in self._parts(2):
                known = {number_: (plain, value) for number_, _, plain, value in fields(mount, _MOST_FIELDS)}
                target = _text(known[3][1]) if 3 in known else ""
                if (_signed(known[1][0]) if 1 in known else 0) == index and target != "/":
                    found = target
        return found

    def _parts(self, wanted: int) -> Iterator[memoryview]:
        return (value for number_, _, _, value in fields(self._body, _MOST_FIELDS) if number_ == wanted)


_ACTIONS: Final = {
    4: ("copy", (("src", 1), ("dest", 2))),
    5: ("mkfile", (("path", 1),)),
    6: ("mkdir", (("path", 1),)),
    7: ("rm", (("path", 1),)),
    8: ("symlink", (("oldpath", 1), ("newpath", 2))),
}


def _action_label(view: memoryview) -> str:
    for number_, _, _, body in fields(view, _MOST_FIELDS):
        if number_ in _ACTIONS:
            name, shown = _ACTIONS[number_]
            known = {each: value for each, _, _, value in fields(body, _MOST_FIELDS)}
            words = [f"{key}={_text(known[each]) if each in known else ''}" for key, each in shown]
            return f"{name}{{{', '.join(words)}}}"
    return ""


def _read_input(view: memoryview) -> tuple[str, int]:
    digest, index = "", 0
    for number_, _, plain, value in fields(view, _MOST_FIELDS):
        if number_ == 1:
            digest = _text(value)
        elif number_ == 2:
            index = _signed(plain)
    return digest, index


def _quoted(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
