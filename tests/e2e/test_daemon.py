"""The real parts themselves are what the other tests take them for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunBuildctl
from tests.real.buildkitd import Buildkitd
from tests.real.registry import Registry

BUILD = ("build", "--frontend=dockerfile.v0", "--progress=plain", "--local=context=.", "--local=dockerfile=.")


def test_a_build_runs_on_busybox_from_the_mirror(context_tree: MakeTree, buildctl: RunBuildctl) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo it is $((6 * 7))\n"})
    assert "it is 42" in buildctl(*BUILD, "--no-cache", cwd=project).stderr


@pytest.mark.one_release_is_enough
def test_pip_uv_and_apt_install_for_real_in_the_python_image(context_tree: MakeTree, buildctl: RunBuildctl) -> None:
    project = context_tree(
        {
            "Dockerfile": """\
                FROM python:3.11-slim
                RUN pip install --no-cache-dir six==1.17.0 uv && python -c 'import six; print("six", six.__version__)'
                RUN uv pip install --system idna==3.10 && python -c 'import idna; print("idna", idna.__version__)'
                RUN apt-get update -qq && apt-get install -qqy --no-install-recommends tini && tini --version
                """
        }
    )
    log = buildctl(*BUILD, "--no-cache", cwd=project).stderr
    assert "six 1.17.0" in log
    assert "idna 3.10" in log
    assert "tini version" in log


@pytest.mark.one_release_is_enough
def test_the_frontend_that_a_syntax_line_names_comes_from_the_mirror(
    context_tree: MakeTree, buildctl: RunBuildctl
) -> None:
    project = context_tree({"Dockerfile": "# syntax=docker/dockerfile:1\nFROM busybox\nRUN echo from the image\n"})
    log = buildctl(*BUILD, "--no-cache", cwd=project).stderr
    assert "docker-image://docker.io/docker/dockerfile:1" in log
    assert "from the image" in log


def test_a_pushed_image_can_be_read_from_the_registry(
    context_tree: MakeTree, buildctl: RunBuildctl, registry: Registry
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /a\nLABEL made=here\n", "a": "content"})
    buildctl(*BUILD, f"--output=type=image,name={registry.host}/read-back:v1,push=true", cwd=project)
    assert registry.tags("read-back") == ["v1"]
    assert registry.config("read-back", "v1")["config"]["Labels"] == {"made": "here"}


def test_a_private_daemon_keeps_its_cache_over_a_kill(private_buildkitd: Buildkitd, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo once > /once\n"})
    command = [*private_buildkitd.buildctl_arguments(), *BUILD]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    private_buildkitd.kill()
    assert not private_buildkitd.running
    private_buildkitd.start()
    again = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    assert "CACHED" in again.stderr


def test_killing_a_daemon_ends_what_its_build_runs(
    private_buildkitd: Buildkitd, context_tree: MakeTree, eventually: Callable[..., None]
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN exec sleep 4321.25\n"})
    command = [*private_buildkitd.buildctl_arguments(), *BUILD]
    with subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL) as build:
        eventually(lambda: _running(b"4321.25"), within=30)
        private_buildkitd.kill()
        assert build.wait(60) != 0
    assert not _running(b"4321.25")


def test_a_daemon_with_tls_takes_clients_with_a_certificate_only(tls_buildkitd: Buildkitd) -> None:
    workers = [*tls_buildkitd.buildctl_arguments(), "debug", "workers"]
    assert subprocess.run(workers, capture_output=True, check=False).returncode == 0
    without = [workers[0], "--addr", tls_buildkitd.address, "--timeout", "2", "debug", "workers"]
    assert subprocess.run(without, capture_output=True, check=False).returncode != 0


def test_a_removed_daemon_leaves_no_mount(private_buildkitd: Buildkitd) -> None:
    private_buildkitd.kill()
    root = str(private_buildkitd.root)
    private_buildkitd.start()
    private_buildkitd.stop()
    private_buildkitd.kill()
    assert root not in Path("/proc/self/mountinfo").read_text()


def _running(argument: bytes) -> bool:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if argument in Path(entry.path, "cmdline").read_bytes().split(b"\0"):
                    return True
            except OSError:
                continue
    return False
