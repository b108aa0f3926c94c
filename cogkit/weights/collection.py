"""Which files of the store a project uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cogkit.errors import CogkitError
from cogkit.project.weights.lockfile import LOCK_FILENAME, read_lock


def digests_of(project: Path, warn: Callable[[str], None]) -> set[str] | None:
    """The digests that a project's lock names; None if there is no project or no lock any more.

    Raises:
        CogkitError: there is a lock that cannot be read, so nobody knows what may go.
    """
    if not project.is_dir():
        return None
    try:
        lock = read_lock(project / LOCK_FILENAME)
    except CogkitError as problem:
        warn(f"{project}: {problem.message}")
        raise CogkitError(
            f"nothing was removed: {project / LOCK_FILENAME} cannot be read",
            hint="repair it, or remove the project",
        ) from problem
    if lock is None:
        return None
    return {file.digest for weight in lock.weights for file in weight.files}
