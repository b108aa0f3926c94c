"""The private builder: on a machine with no builder at all, a build ends with an image."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.real.cogkit_process import run_cogkit as run_cogkit_process
from tests.real.registry import Registry
from tests.real.tools import RELEASES, installed

pytestmark = pytest.mark.one_release_is_enough

GENEROUS = 120.0
NOWHERE = "/nonexistent"


class Machine:
    """A user with folders of their own, a buildkitd and a runc in PATH, and no builder that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        (self.bin / "buildkitd").symlink_to(RELEASES["current"].buildkitd)
        (self.bin / "runc").symlink_to(installed("runc"))
        self.environment: dict[str, str | None] = {
            "BUILDKIT_HOST": None,
            # No engine of the machine's own: one that is named and not there counts alone.
            "DOCKER_HOST": f"unix://{NOWHERE}/docker.sock",
            "HOME": str(folder),
            "PATH": f"{self.bin}:{os.environ.get('PATH', '')}",
            "XDG_RUNTIME_DIR": None,
            **{f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "STATE")},
        }

    @property
    def builder(self) -> Path:
        return self.folder / "data" / "cogkit" / "builder"

    @property
    def log(self) -> str:
        path = self.builder / "buildkitd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.builder / "state.json").read_text())
        return found

    def configure(self, name: str, text: str) -> None:
        path = self.folder / "config" / "cogkit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def daemons(self) -> list[int]:
        """Processes of buildkitd that work on this user's builder."""
        return _processes_with(f"{self.builder}/root")

    def remove(self) -> None:
        for pid in self.daemons():
            _kill(pid, signal.SIGTERM)


def _processes_with(argument: str) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in words:
                found.append(int(entry.name))
    return found


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@pytest.fixture
def machine(tmp_path: Path, base_images: Registry) -> Iterator[Machine]:
    made = Machine(tmp_path / "user")
    made.configure(
        "buildkitd.toml",
        f'[registry."docker.io"]\n  mirrors = ["{base_images.host}"]\n[registry."{base_images.host}"]\n  http = true\n',
    )
    yield made
    run_cogkit_process("builder", "stop", cwd=tmp_path, env=made.environment)
    made.remove()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4]
        if point.startswith(f"{made.folder}/"):
            subprocess.run(["umount", "--lazy", point], check=False, timeout=60)
    shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture
def cogkit_env(machine: Machine) -> dict[str, str | None]:
    return machine.environment


@pytest.fixture(autouse=True)
def no_system_builder() -> None:
    if os.path.exists("/run/buildkit/buildkitd.sock"):
        pytest.skip("a buildkitd of this machine's own listens at the usual socket")


def test_a_first_build_on_a_bare_machine_ends_with_an_image(
    machine: Machine, run_cogkit: RunCogkit, context_tree: MakeTree, registry: Registry
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo from the private builder > /words\n"})
    name = f"{registry.host}/private-builder-first:v1"
    built = run_cogkit("build", "-t", name, "--push", "--debug", cwd=project)
    assert built.returncode == 0, built.stderr
    assert "started the private builder" in built.stderr
    assert registry.tags("private-builder-first") == ["v1"]
    again = run_cogkit("build", "-t", name, "--debug", cwd=project)
    assert again.returncode == 0, again.stderr
    assert "CACHED" in again.stderr
    assert "started the private builder" not in again.stderr


def test_first_builds_at_once_start_one_daemon(
    machine: Machine, start_cogkit: StartCogkit, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "content"})
    command = ("build", "--progress", "plain", "-o", "type=image,name=at-once", project)
    processes = [start_cogkit(*command) for _ in range(5)]
    for process in processes:
        _, said = process.communicate(timeout=GENEROUS)
        assert process.returncode == 0, said.decode()
    assert machine.log.count("running server on") == 1
    assert len(machine.daemons()) == 1


