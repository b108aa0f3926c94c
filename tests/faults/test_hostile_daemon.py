"""A daemon that attacks its client: what was not offered is not given, and nothing it says costs more than the build.

cogkit runs as a process against a scripted daemon.  However the daemon lies, floods or breaks the rules, the process
ends in time with the right code and one clear sentence, its memory stays bounded, and no control character of the
daemon's reaches the terminal.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cogkit._proto import auth_pb2, control_pb2, gateway_pb2, rpc_status_pb2, secrets_pb2, ssh_pb2
from tests.conftest import MakeTree
from tests.e2e.test_build import COG_YAML, RUN_PY
from tests.faults.attacked import (
    CONTROL_CHARACTERS,
    MEMORY,
    MIB,
    Cogkit,
    OnSession,
    ends,
    error_of,
    peak_memory,
    peak_or_nothing,
)
from tests.faults.hostile_daemon import Caller, HostileDaemon, Link, Raw, Refused, Script
from tests.faults.running import BOUND, Running
from tests.scripted_sender import END_OF_TREE, FIN_PACKET, blob, number, parse
from tests.unit import http2_wire as wire

pytestmark = pytest.mark.one_release_is_enough

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
UNKNOWN, NOT_FOUND, UNIMPLEMENTED, INTERNAL = 2, 5, 12, 13

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b5n\u202egnp.exe\r\x08\x00evil"


# ------------------------------------------------------------------------------------------------ what was not offered


def test_folders_that_were_not_offered_are_refused(cogkit: Cogkit) -> None:
    names = ("/", "/etc", "..", "context/..", "context/", "./context", "CONTEXT", "", "cog_build", "x" * 5000)

    class Attack(OnSession):
        async def attack(self, caller: Caller) -> None:
            for name in names:
                self.answers[name] = await caller.call(DIFF_COPY, metadata=[("dir-name", name)], ends=False)
            self.answers["none"] = await caller.call(DIFF_COPY, ends=False)

    with HostileDaemon(Attack) as daemon:
        ends(cogkit.build(daemon), 0)
        answers = daemon.script.answers  # type: ignore[attr-defined]
    assert {answer.code for answer in answers.values()} == {NOT_FOUND}
    assert not any(answer.messages for answer in answers.values())
    assert not any(str(cogkit.project) in answer.text for answer in answers.values())


def test_a_refusal_is_told_when_the_daemon_tells_only_that_it_was_cancelled(cogkit: Cogkit) -> None:
    class Attack(OnSession):
        async def attack(self, caller: Caller) -> None:
            await caller.call(DIFF_COPY, metadata=[("dir-name", "other")], ends=False)
            raise Refused(grpc.StatusCode.CANCELLED, "context canceled")

    with HostileDaemon(Attack) as daemon:
        assert error_of(ends(cogkit.build(daemon), 1)) == 'error: failed to solve: no access allowed to dir "other"'


async def received(caller: Caller, *metadata: tuple[str, str]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Everything that a folder gives to one who asks for all: link targets by path, content by path."""
    call, answer = await caller.start(DIFF_COPY, metadata=metadata, ends=False)
    await caller.until(lambda: END_OF_TREE in answer.messages or answer.code is not None)
    if answer.code is not None:
        return {}, {}
    stats = [_stat(message) for message in answer.messages[: answer.messages.index(END_OF_TREE)]]
    files = [id for id, (_, mode, _) in enumerate(stats) if not mode & 0x8F28_0000]
    for id in files:
        await caller.send(call, number(1, 1) + number(3, id))

    def ended() -> set[int]:
        packets = [parse(message) for message in answer.messages]
        return {id for kind, id, data in packets if kind == 2 and not data}

    await caller.until(lambda: ended() == set(files) or answer.code is not None)
    content: dict[bytes, bytes] = {}
    for kind, id, data in map(parse, answer.messages):
        if kind == 2:
            content[stats[id][0]] = content.get(stats[id][0], b"") + data
    await caller.send(call, FIN_PACKET)
    await caller.until(lambda: answer.code is not None)
    return {path: link for path, _, link in stats}, content


def _stat(packet: bytes) -> tuple[bytes, int, bytes]:
    """Path, mode and link name of a STAT packet."""
    from cogkit._proto import fsutil_pb2

    stat = fsutil_pb2.Packet.FromString(packet).stat
    return stat.path, stat.mode, stat.linkname


