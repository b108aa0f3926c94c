"""Fixtures that every kind of test shares: the real parts, trees, and cogkit as a process.

``COGKIT_TEST_BUILDKITD=v0.13`` runs everything that uses a daemon on the oldest release we support; tests that need
a newer one carry ``@pytest.mark.needs_newer_buildkit("what for")``, tests whose claim has nothing to do with the
release ``@pytest.mark.one_release_is_enough``.

``COGKIT_TEST_PORTABLE=1`` takes from Python what only Linux has, so that the ways for other systems are tested.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.real.base_image import push_base_images
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.certificates import Certificates, make_certificates
from tests.real.cogkit_process import run_cogkit as run_cogkit_process
from tests.real.cogkit_process import start_cogkit as start_cogkit_process
from tests.real.registry import Registry
from tests.real.tools import RELEASES, BuildKitRelease
from tests.real.tree import Node, write_tree

if os.environ.get("COGKIT_TEST_PORTABLE"):
    for _name in ("O_TMPFILE", "O_PATH"):
        if hasattr(os, _name):
            delattr(os, _name)
    # The standard library has looked already.
    vars(tempfile)["_O_TMPFILE_WORKS"] = False

RunCogkit = Callable[..., subprocess.CompletedProcess[str]]
StartCogkit = Callable[..., subprocess.Popen[bytes]]
RunBuildctl = Callable[..., subprocess.CompletedProcess[str]]
MakeTree = Callable[..., Path]

_DAEMON_FIXTURES = ("buildkitd", "private_buildkitd", "tls_buildkitd")


def pytest_configure(config: pytest.Config) -> None:
    # Whoever starts us in the background may have these ignored, and every process of a test would inherit that.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    for marker in (
        "needs_newer_buildkit(reason): skipped on the oldest BuildKit release we support",
        "one_release_is_enough: not repeated on the oldest release",
    ):
        config.addinivalue_line("markers", marker)


def pytest_report_header() -> str:
    return f"buildkitd: {_release().name}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _release().name == "current":
        return
    for item in items:
        newer = item.get_closest_marker("needs_newer_buildkit")
        if newer is not None:
            item.add_marker(pytest.mark.skip(reason=f"BuildKit {_release().name} has no {newer.args[0]}"))
        elif item.get_closest_marker("one_release_is_enough"):
            item.add_marker(
                pytest.mark.skip(reason="runs on the current release only: its claim is not about BuildKit")
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its daemons logged since it began."""
    report = yield
    if report.failed:
        funcargs: dict[str, Any] = getattr(item, "funcargs", {})
        for name in _DAEMON_FIXTURES:
            daemon = funcargs.get(name)
            if isinstance(daemon, Buildkitd):
                report.sections.append(
                    (f"log of {name}", daemon.log_since(item.stash.get(_log_positions, {}).get(name, 0)))
                )
    return report


_log_positions = pytest.StashKey[dict[str, int]]()


@pytest.fixture(autouse=True)
def _remember_log_positions(request: pytest.FixtureRequest) -> None:
    # The session's daemon is older than the test: only what it logs from here on belongs to it.
    if "buildkitd" in request.fixturenames:
        request.node.stash[_log_positions] = {"buildkitd": request.getfixturevalue("buildkitd").log_size()}


def _release() -> BuildKitRelease:
    name = os.environ.get("COGKIT_TEST_BUILDKITD") or "current"
    if name not in RELEASES:
        raise pytest.UsageError(f"COGKIT_TEST_BUILDKITD is {name!r}; known: {', '.join(RELEASES)}")
    return RELEASES[name]


