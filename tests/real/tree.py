"""Directory trees for tests, written as a mapping."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Symlink:
    """A symbolic link with this text in it."""

    target: str


@dataclass(frozen=True)
class Hardlink:
    """Another name of a file that stands earlier in the tree (a path from the tree's root)."""

    target: str


@dataclass(frozen=True)
class File:
    """A file with a mode."""

    content: bytes | str
    mode: int = 0o644


Node = str | bytes | File | Symlink | Hardlink | None


def write_tree(root: Path, tree: Mapping[str, Node]) -> Path:
    """Write ``tree`` (path → content) under ``root`` and return ``root``.

    Text is dedented, so that a test may indent a Dockerfile with itself; None makes an empty directory.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, node in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match node:
            case None:
                path.mkdir(exist_ok=True)
            case Symlink(target):
                path.symlink_to(target)
            case Hardlink(target):
                path.hardlink_to(root / target)
            case File(content, mode):
                path.write_bytes(_as_bytes(content))
                path.chmod(mode)
            case _:
                path.write_bytes(_as_bytes(node))
    return root


def _as_bytes(content: bytes | str) -> bytes:
    return content if isinstance(content, bytes) else textwrap.dedent(content).encode()
