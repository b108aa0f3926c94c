"""A command in the project's image: what `exec` does once the container is there.

This file must not show anything but what the command itself writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.running.attached import run_attached
from cogkit.running.ports import Port, published

if TYPE_CHECKING:
    from cogkit.running.session import Running

SOURCE = "/src"
FORWARDED = ("RUST_LOG",)
"""Variables of our environment that Cog hands on."""


def model_env(running: Running, variables: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process in the image: the image's own, what Cog adds, and the user's."""
    handed_on = {name: environ[name] for name in FORWARDED if environ.get(name)}
    return {"HOME": "/root", **running.image.env, "LOG_FORMAT": "console", **handed_on, **variables}


async def run_command(
    running: Running,
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    ports: Sequence[Port] = (),
    sync_back: Path | None = None,
    environ: Mapping[str, str],
    warn: Callable[[str], None],
) -> int:
    """Run a command with our standard streams; its exit code.

    Args:
        running: The container.
        command: The command line.
        variables: The user's.
        ports: Ports of it that are to be reached here.
        sync_back: The project's folder, which gets what changed in its place; None: nothing comes back.
        environ: Our own environment.
        warn: Told what the user should know of files that came back.
    """
    from cogkit.running.sync_back import syncing_back

    env = model_env(running, variables, environ)
    async with (
        published(running, ports),
        syncing_back(running.link, SOURCE, sync_back, running.began_ns, warn),
    ):
        return await run_attached(running.link, running.image.args(command), env, running.image.working_dir)
