"""``dataclass`` as the standard library has it, at a fifth of its price.

The standard one writes the source of six methods for each class and has it compiled.  The command line defines 150
classes before its work begins, and that was a quarter of the time of an unchanged build.  Here only ``__init__`` is
compiled; what compares, hashes and shows is made of closures over the fields.  Only a plain
``@dataclass(frozen=True, slots=True)``, with ``kw_only`` or without, goes this way: every other class, and one that
does anything unusual, is left to the standard library, and type checkers see nothing else.

This file must not let a class behave otherwise than the standard library would.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, **settings):
        """See the standard library."""
        if cls is None:
            return lambda cls: dataclass(cls, **settings)
        if settings in _PLAIN and _is_plain(cls):
            return _made(cls, "kw_only" in settings)
        return dataclasses.dataclass(cls, **settings)


__all__ = ["dataclass"]

_PLAIN = ({"frozen": True, "slots": True}, {"frozen": True, "slots": True, "kw_only": True})
_METHODS = frozenset(
    {"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__getstate__", "__setstate__"}
)


def _is_plain(cls: type) -> bool:
    """Whether a class inherits no fields, defines none of our methods itself and has fields of the usual kind only."""
    own = cls.__dict__
    return (
        _METHODS.isdisjoint(own)
        and not hasattr(cls, "__dataclass_fields__")
        and all(_is_usual(value) for value in own.values() if isinstance(value, Field))
        and not any("InitVar" in str(hint) or "KW_ONLY" in str(hint) for hint in cls.__annotations__.values())
    )


def _is_usual(field: Field[Any]) -> bool:
    return field.init and field.compare and field.hash is None and field.kw_only is MISSING


def _made(cls: type, kw_only: bool) -> type:
    if cls.__doc__ is None:
        # Else the standard library spells the signature out.
        cls.__doc__ = cls.__name__
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
    # A dataclass that inherits from this one is told that it must be frozen, too.
    made.__dataclass_params__.frozen = True
    fields = dataclasses.fields(made)
    made.__init__ = _init(fields, hasattr(made, "__post_init__"), kw_only)
    made.__eq__, made.__hash__ = _comparison([field.name for field in fields])
    made.__repr__, made.__setattr__, made.__delattr__ = _repr, _setattr, _delattr
    made.__getstate__, made.__setstate__ = _getstate, _setstate
    result: type = made
    return result


def _init(fields: tuple[Field[Any], ...], post_init: bool, kw_only: bool) -> Callable[..., None]:
    known: dict[str, Any] = {"_set": object.__setattr__, "_missing": MISSING}
    taken, lines = (["*"] if kw_only else []), []
    for field in fields:
        name = value = field.name
        if field.default is not MISSING:
            known[f"_default_{name}"] = field.default
            taken.append(f"{name}=_default_{name}")
        elif field.default_factory is not MISSING:
            known[f"_make_{name}"] = field.default_factory
            taken.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        else:
            taken.append(name)
        lines.append(f" _set(_self,{name!r},{value})\n")
    lines.append(" _self.__post_init__()\n" if post_init else " pass\n")
    exec(f"def __init__({','.join(['_self', *taken])}):\n{''.join(lines)}", known)
    init: Callable[..., None] = known["__init__"]
    return init


def _comparison(names: list[str]) -> tuple[Callable[[Any, object], Any], Callable[[Any], int]]:
    values = _values(names)

    def __eq__(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(values(self))

    return __eq__, __hash__


def _values(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that gives the values of the fields of these names."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda instance: tuple([getattr(instance, name) for name in names])


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({shown})"


def _setattr(self: Any, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
