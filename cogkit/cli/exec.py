"""``cogkit exec``: run a command in the project's image, on the builder."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cogkit.cli.build_options import BuildFlags, takes
from cogkit.cli.running_options import (
    LEFT_OUT,
    RUN,
    EnvFlag,
    GpusFlag,
    NoSyncBackFlag,
    end_with,
    parse_env,
    run_options,
    say,
    say_building,
    started,
)

EXAMPLES = """
\b
Examples:
  cogkit exec python                         a Python interpreter in the model's environment
  cogkit exec python train.py                run a script of the project
  cogkit exec -e TOKEN=abc python get.py     with a variable
  cogkit exec -p 8888 jupyter notebook       a server in it, reached here
"""

CONTEXT_SETTINGS = {"allow_interspersed_args": False}

CommandArgument = Annotated[
    list[str], typer.Argument(metavar="COMMAND [ARG...]", help="What to run.", show_default=False)
]
PublishFlag = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--publish",
        metavar="[HOST:]PORT",
        help="Reach a port of the container here, as -p 8000.",
        rich_help_panel=RUN,
    ),
]


@takes(BuildFlags, without=LEFT_OUT)
def exec(
    flags: BuildFlags,
    command: CommandArgument,
    env: EnvFlag = None,
    publish: PublishFlag = None,
    gpus: GpusFlag = None,
    no_sync_back: NoSyncBackFlag = False,
) -> None:
    """Run a command in the project's image, on the builder.

    The project is at /src; what the command changes there comes back when it ends. No container engine is needed.
    """
    from cogkit.cli.interruptible import run
    from cogkit.running.ports import parse_port

    ports = [parse_port(each) for each in publish or ()]
    variables = parse_env(env)
    options = run_options(flags, without_schema=True)

    async def work() -> int:
        from cogkit.building.recipes import open_recipe
        from cogkit.running.command import run_command
        from cogkit.running.devices import container_options

        recipe = await open_recipe(options)
        if flags.talkative:
            say_building(recipe)
        async with started(flags, options, recipe, container=container_options(gpus)) as running:
            if flags.talkative:
                say()
                place = "" if recipe.dockerfile_name else " with the project at /src"
                say(f"Running {' '.join(command)} on the builder{place}...")
                say()
            root = None if no_sync_back or recipe.dockerfile_name else recipe.project.root
            return await running.run(
                run_command(running, command, variables, ports=ports, sync_back=root, environ=os.environ, warn=say)
            )

    end_with(run(work()))
