"""One destination, one writer: that the outputs of a build destroy neither each other nor what it reads.

Files and folders are told apart as the system does, by device and number, not by how they are spelt: links, hard links,
``..`` and mounts do not deceive it, and what is not there yet is known by the nearest folder that is.  This file must
not know which outputs there are; whoever asks names them for the user.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import combinations
from pathlib import Path

from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

STDOUT = "-"
_LAYOUT_NAMES = frozenset({"blobs", "index.json", "index.json.lock", "ingest", "oci-layout"})


@dataclass(frozen=True, slots=True)
class _Place:
    """A file or folder: what the system knows it by, and the names below that of what is not there yet."""

    device: int
    number: int
    missing: tuple[str, ...] = ()


class Extent(Enum):
    """What a writer does to what is at its destination."""

    FILE = "one file"
    TREE = "a folder, in which other things stay"
    MIRROR = "a folder, from which everything else is deleted"
    LAYOUT = "the files of an OCI layout in a folder"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where something is written.

    Attributes:
        said: The output, as the user knows it.
        path: Where; `STDOUT` is standard output.
        extent: What of it is written.
    """

    said: str
    path: str
    extent: Extent


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder that the build reads.

    Attributes:
        said: What it is, as the user knows it, such as ``the Dockerfile``.
        path: Where; `STDOUT` stands for standard input.
    """

    said: str
    path: str


def check_apart(destinations: Iterable[Destination], sources: Iterable[Source] = ()) -> None:
    """That no output is written, or deleted, by another, and nothing that the build reads.

    Raises:
        UsageError: one would be.
    """
    found = [_Located(each, _place_of(each.path)) for each in destinations]
    for one, other in combinations(found, 2):
        _check_pair(one, other)
    if found:
        for source in sources:
            place = _place_of_source(source.path)
            for writer in found:
                _check_source(writer, source, place)


def name_in(folder: str, path: str) -> str | None:
    """The first name on the way from a folder to what lies in it, at any depth; None if it does not."""
    return _name_in(_place_of(folder), path)


@dataclass(frozen=True, slots=True)
class _Located:
    destination: Destination
    place: _Place | None

    @property
    def said(self) -> str:
        return self.destination.said

    @property
    def extent(self) -> Extent:
        return self.destination.extent

    def name_in(self, folder: _Place | None) -> str | None:
        """The first name on the way from a folder to this; None if it is not in there."""
        return _name_in(folder, self.destination.path)


def _check_pair(one: _Located, other: _Located) -> None:
    is_stdout = one.destination.path == other.destination.path == STDOUT
    if is_stdout or (one.place is not None and one.place == other.place):
        raise UsageError(f"{one.said} and {other.said} go to the same place", hint="give each a destination of its own")
    for outer, inner in ((one, other), (other, one)):
        name = inner.name_in(outer.place)
        if name is None:
            continue
        if outer.extent is Extent.MIRROR:
            raise UsageError(
                f"{outer.said} deletes what the result does not have, and {inner.said} lies in it",
                hint="choose a place outside, or leave mode=delete out",
            )
        if outer.extent is Extent.FILE:
            raise UsageError(f"{inner.said} needs a folder where {outer.said} is a file", hint="choose another place")
        if outer.extent is Extent.LAYOUT and name in _LAYOUT_NAMES:
            raise UsageError(
                f"{inner.said} would be written among the files of {outer.said}", hint="choose another place"
            )


def _check_source(writer: _Located, source: Source, place: _Place | None) -> None:
    if place is None or writer.place is None:
        return
    hint = "choose another place for it"
    if writer.extent is Extent.FILE and writer.place == place:
        raise UsageError(f"{writer.said} would overwrite {source.said}", hint=hint)
    is_in_it = writer.place == place or (source.path != STDOUT and _name_in(writer.place, source.path) is not None)
    if writer.extent is Extent.MIRROR and is_in_it:
        raise UsageError(f"{writer.said} would delete {source.said}", hint=hint)


def real_path(path: str | os.PathLike[str]) -> Path:
    """Where a path leads to; as far as it can be followed."""
    try:
        return Path(os.path.realpath(path))
    except OSError:
        return Path(os.path.abspath(path))


def _name_in(folder: _Place | None, path: str) -> str | None:
    if folder is None or path == STDOUT:
        return None
    real = real_path(path)
    for child, parent in zip([real, *real.parents], real.parents, strict=False):
        if _place_of(str(parent)) == folder:
            return child.name
    return None


def _place_of_source(path: str) -> _Place | None:
    """None also for what is read from a pipe or a device: writing there does not change what was read."""
    try:
        status = os.fstat(0) if path == STDOUT else os.stat(path)
    except OSError:
        return None
    is_kept = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return _Place(status.st_dev, status.st_ino) if is_kept else None


def _place_of(path: str) -> _Place | None:
    """None for what keeps nothing (``/dev/null``) and what cannot be looked at."""
    try:
        status = os.fstat(1) if path == STDOUT else os.stat(path)
    except FileNotFoundError:
        return _place_of_missing(path)
    except OSError:
        return None
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
        return None
    return _Place(status.st_dev, status.st_ino)


def _place_of_missing(path: str) -> _Place | None:
    missing: list[str] = []
    for folder, name in _upwards(str(real_path(path))):
        missing.append(name)
        try:
            status = os.stat(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return _Place(status.st_dev, status.st_ino, tuple(reversed(missing)))
    return None


def _upwards(path: str) -> Iterator[tuple[str, str]]:
    while (split := os.path.split(path))[1]:
        yield split
        path = split[0]
