"""Containers on the builder that are not steps of a build: processes with input, output, a terminal and signals.

`Container` is made on filesystems of a running build (`Ref`) inside the ``build`` callback of `AsyncClient.solve`,
and is gone when the build ends.  Facts are from BuildKit's ``frontend/gateway``:

- The container lives as long as its first process; when that ends, all others are killed and no more can start.
- The same when any process fails: an exit code other than 0 ends the container.  Who wants to run several commands
  starts one process that runs them.
- What its processes change cannot become a result; only caches keep it.
- The builder tells of the end of a process only after its standard input was ended; some releases do not even tell the
  exit code before.  So `ContainerProcess.wait` ends the input by itself.

- A terminal's size reaches the process through a signal to runc, which is lost while runc still starts it.

This file must not know what the processes are for.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from enum import Enum
from types import TracebackType
from typing import Self

import grpc.aio
from google.protobuf.message import Message

from cogkit._proto import gateway_pb2, ops_pb2
from cogkit.buildkit.connection import Duplex
from cogkit.buildkit.error_details import from_status, solve_failure
from cogkit.buildkit.errors import SolveError
from cogkit.buildkit.gateway.llb_bridge import Gateway, Ref
from cogkit.buildkit.identity import new_id
from cogkit.errors import CogkitError, UsageError
from cogkit.fast_dataclass import dataclass

STDIN, STDOUT, STDERR = 0, 1, 2
UNKNOWN_EXIT = 255
"""BuildKit's code for a process of whose end it knows nothing but an error."""

_PIECE = 256 * 1024
_RELEASE_TIMEOUT = 5.0


class Network(Enum):
    """The network of a container: one of its own (as the builder has it set up), the builder's, or none."""

    DEFAULT = 0
    HOST = 1
    NONE = 2


class Sharing(Enum):
    """Who may use a cache at the same time: everybody, each a copy of its own, or one after the other."""

    SHARED = 0
    PRIVATE = 1
    LOCKED = 2


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a container; made by the functions of this class."""

    message: ops_pb2.Mount

    @classmethod
    def bind(cls, dest: str, ref: Ref | None = None, *, source: str = "", readonly: bool = False) -> Self:
        """A filesystem of the build, or the folder ``source`` of it; an empty one without ``ref``."""
        return cls(
            ops_pb2.Mount(
                dest=dest,
                resultID=ref.id if ref is not None else "",
                selector=source,
                readonly=readonly,
                mountType=ops_pb2.BIND,
                input=0 if ref is not None else -1,
            )
        )

    @classmethod
    def tmpfs(cls, dest: str) -> Self:
        """Memory.  Its size is the kernel's choice: the gateway takes none."""
        return cls(ops_pb2.Mount(dest=dest, mountType=ops_pb2.TMPFS, input=-1))

    @classmethod
    def cache(cls, dest: str, id: str, *, sharing: Sharing = Sharing.SHARED, readonly: bool = False) -> Self:
        """A folder that the builder keeps under the name ``id``."""
        cache = ops_pb2.CacheOpt(ID=id, sharing=ops_pb2.CacheSharingOpt.Name(sharing.value))
        return cls(ops_pb2.Mount(dest=dest, mountType=ops_pb2.CACHE, cacheOpt=cache, readonly=readonly, input=-1))

    @classmethod
    def secret(
        cls, dest: str, id: str, *, uid: int = 0, gid: int = 0, mode: int = 0o400, optional: bool = False
    ) -> Self:
        """A file that the session's secrets service fills."""
        secret = ops_pb2.SecretOpt(ID=id, uid=uid, gid=gid, mode=mode, optional=optional)
        return cls(ops_pb2.Mount(dest=dest, mountType=ops_pb2.SECRET, secretOpt=secret, input=-1))

    @classmethod
    def ssh(cls, dest: str, id: str, *, uid: int = 0, gid: int = 0, mode: int = 0o600, optional: bool = False) -> Self:
        """A socket that ends at an endpoint of the session's SSH service."""
        ssh = ops_pb2.SSHOpt(ID=id, uid=uid, gid=gid, mode=mode, optional=optional)
        return cls(ops_pb2.Mount(dest=dest, mountType=ops_pb2.SSH, sshOpt=ssh, input=-1))


