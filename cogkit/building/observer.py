"""What a build tells of itself while it runs.

`BuildObserver` is implemented by the progress renderers of the command line, and by anyone who drives a build from a
program.  Calls come on the event loop's thread and must return quickly.  This file must not render anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from cogkit.buildkit.status import SolveStatus


class BuildObserver(Protocol):
    """Hears the events of one build, in order."""

    def on_warning(self, message: str) -> None:
        """Something the user should know that does not stop the build."""

    def on_note(self, message: str) -> None:
        """What was decided on the way, for who wants to see everything."""

    def on_lock_wait(self, holder: str, since: datetime | None) -> None:
        """Another process holds the project's lock; called at once and again every few seconds."""

    def on_status(self, status: SolveStatus) -> None:
        """One event of the solve's status stream."""


class SilentObserver:
    """Hears everything and says nothing."""

    def on_warning(self, message: str) -> None:
        pass

    def on_note(self, message: str) -> None:
        pass

    def on_lock_wait(self, holder: str, since: datetime | None) -> None:
        pass

    def on_status(self, status: SolveStatus) -> None:
        pass