def test_paths_that_leave_an_offered_folder_lead_nowhere(
    cogkit: Cogkit, tmp_path: Path, context_tree: MakeTree
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("outside")
    project = context_tree({"Dockerfile": "FROM scratch\n", ".cog/secret": "hidden", "a": "1"}, "other")
    (project / "link").symlink_to(tmp_path / "outside")
    (project / "up").symlink_to("../outside/secret")
    (project / "to-cog").symlink_to(".cog")
    wanted = ["../outside/secret", "/etc/passwd", "link/secret", "up", "to-cog/secret", ".cog/secret", "a/../.cog", "."]
    patterns = ["**", "../**", "/etc", ".cog", ".cog/**", "!x", "link/*"]

    class Attack(OnSession):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[dict[bytes, bytes], dict[bytes, bytes]]] = []

        async def attack(self, caller: Caller) -> None:
            context = ("dir-name", "context")
            self.seen.append(await received(caller, context))
            self.seen.append(await received(caller, context, *(("followpaths", path) for path in wanted)))
            self.seen.append(await received(caller, context, *(("include-patterns", path) for path in patterns)))
            for path in wanted:
                self.seen.append(await received(caller, context, ("followpaths", path)))
                self.seen.append(await received(caller, context, ("include-patterns", path)))
            self.seen.append(await received(caller, ("dir-name", "dockerfile"), ("include-patterns", "**")))

    with HostileDaemon(Attack) as daemon:
        ends(cogkit.build(daemon, project=project), 0)
        seen = daemon.script.seen  # type: ignore[attr-defined]
    assert seen[0][1] == {b"Dockerfile": b"FROM scratch\n", b"a": b"1"}
    for links, content in seen:
        assert set(content.values()) <= {b"FROM scratch\n", b"1"}
        assert set(links) <= {b"Dockerfile", b"a", b"link", b"up", b"to-cog"}
    assert seen[-1][1] == {b"Dockerfile": b"FROM scratch\n"}


def test_a_file_can_be_had_once_and_only_as_it_was_described(cogkit: Cogkit) -> None:
    class Attack(OnSession):
        async def attack(self, caller: Caller) -> None:
            for name, id in (("a folder", 2), ("not there", 7), ("huge", 2**32 - 1)):
                call, answer = await caller.start(DIFF_COPY, metadata=[("dir-name", "context")], ends=False)
                await caller.until(lambda answer=answer: END_OF_TREE in answer.messages)  # type: ignore[misc]
                await caller.send(call, number(1, 1) + number(3, id))
                await caller.until(lambda answer=answer: answer.code is not None)  # type: ignore[misc]
                self.answers[name] = answer

    with HostileDaemon(Attack) as daemon:
        ends(cogkit.build(daemon), 0)
        answers = daemon.script.answers  # type: ignore[attr-defined]
    assert {answer.text for answer in answers.values()} == {
        "invalid file id 2",
        "invalid file id 7",
        "invalid file id 4294967295",
    }


def test_services_that_were_not_offered_do_not_exist(cogkit: Cogkit) -> None:
    methods = [
        "/moby.buildkit.secrets.v1.Secrets/GetSecret",
        "/moby.sshforward.v1.SSH/CheckAgent",
        "/moby.sshforward.v1.SSH/ForwardAgent",
        "/moby.upload.v1.Upload/Pull",
        "/containerd.services.content.v1.Content/Info",
        "/containerd.services.content.v1.Content/Read",
        FILE_SEND,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/",
        "/a/b/c",
        "/" + "x" * 60_000,
    ]

    class Attack(OnSession):
        async def attack(self, caller: Caller) -> None:
            for method in methods:
                self.answers[method] = await caller.call(method, b"\x0a\x01a")

    with HostileDaemon(Attack) as daemon:
        ends(cogkit.build(daemon), 0)
        answers = daemon.script.answers  # type: ignore[attr-defined]
    assert {method for method, answer in answers.items() if answer.code != UNIMPLEMENTED} == set()


def test_secrets_and_agents_that_were_not_offered_are_refused(cogkit: Cogkit, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("s3cr3t")
    (tmp_path / "other").write_text("0ther")
    ids = ["other", "../other", str(tmp_path / "other"), "HOME", "", "mine/..", "MINE"]

    class Attack(OnSession):
        async def attack(self, caller: Caller) -> None:
            for id in ids:
                secret = secrets_pb2.GetSecretRequest(ID=id).SerializeToString()
                self.answers[f"secret {id}"] = await caller.call("/moby.buildkit.secrets.v1.Secrets/GetSecret", secret)
                agent = ssh_pb2.CheckAgentRequest(ID=id or "x").SerializeToString()
                self.answers[f"agent {id}"] = await caller.call("/moby.sshforward.v1.SSH/CheckAgent", agent)
                self.answers[f"forward {id}"] = await caller.call(
                    "/moby.sshforward.v1.SSH/ForwardAgent", metadata=[("buildkit.ssh.id", id or "x")], ends=False
                )
            mine = secrets_pb2.GetSecretRequest(ID="mine").SerializeToString()
            self.answers["mine"] = await caller.call("/moby.buildkit.secrets.v1.Secrets/GetSecret", mine)

    key = tmp_path / "key"
    make_key(key)
    with HostileDaemon(Attack) as daemon:
        text = ends(cogkit.build(daemon, "--secret", f"id=mine,src={tmp_path}/value", "--ssh", f"git={key}"), 0)
        answers = daemon.script.answers  # type: ignore[attr-defined]
    assert secrets_pb2.GetSecretResponse.FromString(answers.pop("mine").messages[0]).data == b"s3cr3t"
    assert {answer.code for answer in answers.values()} <= {NOT_FOUND, UNKNOWN}
    assert not any(answer.messages for answer in answers.values())
    assert "s3cr3t" not in text + "".join(answer.text for answer in answers.values())


def make_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)


