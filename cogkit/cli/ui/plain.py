"""``--progress plain``: every line of every step, in the form that buildctl and buildx print.

    #5 [2/3] RUN make
    #5 0.123 a line of output
    #5 DONE 0.4s

Steps run at the same time but are printed one at a time; a switch is marked by ``#5 ...``.  When to switch follows
BuildKit's ``progressui/printer.go``.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

from cogkit.buildkit.status import Vertex, VertexStatus
from cogkit.cli.ui.failure import failed_step_lines
from cogkit.cli.ui.steps import Interval, Step, Steps
from cogkit.cli.ui.text import byte_size, harmless, one_line
from cogkit.cli.ui.writer import BackgroundWriter

TURN_SECONDS = 5.0
"""How long a step keeps the output to itself before a busier one may take it."""
WAIT_SECONDS = 10.0
"""How long a step may be kept silent by others."""
TRANSFER_SECONDS, TRANSFER_SHARE = 5.0, 0.05
"""A transfer is printed again after this time or this part of it, and when it ends."""
UNFINISHED_SECONDS = 1.0
"""After this time, output that has not ended its line is printed as a line."""
FRAME_SECONDS = 0.1
TAIL_LINES = 10
"""Lines of a failed step that are printed again; all of them stand above."""


class PlainView:
    """Prints lines; they need not go to a terminal."""

    def __init__(self, writer: BackgroundWriter) -> None:
        self._writer = writer
        self._steps = Steps()
        self._current: Step | None = None
        self._numbers: dict[str, int] = {}
        self._outcomes: dict[str, tuple[Vertex, tuple[Interval, ...]]] = {}
        self._transfers: dict[tuple[str, str], VertexStatus] = {}
        self._lines: list[str] = []
        self._begun = False
        self._printed_at = -math.inf

    def update(self, steps: Steps) -> None:
        """Take in what changed; called after every event, prints at most every `FRAME_SECONDS`."""
        self._steps = steps
        if time.monotonic() - self._printed_at >= FRAME_SECONDS:
            self.refresh()

    def refresh(self) -> None:
        """Print what there is to print."""
        self._printed_at = time.monotonic()
        if self._current is not None:
            self._current.flush(UNFINISHED_SECONDS)
            if self._current.lines:
                self._steps.updated.add(self._current.key)
        self._choose()
        self._write()

    def message(self, text: str) -> None:
        """A line of cogkit's own, between those of the steps."""
        self._lines.append(text)
        self._write()

    def close(self) -> None:
        """Print the rest, and the output of what failed."""
        for step in self._steps:
            if step.started and step.key in self._steps.updated and not step.completed:
                self._print(step)
        self.refresh()
        for step in self._steps.failed():
            self._lines += failed_step_lines(step, TAIL_LINES)
        self._write()

    def _write(self) -> None:
        if self._lines:
            self._writer.write("\n".join(self._lines) + "\n")
            self._lines.clear()

    def _choose(self) -> None:
        """Print the steps that ended, then one that runs."""
        changed = [step for step in self._steps if step.key in self._steps.updated]
        ended = [step for step in changed if step.completed]
        running = [step for step in changed if step.started and not step.completed]
        current = self._current
        # The step that has the word first, then in the order in which they ended.
        ended.sort(key=lambda step: (step is not current, step.ran[-1][1]))
        for step in ended:
            self._print(step)
        if not running:
            if self._current is None:
                self._resume_any()
            return
        if current in running and current is not None:
            self._print(current)
        self._take_turns(running, current if current not in ended else None)

    def _resume_any(self) -> None:
        """Let a step that runs have the word, so that one sees what is waited for."""
        step = next((step for step in self._steps if step.started and not step.completed), None)
        if step is not None:
            self._print(step)

    def _take_turns(self, running: list[Step], current: Step | None) -> None:
        now = time.monotonic()
        waited = {step.key: max(now - step.busy_since, 1e-9) for step in running}
        speed = {step.key: step.changes / waited[step.key] for step in running}
        busiest = max(running, key=lambda step: speed[step.key])
        overdue = [step for step in running if waited[step.key] > WAIT_SECONDS and step is not current]
        if current is None:
            self._print(overdue[0] if overdue else busiest)
        elif overdue:
            self._print(overdue[0])
        elif busiest is not current:
            current_speed = current.changes / max(now - current.busy_since, 1e-9)
            share = current_speed / (sum(speed.values()) + (0 if current.key in speed else current_speed) or 1)
            if share < 1 and TURN_SECONDS / (1 - share) < now - current.busy_since:
                self._print(busiest)

    def _print(self, step: Step) -> None:
        number = self._numbers.setdefault(step.key, len(self._numbers) + 1)
        if step is not self._current:
            self._open(step, number)
        transferring = self._print_transfers(step, number)
        self._lines += [f"#{number} WARN: {one_line(warning.short)}" for warning in step.warnings]
        step.warnings = []
        if step.completed:
            step.flush()
        self._lines += [f"#{number} {harmless(str(line), colors=True)}" for line in step.take_lines()]
        self._current = step
        if step.completed and not transferring:
            # A warning or a transfer may be told of after the end; that needs no second end.
            if self._outcomes.get(step.key) != (step.vertex, step.ran):
                self._outcomes[step.key] = (step.vertex, step.ran)
                self._lines.append(f"#{number} {outcome(step)}")
            self._current = None
            step.changes = 0
        self._steps.updated.discard(step.key)

    def _open(self, step: Step, number: int) -> None:
        if self._current is not None:
            self._current.changes = 0
            self._lines.append(f"#{self._numbers[self._current.key]} ...")
        if self._begun:
            self._lines.append("")
        self._begun = True
        self._lines.append(f"#{number} {one_line(step.vertex.name)}")

    def _print_transfers(self, step: Step, number: int) -> bool:
        """Print the transfers that moved on; returns whether one of them has not ended."""
        open_ones = False
        for name, transfer in step.statuses.items():
            if name not in step.changed:
                continue
            before = self._transfers.get((step.key, name))
            if before is None or transfer.completed or _moved_on(before, transfer):
                self._transfers[step.key, name] = transfer
                open_ones |= transfer.completed is None
                self._lines.append(f"#{number} {transfer_line(transfer)}")
        step.changed.clear()
        return open_ones


