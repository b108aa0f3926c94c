"""``--gpus`` against a buildkitd that knows a harmless CDI device."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.registry import Registry
from tests.real.tools import BuildKitRelease

pytestmark = pytest.mark.needs_newer_buildkit("CDI devices")

SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "cogkit.test/harmless",
    "annotations": {"org.mobyproject.buildkit.device.autoallow": "true"},
    "devices": [{"name": "one", "containerEdits": {"env": ["HARMLESS=one"]}}],
}


@pytest.fixture
def daemon(base_images: Registry, buildkit_release: BuildKitRelease) -> Iterator[Buildkitd]:
    with tempfile.TemporaryDirectory(prefix="cogkit-", dir="/tmp") as folder:
        specs = Path(folder) / "cdi"
        specs.mkdir()
        (specs / "harmless.json").write_text(json.dumps(SPEC))
        config = f"[cdi]\nspecDirs = [{json.dumps(str(specs))}]\n"
        options = DaemonOptions(buildkit_release, base_images, config=config)
        daemon = Buildkitd(Path(folder) / "buildkitd", options)
        yield daemon
        daemon.remove()


def test_a_device_of_the_builder_is_in_the_container(
    daemon: Buildkitd, context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"Dockerfile": "FROM python:3.11-slim\n"}, name="p")
    script = "import os, sys; print(os.environ.get('HARMLESS'), sys.stdin.read()); sys.exit(5)"
    environment = {"BUILDKIT_HOST": daemon.address}
    command = ("python", "-c", script)
    for _ in range(2):  # never from the cache
        done = run_cogkit(
            "exec", "--gpus", "cogkit.test/harmless=one", *command, cwd=project, env=environment, input="in"
        )
        assert (done.stdout, done.returncode) == ("one in\n", 5), done.stderr
    done = run_cogkit("exec", "--gpus", "cogkit.test/harmless=two", *command, cwd=project, env=environment)
    assert done.returncode == 1
    assert "cogkit.test/harmless=two" in done.stderr
    done = run_cogkit("exec", "--gpus", "what", *command, cwd=project, env=environment)
    assert done.returncode == 2
    assert "names no devices" in done.stderr
