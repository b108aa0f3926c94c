"""``cogkit dockerfile``: print the Dockerfile that a build would use."""

from __future__ import annotations

import sys

import typer

from cogkit.cli.build import choose_context
from cogkit.cli.flags import ContextFlag, DebugFlag, FileFlag, PathArgument, UvImageFlag

EXAMPLES = """
\b
Example:
  cogkit dockerfile > Dockerfile.generated
"""


def dockerfile(
    path: PathArgument = None,
    context: ContextFlag = None,
    file: FileFlag = None,
    uv_image: UvImageFlag = None,
    debug: DebugFlag = False,
) -> None:
    """Print the Dockerfile that a build would use: the generated one, or the one that is there."""
    from cogkit.build import values
    from cogkit.build.options import BuildOptions
    from cogkit.build.run import preview
    from cogkit.cli.ui.failure import warning_line

    options = BuildOptions(
        context=choose_context(path, context),
        file=file,
        uv_image=None if uv_image is None else values.parse_image(uv_image, flag="--uv-image"),
    )
    found = preview(options)
    for warning in found.warnings:
        typer.echo(warning_line(warning, sys.stderr), err=True)
    # A Dockerfile's bytes, whatever they are.
    sys.stdout.buffer.write(found.dockerfile.encode("utf-8", "surrogateescape"))
