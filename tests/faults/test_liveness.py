"""A link that is slow is not dead, and one that is dead is noticed in time, whatever still comes over it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connection import Connection, SessionTransport
from cogkit.buildkit.errors import BuilderUnreachableError
from tests.conftest import MakeTree
from tests.faults.proxy import Proxy, Way
from tests.faults.running import Running
from tests.real.buildkitd import Buildkitd

pytestmark = pytest.mark.one_release_is_enough

SLOW = 62_500
"""Bytes in a second: 0.5 Mbit/s."""

DEEP = 8 << 20
"""Bytes that the slow link takes at once, as a modem with a large buffer does."""

SENT = 400_000
"""Bytes that take longer than a daemon may be silent."""


@pytest.fixture
def slow_link(buildkitd: Buildkitd) -> Iterator[Proxy]:
    """A link to the daemon, for now as fast as this machine."""
    with tempfile.TemporaryDirectory(prefix="cogkit-", dir="/tmp") as folder:
        daemon = Path(buildkitd.address.removeprefix("unix://"))
        with Proxy(daemon, Path(folder), "tcp", buffer=DEEP) as proxy:
            yield proxy


def build(project: Path, proxy: Proxy, *more: str) -> Running:
    return Running("build", project, "--addr", proxy.address, "--progress", "plain", *more, cwd=project.parent, env={})


@pytest.mark.parametrize("way", Way)
def test_a_slow_link_with_deep_buffers_is_not_taken_for_dead(
    slow_link: Proxy, context_tree: MakeTree, tmp_path: Path, way: Way
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY . /\n", "big": os.urandom(SENT)})
    slow_link.slow_down(SLOW, way)
    started = time.monotonic()
    build(project, slow_link, "-o", f"type=tar,dest={tmp_path}/out.tar").end({0})
    assert time.monotonic() - started > SENT / SLOW
    assert (tmp_path / "out.tar").stat().st_size > SENT


def test_a_link_that_becomes_slow_in_the_middle_is_not_taken_for_dead(slow_link: Proxy, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY . /\n", "big": os.urandom(2_000_000 + SENT)})
    slow_link.at(Way.UP, 2_000_000, lambda: slow_link.slow_down(SLOW))
    build(project, slow_link).end({0})


@pytest.mark.parametrize("dead", [(Way.UP,), (Way.DOWN,), tuple(Way)], ids=["up", "down", "both"])
def test_a_dead_link_is_noticed_in_time_whatever_still_comes(
    slow_link: Proxy, context_tree: MakeTree, dead: tuple[Way, ...]
) -> None:
    # Where only the way up is dead, output and health checks of the session still come.
    step = (
        f"RUN echo begun {os.getpid()}.{'-'.join(way.value for way in dead)}; while true; do echo on; sleep 0.2; done\n"
    )
    project = context_tree({"Dockerfile": f"FROM busybox\n{step}"})
    running = build(project, slow_link)
    assert running.wait_for(r"#\d+ \d+\.\d+ begun"), running.stderr
    # Not at once, so that a health check, which comes every five seconds, falls into the silence.
    assert running.wait_for_seconds(3.0)
    running.mark()
    slow_link.stall(*dead)
    running.end({3})
    assert "it has not answered for 4 seconds" in running.stderr


@pytest.mark.parametrize("when", ["context", "export"])
@pytest.mark.parametrize("ended", [(Way.UP,), (Way.DOWN,), tuple(Way)], ids=["up", "down", "both"])
def test_a_session_that_ends_alone_is_a_lost_builder(
    buildkitd: Buildkitd, context_tree: MakeTree, tmp_path: Path, ended: tuple[Way, ...], when: str
) -> None:
    # Over a unix socket it has a connection of its own, the second; the daemon can still say that the build failed.
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY . /\n", "big": os.urandom(2_000_000)})
    with (
        tempfile.TemporaryDirectory(prefix="cogkit-", dir="/tmp") as folder,
        Proxy(Path(buildkitd.address.removeprefix("unix://")), Path(folder)) as proxy,
    ):
        way = Way.UP if when == "context" else Way.DOWN
        proxy.slow_down(2_000_000, way)

        def ends() -> None:
            for each in ended:
                proxy.half_close(each, 1)
            running.mark()

        proxy.at(way, 500_000, ends)
        running = build(project, proxy, "-o", f"type=tar,dest={tmp_path}/out.tar")
        running.end({3})
    assert "lost the builder" in running.stderr
    assert not (tmp_path / "out.tar").exists()


# ------------------------------------------------------------------------------------------------------- what counts


class Call:
    """A gRPC call that takes so long for each message."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.sizes: list[int] = []

    async def write(self, message: bytes | memoryview) -> None:
        self.sizes.append(len(message))
        await asyncio.sleep(self.seconds)


def written(seconds: float, *data: bytes) -> tuple[int, list[int]]:
    """How many writes counted as signs of life, and what was written."""
    signs: list[None] = []
    call: Any = Call(seconds)

    async def run() -> None:
        transport = SessionTransport(call, lambda: signs.append(None))
        for piece in data:
            await transport.write(piece)

    asyncio.run(run())
    return len(signs), call.sizes


def test_what_the_buffers_take_at_once_is_no_sign_of_life() -> None:
    signs, sizes = written(0.0, bytes(1 << 20), b"x" * 100)
    assert signs == 0
    assert sum(sizes) == (1 << 20) + 100
    assert max(sizes) == 256 << 10


def test_what_had_to_wait_for_the_other_end_is_a_sign_and_the_next_pieces_are_smaller() -> None:
    signs, sizes = written(0.3, bytes(100_000))
    assert signs == len(sizes)
    assert sum(sizes) == 100_000
    assert sizes[0] > sizes[-2] >= 16 << 10


def test_silence_is_counted_from_the_last_sign_of_life(tmp_path: Path) -> None:
    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> tuple[float, float]:
        server = await asyncio.start_unix_server(nobody, tmp_path / "s")
        connection = Connection(Address.parse(f"unix://{tmp_path}/s"), silence_limit=1.0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        last = began

        async def live() -> None:
            nonlocal last
            while loop.time() - began < 1.5:
                await asyncio.sleep(0.3)
                last = loop.time()
                connection.note_sign_of_life()

        living = asyncio.create_task(live())
        with pytest.raises(BuilderUnreachableError, match="has not answered for 1 seconds"):
            await connection.watch()
        ended = loop.time()
        await living
        await connection.close()
        server.close()
        return last - began, ended - last

    lived, silent = asyncio.run(run())
    assert lived > 1.4
    assert 0.7 < silent < 4
