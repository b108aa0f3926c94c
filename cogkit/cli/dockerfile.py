"""``cogkit dockerfile``: print the Dockerfile that a build would use."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cogkit.cli.build_options import BuildFlags, CogFlags, build_options, takes
from cogkit.cli.flags import IMAGE, PathArgument

EXAMPLES = """
\b
Examples:
  cogkit dockerfile > Dockerfile.generated
  cogkit dockerfile --separate-weights
"""

ImageNameFlag = Annotated[
    str | None,
    typer.Option(
        "--image-name",
        metavar="NAME",
        help="Taken as Cog takes it; no name is in a Dockerfile of cogkit.",
        rich_help_panel=IMAGE,
    ),
]

_TAKEN = {"context", "file", "timestamp", "no_color", "debug", *CogFlags.hints()} - {"pull_weights"}


@takes(BuildFlags, without=BuildFlags.hints().keys() - _TAKEN)
def dockerfile(flags: BuildFlags, path: PathArgument = None, *, image_name: ImageNameFlag = None) -> None:
    """Print the Dockerfile that a build would use: the generated one, or the one that is there.

    No builder is asked, so with --use-cog-base-image Cog's base image is taken to be there. `cogkit debug` is the same
    command under Cog's name for it.
    """
    from cogkit.building.build import preview
    from cogkit.cli.ui.failure import warning_line

    options = build_options(flags, path=path)
    found = preview(options)
    for warning in found.warnings:
        typer.echo(warning_line(warning, sys.stderr), err=True)
    # A Dockerfile's bytes, whatever they are.
    sys.stdout.buffer.write(found.dockerfile.encode("utf-8", "surrogateescape"))
