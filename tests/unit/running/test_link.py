"""The link and the relay together: processes, connections, and how they end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cogkit.running.link import Channel, Link, LinkLostError, RefusedError, RemoteProcess, StartError
from tests.unit.running.linked import Linked, linked

LIMIT = 60
ENV = {"PATH": os.environ["PATH"], "GREETING": "hello"}


def with_relay(test: Callable[[Linked], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with TemporaryDirectory() as folder:
            async with linked(Path(folder)) as there, asyncio.timeout(LIMIT):
                await test(there)

    asyncio.run(run())


async def all_of(channel: Channel | None) -> bytes:
    assert channel is not None
    parts = []
    while data := await channel.read():
        parts.append(data)
    return b"".join(parts)


async def run(link: Link, script: str, **options: Any) -> tuple[int, bytes, bytes]:
    process = await link.start(["sh", "-c", script], ENV, "/", **options)
    if process.stdin is not None:
        process.stdin.end()
    out, error, code = await asyncio.gather(all_of(process.stdout), all_of(process.stderr), process.wait())
    return code, out, error


def test_a_process_gives_its_output_and_its_exit_code() -> None:
    async def test(there: Linked) -> None:
        assert await run(there.link, "echo $GREETING; echo oh >&2; pwd; exit 7") == (7, b"hello\n/\n", b"oh\n")

    with_relay(test)


def test_a_signal_that_ended_a_process_is_its_exit_code() -> None:
    async def test(there: Linked) -> None:
        assert (await run(there.link, "kill -9 $$"))[0] == 137

    with_relay(test)


def test_standard_input_arrives_and_ends() -> None:
    async def test(there: Linked) -> None:
        process = await there.link.start(["cat"], ENV, "/", input=True)
        assert process.stdin is not None
        sent = os.urandom(3_000_000)

        async def send() -> None:
            assert process.stdin is not None
            await process.stdin.write(sent)
            process.stdin.end()

        _, out = await asyncio.gather(send(), all_of(process.stdout))
        assert out == sent
        assert await process.wait() == 0

    with_relay(test)


def test_input_that_nobody_reads_is_no_trouble() -> None:
    async def test(there: Linked) -> None:
        process = await there.link.start(["true"], ENV, "/", input=True)
        assert process.stdin is not None
        await process.stdin.write(bytes(5_000_000))
        process.stdin.end()
        assert await process.wait() == 0
        assert await all_of(process.stdout) == b""

    with_relay(test)


def test_much_output_waits_for_whoever_reads_it() -> None:
    async def test(there: Linked) -> None:
        process = await there.link.start(["sh", "-c", "head -c 30000000 /dev/zero"], ENV, "/")
        while not there.link._channels[process.stdout.id]._arrived:
            await asyncio.sleep(0.01)
        held = sum(map(len, there.link._channels[process.stdout.id]._arrived))
        assert held <= 1024 * 1024
        assert await all_of(process.stdout) == bytes(30_000_000)
        assert await process.wait() == 0

    with_relay(test)


def test_a_child_that_stays_behind_does_not_hold_the_output() -> None:
    async def test(there: Linked) -> None:
        assert await run(there.link, "sleep 1000 & echo done") == (0, b"done\n", b"")

    with_relay(test)


def test_a_terminal_has_a_size_and_echoes() -> None:
    async def test(there: Linked) -> None:
        script = "test -t 0 && stty size; read line; stty size; echo got $line"
        process = await there.link.start(["sh", "-c", script], ENV, "/", terminal=(30, 100))
        seen = b""
        while b"30 100" not in seen:
            seen += await process.stdout.read()
        await process.resize(40, 90)
        assert process.stdin is not None
        await process.stdin.write(b"word\n")
        seen += await all_of(process.stdout)
        assert b"40 90" in seen
        assert b"got word" in seen
        assert await process.wait() == 0

    with_relay(test)


def test_ctrl_c_in_a_terminal_interrupts() -> None:
    async def test(there: Linked) -> None:
        process = await there.link.start(["sh", "-c", "echo ready; exec sleep 1000"], ENV, "/", terminal=(24, 80))
        seen = b""
        while b"ready" not in seen:
            seen += await process.stdout.read()
        assert process.stdin is not None
        await process.stdin.write(b"\x03")
        assert await process.wait() == 130

    with_relay(test)


def test_a_signal_reaches_the_whole_group() -> None:
    async def test(there: Linked) -> None:
        process = await there.link.start(["sh", "-c", "trap 'exit 5' INT; echo ready; sleep 1000 & wait"], ENV, "/")
        assert await process.stdout.read() == b"ready\n"
        await process.signal("INT")
        assert await process.wait() == 5

    with_relay(test)


@pytest.mark.parametrize(
    ("args", "cwd", "code", "words"),
    [
        (["no-such-command"], "/", 127, "no-such-command: No such file"),
        (["/etc"], "/", 126, "/etc: Permission denied"),
        (["true"], "/no-such-folder", 127, "/no-such-folder: No such file"),
    ],
)
def test_what_cannot_be_started_says_why(args: list[str], cwd: str, code: int, words: str) -> None:
    async def test(there: Linked) -> None:
        with pytest.raises(StartError, match=words) as raised:
            await there.link.start(args, ENV, cwd)
        assert raised.value.process_code == code
        assert await run(there.link, "echo still here") == (0, b"still here\n", b"")

    with_relay(test)


def test_a_connection_carries_both_halves() -> None:
    async def test(there: Linked) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.read())[::-1])
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            channel = await there.link.connect(server.sockets[0].getsockname()[1])
            await channel.write(bytes(2_000_000) + b"end")
            channel.end()
            assert await all_of(channel) == b"dne" + bytes(2_000_000)

    with_relay(test)


def test_a_port_nobody_listens_on_is_refused() -> None:
    async def test(there: Linked) -> None:
        with pytest.raises(RefusedError, match="refused"):
            await there.link.connect(await there.link.free_port())

    with_relay(test)


def test_a_connection_made_in_the_container_ends_here() -> None:
    async def test(there: Linked) -> None:
        async def serve(channel: Channel, port: int) -> None:
            await channel.write(b"port %d: " % port + await channel.read())
            channel.end()

        port = await there.link.free_port()
        assert await there.link.listen(port, serve)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.read() == b"port %d: hello" % port
        writer.close()

        with socket.create_server(("127.0.0.1", 0)) as taken:
            assert not await there.link.listen(taken.getsockname()[1], serve)

    with_relay(test)


def test_when_the_link_closes_everything_in_the_container_ends() -> None:
    async def test(there: Linked) -> None:
        process = await there.link.start(["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 1; done"], ENV, "/")
        pid = int(await process.stdout.read())
        there.link.close()
        await there.relay_ended()
        while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            await asyncio.sleep(0.02)
        with pytest.raises(LinkLostError):
            await process.wait()

    with_relay(test)


def test_a_silent_client_is_not_waited_for() -> None:
    async def test(there: Linked) -> None:
        # The connection stays, and nothing comes: as when this process is frozen.
        there.link._mux.ping = lambda payload=b"": None  # type: ignore[method-assign]
        await there.relay_ended()
        await there.link.failed
        assert isinstance(there.link.lost, LinkLostError)

    with_relay(test)


def test_when_the_relay_dies_everybody_here_is_told() -> None:
    async def test(there: Linked) -> None:
        process: RemoteProcess = await there.link.start(["sleep", "1000"], ENV, "/")
        there.relay.kill()
        with pytest.raises(LinkLostError, match="was lost"):
            await process.wait()
        with pytest.raises(LinkLostError):
            await there.link.connect(1)

    with_relay(test)
