"""Builders that need more than a socket: a real sshd, a real Docker engine, real podman, and buildctl in all of them.

Only the pod is not one: its ``kubectl`` is a stand-in that runs buildctl here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.real.buildkitd import Buildkitd
from tests.real.certificates import Certificates
from tests.real.docker_engine import DockerEngine
from tests.real.podman import Podman
from tests.real.registry import Registry
from tests.real.ssh_server import SshServer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="sshd, dockerd and podman are started as root here")
pytestmark = needs_root
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children with their parent on Linux")


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory, buildkitd: Buildkitd) -> SshServer:
    return SshServer(tmp_path_factory.mktemp("ssh") / "server", buildkitd.buildctl.parent)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, base_images: Registry) -> Iterator[DockerEngine]:
    started = DockerEngine(tmp_path_factory.mktemp("engine"), base_images)
    yield started
    started.remove()


@pytest.fixture(scope="module")
def container(engine: DockerEngine, buildkitd: Buildkitd) -> str:
    """A container with buildctl, at whose usual place is the socket of `buildkitd`."""
    arguments = _container_arguments(buildkitd, "cogkit-builder", "busybox")
    engine.docker("run", "--detach", *arguments)
    return "cogkit-builder"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, base_images: Registry) -> Iterator[Podman]:
    started = Podman(tmp_path_factory.mktemp("podman"), base_images)
    yield started
    started.remove()


def _container_arguments(buildkitd: Buildkitd, name: str, image: str) -> list[str]:
    folder = Path(buildkitd.address.removeprefix("unix://")).parent
    mounts = [f"--volume={folder}:/run/buildkit", f"--volume={buildkitd.buildctl}:/usr/bin/buildctl:ro"]
    return ["--network=none", "--name", name, *mounts, image, "sleep", "1000000"]


@pytest.fixture
def project(context_tree: MakeTree, tmp_path: Path) -> Path:
    # What is only here cannot be cached in the daemon.
    return context_tree(
        {"Dockerfile": "FROM scratch\nCOPY big small /\n", "big": os.urandom(3 << 20), "small": tmp_path.name.encode()}
    )


BuildAt = Callable[..., None]


@pytest.fixture
def build_at(run_cogkit: RunCogkit, project: Path, tmp_path: Path) -> BuildAt:
    """Build the project on the builder at an address, and have its files back."""

    def build(address: str, **environment: str) -> None:
        out = tmp_path / "out"
        done = run_cogkit(
            *("build", "--context", project, "--output", f"type=local,dest={out}"),
            env={"BUILDKIT_HOST": address, **environment},
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        for name in ("big", "small"):
            assert (out / name).read_bytes() == (project / name).read_bytes()

    return build


def _path(first: Path) -> str:
    return os.pathsep.join([str(first), os.environ["PATH"]])


def _socket(buildkitd: Buildkitd) -> str:
    return buildkitd.address.removeprefix("unix://")


# ----------------------------------------------------------------------------------------------------------------- ssh


def test_a_builder_over_ssh(ssh_server: SshServer, buildkitd: Buildkitd, build_at: BuildAt) -> None:
    build_at(f"ssh://builder{_socket(buildkitd)}", PATH=_path(ssh_server.bin))


@pytest.mark.parametrize(
    ("host", "complaint", "hint"),
    [
        ("locked", "does not ask for a password", "ssh-copy-id"),
        ("changed", "not the one that ssh knows", "ssh-keygen -R 'changed'"),
        ("unknown", "does not know the host's key", "connect once with `ssh unknown`"),
        ("bare", "there is no buildctl on bare", "buildctl into a folder of PATH"),
        ("builder/nowhere.sock", "buildkitd does not listen at /nowhere.sock on builder", "start buildkitd there"),
    ],
)
@pytest.mark.one_release_is_enough
def test_what_can_be_wrong_with_ssh_is_said_with_the_next_step(
    ssh_server: SshServer, run_cogkit: RunCogkit, project: Path, host: str, complaint: str, hint: str
) -> None:
    done = run_cogkit(
        "build", "--context", project, env={"BUILDKIT_HOST": f"ssh://{host}", "PATH": _path(ssh_server.bin)}
    )
    assert done.returncode == 3
    assert complaint in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.one_release_is_enough
def test_a_host_without_an_ssh_server(run_cogkit: RunCogkit, project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"ssh://127.0.0.1:{taken.getsockname()[1]}"
        done = run_cogkit("build", "--context", project, env={"BUILDKIT_HOST": address})
    assert done.returncode == 3
    assert "no SSH server listens there" in done.stderr


@pytest.mark.one_release_is_enough
def test_a_program_that_is_not_installed(run_cogkit: RunCogkit, project: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    environment = {"BUILDKIT_HOST": "nerdctl-container://b", "PATH": str(tmp_path / "nothing")}
    done = run_cogkit("build", "--context", project, env=environment)
    assert done.returncode == 3
    assert "the program nerdctl is not installed" in done.stderr


@linux_only
@pytest.mark.one_release_is_enough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_ssh_survives_cogkit(
    number: signal.Signals,
    ssh_server: SshServer,
    buildkitd: Buildkitd,
    start_cogkit: StartCogkit,
    context_tree: MakeTree,
    eventually: Callable[..., None],
) -> None:
    project = context_tree({"Dockerfile": f"FROM busybox\nRUN echo {number} && sleep 1000\n"}, name="sleeper")
    environment = {"BUILDKIT_HOST": f"ssh://builder{_socket(buildkitd)}", "PATH": _path(ssh_server.bin)}
    cogkit = start_cogkit("build", "--no-cache", "--context", project, env=environment)
    marker = str(ssh_server.bin.parent / "ssh_config")
    eventually(lambda: len(_processes_with(marker)) >= 2, within=60, what="two streams over ssh")
    cogkit.send_signal(number)
    cogkit.wait(timeout=60)
    eventually(lambda: not _processes_with(marker), within=60, what="no ssh")


def _processes_with(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if text.encode() in command and b"sshd" not in command:
            found.append(entry.name)
    return found


# ----------------------------------------------------------------------------------------------- containers and a pod


def test_a_builder_in_a_docker_container(engine: DockerEngine, container: str, build_at: BuildAt) -> None:
    build_at(f"docker-container://{container}", DOCKER_HOST=engine.host)


def test_a_builder_in_a_podman_container(podman: Podman, buildkitd: Buildkitd, build_at: BuildAt) -> None:
    image = podman.image("library/busybox")
    podman.podman("run", "--detach", *_container_arguments(buildkitd, "cogkit-podman-builder", image))
    build_at("podman-container://cogkit-podman-builder", **podman.environment)


@pytest.mark.one_release_is_enough
def test_what_can_be_wrong_with_a_container_is_said(
    engine: DockerEngine, podman: Podman, run_cogkit: RunCogkit, project: Path
) -> None:
    engine.docker("create", "--network=none", "--name", "stopped-builder", "busybox", "sleep", "1000000")
    engine.docker("run", "--detach", "--network=none", "--name", "bare-builder", "busybox", "sleep", "1000000")
    for address, complaint in (
        ("docker-container://no-builder", "there is no container named no-builder"),
        ("docker-container://stopped-builder", "the container stopped-builder is not running"),
        ("docker-container://bare-builder", "there is no buildctl in the container bare-builder"),
        ("podman-container://no-builder", "there is no container named no-builder"),
    ):
        environment = {"BUILDKIT_HOST": address, "DOCKER_HOST": engine.host, **podman.environment}
        done = run_cogkit("build", "--context", project, env=environment)
        assert done.returncode == 3, done.stderr
        assert complaint in done.stderr
        assert "hint: " in done.stderr


KUBECTL = """#!/bin/sh
# Stands for kubectl: knows one pod, whose buildctl is this machine's.
[ "$*" = "--context=me@cluster --namespace=ci exec -i --container=buildkitd builder-0 -- buildctl dial-stdio" ] || {
    echo 'Error from server (NotFound): pods "builder-0" not found' >&2
    exit 1
}
exec %s --addr %s dial-stdio
"""


def test_a_builder_in_a_pod(
    buildkitd: Buildkitd, build_at: BuildAt, run_cogkit: RunCogkit, project: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    kubectl = programs / "kubectl"
    kubectl.write_text(KUBECTL % (buildkitd.buildctl, buildkitd.address))
    kubectl.chmod(0o755)
    build_at("kube-pod://builder-0?context=me@cluster&namespace=ci&container=buildkitd", PATH=_path(programs))
    done = run_cogkit(
        "build", "--context", project, env={"BUILDKIT_HOST": "kube-pod://builder-0", "PATH": _path(programs)}
    )
    assert done.returncode == 3
    assert "there is no pod named builder-0" in done.stderr


# -------------------------------------------------------------------------------------------------------- Docker engine


@pytest.mark.one_release_is_enough
def test_the_builder_within_a_docker_engine(engine: DockerEngine, build_at: BuildAt) -> None:
    build_at("docker://", DOCKER_HOST=engine.host)
    build_at(f"docker://{engine.socket}")


@pytest.mark.one_release_is_enough
def test_an_engine_over_ssh(engine: DockerEngine, ssh_server: SshServer, build_at: BuildAt) -> None:
    build_at("docker://", DOCKER_HOST=f"ssh://builder{engine.socket}", PATH=_path(ssh_server.bin))


@pytest.mark.one_release_is_enough
def test_an_engine_over_tls(
    engine: DockerEngine, certificates: Certificates, build_at: BuildAt, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    files = tmp_path / "tls"
    files.mkdir()
    mine = (certificates.ca, certificates.client_cert, certificates.client_key)
    for name, source in zip(("ca", "cert", "key"), mine, strict=True):
        (files / f"{name}.pem").write_bytes(source.read_bytes())
    with _tls_front(engine.socket, certificates) as port:
        environment = {"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_TLS_VERIFY": "1"}
        build_at("docker://", DOCKER_CERT_PATH=str(files), **environment)
        (files / "ca.pem").unlink()
        refused = run_cogkit(
            *("build", "--context", tmp_path / "project"),
            env={"BUILDKIT_HOST": "docker://", "DOCKER_CERT_PATH": str(files), **environment},
        )
    assert refused.returncode == 3
    assert "its TLS certificate cannot be trusted" in refused.stderr


@contextmanager
def _tls_front(target: Path, certificates: Certificates) -> Iterator[int]:
    """A port that takes clients with a certificate only, and leads to a unix socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(256 << 10):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await asyncio.open_unix_connection(str(target))
        await asyncio.gather(copy(reader, far[1]), copy(far[0], writer))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.mark.one_release_is_enough
