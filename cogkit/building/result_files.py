"""The small files a build leaves behind on request: the image ID and the result's metadata.

Each appears whole or not at all.  An ID file of an earlier build is removed before the build begins, as buildx does
(``commands/build.go``), so that a failed build cannot be taken for the last one.  This file must not know where the
values come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.output_file import OutputFile


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """``--iidfile`` and ``--metadata-file``, each None if not asked for."""

    iidfile: Path | None
    metadata_file: Path | None

    def check(self, *, makes_image: bool = True) -> None:
        """Find out before the build what would fail after it.

        Args:
            makes_image: Whether an output is an image, which then has an ID.

        Raises:
            OutputError: a file cannot be written there.
            UsageError: an image ID is wanted, and there will be none.
        """
        if self.iidfile is not None:
            if not makes_image:
                raise UsageError(
                    "--iidfile writes the ID of an image, and no output is one",
                    hint="leave it out, or add an output such as -o type=image",
                )
            _output(self.iidfile).check("--iidfile")
        if self.metadata_file is not None:
            _output(self.metadata_file).check("--metadata-file")

    def forget(self) -> None:
        """Take the ID of an earlier build away.

        Raises:
            OutputError: it is still there.
        """
        if self.iidfile is not None:
            _output(self.iidfile).forget()

    def write(self, image_id: str | None, metadata: Mapping[str, object]) -> None:
        """Write what was asked for; this may wait for the reader of a pipe.

        Raises:
            OutputError: a file could not be written; the build's own result stands.
        """
        if self.iidfile is not None:
            _write(self.iidfile, (image_id or "").encode())
        if self.metadata_file is not None:
            _write(self.metadata_file, json.dumps(metadata, indent=2).encode() + b"\n")


def _output(path: Path) -> OutputFile:
    # As in buildx, only the destinations of exports get the folders that are missing.
    return OutputFile(path, make_parents=False)


def _write(path: Path, data: bytes) -> None:
    writer = _output(path).open()
    try:
        writer.write([data])
        writer.finish()
        writer.publish()
    except BaseException:
        writer.discard()
        raise