def test_only_the_user_may_open_its_socket(machine: Machine, run_cogkit: RunCogkit) -> None:
    started = run_cogkit("builder", "start")
    assert started.returncode == 0, started.stderr
    path = Path(started.stdout.strip().removeprefix("unix://"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert machine.builder.stat().st_mode & 0o077 == 0


def test_it_ends_when_it_is_idle_and_not_while_it_is_used(
    machine: Machine,
    run_cogkit: RunCogkit,
    start_cogkit: StartCogkit,
    context_tree: MakeTree,
    eventually: Callable[..., None],
) -> None:
    machine.configure("builders.toml", "[private]\nidle-minutes = 0.02\n")
    project = context_tree({"Dockerfile": "FROM busybox\nRUN sleep 3\n"})
    built = run_cogkit("build", "-o", "type=image,name=idle", cwd=project)
    assert built.returncode == 0, built.stderr
    eventually(lambda: not machine.daemons(), within=GENEROUS, what="that the idle builder has ended")
    eventually(lambda: not (machine.builder / "state.json").exists(), within=GENEROUS)
    shown = json.loads(run_cogkit("builder", "ls", "--json").stdout)
    assert [each["nodes"] for each in shown if each["name"] == "private"] == [[]]


def test_a_killed_daemon_is_started_again(
    machine: Machine, run_cogkit: RunCogkit, eventually: Callable[..., None]
) -> None:
    first = run_cogkit("builder", "start")
    assert first.returncode == 0, first.stderr
    supervisor = machine.state["supervisor"]
    os.kill(machine.state["buildkitd"], signal.SIGKILL)
    again = run_cogkit("builder", "start")
    assert again.returncode == 0, again.stderr
    assert machine.state["supervisor"] != supervisor
    eventually(lambda: len(machine.daemons()) == 1, within=GENEROUS)


def test_a_killed_supervisor_leaves_nothing_that_is_in_the_way(machine: Machine, run_cogkit: RunCogkit) -> None:
    assert run_cogkit("builder", "start").returncode == 0
    old = machine.state
    os.kill(old["supervisor"], signal.SIGKILL)
    again = run_cogkit("builder", "start")
    assert again.returncode == 0, again.stderr
    assert machine.state["supervisor"] != old["supervisor"]
    shown = run_cogkit("du")
    assert shown.returncode == 0, shown.stderr


def test_a_stale_socket_is_no_obstacle(machine: Machine, run_cogkit: RunCogkit) -> None:
    assert run_cogkit("builder", "start").returncode == 0
    state = machine.state
    assert run_cogkit("builder", "stop").returncode == 0
    socket_path = Path(state["address"].removeprefix("unix://"))
    socket_path.parent.mkdir(exist_ok=True)
    socket_path.touch()
    (machine.builder / "state.json").write_text(json.dumps(state))
    again = run_cogkit("builder", "start")
    assert again.returncode == 0, again.stderr


def test_stopping_ends_it_and_removing_takes_its_cache(machine: Machine, run_cogkit: RunCogkit) -> None:
    assert run_cogkit("builder", "start").returncode == 0
    assert run_cogkit("builder", "stop").returncode == 0
    assert machine.daemons() == []
    assert machine.builder.exists()
    twice = run_cogkit("builder", "stop")
    assert (twice.returncode, "does not run" in twice.stderr) == (0, True)
    removed = run_cogkit("builder", "rm", "private")
    assert removed.returncode == 0, removed.stderr
    assert not machine.builder.exists()


def test_its_disk_is_kept_from_filling(machine: Machine, run_cogkit: RunCogkit) -> None:
    machine.configure("builders.toml", '[private]\nmax-used-space = "3GB"\nmin-free-space = "1%"\n')
    assert run_cogkit("builder", "start").returncode == 0
    shown = json.loads(run_cogkit("builder", "inspect", "--json").stdout)
    policies = shown["nodes"][0]["workers"][0]["gc_policy"]
    assert {policy["max_used_space"] for policy in policies if policy["all"]} == {3 << 30}


def test_a_full_disk_is_said(machine: Machine, run_cogkit: RunCogkit) -> None:
    machine.builder.mkdir(parents=True)
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(machine.builder)]
    if subprocess.run(mounting, check=False, timeout=60).returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    try:
        with (machine.builder / "filler").open("wb", buffering=0) as filler:
            while True:
                try:
                    filler.write(b"x" * 4096)
                except OSError:
                    break
        failed = run_cogkit("builder", "start")
    finally:
        subprocess.run(["umount", "--lazy", str(machine.builder)], check=True, timeout=60)
    assert failed.returncode == 3, failed.stderr
    assert re.search(r"error: .*the private builder cannot start: no space is left on the disk", failed.stderr)
    assert "hint: free some space" in failed.stderr


def test_a_missing_buildkitd_is_said(machine: Machine, run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    if shutil.which("buildkitd", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"):
        pytest.skip("a buildkitd is installed on this machine")
    (machine.bin / "buildkitd").unlink()
    machine.environment["PATH"] = str(machine.bin)
    project = context_tree({"Dockerfile": "FROM scratch\n"})
    for command in (("build", "-o", "type=image,name=none", project), ("builder", "start")):
        failed = run_cogkit(*command)
        assert failed.returncode == 3, failed.stderr
        assert "there is no buildkitd on this machine" in failed.stderr
        assert "cogkit builder install" in failed.stderr


def test_a_daemon_that_does_not_start_shows_its_log(machine: Machine, run_cogkit: RunCogkit) -> None:
    machine.configure("buildkitd.toml", '[worker.oci]\n  snapshotter = "nonsense"\n')
    failed = run_cogkit("builder", "start")
    assert failed.returncode == 3
    assert "the private builder cannot start: buildkitd ended with code" in failed.stderr
    assert "nonsense" in failed.stderr
    assert machine.daemons() == []


def test_a_broken_configuration_of_the_daemon_is_said_with_its_line(machine: Machine, run_cogkit: RunCogkit) -> None:
    machine.configure("buildkitd.toml", "debug = true\nroot = [\n")
    failed = run_cogkit("builder", "start")
    assert failed.returncode == 2
    assert "buildkitd.toml:" in failed.stderr
    assert "not TOML" in failed.stderr


def test_two_users_of_one_start_both_get_it(machine: Machine, run_cogkit: RunCogkit) -> None:
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: run_cogkit("builder", "start"), range(4)))
    assert [each.returncode for each in started] == [0] * 4, started
    assert len({each.stdout for each in started}) == 1
