"""The vertices of a graph, each of which encodes itself as Go's ``client/llb`` would.

A `Vertex` knows what it needs (`Output` of other vertices) and what can be said of it (`Constraints`); `encoded` gives
its bytes once those of its inputs are known.  States and their options are made into vertices elsewhere; nothing here
is changed after it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from cogkit.buildkit.llb.constraints import Constraints, OpMetadata, encoded_platform
from cogkit.buildkit.llb.encoding import chunk, flag, number, packed, text, text_map, texts
from cogkit.buildkit.llb.file_actions import COPY, BoundActions, FileAction
from cogkit.buildkit.llb.mounts import (
    CACHE_SHARING,
    NETWORK_MODES,
    SECURITY_MODES,
    BindMount,
    CacheMount,
    Device,
    ProxyEnv,
    SecretEnv,
    SecretMount,
    SSHMount,
    TmpfsMount,
    Ulimit,
)
from cogkit.buildkit.llb.source_maps import SourceLocation
from cogkit.buildkit.platforms import Platform
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.llb.state import State

SKIP_OUTPUT: Final = -1
EMPTY_INPUT: Final = -1
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SETS_DEFAULT_PATH: Final = "exec.meta.setsdefaultpath"

_ANY_WORKER: Final = chunk(11, b"")
_PLATFORM_SOURCES: Final = ("docker-image://", "oci-layout://")


class Encoder(Protocol):
    """What a vertex may ask for while it is encoded."""

    base: Constraints
    """What `State.marshal` was told, for all vertices; its platform is set."""

    caps: frozenset[str] | None
    """What the daemon can do, if that is known."""

    def input(self, output: Output) -> bytes:
        """The encoded reference to another vertex's output."""
        ...


class Output:
    """One result of a vertex.

    Attributes:
        vertex: The vertex.
        index: Which of its results.
        platform: The platform that it is known to be for.
        error: Why it cannot be used.
    """

    __slots__ = ("error", "index", "platform", "vertex")

    def __init__(self, vertex: Vertex, index: int = 0, platform: Platform | None = None, error: str = "") -> None:
        self.vertex = vertex
        self.index = index
        self.platform = platform
        self.error = error


class Vertex:
    """A vertex.

    Attributes:
        inputs: The outputs that it needs, in the order in which a graph lists them.
        constraints: What the user said of it.
    """

    __slots__ = ("constraints", "inputs")

    def __init__(self, inputs: Sequence[Output], constraints: Constraints) -> None:
        self.inputs = tuple(inputs)
        self.constraints = constraints

    def encoded(self, encoder: Encoder) -> tuple[bytes, frozenset[str]]:
        """Its bytes, and the abilities that the daemon needs for it."""
        raise NotImplementedError

    def _op(self, encoder: Encoder, inputs: Sequence[bytes], kind: int, body: bytes, platform: bytes = b"") -> bytes:
        parts = [chunk(1, each) for each in inputs]
        parts.append(platform)
        require = encoder.base.require + self.constraints.require
        parts.append(chunk(11, texts(1, require)) if require else _ANY_WORKER)
        # Go writes the members of a oneof last, whatever their numbers.
        parts.append(chunk(kind, body))
        return b"".join(parts)


def _platform_field(encoder: Encoder, own: Platform | None) -> bytes:
    platform = own or encoder.base.platform
    assert platform is not None
    return _encoded_platform_field(platform)


@lru_cache(maxsize=64)
def _encoded_platform_field(platform: Platform) -> bytes:
    return chunk(10, encoded_platform(platform))


