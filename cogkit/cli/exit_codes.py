"""Which exit code an error means: the one table.

This file must not decide what is shown of an error.
"""

from __future__ import annotations

from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import ConfigError, Interrupted, LockNotAcquiredError, ProcessError, UsageError

FAILED = 1
"""The build or the command failed: every error that is not in the table, and a mistake of ours."""
INTERRUPTED = 130

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, 2),
    (ConfigError, 2),
    (BuilderUnreachableError, 3),
    (LockNotAcquiredError, 4),
    (Interrupted, INTERRUPTED),
)


def exit_code_of(problem: BaseException) -> int:
    """The exit code for an error: that of a process run for the user, else the first row that it belongs to."""
    if isinstance(problem, ProcessError):
        return problem.process_code
    return next((code for kind, code in _CODES if isinstance(problem, kind)), FAILED)
