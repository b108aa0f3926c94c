"""Containers of the gateway on a real buildkitd: mounts, processes, terminals, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from cogkit.buildkit import (
    AsyncClient,
    Gateway,
    GatewayResult,
    Ref,
    Secrets,
    SecretSource,
    SolveError,
    SolveRequest,
    Ssh,
)
from cogkit.buildkit.gateway.containers import (
    STDERR,
    STDOUT,
    Command,
    Container,
    ContainerProcess,
    Mount,
    Network,
    Sharing,
)
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.session.service import Service
from cogkit.buildkit.session.services.ssh import Connection
from cogkit.errors import UsageError
from tests.conftest import MakeTree
from tests.real.buildkitd import Buildkitd

T = TypeVar("T")
Work = Callable[[Gateway, Ref], Awaitable[T]]
Inside = Callable[..., T]

LIMIT = 120
WAITING = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.1; done"
PATH = {"PATH": "/bin:/usr/bin"}


@pytest.fixture
def project(context_tree: MakeTree) -> Path:
    return context_tree(
        {"Dockerfile": "FROM busybox\nRUN mkdir -p /data/sub && echo from the image > /data/sub/file\n"}
    )


def inside(
    daemon: Buildkitd,
    project: Path,
    work: Work[T],
    services: Sequence[Service] = (),
    entitlements: tuple[str, ...] = (),
) -> T:
    """What ``work`` gives, called as the frontend of a build with the image of the project."""
    given: list[T] = []

    async def build(gateway: Gateway) -> GatewayResult:
        result = await gateway.solve("dockerfile.v0", {}, evaluate=True)
        assert result.ref is not None
        given.append(await work(gateway, result.ref))
        return GatewayResult()

    async def run() -> None:
        mounts = LocalMount("context", project), LocalMount("dockerfile", project)
        request = SolveRequest(mounts=mounts, entitlements=entitlements)
        async with await AsyncClient.connect(daemon.address) as client, asyncio.timeout(LIMIT):
            await client.solve(request, services=services, build=build)

    asyncio.run(run())
    return given[0]


async def shell(container: Container, script: str, *, env: Mapping[str, str] = PATH) -> tuple[int, str, str]:
    process = await container.start(Command(["sh", "-c", script], env))
    written = {STDOUT: b"", STDERR: b""}
    async for fd, data in process.output():
        written[fd] += data
    return await process.wait(), written[STDOUT].decode(), written[STDERR].decode()


async def first(container: Container) -> None:
    """Start what the container lives as long as."""
    await container.start(Command(["sleep", "100000"], PATH))


def test_processes_give_output_and_exit_codes(buildkitd: Buildkitd, project: Path) -> None:
    async def work(gateway: Gateway, ref: Ref) -> list[tuple[int, str, str]]:
        async with await Container.create(gateway, [Mount.bind("/", ref)], hostname="here") as container:
            await first(container)
            return [
                await shell(container, "cat /data/sub/file; hostname; echo oh >&2"),
                await shell(container, "echo $NAME; pwd", env={**PATH, "NAME": "value"}),
                await shell(container, "exit 3"),
            ]

    assert inside(buildkitd, project, work) == [
        (0, "from the image\nhere\n", "oh\n"),
        (0, "value\n/\n", ""),
        (3, "", ""),
    ]


@pytest.mark.parametrize(("script", "code"), [("exit 255", 255), ("exit 1", 1)])
def test_the_first_process_gives_its_code(script: str, code: int, buildkitd: Buildkitd, project: Path) -> None:
    async def work(gateway: Gateway, ref: Ref) -> tuple[int, str, str]:
        async with await Container.create(gateway, [Mount.bind("/", ref)]) as container:
            return await shell(container, script)

    assert inside(buildkitd, project, work) == (code, "", "")


def test_every_kind_of_mount(buildkitd: Buildkitd, project: Path) -> None:
    class Endpoint:
        async def serve(self, connection: Connection) -> None:
            received = b""
            while b"\n" not in received:
                received += await connection.receive() or b"\n"
            await connection.send(b"you said " + received)

    async def work(gateway: Gateway, ref: Ref) -> tuple[int, str, str]:
        mounts = [
            Mount.bind("/", ref),
            Mount.bind("/part", ref, source="/data/sub", readonly=True),
            Mount.bind("/empty"),
            Mount.tmpfs("/memory"),
            Mount.cache("/cache", "test-every-kind-of-mount", sharing=Sharing.LOCKED),
            Mount.secret("/run/word", "word", mode=0o444),
            Mount.secret("/run/none", "no-such-word", optional=True),
            Mount.ssh("/run/socket", "echo", mode=0o666),
        ]
        script = (
            "cat /part/file /run/word; touch /part/x 2>/dev/null || echo readonly; ls /empty; touch /empty/x /memory/x;"
            "grep -c ' /memory tmpfs ' /proc/mounts; echo kept > /cache/x; test -e /run/none || echo none;"
            "test -S /run/socket && stat -c %a /run/socket; test -d /no-such || echo over > /data/sub/file;"
            "cat /part/file"
        )
        async with await Container.create(gateway, mounts) as container:
            await first(container)
            return await shell(container, script)

    word = project / "word"
    word.write_text("secret\n")
    services: list[Service] = [
        Secrets((SecretSource(id="word", path=word),)),
        Ssh({"echo": Endpoint()}),
    ]
    code, out, error = inside(buildkitd, project, work, services)
    assert (code, error) == (0, "")
    assert out == "from the image\nsecret\nreadonly\n1\nnone\n666\nfrom the image\n"


def test_standard_input_goes_in_and_ends(buildkitd: Buildkitd, project: Path) -> None:
    sent = bytes(range(256)) * 5000

    async def work(gateway: Gateway, ref: Ref) -> tuple[bytes, int]:
        async with await Container.create(gateway, [Mount.bind("/", ref)]) as container:
            await first(container)
            process = await container.start(Command(["cat"], PATH), stdin=True)

            async def write() -> None:
                await process.write(sent)
                await process.end_input()

            writing = asyncio.create_task(write())
            got = b"".join([data async for fd, data in process.output() if fd == STDOUT])
            await writing
            return got, await process.wait()

    assert inside(buildkitd, project, work) == (sent, 0)


def test_a_terminal_and_signals(buildkitd: Buildkitd, project: Path) -> None:
    async def work(gateway: Gateway, ref: Ref) -> tuple[bytes, int, int]:
        async with await Container.create(gateway, [Mount.bind("/", ref)]) as container:
            await first(container)
            script = "test -t 0 && echo terminal; read a; echo got $a"
            process = await container.start(Command(["sh", "-c", script], PATH), terminal=(31, 99))
            await process.write(b"word\n")
            seen = b"".join([data async for _, data in process.output()])
            waiting = await container.start(Command(["sh", "-c", WAITING], PATH))
            async for _, data in waiting.output():
                if b"ready" in data:
                    await waiting.signal("SIGUSR1")
            return seen, await process.wait(), await waiting.wait()

    seen, code, signalled = inside(buildkitd, project, work)
    assert b"terminal" in seen
    assert b"got word" in seen
    assert (code, signalled) == (0, 7)


@pytest.mark.needs_newer_buildkit("secrets as variables of the gateway's processes")
def test_a_secret_can_be_a_variable(buildkitd: Buildkitd, project: Path) -> None:
    async def work(gateway: Gateway, ref: Ref) -> bytes:
        async with await Container.create(gateway, [Mount.bind("/", ref)]) as container:
            command = Command(["sh", "-c", "echo $WORD"], PATH, secret_env={"WORD": "word"})
            process = await container.start(command)
            return b"".join([data async for _, data in process.output()])

    word = project / "word"
    word.write_text("hush")
    services = [Secrets((SecretSource(id="word", path=word),))]
    assert inside(buildkitd, project, work, services) == b"hush\n"


def test_without_a_network_there_is_only_the_loopback(buildkitd: Buildkitd, project: Path) -> None:
    async def work(gateway: Gateway, ref: Ref) -> tuple[int, str, str]:
        mounts = [Mount.bind("/", ref)]
        options = {"some.host.example": "203.0.113.7"}
        async with await Container.create(gateway, mounts, network=Network.NONE, hosts=options) as container:
            await first(container)
            return await shell(container, "ls /sys/class/net; grep -c 203.0.113.7.*some.host.example /etc/hosts")

    assert inside(buildkitd, project, work) == (0, "lo\n1\n", "")


def test_a_container_ends_with_its_first_process(buildkitd: Buildkitd, project: Path) -> None:
    async def work(gateway: Gateway, ref: Ref) -> int:
        async with await Container.create(gateway, [Mount.bind("/", ref)]) as container:
            process = await container.start(Command(["sh", "-c", "read x"], PATH), stdin=True)
            other = await container.start(Command(["sleep", "100000"], PATH))
            await process.end_input()
            await process.wait()
            code = await exit_of(other)
            assert await code_of(container, ["true"]) != 0
            return code

    assert inside(buildkitd, project, work) != 0


def test_what_cannot_be_started_fails(buildkitd: Buildkitd, project: Path) -> None:
    async def work(gateway: Gateway, ref: Ref) -> int:
        with pytest.raises(UsageError, match="filesystem at /"):
            await Container.create(gateway, [Mount.tmpfs("/data")])
        async with await Container.create(gateway, [Mount.bind("/", ref)]) as container:
            await first(container)
            return await code_of(container, ["no-such-command"])

    assert inside(buildkitd, project, work) != 0


async def code_of(container: Container, args: list[str]) -> int:
    """Its exit code; also when the builder gives an error in the place of one."""
    try:
        return await exit_of(await container.start(Command(args, PATH)))
    except SolveError as error:
        return error.process_exit_code or 1


async def exit_of(process: ContainerProcess) -> int:
    try:
        return await process.wait()
    except SolveError as error:
        return error.process_exit_code or 1
