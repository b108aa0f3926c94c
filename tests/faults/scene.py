"""One run of a fault: a project, a build of it, what happens to that, and what has to hold afterwards.

`Lab` has what runs share (daemons, a home folder); `Scene` is one run, with chances of its own drawn from its seed, and
the checks that follow every fault.  The faults themselves are in `kinds`.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.project import BASE, Content, Output, Project, Shape
from tests.faults.proxy import Listen, Proxy, Way
from tests.faults.running import BY_SIGNAL, PATIENCE, Running, processes_with
from tests.real.buildkitd import Buildkitd, DaemonOptions

VICTIMS = 2
"""Daemons that runs may kill and freeze, one run at a time."""

METADATA = "metadata.json"


class NotPermitted(Exception):
    """This machine does not allow what a fault needs."""


@dataclass(frozen=True)
class Case:
    """Which run: the same seed, number and kind have the same chances."""

    seed: int
    number: int
    kind: str

    @property
    def id(self) -> str:
        return f"{self.number}-{self.kind}"


@dataclass
class Tally:
    """How runs of one kind ended."""

    ends: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    """Most seconds from a fault to the end of the process."""


class Lab:
    """What all runs share.

    Args:
        folder: For everything on disk.
        shared: A daemon that nothing happens to.
        options: How daemons are started that things happen to.
    """

    def __init__(self, folder: Path, shared: Buildkitd, options: DaemonOptions) -> None:
        self.folder = folder
        self.shared = shared
        self.home = folder / "home"
        self.home.mkdir()
        self.tallies: dict[str, Tally] = {}
        self.base: Content = {}
        """The files of `BASE`, after `warm_up`."""
        self._options = options
        self._victims: queue.SimpleQueue[Buildkitd | int] = queue.SimpleQueue()
        for number in range(VICTIMS):
            self._victims.put(number)

    @contextmanager
    def victim(self) -> Iterator[Buildkitd]:
        """A daemon to kill and to freeze; it runs again afterwards."""
        found = self._victims.get()
        try:
            if isinstance(found, int):
                found = Buildkitd(self.folder / f"victim{found}", self._options)
            elif not found.running:
                found.start()
            yield found
        finally:
            if isinstance(found, Buildkitd):
                found.resume()
            self._victims.put(found)

    def warm_up(self) -> None:
        """Build on each base image once: no run has to wait for it, and it is known what of a result is the base's."""
        project = Project.make(self.folder / "warm-up", "cog", Random(0), size=1000)
        self._build(project.path)
        on_base = self.folder / "base"
        on_base.mkdir()
        (on_base / "Dockerfile").write_text(f"FROM {BASE}\nRUN true\n")
        output = Output("tar", self.folder / "base.tar")
        self._build(on_base, "-o", output.flag)
        self.base = output.files()

    def _build(self, path: Path, *more: str) -> None:
        env = {"HOME": str(self.home), "XDG_CONFIG_HOME": None}
        running = Running("build", path, "--addr", self.shared.address, *more, cwd=self.folder, env=env)
        running.end({0}, patience=280)

    def count(self, kind: str, end: str, seconds: float | None = None) -> None:
        tally = self.tallies.setdefault(kind, Tally())
        tally.ends[end] += 1
        tally.slowest = max(tally.slowest, seconds or 0.0)

    def close(self) -> None:
        """End the daemons; nothing runs any more."""
        while not self._victims.empty():
            found = self._victims.get()
            if isinstance(found, Buildkitd):
                found.remove()
        left = [path for path in self.home.rglob("*") if path.is_file() and path.name != "node-id"]
        assert not left, f"left in the home folder: {left}"


