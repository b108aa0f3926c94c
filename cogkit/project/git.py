"""What git says of a project: the commit and the tag that an image is labelled with.

Continuous integration says it in the environment, as Cog reads it (``pkg/image/build.go``).  git is asked with a time
limit and may be missing; this file must not change anything.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

TIMEOUT = 3.0
"""Seconds that git may take, as with Cog."""


def revision(project_dir: Path, environ: Mapping[str, str]) -> str | None:
    """The commit that is checked out; None if there is none."""
    return environ.get("GITHUB_SHA") or _ask(project_dir, "rev-parse", "HEAD")


def version(project_dir: Path, environ: Mapping[str, str]) -> str | None:
    """The nearest tag as ``git describe`` words it, ``-dirty`` if files were changed; None if there is none."""
    return environ.get("GITHUB_REF_NAME") or _ask(project_dir, "describe", "--tags", "--dirty")


def _ask(project_dir: Path, *question: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project_dir), "--no-optional-locks", *question],
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    answer = done.stdout.decode("utf-8", "replace").strip()
    return answer if done.returncode == 0 and answer else None
