"""What a builder is, as the user's list of builders has it: data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.connect.address import TlsConfig

PRIVATE = "private"
"""The name of the builder that cogkit starts itself."""

DEFAULT = "default"
"""The name that stands for no choice: the usual sockets, a Docker engine, or the private builder."""

RESERVED_NAMES = (PRIVATE, DEFAULT)


@dataclass(frozen=True, slots=True)
class Node:
    """One daemon of a builder.

    Attributes:
        name: Unique in its builder; what the node's place in a farm depends on.
        address: As for ``BUILDKIT_HOST``.
        tls: Files for getting there.
        platforms: Those that it builds natively, ``os/arch[/variant]``; empty for those that it says itself.
        labels: What it is or has, to choose nodes by.
        weight: Its share of the builds, beside those of the other nodes.
        max_builds: Builds side by side at which it counts as full; None for no limit.
    """

    name: str
    address: str
    tls: TlsConfig | None = None
    platforms: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    max_builds: int | None = None


@dataclass(frozen=True, slots=True)
class Builder:
    """A builder of the list: one node, or a farm of several.

    Attributes:
        cache: Repository in a registry that builds read their cache from and write it to; None for none.
        answer_seconds: How long one of several nodes may take to answer before it is passed over.
    """

    name: str
    nodes: tuple[Node, ...]
    cache: str | None = None
    answer_seconds: float = 2.0

    @property
    def is_farm(self) -> bool:
        """Whether a node has to be chosen, or what the farm says of all builds holds."""
        return len(self.nodes) > 1 or self.cache is not None


@dataclass(frozen=True, slots=True)
class PrivateSettings:
    """How the private builder runs.

    Attributes:
        idle_seconds: It ends after so long without a client.
        max_used_space: What its cache may take of the disk: bytes (``30GB``) or a share of the disk (``20%``).
        min_free_space: What it leaves free of the disk, in the same form.
    """

    idle_seconds: float = 1800.0
    max_used_space: str = "30GB"
    min_free_space: str = "10%"


@dataclass(frozen=True, slots=True)
class Builders:
    """The user's list of builders.

    Attributes:
        builders: By their names.
        current: The chosen one; None for none.
        private: Settings of the private builder.
    """

    builders: Mapping[str, Builder] = field(default_factory=dict)
    current: str | None = None
    private: PrivateSettings = PrivateSettings()
