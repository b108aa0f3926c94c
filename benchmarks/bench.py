"""``make bench``: cogkit beside buildctl, pair by pair, on a real buildkitd with its root on tmpfs.

``python -m benchmarks.bench [CASE…] [--rounds N]`` prints ratios (medians) and writes ``benchmarks/results.md``.  A
case is a function that yields `Row`s; to add one, write it and put ``@case("name", "what it is")`` above it.  Which
client goes first changes from round to round, so that what the machine does meanwhile hits both.  This process stays
small and imports nothing of cogkit: the kernel counts its memory into that of the clients it starts.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import trees
from benchmarks.measure import OUR_NAME, THEIR_NAME, Build, Cost, run
from tests.real.base_image import push_base_images
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.process import ServerProcess
from tests.real.registry import Registry
from tests.real.tools import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results.md"
CLIENTS = (OUR_NAME, THEIR_NAME)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        ours, theirs: One figure for each round.
        unit: Of the figures.
        target: Greatest ratio of the medians that we want.
        most_more: Instead of ``target``: greatest difference of the medians that we want, in ``unit``.
        their_name: What cogkit is compared with.
    """

    title: str
    ours: list[float]
    theirs: list[float]
    unit: str = "s"
    target: float | None = None
    most_more: float | None = None
    their_name: str = THEIR_NAME

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def reached(self) -> bool:
        if self.most_more is not None:
            return statistics.median(self.ours) - statistics.median(self.theirs) <= self.most_more
        return self.target is None or self.ratio <= self.target

    def cells(self) -> list[str]:
        if self.most_more is not None:
            wanted = f"+{self.most_more:.2f} {self.unit}"
        else:
            wanted = "" if self.target is None else f"{self.target:.2f}"
        theirs = _figures(self.theirs, self.unit) + ("" if self.their_name == THEIR_NAME else f" ({self.their_name})")
        return [self.title, _figures(self.ours, self.unit), theirs, f"{self.ratio:.2f}", wanted]


def _figures(samples: list[float], unit: str) -> str:
    """Median, and in brackets from least to greatest."""
    digits = 0 if unit == "MiB" else 2
    middle, least, most = (f"{value:.{digits}f}" for value in (statistics.median(samples), min(samples), max(samples)))
    return f"{middle} {unit}" if len(samples) == 1 else f"{middle} {unit} ({least} to {most})"


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
    _daemons: int = 0
    _made: dict[str, Path] = field(default_factory=dict)

    @contextmanager
    def daemon(self, options: DaemonOptions | None = None) -> Iterator[Buildkitd]:
        """A new daemon with nothing in its cache."""
        self._daemons += 1
        folder = self.memory / f"daemon{self._daemons}"
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

    def alternate(self, one: Callable[[str], None]) -> None:
        """Call ``one`` with each client, `rounds` times, each client first in every other round."""
        for number in range(self.rounds):
            for client in CLIENTS if number % 2 == 0 else CLIENTS[::-1]:
                print(f"  round {number + 1}: {client}", flush=True)
                one(client)


@dataclass(frozen=True)
class Case:
    """A named measurement; `run` yields the rows it gives."""

    name: str
    about: str
    default: bool
    run: Callable[[Rig], Iterator[Row]]


CASES: dict[str, Case] = {}
_Run = Callable[[Rig], Iterator[Row]]


def case(name: str, about: str, *, default: bool = True) -> Callable[[_Run], _Run]:
    """Make a function a case. Those that are not ``default`` run when they are named, or with ``--all``."""

    def register(function: _Run) -> _Run:
        CASES[name] = Case(name, about, default, function)
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
    title: str,
    samples: Samples,
    what: str,
    target: float | None = None,
    *,
    unit: str = "s",
    most_more: float | None = None,
) -> Row:
    ours, theirs = ([float(getattr(cost, what)) for cost in samples[client]] for client in CLIENTS)
    return Row(title, ours, theirs, unit, target, most_more)


