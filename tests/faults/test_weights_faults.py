"""Weights whose import or pull is cut off: a repetition finishes, and sends only what is missing.

    COGKIT_WEIGHTS_SEEDS=1,2,3

The registry is one in memory that counts bytes and keeps what arrived of a broken upload.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fake_registry import FakeRegistry
from tests.real.cogkit_process import run_cogkit, start_cogkit

pytestmark = pytest.mark.one_release_is_enough

SEEDS = [int(seed) for seed in (os.environ.get("COGKIT_WEIGHTS_SEEDS") or "1").split(",")]
COG_YAML = """\
build:
  python_version: "3.12"
run: "run.py:Runner"
model: faults/model
weights:
  - {name: base, target: /src/base, source: {uri: base}}
  - {name: text, target: /src/text, source: {uri: text}}
"""
IN_FLIGHT = 64 << 10
"""Bytes of requests that are not blobs' or that a cut may cost: a config, and a piece that was on its way."""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def written(cache: Path) -> int:
    """Bytes that a store has, whole or not."""
    total = 0
    for path in cache.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


class Bench:
    """A project with weights of 14 MiB in a file that is kept when it breaks, one that is packed, and a small one."""

    def __init__(self, folder: Path, registry: FakeRegistry, seed: int):
        self.rng = random.Random(seed)
        self.registry = registry
        self.project = folder / "project"
        for name in ("base", "text"):
            (self.project / name).mkdir(parents=True)
        (self.project / "cog.yaml").write_text(COG_YAML)
        (self.project / "base" / "a.bin").write_bytes(self.rng.randbytes(12 << 20))
        (self.project / "base" / "b.bin").write_bytes(self.rng.randbytes(1 << 20))
        (self.project / "text" / "c.txt").write_bytes(self.rng.randbytes(1 << 20).hex().encode())
        self.env: dict[str, str | None] = {
            "COG_MODEL_REGISTRY": registry.host,
            "COG_CACHE_DIR": str(folder / "cache"),
            "HOME": str(folder / "home"),
            "DOCKER_CONFIG": str(folder / "docker"),
        }

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run_cogkit("weights", *arguments, cwd=self.project, env={**self.env, **env})

    def succeed(self, *arguments: str, **env: str) -> None:
        done = self.run(*arguments, **env)
        assert done.returncode == 0, done.stderr

    def run_and_kill(self, *arguments: str, after: int, **env: str) -> None:
        """Kill it once so many bytes of blobs have moved."""
        self.registry.faults.stall_after = after
        process = start_cogkit("weights", *arguments, cwd=self.project, env={**self.env, **env})
        try:
            assert self.registry.stalled.wait(120), "nothing moved"
            if self.registry.served:
                # What is on its way is lost with the process; only what was written is kept.
                cache = Path(env.get("COG_CACHE_DIR") or str(self.env["COG_CACHE_DIR"]))
                wait_until(lambda: written(cache) >= self.registry.served - (256 << 10))
        finally:
            process.kill()
            process.communicate(timeout=120)
        self.registry.go_on()
        wait_until(lambda: not self.registry.busy)

    @property
    def packed(self) -> int:
        """Bytes of all layers, by the lock."""
        lock = json.loads((self.project / "weights.lock").read_bytes())
        return sum(weight["sizeCompressed"] for weight in lock["weights"])

    def check_store(self, cache: str | None = None) -> None:
        """Whatever has a digest for a name has that digest."""
        root = Path(cache or str(self.env["COG_CACHE_DIR"])) / "weights" / "files" / "sha256"
        for path in root.glob("*/*"):
            if len(path.name) == 64:
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


@pytest.fixture(params=SEEDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    registry = FakeRegistry()
    yield Bench(tmp_path, registry, request.param)
    registry.stop()


def test_an_import_that_is_killed_is_finished_by_the_next(bench: Bench) -> None:
    bench.run_and_kill("import", after=bench.rng.randrange(1, 13 << 20))
    bench.check_store()
    assert not (bench.project / "weights.lock").exists() or bench.packed
    bench.succeed("import")
    bench.check_store()
    assert bench.registry.received <= bench.packed + IN_FLIGHT


def test_a_pull_that_is_killed_is_finished_by_the_next(bench: Bench, tmp_path: Path) -> None:
    bench.succeed("import")
    cold = str(tmp_path / "cold")
    moved = bench.registry.received
    bench.run_and_kill("pull", after=moved + bench.rng.randrange(1, 13 << 20), COG_CACHE_DIR=cold)
    bench.check_store(cold)
    bench.succeed("pull", COG_CACHE_DIR=cold)
    bench.check_store(cold)
    # A file that is packed counts twice in what was written, and the last piece of each stream is not.
    assert bench.registry.served <= bench.packed + (4 << 20)
    assert not list((Path(cold) / "weights" / "partial").iterdir())


def test_connections_that_break_cost_only_what_had_not_arrived(bench: Bench, tmp_path: Path) -> None:
    bench.registry.faults.cut_uploads = [bench.rng.randrange(1, 6 << 20) for _ in range(3)]
    bench.succeed("import")
    assert bench.registry.received <= bench.packed + IN_FLIGHT
    bench.registry.faults.cut_downloads = [bench.rng.randrange(6 << 20) for _ in range(3)]
    bench.succeed("pull", COG_CACHE_DIR=str(tmp_path / "cold"))
    bench.check_store(str(tmp_path / "cold"))
    assert bench.registry.served == bench.packed


def test_a_full_disk_is_told_and_nothing_is_lost(bench: Bench, tmp_path: Path) -> None:
    bench.succeed("import")
    disk = tmp_path / "disk"
    disk.mkdir()
    size = bench.rng.randrange(1 << 20, 12 << 20)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        for command in ("pull", "import"):
            full = bench.run(command, COG_CACHE_DIR=str(disk))
            assert full.returncode == 1, full.stderr
            assert "no space left on the device" in full.stderr
            assert "Traceback" not in full.stderr
            bench.check_store(str(disk))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], timeout=120, check=True)
        received = bench.registry.received
        bench.succeed("pull", COG_CACHE_DIR=str(disk))
        bench.succeed("import", COG_CACHE_DIR=str(disk))
        bench.check_store(str(disk))
        assert bench.registry.received == received
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], timeout=120, check=True)


def test_a_registry_that_asks_to_wait_is_waited_for(bench: Bench) -> None:
    bench.registry.faults.refusals = [(429, {"Retry-After": "0"}), (503, {}), (502, {})]
    bench.succeed("import")
    assert not bench.registry.faults.refusals


@pytest.mark.parametrize("command", ["import", "pull"])
def test_an_interrupt_ends_it_and_the_next_goes_on(bench: Bench, tmp_path: Path, command: str) -> None:
    bench.succeed("import")
    cold = str(tmp_path / "cold")
    if command == "import":
        (bench.project / "weights.lock").unlink()
        (bench.project / "base" / "a.bin").write_bytes(bench.rng.randbytes(12 << 20))
    moved = bench.registry.received + bench.registry.served
    bench.registry.faults.stall_after = moved + bench.rng.randrange(1, 6 << 20)
    process = start_cogkit("weights", command, cwd=bench.project, env={**bench.env, "COG_CACHE_DIR": cold})
    try:
        assert bench.registry.stalled.wait(120), "nothing moved"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    bench.registry.go_on()
    bench.check_store(cold)
    bench.succeed(command, COG_CACHE_DIR=cold)
    bench.check_store(cold)
