"""Expressions whose value is in the source: literals, constants of modules and classes, and what is made of them.

`evaluate` never runs anything of the user's; what it does not know it refuses with `Unresolvable`, and what could be
made huge by a short expression (powers, shifts) it does not know.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from enum import Enum
from typing import Any

from cogkit.fast_dataclass import dataclass
from cogkit.project.schema.names import Position, class_names, dotted_name
from cogkit.project.schema.source import Class, Found, Module, lineage

Scalar = None | bool | int | float | str


class SetValue(list["Value"]):
    """The members of a set in the order they were written; a set has no order of its own."""


class Unknown:
    """A value in a dict that is not in the source, such as a class; its key still is."""


UNKNOWN = Unknown()

Value = Scalar | list["Value"] | dict[Scalar, "Value"] | SetValue | Unknown

_MAX_DEPTH = 100
_MAX_STEPS = 100_000
_MAX_BITS = 1024
_MAX_TEXT = 1 << 20


class Unresolvable(Exception):
    """The value cannot be known without running the code."""


@dataclass(slots=True)
class _Budget:
    """Steps left: constants that name each other twice each grow beyond any memory in a few lines."""

    steps: int = _MAX_STEPS


@dataclass(frozen=True, slots=True)
class Scope:
    """The names an expression may use: those bound here, then the class's around it, then the module's.

    Attributes:
        module: The module that the expression stands in.
        bound: Names with values: parameters of a function, variables of a comprehension.
        constants: Whether names of the class and the module have values.
        owner: The class whose body the expression stands in.
        before: Where the expression is evaluated: only what is bound before counts; None for code that runs later.
    """

    module: Module
    bound: Mapping[str, Value] = field(default_factory=dict)
    constants: bool = True
    owner: Class | None = None
    before: Position | None = None
    depth: int = 0
    budget: _Budget = field(default_factory=_Budget)

    def deeper(self) -> Scope:
        self.budget.steps -= 1
        if self.depth >= _MAX_DEPTH or self.budget.steps < 0:
            raise Unresolvable
        return replace(self, depth=self.depth + 1)

    def lookup(self, name: str) -> Value:
        if name in self.bound:
            value = self.bound[name]
            if value is UNKNOWN:
                raise Unresolvable
            return value
        found = self.find(name)
        if found is None or not isinstance(found.node, ast.expr):
            raise Unresolvable
        return evaluate(found.node, self.at(found))

    def find(self, dotted: str) -> Found | None:
        """What a name that is not bound here stands for."""
        head = dotted.partition(".")[0]
        if not self.constants or head in self.bound:
            return None
        if self.owner is not None:
            binding = class_names(self.owner.node).last(head, self.before)
            if binding is not None:
                if dotted != head or not isinstance(binding.what, ast.expr) or head in self.module.changed:
                    return None
                return Found(self.module, binding.what, binding.start, self.owner)
        return self.module.find(dotted, self.before)

    def at(self, found: Found) -> Scope:
        """The scope of the expression that a name stands for."""
        return Scope(found.module, owner=found.owner, before=found.start, depth=self.depth, budget=self.budget)

    def binding(self, **names: Value) -> Scope:
        """The scope of a comprehension's body, which does not see the names of a class."""
        return replace(self, bound={**self.bound, **names}, owner=None)

    def is_builtin(self, name: str) -> bool:
        if name in self.bound or (self.owner is not None and class_names(self.owner.node).last(name, None) is not None):
            return False
        names = self.module.names
        return name not in names.bindings and name not in self.module.changed


def evaluate(node: ast.expr, scope: Scope) -> Value:
    """The value of an expression; a tuple is a list.

    Raises:
        Unresolvable: It is not in the source.
    """
    scope = scope.deeper()
    act = _EXPRESSIONS.get(type(node))
    if act is None:
        raise Unresolvable
    return act(node, scope)


def _name(node: ast.Name, scope: Scope) -> Value:
    return scope.lookup(node.id)


