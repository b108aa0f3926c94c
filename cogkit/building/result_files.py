"""The small files a build leaves behind on request: the image ID, the build's ref and the result's metadata.

Each appears whole or not at all.  ID and ref of an earlier build are removed before the build begins, as buildx does
with the ID (``commands/build.go``), so that a failed build cannot be taken for the last one.  This file must not know
where the values come from.
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
    """``--iidfile``, ``--metadata-file`` and ``--ref-file``, each None if not asked for."""

    iidfile: Path | None
    metadata_file: Path | None
    ref_file: Path | None = None

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
        if self.ref_file is not None:
            _output(self.ref_file).check("--ref-file")

    def forget(self) -> None:
        """Take ID and ref of an earlier build away.

        Raises:
            OutputError: one is still there.
        """
        for path in (self.iidfile, self.ref_file):
            if path is not None:
                _output(path).forget()

    def write(self, image_id: str | None, metadata: Mapping[str, object], ref: str = "") -> None:
        """Write what was asked for; this may wait for the reader of a pipe.

        Raises:
            OutputError: a file could not be written; the build's own result stands.
        """
        if self.iidfile is not None:
            _write(self.iidfile, (image_id or "").encode())
        if self.metadata_file is not None:
            _write(self.metadata_file, json.dumps(metadata, indent=2).encode() + b"\n")
        if self.ref_file is not None:
            _write(self.ref_file, ref.encode())


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