def test_logins_of_other_registries_stay_here(cogkit: Cogkit, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    login = {"auths": {"registry.example": {"username": "me", "password": "p4ssw0rd"}}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps(login))
    cogkit.env["DOCKER_CONFIG"] = str(tmp_path / "docker")
    hosts = ["other.example", "registry.example.evil.example", "", "registry.example/..", "a@registry.example", "*"]

    class Attack(OnSession):
        async def attack(self, caller: Caller) -> None:
            for host in hosts:
                request = auth_pb2.CredentialsRequest(Host=host).SerializeToString()
                self.answers[host] = await caller.call("/moby.filesync.v1.Auth/Credentials", request)

    with HostileDaemon(Attack) as daemon:
        ends(cogkit.build(daemon), 0)
        answers = daemon.script.answers  # type: ignore[attr-defined]
    for answer in answers.values():
        assert "p4ssw0rd" not in answer.text
        for message in answer.messages:
            assert message in (b"", auth_pb2.CredentialsResponse().SerializeToString())


def test_outputs_that_were_not_asked_for_are_not_written(cogkit: Cogkit, tmp_path: Path) -> None:
    ids = ["1", "2", "-1", "99999999999999999999", "0x0", "a", "", "../0"]

    class Attack(OnSession):
        async def attack(self, caller: Caller) -> None:
            for id in ids:
                self.answers[id] = await caller.call(
                    FILE_SEND, blob(1, b"evil"), metadata=[("buildkit-attachable-exporter-id", id)]
                )
            self.answers["unasked"] = await caller.call(FILE_SEND, blob(1, b"evil"))
            self.answers["twice"] = await caller.call(FILE_SEND, blob(1, b"evil"))

        async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
            await super().solve(request)
            raise Refused(grpc.StatusCode.UNKNOWN, "and now it fails")

    (tmp_path / "out.tar").write_text("old")
    with HostileDaemon(Attack) as daemon:
        ends(cogkit.build(daemon, "-o", f"type=tar,dest={tmp_path}/out.tar"), 1)
        answers = daemon.script.answers  # type: ignore[attr-defined]
    # What came unasked is an archive like any other, and has no name before the build has succeeded.
    assert answers.pop("unasked").code == 0
    assert "twice" in answers.pop("twice").text
    assert {answer.code for answer in answers.values()} == {NOT_FOUND}
    assert (tmp_path / "out.tar").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["out.tar"]


# -------------------------------------------------------------------------------------------- bytes that are no session


class Says(Script):
    """Sends bytes on the session, then waits for what cogkit does."""

    bytes_to_say: Callable[[], Iterator[bytes]]

    async def session(self, link: Link) -> None:
        for piece in type(self).bytes_to_say():
            await link.write(piece)
        await link.read_all()

    async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
        await asyncio.Event().wait()
        return control_pb2.SolveResponse()


def saying(*pieces: bytes, times: int = 1) -> type[Says]:
    def say() -> Iterator[bytes]:
        for _ in range(times):
            yield from pieces

    return type("Attack", (Says,), {"bytes_to_say": staticmethod(say)})


OPENING = wire.opening()
MALFORMED = {
    "noise": saying(os.urandom(1000)),
    "an answer of HTTP/1": saying(b"HTTP/1.1 200 OK\r\n\r\n"),
    "a frame of 16 MiB": saying(OPENING, b"\xff\xff\xff\x00\x00" + bytes(4), bytes(MIB), times=1),
    "data before headers": saying(OPENING, wire.data(1, b"x")),
    "data on stream 0": saying(OPENING, wire.data(0, b"x")),
    "headers inside headers": saying(OPENING, wire.headers(1, flags=0), wire.headers(3)),
    "a continuation of nothing": saying(OPENING, wire.frame(wire.CONTINUATION, 4, 1)),
    "streams backwards": saying(OPENING, wire.headers(5), wire.headers(3)),
    "a stream of the server's": saying(OPENING, wire.headers(2)),
    "a promise": saying(OPENING, wire.frame(wire.PUSH_PROMISE, 4, 1, bytes(4))),
    "settings of 5 bytes": saying(OPENING, wire.frame(wire.SETTINGS, payload=bytes(5))),
    "a window that overflows": saying(OPENING, wire.window_update(0, 2**31 - 1)),
    "headers that cannot be decoded": saying(OPENING, wire.frame(wire.HEADERS, 5, 1, b"\xff" * 50)),
    "headers without end": saying(
        OPENING, wire.frame(wire.HEADERS, 0, 1), *[wire.frame(wire.CONTINUATION, 0, 1, bytes(16_000))] * 300
    ),
    "a list of headers that explodes": saying(
        OPENING,
        wire.frame(wire.HEADERS, 4, 1, b"\x40\x01x\x7f\x81\x1e" + b"v" * 4000 + b"\xbe" * 10_000),
    ),
    "pings without end": saying(OPENING, *[wire.frame(wire.PING, payload=bytes(8)) * 1000] * 20),
    "calls that are reset at once, without end": saying(
        OPENING,
        *(
            b"".join(
                wire.headers(number, [*wire.CALL[:2], (":path", DIFF_COPY), *wire.CALL[3:], ("dir-name", "context")])
                + wire.rst_stream(number)
                for number in range(start, start + 200, 2)
            )
            for start in range(1, 20_001, 200)
        ),
    ),
    "data on a stream that is over": saying(
        OPENING, wire.headers(1, flags=5), wire.rst_stream(1), *[wire.data(1, bytes(16_000))] * 100
    ),
    "frames of unknown kinds": saying(OPENING, *[wire.frame(99, 0, 1, bytes(100)) * 100] * 200),
}


@pytest.mark.parametrize("attack", MALFORMED.values(), ids=MALFORMED.keys())
def test_bytes_that_break_the_protocol_end_the_build_in_clear_words(cogkit: Cogkit, attack: type[Says]) -> None:
    with HostileDaemon(attack) as daemon:
        running = cogkit.build(daemon)
        text = ends(running, 1)
    assert error_of(text).startswith("error: the builder broke the session's protocol: ")


def test_compressed_messages_are_refused_before_they_are_expanded(cogkit: Cogkit) -> None:
    bomb = gzip.compress(bytes(50 * MIB), 9)

    class Attack(OnSession):
        async def attack(self, caller: Caller) -> None:
            fields = [("grpc-encoding", "gzip"), ("dir-name", "context")]
            self.answers["bomb"] = await caller.call(DIFF_COPY, bomb, metadata=fields, compressed=True, ends=False)
            self.answers["unnamed"] = await caller.call(
                DIFF_COPY, bomb, metadata=fields[1:], compressed=True, ends=False
            )

    with HostileDaemon(Attack) as daemon:
        ends(cogkit.build(daemon), 0)
        answers = daemon.script.answers  # type: ignore[attr-defined]
    assert answers["bomb"].code == UNIMPLEMENTED and "compression" in answers["bomb"].text
    assert answers["unnamed"].code == INTERNAL


def test_ten_thousand_streams_cost_little_and_the_build_goes_on(cogkit: Cogkit) -> None:
    peaks: list[int] = []
    running: list[Running] = []

    class Attack(Script):
        async def session(self, link: Link) -> None:
            fields = [*wire.CALL[:2], (":path", DIFF_COPY), *wire.CALL[3:], ("dir-name", "context")]
            await link.write(OPENING)
            # Each is useful as far as cogkit can tell: a call that waits, or one that is answered with a refusal.
            for start in range(1, 20_000, 200):
                numbers = range(start, start + 200, 2)
                block = wire.literal_block(fields)
                await link.write(b"".join(wire.frame(wire.HEADERS, 4, number, block) for number in numbers))
            await asyncio.sleep(1)
            peaks.append(peak_memory(running[0]))
            self.link.set_result(link)
            await self.over.wait()

        async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
            await self.link
            return control_pb2.SolveResponse()

    with HostileDaemon(Attack) as daemon:
        running.append(cogkit.build(daemon))
        code, _ = running[0].end({0, 1})
        text = running[0].stderr
    # Refusals by the thousand are a flood, and may end it; then in clear words.
    assert code == 0 or "broke the session's protocol: a flood" in text, text
    assert not peaks or peaks[0] < MEMORY


def test_windows_that_never_open_hold_up_the_build_and_no_memory(cogkit: Cogkit, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"}, "large")
    for count in range(2000):
        (project / f"{'n' * 100}{count}").write_bytes(b"x")
    with (project / "big").open("wb") as file:
        file.truncate(4 << 30)

    class Attack(Script):
        async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
            caller = Caller(await self.link, window=0, reads=False)
            await caller.open()
            for _ in range(250):
                call, _ = await caller.start(DIFF_COPY, metadata=[("dir-name", "context")], ends=False)
                for id in range(3):
                    await caller.send(call, number(1, 1) + number(3, id))
            await asyncio.Event().wait()
            return control_pb2.SolveResponse()

    with HostileDaemon(Attack) as daemon:
        running = cogkit.build(daemon, project=project)
        assert running.wait_for_seconds(6)
        memory = peak_memory(running)
        running.interrupt(signal.SIGINT)
        ends(running, 130)
    assert memory < MEMORY, f"{memory / MIB:.0f} MiB"


# ------------------------------------------------------------------------------------------------ answers that are none


def test_a_solve_that_never_ends_can_be_interrupted(cogkit: Cogkit) -> None:
    class Attack(Script):
        async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
            await asyncio.Event().wait()
            return control_pb2.SolveResponse()

    with HostileDaemon(Attack) as daemon:
        running = cogkit.build(daemon)
        assert running.wait_for_seconds(6), running.stderr
        running.interrupt(signal.SIGTERM)
        assert error_of(ends(running, 130)) == "error: interrupted"


def test_a_daemon_that_answers_nothing_any_more_is_lost(cogkit: Cogkit) -> None:
    asked = threading.Event()

    class Attack(Script):
        async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
            asked.set()
            await asyncio.Event().wait()
            return control_pb2.SolveResponse()

        async def info(self) -> control_pb2.InfoResponse:
            if asked.is_set():
                await asyncio.Event().wait()
            return control_pb2.InfoResponse()

        async def status(self, request: control_pb2.StatusRequest) -> AsyncIterator[control_pb2.StatusResponse]:
            # A flood of news is no answer: it can come from one that hears nothing.
            while True:
                yield control_pb2.StatusResponse()
                await asyncio.sleep(0.1)

    with HostileDaemon(Attack) as daemon:
        running = cogkit.build(daemon)
        assert asked.wait(60)
        assert "has not answered for 4 seconds" in error_of(ends(running, 3))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED, None])
