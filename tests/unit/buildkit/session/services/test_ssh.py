"""The SSH service over real unix sockets: an id to its endpoint, and bytes both ways."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cogkit._proto import ssh_pb2
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services.ssh import FilteredAgent, KeyAgent, SocketTunnel, Ssh, open_agent, open_socket
from cogkit.buildkit.ssh.agent import framed
from cogkit.errors import UsageError
from tests.unit.service_call import FakeCall, ask, serve

CHECK = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
LIST, SIGN, ADD = b"\x0b", b"\x0d" + b"\0" * 12, b"\x11rest"
FAILURE = b"\x05"

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


@asynccontextmanager
async def listening(path: Path, converse: Converse) -> AsyncIterator[None]:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(served, path)
    try:
        yield
    finally:
        server.close()


def message(data: bytes) -> bytes:
    return ssh_pb2.BytesMessage(data=data).SerializeToString()


def call(*data: bytes, id: str = "", ends: bool = True) -> FakeCall:
    metadata = {"buildkit.ssh.id": (id.encode(),)} if id else {}
    return FakeCall(FORWARD, *map(message, data), metadata=metadata, ends=ends)


def heard(forward: FakeCall) -> bytes:
    return b"".join(ssh_pb2.BytesMessage.FromString(each).data for each in forward.all_heard())


class ScriptedAgent:
    """An agent that answers every request with its own bytes, and remembers them."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(4):
            (size,) = struct.unpack(">I", head)
            self.requests.append(await reader.readexactly(size))
            writer.write(framed(b"\x0canswer to " + self.requests[-1]))


def test_agent_gets_what_it_may_be_asked_and_the_step_failures_for_the_rest_in_order(tmp_path: Path) -> None:
    agent = ScriptedAgent()

    async def scenario() -> None:
        async with listening(tmp_path / "s", agent):
            forward = call(framed(LIST) + framed(ADD), framed(SIGN)[:3], framed(SIGN)[3:])
            await serve(Ssh({"default": FilteredAgent(tmp_path / "s")}), forward)
            answers = [b"\x0canswer to " + LIST, FAILURE, b"\x0canswer to " + SIGN]
            assert heard(forward) == b"".join(map(framed, answers))

    run(scenario)
    assert agent.requests == [LIST, SIGN]


def test_ids_lead_to_their_own_endpoints_and_no_id_to_the_default_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Ssh({"default": FilteredAgent(tmp_path / "a"), "other": FilteredAgent(tmp_path / "b")})
        first, second = ScriptedAgent(), ScriptedAgent()
        async with listening(tmp_path / "a", first), listening(tmp_path / "b", second):
            await serve(service, call(framed(LIST)))
            await serve(service, call(framed(SIGN), id="other"))
        assert (first.requests, second.requests) == ([LIST], [SIGN])

    run(scenario)


@pytest.mark.parametrize("id", ["", "default", "/run/some.sock", "other"])
def test_id_that_was_not_offered_is_refused(id: str) -> None:
    async def scenario() -> None:
        service = Ssh({"mine": KeyAgent(_keyring())})
        with pytest.raises(CallError, match="unset ssh forward key"):
            await serve(service, call(framed(LIST), id=id))
        with pytest.raises(CallError, match="unset ssh forward key"):
            await ask(service, CHECK, ssh_pb2.CheckAgentRequest(ID=id), ssh_pb2.CheckAgentResponse)
        await ask(service, CHECK, ssh_pb2.CheckAgentRequest(ID="mine"), ssh_pb2.CheckAgentResponse)

    run(scenario)


def _keyring() -> Any:
    from cogkit.buildkit.ssh.agent import Keyring

    return Keyring([])


