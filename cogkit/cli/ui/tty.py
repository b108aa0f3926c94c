"""``--progress tty``: a live view of the running build, in the manner of buildx's.

    [+] Building 3.2s (5/9)
     => [2/3] RUN make                                  1.4s
     => => # the last lines of its output

The view is drawn over itself.  It counts how many rows the last drawing takes at the terminal's present width, so that
a window made narrower leaves no torn lines (which is why this is not `rich.live`), and never draws more than fits.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from cogkit.cli.ui.failure import failed_step_lines, wants_color
from cogkit.cli.ui.plain import UNFINISHED_SECONDS, transfer_size
from cogkit.cli.ui.steps import Step, Steps
from cogkit.cli.ui.text import cells, fit, one_line
from cogkit.cli.ui.writer import BackgroundWriter
from cogkit.fast_dataclass import dataclass

FRAME_SECONDS = 0.1
OUTPUT_ROWS = 6
MIN_NAME_COLUMNS = 12
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
ERASE_LINE, ERASE_BELOW = "\x1b[2K", "\x1b[J"
BLUE, RED, YELLOW, FAINT, RESET = "\x1b[34m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the view before it is fitted to the terminal.

    Attributes:
        name: What it is, cut if it must be.
        size: Shown after the name if there is room.
        seconds: Shown at the right edge; None for output.
        color: Escape sequence, or empty.
        running: Stays in view even when room is short.
    """

    name: str
    size: str = ""
    seconds: float | None = None
    color: str = ""
    running: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it is drawn."""

    text: str
    color: str = ""


class TtyView:
    """Draws on a terminal."""

    def __init__(self, writer: BackgroundWriter) -> None:
        self._writer = writer
        self._steps = Steps()
        self._colors = wants_color(writer.stream)
        self._drawn: list[Line] = []
        self._drawn_at = -math.inf
        self._began = time.monotonic()
        self._finished_rows: dict[str, list[Row]] = {}

    def update(self, steps: Steps) -> None:
        """Take in what changed; draws at most every `FRAME_SECONDS`."""
        self._steps = steps
        if time.monotonic() - self._drawn_at >= FRAME_SECONDS:
            self.refresh()

    def refresh(self) -> None:
        """Draw the present state, unless the terminal has not even taken the last one."""
        if self._writer.idle:
            self._draw(self._frame(*self._size()))

    def message(self, text: str) -> None:
        """A line of cogkit's own, above the view."""
        self._write(text.split("\n"))
        self._drawn = []
        self.refresh()

    def close(self) -> None:
        """Draw everything once more, and print the output of what failed."""
        columns, _ = self._size()
        self._draw(self._frame(columns, rows=None) if self._steps.shown else [])
        for step in self._steps.failed():
            self._writer.write("".join(f"{line}\n" for line in failed_step_lines(step)))

    def _size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._writer.stream.fileno())
        except (OSError, ValueError):
            columns, rows = 0, 0
        return columns or 80, rows or 24

    def _back(self) -> str:
        """Go to where the last drawing began."""
        columns, rows = self._size()
        taken = sum(max(1, math.ceil(cells(line.text) / columns)) for line in self._drawn)
        up = min(taken, rows - 1)
        return f"\x1b[{up}A\r" if up else "\r"

    def _draw(self, lines: list[Line]) -> None:
        self._write([f"{line.color}{line.text}{RESET}" if self._colors and line.color else line.text for line in lines])
        self._drawn = lines
        self._drawn_at = time.monotonic()

    def _write(self, lines: list[str]) -> None:
        """Write over the last drawing.

        The cursor is hidden only meanwhile, so that a process that is stopped or killed leaves it to be seen.
        """
        text = "".join(f"{ERASE_LINE}{line}\n" for line in lines)
        self._writer.write(f"{HIDE_CURSOR}{self._back()}{text}{ERASE_BELOW}{SHOW_CURSOR}")

    def _frame(self, columns: int, rows: int | None) -> list[Line]:
        """The lines to show: all of them if ``rows`` is None, else as many as fit and matter most."""
        steps, now = self._steps, datetime.fromtimestamp(time.time() - self._steps.clock_offset, UTC)
        counted = list(steps)
        done = sum(step.completed for step in counted)
        elapsed = (now - steps.started_at).total_seconds() if steps.started_at else time.monotonic() - self._began
        header = f"[+] Building {elapsed:.1f}s ({done}/{len(counted)})"
        if rows is None and done == len(counted):
            header += " FINISHED"
        budget = None if rows is None else max(rows - 2, 0)
        shown = _select(list(self._rows(now, None if budget is None else self._talking(budget))), budget)
        return [Line(fit(header, columns)), *(_fitted(row, columns) for row in shown)]

    def _rows(self, now: datetime, talking: dict[str, int] | None) -> Iterator[Row]:
        for step in self._steps.shown:
            rows = self._finished_rows.get(step.key)
            if rows is None or not step.completed or step.key in self._steps.updated:
                rows = list(_rows_of(step, now))
                if step.completed:
                    self._finished_rows[step.key] = rows
                    self._steps.updated.discard(step.key)
            yield from rows
            # Only the tail is shown; what no view takes must not pile up.
            step.take_lines()
            if talking and (count := talking.get(step.key)):
                for line in list(step.tail)[-count:]:
                    yield Row(f"=> # {one_line(line.text)}", color=FAINT, running=True)

    def _talking(self, budget: int) -> dict[str, int]:
        """Which running steps show how many lines of their output: those that spoke last, while there is room."""
        running = [step for step in self._steps.shown if not step.completed]
        room = budget - sum(1 + len(step.statuses) for step in running)
        counts: dict[str, int] = {}
        for step in sorted(running, key=lambda step: step.spoke_at, reverse=True):
            step.flush(UNFINISHED_SECONDS)
            count = min(len(step.tail), OUTPUT_ROWS, room)
            if count > 0:
                counts[step.key] = count
                room -= count
        return counts


