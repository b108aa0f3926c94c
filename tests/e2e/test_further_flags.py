"""Flags that change what the builder is told: annotations, limits of steps, proxies, Rego policies, no output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import logged, succeeded
from tests.real.registry import Registry


def test_annotations_are_on_what_their_type_says(
    context_tree: MakeTree, run_cogkit: RunCogkit, registry: Registry
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "annotated"})
    name = f"{registry.host}/annotations-by-type"
    flags = ("--annotation", "plain=one", "--annotation", "manifest:typed=two")
    succeeded(run_cogkit("build", project, "-t", name, "--push", *flags))
    assert registry.manifest("annotations-by-type", "latest")["annotations"] == {"plain": "one", "typed": "two"}


@pytest.mark.needs_newer_buildkit("limits of steps")
def test_limits_hold_for_steps(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    step = "RUN cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true\n"
    project = context_tree({"Dockerfile": f"FROM busybox\n{step}"})
    done = succeeded(run_cogkit("build", project, "--no-cache", "-m", "128m", "--progress", "plain"))
    assert str(128 << 20) in done.stderr


def test_proxies_of_dockers_config_reach_the_steps(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    (tmp_path / "docker").mkdir()
    config = {"proxies": {"default": {"httpProxy": "http://proxy.invalid:1"}}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps(config))
    project = context_tree({"Dockerfile": 'FROM busybox\nRUN echo "is=$HTTP_PROXY"\n'})
    done = run_cogkit(
        "build", project, "--no-cache", "--progress", "rawjson", env={"DOCKER_CONFIG": str(tmp_path / "docker")}
    )
    assert "is=http://proxy.invalid:1" in logged(succeeded(done))


def test_a_policy_that_cannot_be_evaluated_stops_the_build(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "a", "Dockerfile.rego": "package docker\n"})
    done = run_cogkit("build", project)
    assert (done.returncode, "Rego policy" in done.stderr) == (2, True), done.stderr
    succeeded(run_cogkit("build", project, "--policy", "disabled=true"))


def test_an_output_of_the_cache_alone_makes_nothing_and_warns_of_nothing(
    context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "a"})
    done = succeeded(run_cogkit("build", project, "-o", "type=cacheonly", "--progress", "none"))
    assert done.stdout + done.stderr == ""
