"""What the names of a block of code are bound to, in which order, and which of them change afterwards.

One block alone: this file must not follow imports or look at other files.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import field
from functools import lru_cache
from itertools import pairwise

from cogkit.fast_dataclass import dataclass
from cogkit.project.schema.grammar import TYPE_ALIAS

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Position = tuple[int, int]
"""Line and column, as in the tree."""

_SCOPES = (*FUNCTIONS, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_CHANGING = frozenset(
    {
        *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"),
        *("update", "setdefault", "popitem", "add", "discard"),
        *("difference_update", "intersection_update", "symmetric_difference_update"),
        *("__setitem__", "__delitem__", "__setattr__", "__ior__", "__iadd__"),
    }
)
_ANY = "*"


@dataclass(frozen=True, slots=True)
class Import:
    """Where a name comes from.

    Attributes:
        module: The module, with its leading dots if it is relative.
        name: The name in that module, or "" if the name is the module itself.
    """

    module: str
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """One statement's binding of a name; ``what`` is None if it cannot be known without running the code."""

    start: Position
    end: Position
    what: ast.expr | Import | ast.ClassDef | FunctionNode | None


@dataclass(slots=True)
class Names:
    """All bindings of a block's names, its ``import *`` (`Binding`s of `Import`s), and its ``type`` aliases."""

    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    stars: list[Binding] = field(default_factory=list)
    aliases: dict[str, ast.expr] = field(default_factory=dict)

    def last(self, name: str, before: Position | None) -> Binding | None:
        """The last binding of a name that ends before a place, or of all."""
        for binding in reversed(self.bindings.get(name, ())):
            if before is None or binding.end <= before:
                return binding
        return None

    def stars_between(self, after: Position | None, before: Position | None) -> list[Binding]:
        """The ``import *`` between two places, the last first."""
        return [
            star
            for star in reversed(self.stars)
            if (after is None or star.end > after) and (before is None or star.end <= before)
        ]


def dotted_name(node: ast.expr) -> str | None:
    """``a.b.c`` for a chain of attributes on a name, else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def start_of(node: ast.expr | ast.stmt) -> Position:
    return node.lineno, node.col_offset


def statements(body: list[ast.stmt], certain: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """The statements that run when a block does, and whether they surely do; of ``try``, the handlers come first."""
    for statement in body:
        yield statement, certain
        blocks: list[list[ast.stmt]] = []
        if isinstance(statement, ast.If | ast.For | ast.AsyncFor | ast.While):
            blocks = [statement.body, statement.orelse]
        elif isinstance(statement, ast.Try | ast.TryStar):
            handlers = [handler.body for handler in statement.handlers]
            blocks = [*handlers, statement.body, statement.orelse, statement.finalbody]
        elif isinstance(statement, ast.With | ast.AsyncWith):
            blocks = [statement.body]
        elif isinstance(statement, ast.Match):
            blocks = [case.body for case in statement.cases]
        for block in blocks:
            yield from statements(block, False)


@lru_cache(maxsize=64)
def class_names(node: ast.ClassDef) -> Names:
    """The names of a class's body."""
    return block_names(node.body)


def block_names(body: list[ast.stmt]) -> Names:
    """The names of a module or of a class's body."""
    names = Names()
    for statement, certain in statements(body):
        start = start_of(statement)
        end = (statement.end_lineno or statement.lineno, statement.end_col_offset or 0)
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            names.stars.append(Binding(start, end, Import("." * statement.level + (statement.module or ""))))
            continue
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and _is_alias(statement):
            assert statement.value is not None
            names.aliases[statement.target.id] = statement.value
        for name, what in _bindings(statement):
            if isinstance(what, ast.expr) and not certain:
                what = None
            names.bindings.setdefault(name, []).append(Binding(start, end, what))
    return names


def _bindings(statement: ast.stmt) -> Iterator[tuple[str, ast.expr | Import | ast.ClassDef | FunctionNode | None]]:
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            # Without "as", ``import a.b`` binds ``a``.
            yield (
                alias.asname or alias.name.partition(".")[0],
                Import(alias.name if alias.asname else alias.name.partition(".")[0]),
            )
    elif isinstance(statement, ast.ImportFrom):
        source = "." * statement.level + (statement.module or "")
        yield from ((alias.asname or alias.name, Import(source, alias.name)) for alias in statement.names)
    elif isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name, statement
        yield from ((name, None) for name in stored_names(_outside(statement)))
    elif isinstance(statement, ast.Assign):
        yield from ((name, None) for name in stored_names([statement.value]))
        for target in statement.targets:
            yield from _unpacked(target, statement.value)
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        if statement.value is not None:
            yield statement.target.id, None if _is_alias(statement) else statement.value
    else:
        yield from ((name, None) for name in stored_names(_heads(statement)))
        for handler in statement.handlers if isinstance(statement, ast.Try | ast.TryStar) else ():
            if handler.name is not None:
                yield handler.name, None


def _is_alias(statement: ast.AnnAssign) -> bool:
    return isinstance(statement.annotation, ast.Name) and statement.annotation.id == TYPE_ALIAS


