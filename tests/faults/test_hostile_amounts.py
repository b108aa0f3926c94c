"""Nothing that a daemon says costs cogkit memory, threads, files or time out of proportion.

Each attack is of the kind where a little of the daemon's makes much of ours: a million values in a megabyte, a call
that is taken back as soon as it has set something going, text that is kept.  While it goes on cogkit stays within its
bounds and answers the session's health checks; afterwards it ends in time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from cogkit._proto import auth_pb2, content_pb2, gateway_pb2, rpc_status_pb2, secrets_pb2, ssh_pb2
from tests.conftest import MakeTree
from tests.e2e.test_build import COG_YAML, RUN_PY
from tests.faults.attacked import MEMORY, MIB, Cogkit, OnSession, error_of, peak_or_nothing
from tests.faults.hostile_daemon import Answer, Caller, HostileDaemon, Raw, Refused, Script
from tests.faults.running import Running
from tests.faults.test_hostile_daemon import make_key
from tests.scripted_sender import END_OF_TREE, blob, data, number, stat
from tests.unit.http2_wire import grpc_message

pytestmark = pytest.mark.one_release_is_enough

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
AUTH = "/moby.filesync.v1.Auth/"
SECRETS = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
SSH = "/moby.sshforward.v1.SSH/"
CONTENT = "/containerd.services.content.v1.Content/"
HEALTH = "/grpc.health.v1.Health/Check"

OK, UNKNOWN, INVALID, NOT_FOUND, EXHAUSTED = 0, 2, 3, 5, 8
THREADS = 60
"""Most threads of a process that a daemon attacks; a build has about twenty."""

FILES = 120
"""The same of open files."""

SILENCE = 5.0
"""Seconds in which a health check has to be answered; buildkitd waits for twice as long."""


class Watched:
    """The most that a process took while it ran."""

    def __init__(self) -> None:
        self.memory = self.threads = self.files = 0

    def run(self, running: Running) -> None:
        """Look at it until it has ended."""
        own = Path(f"/proc/{running.process.pid}")
        while running.wait_for_seconds(0.05):
            self.memory = max(self.memory, peak_or_nothing(running))
            try:
                self.threads = max(self.threads, len(os.listdir(own / "task")))
                self.files = max(self.files, len(os.listdir(own / "fd")))
            except OSError:
                continue  # it has just ended

    def require_bounds(self) -> None:
        assert 0 < self.memory < MEMORY, f"{self.memory / MIB:.0f} MiB"
        assert self.threads < THREADS, f"{self.threads} threads"
        assert self.files < FILES, f"{self.files} open files"


def attacked(cogkit: Cogkit, daemon: HostileDaemon, codes: set[int], *arguments: str, **options: Any) -> str:
    """Build on the daemon, watch the bounds and the exit code; returns what was said."""
    running = cogkit.build(daemon, *arguments, **options)
    watched = Watched()
    watched.run(running)
    running.end(codes)
    watched.require_bounds()
    return running.stderr


class Attack(OnSession):
    """An attack over the session, while health is checked."""

    async def attack(self, caller: Caller) -> None:
        checking = asyncio.create_task(self._check_health(caller))
        await self.strike(caller)
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
        await self._ask(caller)

    async def strike(self, caller: Caller) -> None:
        raise NotImplementedError

    async def _check_health(self, caller: Caller) -> None:
        while True:
            await self._ask(caller)
            await asyncio.sleep(0.5)

    @staticmethod
    async def _ask(caller: Caller) -> None:
        _, answer = await caller.start(HEALTH, b"")
        try:
            await caller.until(lambda: answer.code is not None, within=SILENCE)
        except TimeoutError:
            raise AssertionError("a health check was not answered in time") from None
        assert answer.messages == [b"\x08\x01"]


def answers_of(daemon: HostileDaemon) -> dict[str, Answer]:
    answers: dict[str, Answer] = daemon.script.answers  # type: ignore[attr-defined]
    return answers


# ------------------------------------------------------------------------------------------------ answers of the daemon

MANY = 8 << 20
"""Values of two bytes in the largest message that gRPC lets through."""


def dense(field: int, count: int = MANY - 10) -> bytes:
    """That many empty values of a repeated field."""
    return bytes((field << 3 | 2, 0)) * count


def test_an_info_of_millions_of_values_is_refused(cogkit: Cogkit) -> None:
    class Dense(Script):
        async def info(self) -> Any:
            return Raw(dense(1))

    with HostileDaemon(Dense) as daemon:
        text = attacked(cogkit, daemon, {1})
    assert "answer to Info is not credible" in error_of(text)


def _dense_result() -> bytes:
    # SolveResponse.result.attestations["a"].attestation, a million of them.
    fields = gateway_pb2.Result.DESCRIPTOR.fields_by_name["attestations"]
    entry = blob(1, b"a") + blob(2, dense(1, 4_000_000))
    return blob(gateway_pb2.SolveResponse.DESCRIPTOR.fields_by_name["result"].number, blob(fields.number, entry))


@pytest.mark.parametrize(
    ("method", "answer"),
    [("Ping", dense(1)), ("Ping", dense(3)), ("Solve", _dense_result()), ("Solve", dense(4))],
    ids=["capabilities", "workers", "attestations", "results"],
)
def test_answers_of_the_gateway_with_millions_of_values_are_refused(
    cogkit: Cogkit, context_tree: MakeTree, method: str, answer: bytes
) -> None:
    class Dense(Script):
        async def solve(self, request: Any) -> Any:
            await asyncio.Event().wait()

        async def bridge(self, called: str, request: bytes) -> bytes:
            return answer if called == method else b""

    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY}, "cog")
    with HostileDaemon(Dense) as daemon:
        text = attacked(cogkit, daemon, {1}, project=project)
    assert f"answer to {method} is not credible" in error_of(text)


ASK = """
import sys
from cogkit.buildkit import Client
from cogkit.errors import CogkitError
with Client.connect(sys.argv[1]) as client:
    for ask in (client.list_workers, client.disk_usage):
        try:
            ask()
        except CogkitError as error:
            print(error.message)
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


