"""``cogkit debug dump-llb``: show marshalled LLB, as ``buildctl debug dump-llb`` does."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cogkit.cli.flags import DebugFlag

EXAMPLES = """
\b
Examples:
  cogkit debug dump-llb build.llb                      one vertex a line, as JSON
  cogkit debug dump-llb --dot < build.llb | dot -Tsvg  a picture
"""


def dump_llb(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Marshalled LLB; standard input if not given, or -.")
    ] = None,
    dot: Annotated[bool, typer.Option("--dot", help="Write Graphviz's language instead of JSON.")] = False,
    debug: DebugFlag = False,
) -> None:
    """Show LLB in a form that people can read. No builder is needed."""
    from cogkit.building.llb_dump import dot_text, json_text, read_llb

    content = read_llb(file)
    sys.stdout.write(dot_text(content) if dot else json_text(content))
