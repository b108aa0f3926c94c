"""The client library against a real buildkitd: every request, every way a build ends, every way a daemon is lost."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from cogkit._proto import control_pb2, ops_pb2
from cogkit.buildkit import (
    AsyncClient,
    Client,
    Export,
    Gateway,
    GatewayResult,
    HistoryEvent,
    LocalMount,
    OutputFile,
    Platform,
    RequestError,
    SolveError,
    SolveRequest,
    SolveResult,
    SolveStatus,
    TlsConfig,
    dockerfile,
    tar,
    to_rawjson,
)
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import UsageError
from tests.conftest import MakeTree, RunBuildctl
from tests.real.buildkitd import Buildkitd
from tests.real.certificates import Certificates, make_certificates
from tests.real.registry import Registry
from tests.real.tools import REPOSITORY

T = TypeVar("T")
Use = Callable[[AsyncClient], Awaitable[T]]

LOST_WITHIN = 30.0
TICKING = "FROM busybox\nRUN while true; do echo tick; sleep 0.2; done\n"


def with_client(daemon: Buildkitd, use: Use[T], tls: TlsConfig | None = None) -> T:
    async def run() -> T:
        async with await AsyncClient.connect(daemon.address, tls=tls) as client:
            return await use(client)

    return asyncio.run(run())


def dockerfile_request(project: Path, *exports: Export, **attrs: str) -> SolveRequest:
    return SolveRequest(
        frontend="dockerfile.v0",
        frontend_attrs={"no-cache": "", **attrs},
        mounts=mounts(project),
        exports=exports,
        shared_key=str(project),
    )


def mounts(project: Path) -> tuple[LocalMount, ...]:
    return LocalMount("context", project), LocalMount("dockerfile", project, only=frozenset({"Dockerfile"}))


def image(name: str) -> Export:
    return Export("image", {"name": name, "push": "true", "registry.insecure": "true"})


async def collect(client: AsyncClient, ref: str = "") -> list[HistoryEvent]:
    return [event async for event in client.history(ref)]


# ---- requests


def test_info_tells_where_the_daemon_was_built_from(buildkitd: Buildkitd) -> None:
    info = with_client(buildkitd, lambda client: client.info())
    assert info.package == "github.com/moby/buildkit"


def test_workers_say_what_they_can_build_for(buildkitd: Buildkitd) -> None:
    workers = with_client(buildkitd, lambda client: client.list_workers())
    assert len(workers) == 1
    assert workers[0].labels["org.mobyproject.buildkit.worker.executor"] == "oci"
    assert str(workers[0].platforms[0]).startswith("linux/")
    assert workers[0].version.package == "github.com/moby/buildkit"


def test_a_filter_chooses_among_workers(buildkitd: Buildkitd) -> None:
    async def use(client: AsyncClient) -> None:
        (worker,) = await client.list_workers()
        assert await client.list_workers([f"id=={worker.id}"]) == (worker,)
        assert await client.list_workers(["id==other"]) == ()

    with_client(buildkitd, use)


def test_disk_usage_and_prune_see_what_a_build_left(private_buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": b"x" * 100_000})

    async def use(client: AsyncClient) -> None:
        await client.solve(dockerfile_request(project))
        records = await client.disk_usage()
        assert [record.size for record in records] == sorted(record.size for record in records)
        kinds = {record.record_type for record in records}
        assert {"regular", "source.local"} <= kinds
        only_local = await client.disk_usage(["type==source.local"])
        assert {record.record_type for record in only_local} == {"source.local"}
        assert await client.disk_usage(["type==nothing"]) == ()
        assert [record async for record in client.prune(keep_duration=timedelta(hours=1))] == []
        pruned = [record async for record in client.prune(all=True)]
        assert {record.id for record in records} <= {record.id for record in pruned}
        assert await client.disk_usage() == ()

    with_client(private_buildkitd, use)


def test_a_request_that_the_daemon_refuses_says_what_for_and_why(buildkitd: Buildkitd) -> None:
    with pytest.raises(RequestError, match=r"could not tell its disk usage: .*parse error") as caught:
        with_client(buildkitd, lambda client: client.disk_usage(["not a filter"]))
    assert exit_code_of(caught.value) == 1


def test_the_history_knows_good_and_failed_builds(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    good = context_tree({"Dockerfile": "FROM busybox\nRUN true\n"}, "good")
    bad = context_tree({"Dockerfile": "FROM busybox\nRUN exit 7\n"}, "bad")

    async def use(client: AsyncClient) -> None:
        result = await client.solve(dockerfile_request(good))
        (event,) = await collect(client, result.ref)
        assert (event.kind, event.record.ref, event.record.error) == ("complete", result.ref, "")
        assert event.record.frontend == "dockerfile.v0"
        assert event.record.completed_at is not None and event.record.completed_at >= event.record.created_at
        with pytest.raises(SolveError):
            await client.solve(SolveRequest("dockerfile.v0", mounts=mounts(bad), ref="a-build-that-fails"))
        (event,) = await collect(client, "a-build-that-fails")
        assert "exit code: 7" in event.record.error

    with_client(buildkitd, use)


def test_an_internal_build_is_not_remembered(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN true\n"})

    async def use(client: AsyncClient) -> None:
        request = SolveRequest("dockerfile.v0", mounts=mounts(project), internal=True)
        result = await client.solve(request)
        assert result.ref not in {event.record.ref for event in await collect(client)}

    with_client(buildkitd, use)


def test_following_the_history_shows_a_build_as_it_starts_and_ends(
    buildkitd: Buildkitd, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN true\n"})

    async def use(client: AsyncClient) -> list[str]:
        async def follow() -> list[str]:
            kinds: list[str] = []
            async with aclosing(client.history(follow=True)) as events:
                async for event in events:
                    if event.record.ref == "followed":
                        kinds.append(event.kind)
                        if event.kind == "complete":
                            return kinds
            raise AssertionError("the history ended")

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.2)
        await client.solve(SolveRequest("dockerfile.v0", mounts=mounts(project), ref="followed"))
        return await asyncio.wait_for(following, 10)

    kinds = with_client(buildkitd, use)
    assert kinds[0] == "started"
    assert kinds[-1] == "complete"


# ---- connecting


def test_mutual_tls_works_with_the_right_files(tls_buildkitd: Buildkitd, certificates: Certificates) -> None:
    tls = TlsConfig(certificates.ca, certificates.client_cert, certificates.client_key)
    assert with_client(tls_buildkitd, lambda client: client.info(), tls).package == "github.com/moby/buildkit"


def test_a_build_runs_over_mutual_tls(
    tls_buildkitd: Buildkitd, certificates: Certificates, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nCOPY a /a\nRUN grep -q hello /a\n", "a": "hello"})
    tls = TlsConfig(certificates.ca, certificates.client_cert, certificates.client_key, server_name="localhost")
    with_client(tls_buildkitd, lambda client: client.solve(dockerfile_request(project)), tls)


def test_wrong_tls_is_told_apart(tls_buildkitd: Buildkitd, certificates: Certificates, tmp_path: Path) -> None:
    ca, cert, key = certificates.ca, certificates.client_cert, certificates.client_key
    strangers = make_certificates(tmp_path / "strangers")
    for tls, reason in [
        (None, "(it closed the connection at once|it wants TLS|it broke the connection)"),
        (TlsConfig(strangers.ca, cert, key), "its TLS certificate cannot be trusted: .*issuer certificate"),
        (TlsConfig(None, cert, key), "its TLS certificate cannot be trusted: .*(issuer certificate|self.signed)"),
        (TlsConfig(ca, cert, key, server_name="elsewhere"), "its TLS certificate cannot be trusted: hostname mismatch"),
        (TlsConfig(ca), "it wants a TLS client certificate, and got none"),
        (TlsConfig(ca, strangers.client_cert, strangers.client_key), "it refused the TLS client certificate: .* trust"),
    ]:
        with pytest.raises(BuilderUnreachableError, match=reason) as caught:
            with_client(tls_buildkitd, lambda client: client.info(), tls)
        assert exit_code_of(caught.value) == 3
        assert caught.value.hint and "TlsConfig" in caught.value.hint


def test_tls_options_do_not_go_with_a_unix_socket(buildkitd: Buildkitd) -> None:
    with pytest.raises(UsageError, match="TLS options do not go with"):
        with_client(buildkitd, lambda client: client.info(), TlsConfig())


@pytest.mark.one_release_is_enough
def test_nobody_at_the_address_is_told_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(BuilderUnreachableError, match="there is no such socket"):
        asyncio.run(AsyncClient.connect(f"unix://{tmp_path}/none.sock"))
    (tmp_path / "file").touch()
    with pytest.raises(BuilderUnreachableError, match="it is not a socket"):
        asyncio.run(AsyncClient.connect(f"unix://{tmp_path}/file"))
    assert time.monotonic() - started < 20


@pytest.mark.one_release_is_enough
def test_another_grpc_server_is_not_taken_for_a_daemon() -> None:
    async def run() -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            with pytest.raises(BuilderUnreachableError, match="it speaks gRPC but is not a buildkitd"):
                await AsyncClient.connect(f"tcp://127.0.0.1:{port}")
        finally:
            await server.stop(None)

    asyncio.run(run())


@pytest.mark.one_release_is_enough
def test_a_socket_that_accepts_and_says_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        started = time.monotonic()
        with pytest.raises(BuilderUnreachableError, match="it accepts connections but does not answer"):
            asyncio.run(AsyncClient.connect(f"unix://{tmp_path}/s", timeout=1.0))
        assert time.monotonic() - started < 40


# ---- builds


def test_a_build_exports_an_image_and_tells_its_digest(
    buildkitd: Buildkitd, registry: Registry, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nCOPY a /a\nLABEL made=here\n", "a": "content"})
    events: list[SolveStatus] = []
    result = with_client(
        buildkitd,
        lambda client: client.solve(
            dockerfile_request(project, image(f"{registry.host}/lib:1")), on_status=events.append
        ),
    )
    assert result.digest == registry.digest("lib", "1")
    assert result.image_names == (f"{registry.host}/lib:1",)
    assert result.config_digest and result.config_digest.startswith("sha256:")
    assert registry.config("lib", "1")["config"]["Labels"] == {"made": "here"}
    descriptor = result.metadata()["containerimage.descriptor"]
    assert isinstance(descriptor, dict) and descriptor["digest"] == result.digest
    vertexes = {vertex.digest: vertex for event in events for vertex in event.vertexes}
    copy = next(vertex for vertex in vertexes.values() if "COPY a /a" in vertex.name)
    assert copy.started and copy.completed and copy.completed >= copy.started and not copy.error
    assert all(vertex.completed for vertex in vertexes.values())


def test_several_outputs_come_from_one_build(buildkitd: Buildkitd, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "content"})
    exports = (
        Export("oci", {}, file=OutputFile(tmp_path / "oci.tar")),
        Export("local", {}, directory=tmp_path / "tree"),
        Export("tar", {}, file=OutputFile(tmp_path / "root.tar")),
    )
    with_client(buildkitd, lambda client: client.solve(dockerfile_request(project, *exports)))
    assert (tmp_path / "tree" / "a").read_text() == "content"
    assert (tmp_path / "oci.tar").stat().st_size > 1024
    assert b"content" in (tmp_path / "root.tar").read_bytes()


def test_a_failed_build_leaves_no_output_file(buildkitd: Buildkitd, context_tree: MakeTree, tmp_path: Path) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN false\n"})
    export = Export("oci", {}, file=OutputFile(tmp_path / "out" / "oci.tar"))
    with pytest.raises(SolveError):
        with_client(buildkitd, lambda client: client.solve(dockerfile_request(project, export)))
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_a_failing_run_names_step_output_and_dockerfile_lines(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree(
        {"Dockerfile": "FROM busybox\nLABEL a=b\nRUN for i in $(seq 20); do echo line $i; done && \\\n    exit 3\n"}
    )
    with pytest.raises(SolveError, match="exit code: 3") as caught:
        with_client(buildkitd, lambda client: client.solve(dockerfile_request(project)))
    error = caught.value
    assert error.message.startswith('failed to solve: process "/bin/sh -c for i in')
    assert "rpc error" not in error.message
    assert error.where == "Dockerfile:3"
    assert error.process_exit_code == 3
    assert error.vertex_name and error.vertex_name.startswith("[2/2] RUN for i in")
    assert error.log_tail == tuple(f"line {i}" for i in range(11, 21))
    assert error.source is not None
    assert [line for line in range(1, 9) if any(line in span for span in error.source.ranges)] == [3, 4]
    assert error.detail and "   4 | >>>     exit 3" in error.detail


def test_a_missing_file_in_copy_names_its_line(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY nope /\n"})
    with pytest.raises(SolveError, match='"/nope": not found') as caught:
        with_client(buildkitd, lambda client: client.solve(dockerfile_request(project)))
    assert caught.value.where == "Dockerfile:2"
    assert caught.value.process_exit_code is None


def test_a_dockerfile_that_does_not_parse_names_its_line(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPPY a /\n"})
    with pytest.raises(SolveError, match="unknown instruction: COPPY") as caught:
        with_client(buildkitd, lambda client: client.solve(dockerfile_request(project)))
    assert caught.value.where == "Dockerfile:2"


def test_an_unknown_frontend_fails_at_once(buildkitd: Buildkitd) -> None:
    started = time.monotonic()
    with pytest.raises(SolveError, match=r"invalid frontend: nothing\.v0|frontend nothing\.v0 not found"):
        with_client(buildkitd, lambda client: client.solve(SolveRequest("nothing.v0")))
    assert time.monotonic() - started < LOST_WITHIN


def test_llb_is_built_without_a_frontend(buildkitd: Buildkitd, tmp_path: Path) -> None:
    op = ops_pb2.Op()
    action = op.file.actions.add(input=-1, secondaryInput=-1, output=0)
    action.mkfile.MergeFrom(ops_pb2.FileActionMkFile(path="/hello", mode=0o644, data=b"llb", timestamp=-1))
    marshalled = op.SerializeToString(deterministic=True)
    head = ops_pb2.Op(inputs=[ops_pb2.Input(digest=f"sha256:{hashlib.sha256(marshalled).hexdigest()}")])
    definition = ops_pb2.Definition(ops=[marshalled, head.SerializeToString()])
    request = SolveRequest(
        definition=definition.SerializeToString(), exports=(Export("local", {}, directory=tmp_path / "out"),)
    )
    with_client(buildkitd, lambda client: client.solve(request))
    assert (tmp_path / "out" / "hello").read_bytes() == b"llb"


def test_builds_run_side_by_side_on_one_connection(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    projects = [
        context_tree({"Dockerfile": f"FROM busybox\nCOPY a /a\nRUN grep -qx {i} /a\n", "a": str(i)}, f"p{i}")
        for i in range(6)
    ]

    async def use(client: AsyncClient) -> Sequence[SolveResult]:
        return await asyncio.gather(*(client.solve(dockerfile_request(project)) for project in projects))

    assert len({result.ref for result in with_client(buildkitd, use)}) == 6


@pytest.mark.parametrize(
    "request_",
    [
        SolveRequest(),
        SolveRequest("dockerfile.v0", definition=b""),
        SolveRequest("dockerfile.v0", exports=(Export("tar"),)),
        SolveRequest("dockerfile.v0", exports=(Export("local"),)),
        SolveRequest("dockerfile.v0", exports=(Export("image", directory=Path("/nowhere")),)),
    ],
)
@pytest.mark.one_release_is_enough
def test_a_request_that_makes_no_sense_is_refused_here(buildkitd: Buildkitd, request_: SolveRequest) -> None:
    with pytest.raises(UsageError):
        with_client(buildkitd, lambda client: client.solve(request_))


class RefusedSecret:
    """A service that says no, and why."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause

    def methods(self) -> Mapping[str, Handler]:
        return {"/moby.buildkit.secrets.v1.Secrets/GetSecret": self._refuse}

    async def _refuse(self, stream: ServerStream) -> None:
        raise CallError(StatusCode.PERMISSION_DENIED, "not for you", cause=self.cause)


