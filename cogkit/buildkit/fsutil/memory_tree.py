"""A directory that exists in memory only, with the methods of `cogkit.buildkit.fsutil.walk.Tree` that a transfer needs.

This file must not look at the disk.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping

from cogkit.buildkit.fsutil.batch import Batch

_MODE = 0o644
_MOD_TIME = 0  # the same every time, as the content alone is to count


class MemoryTree:
    """Files of one directory, by their names."""

    def __init__(self, files: Mapping[str, bytes]):
        self._files = {os.fsencode(name): content for name, content in files.items()}

    def abandon(self) -> None:
        """There is nothing to end."""

    def close(self) -> None:
        """There is nothing to close."""

    def walk(self) -> Generator[Batch, None, None]:
        """All files, by their names."""
        batch = Batch()
        for name, content in sorted(self._files.items()):
            batch.add_file(name, _MODE, len(content), _MOD_TIME)
        if batch:
            yield batch

    def reader(self) -> MemoryReader:
        """What reads the files' content."""
        return MemoryReader(self._files)


class MemoryReader:
    """Hands out content as `cogkit.buildkit.fsutil.walk.ContentReader` does."""

    def __init__(self, files: Mapping[bytes, bytes]):
        self._files = files
        self.bytes_read = 0
        """Over all files."""

    def close(self) -> None:
        """There is nothing to close."""

    def read(self, path: bytes, chunk: int) -> Iterator[bytes]:
        """The content in pieces of at most ``chunk`` bytes, none of them empty."""
        content = self._files[path]
        for start in range(0, len(content), chunk):
            piece = content[start : start + chunk]
            self.bytes_read += len(piece)
            yield piece
