"""One solve: the request, its status stream, its session and its gateway callback, which live and die together.

What ends what (after BuildKit's ``client/solve.go``):

- The Solve call's answer is the outcome.  Then the session is closed, and the status stream is read to its end, so that
  the last events are seen; if it has not ended after four seconds it is given up.
- A failed status stream, a session that ended early or a failed callback make the Solve call fail at the daemon.  It
  gets a moment to say so, because its words are better; then it is cancelled.
- A daemon that falls silent (`Connection.watch`) or a cancelled caller ends everything at once.

Whatever happens, nothing of it runs any more when `run_solve` returns.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio

from cogkit._proto import control_pb2
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.bounds import StatusGuard, check_message
from cogkit.buildkit.connection import CONTROL, Connection
from cogkit.buildkit.error_details import solve_failure, unreachable
from cogkit.buildkit.errors import BuildError, SolveError
from cogkit.buildkit.exports import Export, check_exports
from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult
from cogkit.buildkit.identity import new_id
from cogkit.buildkit.layouts import SolveLayouts, open_layouts
from cogkit.buildkit.request import CacheEntry, SolveRequest, SolveResult
from cogkit.buildkit.session.service import Service
from cogkit.buildkit.session.services.content import Content
from cogkit.buildkit.session.services.exporter import ChooseExports, Exporter
from cogkit.buildkit.session.services.filesend import FileSend
from cogkit.buildkit.session.services.filesync import FileSync
from cogkit.buildkit.session.session import Session
from cogkit.buildkit.status import CANCELED, SolveStatus
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import CogkitError, UsageError

StatusCallback = Callable[[SolveStatus], None]
BuildCallback = Callable[[Gateway], Awaitable[GatewayResult]]

_LAST_NEWS = 4.0
_NEXT_NEWS = 0.5
_MOMENT = 2.0
_MAX_ANSWER = 4 << 20
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,128}")
_LOG_LINES = 10
_LOG_LINE_BYTES = 4096
_LOGS_KEPT = 500

_CUT_OFF = frozenset({StatusCode.CANCELLED, StatusCode.UNAVAILABLE})
"""What a Solve call ends with when the daemon loses the session under way, among other reasons."""

_NEEDS_FILE = frozenset({"tar", "oci", "docker"})


async def run_solve(
    connection: Connection,
    request: SolveRequest,
    *,
    services: Sequence[Service] = (),
    on_status: StatusCallback | None = None,
    build: BuildCallback | None = None,
    choose_exports: ChooseExports | None = None,
) -> SolveResult:
    """See `AsyncClient.solve`."""
    _check(request, build)
    if connection.address.is_engine:
        request = replace(request, exports=tuple(map(_for_engine, request.exports)))
    layouts = await in_thread(open_layouts, request)
    solve = _Solve(connection, layouts, services, on_status, build, choose_exports)
    return await solve.run()


class _Solve:
    def __init__(
        self,
        connection: Connection,
        layouts: SolveLayouts,
        services: Sequence[Service],
        on_status: StatusCallback | None,
        build: BuildCallback | None,
        choose_exports: ChooseExports | None,
    ) -> None:
        self._connection = connection
        self._layouts = layouts
        self._request = request = layouts.request
        self._on_status = on_status
        self._build = build
        self._ref = request.ref or new_id()
        self._file_send = FileSend(request.exports)
        own: list[Service] = [FileSync(request.mounts)] if request.mounts else []
        if choose_exports or any(each.file or each.directory for each in request.exports):
            own.append(self._file_send)
        self._choose = choose_exports
        self._exporter = Exporter(self._choose_exports)
        if choose_exports is not None:
            own.append(self._exporter)
        if layouts.stores:
            own.append(Content(layouts.stores, without_layers=layouts.without_layers))
        self._session = Session(
            [*own, *services],
            shared_key=request.shared_key,
            on_heard=connection.note_sign_of_life,
            compress=connection.compress,
        )
        self._cache_opts = _cache_opts(request, build is not None)
        self._build_error: Exception | None = None
        self._session_lost: Exception | None = None
        self._seen = _Seen()
        self._guard = StatusGuard()

    async def run(self) -> SolveResult:
        start = asyncio.create_task
        self._watching = start(self._connection.watch(), name="solve watch")
        self._serving = start(self._serve_session(), name="solve session")
        self._following = start(self._follow_status(), name="solve status")
        self._solving = start(self._call_solve(), name="solve call")
        self._building = start(self._run_build(self._build), name="solve build") if self._build else None
        try:
            await self._until_solved()
            await self._wind_down()
            result = self._outcome()
            if self._choose is not None and not self._exporter.asked:
                raise BuildError(
                    f"the builder at {self._connection.address} did not ask where the result goes",
                    hint="choosing outputs after the build takes a newer BuildKit",
                )
            await self._file_send.publish()
            await in_thread(self._layouts.publish, result.exporter_response)
            return result
        except Exception as error:
            explained = self._explained(error)
            if explained is error:
                raise
            raise explained from error
        finally:
            await self._stop()

    # ---------------------------------------------------------------- the parts

    async def _call_solve(self) -> SolveResult:
        message = solve_message(self._request, self._ref, self._session.id, self._cache_opts)
        message.EnableSessionExporter = self._choose is not None
        try:
            response = await self._connection.unary(
                f"{CONTROL}Solve", message, control_pb2.SolveResponse, check=_check_answer
            )
        except grpc.aio.AioRpcError as error:
            raise solve_failure(error, self._connection.address) from error
        return SolveResult(self._ref, _checked(dict(response.ExporterResponse)))

    async def _choose_exports(self, metadata: Mapping[str, bytes], refs: Sequence[str]) -> Sequence[Export]:
        assert self._choose is not None
        exports = await self._choose(metadata, refs)
        for export in exports:
            if export.is_layout:
                raise UsageError("an OCI layout cannot be chosen after the build", hint="write a file instead")
            _check_export(export)
        check_exports((*self._request.exports, *exports), cache_folders=_cache_folders(self._request))
        self._file_send.add(exports)
        return tuple(map(_for_engine, exports)) if self._connection.address.is_engine else exports

    async def _serve_session(self) -> None:
        await self._session.run(await self._connection.session_stream(self._session.headers()))

    async def _follow_status(self) -> None:
        request = control_pb2.StatusRequest(Ref=self._ref)
        try:
            async for response in self._connection.stream(
                f"{CONTROL}Status", request, control_pb2.StatusResponse, check=check_message
            ):
                status = SolveStatus.from_proto(response)
                self._guard.check(status)
                self._seen.take(status)
                if self._on_status is not None:
                    self._on_status(status)
        except grpc.aio.AioRpcError as error:
            raise solve_failure(error, self._connection.address) from error

    async def _run_build(self, build: BuildCallback) -> None:
        gateway = Gateway(self._connection, self._ref, self._session.id, self._cache_opts)
        await gateway.open()
        try:
            result = await build(gateway)
        except Exception as error:
            # The callback's error is the one to report, whether or not the daemon still wants to hear it.
            self._build_error = error
            with suppress(CogkitError):
                await gateway.return_error(error)
            raise
        await gateway.return_result(result)

    # ---------------------------------------------------------------- how they end

    async def _until_solved(self) -> None:
        """Return when the Solve call has ended; raise what makes waiting for it pointless."""
        others: list[asyncio.Task[Any]] = [self._watching, self._serving, self._following]
        if self._building is not None:
            others.append(self._building)
        while not self._solving.done():
            await asyncio.wait({self._solving, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in others if each.done()]:
                others.remove(task)
                if not self._solving.done() and not task.cancelled():
                    await self._ended_before_solve(task)
        if self._was_cut_off():
            # The session has a connection of its own; which of the two tells of its end first is chance.
            await asyncio.wait({self._serving}, timeout=_NEXT_NEWS)
        if self._serving.done() and not self._serving.cancelled():
            self._session_lost = self._too_early(self._serving.exception())
        if self._building is not None:
            await asyncio.wait({self._building}, timeout=0 if _failed(self._solving) else _MOMENT)

    def _was_cut_off(self) -> bool:
        error = None if self._solving.cancelled() else self._solving.exception()
        return isinstance(error, SolveError) and error.code in _CUT_OFF

    def _too_early(self, error: BaseException | None) -> Exception:
        """What it means that the session, or another part, has ended before the build, with ``error`` or without."""
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            return error
        reason = str(error) if error else "it ended the session before the build was done"
        lost = unreachable(self._connection.address, reason)
        lost.__cause__ = error
        return lost

    async def _ended_before_solve(self, task: asyncio.Task[Any]) -> None:
        error = task.exception()
        if error is None and task is not self._serving:
            return
        if task is self._watching or (task is self._following and not isinstance(error, CogkitError)):
            task.result()
        # Its failure reaches the daemon, whose Solve call then says more.
        await asyncio.wait({self._solving}, timeout=_MOMENT)
        if self._solving.done():
            return
        raise self._too_early(error)

    def _outcome(self) -> SolveResult:
        """The result, or what failed: the caller's own code first, then the build."""
        if self._solving.cancelled():
            raise unreachable(self._connection.address, "the client was closed during the build")
        if self._build_error is not None:
            raise self._build_error
        if self._following.done() and not self._following.cancelled():
            error = self._following.exception()
            # A status stream that broke once the build was over cost nothing but its last events.
            if error is not None and not isinstance(error, CogkitError):
                raise error
        return self._solving.result()

    async def _wind_down(self) -> None:
        """The build is over: close the session, and see the status stream to its end, if that comes soon."""
        closing = asyncio.create_task(self._session.close())
        await asyncio.wait({self._following, self._watching}, timeout=_LAST_NEWS, return_when=asyncio.FIRST_COMPLETED)
        await closing

    async def _stop(self) -> None:
        tasks = [self._watching, self._serving, self._following, self._solving]
        if self._building is not None:
            tasks.append(self._building)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._file_send.discard()

    # ---------------------------------------------------------------- what the user is told

    def _explained(self, error: Exception) -> Exception:
        """The session's own cause if it failed the build, else the error with the failed step's name and log."""
        if not isinstance(error, SolveError):
            return error
        causes = [each for each in self._session.errors if isinstance(each, CogkitError)]
        told = next((each for each in causes if each.message in error.message), None)
        if told is None and causes and error.process_exit_code is None:
            told = causes[0]
        if told is not None:
            return told
        if error.message.endswith(CANCELED) and self._session.refusal:
            # A step whose call we refused cancels the others, and an old daemon may tell of one of those instead.
            error.message = f"{error.message.removesuffix(CANCELED)}{self._session.refusal}"
        elif self._session_lost is not None and error.code in _CUT_OFF and error.process_exit_code is None:
            return self._session_lost
        self._seen.describe(error)
        return error


