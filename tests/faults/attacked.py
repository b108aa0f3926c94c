"""cogkit under the attack of a hostile daemon: how it is started and what it promises.

A process that is attacked ends in time with the right code and one clear sentence, and in bounded memory.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from cogkit._proto import control_pb2
from tests.faults.hostile_daemon import Answer, Caller, HostileDaemon, Script
from tests.faults.running import Running

MIB = 1 << 20
MEMORY = 300 * MIB
"""Most memory of a process that a daemon attacks; one that nobody attacks has 70 MiB."""

CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Cogkit:
    """Starts cogkit on hostile daemons."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder = folder
        self.project = project
        self.env: dict[str, str | None] = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir()
        self._started: list[Running] = []

    def build(self, daemon: HostileDaemon, *arguments: str, project: Path | None = None) -> Running:
        build = ("build", project or self.project, "--addr", daemon.address, "--progress", "plain")
        running = Running(*build, *arguments, cwd=self.folder, env=self.env, daemon_is_here=True)
        self._started.append(running)
        return running

    def end(self) -> None:
        for running in self._started:
            if not running.ended:
                running.kill()
        assert list((self.folder / "tmp").iterdir()) == []


def peak_memory(running: Running) -> int:
    """Most bytes that the process had in memory up to now; it must still run."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def ends(running: Running, code: int) -> str:
    """The process ends with ``code`` within the bound after now; returns what it said."""
    running.mark()
    running.end({code})
    text = running.stderr
    assert not CONTROL_CHARACTERS.search(text), repr(text)
    return text


def error_of(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("error: "))


class OnSession(Script):
    """Calls cogkit back over the session, then ends the build well.

    ``answers`` has what came back, by the name under which `attack` put it there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Answer] = {}

    async def solve(self, request: control_pb2.SolveRequest) -> control_pb2.SolveResponse:
        async with asyncio.timeout(80):
            caller = Caller(await self.link)
            await caller.open()
            await self.attack(caller)
        return control_pb2.SolveResponse()

    async def attack(self, caller: Caller) -> None:
        raise NotImplementedError


def peak_or_nothing(running: Running) -> int:
    try:
        return peak_memory(running)
    except (FileNotFoundError, AssertionError, ProcessLookupError):
        return 0  # it has just ended
