"""Type annotations as written, and what their words mean to Cog.

`parse` turns an annotation's syntax into a small tree and says nothing about meaning.  `Words` then tells which of
Cog's words (``Path``, ``Optional``, ``list`` …) a name stands for.  Cog knows most of them by their last name alone,
wherever they were imported from, and so does this file; names that were renamed on import are followed too.
"""

from __future__ import annotations

import ast

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.schema.grammar import parse_expression
from cogkit.project.schema.names import Import
from cogkit.project.schema.names import dotted_name as dotted
from cogkit.project.schema.source import Class, Found, Module

PRIMITIVES = ("bool", "float", "int", "str", "Path", "File", "Secret", "Any")
TYPING = frozenset({"typing", "typing_extensions"})
_RENAMED_FROM = frozenset(
    {"builtins", "cog", "collections.abc", "pathlib", "pydantic", "pydantic.v1", "typing", "typing_extensions"}
)
STREAMS = ("Iterator", "AsyncIterator", "ConcatenateIterator", "AsyncConcatenateIterator")
_MAX_DEPTH = 50

TYPES_HINT = (
    "Inputs are str, int, float, bool, Path, Secret, dict, and lists, unions and Optional of them; outputs are these, "
    "records (BaseModel, TypedDict, dataclass), and iterators."
)


@dataclass(frozen=True, slots=True)
class Named:
    """A name, dotted or not; ``None`` too."""

    name: str
    node: ast.expr


@dataclass(frozen=True, slots=True)
class Generic:
    """``name[args]``."""

    name: str
    args: tuple[Annotation, ...]
    node: ast.expr


@dataclass(frozen=True, slots=True)
class Alternatives:
    """``A | B | …``, flat."""

    args: tuple[Annotation, ...]
    node: ast.expr


@dataclass(frozen=True, slots=True)
class Metadata:
    """Something inside brackets that is not a type: a call, a number, a list."""

    node: ast.expr


Annotation = Named | Generic | Alternatives | Metadata


def parse(node: ast.expr, module: Module) -> Annotation:
    """The annotation's tree; quoted parts are read as annotations themselves.

    Raises:
        ConfigError: It is not a type.
    """
    annotation = _parse(node, module, _MAX_DEPTH)
    if isinstance(annotation, Metadata):
        raise unsupported(module, module.text(node), node)
    return annotation


