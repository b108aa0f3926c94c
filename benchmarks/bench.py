"""``make bench``: cogkit beside buildctl, pair by pair, on a real buildkitd with its root on tmpfs.

``python -m benchmarks.bench [CASE…] [--rounds N]`` prints ratios (medians), writes ``benchmarks/results.md`` and fails
when a ratio is worse than the one in ``benchmarks/ratios.json``; ``benchmarks/README.md`` says how to read and renew
them.  A case is a function that yields `Row`s; to add one, write it and put ``@case("name", "what it is")`` above it.
Which client goes first changes from round to round, so that what the machine does meanwhile hits both.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import ratios, trees
from benchmarks.measure import OUR_NAME, THEIR_NAME, Build, Cost, client_command, run, run_command
from benchmarks.table import Row, markdown
from benchmarks.traffic import Traffic
from tests.oracle_llb.oracle import build as build_llb_oracle
from tests.real.base_image import push_base_images
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.docker_engine import DockerEngine
from tests.real.process import ServerProcess
from tests.real.registry import Registry
from tests.real.ssh_server import SshServer
from tests.real.tools import REPOSITORY, installed

RESULTS = REPOSITORY / "benchmarks" / "results.md"
RATIOS = REPOSITORY / "benchmarks" / "ratios.json"
CLIENTS = (OUR_NAME, THEIR_NAME)


@dataclass
class Rig:
    """What cases run on.

    Attributes:
        disk: A folder on this machine's disk, for what is sent and what comes back.
        memory: A folder on tmpfs, for the daemons' roots.
        rounds: How often each client runs each case.
    """

    disk: Path
    memory: Path
    rounds: int
    _numbers: int = 0
    _made: dict[str, Path] = field(default_factory=dict)

    def number(self) -> int:
        """Another one each time."""
        self._numbers += 1
        return self._numbers

    @contextmanager
    def daemon(self, options: DaemonOptions | None = None) -> Iterator[Buildkitd]:
        """A new daemon with nothing in its cache."""
        folder = self.memory / f"daemon{self.number()}"
        daemon = Buildkitd(folder, options or DaemonOptions())
        try:
            yield daemon
        finally:
            daemon.remove()
            shutil.rmtree(folder)

    def tree(self, name: str, make: Callable[[Path], None]) -> Path:
        """The tree of that name, made when it is first asked for."""
        if name not in self._made:
            root = self.disk / name
            print(f"  making the tree {name!r}", flush=True)
            make(root)
            # Else whoever comes first shares the machine with the writing of what was just made.
            os.sync()
            self._made[name] = root
        return self._made[name]

    def remove_tree(self, name: str) -> None:
        shutil.rmtree(self._made.pop(name))

    def dockerfile(self, text: str, ignore: str | None = None) -> Path:
        """A folder with this Dockerfile (and its own ignore file) in it."""
        folder = Path(tempfile.mkdtemp(dir=self.disk))
        (folder / "Dockerfile").write_text(text)
        if ignore is not None:
            (folder / "Dockerfile.dockerignore").write_text(ignore)
        return folder

    def alternate(self, one: Callable[[str], None], *, times: int = 1) -> None:
        """Call ``one`` with each client, ``times`` `rounds`, each client first in every other round."""
        for number in range(self.rounds * times):
            for client in CLIENTS if number % 2 == 0 else CLIENTS[::-1]:
                print(f"  round {number + 1}: {client}", flush=True)
                one(client)


@dataclass(frozen=True)
class Case:
    """A named measurement; `run` yields the rows it gives."""

    name: str
    about: str
    run: Callable[[Rig], Iterator[Row]]


CASES: dict[str, Case] = {}
_Run = Callable[[Rig], Iterator[Row]]


def case(name: str, about: str) -> Callable[[_Run], _Run]:
    """Make a function a case."""

    def register(function: _Run) -> _Run:
        CASES[name] = Case(name, about, function)
        return function

    return register


COPY_ALL = "FROM scratch\nCOPY . /\n"
Samples = dict[str, list[Cost]]


def _first_and_again(rig: Rig, build: Build) -> tuple[Samples, Samples]:
    """Costs of a build on an empty daemon, and of the same build at once again."""
    first: Samples = {client: [] for client in CLIENTS}
    again: Samples = {client: [] for client in CLIENTS}

    def one(client: str) -> None:
        with rig.daemon() as daemon:
            first[client].append(run(client, daemon, build))
            again[client].append(run(client, daemon, build))

    rig.alternate(one)
    return first, again


def _row(
    key: str,
    title: str,
    samples: Samples,
    what: str,
    target: float | None = None,
    *,
    unit: str = "s",
    most_more: float | None = None,
) -> Row:
    """A row of costs; ``key`` is "CASE: NAME" and ``what`` a figure of `Cost`."""
    ours, theirs = ([float(getattr(cost, what)) for cost in samples[client]] for client in CLIENTS)
    case_name, _, name = key.partition(": ")
    return Row(case_name, name, title, ours, theirs, unit, target, most_more)


@case("start", "a command that does nothing: the price of starting at all")
def start(rig: Rig) -> Iterator[Row]:
    commands = {
        OUR_NAME: [sys.executable, "-m", "cogkit", "--version"],
        THEIR_NAME: [str(DaemonOptions().release.buildctl), "--version"],
    }
    samples: Samples = {client: [] for client in CLIENTS}
    for command in commands.values():
        run_command(command)
    rig.alternate(lambda client: samples[client].append(run_command(commands[client])[0]), times=3)
    yield _row("start: wall", "--version: whole process", samples, "wall")
    yield _row("start: cpu", "the same: client CPU", samples, "cpu")


@case("hello", "examples/hello: unchanged rebuild, and what a build with its labels sends")
def hello(rig: Rig) -> Iterator[Row]:
    samples: Samples = {client: [] for client in CLIENTS}
    first: dict[str, Traffic] = {}
    again: dict[str, Traffic] = {}
    with ExitStack() as stack:
        registry = Registry(rig.disk / f"registry{rig.number()}")
        stack.callback(registry.stop)
        push_base_images(registry, rig.disk / "base-images")
        daemon = stack.enter_context(rig.daemon(DaemonOptions(registry=registry)))
        build = _hello_build(rig)
        for client in CLIENTS:
            print(f"  first build: {client}", flush=True)
            first[client] = _traffic(rig, client, daemon, build)
            if client == OUR_NAME:
                # What cogkit stages for its own build, buildctl has to be given.
                shutil.copy(build.context / ".cog" / "openapi_schema.json", build.named_contexts["cog_build"])
            again[client] = _traffic(rig, client, daemon, build)
        rig.alternate(lambda client: samples[client].append(run(client, daemon, build)), times=3)
    yield _row("hello: wall", "examples/hello, unchanged: whole process", samples, "wall", most_more=0.20)
    yield _row("hello: cpu", "the same: client CPU", samples, "cpu")

    def counted(name: str, title: str, count: Callable[[Traffic], float], traffic: dict[str, Traffic]) -> Row:
        return Row("hello", name, title, [count(traffic[OUR_NAME])], [count(traffic[THEIR_NAME])], unit="")

    solves, sessions = (lambda traffic, name=name: traffic.count("Control", name) for name in ("Solve", "Session"))
    labelled = "examples/hello, first build (buildctl's has no labels)"
    in_one = counted("solves", f"{labelled}: solves", solves, first)
    yield replace(in_one, target=1.0)
    yield replace(in_one, name="trips", theirs=[COG_TRIPS], target=1 / COG_TRIPS, their_name="cog 0.22, known")
    yield replace(counted("sessions", "the same: sessions", sessions, first), target=1.0)
    yield replace(counted("sent", "the same: sent", lambda traffic: traffic.sent / 1024, first), unit="KiB")
    yield replace(counted("sent again", "unchanged: sent", lambda traffic: traffic.sent / 1024, again), unit="KiB")


COG_TRIPS = 4
"""Trips of cog 0.22 to its engine for a build with labels: the image, a container for the list of what is installed,
and the image twice more."""


def _hello_build(rig: Rig) -> Build:
    """examples/hello as cogkit builds it, and as the same Dockerfile for buildctl."""
    project = REPOSITORY / "examples" / "hello"
    shown = subprocess.run(
        [sys.executable, "-m", "cogkit", "dockerfile"],
        capture_output=True,
        text=True,
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    staged = Path(tempfile.mkdtemp(dir=rig.disk))
    shutil.copy(project / "requirements.txt", staged)
    return Build(
        project,
        rig.dockerfile(shown.stdout),
        cog_project=True,
        output="type=image,name=hello",
        named_contexts={"cog_build": staged},
    )


def _traffic(rig: Rig, client: str, daemon: Buildkitd, build: Build) -> Traffic:
    """What one run of a client sends and calls."""
    with _proxy("tap", daemon, rig.disk) as (address, log):
        run(client, daemon, replace(build, address=address))
    return Traffic.from_json(next(line for line in log.read_text().splitlines() if line.startswith("{")))


@case("small-files", "50,000 files, 208 MB: first sync, unchanged, processor, memory")
def small_files(rig: Rig) -> Iterator[Row]:
    build = Build(rig.tree("small-files", trees.small_files), rig.dockerfile(COPY_ALL))
    first, again = _first_and_again(rig, build)
    yield _row("small-files: first transfer", "50,000 files, 208 MB, first sync: transfer", first, "transfer", 0.95)
    yield _row("small-files: first wall", "the same: whole process", first, "wall")
    yield _row("small-files: first cpu", "the same: client CPU", first, "cpu", 0.80)
    yield _row("small-files: first memory", "the same: client peak memory", first, "memory", unit="MiB")
    yield _row("small-files: again transfer", "the same again, unchanged: transfer", again, "transfer", 0.60)
    yield _row("small-files: again wall", "the same again, unchanged: whole process", again, "wall")
    yield _row("small-files: again cpu", "the same again, unchanged: client CPU", again, "cpu")


@case("ignore", "50,000 files with 60 ignore patterns, unchanged")
def ignore(rig: Rig) -> Iterator[Row]:
    dockerfile = rig.dockerfile(COPY_ALL, ignore=trees.IGNORE_PATTERNS)
    first, again = _first_and_again(rig, Build(rig.tree("small-files", trees.small_files), dockerfile))
    yield _row("ignore: first transfer", "50,000 files, 60 ignore patterns, first sync: transfer", first, "transfer")
    yield _row("ignore: again transfer", "the same again, unchanged: transfer", again, "transfer", 0.60)


@case("big-file", "one file of 1 GiB: first sync, processor, memory")
def big_file(rig: Rig) -> Iterator[Row]:
    build = Build(rig.tree("big-file", trees.one_file), rig.dockerfile(COPY_ALL))
    first, _ = _first_and_again(rig, build)
    yield _row("big-file: transfer", "1 GiB in one file, first sync: transfer", first, "transfer", 0.95)
    yield _row("big-file: wall", "the same: whole process", first, "wall")
    yield _row("big-file: cpu", "the same: client CPU", first, "cpu")
    yield _row("big-file: memory", "the same: client peak memory", first, "memory", unit="MiB")
    smaller = replace(build, context=rig.tree("smaller-file", lambda root: trees.one_file(root, SMALLER_FILE)))
    flat: list[float] = []
    for _ in range(rig.rounds):
        with rig.daemon() as daemon:
            flat.append(run(OUR_NAME, daemon, smaller).memory)
    yield Row(
        "big-file",
        "memory is flat",
        "the same against 64 MiB in one file: client peak memory",
        [cost.memory for cost in first[OUR_NAME]],
        flat,
        "MiB",
        target=1.05,
        their_name="cogkit, 64 MiB",
    )


SMALLER_FILE = 64 << 20
"""Bytes: more than all that a client buffers on the way."""


@case("slow-link", "25 MB of program text over 50 Mbit/s and 40 ms")
def slow_link(rig: Rig) -> Iterator[Row]:
    # The link ends at a loopback address, where cogkit would not compress by itself.
    options = ("--transfer-compression=on",) if _cogkit_has("--transfer-compression") else ()
    build = Build(rig.tree("source-code", trees.source_code), rig.dockerfile(COPY_ALL), cogkit_options=options)
    first: Samples = {client: [] for client in CLIENTS}

    def one(client: str) -> None:
        with rig.daemon() as daemon, _proxy("throttle", daemon, rig.disk) as (address, _):
            first[client].append(run(client, daemon, replace(build, address=address)))

    rig.alternate(one)
    yield _row("slow-link: transfer", "25 MB of text, 50 Mbit/s, 40 ms: transfer", first, "transfer", 0.45)
    yield _row("slow-link: wall", "the same: whole process", first, "wall")
    yield _row("slow-link: cpu", "the same: client CPU", first, "cpu")


@contextmanager
def _proxy(name: str, daemon: Buildkitd, folder: Path) -> Iterator[tuple[str, Path]]:
    """One of our proxies in front of a daemon: its address, and the log in which its last line stands at the end."""
    log = Path(tempfile.mkdtemp(dir=folder)) / f"{name}.log"
    server = ServerProcess(
        [sys.executable, "-m", f"benchmarks.{name}", daemon.address],
        log,
        {**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        while not (address := log.read_text().strip()).startswith(("tcp://", "unix://")):
            server.require_running(name)
            time.sleep(0.01)
        yield address, log
    finally:
        server.stop()


@case("oci-out", "an image of 1 GiB as an OCI archive")
def oci_out(rig: Rig) -> Iterator[Row]:
    build = Build(rig.tree("big-file", trees.one_file), rig.dockerfile(COPY_ALL))
    target = rig.disk / "image.tar"
    output = f"type=oci,dest={target},compression=uncompressed"
    yield from _outputs(rig, "oci-out", build, "1 GiB image, -o type=oci", output, target)


@case("local-out", "20,000 files, 1 GiB, as a folder")
def local_out(rig: Rig) -> Iterator[Row]:
    tree = rig.tree("many-files", lambda root: trees.small_files(root, 20_000, (1 << 30) // 20_000))
    target = rig.disk / "out"
    build = Build(tree, rig.dockerfile(COPY_ALL))
    output = f"type=local,dest={target}"
    yield from _outputs(rig, "local-out", build, "20,000 files, 1 GiB, -o type=local", output, target)


def _outputs(rig: Rig, name: str, build: Build, title: str, output: str, target: Path) -> Iterator[Row]:
    """Costs of bringing home what a daemon has built already."""
    samples: Samples = {client: [] for client in CLIENTS}
    with rig.daemon() as daemon:
        for client in CLIENTS:  # each has its own copy of the context at the daemon
            run(client, daemon, replace(build, output=output))
            _remove(target)

        def one(client: str) -> None:
            samples[client].append(run(client, daemon, replace(build, output=output)))
            _remove(target)

        rig.alternate(one)
    yield _row(f"{name}: wall", f"{title}: whole process", samples, "wall", 1.00)
    yield _row(f"{name}: cpu", "the same: client CPU", samples, "cpu")
    yield _row(f"{name}: memory", "the same: client peak memory", samples, "memory", unit="MiB")


@case("ways", "an unchanged build of one small file over ssh, and by way of a container")
def ways(rig: Rig) -> Iterator[Row]:
    with ExitStack() as stack:
        registry = Registry(rig.disk / f"registry{rig.number()}")
        stack.callback(registry.stop)
        push_base_images(registry, rig.disk / "base-images")
        daemon = stack.enter_context(rig.daemon(DaemonOptions(registry=registry)))
        socket = Path(daemon.address.removeprefix("unix://"))
        server = SshServer(rig.disk / f"ssh{rig.number()}", daemon.buildctl.parent)
        engine = DockerEngine(rig.disk / f"engine{rig.number()}", registry)
        stack.callback(engine.remove)
        mounts = (f"--volume={socket.parent}:/run/buildkit", f"--volume={daemon.buildctl}:/usr/bin/buildctl:ro")
        engine.docker("run", "--detach", "--network=none", "--name=builder", *mounts, "busybox", "sleep", "1000000")
        path = os.pathsep.join([str(server.bin), os.environ["PATH"]])
        stack.enter_context(_environment(PATH=path, DOCKER_HOST=engine.host))
        folder = rig.dockerfile(COPY_ALL)
        for name, address in (("ssh", f"ssh://builder{socket}"), ("container", "docker-container://builder")):
            build = Build(folder, folder, address=address)
            samples: Samples = {client: [] for client in CLIENTS}
            for client in CLIENTS:
                run(client, daemon, build)
            rig.alternate(lambda client: samples[client].append(run(client, daemon, build)), times=3)  # noqa: B023
            scheme = address.partition("://")[0]
            yield _row(f"ways: {name}", f"one small file, unchanged, {scheme}://: whole process", samples, "wall", 0.90)


LOADED_BYTES = 1 << 30


@case("load", "an image of 1 GiB with one small layer that changed, into a Docker engine")
def load(rig: Rig) -> Iterator[Row]:
    tree = rig.tree("loaded", lambda root: trees.one_file(root, LOADED_BYTES))
    folder = rig.dockerfile("FROM scratch\nCOPY weights.bin /\nCOPY small /\n")
    samples: Samples = {client: [] for client in CLIENTS}
    with ExitStack() as stack:
        registry = Registry(rig.disk / f"registry{rig.number()}")
        stack.callback(registry.stop)
        daemon = stack.enter_context(rig.daemon())
        engine = DockerEngine(rig.disk / f"engine{rig.number()}", registry)
        stack.callback(engine.remove)
        stack.enter_context(_environment(DOCKER_HOST=engine.host))

        def one(client: str) -> Cost:
            (tree / "small").write_text(str(rig.number()))
            build = Build(tree, folder)
            if client == OUR_NAME:
                return run(client, daemon, replace(build, cogkit_options=("-t", "loaded", "--load")))
            exporting = client_command(client, daemon, replace(build, output="type=docker,name=loaded"))
            return run_command(["/bin/sh", "-c", f"{shlex.join(exporting)} | {installed('docker')} load --quiet"])[0]

        for client in CLIENTS:
            one(client)
        rig.alternate(lambda client: samples[client].append(one(client)))
    row = _row("load: wall", "1 GiB image, one small layer changed, --load: whole process", samples, "wall", 0.20)
    yield replace(row, their_name=f"{THEIR_NAME}, docker load")


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@case("memory", "peak memory with 500,000 files")
def memory(rig: Rig) -> Iterator[Row]:
    tree = rig.tree("half-a-million", lambda root: trees.small_files(root, 500_000, 16))
    first, again = _first_and_again(replace(rig, rounds=1), Build(tree, rig.dockerfile(COPY_ALL)))
    rig.remove_tree("half-a-million")
    again_title = "the same again, unchanged: client peak memory"
    yield _row("memory: first", "500,000 files, first sync: client peak memory", first, "memory", 1.00, unit="MiB")
    yield _row("memory: first transfer", "the same: transfer", first, "transfer")
    yield _row("memory: again", again_title, again, "memory", 1.00, unit="MiB")


@case("dot-cog", "a project with 100,000 files and 20 GB in .cog, against itself without")
def dot_cog(rig: Rig) -> Iterator[Row]:
    tree = rig.tree("with-dot-cog", lambda root: trees.small_files(root, 10_000))
    build = Build(tree, rig.dockerfile(COPY_ALL))
    trees.dot_cog(tree)
    aside = rig.disk / "dot-cog-aside"
    costs: dict[bool, list[float]] = {True: [], False: []}
    with rig.daemon() as daemon:
        run(OUR_NAME, daemon, build)
        for number in range(rig.rounds):
            for present in (True, False) if number % 2 == 0 else (False, True):
                if not present:
                    (tree / ".cog").rename(aside)
                costs[present].append(run(OUR_NAME, daemon, build).wall)
                if not present:
                    aside.rename(tree / ".cog")
    rig.remove_tree("with-dot-cog")
    title = "100,000 files, 20 GB in .cog, unchanged: whole process"
    yield Row("dot-cog", "wall", title, costs[True], costs[False], target=1.02, their_name="cogkit, no .cog")


@case("private-builder", "an unchanged build on the private builder: stopped before, against running")
def private_builder(rig: Rig) -> Iterator[Row]:
    home, project = rig.memory / "private", rig.dockerfile("FROM scratch\nCOPY Dockerfile /\n")
    settings = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "DATA", "STATE")}
    path = f"{DaemonOptions().release.buildkitd.parent}:{os.environ['PATH']}"
    cogkit = ["/usr/bin/env", *(f"{name}={value}" for name, value in {**settings, "PATH": path}.items())]
    cogkit += [sys.executable, "-m", "cogkit"]
    build = [*cogkit, "build", "--builder=private", "--output=type=image,name=private", str(project)]
    walls: dict[bool, list[float]] = {True: [], False: []}
    try:
        run_command(build)
        for number in range(2 * rig.rounds):
            for stopped in (True, False) if number % 2 == 0 else (False, True):
                run_command([*cogkit, "builder", "stop" if stopped else "start"])
                walls[stopped].append(run_command(build)[0].wall)
    finally:
        run_command([*cogkit, "builder", "rm", "private"])
    title, running = "unchanged build that starts the private builder: whole process", "cogkit, it runs"
    yield Row("private-builder", "wall", title, walls[True], walls[False], most_more=1.0, their_name=running)


@case("llb", "10,000 steps made and marshalled, against Go's client/llb")
def llb(rig: Rig) -> Iterator[Row]:
    ours = [sys.executable, "-m", "benchmarks.llb_graph", str(LLB_STEPS)]
    theirs = [str(build_llb_oracle()), "bench", str(LLB_STEPS)]
    samples: Samples = {client: [] for client in CLIENTS}
    rig.alternate(
        lambda client: samples[client].append(run_command(ours if client == OUR_NAME else theirs)[0]), times=3
    )
    title, their_name = f"{LLB_STEPS:,} steps made and marshalled: whole process", "Go's client/llb"
    yield replace(_row("llb: wall", title, samples, "wall"), their_name=their_name)
    yield replace(_row("llb: cpu", "the same: CPU", samples, "cpu"), their_name=their_name)


LLB_STEPS = 10_000


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _cogkit_has(flag: str) -> bool:
    shown = subprocess.run(
        [sys.executable, "-m", "cogkit", "build", "--help"], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    return flag in shown.stdout


_REPORT = """\
# cogkit beside buildctl

