"""What a build would send of its context, and why the rest stays here.

The walk asks the same filter as the file sync itself (`cogkit.buildkit.fsutil.filter`), so the report cannot differ
from what is sent; it only also looks at what is left out.  This file must not send, write or print anything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from cogkit.building.definition import IgnoreFile, context_mount, project_ignore_file
from cogkit.building.ignore_patterns import explained_refusal, numbered_patterns
from cogkit.building.options import BuildOptions
from cogkit.buildkit.fsutil.filter import FilterState, TreeFilter
from cogkit.buildkit.fsutil.patternmatcher.patterns import MatchInfo, PatternError, PatternMatcher
from cogkit.buildkit.fsutil.walk import unreadable
from cogkit.buildkit.mounts import LocalMount
from cogkit.fast_dataclass import dataclass
from cogkit.project.discover import Project, resolve_project
from cogkit.project.dotcog import DOTCOG_NAME

SINGLE_CHILD_SHARE = 0.9
"""A folder of which one subfolder has more than this is not named beside that subfolder."""


@dataclass(frozen=True, slots=True)
class SentFile:
    """Anything but a folder.  ``size`` is what its content costs: 0 for links, and for a file's further names."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class FolderSize:
    """A folder with everything below it that is sent."""

    path: str
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What one pattern keeps here.

    Attributes:
        pattern: As the ignore file has it.
        line: Its line in the ignore file, from 1.
        paths: Files and whole folders, the uppermost of each.
        files: Files in them.
        size: Their bytes.
    """

    pattern: str
    line: int
    paths: tuple[str, ...]
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class ContextReport:
    """Paths are relative to ``root``, parts joined by ``/``, in the order in which they are sent.

    Attributes:
        root: The context.
        ignore_file: The ignore file that holds, or None.
        files: All that is sent but folders.
        folders: All folders that are sent, the biggest first.
        left_out: By pattern, the biggest first.
        hidden: Names in ``root`` that no build ever sees, whatever the ignore file says.
        warnings: What the user may have taken for an ignore file.
    """

    root: Path
    ignore_file: Path | None
    files: tuple[SentFile, ...]
    folders: tuple[FolderSize, ...]
    left_out: tuple[LeftOut, ...]
    hidden: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def notable_folders(self, count: int) -> list[FolderSize]:
        """The biggest folders, without those whose size is nearly all that of one subfolder."""
        biggest_child: dict[str, int] = {}
        for folder in self.folders:
            parent = os.path.dirname(folder.path)
            biggest_child[parent] = max(biggest_child.get(parent, 0), folder.size)
        notable = (
            folder
            for folder in self.folders
            if folder.size and biggest_child.get(folder.path, 0) <= SINGLE_CHILD_SHARE * folder.size
        )
        return [folder for folder, _ in zip(notable, range(count), strict=False)]


def report_context(options: BuildOptions) -> ContextReport:
    """Find out what a build with these options would send.

    Raises:
        ConfigError: there is no project, or a bad pattern.
        MountError: a folder cannot be read.
        UsageError: see `resolve_project`.
    """
    project = resolve_project(options.context, options.file)
    ignore = project_ignore_file(project)
    lines = numbered_patterns(ignore.file)
    walk = _walked(project, ignore.file, lines)
    return ContextReport(
        root=project.root,
        ignore_file=None if ignore.file is None else ignore.file.path,
        files=tuple(walk.files),
        folders=_folder_sizes(walk),
        left_out=_left_out(walk, lines),
        hidden=tuple(walk.hidden),
        warnings=ignore.warnings,
    )


def sent_files(project: Project) -> tuple[SentFile, ...]:
    """All that a build of the project would send but folders.

    Raises:
        ConfigError: a bad pattern.
        MountError: a folder cannot be read.
    """
    ignore = project_ignore_file(project)
    return tuple(_walked(project, ignore.file, numbered_patterns(ignore.file)).files)


def _walked(project: Project, ignore: IgnoreFile | None, lines: list[tuple[int, str]]) -> _Walk:
    try:
        mount = context_mount(project.root, None if ignore is None else ignore.path)
        walk = _Walk(mount, [pattern for _, pattern in lines])
        walk.run()
    except PatternError as problem:
        raise explained_refusal(problem, () if ignore is None else (ignore,)) from problem
    return walk


@dataclass(slots=True)
class _Tally:
    paths: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0


@dataclass(slots=True)
class _Walk:
    """One walk over the context; depth first and in name order, as the file sync sends."""

    mount: LocalMount
    patterns: list[str]
    files: list[SentFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    tallies: dict[int, _Tally] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    _matcher: PatternMatcher = field(init=False)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def run(self) -> None:
        self._matcher = PatternMatcher(self.patterns)
        self._folder("", TreeFilter(None, self.patterns).root, MatchInfo())

    def _folder(self, folder: str, state: FilterState | None, info: MatchInfo) -> None:
        """Look through a folder.

        Raises:
            PermissionError: it cannot be read.
        """
        for entry in self._entries(folder):
            name = entry.name
            path = f"{folder}/{name}" if folder else name
            if not folder and name == DOTCOG_NAME:
                self.hidden.append(name)
            elif entry.is_dir(follow_symlinks=False):
                self._subfolder(entry, name, path, state, info)
            elif state is None or state.keeps(name, path):
                self.files.append(SentFile(path, self._content_size(entry, path)))
            else:
                self._leave_out(entry, path, info)

    def _subfolder(
        self, entry: os.DirEntry[str], name: str, path: str, state: FilterState | None, info: MatchInfo
    ) -> None:
        kept, below = (True, None) if state is None else state.enter(name, path)
        if not kept and below is None:
            self._leave_out(entry, path, info)
            return
        files_before = len(self.files)
        self.folders.append(path)
        _, own = self._matcher.matches_using_parent_results(path, info)
        try:
            self._folder(path, below, own)
        except PermissionError as problem:
            # As the walk of the file sync: passed over only if nothing in it can be asked for.
            if kept or below is None or below.may_keep:
                raise unreadable(self.mount, os.fsencode(path), problem) from None
            self._leave_out(entry, path, info)
        if not kept and len(self.files) == files_before and self.folders[-1] == path:
            # Looked into because of an exception (!) that found nothing.
            self.folders.pop()

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.mount.root / folder) as entries:
                return sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except PermissionError as problem:
            if folder:
                raise
            raise unreadable(self.mount, b"", problem) from problem
        except OSError as problem:
            raise unreadable(self.mount, os.fsencode(folder), problem) from problem

    def _content_size(self, entry: os.DirEntry[str], path: str) -> int:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return 0
        except OSError as problem:
            raise unreadable(self.mount, os.fsencode(path), problem) from problem
        if not stat.S_ISREG(status.st_mode):
            return 0
        if status.st_nlink > 1:
            identity = (status.st_dev, status.st_ino)
            if identity in self._seen:
                return 0
            self._seen.add(identity)
        return status.st_size

    def _leave_out(self, entry: os.DirEntry[str], path: str, info: MatchInfo) -> None:
        _, found = self._matcher.matches_using_parent_results(path, info)
        # The last pattern that matches has the word.
        index = max(index for index, matched in enumerate(found.parent_matched) if matched)
        tally = self.tallies.setdefault(index, _Tally())
        is_folder = entry.is_dir(follow_symlinks=False)
        tally.paths.append(f"{path}/" if is_folder else path)
        sizes = _sizes_below(entry.path) if is_folder else iter([_size(entry.path)])
        for size in sizes:
            tally.files += 1
            tally.size += size


def _sizes_below(folder: str) -> Iterator[int]:
    """Sizes of the files below a folder that stays here anyway; what cannot be read is passed over."""
    for place, _, names in os.walk(folder):
        for name in names:
            yield _size(os.path.join(place, name))


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _folder_sizes(walk: _Walk) -> tuple[FolderSize, ...]:
    totals = {path: [0, 0] for path in walk.folders}
    for file in walk.files:
        folder = os.path.dirname(file.path)
        while folder:
            total = totals.setdefault(folder, [0, 0])
            total[0] += 1
            total[1] += file.size
            folder = os.path.dirname(folder)
    sizes = [FolderSize(path, files, size) for path, (files, size) in totals.items()]
    return tuple(sorted(sizes, key=lambda folder: (-folder.size, -folder.files, folder.path)))


def _left_out(walk: _Walk, lines: list[tuple[int, str]]) -> tuple[LeftOut, ...]:
    made = [
        LeftOut(lines[index][1], lines[index][0], tuple(tally.paths), tally.files, tally.size)
        for index, tally in walk.tallies.items()
    ]
    return tuple(sorted(made, key=lambda left_out: (-left_out.size, -left_out.files, left_out.line)))