def _attribute(node: ast.Attribute, scope: Scope) -> Value:
    """A constant of another module or of a class; the value or name of an enumeration's member."""
    dotted = dotted_name(node)
    if dotted is None:
        raise Unresolvable
    found = scope.find(dotted)
    if found is not None:
        if not isinstance(found.node, ast.expr):
            raise Unresolvable
        if found.owner is not None:
            kind = enum_kind(found.owner)
            if kind is Enumeration.PLAIN or (kind is not None and _is_no_member(node.attr)):
                raise Unresolvable
        return evaluate(found.node, scope.at(found))
    if node.attr in ("value", "name"):
        member = scope.find(dotted.rpartition(".")[0])
        known = member is not None and member.owner is not None and enum_kind(member.owner) is not None
        if known and member is not None and isinstance(member.node, ast.expr):
            return dotted.split(".")[-2] if node.attr == "name" else evaluate(member.node, scope.at(member))
    raise Unresolvable


class Enumeration(Enum):
    """What the members of an enumeration are."""

    PLAIN = "members of their own"
    VALUES = "texts or numbers"


_VALUE_ENUMS = frozenset({"StrEnum", "IntEnum"})
_ENUMS = frozenset({"Enum", "Flag", "IntFlag", "ReprEnum"})


def enum_kind(cls: Class) -> Enumeration | None:
    """What kind of enumeration a class is; None if it is none."""
    bases = [base for one in lineage(cls) for base in one.node.bases]
    words = {(dotted_name(base) or "").rpartition(".")[2] for base in bases}
    if words & _VALUE_ENUMS or (words & _ENUMS and words & {"str", "int", "float"}):
        return Enumeration.VALUES
    return Enumeration.PLAIN if words & _ENUMS else None


def _is_no_member(name: str) -> bool:
    return name.startswith("_") or name in ("name", "value")


def enum_members(cls: Class) -> list[tuple[str, Found]]:
    """The members of an enumeration, in order; an alias of a member is one here, too."""
    members = []
    for name, bindings in class_names(cls.node).bindings.items():
        binding = bindings[-1]
        if not _is_no_member(name) and isinstance(binding.what, ast.expr):
            members.append((name, Found(cls.module, binding.what, binding.start, cls)))
    return members


def _enum_of(node: ast.expr, scope: Scope) -> Class | None:
    dotted = dotted_name(node)
    found = scope.find(dotted) if dotted is not None else None
    if found is None or not isinstance(found.node, ast.ClassDef):
        return None
    cls = Class(found.module, found.node)
    return cls if enum_kind(cls) is not None else None


def _subscript(node: ast.Subscript, scope: Scope) -> Value:
    value = evaluate(node.value, scope)
    if isinstance(node.slice, ast.Slice):
        limits = [
            _index(evaluate(part, scope)) if part is not None else None
            for part in (node.slice.lower, node.slice.upper, node.slice.step)
        ]
        if not isinstance(value, str | list) or isinstance(value, SetValue) or limits[2] == 0:
            raise Unresolvable
        return value[slice(*limits)]
    key = evaluate(node.slice, scope)
    if isinstance(value, dict) and not isinstance(key, list | dict | Unknown) and key in value:
        return _certain(value[key])
    if isinstance(value, str | list) and not isinstance(value, SetValue):
        index = _index(key)
        if -len(value) <= index < len(value):
            return _certain(value[index])
    raise Unresolvable


def _index(value: Value) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Unresolvable


def _certain(value: Value) -> Value:
    if value is UNKNOWN:
        raise Unresolvable
    return value


def _condition(node: ast.IfExp, scope: Scope) -> Value:
    return evaluate(node.body if _truth(evaluate(node.test, scope)) else node.orelse, scope)


def _truth(value: Value) -> bool:
    return bool(_certain(value))


def _either(node: ast.BoolOp, scope: Scope) -> Value:
    value: Value = None
    for part in node.values:
        value = evaluate(part, scope)
        if _truth(value) == isinstance(node.op, ast.Or):
            break
    return value


