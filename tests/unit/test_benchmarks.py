"""The benchmarks measure what they say: the slow link is as slow as asked for, times and ratios are read rightly."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from benchmarks import throttle, trees
from benchmarks.bench import Row
from benchmarks.measure import CONTEXT_VERTEX, _duration


def test_the_slow_link_keeps_its_rate_and_delay_and_loses_nothing() -> None:
    sent = bytes(range(256)) * 1000

    async def exchange() -> tuple[bytes, float]:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(len(sent)))
            await writer.drain()
            writer.close()

        far = await asyncio.start_server(echo, "127.0.0.1", 0)
        target = f"tcp://127.0.0.1:{far.sockets[0].getsockname()[1]}"
        async with far, await throttle.start(target, megabits=8.0, milliseconds=50.0) as link:
            reader, writer = await asyncio.open_connection(*link.sockets[0].getsockname()[:2])
            begin = time.perf_counter()
            writer.write(sent)
            received = await reader.readexactly(len(sent))
            took = time.perf_counter() - begin
            writer.close()
        return received, took

    received, took = asyncio.run(asyncio.wait_for(exchange(), 20))
    assert received == sent
    # 256 kB at 1 MB/s there and the same back, for which all of it must have arrived, and 50 ms of delay each way.
    assert took == pytest.approx(2 * (0.256 + 0.05), rel=0.3)


def test_a_vertex_takes_from_its_start_to_its_completion() -> None:
    context, other = ({"name": name} for name in (CONTEXT_VERTEX, "other"))
    events = [
        {"vertexes": [context | {"started": "2026-01-02T03:04:05.100000001Z"}, other]},
        {"logs": []},
        {"vertexes": [context | {"started": "2026-01-02T03:04:05.1Z", "completed": "2026-01-02T04:04:07.35+01:00"}]},
    ]
    printed = "\n".join(["no event", *map(json.dumps, events)]).encode()
    assert _duration(printed, CONTEXT_VERTEX) == pytest.approx(2.25)


def test_a_row_judges_the_ratio_of_medians() -> None:
    row = Row("case", ours=[1.0, 9.0, 2.0], theirs=[4.0, 4.0, 1.0], target=0.50)
    assert row.ratio == 0.5
    assert row.reached
    assert not Row("case", [2.1], [4.0], target=0.50).reached
    assert Row("case", [2.1], [2.0], most_more=0.2).reached
    assert not Row("case", [2.3], [2.0], most_more=0.2).reached


def test_there_are_sixty_ignore_patterns() -> None:
    lines = trees.IGNORE_PATTERNS.splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) == 60