def _check_answer(message: bytes) -> None:
    if len(message) > _MAX_ANSWER:
        raise BuildError(f"the builder's answer is not credible: it has {len(message):,} bytes")


def _checked(response: dict[str, str]) -> dict[str, str]:
    """What the exporters said, with what is used as a digest being one."""
    for key in ("containerimage.digest", "containerimage.config.digest"):
        value = response.get(key)
        if value is not None and not _DIGEST.fullmatch(value):
            shown = value if len(value) <= 100 else f"{value[:100]}…"
            raise BuildError(f"the builder named a result that is not a digest: {shown!r}")
    return response


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


class _Seen:
    """Of the steps that the status stream showed: names, and the last lines of their output."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._failed: str | None = None
        self._logs: dict[str, deque[str]] = {}

    def take(self, status: SolveStatus) -> None:
        for vertex in status.vertexes:
            self._names[vertex.digest] = vertex.name
            if vertex.error:
                self._failed = self._failed or vertex.digest
            elif vertex.completed is not None:
                self._logs.pop(vertex.digest, None)
        for log in status.logs:
            lines = self._logs.setdefault(log.vertex, deque([""], maxlen=_LOG_LINES + 1))
            if len(self._logs) > _LOGS_KEPT:
                self._logs.pop(next(iter(self._logs)))
            first, *rest = log.data.decode("utf-8", "replace").split("\n")
            lines[-1] = (lines[-1] + first)[-_LOG_LINE_BYTES:]
            lines.extend(line[-_LOG_LINE_BYTES:] for line in rest[-_LOG_LINES - 1 :])

    def describe(self, error: SolveError) -> None:
        error.vertex = error.vertex or self._failed
        if error.vertex is not None:
            error.vertex_name = self._names.get(error.vertex)
            lines = [line.rstrip("\r") for line in self._logs.get(error.vertex, ())]
            error.log_tail = tuple(lines[:-1] if lines and not lines[-1] else lines)[-_LOG_LINES:]


def _for_engine(export: Export) -> Export:
    """A Docker engine has an exporter of its own for images: ``image``, if there is one, does not complete names."""
    return replace(export, type="moby") if export.type == "image" else export


def solve_message(
    request: SolveRequest, ref: str, session_id: str, cache_opts: dict[str, str]
) -> control_pb2.SolveRequest:
    """The request as it goes to the daemon."""
    message = control_pb2.SolveRequest(
        Ref=ref,
        Session=session_id,
        Frontend=request.frontend,
        FrontendAttrs={**request.frontend_attrs, **cache_opts},
        Cache=control_pb2.CacheOptions(
            Exports=_entries(request.cache_exports), Imports=_entries(request.cache_imports)
        ),
        Entitlements=request.entitlements,
        Internal=request.internal,
        ProxyNetwork=request.proxy_network,
        Exporters=[control_pb2.Exporter(Type=each.type, Attrs=each.attrs) for each in request.exports],
    )
    if request.exports:
        # BuildKit before 0.13 knows these only; later ones take Exporters when it is there.
        message.ExporterDeprecated = request.exports[0].type
        message.ExporterAttrsDeprecated.update(request.exports[0].attrs)
    if request.definition is not None:
        message.Definition.ParseFromString(bytes(request.definition))
    for name, marshalled in request.frontend_inputs.items():
        message.FrontendInputs[name].ParseFromString(bytes(marshalled))
    if request.source_policy is not None:
        message.SourcePolicy.ParseFromString(request.source_policy)
    return message


def _entries(entries: Iterable[CacheEntry]) -> list[control_pb2.CacheOptionsEntry]:
    return [control_pb2.CacheOptionsEntry(Type=each.type, Attrs=each.attrs) for each in entries]


def _cache_opts(request: SolveRequest, is_gateway: bool) -> dict[str, str]:
    """Frontends learn of cache imports by an attribute: Go's JSON of a list of CacheOptionsEntry."""
    if not request.cache_imports or not (request.frontend or is_gateway):
        return {}
    entries = [
        {"Type": each.type, **({"Attrs": dict(sorted(each.attrs.items()))} if each.attrs else {})}
        for each in request.cache_imports
    ]
    return {"cache-imports": json.dumps(entries, separators=(",", ":"))}