class SourceVertex(Vertex):
    """Something from outside: an image, a folder, a repository, a download."""

    __slots__ = ("_attrs", "_caps", "_identifier", "output")

    def __init__(
        self, identifier: str, attrs: Mapping[str, str], caps: frozenset[str], constraints: Constraints
    ) -> None:
        super().__init__((), constraints)
        self._identifier = identifier
        self._attrs = attrs
        self._caps = caps
        self.output = Output(self, platform=constraints.platform)

    def encoded(self, encoder: Encoder) -> tuple[bytes, frozenset[str]]:
        attrs, caps = self._attrs, self._caps
        if self._identifier.startswith("local://") and "local.session" not in attrs:
            attrs = {**attrs, "local.unique": self.constraints.local_unique_id or encoder.base.local_unique_id}
            caps |= {"source.local.unique"}
        platform = b""
        if self._identifier.startswith(_PLATFORM_SOURCES):
            platform = _platform_field(encoder, self.constraints.platform)
        body = text(1, self._identifier) + text_map(2, attrs)
        return self._op(encoder, (), 3, body, platform), caps


@dataclass(frozen=True, slots=True)
class ExecMeta:
    """The command and what its process is given."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: str
    hostname: str
    cgroup_parent: str
    valid_exit_codes: tuple[int, ...]
    extra_hosts: tuple[tuple[str, str], ...]
    ulimits: tuple[Ulimit, ...]
    network: str
    security: str
    proxy: ProxyEnv | None
    platform: Platform | None


@dataclass(frozen=True, slots=True)
class _Mounted:
    """A mount with its filesystem, and what it gives to others."""

    mount: BindMount | CacheMount | TmpfsMount
    source: Output | None
    index: int
    output: Output | None


class ExecVertex(Vertex):
    """A command.

    Attributes:
        root: Its root as the command left it, or as it was if it was mounted to be read only.
    """

    __slots__ = ("_devices", "_meta", "_mounts", "_secrets", "_ssh", "root")

    def __init__(
        self,
        root: Output | None,
        readonly_root: bool,
        meta: ExecMeta,
        mounts: Sequence[BindMount | CacheMount | TmpfsMount],
        secrets: Sequence[SecretMount | SecretEnv],
        ssh: Sequence[SSHMount],
        devices: Sequence[Device],
        constraints: Constraints,
    ) -> None:
        all_mounts: list[tuple[BindMount | CacheMount | TmpfsMount, Output | None]] = [
            (BindMount("/", readonly=readonly_root), root)
        ]
        all_mounts += [
            (each, None if isinstance(each, TmpfsMount) or each.source is None else each.source.output)
            for each in mounts
        ]
        written_root = all_mounts[0][0]
        # The order is that of the targets, and stays that of the call where they are equal.
        all_mounts.sort(key=lambda each: each[0].target)
        self._mounts: list[_Mounted] = []
        inputs: dict[Output, None] = {}
        count = 0
        self.root: Output | None = None
        for mount, source in all_mounts:
            if source is not None:
                inputs[source] = None
            index = SKIP_OUTPUT
            output: Output | None
            if isinstance(mount, TmpfsMount):
                output = Output(self, error=f"the tmpfs at {mount.target} has no result that could be used")
            elif mount.readonly:
                output = source
            elif mount.no_output:
                output = Output(self, error=f"the mount at {mount.target} is marked as one without a result")
            elif isinstance(mount, CacheMount):
                output = Output(
                    self, 0, constraints.platform, f"the cache at {mount.target} has no result that could be used"
                )
            else:
                index = count
                output = Output(self, index, constraints.platform)
                count += 1
            self._mounts.append(_Mounted(mount, source, index, output))
            if mount is written_root:
                self.root = output
        self._meta = meta
        self._secrets = secrets
        self._ssh = [(each, each.target or f"/run/buildkit/ssh_agent.{position}") for position, each in enumerate(ssh)]
        self._devices = devices
        super().__init__(tuple(inputs), constraints)

    def mounted(self, target: str) -> tuple[BindMount | CacheMount | TmpfsMount, Output | None] | None:
        """The first mount at ``target``, and what it gives."""
        for each in self._mounts:
            if each.mount.target == target:
                return each.mount, each.output
        return None

    def encoded(self, encoder: Encoder) -> tuple[bytes, frozenset[str]]:
        meta = self._meta
        caps = {"exec.meta.base"}
        inputs: dict[bytes, int] = {}
        mounts = []
        for each in self._mounts:
            position = EMPTY_INPUT
            if each.source is not None:
                reference = encoder.input(each.source)
                position = inputs.setdefault(reference, len(inputs))
            mounts.append(chunk(2, _encoded_mount(each, position, caps)))
        env = self._environment(encoder, caps)
        self._note_caps(caps)
        secret_env = []
        for secret in self._secrets:
            if isinstance(secret, SecretEnv):
                message = text(1, secret.id) + text(2, secret.name or secret.id) + flag(3, secret.optional)
                secret_env.append(chunk(5, message))
            else:
                opt = _secret_opt(secret.id, secret)
                target = secret.target or f"/run/secrets/{secret.id}"
                mounts.append(chunk(2, number(1, EMPTY_INPUT) + text(3, target) + number(6, 1) + chunk(21, opt)))
        for ssh, target in self._ssh:
            opt = _secret_opt(ssh.id, ssh)
            mounts.append(chunk(2, number(1, EMPTY_INPUT) + text(3, target) + number(6, 2) + chunk(22, opt)))
        body = b"".join(
            (
                chunk(1, _encoded_meta(meta, env)),
                *mounts,
                number(3, NETWORK_MODES[meta.network]),
                number(4, SECURITY_MODES[meta.security]),
                *secret_env,
                *[chunk(6, text(1, device.name) + flag(2, device.optional)) for device in self._devices],
            )
        )
        platform = _platform_field(encoder, self.constraints.platform or meta.platform)
        return self._op(encoder, tuple(inputs), 2, body, platform), frozenset(caps)

    def _environment(self, encoder: Encoder, caps: set[str]) -> Mapping[str, str]:
        env = self._meta.env
        if self._ssh and "SSH_AUTH_SOCK" not in env:
            env = {**env, "SSH_AUTH_SOCK": self._ssh[0][1]}
        if encoder.caps is not None:
            if SETS_DEFAULT_PATH in encoder.caps:
                caps.add(SETS_DEFAULT_PATH)
            elif encoder.base.platform is not None and encoder.base.platform.os != "windows" and "PATH" not in env:
                env = {**env, "PATH": DEFAULT_PATH}
        return env

    def _note_caps(self, caps: set[str]) -> None:
        meta = self._meta
        if meta.valid_exit_codes:
            caps.add("exec.validexitcode")
        if meta.ulimits:
            caps.add("exec.meta.ulimit")
        if self.constraints.resources is not None:
            caps.add("exec.meta.linux.resources")
        if meta.network != "sandbox":
            caps.add("exec.meta.network")
        if meta.security != "sandbox":
            caps.add("exec.meta.security")
        if meta.proxy is not None:
            caps.add("exec.meta.proxyenv")
        if self._secrets:
            caps.add("exec.mount.secret")
            if any(isinstance(each, SecretEnv) for each in self._secrets):
                caps.add("exec.secretenv")
        if self._ssh:
            caps.add("exec.mount.ssh")
        if self._devices:
            caps.add("exec.meta.cdi")


def _encoded_meta(meta: ExecMeta, env: Mapping[str, str]) -> bytes:
    parts = [
        texts(1, meta.args),
        texts(2, [f"{key}={value}" for key, value in env.items()]),
        text(3, meta.cwd),
        text(4, meta.user),
    ]
    if (proxy := meta.proxy) is not None:
        words = (proxy.http, proxy.https, proxy.ftp, proxy.no_proxy, proxy.all)
        parts.append(chunk(5, b"".join([text(field, word) for field, word in enumerate(words, 1)])))
    parts += [chunk(6, text(1, host) + text(2, address)) for host, address in meta.extra_hosts]
    parts.append(text(7, meta.hostname))
    for limit in meta.ulimits:
        hard = limit.soft if limit.hard is None else limit.hard
        parts.append(chunk(9, text(1, limit.name) + number(2, limit.soft) + number(3, hard)))
    parts += [text(10, meta.cgroup_parent), flag(11, True), packed(12, meta.valid_exit_codes)]
    return b"".join(parts)


def _encoded_mount(mounted: _Mounted, position: int, caps: set[str]) -> bytes:
    mount = mounted.mount
    if isinstance(mount, TmpfsMount):
        caps.add("exec.mount.tmpfs")
        if mount.size:
            caps.add("exec.mount.tmpfs.size")
        head = number(1, position) + text(3, mount.target) + number(4, SKIP_OUTPUT)
        return head + number(6, 4) + chunk(19, number(1, mount.size))
    if mount.path:
        caps.add("exec.mount.selector")
    parts = [
        number(1, position),
        text(2, mount.path),
        text(3, mount.target),
        number(4, mounted.index),
        flag(5, mount.readonly),
    ]
    if isinstance(mount, CacheMount):
        caps |= {"exec.mount.cache", "exec.mount.cache.sharing"}
        cache = text(1, mount.id or mount.target) + number(2, CACHE_SHARING[mount.sharing])
        parts += [number(6, 3), chunk(20, cache)]
    elif mounted.source is not None:
        caps.add("exec.mount.bind")
    if mount.content_cache is not None:
        caps.add("exec.mount.cache.content")
        parts.append(number(24, 1 if mount.content_cache else 2))
    return b"".join(parts)


def _secret_opt(name: str, secret: SecretMount | SSHMount) -> bytes:
    return b"".join(
        (
            text(1, name),
            number(2, secret.uid),
            number(3, secret.gid),
            number(4, secret.mode),
            flag(5, secret.optional),
        )
    )


class FileVertex(Vertex):
    """A chain of file actions."""

    __slots__ = ("_action", "_state", "output")

    def __init__(self, state: State, action: FileAction, constraints: Constraints) -> None:
        inputs: dict[Output, None] = {}
        _collect_outputs(action, state, inputs)
        super().__init__(tuple(inputs), constraints)
        self._state = state
        self._action = action
        self.output = Output(self)

    def encoded(self, encoder: Encoder) -> tuple[bytes, frozenset[str]]:
        chain = _FileChain(encoder)
        chain.add(self._action, self._state)
        count = len(chain.inputs)
        actions = []
        for position, step in enumerate(chain.steps):
            source = step.action.source
            source_folder = "/"
            if source is not None:
                source_folder = (source.state if isinstance(source, BoundActions) else source).working_dir
            message = b"".join(
                (
                    number(1, step.input if step.after is None else count + step.after),
                    number(2, step.second if step.second_after is None else count + step.second_after),
                    number(3, 0 if position + 1 == len(chain.steps) else SKIP_OUTPUT),
                    chunk(step.action.kind, step.action.encoded(step.state.working_dir, source_folder, step.base)),
                )
            )
            actions.append(chunk(2, message))
        # A file vertex is of no platform, and asks for no ability but the first whatever its actions: so does Go.
        return self._op(encoder, tuple(chain.inputs), 4, b"".join(actions)), frozenset({"file.base"})


def _collect_outputs(action: FileAction, state: State, found: dict[Output, None]) -> None:
    """All filesystems that a chain needs, its last action first."""
    for each in reversed(action.actions()):
        if state.output is not None:
            found[state.output] = None
        if isinstance(each.source, BoundActions):
            _collect_outputs(each.source.action, each.source.state, found)
        elif each.source is not None and each.source.output is not None:
            found[each.source.output] = None


@dataclass(frozen=True, slots=True)
class _FileStep:
    """An action in its place: its inputs are references, or (``after``) results of the actions before it."""

    action: FileAction
    state: State
    base: int
    input: int
    after: int | None
    second: int
    second_after: int | None


class _FileChain:
    def __init__(self, encoder: Encoder) -> None:
        self.inputs: dict[bytes, int] = {}
        self.steps: list[_FileStep] = []
        self._encoder = encoder
        self._added: dict[int, int] = {}

    def add(self, action: FileAction, state: State) -> int:
        """Put a chain behind what is there; gives the place of its last action."""
        place: int | None = None
        for each in action.actions():
            base = self._position(state.output)
            second, second_after = EMPTY_INPUT, None
            if isinstance(each.source, BoundActions):
                known = self._added.get(id(each.source))
                if known is None:
                    known = self._added[id(each.source)] = self.add(each.source.action, each.source.state)
                second_after = known
            elif each.kind == COPY and each.source is not None:
                second = self._position(each.source.output)
            self.steps.append(_FileStep(each, state, base, base, place, second, second_after))
            place = len(self.steps) - 1
        assert place is not None
        return place

    def _position(self, output: Output | None) -> int:
        if output is None:
            return EMPTY_INPUT
        return self.inputs.setdefault(self._encoder.input(output), len(self.inputs))


class KnownVertex(Vertex):
    """A vertex of a graph that was marshalled before: its bytes and metadata stay what they are.

    Attributes:
        metadata: What was said of it.
    """

    __slots__ = ("_data", "metadata")

    def __init__(
        self, data: bytes, metadata: OpMetadata, locations: tuple[SourceLocation, ...], inputs: Sequence[Output]
    ) -> None:
        super().__init__(inputs, Constraints(locations=locations))
        self._data = data
        self.metadata = metadata

    def encoded(self, encoder: Encoder) -> tuple[bytes, frozenset[str]]:
        return self._data, frozenset()


class MergeVertex(Vertex):
    """Several filesystems on top of each other."""

    __slots__ = ("output",)

    def __init__(self, inputs: Sequence[Output], constraints: Constraints) -> None:
        super().__init__(inputs, constraints)
        self.output = Output(self)

    def encoded(self, encoder: Encoder) -> tuple[bytes, frozenset[str]]:
        body = b"".join([chunk(1, number(1, position)) for position in range(len(self.inputs))])
        inputs = [encoder.input(each) for each in self.inputs]
        return self._op(encoder, inputs, 6, body), frozenset({"mergeop"})


class DiffVertex(Vertex):
    """What ``upper`` has and ``lower`` has not."""

    __slots__ = ("_lower", "_upper", "output")

    def __init__(self, lower: Output | None, upper: Output | None, constraints: Constraints) -> None:
        super().__init__([each for each in (lower, upper) if each is not None], constraints)
        self._lower = lower
        self._upper = upper
        self.output = Output(self)

    def encoded(self, encoder: Encoder) -> tuple[bytes, frozenset[str]]:
        inputs: list[bytes] = []
        body = b""
        for field, output in ((1, self._lower), (2, self._upper)):
            body += chunk(field, number(1, EMPTY_INPUT if output is None else len(inputs)))
            if output is not None:
                inputs.append(encoder.input(output))
        return self._op(encoder, inputs, 7, body), frozenset({"diffop"})


class PassthroughVertex(Vertex):
    """The first input as it is, once all others are there."""

    __slots__ = ("_name", "output")

    def __init__(self, name: str, inputs: Sequence[Output], constraints: Constraints) -> None:
        super().__init__(inputs, constraints)
        self._name = name
        self.output = Output(self)

    def encoded(self, encoder: Encoder) -> tuple[bytes, frozenset[str]]:
        inputs = [encoder.input(each) for each in self.inputs]
        body = text(1, self._name) + packed(2, (0,))
        return self._op(encoder, inputs, 8, body), frozenset({"passthroughop"})


def file_vertex(state: State, action: FileAction, constraints: Constraints) -> FileVertex:
    if not action.actions():
        raise UsageError("a chain of file actions is empty")
    return FileVertex(state, action, constraints)
