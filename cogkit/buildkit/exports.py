"""Where a build's results go on this machine: the `Export` of a solve.

A tar, OCI or Docker archive comes as a stream of bytes and goes into one `OutputFile`, which gets its name only when
the build has succeeded.

What can be found out before the build is found out before it: `check_exports`.  This file must not know the session
or any protocol, nor write anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from cogkit.errors import OutputError, UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.output_file import OutputFile, check_creatable, check_writable_directory

PROTECTED_NAMES = frozenset({".git"})
"""Names that a directory export does not write unless asked to: what is in them is run by the next ``git status``."""

_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


@dataclass(frozen=True)
class Export:
    """One result of a build: an exporter of BuildKit and where its output goes here.

    Args:
        type: ``image``, ``oci``, ``docker``, ``tar`` or ``local``.
        attrs: The exporter's attributes, without ``dest``.  ``allow-git=true`` lets a local export write ``.git``.
        file: Destination of a stream (``oci``, ``docker``, ``tar``).
        directory: Destination of a tree (``local``) or of an OCI layout (``oci`` and ``docker`` with ``tar=false``).
        protected_names: Names that a local export never writes, replaces or deletes, at any depth.
    """

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    file: OutputFile | None = None
    directory: Path | None = None
    protected_names: frozenset[str] = PROTECTED_NAMES

    @property
    def mirror(self) -> bool:
        """``mode=delete`` of a local export: what the result does not have is deleted from the directory."""
        return self.attrs.get("mode", "").strip().lower() == "delete"

    @property
    def is_layout(self) -> bool:
        """``tar=false``: the result is an OCI layout in `directory`, not an archive of one."""
        is_tar = self.attrs.get("tar", "true").strip().lower() not in _FALSE
        return self.type in ("oci", "docker") and not is_tar

    @property
    def refused_names(self) -> frozenset[str]:
        """`protected_names` with the user's ``allow-git`` taken into account."""
        allow_git = self.attrs.get("allow-git", "").strip().lower() in _TRUE
        return self.protected_names - {".git"} if allow_git else self.protected_names

    def check(self) -> None:
        """Find out before the build what would fail after it.

        Raises:
            OutputError: the destination cannot be written.
            UsageError: the destination makes no sense for this exporter.
        """
        if self.file is not None:
            self.file.check(f"the {self.type} exporter")
        if self.directory is not None:
            _check_directory(self.directory, self.type)


def check_exports(exports: Sequence[Export]) -> None:
    """`Export.check` of all of them, and that no two write the same file.

    Raises:
        OutputError, UsageError: see `Export.check`; also two outputs to one destination.
    """
    taken: set[str] = set()
    for export in exports:
        export.check()
        if export.file is None:
            continue
        place = export.file.place
        if place in taken:
            if export.file.is_stdout:
                raise UsageError("more than one output goes to standard output", hint="give one of them a dest= file")
            raise UsageError(f"more than one output goes to '{place}'", hint="give each output a dest= of its own")
        taken.add(place)


def _check_directory(directory: Path, exporter: str) -> None:
    if str(directory) == "-":
        raise UsageError(
            f"dest cannot be standard output for the {exporter} exporter", hint="give a directory, or use type=tar"
        )
    if directory.is_dir():
        check_writable_directory(directory)
    elif os.path.lexists(directory):
        raise OutputError(
            f"the output directory '{directory}' is not a directory", hint="remove it or choose another dest="
        )
    else:
        check_creatable(directory)
