"""JSON as Go's ``encoding/json`` writes it, so that our bytes are Cog's.

It differs from Python's in how floats look and in escaping ``<``, ``>``, ``&`` and two line separators.  Keys are
written in the order of the mapping; whoever makes the document sorts them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

_ESCAPES = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_INDENT = "  "


def encode(document: object, *, indent: bool = False) -> bytes:
    """The document in UTF-8, on one line or indented by two spaces."""
    return "".join(_parts(document, "\n" if indent else None)).encode("utf-8")


def _parts(value: object, newline: str | None) -> Iterator[str]:
    if isinstance(value, dict):
        yield from _container("{}", ((_string(str(key)) + ":", item) for key, item in value.items()), newline)
    elif isinstance(value, list | tuple):
        yield from _container("[]", (("", item) for item in value), newline)
    elif isinstance(value, str):
        yield _string(value)
    elif isinstance(value, float):
        yield _float(value)
    else:
        yield json.dumps(value)


def _container(brackets: str, items: Iterator[tuple[str, object]], newline: str | None) -> Iterator[str]:
    inner = None if newline is None else newline + _INDENT
    first = True
    yield brackets[0]
    for prefix, item in items:
        if not first:
            yield ","
        if inner is not None:
            yield inner
        yield prefix + " " if prefix and inner is not None else prefix
        yield from _parts(item, inner)
        first = False
    if newline is not None and not first:
        yield newline
    yield brackets[1]


def _string(text: str) -> str:
    encoded = json.dumps(text, ensure_ascii=False)
    for character, escape in _ESCAPES.items():
        encoded = encoded.replace(character, escape)
    return encoded


def _float(value: float) -> str:
    """The shortest digits that give the value back; with an exponent only below 1e-6 and from 1e21 on."""
    digits, _, exponent = repr(value).partition("e")
    digits = digits.removesuffix(".0")
    if not exponent:
        return digits
    power = int(exponent)
    if not 1e-6 <= abs(value) < 1e21:
        return f"{digits}e{power:+d}"
    sign = "-" if value < 0 else ""
    whole, _, fraction = digits.lstrip("-").partition(".")
    point = len(whole) + power
    if point <= 0:
        return f"{sign}0.{'0' * -point}{whole}{fraction}"
    return sign + (whole + fraction).ljust(point, "0")