def _parse(node: ast.expr, module: Module, depth: int) -> Annotation:
    if depth == 0:
        raise unsupported(module, "the annotation is nested too deeply", node)
    if isinstance(node, ast.Constant):
        if node.value is None:
            return Named("None", node)
        if isinstance(node.value, str):
            return _parse(_unquote(node, node.value, module), module, depth - 1)
    if isinstance(node, ast.Name | ast.Attribute):
        name = dotted(node)
        if name is not None:
            return Named(name, node)
    if isinstance(node, ast.Subscript):
        outer = dotted(node.value)
        if outer is not None:
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return Generic(outer, tuple(_argument(one, module, depth) for one in inner), node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = (_parse(node.left, module, depth - 1), _parse(node.right, module, depth - 1))
        members: list[Annotation] = []
        for side in sides:
            members += side.args if isinstance(side, Alternatives) else (side,)
        return Alternatives(tuple(members), node)
    return Metadata(node)


def _argument(node: ast.expr, module: Module, depth: int) -> Annotation:
    """What is in brackets; a string that is not a type (in ``Literal`` and ``Annotated``) is no mistake there."""
    try:
        return _parse(node, module, depth - 1)
    except ConfigError:
        if isinstance(node, ast.Constant):
            return Metadata(node)
        raise


def _unquote(node: ast.Constant, text: str, module: Module) -> ast.expr:
    try:
        expression = parse_expression(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise unsupported(module, f"string annotation: {text!r}", node) from error
    for part in ast.walk(expression):
        ast.copy_location(part, node)
    return expression


def unsupported(module: Module, what: str, node: ast.expr, hint: str | None = None) -> ConfigError:
    return module.error(f"unsupported type: {what}", node, hint or TYPES_HINT)


@dataclass(frozen=True, slots=True)
class Words:
    """The meaning of names in one module."""

    module: Module

    def word(self, name: str) -> str:
        """The word that Cog would know the name by: its last part, or what a renamed one is called at its origin."""
        origin = self.module.imports.get(name)
        if origin is not None and origin.name and origin.module in _RENAMED_FROM:
            return origin.name
        return name.rpartition(".")[2]

    def exact(self, name: str, *modules: str) -> str:
        """The word, if the name was really imported from one of ``modules``; else ""."""
        origin = self.origin(name)
        return origin.name if origin is not None and origin.module in modules else ""

    def container(self, name: str) -> str:
        """``list``, ``Optional`` or ``Union``, if the name surely is that of the builtin or of ``typing``."""
        if name == "list" and name not in self.module.imports:
            return "list"
        if self.exact(name, "builtins") == "list":
            return "list"
        word = self.exact(name, *TYPING)
        return {"List": "list", "Optional": "Optional", "Union": "Union"}.get(word, "")

    def origin(self, name: str) -> Import | None:
        return self.module.origin(name)

    def find_class(self, name: str) -> Class | None:
        return self.module.find_class(name)

    def alias(self, name: str) -> Found | None:
        """The type that a plain alias of the project stands for, ``Size = Literal["s", "m"]``."""
        found = self.module.find(name)
        if found is None or not isinstance(found.node, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp):
            return None
        return found

    def is_annotated(self, annotation: Annotation) -> bool:
        return isinstance(annotation, Generic) and self.exact(annotation.name, *TYPING) == "Annotated"

    def opaque(self, annotation: Annotation) -> Annotation | None:
        """``X`` of ``Annotated[X, Opaque]``, or None."""
        if isinstance(annotation, Generic) and self.is_annotated(annotation):
            for metadata in annotation.args[1:]:
                if isinstance(metadata, Named) and self.exact(metadata.name, "cog") == "Opaque":
                    return annotation.args[0]
        return None

    def optional(self, annotation: Annotation) -> Annotation | None:
        """``X`` of ``Optional[X]``, ``Union[X, None]`` or ``X | None``, or None if it is nothing of that."""
        if isinstance(annotation, Generic):
            word = self.word(annotation.name)
            if word == "Optional" and len(annotation.args) == 1:
                return annotation.args[0]
            if word != "Union":
                return None
        elif not isinstance(annotation, Alternatives):
            return None
        return _without_none(annotation.args)

    def opaque_optional(self, annotation: Annotation) -> Annotation | None:
        """`optional` inside of ``Opaque``, where a foreign ``Optional[…]`` is just another foreign type."""
        if isinstance(annotation, Generic) and not self.container(annotation.name):
            return None
        return self.optional(annotation)

    def unresolved(self, name: str, node: ast.expr, *, is_output: bool = False) -> ConfigError:
        """The error for a name that is neither one of Cog's words nor a class of the project."""
        word = self.exact(name, *TYPING, "cog", "collections.abc")
        if word in STREAMS:
            return self.module.error(
                f"unsupported type: {name} needs the type of its items",
                node,
                f"Write {name}[str], for instance." if is_output else "Only an output can be an iterator; take a list.",
            )
        alias = self.module.names.aliases.get(name)
        if alias is not None:
            text = self.module.text(alias)
            return self.module.error(
                f"unsupported type: '{name}' is an alias by a type statement, which Cog's server does not look into",
                node,
                f"Write what it stands for, {text}, or make it a plain alias: {name} = {text}.",
            )
        origin = self.origin(name)
        if origin is not None:
            short = name.rpartition(".")[2]
            return self.module.error(
                f"cannot resolve type '{short}' (imported from '{origin.module}') - external types cannot be "
                "statically analyzed",
                node,
                f"If it is JSON-shaped, write Annotated[{name}, Opaque] (from typing import Annotated, from cog import "
                "Opaque); else define it as a BaseModel in a file of the project.",
            )
        return self.module.error(
            f"cannot resolve type '{name}' - it is not a primitive type (str, int, float, bool, Path) and no BaseModel "
            "definition was found",
            node,
            "Import it, or define it as a BaseModel, TypedDict or dataclass in a file of the project.",
        )


def _without_none(args: tuple[Annotation, ...]) -> Annotation | None:
    if len(args) == 2:
        for index, one in enumerate(args):
            if isinstance(one, Named) and one.name == "None":
                return args[1 - index]
    return None
