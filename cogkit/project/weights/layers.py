"""Which files of a project are weights, and how they are parted into layers.

`guess_weights` goes by Cog's signs (``pkg/weightslegacy/weights.go``): big, not code, not an image, not a video.
`match_weights` goes by what the user says.  Both look at the list of files that a build would send, so what
``.dockerignore`` leaves out is not a weight either.  Pure: this file must not look at a disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from cogkit.fast_dataclass import dataclass

SIZE_THRESHOLD = 10 * 1024 * 1024
"""Bytes from which on a file may be a weight."""

MAX_LAYERS = 32
"""An image can have 127 layers; base and packages need their share, and few people pull more than this at once."""

_CODE_SUFFIXES = (".py", ".ipynb")
_OTHER_PREFIXES = (".cog", ".git", "__pycache__")
_OTHER_SUFFIXES = (
    *(*_CODE_SUFFIXES, ".whl", ".log"),
    *(".jpg", ".jpeg", ".png", ".webp", ".svg", ".gif", ".avif", ".heic"),
    *(".mp4", ".mov", ".avi", ".wmv", ".mkv", ".webm"),
    *(".mp3", ".wav", ".ogg", ".flac", ".aac", ".m4a"),
)


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """A file of the project: its path from the root with forward slashes, and its bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class WeightLayers:
    """The weights of a project; empty if it has none.

    Attributes:
        paths: Files, and folders with everything in them: what is a weight.
        layers: Files and folders, each a layer of its own.  A folder here may hold other files as well; they are none
            of the layer, because only ``paths`` are offered to the builder.
    """

    paths: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.paths)

    @property
    def only_patterns(self) -> tuple[str, ...]:
        """Exclude patterns under which only the weights, and the project's ignore file, exist."""
        return ("*", *(f"!{_pattern(path)}" for path in (".dockerignore", *self.paths)))

    @property
    def without_patterns(self) -> tuple[str, ...]:
        """Exclude patterns under which everything but the weights exists."""
        return tuple(_pattern(path) for path in self.paths)


NO_WEIGHTS = WeightLayers()


def guess_weights(files: Iterable[ProjectFile]) -> WeightLayers:
    """The weights by their looks.

    A folder with a weight in it is taken whole unless it holds code; then its weights are taken one by one.
    """
    weights: list[str] = []
    code_folders: set[str] = set()
    for file in files:
        if ".git" in PurePosixPath(file.path).parts[:-1]:
            continue
        if file.path.endswith(_CODE_SUFFIXES):
            code_folders.update(_folders_above(file.path))
        elif file.size >= SIZE_THRESHOLD and not _is_something_else(file.path):
            weights.append(file.path)
    # Only folders with a weight directly in them, so that none is taken for what lies far below it.
    whole = {os.path.dirname(path) for path in weights} - code_folders
    return _layers(_collapsed(weights, whole))


def match_weights(files: Iterable[ProjectFile], is_weight: Callable[[str], bool]) -> WeightLayers:
    """The weights as the user names them.

    Args:
        files: The project's files.
        is_weight: Whether the path is, or lies in, something that was named.
    """
    counts: dict[str, list[int]] = {}
    matched: list[str] = []
    for file in files:
        found = is_weight(file.path)
        if found:
            matched.append(file.path)
        for folder in _folders_above(file.path):
            count = counts.setdefault(folder, [0, 0])
            count[0] += 1
            count[1] += found
    whole = {folder for folder, (all_files, weights) in counts.items() if all_files == weights}
    return _layers(_collapsed(matched, whole))


def _collapsed(files: Iterable[str], whole: set[str]) -> tuple[str, ...]:
    """The files, those in a folder of ``whole`` replaced by the uppermost such folder."""
    return _in_order(next((folder for folder in _folders_above(path) if folder in whole), path) for path in files)


def _is_something_else(path: str) -> bool:
    return path.startswith(_OTHER_PREFIXES) or path.endswith(_OTHER_SUFFIXES)


def _folders_above(path: str) -> list[str]:
    """The folders that a file is in, the uppermost first, without the root."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _in_order(paths: Iterable[str]) -> tuple[str, ...]:
    """Each once; what lies higher first, then by name."""
    return tuple(sorted(set(paths), key=lambda path: (path.count("/"), path.split("/"))))


def _layers(paths: tuple[str, ...]) -> WeightLayers:
    layers = paths
    while len(layers) > MAX_LAYERS:
        deepest = max(path.count("/") for path in layers)
        # The deepest go together in their folder; files of the root go together in the root.
        merged = {os.path.dirname(path) or "." if path.count("/") == deepest else path for path in layers}
        layers = (".",) if "." in merged else _in_order(_uppermost(merged))
    return WeightLayers(paths, layers)


def _uppermost(paths: set[str]) -> list[str]:
    return [path for path in paths if not any(folder in paths for folder in _folders_above(path))]


def _pattern(path: str) -> str:
    """The ``.dockerignore`` pattern of exactly this path."""
    escaped = "".join(f"\\{char}" if char in "*?[]^{|}\\" else char for char in path)
    if escaped.startswith("!"):
        escaped = f"\\{escaped}"
    # A blank at an end would be trimmed away.
    first, last = escaped[:1], escaped[-1:]
    if last.isspace():
        escaped = f"{escaped[:-1]}[{last}]"
    return f"[{first}]{escaped[1:]}" if first.isspace() else escaped