def test_a_session_that_is_not_taken_ends_the_build(cogkit: Cogkit, code: grpc.StatusCode | None) -> None:
    class Attack(Script):
        async def session(self, link: Link) -> None:
            if code is not None:
                raise Refused(code, "no session here")

        async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
            await asyncio.Event().wait()
            return control_pb2.SolveResponse()

    with HostileDaemon(Attack) as daemon:
        text = error_of(ends(cogkit.build(daemon), 3))
    assert daemon.address in text
    reasons = ["it ended the session"] + (["no session here"] if code is not None else [])
    assert any(reason in text for reason in reasons), text


def test_a_status_stream_that_stays_open_after_the_build_is_given_up(cogkit: Cogkit) -> None:
    class Attack(Script):
        async def status(self, request: control_pb2.StatusRequest) -> AsyncIterator[control_pb2.StatusResponse]:
            await asyncio.Event().wait()
            yield control_pb2.StatusResponse()

    with HostileDaemon(Attack) as daemon:
        running = cogkit.build(daemon)
        running.end({0})


def test_a_status_stream_that_goes_on_for_ever_after_the_build_is_given_up(cogkit: Cogkit) -> None:
    class Attack(Script):
        async def status(self, request: control_pb2.StatusRequest) -> AsyncIterator[control_pb2.StatusResponse]:
            while True:
                yield control_pb2.StatusResponse(vertexes=[control_pb2.Vertex(digest="sha256:a", name=b"step")])
                await asyncio.sleep(0.2)

    with HostileDaemon(Attack) as daemon:
        running = cogkit.build(daemon)
        time.sleep(1)
        running.mark()
        # The build is over; news of it may come for a while, not for ever.
        code, _ = _within(running, 2 * BOUND)
        assert code == 0


