"""``cogkit init``: start a project."""

from __future__ import annotations

from pathlib import Path

import typer

from cogkit.cli.flags import DebugFlag

EXAMPLES = """
\b
Example:
  mkdir my-model && cd my-model && cogkit init
"""


def init(debug: DebugFlag = False) -> None:
    """Start a project in the current folder.

    Writes cog.yaml, run.py, requirements.txt and .dockerignore; files that exist are kept as they are.
    """
    from cogkit.project.init import init_project

    for file in init_project(Path()):
        typer.echo(f"{'created' if file.created else 'kept   '} {file.path}")