def _moved_on(before: VertexStatus, now: VertexStatus) -> bool:
    share = (now.current - before.current) / now.total if now.total else 0.0
    return share >= TRANSFER_SHARE or now.timestamp - before.timestamp >= timedelta(seconds=TRANSFER_SECONDS)


def transfer_size(transfer: VertexStatus) -> str:
    """``1.20MB / 5.00MB``, ``1.20MB`` if the total is unknown, or nothing."""
    if transfer.total:
        return f"{byte_size(transfer.current)} / {byte_size(transfer.total)}"
    return byte_size(transfer.current) if transfer.current else ""


def transfer_line(transfer: VertexStatus) -> str:
    """A transfer as one line: what, how much, how long, and whether it is done."""
    parts = [one_line(transfer.id), transfer_size(transfer)]
    if transfer.started is not None:
        seconds = ((transfer.completed or transfer.timestamp) - transfer.started).total_seconds()
        if seconds > 0.01:
            parts.append(f"{seconds:.1f}s")
    if transfer.completed is not None:
        parts.append("done")
    return " ".join(filter(None, parts))


def outcome(step: Step) -> str:
    """How a completed step ended."""
    if step.canceled:
        return "CANCELED"
    if step.failed:
        return f"ERROR: {one_line(step.vertex.error)}"
    if step.vertex.cached:
        return "CACHED"
    return f"DONE {step.seconds(datetime.now(UTC)):.1f}s"
