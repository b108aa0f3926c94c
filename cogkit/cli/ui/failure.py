"""Errors as text: one clear sentence, the place, what to do; of a failed build its step's output and source lines too.

This file must not decide exit codes and must not raise.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

import typer

from cogkit.buildkit.errors import BuildError
from cogkit.cli.ui.flag_words import with_flags
from cogkit.cli.ui.steps import TAIL_LINES
from cogkit.cli.ui.text import harmless, one_line
from cogkit.errors import CogkitError

if TYPE_CHECKING:
    from cogkit.cli.ui.steps import Step

RED, YELLOW, BOLD, RESET = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
_UNKNOWN_COMMAND = re.compile(r"No such command '([^']+)'")


def wants_color(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that understands colours, and the user has not said no (no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("COG_NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not refused


def show_error(error: CogkitError, *, debug: bool = False, stream: TextIO | None = None) -> None:
    """Print an error of ours.

    Args:
        error: What went wrong.
        debug: Print the traceback first.
        stream: Where to; standard error if None.
    """
    stream = stream or sys.stderr
    lines = traceback.format_exception(error) if debug else []
    lines += [f"{line}\n" for line in error_lines(error, color=wants_color(stream))]
    _print(stream, "".join(lines))


def error_lines(error: CogkitError, *, color: bool = False) -> list[str]:
    """The error as ``error:``, ``at:`` and ``hint:`` lines, and its detail.

    The detail of a failed build, which are the Dockerfile's lines, comes first as buildx has it, so that the last thing
    on the screen is what happened.
    """
    detail = [harmless(error.detail.rstrip("\n"))] if error.detail else []
    lines = [_headline("error", with_flags(error.message), color=color)]
    if error.where:
        lines.append(f"  at: {one_line(error.where)}")
    if error.hint:
        lines.append(f"  hint: {one_line(with_flags(error.hint))}")
    return detail + lines if isinstance(error, BuildError) else lines + detail


def show_usage_error(problem: typer.TyperException, *, stream: TextIO | None = None) -> None:
    """Print what typer has to say about the command line, in our words' form."""
    stream = stream or sys.stderr
    context = getattr(problem, "ctx", None)
    command = context.command_path if context is not None else "cogkit"
    message = problem.format_message().replace("Value error, ", "").rstrip(".")
    message = message[:1].lower() + message[1:]
    wrong, way = _way_for(problem, command)
    lines = [_headline("error", wrong or message, color=wants_color(stream))]
    lines.append(f"  hint: {way or f'see {command} --help'}")
    _print(stream, "\n".join(lines) + "\n")


def _way_for(problem: typer.TyperException, command: str) -> tuple[str | None, str | None]:
    """The message and the hint for a peer's flag or command, in place of the names with the nearest letters."""
    from cogkit.cli.ui.peers import way_for_command, way_for_flag

    flag = getattr(problem, "option_name", None)
    if isinstance(flag, str):
        way = way_for_flag(flag)
        return (f"no such option: {flag}" if way else None), way
    unknown = _UNKNOWN_COMMAND.match(problem.format_message())
    if unknown is None:
        return None, None
    group = command.partition(" ")[2] or None
    way = way_for_command(unknown[1], group)
    return (f"no such command '{unknown[1]}'" if way else None), way


def show_internal_error(problem: BaseException, *, debug: bool, stream: TextIO | None = None) -> None:
    """Print an error that is our mistake."""
    stream = stream or sys.stderr
    what = one_line(f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__)
    lines = [f"{line}\n" for line in [_headline("internal error", what, color=wants_color(stream))]]
    if debug:
        lines = traceback.format_exception(problem) + lines
    else:
        lines.append("  hint: this is a bug in cogkit; run again with --debug and report what it shows\n")
    _print(stream, "".join(lines))


def warning_line(message: str, stream: TextIO) -> str:
    """A warning of ours."""
    text = harmless(with_flags(message))
    return f"{BOLD}{YELLOW}warning:{RESET} {text}" if wants_color(stream) else f"warning: {text}"


def say_warning(message: str) -> None:
    """Print a warning where there is no progress view to show it."""
    print(warning_line(message, sys.stderr), file=sys.stderr)


def failed_step_lines(step: Step, count: int = TAIL_LINES) -> list[str]:
    """The last ``count`` lines of a step that failed, in buildx's frame; nothing if it printed nothing."""
    step.flush()
    if not step.tail:
        return []
    tail = list(step.tail)[-count:]
    earlier = step.dropped + len(step.tail) - len(tail)
    lines = ["------", f" > {one_line(step.vertex.name)}:"]
    if earlier:
        lines.append(f"… {earlier} earlier line{'s' if earlier > 1 else ''}")
    lines += [harmless(str(line), colors=True) for line in tail]
    return [*lines, "------"]


def _headline(word: str, message: str, *, color: bool) -> str:
    # A message may come from the builder and have several lines; the first is the sentence.
    text = harmless(message.strip())
    return f"{BOLD}{RED}{word}:{RESET} {text}" if color else f"{word}: {text}"


def _print(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Nobody reads our errors; the exit code still tells.
        return