def test_an_image_built_in_the_engine_is_in_the_engine(
    engine: DockerEngine, run_cogkit: RunCogkit, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nCOPY text /\nCMD cat /text\n", "text": "from the engine"})
    environment = {"BUILDKIT_HOST": "docker://", "DOCKER_HOST": engine.host}
    done = run_cogkit("build", "--context", project, "-t", "in-the-engine:1", env=environment)
    assert done.returncode == 0, done.stderr
    assert engine.docker("run", "--rm", "--network=none", "in-the-engine:1") == "from the engine"


@pytest.mark.one_release_is_enough
def test_an_engine_of_a_docker_context(
    engine: DockerEngine, run_cogkit: RunCogkit, build_at: BuildAt, project: Path, tmp_path: Path
) -> None:
    config = tmp_path / "docker-config"
    subprocess.run(
        ["docker", "--config", config, "context", "create", "elsewhere", "--docker", f"host={engine.host}"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    build_at("docker://?context=elsewhere", DOCKER_CONFIG=str(config))
    build_at("docker://", DOCKER_CONFIG=str(config), DOCKER_CONTEXT="elsewhere")
    done = run_cogkit(
        *("build", "--context", project), env={"BUILDKIT_HOST": "docker://?context=no", "DOCKER_CONFIG": str(config)}
    )
    assert done.returncode == 2
    assert "docker has no context named 'no'" in done.stderr


@pytest.mark.one_release_is_enough
def test_what_can_be_wrong_with_an_engine_is_said(
    run_cogkit: RunCogkit, project: Path, buildkitd: Buildkitd, tmp_path: Path
) -> None:
    for host, code, complaint in (
        (f"unix://{tmp_path}/no.sock", 3, "there is no socket at"),
        ("npipe:////./pipe/docker", 2, "names an engine that cannot be reached from here"),
        (buildkitd.address, 3, "no Docker engine answers"),
    ):
        done = run_cogkit("build", "--context", project, env={"BUILDKIT_HOST": "docker://", "DOCKER_HOST": host})
        assert done.returncode == code, done.stderr
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
