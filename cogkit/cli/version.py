"""``cogkit version`` and ``cogkit --version``."""

from __future__ import annotations

import typer

from cogkit import __version__

EXAMPLES = """
\b
Example:
  cogkit version
"""


def version() -> None:
    """Show cogkit's version."""
    show_version(True)


def show_version(wanted: bool) -> None:
    """Print it and end the command, if it is wanted."""
    if wanted:
        typer.echo(f"cogkit {__version__}")
        raise typer.Exit
