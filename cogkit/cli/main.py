"""The ``cogkit`` command: its subcommands, and the one place where errors become text and exit codes.

Whatever goes wrong anywhere below arrives here as an exception.  This file must not know how anything is built.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from cogkit.cli.commands import Root, defaults_of
from cogkit.cli.exit_codes import INTERRUPTED, exit_code_of
from cogkit.cli.flags import (
    AddrFlag,
    BuilderFlag,
    NoColorFlag,
    RegistryFlag,
    TlsCaFlag,
    TlsCertFlag,
    TlsDirFlag,
    TlsKeyFlag,
    TlsServerNameFlag,
)
from cogkit.cli.forced_exit import THREAD_PATIENCE, last_resort
from cogkit.cli.resources import lack_of
from cogkit.cli.ui.failure import show_error, show_internal_error, show_usage_error
from cogkit.cli.version import show_version
from cogkit.errors import CogkitError, Interrupted
from cogkit.fast_dataclass import dataclass

INTERNAL_ERROR = 1
BROKEN_PIPE = 1


@dataclass(slots=True)
class Settings:
    """What holds for the whole run, whichever command it is; `typer.Context.obj` of every command."""

    debug: bool = False


app = typer.Typer(
    name="cogkit",
    cls=Root,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(
    invoke_without_command=True,
    epilog="""
    \b
    Examples:
      cogkit init                     start a project in this folder
      cogkit build -t my-model        build the project around this folder
      cogkit push                     build and push it
      cogkit doctor                   find out what is wrong

    \b
    Environment:
      BUILDKIT_HOST       address of the builder, as --addr
      BUILDKIT_PROGRESS   kind of progress output, as --progress
      SOURCE_DATE_EPOCH   time that stands for all, as --timestamp
      COG_REGISTRY_HOST   registry of Cog's base images, as --registry
      COGKIT_DEBUG        show tracebacks, as --debug
      NO_COLOR            no colours in progress and errors
    """,
)
def _root(
    ctx: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="COGKIT_DEBUG", show_envvar=False, help="Show tracebacks of errors.")
    ] = False,
    no_color: NoColorFlag = False,
    registry: RegistryFlag = None,
    addr: AddrFlag = None,
    builder: BuilderFlag = None,
    tlscacert: TlsCaFlag = None,
    tlscert: TlsCertFlag = None,
    tlskey: TlsKeyFlag = None,
    tlsdir: TlsDirFlag = None,
    tlsservername: TlsServerNameFlag = None,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Build Cog projects and Dockerfiles on BuildKit."""
    ctx.ensure_object(Settings).debug = debug
    of_builder = {
        **{"addr": addr, "builder": builder, "tlscacert": tlscacert, "tlscert": tlscert, "tlskey": tlskey},
        **{"tlsdir": tlsdir, "tlsservername": tlsservername},
    }
    given = {name: value for name, value in of_builder.items() if value is not None}
    if given and ctx.invoked_subcommand is not None:
        ctx.default_map = defaults_of(ctx.command, ctx.invoked_subcommand, given)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(args: Sequence[str]) -> int:
    """Run one command.

    Args:
        args: The command line without the program's name.

    Returns:
        The exit code: 0, or that of the error that was shown on standard error.
    """
    settings = Settings()
    try:
        _invoke(list(args), settings)
        # A reader of ours that left early shows only now.
        sys.stdout.flush()
    except typer.Exit as ending:
        return ending.exit_code
    except BaseException as problem:
        return _exit_code_of(problem, debug=settings.debug)
    return 0


def _invoke(args: list[str], settings: Settings) -> None:
    command = get_command(app)
    if "_COGKIT_COMPLETE" in os.environ:
        # A shell asks for completions: typer answers and exits.
        command.main(args, prog_name="cogkit")
    with command.make_context("cogkit", args, obj=settings) as ctx:
        command.invoke(ctx)


def _exit_code_of(problem: BaseException, *, debug: bool) -> int:
    """Show an error on standard error and say which exit code it means."""
    if isinstance(problem, SystemExit):
        return problem.code if isinstance(problem.code, int) else INTERNAL_ERROR
    if isinstance(problem, KeyboardInterrupt | typer.Abort):
        problem = Interrupted("interrupted")
    if isinstance(problem, BrokenPipeError) and _stdout_is_gone():
        return BROKEN_PIPE
    if isinstance(problem, Interrupted):
        # Who wants it to end shall not have to wait until somebody reads why.
        with last_resort.armed(INTERRUPTED, THREAD_PATIENCE):
            show_error(problem, debug=debug)
        return INTERRUPTED
    if isinstance(problem, CogkitError):
        show_error(problem, debug=debug)
        return exit_code_of(problem)
    if isinstance(problem, typer.TyperException):
        show_usage_error(problem)
        return problem.exit_code
    lack = lack_of(problem)
    if lack is not None:
        lack.__cause__ = problem
        show_error(lack, debug=debug)
        return exit_code_of(lack)
    show_internal_error(problem, debug=debug)
    return INTERNAL_ERROR


def _stdout_is_gone() -> bool:
    """Whether the reader of standard output has left; if so, nothing more is written to it, not even at exit."""
    poller = select.poll()
    try:
        poller.register(sys.stdout.fileno(), 0)
        gone = bool(poller.poll(0))
        if gone:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        # Not a file at all, so not a pipe either.
        return False
    return gone
