"""The ``.cog/`` folder under several real processes: taking turns, being killed, being interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import LockNotAcquiredError
from cogkit.project.dotcog import DotCog

PATIENCE = 120.0
"""Seconds after which a test gives up; everything here takes a few seconds on a slow machine."""

INTERRUPT_BOUND = 5.0
"""The promise to the user: whatever happens, the process ends within this many seconds."""

BUILD = """
import os, sys, time
from cogkit.project.dotcog import DotCog

project, marker = sys.argv[1], sys.argv[2]
with DotCog.open(project) as dotcog, dotcog.lock():
    # O_EXCL on a file outside .cog/ is the witness: two holders at once cannot both make it.
    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    build = dotcog.temp_path("build")
    assert os.listdir(build) == [], os.listdir(build)
    for number in range(20):
        dotcog.write_file(str(os.getpid()).encode(), "build", f"sub{number % 3}", f"file{number}")
    time.sleep(0.01)
    owners = {path.read_text() for path in build.rglob("file*")}
    assert owners == {str(os.getpid())}, owners
    os.unlink(marker)
"""

HOLD = """
import sys, time
from cogkit.project.dotcog import DotCog

with DotCog.open(sys.argv[1]) as dotcog, dotcog.lock():
    dotcog.write_file(b"half a build", "kept", "state.json")
    dotcog.temp_path("build")
    dotcog.write_file(b"FROM scratch", "build", "Dockerfile")
    print("held", flush=True)
    time.sleep(600)
"""

WAIT = """
import sys
from cogkit.project.dotcog import DotCog

with DotCog.open(sys.argv[1]) as dotcog:
    try:
        with dotcog.lock(on_wait=lambda wait: print(wait, flush=True)):
            print("taken", flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""

WAIT_ASYNC = """
import asyncio, sys
from cogkit.project.dotcog import DotCog

async def main():
    with DotCog.open(sys.argv[1]) as dotcog:
        with await dotcog.alock(on_wait=lambda wait: print(wait, flush=True)):
            print("taken", flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(130)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Start:
    """Starts a Python process on a piece of code; what still runs at the test's end is killed."""

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

        def end() -> None:
            process.kill()
            process.communicate()

        request.addfinalizer(end)
        return process

    return run


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate(timeout=PATIENCE)[1])
    return line.strip()


def hold(start: Start, project: Path) -> subprocess.Popen[str]:
    process = start(HOLD, project)
    assert line_of(process) == "held"
    return process


def test_twenty_builds_at_once_take_turns_and_all_succeed(start: Start, tmp_path: Path) -> None:
    project, marker = tmp_path / "project", tmp_path / "marker"
    project.mkdir()
    processes = [start(BUILD, project, marker) for _ in range(20)]
    outcomes = [(process.communicate(timeout=PATIENCE)[1], process.returncode) for process in processes]
    assert outcomes == [("", 0)] * 20
    assert not marker.exists()
    assert sorted(os.listdir(project / ".cog")) == [".gitignore", "cog.lock"]


def test_the_witness_of_the_test_above_sees_an_overlap(start: Start, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    process = start(BUILD, tmp_path, marker)
    assert "FileExistsError" in process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1


def test_a_killed_holder_leaves_nothing_that_hurts_the_next(start: Start, tmp_path: Path) -> None:
    process = hold(start, tmp_path)
    process.kill()
    process.wait(PATIENCE)
    assert os.listdir(tmp_path / ".cog" / "build") == ["Dockerfile"]
    with DotCog.open(tmp_path) as dotcog:
        assert dotcog.holder() is None
        with dotcog.lock(timeout=0):
            assert os.listdir(dotcog.temp_path("build")) == []
            assert str(dotcog.holder()).startswith(f"process {os.getpid()} ")
    assert sorted(os.listdir(tmp_path / ".cog")) == [".gitignore", "cog.lock", "kept"]


def test_killed_at_any_moment_the_next_build_succeeds(start: Start, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for round_ in range(8):
        process = start(BUILD, project, tmp_path / f"marker{round_}")
        time.sleep(0.05 * round_)
        process.kill()
        process.communicate()
        with DotCog.open(project) as dotcog, dotcog.lock(timeout=0):
            assert os.listdir(dotcog.temp_path("build")) == []
    assert not {"build", "cog.lock.holder"} & set(os.listdir(project / ".cog"))


def test_a_waiter_gets_the_lock_when_the_holder_is_killed(start: Start, tmp_path: Path) -> None:
    holder = hold(start, tmp_path)
    waiter = start(WAIT, tmp_path)
    assert f"held by process {holder.pid} (" in line_of(waiter)
    holder.kill()
    holder.wait(PATIENCE)
    while (line := line_of(waiter)) != "taken":
        assert line.startswith("waiting for ")
    assert waiter.wait(PATIENCE) == 0


@pytest.mark.parametrize("code", [WAIT, WAIT_ASYNC], ids=["sync", "async"])
def test_ctrl_c_while_waiting_leaves_at_once_and_does_not_disturb_the_holder(
    start: Start, tmp_path: Path, code: str
) -> None:
    holder = hold(start, tmp_path)
    waiter = start(code, tmp_path)
    assert line_of(waiter).startswith("waiting for ")
    began = time.monotonic()
    waiter.send_signal(signal.SIGINT)
    assert waiter.wait(PATIENCE) == 130
    assert time.monotonic() - began < INTERRUPT_BOUND
    assert holder.poll() is None
    with DotCog.open(tmp_path) as dotcog, pytest.raises(LockNotAcquiredError) as caught:
        dotcog.lock(timeout=0)
    assert f"held by process {holder.pid} " in caught.value.message


def test_a_bounded_wait_ends_and_names_the_holder(start: Start, tmp_path: Path) -> None:
    holder = hold(start, tmp_path)
    with DotCog.open(tmp_path) as dotcog:
        began = time.monotonic()
        with pytest.raises(LockNotAcquiredError) as caught:
            dotcog.lock(timeout=0.3)
        assert time.monotonic() - began >= 0.3
    assert exit_code_of(caught.value) == 4
    assert f"held by process {holder.pid} (python) since " in caught.value.message
    assert caught.value.where == str(tmp_path / ".cog" / "cog.lock")
    assert caught.value.hint


def test_an_interrupted_holder_cleans_up(start: Start, tmp_path: Path) -> None:
    holder = hold(start, tmp_path)
    holder.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in holder.communicate(timeout=PATIENCE)[1]
    assert sorted(os.listdir(tmp_path / ".cog")) == [".gitignore", "cog.lock", "kept"]


def test_children_of_the_holder_do_not_keep_the_lock(start: Start, tmp_path: Path) -> None:
    with DotCog.open(tmp_path) as dotcog, dotcog.lock():
        child = start("print('up', flush=True); import time; time.sleep(600)")
        assert line_of(child) == "up"
    waiter = start(WAIT, tmp_path)
    assert line_of(waiter) == "taken"
    assert child.poll() is None
