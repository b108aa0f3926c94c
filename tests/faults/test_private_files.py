"""What cogkit keeps for itself can be read by its user alone: files and sockets are 0600, in folders that are 0700.

Looked at in the middle of builds, with a umask that would let everybody in.
"""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cogkit._proto import gateway_pb2
from cogkit.buildkit.connect.private_socket import Bridge
from cogkit.buildkit.shared_key import kept_random
from cogkit.registry.docker_config import RegistryLogin
from cogkit.registry.login import keep_login
from tests.conftest import MakeTree
from tests.faults.hostile_daemon import HostileDaemon, Script
from tests.real.cogkit_process import start_cogkit

pytestmark = pytest.mark.one_release_is_enough


def open_to_others(*folders: Path) -> dict[str, str]:
    """What others than the user can get at and enter, read or change, these folders included."""
    found: dict[str, str] = {}
    pending = list(folders)
    while pending:
        path = pending.pop()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not mode & 0o077:
            continue  # a link has no mode, and into a closed folder nobody comes
        found[str(path)] = stat.filemode(mode)
        if stat.S_ISDIR(mode):
            pending += path.iterdir()
    return found


def modes(folder: Path) -> dict[str, int]:
    """By name, of the files below."""
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*") if not path.is_dir()}


class Waits(Script):
    """Does not answer a solve before it is told to, so that the build can be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()

    async def _wait(self) -> None:
        self.asked.set()
        await self.go_on.wait()

    async def solve(self, request: Any) -> Any:
        if request.Frontend:
            await self._wait()
            return await super().solve(request)
        await asyncio.Event().wait()

    async def bridge(self, method: str, request: bytes) -> bytes:
        if method == "Solve":
            await self._wait()
            return gateway_pb2.SolveResponse(ref="none").SerializeToString()
        return b""


@contextmanager
def in_the_middle(tmp_path: Path, *arguments: str | Path, input: bytes | None = None) -> Iterator[None]:
    """While a build with these arguments is under way, in an environment of its own, without a umask."""
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir(mode=0o700)
    env = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "XDG_CONFIG_HOME": None}
    with HostileDaemon(Waits) as daemon:
        script: Any = daemon.script
        options: dict[str, Any] = {"umask": 0, "stdin": subprocess.PIPE if input else subprocess.DEVNULL}
        process = start_cogkit("build", "--addr", daemon.address, *arguments, cwd=tmp_path, env=env, **options)
        try:
            if input:
                assert process.stdin is not None
                process.stdin.write(input)
                process.stdin.close()
            assert script.asked.wait(30)
            yield
            script.loop.call_soon_threadsafe(script.go_on.set)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def test_what_a_cog_build_stages_and_its_lock_are_private(tmp_path: Path, context_tree: MakeTree) -> None:
    project = context_tree(
        {
            "cog.yaml": 'build:\n  python_version: "3.11"\npredict: run.py:P\n',
            "run.py": "from cog import BasePredictor\n\n\nclass P(BasePredictor):\n"
            "    def predict(self, text: str) -> str:\n        return text\n",
        }
    )
    with in_the_middle(tmp_path, project, "-t", "x"):
        # What is staged has the modes that it gets in the image; nobody else comes to it.
        found = modes(project / ".cog")
        assert "Dockerfile" in found
        assert found["cog.lock"] == found["cog.lock.holder"] == 0o600
        assert open_to_others(project / ".cog", tmp_path / "tmp", *(tmp_path / "home").iterdir()) == {}


def test_a_dockerfile_from_standard_input_is_kept_nowhere(tmp_path: Path) -> None:
    with in_the_middle(tmp_path, "-t", "x", "-", input=b"FROM scratch\n"):
        assert modes(tmp_path / "tmp") == {}
        assert open_to_others(*(tmp_path / "tmp").iterdir()) == {}


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_a_login_and_what_identifies_the_user_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    environ = {"DOCKER_CONFIG": str(tmp_path / "docker"), "PATH": ""}
    keep_login("registry.example", RegistryLogin("me", "pw"), environ)
    (tmp_path / "docker" / "config.json").chmod(0o644)  # as other programs leave it
    keep_login("other.example", RegistryLogin("me", "pw"), environ)
    assert kept_random("token-seed") and kept_random("node-id")
    assert set(modes(tmp_path).values()) == {0o600}
    assert open_to_others(tmp_path / "home", tmp_path / "docker") == {}


@pytest.mark.usefixtures("no_umask")
def test_the_socket_of_a_bridge_is_private() -> None:
    async def look() -> dict[str, int]:
        bridge = await Bridge.open(lambda: asyncio.open_unix_connection("/nowhere"))
        folder = Path(bridge.grpc_target.removeprefix("unix:")).parent
        assert open_to_others(folder) == {}
        found = modes(folder)
        await bridge.close()
        return found

    assert asyncio.run(look()) == {"bridge.sock": 0o600}
