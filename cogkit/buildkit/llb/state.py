"""`State`: a filesystem that a build would make, and what commands run on it would find around them.

States are immutable, and each method gives another one.  Nothing runs before a daemon gets the `Definition` that
`State.marshal` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Unpack

from cogkit.buildkit.fsutil.gopath import join
from cogkit.buildkit.llb.constraints import NONE, ConstraintOptions, constraints_of
from cogkit.buildkit.llb.mounts import (
    NETWORK_MODES,
    SECURITY_MODES,
    Device,
    Mount,
    NetworkMode,
    ProxyEnv,
    SecretEnv,
    SecretMount,
    SecurityMode,
    SSHMount,
    TmpfsMount,
    Ulimit,
    chosen,
)
from cogkit.buildkit.llb.vertices import (
    DiffVertex,
    ExecMeta,
    ExecVertex,
    MergeVertex,
    Output,
    PassthroughVertex,
    file_vertex,
)
from cogkit.buildkit.llb.words import split_words
from cogkit.buildkit.platforms import Platform
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from cogkit.buildkit.llb.definition import Definition
    from cogkit.buildkit.llb.file_actions import FileAction


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What commands find, besides files."""

    working_dir: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    hostname: str = ""
    cgroup_parent: str = ""
    extra_hosts: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    network: NetworkMode = "sandbox"
    security: SecurityMode = "sandbox"
    platform: Platform | None = None


_PLAIN = _Surroundings()


