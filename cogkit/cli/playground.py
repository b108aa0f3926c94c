"""``cogkit playground``: a page in the browser for trying a running model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import Annotated

import typer

from cogkit.cli.flags import DebugFlag

EXAMPLES = """
\b
Examples:
  cogkit playground                          try the model that runs at http://127.0.0.1:8393
  cogkit playground http://gpu.example:5000  try one elsewhere
  cogkit playground -p 9000 --no-open        on a port of your choice, without opening a browser
"""

DEFAULT_TARGET = "http://127.0.0.1:8393"

UrlArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[URL]", help=f"The running model's server; {DEFAULT_TARGET} if not given.", show_default=False
    ),
]
TargetFlag = Annotated[str | None, typer.Option("--target", metavar="URL", help="The same as URL.")]
HostFlag = Annotated[
    str,
    typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 lets webhooks in."),
]
PortFlag = Annotated[
    int, typer.Option("-p", "--port", metavar="PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
]
WebhookHostFlag = Annotated[
    str,
    typer.Option("--webhook-host", metavar="NAME", help="Name by which the model reaches this machine for webhooks."),
]
NoOpenFlag = Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")]


def playground(
    url: UrlArgument = None,
    target: TargetFlag = None,
    host: HostFlag = "127.0.0.1",
    port: PortFlag = 0,
    webhook_host: WebhookHostFlag = "host.docker.internal",
    no_open: NoOpenFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Try a running model in the browser.

    The page makes a form from the model's schema, shows outputs as they come, and keeps a history for as long as it is
    open. It is for browsers on this machine only, also with --host 0.0.0.0.
    """
    import asyncio

    from cogkit.cli.interruptible import run
    from cogkit.errors import Interrupted, UsageError
    from cogkit.running.playground.server import open_playground

    if url is not None and target is not None:
        raise UsageError("the model's address is given twice", hint="give it as URL or with --target")
    model_url = url or target or DEFAULT_TARGET

    async def work() -> None:
        async with open_playground(model_url, host, port, webhook_host=webhook_host) as opened:
            print(f"Playground for {opened.target} at {opened.url}", file=sys.stderr, flush=True)
            print("Press Ctrl-C to stop.", file=sys.stderr, flush=True)
            if not no_open:
                _open_in_browser(opened.url)
            await asyncio.Event().wait()

    # Ctrl-C is how it is meant to end.
    with suppress(Interrupted):
        run(work())


def _open_in_browser(url: str) -> None:
    """Show the page, where there is a desktop to show it on."""
    if sys.platform == "darwin":
        opener = "open"
    elif os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        opener = "xdg-open"
    else:
        return
    found = shutil.which(opener)
    if found is not None:
        quiet = subprocess.DEVNULL
        subprocess.Popen([found, url], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
