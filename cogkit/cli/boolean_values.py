"""Boolean flags with a value: ``--push=false``, as scripts for docker and cog write them.

Go's flag libraries take ``--flag=VALUE`` for every boolean; typer's parser refuses it.  So the values are taken out of
the arguments before that parser sees them, for every boolean flag of every command.  This file must not know any flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cogkit.fast_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Flags:
    """A command's flags, by their spelling, ``--long`` and ``-s``.

    Attributes:
        switches: The name of each boolean flag that has no opposite of its own (``--no-…``).
        valued: Spellings of flags that take a value.
    """

    switches: Mapping[str, str]
    valued: frozenset[str]

    @classmethod
    def of(cls, params: Iterable[Any]) -> Flags:
        """Of a command's parameters; arguments are passed over."""
        options = [param for param in params if param.param_type_name == "option"]
        switches = {
            spelling: option.name
            for option in options
            if option.is_flag and not option.secondary_opts
            for spelling in option.opts
        }
        valued = frozenset(spelling for option in options if not option.is_flag for spelling in option.opts)
        return cls(switches, valued)


def take_out_values(args: list[str], flags: Flags, *, interspersed: bool = True) -> tuple[list[str], set[str]]:
    """The arguments with every ``--flag=VALUE`` of a boolean flag as ``--flag`` or left out.

    Args:
        args: The arguments of one command.
        flags: Its flags.
        interspersed: Whether flags may follow an argument; if not, what follows is another's.

    Returns:
        The arguments, and the names of the flags whose last value was false.

    Raises:
        UsageError: a value that is neither true nor false.
    """
    taken: list[tuple[str, str | None]] = []
    said: dict[str, bool] = {}
    rest = iter(args)
    for arg in rest:
        spelling, equals, value = arg.partition("=")
        name = flags.switches.get(spelling)
        if name is not None:
            said[name] = _truth(spelling, value) if equals else True
            taken.append((spelling, name))
            continue
        taken.append((arg, None))
        if arg == "--" or (not interspersed and not arg.startswith("-")):
            break
        if _wants_next(arg, flags):
            taken += [(following, None) for following in [next(rest, None)] if following is not None]
    taken += [(arg, None) for arg in rest]
    denied = {name for name, value in said.items() if not value}
    return [arg for arg, name in taken if name not in denied], denied


def _truth(spelling: str, value: str) -> bool:
    from cogkit.building.values import parse_bool

    return parse_bool("a flag", spelling, value)


def _wants_next(arg: str, flags: Flags) -> bool:
    """Whether the argument is a flag whose value is the next argument."""
    if arg.startswith("--") or len(arg) <= 2:
        return arg in flags.valued
    if not arg.startswith("-"):
        return False
    # -abc is -a -b -c up to the first that takes a value; what follows that one is its value.
    for at, letter in enumerate(arg[1:], start=1):
        if f"-{letter}" in flags.valued:
            return at == len(arg) - 1
    return False
