"""What a build may read of this machine: named directories, each with what of it does not exist for the daemon.

Only data; reading the disk is `cogkit.buildkit.fsutil`, serving it `cogkit.buildkit.session.services.filesync`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cogkit.fast_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LocalMount:
    """A local directory that the build knows by ``name`` (``local://name`` in LLB, ``dir-name`` on the wire).

    Args:
        name: What the daemon asks for, e.g. ``context``.
        root: The directory; links in this path are followed.
        hidden: Names directly under root that do not exist for the daemon, e.g. ``.cog``: they are pruned before they
            are walked, and no pattern, follow-path or link reaches what is in them.
        only: If set, the only names directly under root that exist (the Dockerfile mount).
        exclude_patterns: Patterns in ``.dockerignore`` syntax that hold beside those the daemon sends.
        reset_owner: Send uid and gid as 0, as a build context has them.
        files: If set, the directory has these files, by their names, and ``root`` is not looked at.  All of them are
            sent, whatever the daemon's patterns are: a name may have characters that mean something in a pattern.
        ignore_file: Where the user writes what of the directory is left out; for hints only.
    """

    name: str
    root: Path
    hidden: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    exclude_patterns: tuple[str, ...] = ()
    reset_owner: bool = True
    files: Mapping[str, bytes] | None = None
    ignore_file: Path | None = None
