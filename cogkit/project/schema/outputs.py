"""Return annotations and the classes they name, as `Type`.

Cog's rules (``pkg/schema/schema_type.go``): anything JSON-shaped nests, nothing at the top may be optional, and unions
are only allowed as ``X | None`` in a field.  A class is a record if it is a ``BaseModel``, a ``TypedDict`` or, beyond
Cog, a dataclass; its annotations are read in the file that it is written in.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from enum import Enum

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.schema.annotations import (
    PRIMITIVES,
    TYPING,
    Alternatives,
    Annotation,
    Generic,
    Metadata,
    Named,
    Words,
    parse,
    unsupported,
)
from cogkit.project.schema.literals import Scope, Unresolvable, enum_kind, evaluate
from cogkit.project.schema.names import dotted_name as dotted
from cogkit.project.schema.source import Class, Module
from cogkit.project.schema.types import ANY, Array, Field, Mapping, Primitive, Record, Stream, Type

OPTIONAL_OUTPUT = "unsupported output type: Optional is not allowed as a return type"


class Kind(Enum):
    """What makes a class a record."""

    MODEL = "BaseModel"
    TYPED_DICT = "TypedDict"
    DATACLASS = "dataclass"


def class_kind(cls: Class) -> Kind | None:
    """What kind of record a class is, by its decorators and the classes it inherits from; None if it is none."""
    return _kind(cls, set())


def _kind(cls: Class, seen: set[ast.ClassDef]) -> Kind | None:
    if cls.node in seen:
        return None
    seen.add(cls.node)
    words = Words(cls.module)
    for base in cls.node.bases:
        name = dotted(base.value if isinstance(base, ast.Subscript) else base)
        if name is None:
            continue
        if words.word(name) == Kind.MODEL.value:
            return Kind.MODEL
        if words.word(name) == Kind.TYPED_DICT.value:
            return Kind.TYPED_DICT
        parent = words.find_class(name)
        inherited = _kind(parent, seen) if parent is not None else None
        if inherited is not None:
            return inherited
    for decorator in cls.node.decorator_list:
        name = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if name is not None and "dataclass" in (name, words.exact(name, "dataclasses", "pydantic.dataclasses")):
            return Kind.DATACLASS
    return None


@dataclass(frozen=True, slots=True)
class Outputs:
    """Resolves the return annotations of one module; ``open`` are the classes that are being resolved around them.

    Attributes:
        depth: How many aliases may still lead on.
    """

    module: Module
    open: frozenset[ast.ClassDef] = frozenset()
    depth: int = 20

    @property
    def words(self) -> Words:
        return Words(self.module)

    def resolve(self, node: ast.expr) -> Type:
        """The type of a return annotation.

        Raises:
            ConfigError: Cog has no such output.
        """
        return self._type(parse(node, self.module))

    def _type(self, annotation: Annotation) -> Type:
        inner = self.words.opaque(annotation)
        if inner is not None:
            if self.words.opaque_optional(inner) is not None:
                raise self._optional(annotation)
            return opaque_type(self.words, inner)
        if isinstance(annotation, Named):
            return self._named(annotation)
        if isinstance(annotation, Generic):
            if self.words.is_annotated(annotation):
                return self._type(annotation.args[0])
            return self._generic(annotation)
        if isinstance(annotation, Alternatives):
            raise self._union(annotation.args, annotation)
        raise unsupported(self.module, self.module.text(annotation.node), annotation.node)

    def _optional(self, annotation: Annotation) -> ConfigError:
        return self.module.error(
            OPTIONAL_OUTPUT,
            annotation.node,
            "Return a BaseModel with an optional field, or raise an exception instead.",
        )

    def _union(self, args: tuple[Annotation, ...], annotation: Annotation) -> ConfigError:
        if len(args) == 2 and any(isinstance(one, Named) and one.name == "None" for one in args):
            return self._optional(annotation)
        return unsupported(
            self.module,
            "union types are not supported as output",
            annotation.node,
            "Return a BaseModel with a field for each of the types.",
        )

    def _named(self, annotation: Named) -> Type:
        name = annotation.name
        cls = self.words.find_class(name)
        kind = class_kind(cls) if cls is not None else None
        if cls is not None and kind is not None:
            return self._record(cls, kind)
        word = self.words.word(name)
        if word in ("dict", "Dict"):
            return ANY
        if self.words.container(name) == "list":
            return Type(Array(ANY))
        if word in PRIMITIVES:
            return Type(Primitive(word))
        if cls is not None and enum_kind(cls) is not None:
            raise self.module.error(
                f"unsupported type: {name} is an enumeration",
                annotation.node,
                f"Say str (or int), and return the member's value: {name}.MEMBER.value.",
            )
        if cls is not None:
            raise self.module.error(
                f"cannot resolve type '{name}' - it is a class, but no BaseModel, TypedDict or dataclass",
                annotation.node,
                f"Make {name} a BaseModel, or write Annotated[{name}, Opaque] if its values are JSON objects.",
            )
        if name == "None":
            raise unsupported(
                self.module, "None is not a return type", annotation.node, "Return a value, such as a str or a bool."
            )
        alias = self.words.alias(name)
        if alias is not None and isinstance(alias.node, ast.expr) and self.depth:
            return replace(self, module=alias.module, depth=self.depth - 1).resolve(alias.node)
        raise self.words.unresolved(name, annotation.node, is_output=True)

    def _generic(self, annotation: Generic) -> Type:
        args, node = annotation.args, annotation.node
        word = self.words.word(annotation.name)
        if word in ("dict", "Dict"):
            if len(args) != 2:
                raise unsupported(self.module, "dict expects 0 or 2 type arguments", node)
            return Type(Mapping(self._type(args[1])))
        if word == "Optional":
            raise self._optional(annotation)
        if word == "Union":
            raise self._union(args, annotation)
        if self.words.container(annotation.name) == "list":
            return Type(Array(self._type(self._only(args, "list", node))))
        if word in ("Iterator", "AsyncIterator"):
            return Type(Stream(self._type(self._only(args, "Iterator", node))))
        if word in ("ConcatenateIterator", "AsyncConcatenateIterator"):
            return self._pieces(self._only(args, "ConcatenateIterator", node))
        raise unsupported(self.module, f"{annotation.name}[...] is not a supported output type", node)

    def _pieces(self, inner: Annotation) -> Type:
        if not isinstance(inner, Named):
            raise unsupported(
                self.module, "ConcatenateIterator element type must be a simple type", inner.node, "Use str."
            )
        if self.words.word(inner.name) != "str":
            raise self.module.error(
                f"ConcatenateIterator element type must be str, got {inner.name}",
                inner.node,
                f"Use Iterator[{inner.name}], or yield strings.",
            )
        return Type(Stream(Type(Primitive("str")), concatenate=True))

    def _only(self, args: tuple[Annotation, ...], word: str, node: ast.expr) -> Annotation:
        if len(args) != 1:
            raise unsupported(self.module, f"{word} expects exactly 1 type argument", node)
        return args[0]

    def _record(self, cls: Class, kind: Kind) -> Type:
        """The class as a record; inside of itself it is just an object, since a schema without names cannot recur."""
        if cls.node in self.open:
            return ANY
        resolver = Outputs(cls.module, self.open | {cls.node})
        return Type(Record(tuple(resolver._fields(cls, kind, set()).items())))

    def _fields(self, cls: Class, kind: Kind, seen: set[ast.ClassDef]) -> dict[str, Field]:
        fields: dict[str, Field] = {}
        if cls.node in seen:
            return fields
        words = Words(cls.module)
        for base in reversed(cls.node.bases) if kind is not Kind.TYPED_DICT else cls.node.bases:
            name = dotted(base)
            parent = words.find_class(name) if name is not None else None
            if parent is not None and class_kind(parent) is not None:
                fields |= replace(self, module=parent.module)._fields(parent, kind, seen | {cls.node})
        total = _is_total(cls.node)
        for statement in cls.node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                annotation = parse(statement.annotation, cls.module)
                if isinstance(annotation, Generic) and words.exact(annotation.name, *TYPING) == "ClassVar":
                    continue
                fields[statement.target.id] = self._field(annotation, statement.value, kind, total)
        return fields

    def _field(self, annotation: Annotation, value: ast.expr | None, kind: Kind, total: bool) -> Field:
        required: bool | None = None
        if kind is Kind.TYPED_DICT:
            required = total
            if isinstance(annotation, Generic) and len(annotation.args) == 1:
                word = self.words.word(annotation.name)
                if word in ("Required", "NotRequired"):
                    annotation, required = annotation.args[0], word == "Required"
        of_type, needed = self._field_type(annotation)
        if required is not None:
            needed = required
        return Field(of_type, needed and not self._has_default(value))

    def _field_type(self, annotation: Annotation) -> tuple[Type, bool]:
        """The type of a field, which may be optional, and whether it must be there."""
        opaque = self.words.opaque(annotation)
        if opaque is None and isinstance(annotation, Generic) and self.words.is_annotated(annotation):
            return self._field_type(annotation.args[0])
        inner = self.words.optional(annotation if opaque is None else opaque)
        if inner is not None:
            return (opaque_type(self.words, inner) if opaque is not None else self._type(inner)).or_none(), False
        return (opaque_type(self.words, opaque) if opaque is not None else self._type(annotation)), True

    def _has_default(self, value: ast.expr | None) -> bool:
        """Whether a default is written out; what ``Field(...)`` says is not looked at, as in Cog."""
        if value is None:
            return False
        try:
            evaluate(value, Scope(self.module, constants=False))
        except Unresolvable:
            return False
        return True


def _is_total(node: ast.ClassDef) -> bool:
    return not any(
        keyword.arg == "total" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        for keyword in node.keywords
    )


def opaque_type(words: Words, inner: Annotation) -> Type:
    """What ``Annotated[inner, Opaque]`` is: any object, or a list of them."""
    if not isinstance(inner, Alternatives | Metadata) and words.container(inner.name) == "list":
        return Type(Array(ANY))
    return ANY