def _outside(statement: ast.ClassDef | FunctionNode) -> list[ast.AST]:
    """What of a definition is evaluated in the block that it stands in."""
    if isinstance(statement, ast.ClassDef):
        return [*statement.decorator_list, *statement.bases, *statement.keywords]
    defaults = [default for default in statement.args.kw_defaults if default is not None]
    return [*statement.decorator_list, *statement.args.defaults, *defaults]


def _heads(statement: ast.stmt) -> list[ast.AST]:
    """The parts of a statement that are not blocks of statements."""
    parts: list[ast.AST] = []
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.match_case):
            parts += [child.pattern, *([child.guard] if child.guard is not None else [])]
        elif not isinstance(child, ast.stmt | ast.ExceptHandler):
            parts.append(child)
    return parts


def _unpacked(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr | None]]:
    """What names of a target get; ``a, b = X`` gives them ``X[0]`` and ``X[1]``."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple | ast.List) and not any(isinstance(one, ast.Starred) for one in target.elts):
        written = value.elts if isinstance(value, ast.Tuple | ast.List) else None
        if written is not None and any(isinstance(one, ast.Starred) for one in written):
            written = None
        if written is not None and len(written) == len(target.elts):
            for one, of_it in zip(target.elts, written, strict=True):
                yield from _unpacked(one, of_it)
            return
        for index, one in enumerate(target.elts):
            item = ast.Subscript(value, ast.Constant(index), ast.Load())
            for part in (item, item.slice):
                ast.copy_location(part, value)
            # Of a dict these would be its keys, of a text its characters.
            known = isinstance(value, ast.Name | ast.Attribute | ast.List | ast.Tuple)
            yield from _unpacked(one, item) if known else ((name, None) for name in stored_names([one]))
    else:
        yield from ((name, None) for name in stored_names([target]))


def stored_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The names that expressions, targets and patterns bind in the block they stand in."""
    stack: list[tuple[ast.AST, bool]] = [(node, False) for node in nodes]
    while stack:
        node, in_comprehension = stack.pop()
        if isinstance(node, ast.NamedExpr):
            yield node.target.id
            stack.append((node.value, in_comprehension))
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and not in_comprehension:
            yield node.id
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name is not None:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            yield node.rest
        if isinstance(node, ast.Lambda):
            continue
        inside = in_comprehension or isinstance(node, _COMPREHENSIONS)
        stack += [(child, inside) for child in ast.iter_child_nodes(node)]


def changed_names(tree: ast.Module) -> frozenset[str]:
    """The names of a module whose values change without being bound anew in it.

    By a method such as ``append``, by an item or attribute that is set or removed, by ``global`` in a function; and the
    names that share a value with such a name.
    """
    changed: set[str] = set()
    _look_for_changes(tree, frozenset(), changed)
    pairs = list(_shared(tree))
    grown = True
    while grown:
        grown = False
        for one, other in pairs:
            if (one in changed) != (other in changed):
                changed |= {one, other}
                grown = True
    return _Everything(changed) if _ANY in changed else frozenset(changed)


class _Everything(frozenset[str]):
    """The changed names of a module that may change any."""

    def __contains__(self, name: object) -> bool:
        return True


def _look_for_changes(tree: ast.AST, local: frozenset[str], changed: set[str]) -> None:
    stack: list[tuple[ast.AST, frozenset[str]]] = [(tree, local)]
    while stack:
        node, hidden = stack.pop()
        if isinstance(node, FUNCTIONS):
            hidden = _locals(node, hidden)
        roots: list[str] = []
        if isinstance(node, ast.Global):
            changed.update(node.names)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
                roots = _roots([node.func.value])
            elif isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr") and node.args:
                roots = _roots(node.args[:1])
            elif isinstance(node.func, ast.Name) and node.func.id == "exec":
                roots = [_ANY]
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            roots = _roots([node.value])
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            roots = [node.target.id]
        changed.update(root for root in roots if root not in hidden)
        stack += [(child, hidden) for child in ast.iter_child_nodes(node)]


def _roots(nodes: list[ast.expr]) -> list[str]:
    found = []
    for node in nodes:
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Name):
            found.append(node.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("globals", "vars"):
            found.append(_ANY)
    return found


def _locals(function: FunctionNode, outer: frozenset[str]) -> frozenset[str]:
    arguments = function.args
    names = {arg.arg for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    names |= {arg.arg for arg in (arguments.vararg, arguments.kwarg) if arg is not None}
    declared: set[str] = set()
    for statement, _ in statements(function.body):
        if isinstance(statement, ast.Global):
            declared.update(statement.names)
        else:
            names.update(name for name, _ in _bindings(statement))
    return (outer | names) - declared


def _shared(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Pairs of the module's names that may be one value."""
    for statement, _ in statements(tree.body):
        if not isinstance(statement, ast.Assign):
            continue
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        if isinstance(statement.value, ast.Name):
            names.append(statement.value.id)
        yield from pairwise(names)
