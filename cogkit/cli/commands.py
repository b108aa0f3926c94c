"""The subcommands, each made only when it is wanted.

typer looks at every flag of every command that it is told of: ten milliseconds, of which one command needs one.  So
the root command holds names, and a command's module is imported and shown to typer when its name is asked for.  This
file must not import a command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from cogkit.cli.help_page import Page, PageGroup
from cogkit.fast_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a command is: the function of that name in ``cogkit.cli.<module>``, beside its ``EXAMPLES``.

    A module with ``SUBCOMMANDS`` is a command with these: names, functions and examples, in the order of the help.
    """

    module: str
    hidden: bool = False


_PLACES = {
    "build": _Place("build"),
    "push": _Place("push"),
    "run": _Place("run"),
    "predict": _Place("run", hidden=True),
    "exec": _Place("exec"),
    "serve": _Place("serve"),
    "playground": _Place("playground"),
    "train": _Place("train", hidden=True),
    "init": _Place("init"),
    "dockerfile": _Place("dockerfile"),
    "debug": _Place("dockerfile", hidden=True),
    "debug dump-llb": _Place("dump_llb", hidden=True),
    "doctor": _Place("doctor"),
    "login": _Place("login"),
    "context": _Place("context"),
    "weights": _Place("weights"),
    "builder": _Place("builder"),
    "du": _Place("du"),
    "prune": _Place("prune"),
    "history": _Place("history"),
    "info": _Place("info"),
    "imagetools": _Place("imagetools"),
    "version": _Place("version"),
}


class _Commands(Mapping[str, Any]):
    """typer's commands by name, in the order of the help."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name, _PLACES[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


def _command(name: str, place: _Place) -> Any:
    module = import_module(f"cogkit.cli.{place.module}")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    subcommands = getattr(module, "SUBCOMMANDS", None)
    if subcommands is not None:
        explained = alone.callback(cls=PageGroup, help=module.HELP, epilog=module.EXAMPLES, invoke_without_command=True)
        explained(_explain)
        for subname, (function, examples) in subcommands.items():
            alone.command(subname, cls=Page, epilog=examples)(function)
        group = get_command(alone)
        group.name = name
        return group
    settings = getattr(module, "CONTEXT_SETTINGS", None)
    command = alone.command(name, cls=Page, epilog=module.EXAMPLES, hidden=place.hidden, context_settings=settings)
    command(getattr(module, place.module))
    return get_command(alone)


def _explain(ctx: typer.Context) -> None:
    """What a command with subcommands does without one of them."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


class Root(PageGroup):
    """``cogkit`` itself, with all subcommands."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        # typer only ever reads them.
        self.commands = _Commands()  # type: ignore[assignment]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words begin with; of two words, if there is one of that name."""
        both = " ".join(args[:2])
        if " " in both and both in self.commands:
            return both, self.commands[both], args[2:]
        return super().resolve_command(ctx, args)


def defaults_of(root: Any, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given before a command as the defaults of its own flags, in typer's form.

    `cogkit builder` looks after builders: its flags say what a builder is like, not where the command goes.

    Args:
        root: The program.
        name: The command that was called.
        given: Values by the names of the flags' parameters.
    """
    if name == "builder":
        return {}
    subcommands = getattr(root.commands[name], "commands", None)
    return {name: dict(given) if subcommands is None else {each: dict(given) for each in subcommands}}
