"""Images built elsewhere come into docker and podman, and only what is not there yet is sent; bytes are counted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.real.base_image import BUSYBOX_NAMES
from tests.real.counting_socket import CountingSocket
from tests.real.docker_engine import DockerEngine
from tests.real.podman import Podman
from tests.real.registry import Registry
from tests.real.tools import installed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="dockerd and podman are started as root here"),
    pytest.mark.one_release_is_enough,
]

BIG = 4 << 20
SMALL = 256 << 10
"""More than the manifest, the config and all that is asked of the engine, and far less than what must not be sent."""


@pytest.fixture(scope="module", params=["containerd", "classic"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, base_images: Registry
) -> Iterator[DockerEngine]:
    folder = tmp_path_factory.mktemp(f"engine-{request.param}")
    started = DockerEngine(folder, base_images, containerd_store=request.param == "containerd")
    yield started
    started.remove()


@pytest.fixture
def counted(engine: DockerEngine) -> Iterator[CountingSocket]:
    """Leads to the engine and counts what is sent to it."""
    with tempfile.TemporaryDirectory(prefix="cogkit-", dir="/tmp") as folder:
        listening = CountingSocket(Path(folder, "counted.sock"), engine.socket)
        yield listening
        listening.close()


@pytest.fixture
def project(context_tree: MakeTree, tmp_path: Path) -> Path:
    # The name makes layers that no other test has.
    tree = {
        "Dockerfile": "FROM busybox\nCOPY big /\nCOPY small /\nCMD cat /small\n",
        "big": os.urandom(BIG),
        "small": f"first of {tmp_path.name}",
    }
    return context_tree(tree)


def _host(counted: CountingSocket) -> dict[str, str]:
    return {"DOCKER_HOST": f"unix://{counted.path}"}


def test_only_the_layer_that_changed_goes_into_docker(
    engine: DockerEngine, counted: CountingSocket, project: Path, run_cogkit: RunCogkit
) -> None:
    build = ("build", "--context", project, "-t", "loaded/changed:1", "--load")
    first = run_cogkit(*build, env=_host(counted))
    assert first.returncode == 0, first.stderr
    assert counted.sent > BIG
    assert engine.docker("run", "--rm", "--network=none", "loaded/changed:1").startswith("first of")

    (project / "small").write_text("second")
    before = counted.sent
    second = run_cogkit(*build, "--debug", env=_host(counted))
    assert second.returncode == 0, second.stderr
    assert counted.sent - before < SMALL
    assert "1 of 3 layers were sent" in second.stderr
    assert engine.docker("run", "--rm", "--network=none", "loaded/changed:1") == "second"

    third = run_cogkit(*build, "--debug", env=_host(counted))
    assert "0 of 3 layers were sent" in third.stderr


def test_layers_of_an_image_that_docker_pulled_are_not_sent_again(
    engine: DockerEngine, counted: CountingSocket, run_cogkit: RunCogkit, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nCOPY small /\nCMD cat /small\n", "small": "on a pulled base"})
    engine.docker("pull", "--quiet", BUSYBOX_NAMES[0])
    done = run_cogkit("build", "--context", project, "-t", "loaded/pulled:1", "--load", env=_host(counted))
    assert done.returncode == 0, done.stderr
    assert counted.sent < SMALL
    assert engine.docker("run", "--rm", "--network=none", "loaded/pulled:1") == "on a pulled base"


def test_layers_that_docker_has_in_another_form_make_no_incomplete_image(
    engine: DockerEngine, project: Path, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.tar"
    output = f"type=docker,dest={plain},compression=uncompressed,force-compression=true"
    environment = {"DOCKER_HOST": engine.host}
    done = run_cogkit("build", "--context", project, "-t", "loaded/plain:1", "-o", output, env=environment)
    assert done.returncode == 0, done.stderr
    engine.docker("load", "--quiet", "--input", str(plain))
    done = run_cogkit("build", "--context", project, "-t", "loaded/packed:1", "--load", env=environment)
    assert done.returncode == 0, done.stderr
    engine.docker("rmi", "--force", "loaded/plain:1")
    assert engine.docker("run", "--rm", "--network=none", "loaded/packed:1").startswith("first of")
    saved = tmp_path / "saved.tar"
    engine.docker("save", "--output", str(saved), "loaded/packed:1")
    assert saved.stat().st_size > BIG


def test_the_engine_s_own_builder_loads_by_building(
    engine: DockerEngine, counted: CountingSocket, project: Path, run_cogkit: RunCogkit
) -> None:
    environment = {"BUILDKIT_HOST": "docker://", **_host(counted)}
    done = run_cogkit("build", "--context", project, "-t", "loaded/own:1", "--load", env=environment)
    assert done.returncode == 0, done.stderr
    assert counted.sent < 2 * BIG  # the context, once
    assert engine.docker("run", "--rm", "--network=none", "loaded/own:1").startswith("first of")


def test_the_engine_s_builder_writes_an_archive_or_says_what_does(
    engine: DockerEngine, project: Path, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    target = tmp_path / "image.tar"
    environment = {"BUILDKIT_HOST": "docker://", "DOCKER_HOST": engine.host}
    done = run_cogkit("build", "--context", project, "-o", f"type=oci,dest={target}", env=environment)
    if "io.containerd" in engine.docker("info", "--format", "{{.DriverStatus}}"):
        assert done.returncode == 0, done.stderr
        assert target.stat().st_size > BIG
    else:
        assert done.returncode == 1
        assert "docker save" in done.stderr
        assert not target.exists()


def test_what_the_engine_built_can_be_pushed(
    engine: DockerEngine, base_images: Registry, project: Path, run_cogkit: RunCogkit
) -> None:
    name = f"loaded-pushed-{project.parent.name.lower().replace('_', '-')}"
    environment = {"BUILDKIT_HOST": "docker://", "DOCKER_HOST": engine.host}
    image = f"{base_images.host}/{name}:1"
    done = run_cogkit("build", "--context", project, "-t", image, "--push", env=environment)
    assert done.returncode == 0, done.stderr
    assert len(base_images.manifest(name, "1")["layers"]) == 3
    refused = run_cogkit("build", "--context", project, "-t", "127.0.0.1:1/nobody/there", "--push", env=environment)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


# -------------------------------------------------------------------------------------------------------------- podman

COUNTING_PODMAN = """#!/bin/sh
[ "$1" = load ] || exec {podman} "$@"
cat > {folder}/archive
wc -c < {folder}/archive >> {folder}/sizes
exec {podman} "$@" < {folder}/archive
"""


def test_only_the_layer_that_changed_goes_into_podman(
    tmp_path: Path, base_images: Registry, project: Path, run_cogkit: RunCogkit
) -> None:
    folder = tmp_path / "counting"
    folder.mkdir()
    program = folder / "podman"
    program.write_text(COUNTING_PODMAN.format(podman=installed("podman"), folder=folder))
    program.chmod(0o755)
    podman = Podman(tmp_path, base_images)
    try:
        environment = {**podman.environment, "PATH": f"{folder}:{os.environ['PATH']}"}
        build = ("build", "--context", project, "-t", "loaded/podman:1", "-t", "loaded/podman:2")
        for text in ("first", "second"):
            (project / "small").write_text(text)
            done = run_cogkit(*build, "--load-into", "podman", env=environment)
            assert done.returncode == 0, done.stderr
            for tag in "12":
                assert podman.podman("run", "--rm", "--network=none", f"docker.io/loaded/podman:{tag}") == text
        first, second = map(int, (folder / "sizes").read_text().split())
        assert first > BIG
        assert second < SMALL
    finally:
        podman.remove()


# ----------------------------------------------------------------------------------------------------------- bad input


def test_without_an_engine_nothing_is_built(project: Path, run_cogkit: RunCogkit, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock", "PATH": str(empty)}
    for wish, complaint in (
        (("--load",), "no Docker engine at"),
        (("--load-into", "docker"), "no Docker engine at"),
        (("--load-into", "podman"), "no podman in PATH"),
    ):
        done = run_cogkit("build", "--context", project, "-t", "loaded/nowhere", *wish, env=environment)
        assert done.returncode == 2
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


def test_attestations_are_left_out(engine: DockerEngine, project: Path, run_cogkit: RunCogkit) -> None:
    build = ("build", "--context", project, "-t", "loaded/attested:1", "--provenance", "true", "--load")
    done = run_cogkit(*build, env={"DOCKER_HOST": engine.host})
    assert done.returncode == 0, done.stderr
    assert engine.docker("run", "--rm", "--network=none", "loaded/attested:1").startswith("first of")


def test_an_image_for_two_platforms_is_not_loaded(
    engine: DockerEngine, context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    done = run_cogkit(
        *("build", "--context", project, "-t", "loaded/two", "--platform", "linux/amd64,linux/arm64", "--load"),
        env={"DOCKER_HOST": engine.host},
    )
    assert done.returncode == 2
    assert "several platforms cannot be loaded" in done.stderr
