"""A weight's files in a folder of this machine, all of them or those that a pattern names.

Links, devices and the like are refused rather than left out, for a model without a file that it should have is found
out late.  A file that changes while it is read is refused too.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from cogkit.errors import CogkitError, ConfigError, Interrupted
from cogkit.weights.inventory import (
    FileFilter,
    Inventory,
    InventoryFile,
    by_path,
    check_allowed,
    is_glob,
    set_digest,
)
from cogkit.weights.sources import Intake
from cogkit.weights.store import hash_file
from cogkit.weights.transfer import in_parallel

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class FolderSource:
    """A folder, or files of one.

    Args:
        path: As in ``cog.yaml``, without ``file://``; parts with ``*``, ``?`` or ``[`` are a pattern.
        project_dir: What relative paths are relative to.

    Raises:
        ConfigError: there is no such folder, or it may not be used.
    """

    def __init__(self, path: str, project_dir: Path):
        if not path:
            raise ConfigError("empty weight source path", hint="name a folder")
        cleaned = posixpath.normpath(path)
        if cleaned == ".":
            raise ConfigError("weight source cannot be the project directory itself", hint="name a folder in it")
        if cleaned.startswith(".."):
            raise ConfigError(
                f"weight source {path!r} escapes the project directory", hint="give an absolute path if that is meant"
            )
        parts = cleaned.split("/")
        fixed = next((index for index, part in enumerate(parts) if is_glob(part)), len(parts))
        self._pattern = "/".join(parts[fixed:])
        self._shown = path
        self.folder = project_dir / ("/".join(parts[:fixed]) or "/" * cleaned.startswith("/"))
        if not self.folder.exists():
            raise ConfigError(f"weight source not found: {path}", hint="check source.uri in cog.yaml")
        if not self.folder.is_dir():
            raise ConfigError(
                f"weight source {path} is not a directory (file:// sources must be directories)",
                hint="name its folder, and the file in include",
            )

    def inventory(self, intake: Intake) -> Inventory:
        found = dict(self._walk())
        if self._pattern:
            taken = FileFilter(include=(f"/{self._pattern}",)).matches(list(found))
            found = {path: size for path, size in found.items() if path in taken}
        if not found:
            raise ConfigError(f"weight source {self._shown} has no files", hint="check source.uri in cog.yaml")
        wanted = intake.wanted.matches(list(found))
        intake.progress.start("Reading", sum(found.values()))

        def read(path: str) -> InventoryFile:
            if intake.stop.is_set():
                raise Interrupted("interrupted")
            file = self._read(path, found[path], intake, keep=path in wanted)
            intake.progress.moved(file.size)
            return file

        files = by_path(in_parallel(read, found, intake.stop, intake.workers))
        intake.progress.finish()
        return Inventory(files, set_digest(files))

    def _read(self, path: str, size: int, intake: Intake, *, keep: bool) -> InventoryFile:
        place = self.folder / path
        store = intake.store if keep else None
        try:
            known = intake.known.get((path, size))
            if store is None or (known is not None and store.has(known, size)):
                digest, size = hash_file(place)
                if store is None or store.has(digest, size):
                    return InventoryFile(path, size, digest)
            digest, size = store.put_copy(place)
        except OSError as error:
            raise CogkitError(f"cannot read the weight file {place}: {error.strerror}") from error
        return InventoryFile(path, size, digest)

    def fetch(self, files: Sequence[InventoryFile], intake: Intake) -> None:
        store = intake.store
        assert store is not None
        for file in files:
            try:
                store.put_copy(self.folder / file.path, file.digest)
            except OSError as error:
                raise CogkitError(f"cannot read the weight file {file.path}: {error.strerror}") from error

    def _walk(self) -> Iterator[tuple[str, int]]:
        pending = [""]
        while pending:
            below = pending.pop()
            try:
                with os.scandir(self.folder / below) as entries:
                    listed = list(entries)
            except OSError as error:
                raise CogkitError(
                    f"cannot read the weight source {self._shown}: {error.strerror}: {below or '.'}"
                ) from error
            for entry in listed:
                path = f"{below}/{entry.name}" if below else entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    check_allowed(f"{path}/x", self._shown)
                    pending.append(path)
                elif stat.S_ISREG(mode):
                    check_allowed(path, self._shown)
                    yield path, entry.stat(follow_symlinks=False).st_size
                else:
                    kind = _KINDS.get(stat.S_IFMT(mode), "not a file")
                    raise ConfigError(
                        f"weight source {self._shown} contains non-regular entry {path!r} ({kind})",
                        hint="resolve to regular files before importing",
                    )
