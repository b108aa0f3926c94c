"""What can be said of any vertex: its platform, its workers, and the metadata that travels beside the graph.

`ConstraintOptions` are the keywords that all functions of this package share; `Constraints` is what they make.
`OpMetadata` is a vertex's metadata in a `Definition`.  Metadata changes no digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, TypedDict

from cogkit.buildkit.llb.encoding import chunk, flag, flag_map, number, text, text_map, texts
from cogkit.buildkit.llb.source_maps import SourceLocation
from cogkit.buildkit.platforms import Platform
from cogkit.buildkit.status import ProgressGroup
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

CUSTOM_NAME: Final = "llb.customname"

_MAX = {"memory": 1 << 63, "memory_swap": 1 << 63, "cpu_shares": 1 << 64, "cpu_period": 1 << 64, "cpu_quota": 1 << 63}


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """Limits of a step's cgroup; 0 and empty are no limit.  They do not change what is cached.

    Attributes:
        memory: Bytes.
        memory_swap: Bytes of memory and swap together; -1 is no limit.
        cpu_shares: Weight beside other containers.
        cpu_period: Microseconds of the scheduler's period.
        cpu_quota: Microseconds of it that may be used.
        cpuset_cpus: Processors, such as ``0-3,8``.
        cpuset_mems: Memory nodes.
    """

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""

    def __post_init__(self) -> None:
        for name, limit in _MAX.items():
            value = getattr(self, name)
            if not (-limit if limit == 1 << 63 else 0) <= value < limit:
                raise UsageError(f"{name} cannot be {value}")

    def encoded(self) -> bytes:
        return b"".join(
            (
                number(1, self.memory),
                number(2, self.memory_swap),
                number(3, self.cpu_shares),
                number(4, self.cpu_period),
                number(5, self.cpu_quota),
                text(6, self.cpuset_cpus),
                text(7, self.cpuset_mems),
            )
        )


class ConstraintOptions(TypedDict, total=False):
    """Keywords that every function which makes a vertex takes, and `State.marshal` for all vertices.

    Attributes:
        name: How the step is called in the progress.
        description: Any other texts about it, by keys.
        ignore_cache: Run the step even if its result is in the cache.
        export_cache: Whether its result goes to exported caches; unset, the export decides.
        platform: What it runs on or is fetched for, such as ``linux/arm64``.
        require: Filters that its worker must meet, in containerd's syntax.
        progress_group: The group that it is shown in.
        resources: Limits of its cgroup.
        locations: Where in source files it comes from, for error messages.
        local_unique_id: Of `local`: what keeps apart the folders of different clients; random by default.
    """

    name: str
    description: Mapping[str, str]
    ignore_cache: bool
    export_cache: bool | None
    platform: Platform | str
    require: Sequence[str]
    progress_group: ProgressGroup
    resources: LinuxResources
    locations: Sequence[SourceLocation]
    local_unique_id: str


_OPTIONS = frozenset(ConstraintOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class Constraints:
    """`ConstraintOptions`, checked."""

    platform: Platform | None = None
    require: tuple[str, ...] = ()
    ignore_cache: bool = False
    description: Mapping[str, str] | None = None
    export_cache: bool | None = None
    progress_group: ProgressGroup | None = None
    resources: LinuxResources | None = None
    locations: tuple[SourceLocation, ...] = ()
    local_unique_id: str = ""


NONE: Final = Constraints()


def constraints_of(options: ConstraintOptions) -> Constraints:
    """Raises `TypeError` for a keyword that is none, as any function does."""
    if not options:
        return NONE
    if unknown := options.keys() - _OPTIONS:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    platform = options.get("platform")
    description = options.get("description")
    name = options.get("name", "")
    if name:
        description = {**(description or {}), CUSTOM_NAME: name}
    require = options.get("require", ())
    if isinstance(require, str):
        raise UsageError("require takes a list of filters, not one text")
    return Constraints(
        Platform.parse(platform) if isinstance(platform, str) else platform,
        tuple(require),
        options.get("ignore_cache", False),
        description,
        options.get("export_cache"),
        options.get("progress_group"),
        options.get("resources"),
        tuple(options.get("locations", ())),
        options.get("local_unique_id", ""),
    )


@dataclass(frozen=True, slots=True)
class OpMetadata:
    """What is said of one vertex beside the graph.

    Attributes:
        caps: Abilities that the daemon must have for it (BuildKit ``solver/pb/caps.go``).
    """

    ignore_cache: bool = False
    description: Mapping[str, str] | None = None
    export_cache: bool | None = None
    caps: Mapping[str, bool] | None = None
    progress_group: ProgressGroup | None = None
    resources: LinuxResources | None = None

    def merged(self, later: OpMetadata) -> OpMetadata:
        """Both; where there can be one only, that of ``later``."""
        return OpMetadata(
            self.ignore_cache or later.ignore_cache,
            {**(self.description or {}), **later.description} if later.description else self.description,
            self.export_cache if later.export_cache is None else later.export_cache,
            {**(self.caps or {}), **dict.fromkeys(later.caps, True)} if later.caps else self.caps,
            later.progress_group or self.progress_group,
            later.resources or self.resources,
        )

    def encoded(self) -> bytes:
        parts = [flag(1, self.ignore_cache)]
        if self.description:
            parts.append(text_map(2, self.description))
        if self.export_cache is not None:
            parts.append(chunk(4, flag(1, self.export_cache)))
        if self.caps:
            parts.append(_encoded_caps(tuple(self.caps.items())))
        if (group := self.progress_group) is not None:
            parts.append(chunk(6, text(1, group.id) + text(2, group.name) + flag(3, group.weak)))
        if self.resources is not None:
            parts.append(chunk(7, self.resources.encoded()))
        return b"".join(parts)


@lru_cache(maxsize=256)
def _encoded_caps(caps: tuple[tuple[str, bool], ...]) -> bytes:
    # The vertices of a graph need few different sets.
    return flag_map(5, dict(caps))


def encoded_platform(platform: Platform) -> bytes:
    return b"".join(
        (
            text(1, platform.architecture),
            text(2, platform.os),
            text(3, platform.variant),
            text(4, platform.os_version),
            texts(5, platform.os_features),
        )
    )