def _comparison(node: ast.Compare, scope: Scope) -> Value:
    left = evaluate(node.left, scope)
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = evaluate(right_node, scope)
        if not _compare(left, op, right):
            return False
        left = right
    return True


def _compare(left: Value, op: ast.cmpop, right: Value) -> bool:
    if isinstance(op, ast.In | ast.NotIn):
        if isinstance(left, Unknown | list | dict) or not isinstance(right, str | list | dict):
            raise Unresolvable
        if isinstance(right, str):
            if not isinstance(left, str):
                raise Unresolvable
            return (left in right) == isinstance(op, ast.In)
        return (left in right) == isinstance(op, ast.In)
    if isinstance(op, ast.Is | ast.IsNot):
        if left is not None and right is not None:
            raise Unresolvable
        return (left is right) == isinstance(op, ast.Is)
    plain = (str, bool, int, float, type(None))
    if not isinstance(left, plain) or not isinstance(right, plain):
        raise Unresolvable
    if isinstance(op, ast.Eq | ast.NotEq):
        return (left == right) == isinstance(op, ast.Eq)
    if isinstance(left, str) and isinstance(right, str):
        return _ORDER[type(op)](left, right)
    return _ORDER[type(op)](_number(left), _number(right))


_ORDER: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _list_comprehension(node: ast.ListComp | ast.GeneratorExp, scope: Scope) -> Value:
    return [evaluate(node.elt, each) for each in _rounds(node.generators, scope)]


def _set_comprehension(node: ast.SetComp, scope: Scope) -> Value:
    return SetValue([evaluate(node.elt, each) for each in _rounds(node.generators, scope)])


def _dict_comprehension(node: ast.DictComp, scope: Scope) -> Value:
    result: dict[Scalar, Value] = {}
    for each in _rounds(node.generators, scope):
        key = evaluate(node.key, each)
        if isinstance(key, list | dict | Unknown):
            raise Unresolvable
        try:
            result[key] = evaluate(node.value, each)
        except Unresolvable:
            result[key] = UNKNOWN
    return result


def _rounds(generators: list[ast.comprehension], scope: Scope, first: bool = True) -> Iterator[Scope]:
    """The scopes of the rounds of a comprehension; only its first ``in`` sees the names of a class."""
    if not generators:
        yield scope
        return
    generator, *inner = generators
    if generator.is_async:
        raise Unresolvable
    for item in _iterated(generator.iter, scope if first else scope.binding()):
        each = _bound(generator.target, item, scope.binding().deeper())
        if all(_truth(evaluate(condition, each)) for condition in generator.ifs):
            yield from _rounds(inner, each, False)


class _Member(dict[Scalar, "Value"]):
    """A member of an enumeration in a loop; only its name and value can be used."""


def _iterated(node: ast.expr, scope: Scope) -> list[Value]:
    cls = _enum_of(node, scope)
    if cls is None:
        return _sequence(evaluate(node, scope))
    return [
        _Member({"name": name, "value": _known(found.node, scope.at(found))})
        for name, found in enum_members(cls)
        if isinstance(found.node, ast.expr)
    ]


def _known(node: ast.expr, scope: Scope) -> Value:
    try:
        return evaluate(node, scope)
    except Unresolvable:
        return UNKNOWN


def _bound(target: ast.expr, item: Value, scope: Scope) -> Scope:
    if isinstance(target, ast.Name):
        return scope.binding(**{target.id: item})
    if isinstance(target, ast.Tuple | ast.List) and isinstance(item, list) and len(item) == len(target.elts):
        for one, value in zip(target.elts, item, strict=True):
            scope = _bound(one, value, scope)
        return scope
    raise Unresolvable


def _constant(value: object) -> Value:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    raise Unresolvable


