"""Follow-paths: what has to be sent so that the given paths can be read, links and all (fsutil's ``FollowLinks``).

The results become include patterns.  Only `Tree`'s look-ups are used, so nothing outside of the tree or hidden in it is
ever looked at: such a path counts as one that does not exist.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from cogkit.buildkit.fsutil import gopath
from cogkit.buildkit.fsutil.filter import dedupe_paths
from cogkit.buildkit.fsutil.patternmatcher.patterns import PatternMatcher
from cogkit.buildkit.fsutil.walk import Tree


def follow_links(tree: Tree, paths: Iterable[str]) -> list[str] | None:
    """Paths, relative to the root, that ``paths`` and all links on the way need; None if that is everything.

    The last part of a path may have wildcards of ``filepath.Match``.

    Raises:
        MountError: something on the way cannot be read.
    """
    resolver = _Resolver(tree)
    for path in paths:
        resolver.add(path)
    return dedupe_paths(sorted(resolver.resolved, key=gopath.to_bytes))


class _Resolver:
    def __init__(self, tree: Tree):
        self._tree = tree
        self._excluded = PatternMatcher(tree.mount.exclude_patterns)
        self.resolved: set[str] = set()

    def add(self, path: str) -> None:
        # A list instead of recursion: a chain of links may be long.
        todo = [path]
        while todo:
            todo.extend(reversed(self._resolve(todo.pop())))

    def _resolve(self, path: str) -> list[str]:
        """Record path, or the first link in it; returns what that link leads to."""
        rest = gopath.join(".", path)
        current = "."
        while True:
            first, _, rest = rest.partition("/")
            current = gopath.join(current, first)
            targets = self._targets(current)
            if (not rest or targets) and current in self.resolved:
                return []
            if targets:
                self.resolved.add(current)
                return [gopath.join(target, rest) for target in targets]
            if not rest:
                self.resolved.add(current)
                return []

    def _targets(self, path: str) -> list[str]:
        """Where the link at path leads, or all links that match it if it has wildcards."""
        name = gopath.base(path)
        if not _has_wildcards(name):
            return self._target(path)
        directory = gopath.parent(path)
        pattern = gopath.to_bytes(name)
        targets: list[str] = []
        for entry in self._list(directory):
            try:
                if not gopath.match(pattern, entry):
                    continue
            except gopath.BadPattern:
                continue
            targets.extend(self._target(gopath.join(directory, gopath.to_str(entry))))
        return targets

    def _target(self, path: str) -> list[str]:
        if path == "." or self._is_excluded(path):
            return []
        raw = gopath.to_bytes(path)
        try:
            link = self._tree.readlink(raw)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise self._tree.unreadable(raw, error) from None
        if link is None:
            return []
        target = gopath.clean(gopath.to_str(link))
        if target.startswith("/"):
            return [target]
        return [gopath.join("/", gopath.join(gopath.parent(path), target))]

    def _list(self, directory: str) -> list[bytes]:
        if self._is_excluded(directory):
            return []
        raw = b"" if directory == "." else gopath.to_bytes(directory)
        try:
            return self._tree.list_dir(raw)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise self._tree.unreadable(raw, error) from None

    def _is_excluded(self, path: str) -> bool:
        return bool(self._excluded.patterns) and path != "." and self._excluded.matches_or_parent_matches(path)


_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def _has_wildcards(name: str) -> bool:
    escaped = False
    for char in name:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "*?[":
            return True
    return False
