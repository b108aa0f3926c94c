"""The benchmarks measure what they say: the slow link is as slow as asked for, times and ratios are read rightly."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hpack import Encoder

from benchmarks import bench, ratios, tap, throttle, trees
from benchmarks.measure import CONTEXT_VERTEX, _duration, run_command
from benchmarks.table import Row, markdown
from benchmarks.traffic import Traffic


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
    assert 0.7 * 2 * (0.256 + 0.05) < took < 15, "never faster; slower only because the machine is busy"


def test_a_vertex_takes_from_its_start_to_its_completion() -> None:
    context, other = ({"name": name} for name in (CONTEXT_VERTEX, "other"))
    events = [
        {"vertexes": [context | {"started": "2026-01-02T03:04:05.100000001Z"}, other]},
        {"logs": []},
        {"vertexes": [context | {"started": "2026-01-02T03:04:05.1Z", "completed": "2026-01-02T04:04:07.35+01:00"}]},
    ]
    printed = "\n".join(["no event", *map(json.dumps, events)]).encode()
    assert _duration(printed, CONTEXT_VERTEX) == pytest.approx(2.25)


def test_a_commands_memory_is_its_own_and_not_that_of_who_started_it() -> None:
    ballast = bytearray(b"x") * (200 << 20)
    cost, printed = run_command(
        [sys.executable, "-c", "import sys, time; time.sleep(0.2); print('said', file=sys.stderr)"]
    )
    assert len(ballast) == 200 << 20
    assert 5 < cost.memory < 60
    assert 0.2 < cost.wall < 10
    assert 0 < cost.cpu < cost.wall
    assert printed == b"said\n"


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match=r"exited with 3:\n.*bad"):
        run_command(["/bin/sh", "-c", "echo bad >&2; exit 3"])


def row(name: str, ours: Sequence[float], theirs: Sequence[float] = (1.0,), *, case: str = "case") -> Row:
    return Row(case, name, f"title of {name}", ours, theirs)


def test_a_row_judges_the_ratio_of_medians() -> None:
    judged = Row("case", "name", "title", ours=[1.0, 9.0, 2.0], theirs=[4.0, 4.0, 1.0], target=0.50)
    assert judged.ratio == 0.5
    assert judged.reached
    assert not Row("case", "name", "title", [2.1], [4.0], target=0.50).reached
    assert Row("case", "name", "title", [2.1], [2.0], most_more=0.2).reached
    assert not Row("case", "name", "title", [2.3], [2.0], most_more=0.2).reached


def test_the_table_has_target_and_checked_in_ratio_beside_each_figure() -> None:
    rows = [
        Row("a", "b", "transfer", [1.0, 2.0, 1.5], [2.0], target=0.80),
        Row("a", "c", "memory", [30.4], [20.0], "MiB", target=1.0, their_name="itself"),
        Row("a", "d", "solves", [1.0], [1.0], ""),
    ]
    assert markdown(rows, {"a: b": 0.7}).splitlines()[2:] == [
        "| transfer | 1.50 s (1.00 to 2.00) | 2.00 s | 0.75 | 0.80 | 0.70 |",
        "| memory | 30 MiB | 20 MiB (itself) | 1.52 | **1.00, missed** |  |",
        "| solves | 1 | 1 | 1.00 |  |  |",
    ]


def test_only_what_is_more_than_15_percent_worse_is_a_regression() -> None:
    checked_in = {"case: worse": 1.0, "case: in the noise": 1.0, "case: better": 1.0}
    rows = [row("worse", [1.16]), row("in the noise", [1.14]), row("better", [0.2]), row("new", [9.0])]
    (found,) = ratios.regressions(rows, checked_in)
    assert str(found) == "case: worse: 1.16, checked in is 1.00 (+16%)"


def test_rounds_that_vary_are_no_proof_of_a_regression() -> None:
    checked_in = {"case: noisy": 1.0, "case: steady": 1.0}
    noisy = row("noisy", [1.0, 2.0, 0.9, 1.6, 1.5], [1.0] * 5)
    steady = row("steady", [1.3, 2.6, 0.66, 1.29, 1.31], [1.0, 2.0, 0.5, 1.0, 1.0])
    assert noisy.ratio == 1.5
    assert [each.row.key for each in ratios.regressions([noisy, steady], checked_in)] == ["case: steady"]


def test_of_memory_our_own_bytes_count() -> None:
    memory = Row("case", "memory", "memory", [50.0, 51.0, 52.0], [100.0, 20.0, 60.0], "MiB")
    assert memory.gated == 51.0
    assert ratios.regressions([memory], {"case: memory": 44.0}) == []
    (found,) = ratios.regressions([memory], {"case: memory": 43.0})
    assert str(found) == "case: memory: 51.00, checked in is 43.00 (+19%)"


def test_a_regression_counts_only_if_it_is_measured_twice() -> None:
    checked_in = {"a: noise": 1.0, "a: real": 1.0, "a: good": 1.0, "b: good": 1.0}
    rows = [row(name, [2.0], case="a") for name in ("noise", "real")]
    rows += [row("good", [1.0], case="a"), row("good", [1.0], case="b")]
    measured: list[str] = []

    def measure_again(case: str) -> list[Row]:
        measured.append(case)
        return [row("noise", [1.1], case="a"), row("real", [3.0], case="a"), row("good", [5.0], case="a")]

    kept, found = ratios.confirmed(rows, checked_in, measure_again)
    assert measured == ["a"]
    assert [each.row.key for each in found] == ["a: real"]
    assert [(each.key, each.ratio) for each in kept] == [
        *(("a: noise", 1.1), ("a: real", 2.0)),
        # What was not a suspect stays as it was first measured.
        *(("a: good", 1.0), ("b: good", 1.0)),
    ]


def test_nothing_is_measured_again_without_a_regression() -> None:
    def measure_again(case: str) -> list[Row]:
        raise AssertionError(case)

    rows = [row("good", [1.0])]
    assert ratios.confirmed(rows, {"case: good": 1.0}, measure_again) == (rows, [])


def test_renewing_ratios_keeps_those_of_cases_that_were_not_run(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    assert ratios.load(path) == {}
    path.write_text(ratios.renewed(path, [row("one", [1.0]), row("two", [2.0])]))
    path.write_text(ratios.renewed(path, [row("two", [3.0], [7.0])]))
    assert ratios.load(path) == {"case: one": 1.0, "case: two": 0.429}
    assert "--renew" in json.loads(path.read_text())["about"]


def test_the_names_of_figures_are_unique_and_begin_with_their_case() -> None:
    keys = re.findall(r'_row\(\s*"([^"]+)"', Path(bench.__file__).read_text())
    assert len(keys) == len(set(keys)) > 10
    assert {key.partition(": ")[0] for key in keys} <= bench.CASES.keys()


def test_checked_in_ratios_are_of_known_cases() -> None:
    checked_in = ratios.load(bench.RATIOS)
    assert checked_in
    assert {key.partition(": ")[0] for key in checked_in} <= bench.CASES.keys()


# ---- what a client sends

INFO, SOLVE = "/moby.buildkit.v1.Control/Info", "/moby.buildkit.v1.Control/Solve"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + (1).to_bytes(4) + payload


def a_clients_bytes() -> bytes:
    encoder = Encoder()
    info, solve, again = (encoder.encode([(":method", "POST"), (":path", path)]) for path in (INFO, SOLVE, SOLVE))
    return b"".join(
        [
            PREFACE,
            frame(4, 0, b"\0\3\0\0\0\x64"),
            frame(1, 0x4, info),
            # A body that looks like a call is none.
            frame(0, 1, frame(1, 0x4, info)),
            # Padded, with a priority, and in two frames.
            frame(1, 0x8 | 0x20, b"\3" + b"\0\0\0\0\x10" + solve[:4] + b"\0\0\0"),
            frame(9, 0x4, solve[4:]),
            # The same words again are one byte each.
            frame(1, 0x4, again),
        ]
    )


@pytest.mark.parametrize("size", [1, 2, 3, 9, 10, 10_000])
def test_calls_are_found_however_the_bytes_arrive(size: int) -> None:
    names, sent = tap.CallNames(), a_clients_bytes()
    found = [path for start in range(0, len(sent), size) for path in names.take(sent[start : start + size])]
    assert found == [INFO, SOLVE, SOLVE]


def test_the_tap_passes_on_what_it_counts(tmp_path: Path) -> None:
    async def exchange() -> tuple[bytes, Traffic]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(len(a_clients_bytes()))
            writer.write(b"answer")
            writer.close()

        traffic = Traffic()
        daemon = await asyncio.start_unix_server(answer, tmp_path / "daemon")
        async with daemon, await tap.serve(f"unix://{tmp_path}/daemon", tmp_path / "tap", traffic):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "tap")
            writer.write(a_clients_bytes())
            received = await reader.read()
            writer.close()
        return received, traffic

    received, traffic = asyncio.run(asyncio.wait_for(exchange(), 20))
    assert received == b"answer"
    assert traffic == Traffic(len(a_clients_bytes()), len(received), Counter({SOLVE: 2, INFO: 1}))
    assert Traffic.from_json(traffic.to_json()) == traffic
    assert traffic.count("Control", "Solve") == 2
    assert traffic.count("LLBBridge", "Solve") == 0


def test_there_are_sixty_ignore_patterns() -> None:
    lines = trees.IGNORE_PATTERNS.splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) == 60
