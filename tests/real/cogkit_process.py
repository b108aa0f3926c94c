"""cogkit as its users run it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.real.tools import REPOSITORY

_LEFT_OUT = (
    *("BUILDKIT_HOST", "COGKIT_", "DOCKER_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR"),
    "PYTHONDONTWRITEBYTECODE",  # an installed cogkit is compiled once and not at each start
)


def cogkit_environment(extra: Mapping[str, str | None]) -> dict[str, str]:
    """Our environment without what would change cogkit's behaviour, plus ``extra`` (None takes a variable away)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [environment.get("PYTHONPATH")])])
    for name, value in extra.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


def start_cogkit(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str | None], **options: Any
) -> subprocess.Popen[bytes]:
    """Start ``cogkit …`` in a process group of its own, with pipes for its output unless told otherwise."""
    defaults: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-m", "cogkit", *map(str, arguments)],
        cwd=cwd,
        env=cogkit_environment(env),
        start_new_session=True,
        **(defaults | options),
    )
    return process


def run_cogkit(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str | None],
    input: str | None = None,
    timeout: float = 300.0,
) -> subprocess.CompletedProcess[str]:
    """Run ``cogkit …`` to its end; kills it and fails when that takes more than ``timeout`` seconds."""
    process = start_cogkit(
        *arguments, cwd=cwd, env=env, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL
    )
    with process:
        try:
            stdout, stderr = process.communicate(input.encode() if input is not None else None, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(
        process.args,
        process.returncode,
        stdout.decode(errors="surrogateescape"),
        stderr.decode(errors="surrogateescape"),
    )