def _items(nodes: list[ast.expr], scope: Scope) -> list[Value]:
    items: list[Value] = []
    for node in nodes:
        if isinstance(node, ast.Starred):
            items += _sequence(evaluate(node.value, scope))
        else:
            items.append(evaluate(node, scope))
    return items


def _dict(node: ast.Dict, scope: Scope) -> dict[Scalar, Value]:
    result: dict[Scalar, Value] = {}
    for key_node, value_node in zip(node.keys, node.values, strict=True):
        if key_node is None:
            other = evaluate(value_node, scope)
            if not isinstance(other, dict):
                raise Unresolvable
            result |= other
            continue
        key = evaluate(key_node, scope)
        if isinstance(key, list | dict | Unknown):
            raise Unresolvable
        try:
            result[key] = evaluate(value_node, scope)
        except Unresolvable:
            result[key] = UNKNOWN
    return result


def _sequence(value: Value) -> list[Value]:
    """The members of what a list can be made of in a known order."""
    if isinstance(value, dict):
        return list(value)
    if isinstance(value, list) and not isinstance(value, SetValue):
        return list(value)
    raise Unresolvable


def _number(value: Value) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise Unresolvable


_ARITHMETIC: Mapping[type[ast.operator], Callable[[int | float, int | float], int | float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def _binary(left: Value, op: ast.operator, right: Value) -> Value:
    if isinstance(op, ast.Add):
        if isinstance(left, str) and isinstance(right, str):
            return _text(left + right)
        if isinstance(left, list) and isinstance(right, list):
            return _sequence(left) + _sequence(right)
    first, second = _number(left), _number(right)
    if isinstance(op, ast.Pow | ast.LShift):
        return _power(first, op, second)
    act = _ARITHMETIC.get(type(op))
    if act is None:
        raise Unresolvable
    try:
        return _bounded(act(first, second))
    except ArithmeticError as error:
        raise Unresolvable from error


def _power(first: int | float, op: ast.operator, second: int | float) -> int | float:
    """Powers of integers that stay small; a float's power can be complex."""
    if not isinstance(first, int) or not isinstance(second, int) or not 0 <= second <= _MAX_BITS:
        raise Unresolvable
    if isinstance(op, ast.LShift):
        return _bounded(first << second)
    if first.bit_length() * second > _MAX_BITS:
        raise Unresolvable
    return int(first**second)


def _bounded(value: int | float) -> int | float:
    if isinstance(value, int) and value.bit_length() > 2 * _MAX_BITS:
        raise Unresolvable
    if isinstance(value, float) and not math.isfinite(value):
        raise Unresolvable
    return value


def _formatted(part: ast.expr, scope: Scope) -> str:
    if isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None:
        value = evaluate(part.value, scope)
        if value is None or isinstance(value, str | bool | int | float):
            return str(value)
        raise Unresolvable
    text = evaluate(part, scope)
    if isinstance(text, str):
        return text
    raise Unresolvable


_TEXT_METHODS = frozenset({"upper", "lower", "title", "capitalize", "strip"})


def _call(node: ast.Call, scope: Scope) -> Value:
    """A few functions and methods that make a value of values."""
    if isinstance(node.func, ast.Name) and scope.is_builtin(node.func.id):
        return _builtin(node.func.id, node, scope)
    if isinstance(node.func, ast.Attribute) and not node.keywords:
        return _method(node.func, node.args, scope)
    raise Unresolvable


def _method(function: ast.Attribute, args: list[ast.expr], scope: Scope) -> Value:
    name = function.attr
    if name in ("keys", "values", "items") and not args:
        return _view(function, scope)
    value = evaluate(function.value, scope)
    if isinstance(value, str) and name in _TEXT_METHODS and not args:
        return str(getattr(value, name)())
    if isinstance(value, str) and name == "join" and len(args) == 1:
        items = _iterated(args[0], scope)
        texts = [item for item in items if isinstance(item, str)]
        if len(texts) != len(items) or sum(map(len, texts)) + len(value) * len(texts) > _MAX_TEXT:
            raise Unresolvable
        return value.join(texts)
    if isinstance(value, dict) and name == "get" and len(args) in (1, 2):
        key = evaluate(args[0], scope)
        if isinstance(key, list | dict | Unknown):
            raise Unresolvable
        return _certain(value[key]) if key in value else evaluate(args[1], scope) if len(args) == 2 else None
    if isinstance(value, dict | list) and name == "copy" and not args:
        return value
    raise Unresolvable


def _view(function: ast.Attribute, scope: Scope) -> Value:
    if isinstance(function.value, ast.Attribute) and function.value.attr == "__members__":
        cls = _enum_of(function.value.value, scope)
        if cls is not None and function.attr == "keys":
            return [name for name, _ in enum_members(cls)]
    mapping = evaluate(function.value, scope)
    if not isinstance(mapping, dict) or isinstance(mapping, _Member):
        raise Unresolvable
    if function.attr == "keys":
        return list(mapping)
    if function.attr == "values":
        return list(mapping.values())
    return [[key, value] for key, value in mapping.items()]


def _builtin(name: str, node: ast.Call, scope: Scope) -> Value:
    args = node.args
    if name == "dict":
        return _made_dict(node, scope)
    if name == "sorted" and len(args) == 1:
        return _sorted(args[0], node.keywords, scope)
    if node.keywords or any(isinstance(arg, ast.Starred) for arg in args):
        raise Unresolvable
    if name in ("list", "tuple") and len(args) <= 1:
        values = _iterated(args[0], scope) if args else []
        if any(isinstance(value, _Member) for value in values):
            raise Unresolvable
        return values
    if name == "set" and len(args) == 1:
        return SetValue(_iterated(args[0], scope))
    if name == "range" and 1 <= len(args) <= 3:
        numbers = [_index(evaluate(arg, scope)) for arg in args]
        if any(abs(number) > _MAX_STEPS for number in numbers) or (len(numbers) == 3 and numbers[2] == 0):
            raise Unresolvable
        counted = list(range(*numbers))
        scope.budget.steps -= len(counted)
        return list[Value](counted)
    if name == "zip":
        return [list(pair) for pair in zip(*(_iterated(arg, scope) for arg in args), strict=False)]
    if name == "enumerate" and len(args) == 1:
        return [[index, item] for index, item in enumerate(_iterated(args[0], scope))]
    if name in ("min", "max", "len", "str", "int", "float", "bool") and len(args) == 1:
        return _converted(name, args[0], scope)
    if name in ("min", "max") and len(args) > 1:
        return _least([evaluate(arg, scope) for arg in args], name)
    raise Unresolvable


def _converted(name: str, node: ast.expr, scope: Scope) -> Value:
    if name in ("min", "max"):
        return _least(_iterated(node, scope), name)
    value = evaluate(node, scope)
    if name == "len":
        if isinstance(value, str | dict) or (isinstance(value, list) and not isinstance(value, SetValue)):
            return len(value)
        raise Unresolvable
    if isinstance(value, list | dict | Unknown):
        raise Unresolvable
    if name == "str":
        return str(value)
    if name == "bool":
        return bool(value)
    if value is None or (isinstance(value, str) and len(value) > 100):
        raise Unresolvable
    try:
        return _bounded(int(value) if name == "int" else float(value))
    except (ValueError, OverflowError) as error:
        raise Unresolvable from error


def _least(values: list[Value], name: str) -> Value:
    ordered = _in_order(values, False)
    if not ordered:
        raise Unresolvable
    return ordered[0] if name == "min" else ordered[-1]


def _made_dict(node: ast.Call, scope: Scope) -> Value:
    result: dict[Scalar, Value] = {}
    if len(node.args) > 1:
        raise Unresolvable
    for arg in node.args:
        value = evaluate(arg, scope)
        pairs = [[key, item] for key, item in value.items()] if isinstance(value, dict) else _sequence(value)
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or isinstance(pair[0], list | dict | Unknown):
                raise Unresolvable
            result[pair[0]] = pair[1]
    for keyword in node.keywords:
        if keyword.arg is None:
            other = evaluate(keyword.value, scope)
            if not isinstance(other, dict):
                raise Unresolvable
            result |= other
        else:
            result[keyword.arg] = _known(keyword.value, scope)
    return result


def _sorted(node: ast.expr, keywords: list[ast.keyword], scope: Scope) -> Value:
    reverse = False
    for keyword in keywords:
        if keyword.arg != "reverse":
            raise Unresolvable
        reverse = _truth(evaluate(keyword.value, scope))
    value = evaluate(node, scope)
    values = list(dict.fromkeys(_hashable(value))) if isinstance(value, SetValue) else _sequence(value)
    return _in_order(values, reverse)


def _hashable(values: list[Value]) -> list[Scalar]:
    plain = [value for value in values if not isinstance(value, list | dict | Unknown)]
    if len(plain) != len(values):
        raise Unresolvable
    return plain


def _in_order(values: Sequence[Value], reverse: bool) -> list[Value]:
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) == len(values):
        return list[Value](sorted(texts, reverse=reverse))
    return list[Value](sorted((_number(value) for value in values), reverse=reverse))


def _text(value: str) -> str:
    if len(value) > _MAX_TEXT:
        raise Unresolvable
    return value


def _signed(node: ast.UnaryOp, scope: Scope) -> Value:
    value = evaluate(node.operand, scope)
    if isinstance(node.op, ast.Not):
        return not _truth(value)
    if not isinstance(node.op, ast.USub | ast.UAdd):
        raise Unresolvable
    number = _number(value)
    return -number if isinstance(node.op, ast.USub) else number


_EXPRESSIONS: Mapping[type[ast.expr], Callable[[Any, Scope], Value]] = {
    ast.Constant: lambda node, scope: _constant(node.value),
    ast.Name: _name,
    ast.Attribute: lambda node, scope: _member_or_attribute(node, scope),
    ast.Set: lambda node, scope: SetValue(_items(node.elts, scope)),
    ast.List: lambda node, scope: _items(node.elts, scope),
    ast.Tuple: lambda node, scope: _items(node.elts, scope),
    ast.Dict: lambda node, scope: _dict(node, scope),
    ast.UnaryOp: _signed,
    ast.BinOp: lambda node, scope: _binary(evaluate(node.left, scope), node.op, evaluate(node.right, scope)),
    ast.BoolOp: _either,
    ast.Compare: _comparison,
    ast.IfExp: _condition,
    ast.JoinedStr: lambda node, scope: _text("".join(_formatted(part, scope) for part in node.values)),
    ast.Call: _call,
    ast.Subscript: _subscript,
    ast.ListComp: _list_comprehension,
    ast.GeneratorExp: _list_comprehension,
    ast.SetComp: _set_comprehension,
    ast.DictComp: _dict_comprehension,
}


def _member_or_attribute(node: ast.Attribute, scope: Scope) -> Value:
    """An attribute; of a member of an enumeration in a loop, its name or value."""
    if isinstance(node.value, ast.Name):
        bound = scope.bound.get(node.value.id)
        if isinstance(bound, _Member) and node.attr in bound:
            return _certain(bound[node.attr])
    return _attribute(node, scope)


def to_json(value: Value) -> object:
    """The value as JSON has it; keys that are not strings are written as Go's ``%v`` writes them, as Cog does.

    Raises:
        Unresolvable: A part of it is not known.
    """
    if isinstance(value, Unknown | _Member):
        raise Unresolvable
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        pairs = {_key(key): to_json(item) for key, item in value.items()}
        return dict(sorted(pairs.items()))
    return value


def _key(key: Scalar) -> str:
    if key is None:
        return "<nil>"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, float) and key.is_integer() and abs(key) < 1e21:
        return str(int(key))
    return str(key)