class State:
    """A filesystem to be.

    Made by `image`, `local`, `git`, `http`, `oci_layout` and `scratch`, and by the methods of other states.
    """

    __slots__ = ("_output", "_surroundings")

    def __init__(self, output: Output | None, surroundings: _Surroundings = _PLAIN) -> None:
        """Not for callers of the library."""
        if output is not None and output.platform is not None:
            surroundings = replace(surroundings, platform=output.platform.normalized())
        self._output = output
        self._surroundings = surroundings

    # ---- running commands

    def run(
        self,
        command: str | Sequence[str],
        *,
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        dir: str | None = None,
        user: str | None = None,
        hostname: str | None = None,
        network: NetworkMode | None = None,
        security: SecurityMode | None = None,
        devices: Sequence[Device | str] = (),
        extra_hosts: Mapping[str, str | IPv4Address | IPv6Address] | None = None,
        ulimits: Sequence[Ulimit] = (),
        cgroup_parent: str | None = None,
        proxy: ProxyEnv | None = None,
        readonly_root: bool = False,
        valid_exit_codes: Sequence[int] = (),
        **constraints: Unpack[ConstraintOptions],
    ) -> ExecState:
        """Run a command in a container whose root is this filesystem.

        What is set here is for this command alone; the methods of the same names set it for all that follow.

        Args:
            command: The program and its arguments; one text is split at spaces, with quotes as in a shell.  No shell
                runs: for one, say ``["sh", "-c", "…"]``.
            mounts: `BindMount`, `CacheMount`, `TmpfsMount`, `SecretMount`, `SecretEnv`, `SSHMount`.
            env: Variables to add to the environment.
            dir: Working folder.
            user: ``USER[:GROUP]``, names or numbers.
            hostname: The container's name.
            network: ``host`` takes the entitlement ``network.host``.
            security: ``insecure`` takes the entitlement ``security.insecure``.
            devices: CDI devices.
            extra_hosts: Addresses by names, for ``/etc/hosts``.
            ulimits: Limits of its processes.
            cgroup_parent: The cgroup above the container's.
            proxy: Proxies, in the environment but not in the cache key.
            readonly_root: The root cannot be written; the result is then this filesystem itself.
            valid_exit_codes: Those that are a success, only 0 if empty.
            **constraints: See `ConstraintOptions`.

        Raises:
            UsageError: one of these makes no sense.
        """
        args = split_words(command) if isinstance(command, str) else tuple(command)
        if not args:
            raise UsageError("there is no command to run")
        if any(not -(1 << 31) <= code < 1 << 31 for code in valid_exit_codes):
            raise UsageError(f"exit codes are numbers of 32 bits: {list(valid_exit_codes)}")
        state: State = self
        for key, value in (env or {}).items():
            state = state.add_env(key, value)
        if dir is not None:
            state = state.dir(dir)
        for host, address in (extra_hosts or {}).items():
            state = state.add_extra_host(host, address)
        for limit in ulimits:
            state = state.add_ulimit(limit.name, limit.soft, limit.hard)
        around = state._surroundings
        meta = ExecMeta(
            args,
            around.env,
            around.working_dir,
            around.user if user is None else user,
            around.hostname if hostname is None else hostname,
            around.cgroup_parent if cgroup_parent is None else cgroup_parent,
            tuple(valid_exit_codes),
            around.extra_hosts,
            around.ulimits,
            around.network if network is None else chosen("network mode", network, NETWORK_MODES),
            around.security if security is None else chosen("security mode", security, SECURITY_MODES),
            proxy,
            around.platform,
        )
        vertex = ExecVertex(
            self._output,
            readonly_root,
            meta,
            [each for each in mounts if not isinstance(each, SecretMount | SecretEnv | SSHMount)],
            [each for each in mounts if isinstance(each, SecretMount | SecretEnv)],
            [each for each in mounts if isinstance(each, SSHMount)],
            [Device(each) if isinstance(each, str) else each for each in devices],
            constraints_of(constraints),
        )
        return ExecState(vertex, self._surroundings)

    # ---- files

    def file(self, action: FileAction, **constraints: Unpack[ConstraintOptions]) -> State:
        """Change files: ``state.file(llb.mkdir("/a").copy(other, "/b", "/a/b"))``.  No container runs."""
        return self._with_output(file_vertex(self, action, constraints_of(constraints)).output)

    # ---- what commands find

    def add_env(self, key: str, value: str) -> State:
        """Set an environment variable; it becomes the last one."""
        if not key or "=" in key:
            raise UsageError(f"{key!r} cannot be the name of an environment variable")
        env = dict(self._surroundings.env)
        env.pop(key, None)
        env[key] = value
        return self._with(env=env)

    def dir(self, path: str) -> State:
        """Set the working folder, below the present one if ``path`` is not absolute."""
        return self._with(working_dir=path if path.startswith("/") else join(self.working_dir or "/", path))

    def user(self, name: str) -> State:
        """Set the user, ``USER[:GROUP]``."""
        return self._with(user=name)

    def hostname(self, name: str) -> State:
        """Set the name of containers."""
        return self._with(hostname=name)

    def platform(self, platform: Platform | str) -> State:
        """Set the platform that commands run on."""
        chosen_one = Platform.parse(platform) if isinstance(platform, str) else platform
        return self._with(platform=chosen_one.normalized())

    def network(self, mode: NetworkMode) -> State:
        """Set the network of containers."""
        return self._with(network=chosen("network mode", mode, NETWORK_MODES))

    def security(self, mode: SecurityMode) -> State:
        """Set what containers are allowed to do."""
        return self._with(security=chosen("security mode", mode, SECURITY_MODES))

    def add_extra_host(self, name: str, address: str | IPv4Address | IPv6Address) -> State:
        """Add a line to ``/etc/hosts`` of containers."""
        return self._with(extra_hosts=(*self._surroundings.extra_hosts, (name, _address(address))))

    def add_ulimit(self, name: str, soft: int, hard: int | None = None) -> State:
        """Limit the processes of containers, see `Ulimit`."""
        limit = Ulimit(name, soft, soft if hard is None else hard)
        if not all(-(1 << 63) <= each < 1 << 63 for each in (limit.soft, limit.hard or 0)):
            raise UsageError(f"the limit {name} is out of range")
        return self._with(ulimits=(*self._surroundings.ulimits, limit))

    def cgroup_parent(self, path: str) -> State:
        """Set the cgroup above those of containers."""
        return self._with(cgroup_parent=path)

    def with_image_config(self, config: bytes | str | Mapping[str, Any]) -> State:
        """Take over environment, working folder and platform of an image's config (OCI's JSON).

        `image` does not look at an image's config: a daemon finds it, `Gateway.resolve_image_config`.
        """
        image = _image_config(config)
        inner = image.get("config") or {}
        state: State = self
        for line in inner.get("Env") or ():
            key, _, value = str(line).partition("=")
            if key:
                state = state.add_env(key, value)
        state = state.dir(str(inner.get("WorkingDir") or ""))
        if image.get("architecture") and image.get("os"):
            platform = Platform(
                str(image["os"]),
                str(image["architecture"]),
                str(image.get("variant") or ""),
                str(image.get("os.version") or ""),
                tuple(image.get("os.features") or ()),
            )
            state = state.platform(platform)
        return state

    def reset(self, other: State) -> State:
        """This filesystem with the surroundings of another state, in the folder ``/``."""
        if self._output is not None and self._output.platform is not None:
            return State(self._output, other._surroundings)
        return State(self._output, replace(other._surroundings, working_dir="/"))

    def with_(self, *changes: Callable[[State], State]) -> State:
        """Apply functions that make a state of a state, one after the other."""
        state: State = self
        for change in changes:
            state = change(state)
        return state

    # ---- the graph

    def requires(self, name: str, *others: State) -> State:
        """This filesystem, once ``others`` were built; ``name`` tells one such condition from another.

        Needs BuildKit 0.31 or newer.
        """
        if not others:
            return self
        if not name:
            raise UsageError("requires() needs a name for the condition")
        if self._output is None:
            raise UsageError("an empty filesystem cannot require anything")
        inputs = [each.output for each in (self, *others) if each.output is not None]
        return self._with_output(PassthroughVertex(name, inputs, NONE).output)

    def marshal(self, *, caps: Collection[str] | None = None, **constraints: Unpack[ConstraintOptions]) -> Definition:
        """The graph up to this state, as daemons take it.

        The bytes are those of Go's ``client/llb``, and the same every time, if there is no `local` source or
        ``local_unique_id`` is given.

        Args:
            caps: What the daemon can do, if known; old ones are then told the ``PATH`` that new ones know.
            **constraints: For all vertices, where they say nothing else themselves.

        Raises:
            UsageError: a state that is used has no filesystem, or a text is not UTF-8.
        """
        from cogkit.buildkit.llb.marshalling import marshal

        return marshal(self, constraints_of(constraints), None if caps is None else frozenset(caps))

    def __bytes__(self) -> bytes:
        """The bytes of `marshal`: a `SolveRequest` takes a state as its definition, and marshals it when it is sent."""
        return self.marshal().to_bytes()

    @property
    def output(self) -> Output | None:
        """The vertex that makes it; None for an empty filesystem."""
        return self._output

    @property
    def working_dir(self) -> str:
        """Working folder of commands."""
        return self._surroundings.working_dir

    @property
    def env(self) -> Mapping[str, str]:
        """Environment of commands."""
        return dict(self._surroundings.env)

    def _with(self, **changes: Any) -> State:
        made = State(None, replace(self._surroundings, **changes))
        made._output = self._output
        return made

    def _with_output(self, output: Output | None) -> State:
        return State(output, self._surroundings)


