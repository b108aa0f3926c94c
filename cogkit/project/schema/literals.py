"""Expressions whose value is in the source: literals, names of module-level constants, and simple arithmetic.

`evaluate` never runs anything of the user's; what it does not know it refuses with `Unresolvable`, and what could be
made huge by a short expression (powers, shifts) it does not know.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import field, replace

from cogkit.fast_dataclass import dataclass
from cogkit.project.schema.source import Module

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


class Unresolvable(Exception):
    """The value cannot be known without running the code."""


@dataclass(slots=True)
class _Budget:
    """Steps left: constants that name each other twice each grow beyond any memory in a few lines."""

    steps: int = _MAX_STEPS


@dataclass(frozen=True, slots=True)
class Scope:
    """The names an expression may use: those bound here, then the module's constants."""

    module: Module
    bound: Mapping[str, Value] = field(default_factory=dict)
    constants: bool = True
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
        assignment = self.module.assignments.get(name) if self.constants else None
        if assignment is None or assignment.value is None:
            raise Unresolvable
        return evaluate(assignment.value, Scope(self.module, depth=self.depth, budget=self.budget))


def evaluate(node: ast.expr, scope: Scope) -> Value:
    """The value of an expression; a tuple is a list.

    Raises:
        Unresolvable: It is not in the source.
    """
    scope = scope.deeper()
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, ast.Name):
        return scope.lookup(node.id)
    if isinstance(node, ast.Set):
        return SetValue(_items(node.elts, scope))
    if isinstance(node, ast.List | ast.Tuple):
        return _items(node.elts, scope)
    if isinstance(node, ast.Dict):
        return _dict(node, scope)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _number(evaluate(node.operand, scope))
        return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.BinOp):
        return _binary(evaluate(node.left, scope), node.op, evaluate(node.right, scope))
    if isinstance(node, ast.JoinedStr):
        return "".join(_formatted(part, scope) for part in node.values)
    if isinstance(node, ast.Call):
        return _call(node, scope)
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
            return left + right
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


def _call(node: ast.Call, scope: Scope) -> Value:
    """``list(X)``, ``tuple(X)``, ``sorted(X)`` and ``X.keys()``, ``X.values()`` of a dict."""
    if node.keywords:
        raise Unresolvable
    if isinstance(node.func, ast.Name) and node.func.id in ("list", "tuple", "sorted") and len(node.args) == 1:
        values = _sequence(evaluate(node.args[0], scope))
        return _sorted(values) if node.func.id == "sorted" else values
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("keys", "values") and not node.args:
        mapping = evaluate(node.func.value, scope)
        if isinstance(mapping, dict):
            return list(mapping) if node.func.attr == "keys" else list(mapping.values())
    raise Unresolvable


def _sorted(values: list[Value]) -> list[Value]:
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) == len(values):
        return list[Value](sorted(texts))
    return list[Value](sorted(_number(value) for value in values))


def to_json(value: Value) -> object:
    """The value as JSON has it; keys that are not strings are written as Go's ``%v`` writes them, as Cog does.

    Raises:
        Unresolvable: A part of it is not known.
    """
    if isinstance(value, Unknown):
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
