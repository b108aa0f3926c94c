"""Run a client and say what it cost: time, processor, memory, and the transfer of a build as the daemon saw it.

Must not decide what is compared with what.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tests.real.buildkitd import Buildkitd
from tests.real.tools import REPOSITORY

CONTEXT_VERTEX = "[internal] load build context"
OUR_NAME, THEIR_NAME = "cogkit", "buildctl"


@dataclass(frozen=True)
class Build:
    """One build, described so that either client can run it.

    Attributes:
        context: The folder that is sent.
        dockerfile: The folder that holds the Dockerfile.
        cog_project: The context is a Cog project, whose Dockerfile (the same) cogkit makes itself.
        output: As ``--output`` takes it.
        address: Where the daemon is reached, if not at its own address.
        cogkit_options: Further flags for cogkit alone.
        named_contexts: Further folders, by name, that cogkit needs to be told of only without ``cog_project``.
    """

    context: Path
    dockerfile: Path
    cog_project: bool = False
    output: str | None = None
    address: str | None = None
    cogkit_options: tuple[str, ...] = ()
    named_contexts: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What one run of a client cost.

    Attributes:
        wall: Seconds from start to end of the process.
        cpu: Seconds of user and system time.
        memory: Greatest resident size in MiB.
        transfer: Seconds that the daemon waited for the context; 0 when it never asked.
    """

    wall: float
    cpu: float
    memory: float
    transfer: float = 0.0


def run(client: str, daemon: Buildkitd, build: Build) -> Cost:
    """Run ``build`` with ``client`` (`OUR_NAME` or `THEIR_NAME`).

    Raises:
        RuntimeError: the build failed; the message ends with what the client said.
    """
    cost, printed = run_command(client_command(client, daemon, build))
    return replace(cost, transfer=_duration(printed, CONTEXT_VERTEX))


def client_command(client: str, daemon: Buildkitd, build: Build) -> list[str]:
    """The command line with which a client runs a build."""
    address = build.address or daemon.address
    return _cogkit(build, address) if client == OUR_NAME else _buildctl(build, daemon, address)


def run_command(command: list[str]) -> tuple[Cost, bytes]:
    """Run a command, and say what it cost and what it printed on standard error.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    # An installed cogkit is compiled once and not at each start.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as events:
        launched = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=events,
            env=environment,
            check=True,
        )
        wall, cpu, memory, exit_code = json.loads(launched.stdout)
        events.seek(0)
        printed = events.read()
    if exit_code != 0:
        raise RuntimeError(f"{' '.join(command)}\nexited with {exit_code}:\n{printed[-4000:].decode(errors='replace')}")
    return Cost(wall, cpu, memory / 1024), printed


_LAUNCHER = """
import json, os, sys, time
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
begin = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - begin
print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""
"""Starts the command from a process that is smaller than any client: into a process's peak the kernel counts what it
had before its exec, and that is what its parent has."""


def _cogkit(build: Build, address: str) -> list[str]:
    command = [sys.executable, "-m", "cogkit", "build", "--addr", address, "--progress=rawjson"]
    command += ["--context", str(build.context)]
    if not build.cog_project:
        command += ["-f", str(build.dockerfile / "Dockerfile")]
        command += [f"--build-context={name}={path}" for name, path in build.named_contexts.items()]
    if build.output is not None:
        command += ["--output", build.output]
    return [*command, *build.cogkit_options]


def _buildctl(build: Build, daemon: Buildkitd, address: str) -> list[str]:
    command = [str(daemon.buildctl), "--addr", address, "build", "--frontend=dockerfile.v0", "--progress=rawjson"]
    command += [f"--local=context={build.context}", f"--local=dockerfile={build.dockerfile}"]
    for name, path in build.named_contexts.items():
        command += [f"--local={name}={path}", f"--opt=context:{name}=local:{name}"]
    if build.output is not None:
        command += ["--output", build.output]
    return command


def _duration(printed: bytes, vertex_name: str) -> float:
    """Seconds that a vertex took, from the rawjson events of a build."""
    times: dict[str, float] = {}
    for line in printed.splitlines():
        if not line.startswith(b"{"):
            continue
        for vertex in json.loads(line).get("vertexes") or ():
            if vertex["name"] == vertex_name:
                for moment in ("started", "completed"):
                    if vertex.get(moment):
                        times[moment] = _seconds(vertex[moment])
    return times["completed"] - times["started"] if len(times) == 2 else 0.0


def _seconds(stamp: str) -> float:
    """An RFC 3339 time with nanoseconds, which `datetime` does not take, as seconds since the epoch."""
    whole, _, rest = stamp.rstrip("Z").partition(".")
    fraction = rest.split("+")[0].split("-")[0]
    zone = rest[len(fraction) :] or "+00:00"
    return datetime.fromisoformat(whole + zone).timestamp() + float(f"0.{fraction or '0'}")