def _check(request: SolveRequest, build: BuildCallback | None) -> None:
    ways = [request.frontend != "", request.definition is not None, build is not None]
    if sum(ways) != 1:
        raise UsageError("a solve takes exactly one of a frontend, a definition and a build callback")
    for entry in (*request.cache_exports, *request.cache_imports):
        if entry.type == "registry" and not entry.attrs.get("ref"):
            raise UsageError("a registry cache needs the name of an image", hint="add ref=NAME")
    for export in request.exports:
        _check_export(export)
    if sum(export.is_layout for export in request.exports) > 1:
        raise UsageError("more than one output is an OCI layout", hint="make all but one of them a file")
    check_exports(request.exports, cache_folders=_cache_folders(request))


def _cache_folders(request: SolveRequest) -> list[Path]:
    local = [entry.attrs.get("dest") for entry in request.cache_exports if entry.type == "local"]
    return [Path(folder) for folder in local if folder]


def _check_export(export: Export) -> None:
    wants = "file" if export.type in _NEEDS_FILE else None
    if export.type == "local" or export.is_layout:
        wants = "directory"
    for kind, given in (("file", export.file), ("directory", export.directory)):
        if given is not None and kind != wants:
            raise UsageError(f"the {export.type} exporter does not write a {kind}", hint="leave out its dest=")
        if given is None and kind == wants:
            raise UsageError(f"the {export.type} exporter needs a {kind} to write", hint="add dest=PATH")