@case("small-files", "50,000 files, 208 MB: first sync, unchanged, processor, memory")
def small_files(rig: Rig) -> Iterator[Row]:
    build = Build(rig.tree("small-files", trees.small_files), rig.dockerfile(COPY_ALL))
    first, again = _first_and_again(rig, build)
    yield _row("50,000 files, 208 MB, first sync: transfer", first, "transfer", 0.95)
    yield _row("the same: whole process", first, "wall")
    yield _row("the same: client CPU", first, "cpu", 0.80)
    yield _row("the same: client peak memory", first, "memory", unit="MiB")
    yield _row("the same again, unchanged: transfer", again, "transfer", 0.60)
    yield _row("the same again, unchanged: whole process", again, "wall")
    yield _row("the same again, unchanged: client CPU", again, "cpu")


@case("big-file", "one file of 1 GiB: first sync, processor, memory")
def big_file(rig: Rig) -> Iterator[Row]:
    build = Build(rig.tree("big-file", trees.one_file), rig.dockerfile(COPY_ALL))
    first, _ = _first_and_again(rig, build)
    yield _row("1 GiB in one file, first sync: transfer", first, "transfer", 0.95)
    yield _row("the same: whole process", first, "wall")
    yield _row("the same: client CPU", first, "cpu")
    yield _row("the same: client peak memory", first, "memory", unit="MiB")


@case("ignore", "50,000 files with 60 ignore patterns, unchanged", default=False)
def ignore(rig: Rig) -> Iterator[Row]:
    dockerfile = rig.dockerfile(COPY_ALL, ignore=trees.IGNORE_PATTERNS)
    first, again = _first_and_again(rig, Build(rig.tree("small-files", trees.small_files), dockerfile))
    yield _row("50,000 files, 60 ignore patterns, first sync: transfer", first, "transfer")
    yield _row("the same again, unchanged: transfer", again, "transfer", 0.60)


@case("slow-link", "25 MB of program text over 50 Mbit/s and 40 ms", default=False)
def slow_link(rig: Rig) -> Iterator[Row]:
    # The link ends at a loopback address, where cogkit would not compress by itself.
    options = ("--compress=on",) if _cogkit_has("--compress") else ()
    build = Build(rig.tree("source-code", trees.source_code), rig.dockerfile(COPY_ALL), cogkit_options=options)
    first: Samples = {client: [] for client in CLIENTS}

    def one(client: str) -> None:
        with rig.daemon() as daemon, _slow_link(daemon, rig.disk) as address:
            first[client].append(run(client, daemon, replace(build, address=address)))

    rig.alternate(one)
    yield _row("25 MB of text, 50 Mbit/s, 40 ms: transfer", first, "transfer", 0.45)
    yield _row("the same: whole process", first, "wall")
    yield _row("the same: client CPU", first, "cpu")