class ExecState(State):
    """The root filesystem after a command, and its other results."""

    __slots__ = ("_vertex",)

    def __init__(self, vertex: ExecVertex, surroundings: _Surroundings) -> None:
        """Not for callers of the library."""
        super().__init__(vertex.root, surroundings)
        self._vertex = vertex

    @property
    def root(self) -> State:
        """The root filesystem alone."""
        return State(self._output, self._surroundings)

    def get_mount(self, target: str, *, keep_source: bool = False) -> State:
        """What the command left in the mount at ``target``.

        Args:
            target: As the mount has it.
            keep_source: Keep environment, folder and the like of the state that was mounted, as ``AddMount`` of Go's
                library does; ``GetMount`` drops them.

        Raises:
            UsageError: nothing was mounted there.
        """
        found = self._vertex.mounted(target)
        if found is None:
            raise UsageError(f"nothing is mounted at {target}")
        mount, output = found
        if keep_source and not isinstance(mount, TmpfsMount) and mount.source is not None:
            return mount.source._with_output(output)
        return State(output)


def merge(inputs: Sequence[State], **constraints: Unpack[ConstraintOptions]) -> State:
    """Put filesystems on top of each other, the last one topmost, without copying.

    Empty ones count for nothing.  What surrounds commands comes from the first.
    """
    checked = constraints_of(constraints)
    states = [each for each in inputs if each.output is not None]
    if len(states) < 2:
        return states[0] if states else State(None)
    outputs = [each.output for each in states if each.output is not None]
    return states[0]._with_output(MergeVertex(outputs, checked).output)


def diff(lower: State, upper: State, **constraints: Unpack[ConstraintOptions]) -> State:
    """What changed from ``lower`` to ``upper``, to be put on something else by `merge`."""
    checked = constraints_of(constraints)
    if lower.output is None:
        return State(None) if upper.output is None else upper
    return lower._with_output(DiffVertex(lower.output, upper.output, checked).output)


def _address(address: str | IPv4Address | IPv6Address) -> str:
    from ipaddress import IPv6Address, ip_address

    try:
        parsed = ip_address(address)
    except ValueError as error:
        raise UsageError(f"{address!r} is not an IP address") from error
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or parsed)
    return str(parsed)


def _image_config(config: bytes | str | Mapping[str, Any]) -> Mapping[str, Any]:
    import json

    if isinstance(config, bytes | str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError) as error:
            raise UsageError("the image's config is not JSON") from error
    inner = config.get("config") if isinstance(config, Mapping) else 0
    if not isinstance(config, Mapping) or not (inner is None or isinstance(inner, Mapping)):
        raise UsageError("the image's config is not a JSON object as OCI has it")
    if inner is not None and not isinstance(inner.get("Env"), list | tuple | None):
        raise UsageError("the image's config has an Env that is not a list")
    return config
