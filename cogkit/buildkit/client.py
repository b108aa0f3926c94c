"""`AsyncClient`: everything a BuildKit daemon can be asked for, asynchronously.

    async with await AsyncClient.connect("unix:///run/buildkit/buildkitd.sock") as client:
        result = await client.solve(SolveRequest(frontend="dockerfile.v0", mounts=…, exports=…))

This file only translates between calls and messages; how a solve runs is in `solve`, what a connection is in
`connection`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc.aio
from google.protobuf.message import Message

from cogkit._proto import content_pb2, control_pb2
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.bounds import StatusGuard, check_message
from cogkit.buildkit.build import AsyncBuild
from cogkit.buildkit.build_inputs import MACHINE_LOGINS, NOTHING, AuthInput, SecretInput, SshInput, services_for
from cogkit.buildkit.connect.address import Address, TlsConfig
from cogkit.buildkit.connect.dialer import Dialer
from cogkit.buildkit.connection import CONTROL, Connection
from cogkit.buildkit.error_details import request_failure
from cogkit.buildkit.exports import Export
from cogkit.buildkit.records import DaemonVersion, HistoryEvent, UsageRecord, WorkerInfo
from cogkit.buildkit.request import SolveRequest, SolveResult
from cogkit.buildkit.session.service import Service
from cogkit.buildkit.session.services.exporter import ChooseExports
from cogkit.buildkit.solve import BuildCallback, StatusCallback, run_solve
from cogkit.buildkit.status import SolveStatus

M = TypeVar("M", bound=Message)

_log = logging.getLogger(__name__)


class AsyncClient:
    """A connection to one daemon, made by `connect`.  It belongs to the event loop that it was made in.

    Calls may run side by side.  Every call ends within five seconds of the daemon's death: with
    `BuilderUnreachableError`, whether the daemon was killed, hangs, or the network is gone.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(
        cls,
        address: str | Address | None = None,
        *,
        tls: TlsConfig | None = None,
        timeout: float | None = None,
        silence_limit: float = 4.0,
        compress: bool | None = None,
        warn: Callable[[str], None] = _log.warning,
        for_build: bool = False,
        dialer: Dialer | None = None,
    ) -> Self:
        """Connect, and make sure that a buildkitd answers.

        Args:
            address: One of `cogkit.buildkit.connect.address.SCHEMES`; if None see `Address.default`.
            tls: Files of a TLS connection, only for ``tcp://``; plain text without.
            timeout: Seconds to wait for the first answer; if None 4, and 15 where a program such as ssh leads there.
            silence_limit: Seconds without a sign of life after which the daemon counts as gone during a call.
            compress: Whether what a build sends is compressed, where it shrinks and the daemon understands it; None: if
                the daemon is not on this machine.
            warn: Told when what is sent can be read on its way: ``tcp://`` without TLS to another machine.
            for_build: A solve will follow, so what it needs is opened meanwhile.
            dialer: What `cogkit.buildkit.connect.dialer.dial_ahead` gave for the address; the client closes it.

        Raises:
            BuilderUnreachableError: nobody answers there, or not as a buildkitd; the message says why.
            UsageError: the address or a TLS file cannot be used.
        """
        if not isinstance(address, Address):
            address = Address.parse(address) if address else Address.default()
        connection = Connection(address, tls, silence_limit=silence_limit, dialer=dialer)
        try:
            await connection.check(timeout, for_build=for_build)
            is_far = await connection.dialer.is_far()
            connection.compress = is_far if compress is None else compress
            if is_far and not connection.dialer.encrypted:
                warn(
                    f"the connection to the builder at {address} is not encrypted: who is in between can read and"
                    " change all that is sent, secrets and registry logins among it; use TLS (TlsConfig.ca)"
                )
        except BaseException:
            await connection.close()
            raise
        return cls(connection)

    @property
    def address(self) -> Address:
        """Where the daemon is."""
        return self._connection.address

    async def aclose(self) -> None:
        """End the connection and every call that still uses it.  Idempotent."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def solve(
        self,
        request: SolveRequest,
        *,
        services: Sequence[Service] = (),
        on_status: StatusCallback | None = None,
        build: BuildCallback | None = None,
        choose_exports: ChooseExports | None = None,
    ) -> SolveResult:
        """Run a build to its end.

        Cancelling the task cancels the build at the daemon and returns when all of it has stopped.

        Args:
            request: What to build, from what, into what.
            services: More services of the session (secrets, agents …), beside those for ``mounts`` and ``exports``.
            on_status: Called in the event loop with every event; what it raises ends the build.
            build: Be the frontend: is given the `Gateway` of the build and returns the result to export.  Only with a
                request that has neither a frontend nor a definition.
            choose_exports: Asked when the result is there, with its metadata and the ids of its filesystems, what else
                to make of it, beside ``request.exports``.

        Raises:
            SolveError: the build failed; it names the step, its output and its place in the Dockerfile.
            BuilderUnreachableError: the daemon went away.
            OutputError: a result could not be written here.
            UsageError: the request makes no sense.
            CogkitError: what a service, such as the one reading the context, says was the cause of the failure.
        """
        return await run_solve(
            self._connection,
            request,
            services=services,
            on_status=on_status,
            build=build,
            choose_exports=choose_exports,
        )

    async def build(
        self,
        request: SolveRequest,
        *exports: Export,
        secrets: SecretInput = NOTHING,
        ssh: SshInput = NOTHING,
        auth: AuthInput = MACHINE_LOGINS,
        services: Sequence[Service] = (),
        on_status: StatusCallback | None = None,
        frontend: BuildCallback | None = None,
    ) -> SolveResult:
        """Build, in one call, with what builds usually need.

        Args:
            request: What to build: of `dockerfile`, or one of your own.
            exports: What to make of the result, beside ``request.exports``: `image`, `oci`, `docker`, `tar`, `local`.
            secrets: What steps that mount a secret may read.
            ssh: What steps that mount an SSH agent may use.
            auth: Registry logins; those of this machine if nothing is said.
            services: Further services of the session.
            on_status: See `solve`.
            frontend: Be the frontend; ``build`` of `solve`.

        Raises:
            CogkitError: see `solve`.
        """
        own = await in_thread(services_for, auth, secrets, ssh)
        whole = replace(request, exports=(*request.exports, *exports)) if exports else request
        return await self.solve(whole, services=(*own, *services), on_status=on_status, build=frontend)

    def start(
        self,
        request: SolveRequest,
        *exports: Export,
        secrets: SecretInput = NOTHING,
        ssh: SshInput = NOTHING,
        auth: AuthInput = MACHINE_LOGINS,
        services: Sequence[Service] = (),
        frontend: BuildCallback | None = None,
    ) -> AsyncBuild:
        """A build as an object, which has not begun: see `AsyncBuild`.  The arguments are those of `build`."""

        def run(on_status: StatusCallback) -> Coroutine[Any, Any, SolveResult]:
            return self.build(
                request,
                *exports,
                secrets=secrets,
                ssh=ssh,
                auth=auth,
                services=services,
                on_status=on_status,
                frontend=frontend,
            )

        return AsyncBuild(run)

    async def info(self) -> DaemonVersion:
        """The daemon's version.

        Raises:
            RequestError: the daemon does not tell.
            BuilderUnreachableError: it does not answer.  So for all calls below.
        """
        response = await self._call("tell its version", "Info", control_pb2.InfoRequest(), control_pb2.InfoResponse)
        return DaemonVersion.from_proto(response.buildkitVersion)

    async def read_blob(self, digest: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob of the daemon's content store, such as a layer of an image that it just exported."""
        request = content_pb2.ReadContentRequest(digest=digest)
        doing, method = f"read {digest}", "/containerd.services.content.v1.Content/Read"
        async for piece in self._stream(doing, method, request, content_pb2.ReadContentResponse):
            yield piece.data

    async def list_workers(self, filters: Sequence[str] = ()) -> tuple[WorkerInfo, ...]:
        """The daemon's workers, those that match one of ``filters`` (containerd's filter syntax)."""
        request = control_pb2.ListWorkersRequest(filter=filters)
        response = await self._call("list its workers", "ListWorkers", request, control_pb2.ListWorkersResponse)
        return tuple(WorkerInfo.from_proto(each) for each in response.record)

    async def disk_usage(
        self, filters: Sequence[str] = (), *, unused_for: timedelta = timedelta()
    ) -> tuple[UsageRecord, ...]:
        """The records of the cache, smallest first.

        Args:
            filters: Only records that match one of them, such as ``type==regular`` (containerd's filter syntax).
            unused_for: Only records not used for so long.
        """
        request = control_pb2.DiskUsageRequest(filter=filters, ageLimit=_nanoseconds(unused_for))
        response = await self._call("tell its disk usage", "DiskUsage", request, control_pb2.DiskUsageResponse)
        records = (UsageRecord.from_proto(each) for each in response.record)
        return tuple(sorted(records, key=lambda record: (record.size, record.id)))

    async def prune(
        self,
        filters: Sequence[str] = (),
        *,
        all: bool = False,
        keep_duration: timedelta = timedelta(),
        reserved_space: int = 0,
        max_used_space: int = 0,
        min_free_space: int = 0,
    ) -> AsyncGenerator[UsageRecord, None]:
        """Delete cache records; yields each one that is gone.  Closing the generator early stops the pruning.

        Args:
            filters: Only records that match one of them.
            all: Also internal records and those of frontends.
            keep_duration: Keep records used within this time.
            reserved_space: Bytes of cache to keep in any case.
            max_used_space: Bytes of cache to keep at most; 0 is no limit.
            min_free_space: Bytes of the disk to leave free; 0 is no wish.
        """
        request = control_pb2.PruneRequest(
            filter=filters,
            all=all,
            keepDuration=_nanoseconds(keep_duration),
            reservedSpace=reserved_space,
            maxUsedSpace=max_used_space,
            minFreeSpace=min_free_space,
        )
        async for record in self._stream("prune its cache", "Prune", request, control_pb2.UsageRecord):
            yield UsageRecord.from_proto(record)

    async def history(
        self,
        ref: str = "",
        *,
        active_only: bool = False,
        follow: bool = False,
        filters: Sequence[str] = (),
        limit: int = 0,
    ) -> AsyncGenerator[HistoryEvent, None]:
        """The builds that the daemon remembers.

        Args:
            ref: Only this build.
            active_only: Only builds that run.
            follow: Stay, and yield what happens from now on, until the loop is left.
            filters: Such as ``status==error`` or ``startedAt>2026-01-02`` (BuildKit 0.22 and later).
            limit: Only the newest so many; 0 for all (BuildKit 0.22 and later).
        """
        request = control_pb2.BuildHistoryRequest(
            Ref=ref, ActiveOnly=active_only, EarlyExit=not follow, Filter=filters, Limit=limit
        )
        doing = "list its build history"
        async for event in self._stream(doing, "ListenBuildHistory", request, control_pb2.BuildHistoryEvent):
            yield HistoryEvent.from_proto(event)

    async def status(self, ref: str) -> AsyncGenerator[SolveStatus, None]:
        """The events of a build, by its name at the daemon: of one that runs until it ends, of one that has ended all.

        Of a name that the daemon does not know, it waits some seconds for such a build to begin.
        """
        request = control_pb2.StatusRequest(Ref=ref)
        guard = StatusGuard()
        answers = self._stream("tell how a build went", "Status", request, control_pb2.StatusResponse, check_message)
        async for response in answers:
            status = SolveStatus.from_proto(response)
            guard.check(status)
            yield status

    async def delete_history(self, ref: str) -> None:
        """Take a build that has ended out of the history."""
        request = control_pb2.UpdateBuildHistoryRequest(Ref=ref, Delete=True)
        await self._call(
            "change its build history", "UpdateBuildHistory", request, control_pb2.UpdateBuildHistoryResponse
        )

    async def _call(self, doing: str, method: str, request: Message, response_type: type[M]) -> M:
        call = self._connection.unary(f"{CONTROL}{method}", request, response_type)
        try:
            return await self._connection.guarded(call)
        except grpc.aio.AioRpcError as error:
            raise request_failure(error, self.address, doing) from error

    async def _stream(
        self,
        doing: str,
        method: str,
        request: Message,
        response_type: type[M],
        check: Callable[[bytes], None] | None = None,
    ) -> AsyncGenerator[M, None]:
        path = method if method.startswith("/") else f"{CONTROL}{method}"
        answers = self._connection.stream(path, request, response_type, check=check)
        try:
            while (answer := await self._connection.guarded(_next(answers))) is not None:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise request_failure(error, self.address, doing) from error
        finally:
            await answers.aclose()


async def _next(answers: AsyncGenerator[M, None]) -> M | None:
    return await anext(answers, None)


def _nanoseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
