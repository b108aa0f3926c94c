"""What a command of `State.run` finds in its container besides its root: mounts, secrets, agents, devices, limits.

Data only.  A mount that can be written and is not left out of the results is an output of the step, which
`ExecState.get_mount` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.llb.state import State

NetworkMode: TypeAlias = Literal["sandbox", "host", "none"]
SecurityMode: TypeAlias = Literal["sandbox", "insecure"]
CacheSharing: TypeAlias = Literal["shared", "private", "locked"]

NETWORK_MODES = {"sandbox": 0, "host": 1, "none": 2}
SECURITY_MODES = {"sandbox": 0, "insecure": 1}
CACHE_SHARING = {"shared": 0, "private": 1, "locked": 2}


def chosen(kind: str, value: str, choices: dict[str, int]) -> str:
    """``value``, if it is one of ``choices``."""
    if value not in choices:
        raise UsageError(f"{value!r} is not a {kind}", hint=f"choose one of {', '.join(choices)}")
    return value


@dataclass(frozen=True, slots=True)
class BindMount:
    """A filesystem, or a part of it, at ``target``.

    Attributes:
        target: Where it is in the container.
        source: The filesystem; None for an empty one.
        path: What of it to mount, all by default.
        readonly: It cannot be written, and is not an output.
        no_output: What is written to it is dropped.
        content_cache: Whether the step's cache looks at the contents that are mounted; None is the daemon's choice.
    """

    target: str
    source: State | None = None
    path: str = ""
    readonly: bool = False
    no_output: bool = False
    content_cache: bool | None = None


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A folder that the daemon keeps from one build to the next.

    Attributes:
        target: Where it is in the container.
        id: Its name at the daemon, ``target`` by default.
        sharing: What two steps at once do: both write (``shared``), each gets its own (``private``), or one waits.
        source: What is in it at first; None for nothing.
        path: What of the source, all by default.
        readonly: It cannot be written.
    """

    target: str
    id: str = ""
    sharing: CacheSharing = "shared"
    source: State | None = None
    path: str = ""
    readonly: bool = False
    no_output: bool = False
    content_cache: bool | None = None

    def __post_init__(self) -> None:
        chosen("way to share a cache", self.sharing, CACHE_SHARING)
        if not (self.id or self.target):
            raise UsageError("a cache mount needs a target")


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """Memory at ``target``, at most ``size`` bytes; 0 is no limit."""

    target: str
    size: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.size < 1 << 63:
            raise UsageError(f"the size of the tmpfs at {self.target} cannot be {self.size}")


@dataclass(frozen=True, slots=True)
class SecretMount:
    """A secret as a file.

    Attributes:
        id: Its name in the session.
        target: The file, ``/run/secrets/ID`` by default.
        optional: The step also runs without it.
    """

    id: str
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o400
    optional: bool = False

    def __post_init__(self) -> None:
        _check_owner(self.uid, self.gid, self.mode)


@dataclass(frozen=True, slots=True)
class SecretEnv:
    """A secret as the environment variable ``name``, by default the one that is called like the secret."""

    id: str
    name: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class SSHMount:
    """An SSH agent's socket.

    Attributes:
        id: Its name in the session; empty for ``default``.
        target: The socket; by default a path that ``SSH_AUTH_SOCK`` gets, too.
        optional: The step also runs without it.
    """

    id: str = ""
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o600
    optional: bool = False

    def __post_init__(self) -> None:
        _check_owner(self.uid, self.gid, self.mode)


Mount: TypeAlias = BindMount | CacheMount | TmpfsMount | SecretMount | SecretEnv | SSHMount
"""Everything that the keyword ``mounts`` of `State.run` takes."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device by its name in CDI, such as ``vendor.com/gpu=0``."""

    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A limit of processes, by its name in lower case, such as ``nofile``; ``hard`` is ``soft`` by default."""

    name: str
    soft: int
    hard: int | None = None


@dataclass(frozen=True, slots=True)
class ProxyEnv:
    """Proxies of a step, in its environment but not in its cache key."""

    http: str = ""
    https: str = ""
    ftp: str = ""
    no_proxy: str = ""
    all: str = ""


def _check_owner(uid: int, gid: int, mode: int) -> None:
    for kind, value in (("uid", uid), ("gid", gid), ("mode", mode)):
        if not 0 <= value < 1 << 32:
            raise UsageError(f"the {kind} {value} is out of range")
