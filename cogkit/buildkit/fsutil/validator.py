"""What a tree that somebody else describes may look like before any of it is believed.

A sender of the file-sync protocol names paths, types and link targets; the receiver writes to disk what it names.
Everything that makes a description dangerous or senseless is refused here, one entry at a time, in the order they
arrive: this file is the first of the two walls around the destination (the second is `diskwriter`, which trusts no
name either).  It is pure: no disk, no sockets, no packets.

The rules are those of fsutil's ``validator.go`` and ``hardlinks.go``, plus these of our own: NUL bytes, sizes,
lengths, type bits that contradict each other, and names that are never to be written (``.git``).
"""

from __future__ import annotations

from enum import Enum

from cogkit.buildkit.fsutil.stat import (
    MODE_CHAR_DEVICE,
    MODE_DEVICE,
    MODE_DIR,
    MODE_NAMED_PIPE,
    MODE_SYMLINK,
    MODE_TYPE,
    Stat,
)
from cogkit.errors import OutputError

MAX_PATH = 4096
"""Bytes of a path, as PATH_MAX of Linux has it; a sender that walks a real disk cannot see a longer one."""

MAX_NAME = 255
"""Bytes of one component, the NAME_MAX of every file system in use."""

MAX_ENTRIES = 1 << 22
"""Entries of one tree.  Each costs memory (the paths that hard links may name), so there has to be an end."""


MAX_KEPT = 1 << 30
"""Bytes of memory that the paths of one tree's files take, about: hard links may name any of them."""

_PATH_COST = 100
"""Bytes that a kept path takes beside its own."""


class RefusedTreeError(OutputError):
    """The builder described a tree that must not or cannot be written; nothing of the bad entry was."""


class Kind(Enum):
    """The kinds of entries that a tree may hold."""

    DIRECTORY = "directory"
    FILE = "file"
    HARDLINK = "hard link"
    SYMLINK = "symbolic link"
    FIFO = "named pipe"
    DEVICE = "device node"


_KINDS = {
    0: Kind.FILE,
    MODE_DIR: Kind.DIRECTORY,
    MODE_SYMLINK: Kind.SYMLINK,
    MODE_NAMED_PIPE: Kind.FIFO,
    MODE_DEVICE: Kind.DEVICE,
    MODE_DEVICE | MODE_CHAR_DEVICE: Kind.DEVICE,
}


def printable(path: bytes) -> str:
    """A path of the other side as text that is safe in a terminal and of bounded length."""
    text = path.decode("utf-8", "backslashreplace")
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return safe if len(safe) <= 300 else f"{safe[:150]}…{safe[-149:]}"


def kind_of(stat: Stat) -> Kind:
    """The kind of an entry by its type bits (Go's ``os.FileMode``) and link name.

    Raises:
        RefusedTreeError: a combination that no file has (a directory that is a link, a socket, …).
    """
    kind = _KINDS.get(stat.mode & MODE_TYPE)
    if kind is None:
        raise RefusedTreeError(
            f"the builder sent '{printable(stat.path)}' with the impossible file type bits {stat.mode & MODE_TYPE:#x}"
        )
    return Kind.HARDLINK if kind is Kind.FILE and stat.linkname else kind