def _within(running: Running, seconds: float) -> tuple[int, None]:
    deadline = time.monotonic() + seconds
    while not running.ended:
        assert time.monotonic() < deadline, f"still running after {seconds} s"
        time.sleep(0.05)
    return running.process.returncode, None


GARBAGE = b"\xff\xff\xff\xff\x07garbage"


def answering(**answers: bytes) -> type[Script]:
    """A script that answers calls with these bytes."""

    class Attack(Script):
        async def solve(self, request: control_pb2.SolveRequest) -> Any:
            return Raw(answers["solve"]) if "solve" in answers else await asyncio.Event().wait()

        async def info(self) -> Any:
            return Raw(answers.get("info", b""))

        async def status(self, request: control_pb2.StatusRequest) -> Any:
            if "status" in answers:
                yield Raw(answers["status"])
            await self.over.wait()

    return Attack


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        pytest.param(answering(info=GARBAGE), 3, id="info"),
        pytest.param(answering(solve=GARBAGE), 1, id="solve"),
        pytest.param(answering(status=GARBAGE), 1, id="status"),
        # A field that must be UTF-8 and is not: the digest of a vertex, a key of the exporter's response.
        pytest.param(answering(status=blob(1, blob(1, b"\xff\xfe"))), 1, id="status with bad text"),
        pytest.param(answering(solve=blob(1, blob(1, b"\xff") + blob(2, b"\xff"))), 1, id="solve with bad text"),
    ],
)
def test_answers_that_cannot_be_read_end_the_build_in_clear_words(
    cogkit: Cogkit, attack: type[Script], code: int
) -> None:
    with HostileDaemon(attack) as daemon:
        text = error_of(ends(cogkit.build(daemon), code))
    assert daemon.address in text or "builder" in text


# -------------------------------------------------------------------------------------------------- what is shown of it


def event(**fields: Any) -> control_pb2.StatusResponse:
    return control_pb2.StatusResponse(**fields)


class Tells(Script):
    """Tells events, then ends the build."""

    events: list[control_pb2.StatusResponse]
    response: dict[str, str]
    failure: Refused | None = None

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    async def status(self, request: control_pb2.StatusRequest) -> AsyncIterator[control_pb2.StatusResponse]:
        for each in type(self).events:
            yield each
        self.told.set()
        await self.over.wait()

    async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
        await self.told.wait()
        if (failure := type(self).failure) is not None:
            raise failure
        return control_pb2.SolveResponse(ExporterResponse=type(self).response)


def telling(
    *events: control_pb2.StatusResponse, response: dict[str, str] | None = None, failure: Refused | None = None
) -> type[Tells]:
    return type("Attack", (Tells,), {"events": list(events), "response": response or {}, "failure": failure})