class Scene:
    """One run.  Its chances come from ``rng`` only."""

    def __init__(self, lab: Lab, case: Case, stack: ExitStack) -> None:
        self.lab = lab
        self.case = case
        self.rng = Random(f"{case.seed}/{case.number}/{case.kind}")
        self.folder = lab.folder / case.id
        self.folder.mkdir()
        self.out = self.folder / "out"
        self.out.mkdir()
        self._temporary = self.folder / "tmp"
        self._temporary.mkdir()
        self._stack = stack
        self._projects = 0
        self._proxies: list[Proxy] = []

    # ---------------------------------------------------------------- what there is

    def project(self, *shapes: Shape, size: int | None = None, seconds: float = 0.0) -> Project:
        """A new project of one of these shapes."""
        self._projects += 1
        shape = self.rng.choice(shapes)
        size = size or self.rng.choice([20_000, 200_000, 1_000_000])
        path = self.folder / f"project{self._projects}"
        return Project.make(path, shape, self.rng, size=size, seconds=seconds, base=self.lab.base)

    def outputs(self, project: Project, folder: Path | None = None, *, least: int = 0) -> list[Output]:
        """Some destinations for its result; none for a Cog project, whose result is large."""
        if project.shape == "cog":
            return []
        folder = folder or self.out
        count = self.rng.choice([least, 1, 1, 1, 2])
        kinds = self.rng.sample(["tar", "oci", "docker", "local"], max(count, least))
        return [Output(kind, folder / f"{project.path.name}.{kind}") for kind in kinds]  # type: ignore[arg-type]

    def proxy(self, daemon: Buildkitd) -> Proxy:
        """A link to a daemon."""
        folder = Path(tempfile.mkdtemp(prefix="cogkit-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, folder)
        backend = Path(daemon.address.removeprefix("unix://"))
        listen: Listen = self.rng.choice(["unix", "tcp"])
        proxy = Proxy(backend, folder, listen)
        self._stack.callback(proxy.close)
        self._proxies.append(proxy)
        return proxy

    def small_disk(self, size: int) -> Path:
        """A disk of about ``size`` bytes, mounted for the time of the run.

        Raises:
            NotPermitted: nothing can be mounted here.
        """
        disk = self.folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(disk)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotPermitted(f"cannot mount a small disk: {done.stderr.strip()}")
        self._stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
        return disk

    # ---------------------------------------------------------------- what is done

    def start(self, project: Project, address: str, outputs: Sequence[Output] = (), *more: str) -> Running:
        """Build it, with plain progress."""
        arguments = ["build", str(project.path), "--addr", address, "--progress", "plain", *more]
        for output in outputs:
            arguments += ["-o", output.flag]
        if project.shape == "cog":
            arguments += ["-t", "cogkit-faults"]
        env = {"HOME": str(self.lab.home), "XDG_CONFIG_HOME": None, "TMPDIR": str(self._temporary)}
        running = Running(*arguments, cwd=self.folder, env=env)
        self._stack.callback(lambda: None if running.ended else running.kill())
        return running

    def byte(self, way: Way, project: Project, outputs: Sequence[Output] = ()) -> int:
        """A place in what a build sends that way; often in the beginning, where most is decided."""
        content = sum(map(len, project.content.values()))
        total = 8_000
        if way is Way.UP:
            total += content
        elif outputs:
            total += content * len(outputs)
        return self.rng.randrange(4_000) if self.rng.random() < 0.4 else self.rng.randrange(total)

    def way(self) -> Way:
        return self.rng.choice(list(Way))

    # ---------------------------------------------------------------- what has to hold

    def ends(
        self, running: Running, codes: Container[int], project: Project, outputs: Sequence[Output] = (), what: str = ""
    ) -> int:
        """The build ends as it must and leaves what it must; returns its exit code."""
        code, seconds = running.end(codes)
        self.lab.count(self.case.kind, _end_name(code, what), seconds)
        for output in outputs:
            if code == 0:
                output.require_whole(project.result)
            else:
                output.require_nothing_torn(project.result)
        project.require_clean(killed=code == BY_SIGNAL)
        self._require_nothing_left(outputs, killed=code == BY_SIGNAL)
        return code

    def next_build(self, project: Project, daemon: Buildkitd, outputs: Sequence[Output] = ()) -> None:
        """The next build of the project succeeds, whatever happened before."""
        for proxy in self._proxies:
            proxy.close()
        if project.shape == "step":
            self._require_step_ended(project)
            project.set_seconds(0)
        running = self.start(project, daemon.address, outputs, "--lock-timeout", "30")
        running.end({0})
        for output in outputs:
            output.require_whole(project.result)
        project.require_clean()
        self._require_nothing_left(outputs, killed=False)

    def _require_step_ended(self, project: Project) -> None:
        """The daemon ends the step of a client that is gone."""
        deadline = time.monotonic() + 20
        while left := processes_with(project.nonce):
            assert time.monotonic() < deadline, f"the step still runs at the daemon: processes {left}"
            time.sleep(0.05)

    def _require_nothing_left(self, outputs: Sequence[Output], *, killed: bool) -> None:
        # A killed process cannot take its temporary folder away; it has one for TLS and read-only projects only.
        left = sorted(path.name for path in self._temporary.iterdir())
        assert not left, f"left in TMPDIR: {left}"
        known = {output.path.name for output in outputs} | {METADATA}
        for folder in {output.path.parent for output in outputs} | {self.out}:
            unknown = sorted(path.name for path in folder.iterdir() if path.name not in known and not path.is_dir())
            assert not unknown, f"left beside the outputs: {unknown}"
        metadata = self.out / METADATA
        if metadata.exists():
            json.loads(metadata.read_text())


def _end_name(code: int, what: str) -> str:
    name = {0: "success", 1: "failed (1)", 3: "builder lost (3)", 130: "interrupted (130)", BY_SIGNAL: "killed"}
    return what or name.get(code, f"exit code {code}")


def run_case(lab: Lab, case: Case, kinds: dict[str, Callable[[Scene], None]]) -> None:
    """Run one fault; what does not hold raises `AssertionError`."""
    with ExitStack() as stack:
        scene = Scene(lab, case, stack)
        try:
            kinds[case.kind](scene)
        except NotPermitted as reason:
            lab.count(case.kind, "not permitted here")
            raise reason
    # Kept when it failed, for looking at.
    shutil.rmtree(scene.folder)


__all__ = ["PATIENCE", "Case", "Lab", "NotPermitted", "Scene", "Tally", "run_case"]
