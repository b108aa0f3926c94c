"""``cogkit serve``: a model's HTTP server on the builder, reached here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cogkit.cli.build_options import BuildFlags, takes
from cogkit.cli.running_options import (
    LEFT_OUT,
    RUN,
    EnvFlag,
    GpusFlag,
    parse_env,
    run_options,
    say,
    say_building,
    started,
)

if TYPE_CHECKING:
    from cogkit.running.session import Running

EXAMPLES = """
\b
Examples:
  cogkit serve                         serve the project at http://localhost:8393
  cogkit serve -p 5000 --watch         on another port, and again after each change
  cogkit serve --host 0.0.0.0          let other machines reach it
  cogkit serve --playground            with a page for trying it
  curl http://localhost:8393/predictions -H 'Content-Type: application/json' -d '{"input": {"prompt": "a cat"}}'
"""

HostFlag = Annotated[
    str,
    typer.Option("--host", metavar="ADDRESS", help="Address of this machine to listen on.", rich_help_panel=RUN),
]
PortFlag = Annotated[int, typer.Option("-p", "--port", metavar="PORT", help="Port to listen on.", rich_help_panel=RUN)]
UploadUrlFlag = Annotated[
    str | None,
    typer.Option("--upload-url", metavar="URL", help="Where the model puts files that it makes.", rich_help_panel=RUN),
]
WatchFlag = Annotated[
    bool, typer.Option("--watch", help="Build and start again when a file changes.", rich_help_panel=RUN)
]
PlaygroundFlag = Annotated[
    bool, typer.Option("--playground", help="Also serve a page for trying the model.", rich_help_panel=RUN)
]
PlaygroundPortFlag = Annotated[
    int,
    typer.Option(
        "--playground-port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Port of that page; 0 takes a free one.",
        rich_help_panel=RUN,
    ),
]


@takes(BuildFlags, without=LEFT_OUT)
def serve(
    flags: BuildFlags,
    host: HostFlag = "127.0.0.1",
    port: PortFlag = 8393,
    upload_url: UploadUrlFlag = None,
    watch: WatchFlag = False,
    playground: PlaygroundFlag = False,
    playground_port: PlaygroundPortFlag = 9000,
    env: EnvFlag = None,
    gpus: GpusFlag = None,
) -> None:
    """Serve the project's model over HTTP: the model runs on the builder, the port is here."""
    from cogkit.cli.interruptible import run
    from cogkit.running.server import check_port

    check_port(port)
    variables = parse_env(env)

    async def work() -> None:
        import asyncio

        from cogkit.building.recipes import open_recipe, read_recipe
        from cogkit.running import server
        from cogkit.running.devices import container_options

        options = run_options(flags)
        recipe = await open_recipe(options)
        root = recipe.project.root
        serving = server.ServeOptions(
            host=host, port=port, upload_url=upload_url or "", env=variables, watch=root if watch else None
        )
        container = container_options(gpus)
        first = True

        @asynccontextmanager
        async def open_session() -> AsyncIterator[Running]:
            nonlocal first
            made, first = (recipe if first else read_recipe(options)), False
            async with started(flags, options, made, container=container) as running:
                if flags.talkative:
                    say()
                    say(f"Running {server.shown(serving.args)} on the builder with the project at /src...")
                    say()
                yield running

        async with AsyncExitStack() as stack:
            if playground:
                from cogkit.running.playground.server import open_playground, url_of
                from cogkit.running.session import HOST_NAME

                page = open_playground(url_of(host, port), port=playground_port, webhook_host=HOST_NAME)
                say(f"Playground at {(await stack.enter_async_context(page)).url}")
            if flags.talkative:
                say_building(recipe)
            with suppress(asyncio.CancelledError):  # to be told to stop is how it ends well
                await server.serve(open_session, serving, os.environ, say)

    run(work())