def _evil_events() -> list[control_pb2.StatusResponse]:
    text = EVIL.encode()
    vertex = control_pb2.Vertex(digest=EVIL, name=text + b"\xff\xfe", error=b"")
    vertex.started.seconds = 1
    failed = control_pb2.Vertex(digest=EVIL, name=text, error=text + b"\xff")
    failed.started.seconds, failed.completed.seconds = 1, 2
    group = control_pb2.Vertex(digest="b", name=text)
    group.progressGroup.id, group.progressGroup.name = EVIL, EVIL
    group.started.seconds = 1
    status = control_pb2.VertexStatus(ID=text, vertex=EVIL, name=text, current=-(2**63), total=2**63 - 1)
    status.started.seconds = 1
    log = control_pb2.VertexLog(vertex=EVIL, stream=9, msg=text + b"\xff\n" + text + b"\r\n\x1b[")
    warning = control_pb2.VertexWarning(vertex=EVIL, level=1, short=text, detail=[text], url=EVIL)
    warning.info.filename, warning.info.data = EVIL, text
    warning.ranges.add().start.line = 2**31 - 1
    return [
        event(vertexes=[vertex, group]),
        event(statuses=[status], logs=[log], warnings=[warning]),
        event(vertexes=[failed]),
    ]


@pytest.mark.parametrize("mode", ["plain", "quiet", "rawjson"])
def test_no_control_character_of_the_daemon_reaches_the_terminal(cogkit: Cogkit, mode: str) -> None:
    status = rpc_status_pb2.Status(code=2, message=EVIL)
    source = json.dumps({"info": {"filename": EVIL, "data": "AQI="}, "ranges": [{"start": {"line": 1}}]})
    status.details.add(type_url="github.com/moby/buildkit/errdefs.Source+json", value=source.encode())
    vertex = json.dumps({"digest": EVIL})
    status.details.add(type_url="github.com/moby/buildkit/errdefs.Vertex+json", value=vertex.encode())
    trailers = [("grpc-status-details-bin", status.SerializeToString())]
    failure = Refused(grpc.StatusCode.UNKNOWN, EVIL, trailers)
    with HostileDaemon(telling(*_evil_events(), failure=failure)) as daemon:
        running = cogkit.build(daemon, "--progress", mode)
        running.end({1})
    text = running.stderr
    if mode == "rawjson":
        # There everything is data; what a terminal obeys is escaped by JSON, but for characters above it.
        text = "\n".join(line for line in text.splitlines() if not line.startswith("{"))
    assert not CONTROL_CHARACTERS.search(text), repr(text)
    assert "evil" in text


@pytest.mark.parametrize(
    "response",
    [
        {"containerimage.digest": EVIL, "image.name": EVIL},
        {"containerimage.digest": "sha256:" + "0" * 3_000_000},
        {"containerimage.digest": "", "containerimage.config.digest": "", "image.name": ",,,"},
        {"containerimage.digest": "../../etc/passwd", "containerimage.config.digest": "sha256:zz"},
        {"containerimage.descriptor": "bm90IGpzb24=", "containerimage.digest": "md5:00"},
        {"containerimage.descriptor": "W1tbW1tbW1tb" * 30_000},
        {f"key{number}": "x" * 100 for number in range(20_000)},
    ],
    ids=["escapes", "huge", "empty", "a path", "no json", "deep json", "many"],
)
def test_a_result_that_lies_is_not_taken_for_one(cogkit: Cogkit, tmp_path: Path, response: dict[str, str]) -> None:
    with HostileDaemon(telling(response=response)) as daemon:
        running = cogkit.build(
            daemon, "-t", "x", "--iidfile", f"{tmp_path}/iid", "--metadata-file", f"{tmp_path}/metadata"
        )
        code, _ = running.end({0, 1})
    assert not CONTROL_CHARACTERS.search(running.stderr), repr(running.stderr[:500])
    assert len(running.stderr) < 10_000
    digest = response.get("containerimage.digest")
    if digest is not None:
        assert code == 1 and "digest" in error_of(running.stderr), running.stderr
        assert not (tmp_path / "iid").exists()
    else:
        json.loads((tmp_path / "metadata").read_text())


def test_a_result_of_many_megabytes_is_refused(cogkit: Cogkit) -> None:
    with HostileDaemon(telling(response={f"key{number}": "x" * 100 for number in range(50_000)})) as daemon:
        text = error_of(ends(cogkit.build(daemon), 1))
    assert "not credible" in text


def _wild_events() -> Iterator[tuple[str, list[control_pb2.StatusResponse]]]:
    def at(seconds: int, nanos: int = 0, **fields: Any) -> control_pb2.Vertex:
        vertex = control_pb2.Vertex(digest="sha256:a", name=b"step", **fields)
        vertex.started.seconds, vertex.started.nanos = seconds, nanos
        return vertex

    yield "after the year 9999", [event(vertexes=[at(10**15)])]
    yield "before the year 1", [event(vertexes=[at(-(10**15))])]
    yield "the largest number", [event(vertexes=[at(2**63 - 1, 2**31 - 1)])]
    yield "negative nanoseconds", [event(vertexes=[at(1, -5)])]
    yield "a vertex in itself", [event(vertexes=[at(1, inputs=["sha256:a"] * 1000)])]
    ended = at(5)
    ended.completed.seconds = 1
    yield "ended before it began", [event(vertexes=[ended])]
    yield "a log of nobody", [event(logs=[control_pb2.VertexLog(vertex="sha256:none", msg=b"x\n")])]
    yield "nothing", [event()]
    never = control_pb2.VertexLog(vertex="sha256:a", msg=b"x\n")
    never.timestamp.seconds = -(2**62)
    yield "a log of long ago", [event(vertexes=[at(1)]), event(logs=[never])]


