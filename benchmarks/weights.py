"""Managed weights: import and pull beside Cog, and beside skopeo where it does the same, on a loopback registry.

``python -m benchmarks.weights [--size MIB] [--rounds N]`` prints medians and ratios, and fails when cogkit takes more
than 0.9 of the best time or 200 MB.  Each run begins with an empty registry or an empty store; which program goes first
changes from round to round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Cost, run_command
from tests.real.registry import Registry
from tests.real.tools import TOOLS, built, installed

MODEL = "bench/model"
LIMIT = 0.9
MEMORY_LIMIT = 200.0
FILES = 1000


@dataclass(frozen=True)
class Program:
    """A program that is measured: how it is called for ``import`` and ``pull``."""

    name: str
    command: Callable[[str, str, Path], list[str]]
    verbs: tuple[str, ...] = ("import", "pull")


def _cogkit(verb: str, registry: str, scratch: Path) -> list[str]:
    return [sys.executable, "-m", "cogkit", "weights", verb]


def _cog(verb: str, registry: str, scratch: Path) -> list[str]:
    return [str(built(TOOLS / "bin" / "cog")), "weights", verb]


def _skopeo(verb: str, registry: str, scratch: Path) -> list[str]:
    lock = json.loads((scratch / "project" / "weights.lock").read_bytes())
    source = f"docker://{registry}/{MODEL}@{lock['weights'][0]['digest']}"
    return ["skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"dir:{scratch / 'skopeo'}"]


def programs() -> list[Program]:
    found = [Program("cogkit", _cogkit), Program("cog", _cog)]
    if shutil.which("skopeo"):
        found.append(Program("skopeo", _skopeo, ("pull",)))
    return found


def make_project(folder: Path, shape: str, size: int) -> None:
    """A project with one weight: a thousand files, or a single one."""
    weights = folder / "weights"
    weights.mkdir(parents=True)
    (folder / "cog.yaml").write_text(
        f'build:\n  python_version: "3.12"\nrun: "run.py:Runner"\nmodel: {MODEL}\n'
        "weights:\n  - {name: net, target: /src/net, source: {uri: weights}}\n"
    )
    count = FILES if shape == "many" else 1
    for index in range(count):
        with open(weights / f"{index:04}.safetensors", "wb") as file:
            for _ in range(0, size // count, 1 << 20):
                file.write(os.urandom(min(1 << 20, size // count)))


@contextmanager
def fresh_registry(scratch: Path) -> Iterator[Registry]:
    registry = Registry(scratch / "registry")
    try:
        yield registry
    finally:
        registry.stop()
        shutil.rmtree(scratch / "registry")


def measured(program: Program, verb: str, registry: Registry, scratch: Path) -> Cost:
    """One run of a program, with a store of its own that is empty."""
    store = scratch / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.rmtree(scratch / "skopeo", ignore_errors=True)
    settings = [f"COG_CACHE_DIR={store}", f"COG_MODEL_REGISTRY={registry.host}", "COG_NO_UPDATE_CHECK=1"]
    command = program.command(verb, registry.host, scratch)
    cost, _ = run_command([installed("env"), "-C", str(scratch / "project"), *settings, *command])
    return cost


def run_shape(shape: str, size: int, rounds: int, scratch: Path) -> dict[tuple[str, str], list[Cost]]:
    """All costs, by verb and program."""
    make_project(scratch / "project", shape, size)
    costs: dict[tuple[str, str], list[Cost]] = {}
    for number in range(rounds):
        order = programs()[:: 1 if number % 2 == 0 else -1]
        for program in order:
            if "import" in program.verbs:
                (scratch / "project" / "weights.lock").unlink(missing_ok=True)
                with fresh_registry(scratch) as registry:
                    costs.setdefault(("import", program.name), []).append(
                        measured(program, "import", registry, scratch)
                    )
        (scratch / "project" / "weights.lock").unlink(missing_ok=True)
        with fresh_registry(scratch) as registry:
            measured(programs()[0], "import", registry, scratch)
            for program in order:
                costs.setdefault(("pull", program.name), []).append(measured(program, "pull", registry, scratch))
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="MiB of each weight")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    worse = False
    print(f"{'case':<16}{'program':<10}{'seconds':>9}{'of best':>9}{'CPU s':>8}{'MiB':>7}")
    for shape in ("many", "one"):
        scratch = Path(tempfile.mkdtemp(prefix="cogkit-weights-"))
        try:
            costs = run_shape(shape, options.size << 20, options.rounds, scratch)
        finally:
            shutil.rmtree(scratch)
        for verb in ("import", "pull"):
            walls = {name: statistics.median(c.wall for c in found) for (v, name), found in costs.items() if v == verb}
            best = min(wall for name, wall in walls.items() if name != "cogkit")
            for name, wall in walls.items():
                found = costs[verb, name]
                cpu, memory = statistics.median(c.cpu for c in found), max(c.memory for c in found)
                print(f"{f'{verb}, {shape}':<16}{name:<10}{wall:>9.2f}{wall / best:>9.2f}{cpu:>8.2f}{memory:>7.0f}")
                worse = worse or (name == "cogkit" and (wall > LIMIT * best or memory > MEMORY_LIMIT))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
