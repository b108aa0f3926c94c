"""A farm of real daemons: one is killed, one is frozen, one lies about its platforms."""

from __future__ import annotations

import json
import platform as machine
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.registry import Registry

pytestmark = pytest.mark.one_release_is_enough

NATIVE = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}.get(machine.machine(), "")
OTHER = "linux/arm64" if NATIVE == "linux/amd64" else "linux/amd64"
SCRATCH = {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "content"}
RUNS = {"Dockerfile": "FROM busybox\nARG WAIT=0\nRUN echo begun-on-farm && sleep $WAIT\n"}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, base_images: Registry) -> Iterator[dict[str, Buildkitd]]:
    """Three daemons: two for this machine's platform, and one that says it is of another."""
    started = {}
    for name, config in (("a", ""), ("b", ""), ("other", f'[worker.oci]\n  platforms = ["{OTHER}"]\n')):
        started[name] = Buildkitd(
            tmp_path_factory.mktemp(f"farm-{name}"), DaemonOptions(registry=base_images, config=config)
        )
    yield started
    for daemon in started.values():
        daemon.remove()


@pytest.fixture(autouse=True)
def as_it_was(nodes: dict[str, Buildkitd]) -> Iterator[None]:
    """Every test finds all daemons running."""
    yield
    for daemon in nodes.values():
        if not daemon.running:
            daemon.start_afresh()
        daemon.resume()


class Farm:
    """A list of builders with one farm, ``farm``, that is chosen."""

    def __init__(self, path: Path, nodes: dict[str, Buildkitd]) -> None:
        self._path = path
        self._nodes = nodes
        path.parent.mkdir(parents=True)

    def of(self, *nodes: str, cache: str = "", answer_seconds: float = 60, **entries: str) -> None:
        """Write the list; ``entries`` are further lines of a node."""
        text = f'current = "farm"\n[builders.farm]\nanswer-seconds = {answer_seconds}\n'
        text += f'cache = "{cache}"\n' if cache else ""
        for name in nodes:
            address = self._nodes[name].address
            text += f'[[builders.farm.nodes]]\nname = "{name}"\naddress = "{address}"\n{entries.get(name, "")}\n'
        self._path.write_text(text)


@pytest.fixture
def farm(tmp_path: Path, nodes: dict[str, Buildkitd]) -> Farm:
    return Farm(tmp_path / "config" / "cogkit" / "builders.toml", nodes)


@pytest.fixture
def cogkit_env(tmp_path: Path) -> dict[str, str | None]:
    return {"BUILDKIT_HOST": None, "XDG_CONFIG_HOME": str(tmp_path / "config")}