Made by `make bench`; do not edit. Medians of {rounds} rounds, with the least and the greatest figure in brackets.
The two clients take turns on the same machine. Each round of a first sync has a new buildkitd, its root on tmpfs,
reached over a unix socket. *Transfer* is the time that the daemon reports for `[internal] load build context`; CPU and
memory are the kernel's figures for the client's process; the whole process is timed from its start to its end, with
nothing kept running before. A ratio below 1 means that cogkit needs less. *Checked in* is the ratio in `ratios.json`.

{table}

Machine: {cores} cores, {memory:.0f} GiB of memory, {architecture}, Linux {kernel}; Python {python}, buildkitd and
buildctl {buildkit}.
"""


def _report(rows: Sequence[Row], rounds: int, checked_in: Mapping[str, float]) -> str:
    return _REPORT.format(
        rounds=rounds,
        table=markdown(rows, checked_in),
        cores=os.cpu_count(),
        memory=_memory_gib(),
        architecture=platform.machine(),
        kernel=".".join(platform.release().split(".")[:2]),
        python=platform.python_version(),
        buildkit=_buildkit_version(),
    )


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _buildkit_version() -> str:
    words = subprocess.run(
        [str(DaemonOptions().release.buildkitd), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()
    return words[2]


@contextmanager
def _rig(rounds: int) -> Iterator[Rig]:
    with ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cogkit-bench-", dir="/var/tmp")))
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cogkit-bench-")))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=75%,nr_inodes=0", "cogkit-bench", str(memory)], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", str(memory)], check=True)
        yield Rig(disk, memory, rounds)


def main() -> int:
    """Run the cases that the command line names; returns the exit code: 1 for a regression."""
    parser = argparse.ArgumentParser(description="cogkit beside buildctl, on the same buildkitd")
    parser.add_argument("case", nargs="*", help=f"one of: {', '.join(CASES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each client (default: 5)")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("--renew", action="store_true", help="check the measured ratios in instead of comparing")
    parser.add_argument("--write", type=Path, help="where the table goes (default: results.md, if all cases are run)")
    arguments = parser.parse_args()
    if arguments.list:
        for known in CASES.values():
            print(f"{known.name:12} {known.about}")
        return 0
    if unknown := set(arguments.case) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("buildkitd and its tmpfs need root")
    checked_in = ratios.load(RATIOS)
    found: list[ratios.Regression] = []
    with _rig(arguments.rounds) as rig:

        def measure(name: str) -> list[Row]:
            print(f"{name}: {CASES[name].about}", flush=True)
            rows = []
            for row in CASES[name].run(rig):
                rows.append(row)
                print(f"  {' | '.join(row.cells(checked_in))}", flush=True)
            return rows

        rows = [row for name in arguments.case or CASES for row in measure(name)]
        if not arguments.renew:
            rows, found = ratios.confirmed(rows, checked_in, measure)
    if arguments.renew:
        RATIOS.write_text(ratios.renewed(RATIOS, rows))
        checked_in = ratios.load(RATIOS)
    table = arguments.write or (None if arguments.case else RESULTS)
    if table is not None:
        table.write_text(_report(rows, arguments.rounds, checked_in))
        print(f"written to {table}")
    for row in rows:
        if not row.reached:
            print(f"short of its target: {' | '.join(row.cells({}))}")
    for regression in found:
        print(f"regression: {regression}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