@pytest.mark.parametrize("mode", ["plain", "rawjson"])
@pytest.mark.parametrize("events", [each for _, each in _wild_events()], ids=[name for name, _ in _wild_events()])
def test_events_that_cannot_be_are_endured(cogkit: Cogkit, events: list[control_pb2.StatusResponse], mode: str) -> None:
    with HostileDaemon(telling(*events)) as daemon:
        running = cogkit.build(daemon, "--progress", mode)
        running.end({0})


# ------------------------------------------------------------------------------------------------------------- floods


class Floods(Script):
    """Tells the same over and over until cogkit has ended, or for some seconds."""

    seconds = 4.0

    def make(self, number: int) -> control_pb2.StatusResponse:
        raise NotImplementedError

    async def status(self, request: control_pb2.StatusRequest) -> AsyncIterator[control_pb2.StatusResponse]:
        vertex = control_pb2.Vertex(digest="sha256:a", name=b"step")
        vertex.started.seconds = 1
        yield event(vertexes=[vertex])
        deadline, number = time.monotonic() + self.seconds, 0
        while time.monotonic() < deadline:
            number += 1
            yield self.make(number)
        self.over.set()

    async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
        await self.over.wait()
        return control_pb2.SolveResponse()


class FloodOfLogs(Floods):
    def make(self, number: int) -> control_pb2.StatusResponse:
        log = control_pb2.VertexLog(vertex="sha256:a", msg=b"x" * 79 + b"\n")
        return event(logs=[log] * 5_000)


class FloodOfOneLine(Floods):
    def make(self, number: int) -> control_pb2.StatusResponse:
        return event(logs=[control_pb2.VertexLog(vertex="sha256:a", msg=b"x" * 500_000)])


class FloodOfVertexes(Floods):
    def make(self, number: int) -> control_pb2.StatusResponse:
        vertexes = []
        for each in range(2_000):
            vertex = control_pb2.Vertex(digest=f"sha256:{number:032x}{each:032x}", name=b"n" * 200)
            vertex.started.seconds = 1
            vertexes.append(vertex)
        return event(vertexes=vertexes)


class FloodOfTransfers(Floods):
    def make(self, number: int) -> control_pb2.StatusResponse:
        statuses = []
        for each in range(2_000):
            status = control_pb2.VertexStatus(ID=b"%d/%d" % (number, each), vertex="sha256:a", name=b"n" * 200)
            status.started.seconds = 1
            statuses.append(status)
        return event(statuses=statuses)


class FloodOfIntervals(Floods):
    def make(self, number: int) -> control_pb2.StatusResponse:
        vertexes = []
        for each in range(2_000):
            vertex = control_pb2.Vertex(digest="sha256:a", name=b"step")
            vertex.started.seconds, vertex.started.nanos = 1 + number, 1000 * each
            vertex.completed.seconds, vertex.completed.nanos = 1 + number, 1000 * each + 1
            vertexes.append(vertex)
        return event(vertexes=vertexes)


class FloodOfWarnings(Floods):
    def make(self, number: int) -> control_pb2.StatusResponse:
        return event(warnings=[control_pb2.VertexWarning(vertex="sha256:a", short=b"w" * 1000)] * 1_000)


FLOODS = [FloodOfLogs, FloodOfOneLine, FloodOfVertexes, FloodOfTransfers, FloodOfIntervals, FloodOfWarnings]


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_news_stays_in_bounded_memory(cogkit: Cogkit, flood: type[Floods]) -> None:
    with HostileDaemon(flood) as daemon:
        running = cogkit.build(daemon)
        peak = 0
        while running.wait_for_seconds(0.05):
            peak = max(peak, peak_or_nothing(running))
        code, _ = running.end({0, 1})
    assert peak < MEMORY, f"{peak / MIB:.0f} MiB"
    assert code == 0 or "more" in error_of(running.stderr)


@pytest.mark.parametrize("mode", ["plain", "rawjson"])
def test_a_flood_that_nobody_reads_stays_in_bounded_memory(cogkit: Cogkit, mode: str) -> None:
    with HostileDaemon(FloodOfLogs) as daemon:
        running = cogkit.build(daemon, "--progress", mode)
        running.stop_reading()
        assert running.wait_for_seconds(FloodOfLogs.seconds + 1)
        peak = peak_memory(running)
        running.interrupt(signal.SIGINT)
        # It has no way to say anything, and ends all the same.
        assert running.process.wait(BOUND) == 130
    assert peak < MEMORY, f"{peak / MIB:.0f} MiB"


def test_a_message_that_explodes_is_refused_in_bounded_memory(cogkit: Cogkit) -> None:
    class Attack(Script):
        async def status(self, request: control_pb2.StatusRequest) -> AsyncIterator[control_pb2.StatusResponse]:
            yield event(logs=[control_pb2.VertexLog(vertex="sha256:a", msg=bytes(100 * MIB))])

        async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
            await asyncio.Event().wait()
            return control_pb2.SolveResponse()

    with HostileDaemon(Attack, compression=grpc.Compression.Gzip) as daemon:
        running = cogkit.build(daemon)
        peak = 0
        while running.wait_for_seconds(0.01):
            peak = max(peak, peak_or_nothing(running))
        running.end({1})
    assert peak < MEMORY, f"{peak / MIB:.0f} MiB"


