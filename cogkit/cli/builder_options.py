"""Which builder a command asks, from its flags; for commands that ask and do not build."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cogkit.cli.build_options import BuilderFlags, Flags
from cogkit.cli.flags import DebugFlag, NoColorFlag
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.builders.choice import Target

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

CacheFilterFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="FILTER",
        help="Only records that match, such as type==exec.cachemount or id~=^abc; of several, one must.",
    ),
]
VerboseFlag = Annotated[bool, typer.Option("-v", "--verbose", help="Everything that is known of each record.")]


class ShownAsTextFlags(Flags):
    """How a command without a progress view looks."""

    no_color: NoColorFlag = False
    debug: DebugFlag = False


class AskingFlags(ShownAsTextFlags, BuilderFlags):
    """Which builder a command asks."""


def chosen_builder(flags: AskingFlags) -> Target:
    """Where the command goes.

    Raises:
        UsageError, ConfigError, BuilderUnreachableError: see `cogkit.builders.choice.choose`.
    """
    from cogkit.builders.choice import choose

    return choose(flags.addr, flags.builder, tls=flags.tls())


def parse_duration(value: str | None, *, flag: str) -> timedelta:
    """``90s``, ``1h30m``, ``7d``; none is no time."""
    if value is None:
        return timedelta()
    if not _DURATION.fullmatch(value.strip()):
        raise UsageError(f"{flag} {value}: not a duration", hint="for example 90s, 1h30m or 7d")
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value)))
    except OverflowError:
        raise UsageError(f"{flag} {value}: too long", hint="for example 90s, 1h30m or 7d") from None


def parse_space(value: str | None, *, flag: str) -> int:
    """A number of bytes, ``500MB`` or ``10GB``; none is 0."""
    from cogkit.building.step_settings import parse_size

    return parse_size(value, flag=flag) or 0
