"""Whatever a command is doing, it can be stopped, and its process ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cogkit.cli.forced_exit import PATIENCE, THREAD_PATIENCE
from cogkit.cli.interruptible import run
from cogkit.errors import ConfigError

PROMISE = 5.0
"""What is promised to the user, in seconds."""

LIMIT = 40.0
"""Seconds that an end may take on a busy machine; what is stuck here is stuck for longer."""

BLOCKED = "for _ in range(6000):\n    time.sleep(0.01)"
"""Blocks the loop; in pieces, for a signal that comes just before the system's sleep is handled after it."""

_PROGRAM = """
import asyncio, sys, threading, time
from cogkit.cli import interruptible, main as cli
from cogkit.cli.interruptible import last_resort, run
from cogkit.buildkit.errors import BuilderUnreachableError

{before}
interruptible.PATIENCE = {patience}

async def work():
    print("ready", flush=True)
{body}

def build(*_, **__):
    run(work())

cli._invoke = build
code = cli.main([])
last_resort.arm(code, interruptible.THREAD_PATIENCE)
sys.exit(code)
"""


def start(body: str, patience: float = 0.5, before: str = "") -> subprocess.Popen[str]:
    """A process that runs ``body`` as a command's coroutine; returns once it is there."""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(body=indented, patience=patience, before=before)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end_of(process: subprocess.Popen[str], limit: float = LIMIT) -> tuple[int, str, str]:
    """Exit code, rest of the output and errors; fails if the process does not end in time."""
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_work_and_lets_it_clean_up(number: signal.Signals) -> None:
    process = start("try:\n    await asyncio.sleep(60)\nfinally:\n    print('cleaned', flush=True)")
    process.send_signal(number)
    assert end_of(process) == (130, "cleaned\n", "error: interrupted\n")


def test_under_nohup_the_terminal_may_close() -> None:
    process = start(
        "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\n"
        "await asyncio.sleep(0)\nprint('goes on', file=sys.stderr)",
        before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    )
    assert end_of(process) == (0, "", "goes on\n")


def test_a_terminal_that_closes_twice_leaves_time_to_clean_up() -> None:
    body = (
        "try:\n    await asyncio.sleep(60)\nfinally:\n    print('cleaning', flush=True)\n"
        "    await asyncio.sleep(0.3)\n    print('cleaned', flush=True)"
    )
    process = start(body, patience=60)
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None and process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGHUP)
    assert end_of(process) == (130, "cleaned\n", "error: interrupted\n")


def test_what_the_work_says_about_its_cancellation_is_not_shown() -> None:
    process = start(
        "try:\n    await asyncio.sleep(60)\n"
        "except asyncio.CancelledError:\n    raise BuilderUnreachableError('context canceled') from None"
    )
    process.send_signal(signal.SIGINT)
    assert end_of(process) == (130, "", "error: interrupted\n")


def test_a_second_signal_ends_the_process_at_once() -> None:
    body = "try:\n    await asyncio.sleep(60)\nfinally:\n    print('stuck', flush=True)\n    await asyncio.sleep(60)"
    process = start(body, patience=60)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGINT)
    assert end_of(process) == (130, "", "")


@pytest.mark.parametrize(
    "stuck",
    [
        "try:\n    await asyncio.sleep(60)\nfinally:\n    await asyncio.sleep(60)",
        "await asyncio.to_thread(time.sleep, 60)",
        BLOCKED,
        "while True:\n    try:\n        await asyncio.sleep(60)\n    except asyncio.CancelledError:\n        pass",
    ],
    ids=["clean-up", "thread", "blocked loop", "swallowed cancellation"],
)
def test_after_a_signal_the_process_ends_whatever_is_stuck(stuck: str) -> None:
    process = start(stuck)
    process.send_signal(signal.SIGINT)
    assert end_of(process)[0] == 130


def test_the_real_patience_keeps_the_promise_of_five_seconds() -> None:
    process = start(BLOCKED, patience=PATIENCE)
    process.send_signal(signal.SIGINT)
    assert end_of(process)[0] == 130
    assert PATIENCE + THREAD_PATIENCE <= PROMISE


@pytest.mark.parametrize(
    ("ending", "code"), [("return", 0), ("raise BuilderUnreachableError('gone')", 3), ("raise RuntimeError", 1)]
)
def test_a_stuck_thread_does_not_keep_a_process_whose_work_is_done(ending: str, code: int) -> None:
    process = start(f"asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)\n{ending}")
    assert end_of(process)[0] == code


def test_a_full_pipe_does_not_keep_a_process_that_was_told_to_end() -> None:
    process = start(
        "threading.Thread(target=lambda: sys.stdout.write('x' * 10_000_000)).start()\nawait asyncio.sleep(60)"
    )
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    # Nothing reads its output until it has ended.
    assert process.wait(LIMIT) == 130
    process.communicate()


def test_the_result_and_the_errors_of_the_work_come_through() -> None:
    async def good() -> int:
        return 7

    async def bad() -> None:
        raise ConfigError("bad")

    before = signal.getsignal(signal.SIGINT)
    assert run(good()) == 7
    with pytest.raises(ConfigError):
        run(bad())
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("arguments", "traceback"), [([], False), (["--debug"], True)])
def test_a_missing_dependency_is_one_sentence(tmp_path: Path, arguments: list[str], traceback: bool) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\")")
    done = subprocess.run(
        [sys.executable, "-m", "cogkit", *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
    )
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) is traceback
    if not traceback:
        assert done.stderr.startswith("error: cogkit is not completely installed: No module named 'typer'\n  hint: ")


def test_ctrl_c_before_anything_has_begun_says_nothing(tmp_path: Path) -> None:
    # A module that is slow to import, found before the real one.
    # One long sleep would not notice a signal that comes just before it.
    (tmp_path / "typer.py").write_text(
        "import time\nprint('ready', flush=True)\nfor _ in range(1200):\n    time.sleep(0.05)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "cogkit", "build"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert end_of(process) == (130, "", "")


def test_what_was_printed_is_whole_however_late_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    for number in range(3000):
        (tmp_path / f"{number}-{'x' * 60}").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "cogkit", "context", "--json", str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    # More than a pipe holds, so the process is still writing when it would like to end.
    time.sleep(2 * THREAD_PATIENCE)
    printed = process.communicate(timeout=20)[0]
    assert process.returncode == 0
    assert len(json.loads(printed)["files"]) >= 3000