def _bad_details() -> Iterator[tuple[str, bytes]]:
    def of(kind: str, value: bytes) -> bytes:
        status = rpc_status_pb2.Status(code=2, message="m")
        status.details.add(type_url=f"github.com/moby/buildkit/{kind}+json", value=value)
        return bytes(status.SerializeToString())

    yield "no status", b"\xff\xff\xff"
    yield "no json", of("errdefs.Source", b"{")
    yield "not utf-8", of("errdefs.Source", b'{"info":"\xff"}')
    yield "deep", of("errdefs.Source", b'{"info":{"definition":' * 900 + b"1" + b"}}" * 900)
    yield "deeper", of("errdefs.Source", b"[" * 100_000)
    yield "a list", of("errdefs.Vertex", b"[]")
    yield "numbers", of("errdefs.Source", b'{"ranges":[{"start":{"line":99999999999999999999}}]}')
    yield (
        "lines that are not there",
        of("errdefs.Source", b'{"info":{"data":"QQ=="},"ranges":[{"start":{"line":-5},"end":{"line":2147483647}}]}'),
    )
    yield "a wild code", rpc_status_pb2.Status(code=-77, message="m").SerializeToString()


@pytest.mark.parametrize("details", [each for _, each in _bad_details()], ids=[name for name, _ in _bad_details()])
def test_details_of_a_failure_that_cannot_be_read_do_not_hide_it(cogkit: Cogkit, details: bytes) -> None:
    failure = Refused(grpc.StatusCode.UNKNOWN, "it failed so", [("grpc-status-details-bin", details)])
    with HostileDaemon(telling(failure=failure)) as daemon:
        text = error_of(ends(cogkit.build(daemon), 1))
    assert "it failed so" in text


def test_a_failure_of_a_megabyte_is_told(cogkit: Cogkit) -> None:
    failure = Refused(grpc.StatusCode.UNKNOWN, "so it failed " + "x" * 1_000_000)
    with HostileDaemon(telling(failure=failure)) as daemon:
        text = error_of(ends(cogkit.build(daemon), 1))
    assert "so it failed" in text


# ----------------------------------------------------------------------------------------------------------- the bridge


def _bridge(**answers: Any) -> type[Script]:
    class Attack(Script):
        def __init__(self) -> None:
            super().__init__()
            self.returned = asyncio.Event()

        async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
            await self.returned.wait()
            return control_pb2.SolveResponse(ExporterResponse={})

        async def bridge(self, method: str, request: bytes) -> bytes:
            if method == "Return":
                self.returned.set()
                return b""
            answer = answers.get(method, b"")
            made = answer(request) if callable(answer) else answer
            return made if isinstance(made, bytes) else bytes(made.SerializeToString())

    return Attack


def _result(**metadata: bytes) -> gateway_pb2.SolveResponse:
    response = gateway_pb2.SolveResponse()
    response.result.ref.id = "ref"
    for key, value in metadata.items():
        response.result.metadata[key.replace("_", ".")] = value
    return response


BRIDGES = {
    "a pong that is none": _bridge(Ping=GARBAGE),
    "no result": _bridge(Solve=gateway_pb2.SolveResponse()),
    "a result that is none": _bridge(Solve=GARBAGE),
    "a config that is no json": _bridge(Solve=_result(containerimage_config=b"{"), ReadFile=b""),
    "a config that is a list": _bridge(Solve=_result(containerimage_config=b"[]"), ReadFile=b""),
    "a config whose labels are a number": _bridge(Solve=_result(containerimage_config=b'{"config":{"Labels":7}}')),
    "a config that is deep": _bridge(Solve=_result(containerimage_config=b"[" * 100_000)),
    "a config that is not text": _bridge(Solve=_result(containerimage_config=b"\xff\xfe")),
    "a file without end": _bridge(
        Solve=_result(containerimage_config=b"{}"), ReadFile=lambda _: gateway_pb2.ReadFileResponse(Data=bytes(4 << 20))
    ),
    "a file of other than was asked": _bridge(
        Solve=_result(containerimage_config=b"{}"), ReadFile=lambda _: gateway_pb2.ReadFileResponse(Data=bytes(9 << 20))
    ),
}


@pytest.mark.parametrize("attack", BRIDGES.values(), ids=BRIDGES.keys())
def test_a_gateway_that_lies_fails_the_build_in_clear_words(
    cogkit: Cogkit, context_tree: MakeTree, attack: type[Script]
) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY}, "cog")
    with HostileDaemon(attack) as daemon:
        running = cogkit.build(daemon, project=project)
        peak = 0
        while running.wait_for_seconds(0.02):
            peak = max(peak, peak_or_nothing(running))
        ends(running, 1)
    assert peak < MEMORY, f"{peak / MIB:.0f} MiB"
    left = sorted(path.name for path in (project / ".cog").iterdir())
    assert left == [".gitignore", "cog.lock", "openapi_schema.json"]