def test_lists_of_millions_of_workers_and_cache_records_are_refused() -> None:
    class Dense(Script):
        async def control(self, method: str, request: bytes) -> bytes:
            return dense(1)

    with HostileDaemon(Dense) as daemon:
        done = subprocess.run(
            [sys.executable, "-c", ASK, daemon.address], capture_output=True, text=True, timeout=60, check=True
        )
    workers, usage, memory = done.stdout.splitlines()
    assert "answer to ListWorkers is not credible" in workers
    assert "answer to DiskUsage is not credible" in usage
    assert int(memory) * 1024 < MEMORY


def _details() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    source = base64.b64encode(b"\n" * 3_000_000).decode()
    everything = {"start": {"line": 1}, "end": {"line": 2**31 - 1}}
    yield "ranges", [("errdefs.Source", b'{"ranges":[' + b"{}," * 3_000_000 + b"{}]}")]
    yield "unknown", [("errdefs.Source", b'{"x":[' + b"[]," * 3_000_000 + b"[]]}")]
    lines = {"info": {"filename": "Dockerfile", "data": source}, "ranges": [everything] * 10_000}
    yield "lines", [("errdefs.Source", json.dumps(lines).encode())]
    yield "sources", [("errdefs.Source", b"{}")] * 300_000
    yield "vertexes", [("errdefs.Vertex", b'{"digest":"a"}')] * 200_000


