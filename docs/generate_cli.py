"""Writes ``docs/cli.md``, the reference of the command line, from the command line itself.

python docs/generate_cli.py           write it
python docs/generate_cli.py --print   print it instead
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from cogkit.cli.help_page import grouped_records
from cogkit.cli.main import app

TARGET = Path(__file__).with_name("cli.md")

INTRODUCTION = """\
# Command line

<!-- Made by docs/generate_cli.py; a test fails when it is not up to date. -->

Values are written as `docker buildx build` and `cog build` have them; the same flag means the same on every command.

| Exit code | Meaning |
|---|---|
| 0 | it is done |
| 1 | the build failed, or its result could not be written |
| 2 | a flag, `cog.yaml` or another file of the project cannot be used |
| 3 | no builder answers, or it went away |
| 4 | another build of the project kept the lock for longer than `--lock-timeout` |
| 130 | interrupted by Ctrl-C or SIGTERM |

Progress and errors go to standard error; standard output is for results. The first Ctrl-C cancels the build at the
builder and cleans up; the second ends the process at once. `cogkit --install-completion` teaches the shell to complete
commands and flags.
"""


def reference() -> str:
    """The whole page."""
    root: Any = get_command(app)
    root_context = root.make_context("cogkit", [], resilient_parsing=True)
    sections = [INTRODUCTION, *_command(root, root_context, "cogkit")]
    for name, command in root.commands.items():
        if not command.hidden:
            context = command.make_context(name, [], parent=root_context, resilient_parsing=True)
            sections += _command(command, context, f"cogkit {name}")
            for subname, subcommand in getattr(command, "commands", {}).items():
                below = subcommand.make_context(subname, [], parent=context, resilient_parsing=True)
                sections += _command(subcommand, below, f"cogkit {name} {subname}")
    return "\n".join(sections)


def _command(command: Any, context: Any, title: str) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## {title}\n"
    yield inspect.cleandoc(command.help) + "\n"
    yield f"```\n{title} {usage}\n```\n"
    for group, records in grouped_records(command, context).items():
        yield f"**{group}**\n"
        yield "| | |\n|---|---|"
        yield from (f"| `{_cell(name)}` | {_cell(text)} |" for name, text in records)
        yield ""
    for block in inspect.cleandoc(command.epilog).split("\n\n") if command.epilog else ():
        heading, *lines = block.replace("\b\n", "").splitlines()
        yield f"**{heading.rstrip(':')}**\n"
        yield "```\n" + inspect.cleandoc("\n".join(["", *lines])) + "\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(reference())
    else:
        TARGET.write_text(reference(), encoding="utf-8")