def test_the_cause_that_a_service_names_is_what_the_caller_gets(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree(
        {"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=s,required=true cat /run/secrets/s\n"}
    )
    service = RefusedSecret(UsageError("secret s cannot be read"))
    with pytest.raises(UsageError, match="secret s cannot be read") as caught:
        with_client(buildkitd, lambda client: client.solve(dockerfile_request(project), services=[service]))
    assert isinstance(caught.value.__cause__, SolveError)
    assert caught.value.__cause__.where == "Dockerfile:2"


def test_a_refusal_that_did_not_fail_the_build_is_not_blamed_for_it(
    buildkitd: Buildkitd, context_tree: MakeTree
) -> None:
    step = "RUN --mount=type=secret,id=s test ! -e /run/secrets/s && exit 5"
    project = context_tree({"Dockerfile": f"FROM busybox\n{step}\n"})

    class NoSecret(RefusedSecret):
        async def _refuse(self, stream: ServerStream) -> None:
            raise CallError(StatusCode.NOT_FOUND, "no such secret", cause=self.cause)

    service = NoSecret(UsageError("no secret s"))
    with pytest.raises(SolveError, match="exit code: 5"):
        with_client(buildkitd, lambda client: client.solve(dockerfile_request(project), services=[service]))


def test_what_the_status_callback_raises_ends_the_build(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": TICKING})

    def refuse(status: SolveStatus) -> None:
        if status.logs:
            raise BrokenPipeError("nobody reads")

    started = time.monotonic()
    with pytest.raises(BrokenPipeError, match="nobody reads"):
        with_client(buildkitd, lambda client: client.solve(dockerfile_request(project), on_status=refuse))
    assert time.monotonic() - started < LOST_WITHIN


# ---- ends


async def _ticking(client: AsyncClient, project: Path) -> asyncio.Task[SolveResult]:
    """A build that has printed its first line and never ends by itself."""
    ticked = asyncio.Event()
    request = SolveRequest("dockerfile.v0", {"no-cache": ""}, mounts=mounts(project))
    solve = client.solve(request, on_status=lambda status: ticked.set() if status.logs else None)
    task = asyncio.create_task(solve)
    waiting = asyncio.create_task(ticked.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task.exception()
    return task


def _runs(marker: str) -> bool:
    """Whether a process of this machine has ``marker`` in its command line."""
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in command_line.read_bytes():
                return True
        except OSError:
            continue  # it ended meanwhile
    return False


def test_a_cancelled_build_ends_here_at_once_and_at_the_daemon_soon(
    buildkitd: Buildkitd, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": TICKING.replace("true", "true cancelled-step")})

    async def use(client: AsyncClient) -> None:
        task = await _ticking(client, project)
        assert _runs("true cancelled-step")
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 20
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        async with asyncio.timeout(10):
            while _runs("true cancelled-step"):
                await asyncio.sleep(0.05)

    with_client(buildkitd, use)


def test_a_daemon_killed_in_mid_build_is_noticed_and_can_be_used_again(
    private_buildkitd: Buildkitd, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": TICKING})

    async def use(client: AsyncClient) -> None:
        task = await _ticking(client, project)
        started = time.monotonic()
        await asyncio.to_thread(private_buildkitd.kill)
        with pytest.raises(BuilderUnreachableError, match="it closed the connection") as caught:
            await task
        assert time.monotonic() - started < LOST_WITHIN
        assert str(client.address) in str(caught.value)
        with pytest.raises(BuilderUnreachableError):
            await client.info()
        await asyncio.to_thread(private_buildkitd.start)
        async with asyncio.timeout(20):
            while True:
                try:
                    await client.info()
                    break
                except BuilderUnreachableError:
                    await asyncio.sleep(0.2)

    with_client(private_buildkitd, use)


def test_a_frozen_daemon_is_given_up_in_every_call(private_buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": TICKING})

    async def use(client: AsyncClient) -> None:
        task = await _ticking(client, project)
        private_buildkitd.pause()
        try:
            calls: list[Coroutine[Any, Any, Any]] = [client.disk_usage(), collect(client), client.info()]
            started = time.monotonic()
            outcomes = await asyncio.gather(task, *calls, return_exceptions=True)
            assert time.monotonic() - started < LOST_WITHIN
            assert {type(outcome) for outcome in outcomes} == {BuilderUnreachableError}
            assert "has not answered for 4 seconds" in str(outcomes[0])
        finally:
            private_buildkitd.resume()

    with_client(private_buildkitd, use)


def test_connecting_to_a_frozen_daemon_is_given_up_in_time(private_buildkitd: Buildkitd) -> None:
    private_buildkitd.pause()
    try:
        started = time.monotonic()
        with pytest.raises(BuilderUnreachableError, match="accepts connections but does not answer"):
            asyncio.run(AsyncClient.connect(private_buildkitd.address, timeout=1.5))
        assert time.monotonic() - started < LOST_WITHIN
    finally:
        private_buildkitd.resume()


def test_a_busy_daemon_that_answers_is_not_given_up(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    """A step without any output for longer than the silence limit, and a daemon whose policy forbids frequent pings."""
    project = context_tree({"Dockerfile": "FROM busybox\nRUN sleep 7\n"})
    with_client(buildkitd, lambda client: client.solve(dockerfile_request(project)))


def test_closing_the_client_ends_a_running_build(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": TICKING})

    async def use(client: AsyncClient) -> None:
        task = await _ticking(client, project)
        await client.aclose()
        with pytest.raises(BuilderUnreachableError):
            await asyncio.wait_for(task, LOST_WITHIN)

    with_client(buildkitd, use)


# ---- the gateway


def test_one_solve_reads_a_file_of_the_result_and_labels_the_image_with_it(
    buildkitd: Buildkitd, registry: Registry, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nLABEL old=1\nRUN mkdir /d && echo -n 42 > /d/answer\n"})

    async def build(gateway: Gateway) -> GatewayResult:
        assert gateway.supports("readfile")
        result = await gateway.solve("dockerfile.v0", {"no-cache": ""})
        assert result.ref is not None
        answer = await result.ref.read_file("/d/answer")
        return result.with_labels({"answer": answer.decode()})

    request = SolveRequest(mounts=mounts(project), exports=(image(f"{registry.host}/labelled:1"),))
    result = with_client(buildkitd, lambda client: client.solve(request, build=build))
    assert result.digest == registry.digest("labelled", "1")
    assert registry.config("labelled", "1")["config"]["Labels"] == {"old": "1", "answer": "42"}


def test_the_gateway_reads_files_and_folders_of_any_size(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    big = os.urandom(9_000_000)
    dockerfile = "FROM scratch\nCOPY . /\n"
    project = context_tree({"Dockerfile": dockerfile, "big": big, "empty": "", "d/one": "1", "d/two": "22"})

    async def build(gateway: Gateway) -> GatewayResult:
        result = await gateway.solve("dockerfile.v0")
        ref = result.ref
        assert ref is not None
        assert await ref.read_file("big") == big
        assert await ref.read_file("big", offset=5, length=10) == big[5:15]
        assert await ref.read_file("big", offset=8_999_990) == big[-10:]
        assert await ref.read_file("empty") == b""
        assert [(entry.path, entry.size) for entry in await ref.read_dir("/d")] == [("one", 1), ("two", 2)]
        assert [entry.path for entry in await ref.read_dir("/d", include="t*")] == ["two"]
        assert (await ref.stat_file("d")).is_dir
        assert (await ref.stat_file("d/two")).size == 2
        with pytest.raises(SolveError, match="no such file"):
            await ref.read_file("nope")
        await ref.evaluate()
        return result

    with_client(buildkitd, lambda client: client.solve(SolveRequest(mounts=mounts(project)), build=build))


def test_the_gateway_looks_up_images(buildkitd: Buildkitd) -> None:
    async def build(gateway: Gateway) -> GatewayResult:
        config = await gateway.resolve_image_config("docker.io/library/busybox:latest")
        assert config.digest.startswith("sha256:")
        platform = json.loads(config.config)
        return GatewayResult(metadata={"seen": f"{platform['os']}/{platform['architecture']}".encode()})

    async def use(client: AsyncClient) -> None:
        worker = (await client.list_workers())[0]
        seen: list[bytes] = []

        async def remember(gateway: Gateway) -> GatewayResult:
            result = await build(gateway)
            seen.append(result.metadata["seen"])
            return result

        await client.solve(SolveRequest(), build=remember)
        assert seen == [str(Platform(worker.platforms[0].os, worker.platforms[0].architecture)).encode()]

    with_client(buildkitd, use)


def test_a_warning_of_the_gateway_is_seen_in_the_status_stream(buildkitd: Buildkitd) -> None:
    events: list[SolveStatus] = []

    async def build(gateway: Gateway) -> GatewayResult:
        await gateway.warn("sha256:" + "0" * 64, "careful", detail=["more"], url="http://u")
        return GatewayResult()

    with_client(buildkitd, lambda client: client.solve(SolveRequest(), build=build, on_status=events.append))
    (warning,) = [warning for event in events for warning in event.warnings]
    assert (warning.short, warning.detail, warning.url, warning.level) == ("careful", ("more",), "http://u", 1)


def test_a_dockerfile_that_fails_inside_the_gateway_keeps_its_lines(
    buildkitd: Buildkitd, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo why; exit 9\n"})

    async def build(gateway: Gateway) -> GatewayResult:
        return await gateway.solve("dockerfile.v0", {"no-cache": ""}, evaluate=True)

    async def use(client: AsyncClient) -> None:
        request = SolveRequest(mounts=mounts(project), ref="gateway-fails")
        with pytest.raises(SolveError, match="exit code: 9") as caught:
            await client.solve(request, build=build)
        assert caught.value.where == "Dockerfile:2"
        assert caught.value.log_tail == ("why",)
        (event,) = await collect(client, "gateway-fails")
        assert "exit code: 9" in event.record.error

    with_client(buildkitd, use)


def test_what_the_build_callback_raises_is_what_the_caller_gets(buildkitd: Buildkitd) -> None:
    async def build(gateway: Gateway) -> GatewayResult:
        raise KeyError("mine")

    async def use(client: AsyncClient) -> None:
        started = time.monotonic()
        with pytest.raises(KeyError, match="mine"):
            await client.solve(SolveRequest(ref="callback-fails"), build=build)
        assert time.monotonic() - started < 20
        (event,) = await collect(client, "callback-fails")
        assert "mine" in event.record.error

    with_client(buildkitd, use)


def test_a_failing_export_after_the_callback_is_the_builds_failure(buildkitd: Buildkitd) -> None:
    async def build(gateway: Gateway) -> GatewayResult:
        return GatewayResult()

    request = SolveRequest(exports=(image("127.0.0.1:1/nobody/listens:1"),))
    with pytest.raises(SolveError, match="connection refused"):
        with_client(buildkitd, lambda client: client.solve(request, build=build))


def test_cancelling_ends_the_callback_too(buildkitd: Buildkitd) -> None:
    async def use(client: AsyncClient) -> None:
        ended = asyncio.Event()
        started = asyncio.Event()

        async def build(gateway: Gateway) -> GatewayResult:
            started.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            return GatewayResult()

        task = asyncio.create_task(client.solve(SolveRequest(), build=build))
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    with_client(buildkitd, use)


# ---- the synchronous client


def test_the_synchronous_client_has_the_same_answers(private_buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "x"})
    events: list[SolveStatus] = []
    with Client.connect(private_buildkitd.address) as client:
        assert client.info().package == "github.com/moby/buildkit"
        assert len(client.list_workers()) == 1
        result = client.solve(dockerfile_request(project), on_status=events.append)
        assert events
        assert result.ref in {event.record.ref for event in client.history()}
        assert client.disk_usage()
        assert list(client.prune(all=True))
        assert client.disk_usage() == ()
        with pytest.raises(SolveError):
            client.solve(SolveRequest("nothing.v0"))
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.info()


def test_the_synchronous_client_serves_several_threads(buildkitd: Buildkitd) -> None:
    with Client.connect(buildkitd.address) as client:
        answers: list[str] = []
        threads = [threading.Thread(target=lambda: answers.append(client.info().package)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers == ["github.com/moby/buildkit"] * 8


def test_the_synchronous_client_reports_an_unreachable_daemon(tmp_path: Path) -> None:
    with pytest.raises(BuilderUnreachableError):
        Client.connect(f"unix://{tmp_path}/none.sock")


def test_an_interrupt_of_the_synchronous_client_ends_the_build(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": TICKING.replace("true", "true interrupted-step")})
    script = f"""
from pathlib import Path
from cogkit.buildkit import LocalMount, SolveRequest, Client
mounts = tuple(LocalMount(name, Path({str(project)!r})) for name in ("context", "dockerfile"))
with Client.connect({buildkitd.address!r}) as client:
    def show(status):
        if status.logs:
            print("ticked", flush=True)
    client.solve(SolveRequest("dockerfile.v0", {{"no-cache": ""}}, mounts=mounts), on_status=show)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"ticked\n"
        assert _runs("true interrupted-step")
        process.send_signal(signal.SIGINT)
        assert process.wait(LOST_WITHIN) != 0
        assert process.stderr.read().rstrip().endswith(b"KeyboardInterrupt")
    deadline = time.monotonic() + 10
    while _runs("true interrupted-step"):
        assert time.monotonic() < deadline, "the step still runs at the daemon"
        time.sleep(0.05)


# ---- rawjson


def _stamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return stamp


def _message_of(event: dict[str, Any]) -> control_pb2.StatusResponse:
    """The message that the daemon sent, from the line that buildctl made of it."""
    response = control_pb2.StatusResponse()
    for vertex in event.get("vertexes", []):
        made = response.vertexes.add(digest=vertex["digest"], inputs=vertex.get("inputs", []))
        made.name, made.error = vertex.get("name", "").encode(), vertex.get("error", "").encode()
        made.cached = vertex.get("cached", False)
        for field in ("started", "completed"):
            if field in vertex:
                getattr(made, field).CopyFrom(_stamp(vertex[field]))
        if (group := vertex.get("progressGroup")) is not None:
            made.progressGroup.CopyFrom(ops_pb2.ProgressGroup(**group))
    for status in event.get("statuses", []):
        entry = response.statuses.add(ID=status["id"].encode(), vertex=status["vertex"], current=status["current"])
        entry.name, entry.total = status.get("name", "").encode(), status.get("total", 0)
        for field in ("timestamp", "started", "completed"):
            if field in status:
                getattr(entry, field).CopyFrom(_stamp(status[field]))
    for log in event.get("logs", []):
        data = base64.b64decode(log["data"] or "")
        response.logs.add(
            vertex=log["vertex"], stream=log.get("stream", 0), msg=data, timestamp=_stamp(log["timestamp"])
        )
    for warning in event.get("warnings", []):
        info = warning["sourceInfo"]
        definition = ParseDict(info["definition"], ops_pb2.Definition())
        response.warnings.add(
            vertex=warning["vertex"],
            level=warning["level"],
            short=base64.b64decode(warning["short"]),
            detail=[base64.b64decode(line) for line in warning.get("detail", [])],
            url=warning.get("url", ""),
            info=ops_pb2.SourceInfo(
                filename=info["filename"],
                data=base64.b64decode(info["data"]),
                definition=definition,
                language=info.get("language", ""),
            ),
            ranges=[
                ops_pb2.Range(start=ops_pb2.Position(**span["start"]), end=ops_pb2.Position(**span["end"]))
                for span in warning["range"]
            ],
        )
    return response


@pytest.mark.needs_newer_buildkit("--progress=rawjson and lint warnings")
def test_rawjson_lines_are_those_of_buildctl_byte_for_byte(buildctl: RunBuildctl, context_tree: MakeTree) -> None:
    """Each line of buildctl is taken back to the daemon's message; what we make of that must be the same line."""
    dockerfile = "from busybox\nWORKDIR rel\nCOPY a <b>&c\nRUN echo 'out <&>' && echo err >&2\nMAINTAINER x\n"
    project = context_tree({"Dockerfile": dockerfile, "a": "x"})
    arguments = ("build", "--frontend=dockerfile.v0", "--progress=rawjson", "--no-cache")
    done = buildctl(*arguments, f"--local=context={project}", f"--local=dockerfile={project}")
    lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
    kinds = {kind for line in lines for kind in json.loads(line)}
    assert kinds == {"vertexes", "statuses", "logs", "warnings"}
    for line in lines:
        assert to_rawjson(SolveStatus.from_proto(_message_of(json.loads(line)))) == line


# ---- builds as objects


def test_a_build_tells_its_events_and_writes_a_tar_into_an_object(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree(
        {"Dockerfile": "FROM busybox AS made\nRUN --mount=type=secret,id=s cp /run/secrets/s /made\n"
         "FROM scratch\nCOPY --from=made /made /made\n"}
    )  # fmt: skip
    stream = io.BytesIO()
    with (
        Client.connect(buildkitd.address) as client,
        client.start(dockerfile(project, no_cache=True), tar(stream), secrets={"s": b"\0of a program"}) as build,
    ):
        names = {vertex.name for event in build for vertex in event.vertexes}
        build.result()
    assert any("cp /run/secrets/s" in name for name in names)
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as archive:
        made = archive.extractfile("made")
        assert made is not None and made.read() == b"\0of a program"


def test_a_build_that_is_cancelled_ends_at_the_daemon(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo begun && sleep 987\n"})
    with Client.connect(buildkitd.address) as client:
        with client.start(dockerfile(project, no_cache=True)) as build:
            for event in build:
                if any(b"begun" in log.data for log in event.logs):
                    break
            build.cancel()
            with pytest.raises(CancelledError):
                build.result()
        assert build.done
        assert client.info().version


# ---- the example


def test_the_example_builds_an_image_in_twenty_lines(buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nCOPY a /a\n", "a": "x"})
    example = REPOSITORY / "examples" / "api.py"
    environ = {**os.environ, "BUILDKIT_HOST": buildkitd.address, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, example, project], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    *steps, digest = done.stdout.splitlines()
    assert any("COPY a /a" in step for step in steps)
    assert digest.startswith("sha256:")
    code = [line for line in example.read_text().split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 20
