"""`Client`: the client for programs without an event loop.

The same names and results as `AsyncClient`, blocking.  A thread of its own runs the event loop; this file must hold
nothing but the way there and back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from cogkit.buildkit.build import Build
from cogkit.buildkit.build_inputs import MACHINE_LOGINS, NOTHING, AuthInput, SecretInput, SshInput
from cogkit.buildkit.client import AsyncClient
from cogkit.buildkit.connect.address import Address, TlsConfig
from cogkit.buildkit.exports import Export
from cogkit.buildkit.records import DaemonVersion, HistoryEvent, UsageRecord, WorkerInfo
from cogkit.buildkit.request import SolveRequest, SolveResult
from cogkit.buildkit.session.service import Service
from cogkit.buildkit.session.services.exporter import ChooseExports
from cogkit.buildkit.solve import BuildCallback, StatusCallback

T = TypeVar("T")

_STOP_SECONDS = 5.0
_log = logging.getLogger(__name__)


class _LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cogkit-buildkit", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end there.  Ctrl-C here cancels it, waits until it has stopped, and is then raised."""
        ended = threading.Event()

        async def tracked() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(tracked(), self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                ended.wait(_STOP_SECONDS)
            raise

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``work`` there, and do not wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Client:
    """A connection to one daemon, made by `connect`; a context manager.

    Calls from several threads may run side by side.  Callbacks (``on_status``, ``build``) run in the client's own
    thread, and ``build`` is a coroutine function as for `AsyncClient`.
    """

    def __init__(self, thread: _LoopThread, client: AsyncClient) -> None:
        self._thread: _LoopThread | None = thread
        self._client = client

    @classmethod
    def connect(
        cls,
        address: str | Address | None = None,
        *,
        tls: TlsConfig | None = None,
        timeout: float | None = None,
        silence_limit: float = 4.0,
        compress: bool | None = None,
        warn: Callable[[str], None] = _log.warning,
    ) -> Self:
        """See `AsyncClient.connect`."""
        thread = _LoopThread()
        try:
            client = thread.run(
                AsyncClient.connect(
                    address, tls=tls, timeout=timeout, silence_limit=silence_limit, compress=compress, warn=warn
                )
            )
        except BaseException:
            thread.stop()
            raise
        return cls(thread, client)

    @property
    def address(self) -> Address:
        """Where the daemon is."""
        return self._client.address

    def close(self) -> None:
        """End the connection and its thread.  Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self._client.aclose())
            finally:
                thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def solve(
        self,
        request: SolveRequest,
        *,
        services: Sequence[Service] = (),
        on_status: StatusCallback | None = None,
        build: BuildCallback | None = None,
        choose_exports: ChooseExports | None = None,
    ) -> SolveResult:
        """See `AsyncClient.solve`.  Ctrl-C cancels the build at the daemon before it is raised."""
        solving = self._client.solve(
            request, services=services, on_status=on_status, build=build, choose_exports=choose_exports
        )
        return self._run(solving)

    def build(
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
        """See `AsyncClient.build`.  Ctrl-C cancels the build at the daemon before it is raised."""
        building = self._client.build(
            request,
            *exports,
            secrets=secrets,
            ssh=ssh,
            auth=auth,
            services=services,
            on_status=on_status,
            frontend=frontend,
        )
        return self._run(building)

    def start(
        self,
        request: SolveRequest,
        *exports: Export,
        secrets: SecretInput = NOTHING,
        ssh: SshInput = NOTHING,
        auth: AuthInput = MACHINE_LOGINS,
        services: Sequence[Service] = (),
        frontend: BuildCallback | None = None,
    ) -> Build:
        """A build as an object, which has not begun: see `Build`.  The arguments are those of `build`."""

        def run(on_status: StatusCallback) -> Coroutine[Any, Any, SolveResult]:
            return self._client.build(
                request,
                *exports,
                secrets=secrets,
                ssh=ssh,
                auth=auth,
                services=services,
                on_status=on_status,
                frontend=frontend,
            )

        return Build(self._begin, run)

    def info(self) -> DaemonVersion:
        """See `AsyncClient.info`."""
        return self._run(self._client.info())

    def list_workers(self, filters: Sequence[str] = ()) -> tuple[WorkerInfo, ...]:
        """See `AsyncClient.list_workers`."""
        return self._run(self._client.list_workers(filters))

    def disk_usage(
        self, filters: Sequence[str] = (), *, unused_for: timedelta = timedelta()
    ) -> tuple[UsageRecord, ...]:
        """See `AsyncClient.disk_usage`."""
        return self._run(self._client.disk_usage(filters, unused_for=unused_for))

    def prune(
        self,
        filters: Sequence[str] = (),
        *,
        all: bool = False,
        keep_duration: timedelta = timedelta(),
        reserved_space: int = 0,
        max_used_space: int = 0,
        min_free_space: int = 0,
    ) -> Iterator[UsageRecord]:
        """See `AsyncClient.prune`."""
        return self._iterate(
            self._client.prune(
                filters,
                all=all,
                keep_duration=keep_duration,
                reserved_space=reserved_space,
                max_used_space=max_used_space,
                min_free_space=min_free_space,
            )
        )

    def history(
        self,
        ref: str = "",
        *,
        active_only: bool = False,
        follow: bool = False,
        filters: Sequence[str] = (),
        limit: int = 0,
    ) -> Iterator[HistoryEvent]:
        """See `AsyncClient.history`."""
        return self._iterate(
            self._client.history(ref, active_only=active_only, follow=follow, filters=filters, limit=limit)
        )

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._thread is None:
            work.close()
            raise RuntimeError("the client is closed")
        return self._thread.begin(work)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            work.close()
            raise RuntimeError("the client is closed")
        return self._thread.run(work)

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> T | None:
            return await anext(items, None)

        while (item := self._run(following())) is not None:
            yield item