@dataclass(frozen=True, slots=True)
class Command:
    """A process to start.

    Attributes:
        args: Its command line.
        env: Its environment, which is not that of the image.
        cwd: Where it starts.
        user: Name or number, also with a group, ``user:group``.
        secret_env: Names of variables to the ids of the session's secrets that they get their values from.
        privileged: Needs the entitlement ``security.insecure`` of the build.
    """

    args: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: str = ""
    secret_env: Mapping[str, str] = field(default_factory=dict)
    privileged: bool = False


class Container:
    """A container; also an asynchronous context manager that releases it."""

    def __init__(self, gateway: Gateway, id: str) -> None:
        self._gateway = gateway
        self._processes: set[ContainerProcess] = set()
        self.id = id

    @classmethod
    async def create(
        cls,
        gateway: Gateway,
        mounts: Sequence[Mount],
        *,
        network: Network = Network.DEFAULT,
        hosts: Mapping[str, str] | None = None,
        hostname: str = "",
    ) -> Self:
        """Make a container, in which nothing runs yet.

        Args:
            gateway: The running build.
            mounts: Among them the one at ``/``.
            network: As for a step of a build.
            hosts: Additional names, with their addresses.
            hostname: Its own name.

        Raises:
            UsageError: nothing is mounted at ``/``.
            SolveError: the builder cannot make it.
        """
        if not any(mount.message.dest == "/" for mount in mounts):
            raise UsageError("a container needs a filesystem at /")
        id = new_id()
        request = gateway_pb2.NewContainerRequest(
            ContainerID=id,
            Mounts=[mount.message for mount in mounts],
            Network=ops_pb2.NetMode.Name(network.value),
            extraHosts=[ops_pb2.HostIP(Host=name, IP=address) for name, address in (hosts or {}).items()],
            hostname=hostname,
        )
        await gateway.call("NewContainer", request, gateway_pb2.NewContainerResponse)
        return cls(gateway, id)

    async def start(
        self,
        command: Command,
        *,
        terminal: tuple[int, int] | None = None,
        stdin: bool = False,
    ) -> ContainerProcess:
        """Start a process.

        Args:
            command: What to start.
            terminal: Rows and columns of a terminal of its own; its output is all standard output then.
            stdin: Whether it has a standard input.

        Raises:
            SolveError: it cannot be started, or the container has stopped.
        """
        duplex = self._gateway.duplex("ExecProcess", gateway_pb2.ExecMessage)
        process = ContainerProcess(self._gateway, duplex, has_input=stdin or terminal is not None)
        try:
            await process.begin(self.id, command, terminal)
        except BaseException:
            process.close()
            raise
        self._processes.add(process)
        return process

    async def release(self) -> None:
        """End the container with all that runs in it.  Idempotent.

        The calls of its processes are ended first: one that is still open when the container goes would fail the build.

        Raises:
            SolveError: the builder says how a process ended that was still running; everything is gone all the same.
        """
        for process in self._processes:
            process.close()
        self._processes.clear()
        request = gateway_pb2.ReleaseContainerRequest(ContainerID=self.id)
        await self._gateway.call(
            "ReleaseContainer", request, gateway_pb2.ReleaseContainerResponse, timeout=_RELEASE_TIMEOUT
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The answer tells how its processes ended, which is nobody's fault now.
        with suppress(CogkitError):
            await self.release()


class ContainerProcess:
    """A process that `Container.start` has started.

    Read `output` to the end, or call `wait`, which drops what was not read; nothing is read ahead, so a process whose
    output nobody takes has to wait.
    """

    def __init__(self, gateway: Gateway, duplex: Duplex[gateway_pb2.ExecMessage], *, has_input: bool) -> None:
        self._gateway = gateway
        self._duplex = duplex
        self._id = new_id()
        self._input_open = has_input
        self._sending = asyncio.Lock()
        self._done = False
        self._all_said = False
        self._exit: gateway_pb2.ExitMessage | None = None

    async def begin(self, container: str, command: Command, terminal: tuple[int, int] | None) -> None:
        """Have it started; `Container.start` does that."""
        secrets = [ops_pb2.SecretEnv(ID=id, name=name) for name, id in command.secret_env.items()]
        init = gateway_pb2.InitMessage(
            ContainerID=container,
            Meta=ops_pb2.Meta(
                args=command.args,
                env=[f"{name}={value}" for name, value in command.env.items()],
                cwd=command.cwd,
                user=command.user,
            ),
            Fds=[STDIN] * self._input_open + ([STDOUT] if terminal else [STDOUT, STDERR]),
            Tty=terminal is not None,
            Security=ops_pb2.INSECURE if command.privileged else ops_pb2.SANDBOX,
            secretenv=secrets,
        )
        await self._send(Init=init)
        message = await self._receive()
        if message is None or message.WhichOneof("Input") != "Started":
            raise SolveError("the builder did not start the process")
        if terminal is not None:
            await self.resize(*terminal)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """What it writes, as it comes: `STDOUT` or `STDERR`, and some bytes."""
        while not self._done:
            message = await self._receive()
            if message is None:
                return
            match message.WhichOneof("Input"):
                case "File" if message.File.Data:
                    yield message.File.Fd, message.File.Data
                case "Exit":
                    self._exit = message.Exit
                    await self._end_input()
                case "Done":
                    self._all_said = True
            # The two come in any order.
            if self._all_said and self._exit is not None:
                self.close()

    async def wait(self) -> int:
        """Its exit code, when it has ended; its input ends now.

        Raises:
            SolveError: the builder does not know how it ended.
        """
        await self._end_input()
        async for _ in self.output():
            pass
        if self._exit is None:
            raise SolveError("the builder ended the process without saying how it went")
        if self._exit.Code == UNKNOWN_EXIT and self._exit.HasField("Error"):
            error = from_status(self._exit.Error)
            if error.process_exit_code != UNKNOWN_EXIT:
                raise error
        return self._exit.Code

    async def write(self, data: bytes | memoryview) -> None:
        """Send to its standard input; returns when more can be taken.  Dropped when it has ended."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            if not self._input_open:
                return
            await self._tell(File=gateway_pb2.FdMessage(Fd=STDIN, Data=bytes(view[start : start + _PIECE])))

    async def end_input(self) -> None:
        """Its standard input has come to its end."""
        await self._end_input()

    async def _end_input(self) -> None:
        if self._input_open:
            self._input_open = False
            await self._tell(File=gateway_pb2.FdMessage(Fd=STDIN, EOF=True))

    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size now."""
        await self._tell(Resize=gateway_pb2.ResizeMessage(Rows=rows, Cols=columns))

    async def signal(self, name: str) -> None:
        """Send it a signal, such as ``SIGINT`` or ``INT``."""
        if not hasattr(signal, f"SIG{name.removeprefix('SIG')}"):
            raise UsageError(f"there is no signal {name}")
        await self._tell(Signal=gateway_pb2.SignalMessage(Name=name.removeprefix("SIG")))

    def close(self) -> None:
        """Be done with it: the builder kills it if it still runs."""
        self._done = True
        self._duplex.close()

    # ---------------------------------------------------------------- the call

    async def _tell(
        self, **what: gateway_pb2.FdMessage | gateway_pb2.ResizeMessage | gateway_pb2.SignalMessage
    ) -> None:
        """Send something that matters only while the process runs."""
        if self._exit is None or "File" in what:
            with suppress(SolveError):
                await self._send(**what)

    async def _send(self, **what: Message) -> None:
        message = gateway_pb2.ExecMessage(ProcessID=self._id, **what)  # type: ignore[arg-type]
        try:
            async with self._sending:  # gRPC takes one at a time
                await self._duplex.write(message)
        except grpc.aio.AioRpcError as error:
            raise solve_failure(error, self._gateway.address) from error
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise SolveError("the process on the builder has ended") from error

    async def _receive(self) -> gateway_pb2.ExecMessage | None:
        try:
            return await self._duplex.read()
        except grpc.aio.AioRpcError as error:
            raise solve_failure(error, self._gateway.address) from error
