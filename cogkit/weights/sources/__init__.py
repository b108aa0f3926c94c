"""Where weights come from: a folder, a model of Hugging Face, a file of the web; one file for each kind.

A source lists what it has, with digests, and puts its files into the store.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Protocol

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.weights.inventory import FileFilter, Inventory, InventoryFile
from cogkit.weights.store import WeightStore
from cogkit.weights.transfer import Progress, Silent

SCHEMES = "file://, hf://, https://, http:// or a path"


@dataclass(frozen=True, slots=True)
class Intake:
    """What a source is asked for.

    Attributes:
        wanted: Which files will be taken.
        store: Where they go when they are read anyway to learn their digests; None to learn only.
        known: Digests from an earlier import, by path and size; a hint for what need not be copied again.
        progress: Hears of bytes.
        stop: When it is set, everything ends.
        workers: How many files at once.
    """

    wanted: FileFilter = FileFilter()
    store: WeightStore | None = None
    known: Mapping[tuple[str, int], str] = field(default_factory=dict)
    progress: Progress = field(default_factory=Silent)
    stop: threading.Event = field(default_factory=threading.Event)
    workers: int = 4


class Source(Protocol):
    """One source of a weight."""

    def inventory(self, intake: Intake) -> Inventory:
        """All that it has, also what is not wanted.

        Raises:
            CogkitError: it cannot be read.
        """
        ...

    def fetch(self, files: Sequence[InventoryFile], intake: Intake) -> None:
        """Put files that `inventory` gave into the store.

        Raises:
            CogkitError: it cannot be read, or one of the files is not what it was.
        """
        ...


def open_source(uri: str, project_dir: Path) -> Source:
    """The source of a URI; ``uri`` as ``cog.yaml`` has it.

    Raises:
        ConfigError: it cannot be one.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme == "file":
        from cogkit.weights.sources.folder import FolderSource

        return FolderSource(uri.removeprefix("file://"), project_dir)
    if scheme in ("hf", "huggingface"):
        from cogkit.weights.sources.huggingface import HuggingFaceSource

        return HuggingFaceSource(uri)
    if scheme in ("https", "http"):
        from cogkit.weights.sources.web import WebSource

        return WebSource(uri)
    raise ConfigError(f"unsupported weight source scheme {scheme!r} in {uri!r}", hint=f"use {SCHEMES}")
