"""What a schema can say about a value: the types of inputs, outputs and fields, and their JSON Schema.

Only data and their JSON: this file must not know where the types come from.  The JSON of each type is Cog's
(``pkg/schema/types.go`` and ``schema_type.go``).
"""

from __future__ import annotations

from dataclasses import replace

from cogkit.fast_dataclass import dataclass

Json = dict[str, object]

_PRIMITIVE_JSON: dict[str, Json] = {
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "int": {"type": "integer"},
    "str": {"type": "string"},
    "Path": {"format": "uri", "type": "string"},
    "File": {"format": "uri", "type": "string"},
    "Secret": {"format": "password", "type": "string", "writeOnly": True, "x-cog-secret": True},
    "Any": {"type": "object"},
}


@dataclass(frozen=True, slots=True)
class Primitive:
    """One of Cog's own types by name; ``Any`` is any JSON object."""

    name: str


@dataclass(frozen=True, slots=True)
class Array:
    items: Type


@dataclass(frozen=True, slots=True)
class Mapping:
    """An object with any keys and values of one type."""

    values: Type


@dataclass(frozen=True, slots=True)
class Field:
    type: Type
    required: bool


@dataclass(frozen=True, slots=True)
class Record:
    """An object with known fields, in order."""

    fields: tuple[tuple[str, Field], ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """Values that come one after the other; ``concatenate`` if they are pieces of one text."""

    items: Type
    concatenate: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """A union of JSON types; only inputs can be one."""

    variants: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """A shape, and whether null is allowed in its place."""

    shape: Primitive | Array | Mapping | Record | Stream | OneOf
    nullable: bool = False

    def or_none(self) -> Type:
        return replace(self, nullable=True)

    @property
    def primitive(self) -> str:
        """The primitive's name, of an array that of its items; ``Any`` for everything else."""
        shape = self.shape.items.shape if isinstance(self.shape, Array) else self.shape
        return shape.name if isinstance(shape, Primitive) else "Any"

    def json(self) -> Json:
        """The JSON Schema, keys sorted but for a record's properties, which keep their order."""
        result = _shape_json(self.shape)
        if self.nullable:
            result["nullable"] = True
            if isinstance(self.shape, OneOf):
                result["anyOf"] = [variant.or_none().json() for variant in self.shape.variants]
        return dict(sorted(result.items()))


ANY = Type(Primitive("Any"))


def title(name: str) -> str:
    """``max_new_tokens`` as ``Max New Tokens``."""
    return " ".join(part[:1].upper() + part[1:] if part[:1].isascii() else part for part in name.split("_"))


def _shape_json(shape: Primitive | Array | Mapping | Record | Stream | OneOf) -> Json:
    if isinstance(shape, Primitive):
        return dict(_PRIMITIVE_JSON[shape.name])
    if isinstance(shape, Array):
        return {"items": shape.items.json(), "type": "array"}
    if isinstance(shape, Mapping):
        return {"additionalProperties": shape.values.json(), "type": "object"}
    if isinstance(shape, OneOf):
        return {"anyOf": [variant.json() for variant in shape.variants]}
    if isinstance(shape, Stream):
        result: Json = {"items": shape.items.json(), "type": "array", "x-cog-array-type": "iterator"}
        if shape.concatenate:
            result["x-cog-array-display"] = "concatenate"
        return result
    properties: Json = {}
    for name, field in shape.fields:
        properties[name] = dict(sorted({**field.type.json(), "title": title(name)}.items()))
    record: Json = {"properties": properties, "type": "object"}
    required = [name for name, field in shape.fields if field.required]
    if required:
        record["required"] = required
    return record
