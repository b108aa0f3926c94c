"""The data of ``cogkit doctor``: what a check is and what it finds."""

from __future__ import annotations

import enum
from collections.abc import Callable

from cogkit.errors import CogkitError
from cogkit.fast_dataclass import dataclass
from cogkit.project.doctor.sources import ProjectSources


class Severity(enum.IntEnum):
    """How bad a finding is, the worst first."""

    ERROR = 0
    WARNING = 1
    INFO = 2


class Group(enum.StrEnum):
    CONFIG = "Config"
    PYTHON = "Python"
    ENVIRONMENT = "Environment"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: ``place`` is ``file`` or ``file:line``."""

    severity: Severity
    message: str
    remediation: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One question to a project.

    Attributes:
        find: Finds what is wrong.
        fix: Puts all of it right, or refuses with a `CannotFixError` and changes nothing; None if only people can.
    """

    group: Group
    description: str
    find: Callable[[ProjectSources], list[Finding]]
    fix: Callable[[ProjectSources], None] | None = None


class CannotFixError(CogkitError):
    """A fix that cannot be made without a doubt; nothing was changed."""