def _fitted(row: Row, columns: int) -> Line:
    prefix = " => "
    timer = "" if row.seconds is None else f" {row.seconds if row.seconds >= 0.05 else 0.0:3.1f}s"
    room = columns - len(prefix) - len(timer) - 1
    if room < MIN_NAME_COLUMNS:
        timer, room = "", columns - len(prefix)
    size = f" {row.size}" if row.size and room - len(row.size) - 1 >= MIN_NAME_COLUMNS else ""
    left = prefix + fit(row.name, room - len(size)) + size
    text = left + " " * (columns - cells(left) - len(timer)) + timer if timer else fit(left, columns)
    return Line(text, row.color)


def _rows_of(step: Step, now: datetime) -> Iterator[Row]:
    name, color = one_line(step.vertex.name), BLUE if step.completed else ""
    if step.canceled:
        name, color = f"CANCELED {name}", YELLOW
    elif step.failed:
        name, color = f"ERROR {name}", RED
    elif step.vertex.cached:
        name = f"CACHED {name}"
    yield Row(name, seconds=step.seconds(now), color=color, running=not step.completed)
    # A transfer that was not said to have ended ended with its step.
    latest = (step.ran[-1][1] if step.completed else None) or now
    for transfer in step.statuses.values():
        seconds = ((transfer.completed or latest) - transfer.started).total_seconds() if transfer.started else 0.0
        running = transfer.completed is None and not step.completed
        color = "" if running else BLUE
        yield Row(f"=> {one_line(transfer.id)}", transfer_size(transfer), seconds, color, running)
    for warning in step.warnings:
        yield Row(f"WARN: {one_line(warning.short)}", seconds=step.seconds(now), color=YELLOW)


def _select(rows: list[Row], budget: int | None) -> list[Row]:
    """The rows to show, in order: what runs, and of the rest the newest."""
    if budget is None or len(rows) <= budget:
        return rows
    surplus = len(rows) - budget
    kept: list[Row] = []
    for row in rows:
        if surplus and not row.running:
            surplus -= 1
        else:
            kept.append(row)
    return kept[len(kept) - budget :] if surplus and budget else kept[:budget]
