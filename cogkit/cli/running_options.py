"""The flags of commands that run something, and what is done alike by all of them.

This file must not know how anything is run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cogkit.cli.build_options import BuildFlags, DockerFlags, build_options
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.building.options import BuildOptions
    from cogkit.building.recipes import Recipe
    from cogkit.running.image import Image
    from cogkit.running.session import ContainerOptions, Running

RUN = "What runs"

LEFT_OUT = (
    *("output", "push", "metadata_file", "iidfile", "ref_file"),
    *("tag", "label", "annotation", "platform", "timestamp", "sbom", "provenance", "attest"),
    *("call", "check", "cache_to", "load", "load_into", "frontend", "opt", "local"),
    *DockerFlags.hints(),
)
"""Flags of a build that mean nothing to a command that runs what was built."""

EnvFlag = Annotated[
    list[str] | None,
    typer.Option("-e", "--env", metavar="NAME=VALUE", help="Environment variable.", rich_help_panel=RUN),
]
GpusFlag = Annotated[
    str | None,
    typer.Option(
        "--gpus",
        metavar="DEVICES",
        help="GPUs: all, a number, device=ID, or names of CDI devices.",
        rich_help_panel=RUN,
    ),
]
NoSyncBackFlag = Annotated[
    bool,
    typer.Option(
        "--no-sync-back", help="Leave what the command changes in the project on the builder.", rich_help_panel=RUN
    ),
]


def run_options(flags: BuildFlags, *, without_schema: bool = False) -> BuildOptions:
    """The build of what is to run."""
    options = build_options(flags)
    if without_schema and options.cog.openapi_schema is None:
        options = replace(options, cog=replace(options.cog, skip_schema_validation=True))
    return options


def parse_env(values: Sequence[str] | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables; ``NAME`` alone hands on the one of our environment.

    Raises:
        UsageError: one without a name.
    """
    found: dict[str, str] = {}
    for value in values or ():
        name, equals, text = value.partition("=")
        if not name:
            raise UsageError(f"--env {value}: there is no name", hint="give NAME=VALUE")
        if equals:
            found[name] = text
        elif name in environ:
            found[name] = environ[name]
    return found


def say(text: str = "") -> None:
    """A line for the user, on standard error; standard output belongs to what runs."""
    typer.echo(text, err=True)


@asynccontextmanager
async def started(
    flags: BuildFlags,
    options: BuildOptions,
    recipe: Recipe | None,
    image: str = "",
    container: ContainerOptions | None = None,
    check: Callable[[Image], None] = lambda image: None,
) -> AsyncIterator[Running]:
    """A container with the image, whose making is shown as a build is."""
    from contextlib import AsyncExitStack

    from cogkit.cli.ui.progress import open_progress, shown
    from cogkit.running.session import PLAIN, open_session

    progress = open_progress(flags.mode, notes=flags.debug)
    async with AsyncExitStack() as stack:
        async with shown(progress):
            session = open_session(options, progress, recipe, image, container or PLAIN, check)
            running = await stack.enter_async_context(session)
        yield running


def say_building(recipe: Recipe) -> None:
    """What is being done now, in Cog's words for a Cog project."""
    if recipe.dockerfile_name is None:
        say("Building Docker image from environment in cog.yaml...")
    else:
        say(f"Building the image of {recipe.dockerfile_name}...")
    say()


def end_with(code: int) -> None:
    """End the command with the exit code of what ran."""
    sys.stdout.flush()
    if code:
        raise typer.Exit(code)