class Gate:
    """A page that is there once the gate is open, for steps that wait for it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        gate = self._open

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if gate.is_set() else 404)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


def node_of(stderr: str) -> str:
    """The node that a build with notes says it went to last."""
    return [line for line in stderr.splitlines() if line.startswith("builds on the node")][-1].split("'")[1]


def test_a_project_goes_to_the_same_node_each_time(farm: Farm, run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    farm.of("a", "b")
    project = context_tree(SCRATCH)
    taken = set()
    for _ in range(2):
        done = run_cogkit("build", "--debug", "-o", "type=image,name=farm-same", project)
        assert done.returncode == 0, done.stderr
        taken.add(node_of(done.stderr))
    assert len(taken) == 1


def test_a_frozen_node_is_passed_over_and_it_is_said(
    farm: Farm, nodes: dict[str, Buildkitd], run_cogkit: RunCogkit, context_tree: MakeTree
) -> None:
    farm.of("a", "b", answer_seconds=8)
    project = context_tree(SCRATCH)
    first = run_cogkit("build", "--debug", "-o", "type=image,name=farm-frozen", project)
    assert first.returncode == 0, first.stderr
    home = node_of(first.stderr)
    nodes[home].pause()
    done = run_cogkit("build", "--debug", "-o", "type=image,name=farm-frozen", project)
    assert done.returncode == 0, done.stderr
    assert f"the node {home!r} is passed over" in done.stderr
    assert node_of(done.stderr) != home


def test_a_node_that_is_down_is_passed_over(
    farm: Farm, nodes: dict[str, Buildkitd], run_cogkit: RunCogkit, context_tree: MakeTree
) -> None:
    farm.of("a", "b")
    project = context_tree(SCRATCH)
    nodes["a"].kill()
    done = run_cogkit("build", "--debug", "-o", "type=image,name=farm-down", project)
    assert done.returncode == 0, done.stderr
    assert node_of(done.stderr) == "b"
    nodes["b"].kill()
    none = run_cogkit("build", "-o", "type=image,name=farm-down", project)
    assert none.returncode == 3
    assert "no node of the builder 'farm' can build now" in none.stderr
    assert "a: " in none.stderr and "b: " in none.stderr


def test_a_full_node_is_passed_over_and_taken_when_all_are_full(
    farm: Farm,
    run_cogkit: RunCogkit,
    start_cogkit: StartCogkit,
    context_tree: MakeTree,
) -> None:
    farm.of("a", "b", a="max-builds = 1", b="max-builds = 1")
    project = context_tree(RUNS)
    long = start_cogkit("build", "--debug", "--no-cache", "--build-arg", "WAIT=600", project)
    assert long.stderr is not None
    lines: list[str] = []
    for line in iter(long.stderr.readline, b""):
        lines.append(line.decode())
        if b"begun-on-farm" in line and b"RUN" not in line:
            break
    home = node_of("".join(lines))
    second = run_cogkit("build", "--debug", project)
    assert second.returncode == 0, second.stderr
    assert f"the node {home!r} is passed over: it is full: 1 of 1 builds run on it" in second.stderr
    assert node_of(second.stderr) != home
    long.terminate()
    long.communicate(timeout=120)


def test_a_node_that_dies_in_the_middle_is_replaced_once(
    farm: Farm, nodes: dict[str, Buildkitd], start_cogkit: StartCogkit, context_tree: MakeTree, gate: Gate
) -> None:
    farm.of("a", "b")
    waiting = f"echo begun-here && until wget -q -O - {gate.url}; do sleep 0.2; done && echo done-there"
    project = context_tree({"Dockerfile": f"FROM busybox\nRUN {waiting}\n"})
    build = start_cogkit("build", "--debug", "--no-cache", "-o", "type=image,name=farm-dies", project)
    assert build.stderr is not None
    lines: list[str] = []
    for line in iter(build.stderr.readline, b""):
        lines.append(line.decode())
        if b"begun-here" in line and b"RUN" not in line:
            break
    home = node_of("".join(lines))
    nodes[home].kill()
    gate.open()
    rest = build.communicate(timeout=200)[1].decode()
    assert build.returncode == 0, rest
    assert f"the node {home!r} went away during the build" in rest
    assert node_of(rest) != home
    assert "done-there" in rest


def test_a_node_that_lies_in_the_list_is_passed_over(farm: Farm, run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    farm.of("a", "b", a=f'platforms = ["{OTHER}"]', b=f'platforms = ["{NATIVE}"]')
    project = context_tree(SCRATCH)
    done = run_cogkit("build", "--platform", OTHER, "-o", "type=image,name=farm-lies", project)
    assert done.returncode == 3
    assert f"the node 'a' is passed over: the list says that it builds {OTHER}, and it says" in done.stderr
    assert f"no node of the builder 'farm' can build {OTHER}" in done.stderr
    shown = run_cogkit("builder", "inspect", "farm")
    assert f"the list says {OTHER}, and it cannot build that" in shown.stdout


def test_a_node_that_cannot_run_what_it_says_is_said(farm: Farm, run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    farm.of("other", "a", other=f'platforms = ["{OTHER}"]', a=f'platforms = ["{NATIVE}"]')
    project = context_tree({"Dockerfile": 'FROM scratch\nCOPY foreign /foreign\nRUN ["/foreign"]\n'})
    (project / "foreign").write_bytes(_foreign_program())
    (project / "foreign").chmod(0o755)
    done = run_cogkit("build", "--platform", OTHER, "-o", "type=image,name=farm-cannot", project)
    assert done.returncode == 1, done.stderr
    assert f"the node 'other' says that it builds {OTHER}, and cannot run its programs" in done.stderr
    assert "exec format error" in done.stderr


def test_each_platform_is_built_on_its_node_and_joined(
    farm: Farm, run_cogkit: RunCogkit, context_tree: MakeTree, registry: Registry, tmp_path: Path
) -> None:
    farm.of(
        "a",
        "b",
        "other",
        a=f'platforms = ["{NATIVE}"]',
        b=f'platforms = ["{NATIVE}"]',
        other=f'platforms = ["{OTHER}"]',
    )
    project = context_tree(SCRATCH)
    name = f"{registry.host}/farm-joined"
    metadata = tmp_path / "metadata.json"
    done = run_cogkit(
        *("build", "--debug", "--progress", "plain", "--platform", f"{NATIVE},{OTHER}", "--push"),
        *("-t", f"{name}:v1", "-t", f"{name}:latest", "--metadata-file", metadata, project),
    )
    assert done.returncode == 0, done.stderr
    assert f"[{NATIVE} " in done.stderr and f"[{OTHER} " in done.stderr
    written = json.loads(metadata.read_text())
    for tag in ("v1", "latest"):
        index = registry.manifest("farm-joined", tag)
        assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
        platforms = {f"{each['platform']['os']}/{each['platform']['architecture']}" for each in index["manifests"]}
        assert platforms == {NATIVE, OTHER}
    assert set(written["cogkit.build.refs"]) == {NATIVE, OTHER}
    assert written["containerimage.digest"] in done.stderr


def test_platforms_that_no_node_has_together_need_a_push(
    farm: Farm, run_cogkit: RunCogkit, context_tree: MakeTree
) -> None:
    farm.of("a", "b")
    project = context_tree(SCRATCH)
    done = run_cogkit("build", "--platform", f"{NATIVE},{OTHER}", "-o", "type=oci,dest=x.tar", project)
    assert done.returncode == 3, done.stderr
    assert "hint: push the image (--push)" in done.stderr


def test_a_node_that_never_saw_a_project_has_its_cache(
    farm: Farm, nodes: dict[str, Buildkitd], run_cogkit: RunCogkit, context_tree: MakeTree, registry: Registry
) -> None:
    farm.of("a", "b", cache=f"{registry.host}/farm-cache")
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo once-for-the-farm > /once\n"})
    first = run_cogkit("build", "--debug", "-o", "type=image,name=farm-cached", project)
    assert first.returncode == 0, first.stderr
    assert registry.tags("farm-cache")
    nodes[node_of(first.stderr)].kill()
    second = run_cogkit("build", "--debug", "-o", "type=image,name=farm-cached", project)
    assert second.returncode == 0, second.stderr
    assert node_of(second.stderr) != node_of(first.stderr)
    assert "CACHED" in second.stderr


def _foreign_program() -> bytes:
    """The head of an ELF file for a processor that this machine is not."""
    processor = 0xB7 if NATIVE == "linux/amd64" else 0x3E
    return b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + processor.to_bytes(2, "little") + bytes(44)
