"""Where a build's results go on this machine: the `Export` of a solve.

A tar, OCI or Docker archive comes as a stream of bytes and goes into one `OutputFile`, which gets its name only when
the build has succeeded.

What can be found out before the build is found out before it: `check_exports`.  This file must not know the session
or any protocol, nor write anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from cogkit.buildkit.destinations import STDOUT, Destination, Extent, check_apart
from cogkit.buildkit.output_stream import OutputStream, Writable
from cogkit.errors import OutputError, UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.go_bool import go_bool
from cogkit.output_file import OutputFile, check_creatable, check_writable_directory

PROTECTED_NAMES = frozenset({".git"})
"""Names that a directory export does not write unless asked to: what is in them is run by the next ``git status``."""


@dataclass(frozen=True)
class Export:
    """One result of a build: an exporter of BuildKit and where its output goes here.

    Args:
        type: ``image``, ``oci``, ``docker``, ``tar`` or ``local``.
        attrs: The exporter's attributes, without ``dest``.  ``allow-git=true`` lets a local export write ``.git``.
        file: Destination of a stream (``oci``, ``docker``, ``tar``).
        directory: Destination of a tree (``local``) or of an OCI layout (``oci`` and ``docker`` with ``tar=false``).
        protected_names: Names that a local export never writes, replaces or deletes, at any depth.
        without_layers: Of an OCI layout everything but the layers, which stay at the daemon.
    """

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    file: OutputFile | None = None
    directory: Path | None = None
    protected_names: frozenset[str] = PROTECTED_NAMES
    without_layers: bool = False

    @property
    def mirror(self) -> bool:
        """``mode=delete`` of a local export: what the result does not have is deleted from the directory."""
        return self.attrs.get("mode", "").strip().lower() == "delete"

    @property
    def is_layout(self) -> bool:
        """``tar=false``: the result is an OCI layout in `directory`, not an archive of one."""
        is_tar = go_bool(self.attrs.get("tar", "true").strip()) is not False
        return self.type in ("oci", "docker") and not is_tar

    @property
    def refused_names(self) -> frozenset[str]:
        """`protected_names` with the user's ``allow-git`` taken into account."""
        allow_git = go_bool(self.attrs.get("allow-git", "").strip())
        return self.protected_names - {".git"} if allow_git else self.protected_names

    @property
    def path(self) -> str:
        """Where something is written here; empty if nothing is."""
        return self.file.path if self.file is not None else str(self.directory or "")

    @property
    def extent(self) -> Extent | None:
        """What of its destination is written; None if nothing is written here."""
        if self.file is not None:
            return None if isinstance(self.file, OutputStream) else Extent.FILE
        if self.directory is None:
            return None
        if self.is_layout:
            return Extent.LAYOUT
        return Extent.MIRROR if self.mirror else Extent.TREE

    def check(self) -> None:
        """Find out before the build what would fail after it.

        Raises:
            OutputError: the destination cannot be written.
            UsageError: the destination makes no sense for this exporter.
        """
        if self.file is not None:
            self.file.check(f"the {self.type} exporter")
        if self.directory is not None:
            if str(self.directory) == STDOUT:
                raise UsageError(
                    f"dest cannot be standard output for the {self.type} exporter",
                    hint="give a directory, or use type=tar",
                )
            _check_directory(self.directory, "the output directory")


def image(*names: str, push: bool = False, **attrs: str) -> Export:
    """Make an image, in the daemon's image store or, with ``push``, in the registries that the names say.

    Args:
        names: References; none makes an image that has only a digest.
        push: Push it.
        attrs: Further attributes of the exporter, such as ``compression="zstd"``; ``_`` stands for ``-``.
    """
    return Export("image", _attrs(attrs, names) | ({"push": "true"} if push else {}))


def oci(path: str | os.PathLike[str], *names: str, layout: bool = False, **attrs: str) -> Export:
    """Write the image as an OCI archive or, with ``layout``, add it to the OCI layout in a folder."""
    return _archive("oci", path, names, layout, attrs)


def docker(path: str | os.PathLike[str], *names: str, layout: bool = False, **attrs: str) -> Export:
    """Write the image as an archive that ``docker load`` reads."""
    return _archive("docker", path, names, layout, attrs)


def _archive(
    type: str, path: str | os.PathLike[str], names: Sequence[str], layout: bool, attrs: Mapping[str, str]
) -> Export:
    given = _attrs(attrs, names)
    if layout:
        return Export(type, given | {"tar": "false"}, directory=Path(path))
    return Export(type, given, file=OutputFile(path))


def tar(destination: str | os.PathLike[str] | Writable, **attrs: str) -> Export:
    """Write the result's files as a tar.

    Args:
        destination: A file's path, or an object with ``write``, which gets the bytes as they come.
        attrs: Further attributes of the exporter.
    """
    file = OutputFile(destination) if isinstance(destination, str | os.PathLike) else OutputStream(destination)
    return Export("tar", _attrs(attrs), file=file)


def local(directory: str | os.PathLike[str], *, mirror: bool = False, **attrs: str) -> Export:
    """Write the result's files into a folder; with ``mirror`` delete from it what the result does not have."""
    given = _attrs(attrs) | ({"mode": "delete"} if mirror else {})
    return Export("local", given, directory=Path(directory))


def _attrs(attrs: Mapping[str, str], names: Sequence[str] = ()) -> dict[str, str]:
    given = {key.replace("_", "-"): value for key, value in attrs.items()}
    return given | ({"name": ",".join(names)} if names else {})


def check_exports(exports: Sequence[Export], *, cache_folders: Sequence[Path] = ()) -> None:
    """`Export.check` of all of them, and that each goes to a place of its own.

    Args:
        exports: All of a solve's.
        cache_folders: Where it exports local caches to.

    Raises:
        OutputError, UsageError: see `Export.check`; also two outputs to one destination.
    """
    for export in exports:
        export.check()
    for folder in cache_folders:
        check_cache_folder(folder)
    caches = (Destination(f"the cache '{folder}'", str(folder), Extent.LAYOUT) for folder in cache_folders)
    check_apart((*_destinations(exports), *caches))


def _destinations(exports: Iterable[Export]) -> Iterator[Destination]:
    for export in exports:
        if export.extent is not None:
            place = "on standard output" if export.path == STDOUT else f"'{export.path}'"
            yield Destination(f"the {export.type} output {place}", export.path, export.extent)


def check_cache_folder(folder: Path) -> None:
    """Find out before the build whether a cache can be exported to a folder.

    Raises:
        OutputError: it cannot.
    """
    _check_directory(folder, "the cache's folder")


def _check_directory(directory: Path, what: str) -> None:
    if directory.is_dir():
        check_writable_directory(directory)
    elif directory.is_symlink():
        raise OutputError(
            f"{what} '{directory}' is a link to '{os.readlink(directory)}', where there is no folder",
            hint="make that folder, or remove the link",
        )
    elif os.path.lexists(directory):
        raise OutputError(f"{what} '{directory}' is not a directory", hint="choose another place")
    else:
        check_creatable(directory)