@pytest.fixture(scope="session")
def buildkit_release() -> BuildKitRelease:
    """The BuildKit release that daemons of this run are."""
    return _release()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An empty registry (but for `base_images`); ``registry.host`` is ``127.0.0.1:PORT``."""
    started = Registry(tmp_path_factory.mktemp("registry"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def base_images(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry, with python:3.11-slim, debian:bookworm-slim, busybox and docker/dockerfile:1 in it."""
    push_base_images(registry, tmp_path_factory.mktemp("base-images"))
    return registry


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority with a server's and a client's certificate."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def buildkitd(
    tmp_path_factory: pytest.TempPathFactory, base_images: Registry, buildkit_release: BuildKitRelease
) -> Iterator[Buildkitd]:
    """The daemon that tests share. Do not stop it; see `private_buildkitd`."""
    daemon = Buildkitd(tmp_path_factory.mktemp("buildkitd"), DaemonOptions(buildkit_release, base_images))
    yield daemon
    daemon.remove()


@pytest.fixture
def private_buildkitd(tmp_path: Path, base_images: Registry, buildkit_release: BuildKitRelease) -> Iterator[Buildkitd]:
    """A daemon of the test's own: `start`, `stop`, `kill`, `pause`, `resume` it as you like."""
    daemon = Buildkitd(tmp_path / "buildkitd", DaemonOptions(buildkit_release, base_images))
    yield daemon
    daemon.remove()


@pytest.fixture(scope="session")
def tls_buildkitd(
    tmp_path_factory: pytest.TempPathFactory,
    base_images: Registry,
    certificates: Certificates,
    buildkit_release: BuildKitRelease,
) -> Iterator[Buildkitd]:
    """A daemon on tcp:// that takes clients with a certificate of `certificates` only."""
    options = DaemonOptions(buildkit_release, base_images, certificates)
    daemon = Buildkitd(tmp_path_factory.mktemp("tls-buildkitd"), options)
    yield daemon
    daemon.remove()


@pytest.fixture
def buildctl(buildkitd: Buildkitd) -> RunBuildctl:
    """Run buildctl, of the same release, on `buildkitd`: ``buildctl("build", …, cwd=)``; check=False lets it fail."""

    def run(*arguments: str | Path, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*buildkitd.buildctl_arguments(), *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
        if check and done.returncode != 0:
            pytest.fail(f"buildctl {' '.join(map(str, arguments))} exited with {done.returncode}:\n{done.stderr}")
        return done

    return run


@pytest.fixture
def cogkit_env() -> dict[str, str | None]:
    """Variables that `run_cogkit` and `start_cogkit` set (or, with None, take away) in every process of the test."""
    return {}


@pytest.fixture
def run_cogkit(tmp_path: Path, cogkit_env: dict[str, str | None]) -> RunCogkit:
    """Run ``cogkit …`` to its end: ``run_cogkit("build", "-t", name, cwd=, env=, input=, timeout=)``.

    The working directory is `tmp_path` unless given; nothing of our own BUILDKIT_HOST, COGKIT_* or DOCKER_* reaches it.
    """

    def run(
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,
        timeout: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:
        environment = cogkit_env | dict(env or {})
        return run_cogkit_process(*arguments, cwd=cwd or tmp_path, env=environment, input=input, timeout=timeout)

    return run


@pytest.fixture
def start_cogkit(tmp_path: Path, cogkit_env: dict[str, str | None]) -> Iterator[StartCogkit]:
    """Start ``cogkit …`` and return the `Popen` (pipes, a process group of its own); ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str | None] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        environment = cogkit_env | dict(env or {})
        started.append(start_cogkit_process(*arguments, cwd=cwd or tmp_path, env=environment, **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def context_tree(tmp_path: Path) -> MakeTree:
    """Write a tree: ``context_tree({"Dockerfile": "FROM …", "a/link": Symlink("b")}, name="project")`` → its path."""

    def make(tree: Mapping[str, Node], name: str = "project") -> Path:
        return write_tree(tmp_path / name, tree)

    return make


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until a condition holds: ``eventually(lambda: path.exists(), within=5.0)``; fails when it never does."""

    def wait(condition: Callable[[], object], within: float = 5.0, what: str = "the condition") -> None:
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{what} does not hold after {within:g} s")
            time.sleep(0.01)

    return wait
