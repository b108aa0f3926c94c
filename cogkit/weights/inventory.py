"""Lists of files with their digests: what a source offers, which of it is taken, and the digest of a set.

Pure: this file must not read a source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.digest import digest_of
from cogkit.project.weights.lockfile import check_path

_WHITEOUT = ".wh."
_STATE_FOLDER = ".cog"


@dataclass(frozen=True, slots=True)
class InventoryFile:
    """A file: its path below the weight's folder, its size, and the digest of its content."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a source held at one moment.

    Attributes:
        files: Sorted by path.
        fingerprint: Says whether a source is what it was: ``sha256:…``, ``commit:…`` or ``etag:…``.
    """

    files: tuple[InventoryFile, ...]
    fingerprint: str


def by_path(files: Iterable[InventoryFile]) -> tuple[InventoryFile, ...]:
    """Sorted as Go sorts strings: by their bytes."""
    return tuple(sorted(files, key=lambda file: file.path.encode()))


def set_digest(files: Iterable[InventoryFile]) -> str:
    """The digest of a set of files, however they are packed (specification, 2.4)."""
    lines = sorted(f"{file.digest.partition(':')[2]}  {file.path}".encode() for file in files)
    return digest_of(b"\n".join(lines))


def check_allowed(path: str, where: str) -> None:
    """Refuse a path that no weight may have (specification, 1.3 and 1.4).

    Raises:
        ConfigError: it says which file of which source.
    """
    try:
        check_path(path)
    except ValueError as problem:
        raise ConfigError(f"the weight source {where} cannot be imported: {problem}", hint="rename it") from None
    parts = path.split("/")
    if _STATE_FOLDER in parts[:-1]:
        raise ConfigError(
            f"the weight source {where} has a {_STATE_FOLDER}/ folder ({path}), which is kept for the state of weights",
            hint="remove it, or import a folder below it",
        )
    if any(part.startswith(_WHITEOUT) for part in parts):
        raise ConfigError(
            f"the weight source {where} has {path}, which image tools take for a deletion mark", hint="rename it"
        )


@dataclass(frozen=True, slots=True)
class FileFilter:
    """Which files are taken: those of ``include``, all if that is empty, without those of ``exclude``."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def matches(self, paths: Sequence[str]) -> set[str]:
        """The paths that are taken; patterns are those of ``.gitignore``."""
        if not self.include and not self.exclude:
            return set(paths)
        # With its matcher a tenth of a second, and few projects have patterns.
        from pathspec import GitIgnoreSpec

        taken = set(paths)
        if self.include:
            taken = set(GitIgnoreSpec.from_lines(self.include).match_files(paths))
        if self.exclude:
            taken -= set(GitIgnoreSpec.from_lines(self.exclude).match_files(paths))
        return taken

    def require(self, paths: Sequence[str]) -> set[str]:
        """The same, but none is an error.

        Raises:
            ConfigError: no file is taken.
        """
        taken = self.matches(paths)
        if paths and not taken:
            patterns = (("include", self.include), ("exclude", self.exclude))
            shown = [f"  {key}: {list(value)}" for key, value in patterns if value]
            raise ConfigError(
                f"include/exclude patterns matched zero files out of {len(paths)} in the source",
                hint="check your patterns; they are written as in .gitignore",
                detail="\n".join(shown),
            )
        return taken


def is_glob(path: str) -> bool:
    """Whether a path of ``cog.yaml`` names files by a pattern."""
    return re.search(r"[*?\[]", path) is not None
