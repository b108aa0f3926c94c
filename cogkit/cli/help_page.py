"""How ``--help`` reads: one page, options in named groups, in the order in which the command declares them.

typer groups options only in its rich layout, which costs start-up time and draws boxes into pipes.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from typer.core import TyperCommand, TyperGroup

from cogkit.cli.boolean_values import Flags, take_out_values

OTHER_OPTIONS = "Other options"


class _TakesSwitchValues:
    """Lets every boolean flag of a command have a value, as in ``--push=false``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        command: Any = self
        flags = Flags.of(command.get_params(ctx))
        args, denied = take_out_values(args, flags, interspersed=ctx.allow_interspersed_args)
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        # Only now: a flag that is said to be false is so whatever the environment says.
        ctx.params.update(dict.fromkeys(denied & ctx.params.keys(), False))
        return rest


class Page(_TakesSwitchValues, TyperCommand):
    """A command whose help shows the options in their groups (``rich_help_panel``)."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, records in grouped_records(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_epilog(self.epilog, formatter)


def grouped_records(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Name and help of a command's arguments and options by their group, those without one last."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            is_argument = param.param_type_name == "argument"
            title = getattr(param, "rich_help_panel", None) or ("Arguments" if is_argument else OTHER_OPTIONS)
            name, text = record
            # typer writes an argument's type behind its name; the name says enough.
            groups.setdefault(title, []).append((name.split(" ")[0] if is_argument else name, text))
    return {title: groups[title] for title in sorted(groups, key=OTHER_OPTIONS.__eq__)}


class PageGroup(_TakesSwitchValues, TyperGroup):
    """A command with subcommands: their summaries are whole, and the examples stand at the margin."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(sys.maxsize)) for name, command in commands if not command.hidden]  # type: ignore[union-attr]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_epilog(self.epilog, formatter)


def _write_epilog(epilog: str | None, formatter: Any) -> None:
    if epilog:
        formatter.write_paragraph()
        formatter.write_text(inspect.cleandoc(epilog))