def test_agent_that_is_gone_is_the_cause_the_user_sees(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(CallError) as caught:
            await serve(Ssh({"default": FilteredAgent(tmp_path / "gone")}), call(framed(LIST)))
        assert isinstance(caught.value.cause, BuildError)
        assert f"cannot connect to the socket {tmp_path}/gone" in caught.value.message

    run(scenario)


@pytest.mark.parametrize("answer", [b"", b"\0\0\0\x05ab", b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_agent_that_breaks_off_or_talks_nonsense_ends_the_connection(answer: bytes, tmp_path: Path) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)

    async def scenario() -> None:
        async with listening(tmp_path / "s", converse):
            with pytest.raises(CallError, match="the SSH agent at"):
                await serve(Ssh({"default": FilteredAgent(tmp_path / "s")}), call(framed(LIST)))

    run(scenario)


def test_step_that_talks_nonsense_ends_its_own_connection_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(CallError, match="ssh-agent message has 0 bytes"):
            await serve(Ssh({"default": KeyAgent(_keyring())}), call(b"\0\0\0\0"))

    run(scenario)


def test_keys_from_files_are_an_agent(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    (tmp_path / "key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))

    async def scenario() -> None:
        forward = call(framed(LIST), framed(ADD))
        await serve(Ssh({"default": open_agent("default", [tmp_path / "key"])}), forward)
        listed = heard(forward)
        assert key.public_key().public_bytes_raw() in listed
        assert listed.endswith(framed(FAILURE))

    run(scenario)


def test_tunnel_carries_any_bytes_both_ways_and_ends_with_the_socket(tmp_path: Path) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")
        while data := await reader.read(1000):
            writer.write(data.upper())
            await writer.drain()
        writer.write(b" bye")

    async def scenario() -> None:
        async with listening(tmp_path / "s", converse):
            forward = call(b"some", b"", b" bytes" * 50_000)
            await serve(Ssh({"default": SocketTunnel(tmp_path / "s")}), forward)
            assert heard(forward) == b"hello SOME" + b" BYTES" * 50_000 + b" bye"

    run(scenario)


def test_tunnel_ends_when_the_socket_does_although_the_step_says_nothing(tmp_path: Path) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"only this")

    async def scenario() -> None:
        async with listening(tmp_path / "s", converse):
            forward = call(ends=False)
            await serve(Ssh({"default": SocketTunnel(tmp_path / "s")}), forward)
            assert heard(forward) == b"only this"

    run(scenario)


def test_cancelled_connection_closes_the_socket(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async def scenario() -> None:
        async with listening(tmp_path / "s", converse):
            for endpoint in (SocketTunnel(tmp_path / "s"), FilteredAgent(tmp_path / "s")):
                ended.clear()
                serving = asyncio.ensure_future(serve(Ssh({"default": endpoint}), call(ends=False)))
                await asyncio.sleep(0.05)
                serving.cancel()
                await ended.wait()

    run(scenario)


def test_users_agent_is_that_of_ssh_auth_sock(tmp_path: Path) -> None:
    async def scenario() -> None:
        agent = ScriptedAgent()
        async with listening(tmp_path / "s", agent):
            endpoint = open_agent("default", [], {"SSH_AUTH_SOCK": str(tmp_path / "s")})
            await serve(Ssh({"default": endpoint}), call(framed(LIST)))
        assert agent.requests == [LIST]

    run(scenario)


def test_agents_that_cannot_be_show_before_the_build(tmp_path: Path) -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    async def scenario() -> None:
        (tmp_path / "junk").write_text("junk")
        async with listening(tmp_path / "s", nothing):
            for paths, message in (
                ([], "SSH_AUTH_SOCK is not set"),
                ([tmp_path / "gone"], "No such file"),
                ([tmp_path / "junk"], "is not an SSH key"),
                ([tmp_path / "s", tmp_path / "junk"], "is a socket, and stands for itself"),
                ([tmp_path / "s", tmp_path / "s"], "is a socket, and stands for itself"),
            ):
                with pytest.raises(UsageError, match=message):
                    open_agent("default", paths, {})

    run(scenario)


def test_what_is_not_a_socket_is_not_passed_on_as_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a socket"):
        open_socket("db", tmp_path / "file")
    with pytest.raises(UsageError, match="No such file"):
        open_socket("db", tmp_path / "missing")
