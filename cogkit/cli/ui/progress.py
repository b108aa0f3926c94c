"""Progress of a build on standard error, in the mode that the user wants.

`open_progress` gives the observer that a build is run with; `shown` keeps it up to date while it runs.  Standard output
belongs to results alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TextIO

from cogkit.buildkit.status import Instant, SolveStatus, Vertex, VertexWarning, to_rawjson
from cogkit.cli.flags import ProgressMode
from cogkit.cli.ui.failure import failed_step_lines, warning_line
from cogkit.cli.ui.steps import Steps
from cogkit.cli.ui.text import fit, harmless, one_line
from cogkit.cli.ui.writer import BackgroundWriter
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.building.build import BuildResult

TICK_SECONDS = 0.1
DRAIN_SECONDS = 1.0
"""How long a failed or interrupted build waits for a slow terminal to take the last of its progress."""
MAX_NAME = 500
"""Columns of a name or digest in the line that says what was built."""
OWN_VERTEX = "sha256:" + "c06" * 21 + "0"
"""Digest of the vertexes that are not the daemon's but ours (it is not a content's hash)."""


class _View(Protocol):
    """How one mode shows the steps."""

    def update(self, steps: Steps) -> None: ...
    def refresh(self) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


class Progress:
    """A `cogkit.building.observer.BuildObserver` that shows what it hears.

    Waiting for the project's lock is shown as a step of its own, so that every mode has it with its time running.
    """

    def __init__(self, writer: BackgroundWriter, view: _View, *, notes: bool = False) -> None:
        self.writer = writer
        self._view = view
        self._notes = notes
        self._steps = Steps()
        self._waiting: Vertex | None = None

    def on_warning(self, message: str) -> None:
        self._view.message(warning_line(message, self.writer.stream))

    def on_note(self, message: str) -> None:
        if self._notes:
            self._view.message(harmless(message))

    def on_lock_wait(self, holder: str, since: datetime | None) -> None:
        name = f"[internal] {lock_wait_text(holder, since)}"
        if self._waiting is None or self._waiting.name != name:
            started = self._waiting.started if self._waiting else _now()
            self._waiting = Vertex(OWN_VERTEX, name, started=started)
            self._take(SolveStatus(vertexes=(self._waiting,)))

    def on_status(self, status: SolveStatus) -> None:
        self._end_waiting()
        self._take(status)

    def refresh(self) -> None:
        """Bring running times up to date."""
        self._view.refresh()

    def close(self) -> None:
        """Show how it ended."""
        self._end_waiting()
        self._view.close()

    def _end_waiting(self) -> None:
        if self._waiting is not None:
            ended, self._waiting = replace(self._waiting, completed=_now()), None
            self._take(SolveStatus(vertexes=(ended,)))

    def _take(self, status: SolveStatus) -> None:
        self._steps.add(status)
        self._view.update(self._steps)


class RawJsonProgress(Progress):
    """``--progress rawjson``: each event as one line of JSON, as buildctl and buildx print it."""

    def __init__(self, writer: BackgroundWriter) -> None:
        super().__init__(writer, QuietView(writer))
        writer.notice = lambda lines: _warning_event(f"{lines} events were left out: nobody read them in time") + "\n"

    def on_warning(self, message: str) -> None:
        self.writer.write(_warning_event(message) + "\n")

    def refresh(self) -> None:
        """Nothing changes but by events."""

    def close(self) -> None:
        self._end_waiting()

    def _take(self, status: SolveStatus) -> None:
        self.writer.write(to_rawjson(status) + "\n")


def _warning_event(message: str) -> str:
    now = _now()
    vertex = Vertex(OWN_VERTEX[:-1] + "1", "[internal] cogkit", started=now, completed=now)
    return to_rawjson(SolveStatus(vertexes=(vertex,), warnings=(VertexWarning(vertex.digest, 1, message),)))


class QuietView:
    """``--progress quiet``: nothing but warnings, a wait, and the output of what failed."""

    def __init__(self, writer: BackgroundWriter) -> None:
        self._writer = writer
        self._steps = Steps()
        self._waiting = ""

    def update(self, steps: Steps) -> None:
        self._steps = steps
        for step in steps:
            step.take_lines()
            if step.key == OWN_VERTEX and step.vertex.name != self._waiting and not step.completed:
                self._waiting = step.vertex.name
                self.message(self._waiting.removeprefix("[internal] "))

    def refresh(self) -> None:
        """Nothing to bring up to date."""

    def message(self, text: str) -> None:
        self._writer.write(f"{text}\n")

    def close(self) -> None:
        for step in self._steps.failed():
            self._writer.write("".join(f"{line}\n" for line in failed_step_lines(step)))


def open_progress(
    mode: ProgressMode,
    *,
    notes: bool = False,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Progress:
    """The progress for ``mode``, with what is decided on the way if ``notes`` are wanted.

    Raises:
        UsageError: a live view was asked for where there can be none.
    """
    stream = sys.stderr if stream is None else stream
    writer = BackgroundWriter(stream)
    able, obstacle = _can_be_live(stream, environ)
    if mode is ProgressMode.TTY and not able:
        raise UsageError(f"--progress tty: {obstacle}", hint="use --progress auto or plain")
    if mode is ProgressMode.AUTO:
        mode = ProgressMode.TTY if able else ProgressMode.PLAIN
    match mode:
        case ProgressMode.TTY:
            from cogkit.cli.ui.tty import TtyView

            return Progress(writer, TtyView(writer), notes=notes)
        case ProgressMode.PLAIN:
            from cogkit.cli.ui.plain import PlainView

            return Progress(writer, PlainView(writer), notes=notes)
        case ProgressMode.QUIET | ProgressMode.NONE:
            return Progress(writer, QuietView(writer), notes=notes)
    return RawJsonProgress(writer)


@asynccontextmanager
async def shown(progress: Progress) -> AsyncIterator[Progress]:
    """Keep ``progress`` up to date, and leave the terminal as it was when the body ends, however it ends."""
    ticking = asyncio.create_task(_tick(progress))
    patience: float | None = DRAIN_SECONDS
    try:
        yield progress
        patience = None
    finally:
        ticking.cancel()
        progress.close()
        with suppress(TimeoutError):
            await progress.writer.drain(patience)


async def _tick(progress: Progress) -> None:
    while True:
        await asyncio.sleep(TICK_SECONDS)
        progress.refresh()


def show_result(result: BuildResult, mode: ProgressMode, *, stdout_taken: bool) -> None:
    """Say what was built: in quiet mode its image ID on standard output, else a line on standard error.

    Args:
        result: The build's result.
        mode: What the user wanted to see.
        stdout_taken: Standard output is one of the build's outputs, and has no room for an ID.
    """
    if mode is ProgressMode.QUIET:
        if result.image_id:
            print(_shown(result.image_id), file=sys.stderr if stdout_taken else sys.stdout)
    elif mode not in (ProgressMode.RAWJSON, ProgressMode.NONE) and result.digest:
        # The first words are Cog's, because scripts wait for them.
        named = f" as {' and '.join(map(_shown, result.names))}" if result.names else ""
        print(f"Image built{named} ({_shown(result.digest)})", file=sys.stderr)


def _shown(name: str) -> str:
    """What the builder called something, which may be anything."""
    return fit(one_line(name), MAX_NAME)


def lock_wait_text(holder: str, since: datetime | None) -> str:
    """Who is waited for, and since when they have it."""
    text = f"waiting for the lock held by {one_line(holder)}"
    return text if since is None else f"{text} since {since.astimezone():%H:%M:%S}"


def _can_be_live(stream: TextIO, environ: Mapping[str, str]) -> tuple[bool, str]:
    if not stream.isatty():
        return False, "standard error is not a terminal"
    if environ.get("TERM") in ("dumb", "", None):
        return False, f"this terminal cannot move its cursor (TERM={environ.get('TERM', '')})"
    return True, ""


def _now() -> Instant:
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    return Instant.at(seconds, nanos)