class TreeValidator:
    """Accepts the entries of one tree in walk order, or raises at the first that breaks a rule.

    Args:
        refused_names: Components (lower case, compared without regard to ASCII case) that no path may have.
        max_entries: How many entries one tree may have.
    """

    def __init__(self, *, refused_names: frozenset[bytes] = frozenset(), max_entries: int = MAX_ENTRIES):
        self._refused_names = refused_names
        self._max_entries = max_entries
        self._entries = 0
        self._open_dirs: list[tuple[bytes, bytes]] = [(b"", b"")]
        """From the root down to where the walk is: (directory, the last name seen in it)."""
        self._files: set[bytes] = set()
        self._kept = 0

    def check(self, stat: Stat) -> Kind:
        """Accept the next entry and say what it is.

        Raises:
            RefusedTreeError: the entry breaks a rule; the tree must be given up.
        """
        self._entries += 1
        if self._entries > self._max_entries:
            raise RefusedTreeError(f"the builder sent a tree of more than {self._max_entries:,} entries")
        path = stat.path
        self._check_path(path)
        kind = kind_of(stat)
        self._check_order(path, kind)
        if stat.size < 0:
            raise RefusedTreeError(f"the builder sent '{printable(path)}' with the negative size {stat.size}")
        if kind is Kind.FILE:
            self._files.add(path)
            self._kept += len(path) + _PATH_COST
            if self._kept > MAX_KEPT:
                raise RefusedTreeError("the builder sent a tree with more and longer paths than can be kept in mind")
        elif kind is Kind.HARDLINK:
            if stat.linkname not in self._files:
                raise RefusedTreeError(
                    f"the builder sent '{printable(path)}' as a hard link to '{printable(stat.linkname)}', "
                    "which is not a regular file of this tree that came before it"
                )
        elif kind is Kind.SYMLINK:
            self._check_link_target(path, stat.linkname)
        return kind

    def _check_path(self, path: bytes) -> None:
        if not path:
            raise RefusedTreeError("the builder sent an empty path")
        if len(path) > MAX_PATH:
            raise _bad_path(path, f"is longer than {MAX_PATH} bytes")
        if b"\0" in path:
            raise _bad_path(path, "has a NUL byte in it")
        if path.startswith(b"/"):
            raise _bad_path(path, "is absolute")
        for name in path.split(b"/"):
            if name == b"..":
                raise _bad_path(path, "leads out of the destination")
            if name in (b"", b"."):
                raise _bad_path(path, "is not in its shortest form")
            if len(name) > MAX_NAME:
                raise _bad_path(path, f"has a name longer than {MAX_NAME} bytes")
            if name.lower() in self._refused_names:
                raise _refused_name(path, name)

    def _check_order(self, path: bytes, kind: Kind) -> None:
        """Walk order makes a path unique and its parent a directory of this tree, never a link or an older entry."""
        directory, _, name = path.rpartition(b"/")
        dirs = self._open_dirs
        depth = len(dirs) - 1
        while depth >= 0 and dirs[depth][0] != directory:
            depth -= 1
        if depth < 0:
            raise RefusedTreeError(
                f"the builder sent '{printable(path)}' out of order: '{printable(directory)}' is not a directory "
                "whose entries can follow here"
            )
        last = dirs[depth][1]
        if name <= last:
            raise RefusedTreeError(
                f"the builder sent '{printable(path)}' out of order: it comes twice or after '{printable(last)}'"
            )
        del dirs[depth:]
        dirs.append((directory, name))
        if kind is Kind.DIRECTORY:
            dirs.append((path, b""))

    @staticmethod
    def _check_link_target(path: bytes, target: bytes) -> None:
        """A symbolic link's target is only data: it is stored as it is and never followed, so it may point anywhere."""
        if not target or b"\0" in target or len(target) >= MAX_PATH:
            raise RefusedTreeError(
                f"the builder sent the symbolic link '{printable(path)}' with a target that no link can have: "
                f"'{printable(target)}'"
            )


def _bad_path(path: bytes, why: str) -> RefusedTreeError:
    return RefusedTreeError(f"the builder sent the path '{printable(path)}', which {why}")


def _refused_name(path: bytes, name: bytes) -> RefusedTreeError:
    shown = f"the builder sent the path '{printable(path)}', and '{printable(name)}' is not"
    if name.lower() != b".git":
        return RefusedTreeError(f"{shown} to be written here")
    return RefusedTreeError(
        f"{shown} written: it could plant hooks or settings that git runs",
        hint="leave it out of the build's result, or add allow-git=true to the output if you trust it",
    )