@pytest.mark.parametrize("details", [each for _, each in _details()], ids=[name for name, _ in _details()])
def test_details_of_a_failure_are_not_worth_more_than_the_failure(
    cogkit: Cogkit, details: list[tuple[str, bytes]]
) -> None:
    status = rpc_status_pb2.Status(code=2, message="m")
    for kind, value in details:
        status.details.add(type_url=f"github.com/moby/buildkit/{kind}+json", value=value)
    trailers = [("grpc-status-details-bin", status.SerializeToString())]

    class Fails(Script):
        async def solve(self, request: Any) -> Any:
            raise Refused(grpc.StatusCode.UNKNOWN, "it failed so", trailers)

    with HostileDaemon(Fails) as daemon:
        text = attacked(cogkit, daemon, {1, 3})
    assert len(text) < 100_000
    error_of(text)


# -------------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    "message",
    [b"", b"\x0a\x00", b"\x0a\x01x", b"\x0a\x00" * 90],
    ids=["empty messages", "messages of nothing", "messages of one byte", "messages of many nothings"],
)
def test_an_archive_of_tiny_messages_takes_bounded_memory(cogkit: Cogkit, tmp_path: Path, message: bytes) -> None:
    class Tiny(Attack):
        async def strike(self, caller: Caller) -> None:
            call, self.answers["tar"] = await caller.start(FILE_SEND, ends=False)
            piece = grpc_message(message) * (MIB // len(grpc_message(message)))
            for _ in range(4):
                await caller.pour(call, piece)
            await caller.pour(call, b"", ends=True)
            await caller.until(lambda: self.answers["tar"].code is not None, within=20)

    with HostileDaemon(Tiny) as daemon:
        attacked(cogkit, daemon, {0}, "-o", f"type=tar,dest={tmp_path}/out.tar")
        assert answers_of(daemon)["tar"].code == OK


def test_a_message_of_millions_of_fields_is_no_piece_of_an_archive(cogkit: Cogkit, tmp_path: Path) -> None:
    class Dense(Attack):
        async def strike(self, caller: Caller) -> None:
            call, self.answers["tar"] = await caller.start(FILE_SEND, ends=False)
            await caller.pour(call, grpc_message(b"\x0a\x00" * MANY), ends=True)
            await caller.until(lambda: self.answers["tar"].code is not None)

        async def solve(self, request: Any) -> Any:
            await super().solve(request)
            raise Refused(grpc.StatusCode.UNKNOWN, "no BytesMessage")

    with HostileDaemon(Dense) as daemon:
        attacked(cogkit, daemon, {1}, "-o", f"type=tar,dest={tmp_path}/out.tar")
        assert answers_of(daemon)["tar"].code == INVALID
    assert not (tmp_path / "out.tar").exists()


def _trees() -> Iterator[tuple[str, list[bytes]]]:
    yield "entries without content", [grpc_message(stat(b"%07d" % place, size=1)) for place in range(150_000)]
    xattrs = {b"user.%d" % place: b"" for place in range(5_000)}
    yield "attributes", [grpc_message(stat(b"%07d" % place, size=1, xattrs=xattrs)) for place in range(100)]
    one_by_one = [grpc_message(data(place, b"x")) for place in range(100)] * 2_000
    yield (
        "contents byte by byte",
        [grpc_message(stat(b"%07d" % place, size=1 << 40)) for place in range(100)] + one_by_one,
    )
    yield "a packet of millions of fields", [grpc_message(blob(2, b"\x10\x00" * 4_000_000))]


@pytest.mark.parametrize("packets", [each for _, each in _trees()], ids=[name for name, _ in _trees()])
def test_a_tree_costs_no_more_than_is_written_of_it(cogkit: Cogkit, tmp_path: Path, packets: list[bytes]) -> None:
    """Descriptions whose contents never come are kept, and take what they must; nothing else adds up."""

    class Tree(Attack):
        async def strike(self, caller: Caller) -> None:
            call, self.answers["tree"] = await caller.start(FILE_SEND, ends=False)
            first = [packet for packet in packets if len(packet) > 20][:100]
            await caller.pour(call, b"".join(packets[: len(first)]))
            await asyncio.sleep(0.5)  # until the first files were asked for
            await caller.pour(call, b"".join(packets[len(first) :]))
            await asyncio.sleep(0.5)

    with HostileDaemon(Tree) as daemon:
        # The daemon says that all is well, with a transfer that never came to its end.
        attacked(cogkit, daemon, {0, 1}, "-o", f"type=local,dest={tmp_path}/out")
    assert not [path for path in tmp_path.rglob(".cogkit-*")]


# --------------------------------------------------------------------------------------------------------------- logins


@contextmanager
def silent_server() -> Iterator[str]:
    """A token service that takes connections and says nothing; gives its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/token"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


def test_tokens_that_are_asked_for_and_taken_back_leave_no_threads(cogkit: Cogkit) -> None:
    class TakesBack(Attack):
        async def strike(self, caller: Caller) -> None:
            request = auth_pb2.FetchTokenRequest(Host="registry.example", Realm=realm).SerializeToString()
            for _ in range(400):
                call, _ = await caller.start(f"{AUTH}FetchToken", request)
                await asyncio.sleep(0.005)
                await caller.reset(call)

    with silent_server() as realm, HostileDaemon(TakesBack) as daemon:
        attacked(cogkit, daemon, {0})


def test_a_credential_helper_is_run_for_one_registry_at_a_time_and_not_for_thousands(
    cogkit: Cogkit, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    helper = programs / "docker-credential-slow"
    helper.write_text(f"#!/bin/sh\nread host\necho $host >> {tmp_path}/asked\nsleep 0.01\necho '{{}}'\n")
    helper.chmod(0o755)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text('{"credsStore": "slow"}')
    cogkit.env["DOCKER_CONFIG"] = str(tmp_path / "docker")
    cogkit.env["PATH"] = f"{programs}:{os.environ['PATH']}"

    class AsksForAll(Attack):
        def _all_answered(self) -> bool:
            return all(answer.code is not None for place, answer in self.answers.items() if not int(place) % 2)

        async def strike(self, caller: Caller) -> None:
            for place in range(600):
                request = auth_pb2.CredentialsRequest(Host=f"r{place}.example").SerializeToString()
                call, self.answers[str(place)] = await caller.start(f"{AUTH}Credentials", request)
                if place % 2:
                    await caller.reset(call)
                if place % 100 == 99:
                    await caller.until(self._all_answered)

    with HostileDaemon(AsksForAll) as daemon:
        attacked(cogkit, daemon, {0})
        codes = [answers_of(daemon)[str(place)].code for place in range(0, 600, 2)]
    assert EXHAUSTED in codes and OK in codes
    # One lookup may be under way for a call that was taken back.
    assert len((tmp_path / "asked").read_text().splitlines()) <= 410


@pytest.mark.parametrize(
    "request_fields",
    [
        {"Scopes": [""] * 400_000},
        {"Scopes": ["repository:a:pull" * 2_000]},
        {"Realm": "http://127.0.0.1:1/" + "x" * 900_000},
        {"Service": "s" * 900_000},
    ],
    ids=["scopes", "a scope", "a realm", "a service"],
)
def test_a_token_is_not_asked_for_with_megabytes(cogkit: Cogkit, request_fields: dict[str, Any]) -> None:
    fields = {"Host": "registry.example", "Realm": "http://127.0.0.1:1/", **request_fields}
    request = auth_pb2.FetchTokenRequest(**fields).SerializeToString()

    class Asks(Attack):
        async def strike(self, caller: Caller) -> None:
            for turn in range(10):
                call, answer = await caller.start(f"{AUTH}FetchToken", ends=False)
                self.answers[str(turn)] = answer
                await caller.pour(call, grpc_message(request), ends=True)
                await caller.until(lambda answer=answer: answer.code is not None)  # type: ignore[misc]

    with HostileDaemon(Asks) as daemon:
        attacked(cogkit, daemon, {0})
        assert {answer.code for answer in answers_of(daemon).values()} <= {INVALID, EXHAUSTED}


# ---------------------------------------------------------------------------------------- secrets, agents and their ids


def test_requests_of_millions_of_values_are_refused_unread(cogkit: Cogkit, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("s3cr3t")
    make_key(tmp_path / "key")
    requests = {
        SECRETS: dense(2, 500_000),
        f"{SSH}CheckAgent": blob(1, b"x" * 900_000),
        f"{AUTH}Credentials": dense(1, 500_000),
        f"{AUTH}VerifyTokenAuthority": b"x" * (3 * MIB),
        f"{AUTH}GetTokenAuthority": blob(1, b"h" * 900_000),
    }

    class Asks(Attack):
        async def strike(self, caller: Caller) -> None:
            for turn in range(20):
                for method, request in requests.items():
                    call, answer = await caller.start(method, ends=False)
                    self.answers[f"{method} {turn}"] = answer
                    await caller.pour(call, grpc_message(request), ends=True)
                    await caller.until(lambda answer=answer: answer.code is not None)  # type: ignore[misc]

    with HostileDaemon(Asks) as daemon:
        secret, ssh = f"id=mine,src={tmp_path}/value", f"git={tmp_path}/key"
        text = attacked(cogkit, daemon, {0}, "--secret", secret, "--ssh", ssh)
        assert OK not in {answer.code for answer in answers_of(daemon).values()}
    assert "s3cr3t" not in text


def test_a_secret_from_a_pipe_is_read_by_one_thread_however_often_it_is_asked_for(
    cogkit: Cogkit, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    request = secrets_pb2.GetSecretRequest(ID="piped").SerializeToString()

    class TakesBack(Attack):
        async def strike(self, caller: Caller) -> None:
            for _ in range(400):
                call, _ = await caller.start(SECRETS, request)
                await asyncio.sleep(0.005)
                await caller.reset(call)
            writing = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"s3cr3t",))
            writing.start()
            self.answers["at last"] = await caller.call(SECRETS, request)
            writing.join()

    with HostileDaemon(TakesBack) as daemon:
        attacked(cogkit, daemon, {0}, "--secret", f"id=piped,src={tmp_path}/pipe")
        (message,) = answers_of(daemon)["at last"].messages
    assert secrets_pb2.GetSecretResponse.FromString(message).data == b"s3cr3t"


def test_a_million_requests_to_an_agent_wait_for_their_turn(cogkit: Cogkit, tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    tiny = ssh_pb2.BytesMessage(data=b"\0\0\0\1\1" * 800_000).SerializeToString()

    class Floods(Attack):
        async def strike(self, caller: Caller) -> None:
            metadata = [("buildkit.ssh.id", "git")]
            for turn in range(4):
                call, self.answers[str(turn)] = await caller.start(f"{SSH}ForwardAgent", metadata=metadata, ends=False)
                await caller.pour(call, grpc_message(tiny))
            await asyncio.sleep(2)

    with HostileDaemon(Floods) as daemon:
        attacked(cogkit, daemon, {0}, "--ssh", f"git={tmp_path}/key")


# -------------------------------------------------------------------------------------------------------------- content


def _writes() -> Iterator[tuple[str, content_pb2.WriteContentRequest, int]]:
    write = content_pb2.WriteContentRequest
    digest = "sha256:" + "0" * 64
    yield "labels", write(ref="a", labels={str(place): "" for place in range(100_000)}), EXHAUSTED
    yield "a reference", write(ref="a" * 900_000), INVALID
    yield "a digest", write(ref="a", expected="sha256:" + "0" * 900_000), INVALID
    yield "an offset", write(ref="a", action=content_pb2.WRITE, offset=2**62, data=b"x"), 11
    yield "a total", write(ref="a", action=content_pb2.COMMIT, total=2**62, expected=digest, data=b"x"), 9
    yield "another digest", write(ref="a", action=content_pb2.COMMIT, expected=digest, data=b"x"), 9


@pytest.mark.parametrize(("request_", "code"), [each[1:] for each in _writes()], ids=[name for name, *_ in _writes()])
def test_a_write_that_cannot_be_is_refused_and_leaves_nothing(
    cogkit: Cogkit, tmp_path: Path, request_: content_pb2.WriteContentRequest, code: int
) -> None:
    metadata = [("buildkit-attachable-store-id", f"local:{tmp_path}/cache")]

    class Writes(Attack):
        async def strike(self, caller: Caller) -> None:
            for turn in range(5):
                call, answer = await caller.start(f"{CONTENT}Write", metadata=metadata, ends=False)
                self.answers[str(turn)] = answer
                await caller.pour(call, grpc_message(request_.SerializeToString()))
                await caller.until(lambda answer=answer: answer.code is not None)  # type: ignore[misc]

    with HostileDaemon(Writes) as daemon:
        attacked(cogkit, daemon, {0}, "--cache-to", f"type=local,dest={tmp_path}/cache")
        assert {answer.code for answer in answers_of(daemon).values()} == {code}
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_blobs_that_are_asked_for_and_taken_back_leave_no_files_open(cogkit: Cogkit, tmp_path: Path) -> None:
    metadata = [("buildkit-attachable-store-id", f"local:{tmp_path}/cache")]
    write = content_pb2.WriteContentRequest(ref="a", action=content_pb2.WRITE, data=bytes(MIB // 2))
    calls = [
        (f"{CONTENT}Read", content_pb2.ReadContentRequest(digest="sha256:" + "0" * 64).SerializeToString()),
        (f"{CONTENT}ListStatuses", b""),
    ]

    class TakesBack(Attack):
        async def strike(self, caller: Caller) -> None:
            for turn in range(150):
                write.ref = str(turn)
                call, _ = await caller.start(f"{CONTENT}Write", metadata=metadata, ends=False)
                await caller.pour(call, grpc_message(write.SerializeToString()))
                for method, request in calls:
                    await caller.start(method, request, metadata=metadata)
                await caller.reset(call)

    with HostileDaemon(TakesBack) as daemon:
        attacked(cogkit, daemon, {0}, "--cache-to", f"type=local,dest={tmp_path}/cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_writes_that_are_left_open_by_the_hundred_are_bounded_and_end_with_the_build(
    cogkit: Cogkit, tmp_path: Path
) -> None:
    metadata = [("buildkit-attachable-store-id", f"local:{tmp_path}/cache")]

    class LeavesOpen(Attack):
        async def strike(self, caller: Caller) -> None:
            for turn in range(200):
                request = content_pb2.WriteContentRequest(ref=str(turn), action=content_pb2.WRITE, data=b"x")
                _, self.answers[str(turn)] = await caller.start(
                    f"{CONTENT}Write", request.SerializeToString(), metadata=metadata, ends=False
                )
            await asyncio.sleep(1)

    with HostileDaemon(LeavesOpen) as daemon:
        attacked(cogkit, daemon, {0}, "--cache-to", f"type=local,dest={tmp_path}/cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


# ------------------------------------------------------------------------------------------------ folders, and the rest


def test_folders_that_are_asked_for_and_taken_back_leave_no_threads(cogkit: Cogkit, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"}, "large")
    for count in range(3_000):
        (project / f"file{count}").write_bytes(b"x")

    class TakesBack(Attack):
        async def strike(self, caller: Caller) -> None:
            for _ in range(300):
                call, _ = await caller.start(DIFF_COPY, metadata=[("dir-name", "context")], ends=False)
                await caller.send(call, number(1, 1) + number(3, 0))
                await asyncio.sleep(0.005)
                await caller.reset(call)

    with HostileDaemon(TakesBack) as daemon:
        attacked(cogkit, daemon, {0}, project=project)


@pytest.mark.parametrize(
    "fields",
    [
        [("include-patterns", "*a" * 60 + "b")],
        [("include-patterns", f"**/{'a?' * 50}**/b{place}") for place in range(2_000)],
        [("exclude-patterns", "**/" * 1_000 + "b")],
        [("followpaths", "*a" * 60 + "b")],
        [("followpaths", f"{'a/' * 200}{place}") for place in range(300)],
        [("include-patterns", "[" + "a-z" * 20_000 + "]")],
    ],
    ids=["stars", "many", "deep", "follow stars", "follow deep", "a class"],
)
def test_patterns_made_to_take_for_ever_do_not(
    cogkit: Cogkit, context_tree: MakeTree, fields: list[tuple[str, str]]
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"}, "names")
    for count in range(50):
        (project / f"{'a' * 200}{count}").write_bytes(b"x")

    class Asks(Attack):
        async def strike(self, caller: Caller) -> None:
            metadata = [("dir-name", "context"), *fields]
            for _ in range(3):
                call, answer = await caller.start(DIFF_COPY, metadata=metadata, ends=False)
                await asyncio.sleep(0.1)
                await caller.reset(call)
            call, answer = await caller.start(DIFF_COPY, metadata=metadata, ends=False)
            await caller.until(lambda: END_OF_TREE in answer.messages or answer.code is not None, within=60)
            await caller.reset(call)

    with HostileDaemon(Asks) as daemon:
        attacked(cogkit, daemon, {0}, project=project)


@pytest.mark.parametrize("output", [0, 1], ids=["archives", "trees"])
def test_hundreds_of_results_at_once_wait_for_their_turn(cogkit: Cogkit, tmp_path: Path, output: int) -> None:
    metadata = [("buildkit-attachable-exporter-id", str(output))]
    tree = b"".join(grpc_message(stat(b"%03d" % place, size=1 << 40)) for place in range(128))
    contents = b"".join(grpc_message(data(place, bytes(100_000))) for place in range(128))
    archive = grpc_message(blob(1, bytes(1 << 20)))

    class Many(Attack):
        async def strike(self, caller: Caller) -> None:
            calls = [(await caller.start(FILE_SEND, metadata=metadata, ends=False))[0] for _ in range(200)]
            for call in calls:
                # As much as each may send before anybody has read of it.
                await caller.pour(call, (tree if output else archive)[:60_000])
            await asyncio.sleep(0.5)
            if output:
                for call in calls[:4]:
                    await caller.pour(call, tree[60_000:] + contents)
            await asyncio.sleep(0.5)
            for call in calls:
                await caller.reset(call)

    with HostileDaemon(Many) as daemon:
        flags = ("-o", f"type=tar,dest={tmp_path}/out.tar", "-o", f"type=local,dest={tmp_path}/out")
        attacked(cogkit, daemon, {0, 1}, *flags)
    assert not [path for path in tmp_path.rglob(".cogkit-*")]


def test_archives_that_are_begun_and_taken_back_leave_nothing(cogkit: Cogkit, tmp_path: Path) -> None:
    class TakesBack(Attack):
        async def strike(self, caller: Caller) -> None:
            for turn in range(200):
                output = [("buildkit-attachable-exporter-id", str(turn % 2))]
                call, _ = await caller.start(FILE_SEND, blob(1, b"x" * 1000), metadata=output, ends=False)
                await asyncio.sleep(0.005 * (turn % 3))
                await caller.reset(call)

    with HostileDaemon(TakesBack) as daemon:
        attacked(
            cogkit, daemon, {0, 1}, "-o", f"type=tar,dest={tmp_path}/out.tar", "-o", f"type=local,dest={tmp_path}/out"
        )
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert left == [] and list((tmp_path / "out").iterdir()) == []
