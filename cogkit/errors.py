"""The one tree of errors a caller of cogkit can meet.

Every error that a user can cause is a `CogkitError`: one clear sentence, the place where there is one, and a hint that
says what to do.  Those of the BuildKit library are in `cogkit.buildkit.errors`; which exit code an error means, only
the command line knows (`cogkit.cli.exit_codes`).  This file must not import anything of cogkit, so that every layer
can raise from it.
"""

from __future__ import annotations


class CogkitError(Exception):
    """Base of all errors that cogkit raises on purpose.

    Args:
        message: One sentence: what went wrong and on what.
        where: The place, as ``file``, ``file:line`` or ``file:line:column``, when there is one.
        hint: What the user can do next, one sentence.
        detail: Further lines to show below the message (log tail, source excerpt), already formatted.
    """

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None, detail: str | None = None):
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(CogkitError):
    """A flag, argument or combination of them that makes no sense."""


class ConfigError(CogkitError):
    """A ``cog.yaml``, Dockerfile or ignore file that cannot be used."""


class OutputError(CogkitError):
    """A result could not be written where the user asked for it."""


class LockNotAcquiredError(CogkitError):
    """The project's lock stayed with another process for longer than the caller wanted to wait."""


class ProcessError(CogkitError):
    """A process that was run for the user could not start, or failed: the command ends with its exit code."""

    def __init__(self, message: str, process_code: int, *, hint: str | None = None, detail: str | None = None):
        super().__init__(message, hint=hint, detail=detail)
        self.process_code = process_code


class Interrupted(CogkitError):
    """The user interrupted the command."""