@contextmanager
def _slow_link(daemon: Buildkitd, folder: Path) -> Iterator[str]:
    log = Path(tempfile.mkdtemp(dir=folder)) / "throttle.log"
    server = ServerProcess(
        [sys.executable, "-m", "benchmarks.throttle", daemon.address],
        log,
        {**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        while not (address := log.read_text().strip()).startswith("tcp://"):
            server.require_running("the throttle")
        yield address
    finally:
        server.stop()


@case("oci-out", "an image of 1 GiB as an OCI archive", default=False)
def oci_out(rig: Rig) -> Iterator[Row]:
    build = Build(rig.tree("big-file", trees.one_file), rig.dockerfile(COPY_ALL))
    target = rig.disk / "image.tar"
    yield from _outputs(
        rig, build, "1 GiB image, -o type=oci", f"type=oci,dest={target},compression=uncompressed", target
    )


@case("local-out", "20,000 files, 1 GiB, as a folder", default=False)
def local_out(rig: Rig) -> Iterator[Row]:
    tree = rig.tree("many-files", lambda root: trees.small_files(root, 20_000, (1 << 30) // 20_000))
    target = rig.disk / "out"
    build = Build(tree, rig.dockerfile(COPY_ALL))
    yield from _outputs(rig, build, "20,000 files, 1 GiB, -o type=local", f"type=local,dest={target}", target)


def _outputs(rig: Rig, build: Build, title: str, output: str, target: Path) -> Iterator[Row]:
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
    yield _row(f"{title}: whole process", samples, "wall", 1.00)
    yield _row("the same: client CPU", samples, "cpu")
    yield _row("the same: client peak memory", samples, "memory", unit="MiB")


@case("memory", "peak memory with 500,000 files", default=False)
def memory(rig: Rig) -> Iterator[Row]:
    tree = rig.tree("half-a-million", lambda root: trees.small_files(root, 500_000, 16))
    first, again = _first_and_again(replace(rig, rounds=1), Build(tree, rig.dockerfile(COPY_ALL)))
    rig.remove_tree("half-a-million")
    yield _row("500,000 files, first sync: client peak memory", first, "memory", 1.00, unit="MiB")
    yield _row("the same: transfer", first, "transfer")
    yield _row("the same again, unchanged: client peak memory", again, "memory", 1.00, unit="MiB")


@case("dot-cog", "a project with 100,000 files and 20 GB in .cog, against itself without", default=False)
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
    yield Row(title, costs[True], costs[False], target=1.02, their_name="cogkit, no .cog")


@case("hello", "unchanged rebuild of examples/hello, whole process", default=False)
def hello(rig: Rig) -> Iterator[Row]:
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
    build = Build(
        project,
        rig.dockerfile(shown.stdout),
        cog_project=True,
        output="type=image,name=hello",
        named_contexts={"cog_build": staged},
    )
    samples: Samples = {client: [] for client in CLIENTS}
    registry = Registry(rig.disk / "registry")
    try:
        push_base_images(registry, rig.disk / "base-images")
        with rig.daemon(DaemonOptions(registry=registry)) as daemon:
            for client in CLIENTS:
                run(client, daemon, build)
            rig.alternate(lambda client: samples[client].append(run(client, daemon, build)))
    finally:
        registry.stop()
    yield _row("examples/hello, unchanged: whole process", samples, "wall", most_more=0.20)
    yield _row("the same: client CPU", samples, "cpu")


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
memory are the kernel's figures for the client's process. A ratio below 1 means that cogkit needs less.

{table}

Machine: {cores} cores, {memory:.0f} GiB of memory, {architecture}, Linux {kernel}; Python {python}, buildkitd and
buildctl {buildkit}.
"""


def _report(rows: list[Row], rounds: int) -> str:
    header = ["case", OUR_NAME, THEIR_NAME, "ratio", "target"]
    table = [header, ["---"] * len(header), *(row.cells() for row in rows)]
    return _REPORT.format(
        rounds=rounds,
        table="\n".join(f"| {' | '.join(cells)} |" for cells in table),
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
    """Run the cases that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description="cogkit beside buildctl, on the same buildkitd")
    parser.add_argument("case", nargs="*", help=f"one of: {', '.join(CASES)} (default: those marked *)")
    parser.add_argument("--all", action="store_true", help="every case")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each client (default: 5)")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("--write", type=Path, default=RESULTS, help="where the table goes")
    arguments = parser.parse_args()
    if arguments.list:
        for known in CASES.values():
            print(f"{'*' if known.default else ' '} {known.name:12} {known.about}")
        return 0
    if unknown := set(arguments.case) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("buildkitd and its tmpfs need root")
    names = arguments.case or [known.name for known in CASES.values() if known.default or arguments.all]

    rows: list[Row] = []
    with _rig(arguments.rounds) as rig:
        for name in names:
            print(f"{name}: {CASES[name].about}", flush=True)
            for row in CASES[name].run(rig):
                rows.append(row)
                print(f"  {' | '.join(row.cells())}", flush=True)
    arguments.write.write_text(_report(rows, arguments.rounds))
    missed = [row.title for row in rows if not row.reached]
    print(f"written to {arguments.write}; {len(missed)} of {len(rows)} figures are short of their target")
    return 0


if __name__ == "__main__":
    sys.exit(main())
